//! What PostgreSQL's programs say when they fail.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::account::Account;
use super::home::LocalHome;
use super::port;
use crate::error::{Error, Result};
use crate::file;

/// A log longer than this is put aside at the next start; one such is kept.
const LONG: u64 = 10 << 20;
const SHOWN_LINES: usize = 10;
const SHOWN_BYTES: u64 = 64 << 10;

/// The server's log, and where the part of this start begins.
#[derive(Debug)]
pub(super) struct ServerLog {
    path: PathBuf,
    start: u64,
}

impl ServerLog {
    /// Makes the log writable for the server.
    pub(super) fn open(home: &LocalHome, account: &Account) -> Result<Self> {
        let path = home.log_file();
        let open = || {
            if fs::metadata(&path).is_ok_and(|meta| meta.len() > LONG) {
                fs::rename(&path, path.with_extension("log.1"))?;
            }
            let file = file::open(OpenOptions::new().append(true).create(true).mode(0o600), &path)?;
            Ok(file.metadata()?.len())
        };
        let start = open().map_err(|e| Error::from_io(format!("cannot write {}", path.display()), e))?;
        account.own(&path)?;
        Ok(Self { path, start })
    }

    /// For what else is said about this start.
    pub(super) fn appender(&self) -> Result<File> {
        let file = file::open(OpenOptions::new().append(true), &self.path);
        file.map_err(|e| Error::from_io(format!("cannot write {}", self.path.display()), e))
    }

    /// Why this start failed, with its last lines.
    pub(super) fn explain(&self, home: &LocalHome, port: u16) -> Error {
        let text = self.since_start().unwrap_or_default();
        if text.contains("could not bind") && text.contains("Address already in use") {
            return port::taken(home, port);
        }
        explain("server_start_failed", "the local server did not start", &text)
            .with_hint(hint(&text).map_or_else(|| format!("more stands in {}", self.path.display()), str::to_owned))
    }

    fn since_start(&self) -> io::Result<String> {
        let mut file = file::open(OpenOptions::new().read(true), &self.path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(self.start.max(length.saturating_sub(SHOWN_BYTES))))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Why initdb failed, with its last lines.
pub(super) fn initdb_failure(output: &str) -> Error {
    let error = explain("initdb_failed", "initdb could not make the data directory", output);
    match hint(output) {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

fn explain(code: &'static str, what: &str, text: &str) -> Error {
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let tail = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n  ");
    let message = if tail.is_empty() { what.to_owned() } else { format!("{what}:\n  {tail}") };
    if text.contains(FULL) { Error::unavailable("disk_full", message) } else { Error::tool_failed(code, message) }
}

const FULL: &str = "No space left on device";

/// What to do about the causes that machines have.
fn hint(text: &str) -> Option<&'static str> {
    // A full /dev/shm says so with the same words as a full disk.
    let causes = [
        (
            "pre-existing shared memory block",
            "processes of a server that was killed still work on these data: end them, then run this again",
        ),
        ("could not resize shared memory", "give this machine or container more shared memory (/dev/shm)"),
        ("could not create shared memory", "raise the kernel's limit of shared memory, or end another server"),
        ("could not map anonymous shared memory", "not enough memory: end other programs"),
        ("could not create semaphores", "raise the kernel's limit of semaphores (kernel.sem), or end another server"),
        (FULL, "free some space on that disk, then run it again"),
        ("Cannot allocate memory", "not enough memory: end other programs"),
    ];
    causes.into_iter().find(|(words, _)| text.contains(words)).map(|(_, hint)| hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_causes_have_a_remedy() {
        let error = initdb_failure("creating subdirectories ... ok\ninitdb: error: x: No space left on device\n");
        assert_eq!(error.code(), "disk_full");
        assert!(error.hint().unwrap().contains("space"));
        assert!(error.to_string().contains("initdb: error"));
        let error = initdb_failure("something else");
        assert_eq!((error.code(), error.hint()), ("initdb_failed", None));
    }

    #[test]
    fn only_this_start_is_shown_and_only_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let home = LocalHome::at(dir.path());
        fs::write(home.log_file(), "an old start\n").unwrap();
        let log = ServerLog { path: home.log_file(), start: 13 };
        let mut text = "an old start\n".to_owned();
        text.extend((0..30).map(|n| format!("line {n}\n")));
        fs::write(home.log_file(), &text).unwrap();
        let message = log.explain(&home, 24001).to_string();
        assert!(message.contains("line 29") && !message.contains("line 19\n") && !message.contains("old"), "{message}");
        fs::write(home.log_file(), text + "could not bind IPv4 address: Address already in use\n").unwrap();
        assert_eq!(log.explain(&home, 24001).code(), "port_taken");
    }
}
