//! PostgreSQL's own programs, run with a login of ours.

use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};

use rustix::process::Signal;
use secrecy::ExposeSecret as _;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::connection::{ConnectionConfig, LibpqEnvironment};
use crate::error::{Error, Result};
use crate::local::Binaries;

/// What is kept of a program's complaints.
const COMPLAINTS_KEPT: usize = 16 << 10;

/// What the programs say when the server or somebody keeps them from their work, which says nothing of what they read.
const HINDRANCES: [&str; 9] = [
    "No space left",
    "out of memory",
    "out of shared memory",
    "server closed the connection",
    "terminating connection",
    "connection to server",
    "the database system is",
    "canceling statement",
    "terminated by user",
];
/// The search path is empty in a dump and in a load, so that nobody's objects are taken for others.
const UNQUALIFIED: &str = "a function that an index, a check, a generated column or a view uses finds its own names by the \
     search path only: ALTER FUNCTION … SET search_path = … in the app, then a new backup";

const KILLED: &str = "if nobody did that by hand, the machine or the container ran out of memory: give it more";

/// A program that runs. Dropping it kills it.
pub(crate) struct Program {
    name: &'static str,
    pub(crate) child: Child,
    complaints: JoinHandle<String>,
    /// Read by the program at each login.
    _environment: LibpqEnvironment,
}

impl Program {
    /// Starts one, with its connection in the environment: everybody may read the arguments of a process.
    ///
    /// # Errors
    /// `Unavailable` with the code `tool_missing`, and those of [`ConnectionConfig::libpq_environment`].
    pub(crate) fn start(
        binaries: &Binaries,
        name: &'static str,
        config: &ConnectionConfig,
        arguments: &[String],
    ) -> Result<Self> {
        let environment = config.libpq_environment()?;
        let mut command = Command::new(binaries.program(name));
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        // What is typed at a terminal is for us: we end it.
        command.process_group(0);
        // Variables of libpq would mix with ours, and what is read from messages has to be in English.
        command.env_clear().env("LC_ALL", "C");
        for (variable, value) in environment.variables() {
            command.env(variable, value.expose_secret());
        }
        let mut child = command.spawn().map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                Error::unavailable("tool_missing", format!("there is no {name} in {}", binaries.dir.display()))
                    .with_source(error)
            }
            _ => Error::from_io(format!("cannot run {name}"), error),
        })?;
        let complaints = tokio::spawn(complaints(child.stderr.take()));
        Ok(Self { name, child, complaints, _environment: environment })
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// `ToolFailed` with what it said, also when it said something and ended well.
    pub(crate) async fn finish(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        let status = self.child.wait().await.map_err(|error| Error::from_io("cannot wait for a program", error))?;
        let said = self.complaints.await.unwrap_or_default();
        match status.success() && said.is_empty() {
            true => Ok(()),
            false => Err(failed(self.name, status, &said)),
        }
    }
}

fn failed(name: &str, status: ExitStatus, said: &str) -> Error {
    let lost =
        ["function", "relation", "type", "operator"].iter().any(|kind| said.contains(&format!("ERROR:  {kind} ")));
    let ended_by = |signals: &[Signal]| signals.iter().any(|signal| status.signal() == Some(signal.as_raw()));
    let (code, hint) = match () {
        () if ended_by(&[Signal::KILL]) => ("tool_hindered", Some(KILLED)),
        () if ended_by(&[Signal::TERM, Signal::INT, Signal::HUP]) => ("tool_hindered", None),
        () if HINDRANCES.iter().any(|words| said.contains(words)) => ("tool_hindered", None),
        () if lost && said.contains("does not exist") => ("names_unqualified", Some(UNQUALIFIED)),
        () => ("tool_failed", None),
    };
    let lines: Vec<&str> = without_rows(said).filter(|line| !line.trim().is_empty()).take(20).collect();
    let said = if lines.is_empty() { "without a word".to_owned() } else { lines.join("; ") };
    let error = Error::tool_failed(code, format!("{name} ended with {status}: {said}"));
    hint.into_iter().fold(error, Error::with_hint)
}

/// Leaves out what the server quotes of rows: what is said here is kept beside the backup, where that is encrypted, too. A function
/// of the app's may still say what it likes.
fn without_rows(said: &str) -> impl Iterator<Item = &str> {
    let mut part = Part::Message;
    said.lines().filter_map(move |line| {
        let begins = |words: &[&str]| words.iter().any(|word| line.starts_with(word));
        let context = line.strip_prefix("CONTEXT:  ");
        if context.is_some() {
            part = Part::Context;
        } else if begins(&["DETAIL:", "Command was: INSERT", "Command was: COPY"]) {
            part = Part::Row;
        } else if begins(&["pg_dump:", "pg_restore:", "ERROR:", "HINT:", "WARNING:", "Command was:"]) {
            part = Part::Message;
        }
        match part {
            Part::Row => None,
            Part::Message if line.contains("invalid input") => line.split(": \"").next(),
            Part::Message => Some(line),
            // What is quoted may have lines, too.
            Part::Context => match context.unwrap_or(line) {
                place if place.starts_with("COPY ") => place.split(':').next(),
                place if place.starts_with("PL/pgSQL function ") || place.starts_with("SQL function ") => Some(place),
                _ => None,
            },
        }
    })
}

/// Which part of what the server says a line belongs to.
enum Part {
    Message,
    Row,
    /// Where it came about, the innermost first.
    Context,
}

/// Reads to the end, whatever is kept: a program whose pipe is full hangs.
async fn complaints(stream: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let (mut kept, mut chunk) = (Vec::new(), vec![0; 4096]);
    while let Ok(length @ 1..) = stream.read(&mut chunk).await {
        let room = COMPLAINTS_KEPT - kept.len();
        kept.extend_from_slice(&chunk[..length.min(room)]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the programs say ends up in errors, and in the record of a check.
    #[test]
    fn no_row_is_quoted() {
        let said = "pg_restore: error: COPY failed for table \"cust\": ERROR:  new row for relation \"cust\" violates check constraint \"c\"\n\
            DETAIL:  Failing row contains (Alice, SSN-078\nover two lines).\n\
            CONTEXT:  COPY cust, line 1: \"Alice\tSSN-078\"\n\
            pg_restore: error: could not execute query: ERROR:  no\n\
            CONTEXT:  SQL function \"norm\" during inlining\n\
            pg_restore: error: ERROR:  no\n\
            CONTEXT:  PL/pgSQL function plain(text) line 1 at RETURN\nCOPY cust, line 1: \"Alice\tSSN-078\"\n\
            pg_restore: error: ERROR:  invalid input syntax for type integer: \"SSN-078\"\n\
            CONTEXT:  COPY cust, line 2, column n: \"Alice\nSSN-078\"\n\
            pg_restore: error: ERROR:  invalid input syntax for type json\n\
            CONTEXT:  JSON data, line 1: {\"ssn\": SSN-078\n\
            Command was: INSERT INTO public.cust VALUES ('Alice',\n'SSN-078');\n\
            HINT:  none";
        let error = failed("pg_restore", ExitStatus::from_raw(256), said).to_string();
        for hidden in ["Alice", "SSN", "two lines"] {
            assert!(!error.contains(hidden), "{error}");
        }
        for shown in [
            "check constraint \"c\"",
            "COPY cust, line 1;",
            "\"norm\" during inlining",
            "plain(text) line 1",
            "line 2, column n;",
            "HINT:  none",
        ] {
            assert!(error.contains(shown), "{error}");
        }
    }

    #[test]
    fn a_program_that_was_killed_says_nothing_of_what_it_read() {
        for (status, said, code) in [
            (ExitStatus::from_raw(9), "", "tool_hindered"),
            (ExitStatus::from_raw(15), "half a word", "tool_hindered"),
            (ExitStatus::from_raw(256), "pg_restore: terminated by user", "tool_hindered"),
            (ExitStatus::from_raw(11), "", "tool_failed"),
            (ExitStatus::from_raw(256), "pg_restore: error: did not find magic string", "tool_failed"),
        ] {
            assert_eq!(failed("pg_restore", status, said).code(), code, "{status} {said}");
        }
    }
}
