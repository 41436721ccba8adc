//! PostgreSQL's own programs, run with a login of ours.

use std::io::ErrorKind;
use std::process::{ExitStatus, Stdio};

use secrecy::ExposeSecret as _;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::connection::{ConnectionConfig, LibpqEnvironment};
use crate::error::{Error, Result};
use crate::local::Binaries;

/// What is kept of a program's complaints.
const COMPLAINTS_KEPT: usize = 16 << 10;

/// What the programs say when the server keeps them from their work, which says nothing of what they read.
const HINDRANCES: [&str; 8] = [
    "No space left",
    "out of memory",
    "out of shared memory",
    "server closed the connection",
    "terminating connection",
    "connection to server",
    "the database system is",
    "canceling statement",
];
/// The search path is empty in a dump and in a load, so that nobody's objects are taken for others.
const UNQUALIFIED: &str = "a function that an index, a check, a generated column or a view uses finds its own names by the \
     search path only: ALTER FUNCTION … SET search_path = … in the app, then a new backup";

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
    let (code, hint) = match () {
        () if HINDRANCES.iter().any(|words| said.contains(words)) => ("tool_hindered", None),
        () if lost && said.contains("does not exist") => ("names_unqualified", Some(UNQUALIFIED)),
        () => ("tool_failed", None),
    };
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).take(20).collect();
    let said = if lines.is_empty() { "without a word".to_owned() } else { lines.join("; ") };
    let error = Error::tool_failed(code, format!("{name} ended with {status}: {said}"));
    hint.into_iter().fold(error, Error::with_hint)
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
