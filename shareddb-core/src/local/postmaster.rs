//! Whether a server runs on a data directory, told by its `postmaster.pid`.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::error::{Error, Result};

const PID_FILE: &str = "postmaster.pid";

/// A running server's first process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Postmaster {
    pub(super) pid: u32,
    pub(super) port: u16,
    status: String,
}

impl Postmaster {
    /// Whether it takes sessions, by its own account.
    pub(super) fn is_ready(&self) -> bool {
        self.status == "ready"
    }

    /// Whether it is shutting down.
    pub(super) fn is_stopping(&self) -> bool {
        self.status == "stopping"
    }

    /// Asks for a fast shutdown: sessions end, a checkpoint is written.
    pub(super) fn interrupt(&self) -> Result<()> {
        let Some(pid) = to_pid(self.pid) else { return Ok(()) };
        match rustix::process::kill_process(pid, Signal::INT) {
            Err(e) if e != rustix::io::Errno::SRCH => {
                Err(Error::from_io(format!("cannot stop the server, process {}", self.pid), e.into()))
            }
            _ => Ok(()),
        }
    }

    /// Lines of the file: pid, data directory, start time, port, socket directory, listen address,
    /// shared memory, status; the last ones follow a moment after the first.
    fn parse(text: &str) -> Option<Self> {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        Some(Self {
            pid: lines.first()?.parse().ok()?,
            port: lines.get(3)?.parse().ok()?,
            status: lines.get(7).copied().unwrap_or("starting").to_owned(),
        })
    }
}

/// The server that runs on `data`, or `None` when there is none or its file outlived it.
pub(super) fn find(data: &Path) -> Result<Option<Postmaster>> {
    let Some(found) = read(data)? else { return Ok(None) };
    // A process shows the real path of its directory.
    let data = fs::canonicalize(data).unwrap_or_else(|_| data.to_owned());
    Ok((owner_of(found.pid, &data) == Owner::Ours).then_some(found))
}

/// Removes a file that outlived its server where PostgreSQL itself would refuse to start: when its
/// number now belongs to another program of the same user, or when it is empty after a loss of power or
/// a full disk. The caller holds the lock, so none of us is about to write it.
pub(super) fn remove_stale(data: &Path) -> Result<()> {
    if !is_stale(data)? {
        return Ok(());
    }
    let file = data.join(PID_FILE);
    tracing::info!(file = %file.display(), "removing the process file of a server that is gone");
    fs::remove_file(&file).map_err(|e| Error::from_io(format!("cannot remove {}", file.display()), e))
}

fn is_stale(data: &Path) -> Result<bool> {
    if let Some(found) = read(data)? {
        return Ok(owner_of(found.pid, data) == Owner::Other);
    }
    // A server fills the file within microseconds of making it; a young one may be somebody else's start.
    let settled = |meta: &fs::Metadata| meta.modified().ok()?.elapsed().ok().map(|age| age > Duration::from_secs(1));
    Ok(fs::metadata(data.join(PID_FILE)).is_ok_and(|meta| meta.len() == 0 && settled(&meta).unwrap_or(true)))
}

fn read(data: &Path) -> Result<Option<Postmaster>> {
    let file = data.join(PID_FILE);
    match fs::read_to_string(&file) {
        // Not whole: a server that has begun this very moment, or died while it did.
        Ok(text) => Ok(Postmaster::parse(&text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::from_io(format!("cannot read {}", file.display()), e)),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Owner {
    Ours,
    Other,
    Nobody,
}

/// Whose process `pid` is. Where nothing more is known than that it lives, it counts as the server:
/// a second server on the same data would destroy them.
fn owner_of(pid: u32, data: &Path) -> Owner {
    let Some(number) = to_pid(pid) else { return Owner::Nobody };
    if rustix::process::test_kill_process(number) == Err(rustix::io::Errno::SRCH) {
        return Owner::Nobody;
    }
    // A server works in its data directory. In a container root may not be allowed to look.
    if let Ok(cwd) = fs::read_link(format!("/proc/{pid}/cwd")) {
        return if cwd == data { Owner::Ours } else { Owner::Other };
    }
    match fs::read(format!("/proc/{pid}/cmdline")) {
        Ok(arguments) if is_server_of(&arguments, data) => Owner::Ours,
        Ok(_) => Owner::Other,
        Err(_) if Path::new("/proc/self").exists() => Owner::Nobody, // it ended meanwhile
        Err(_) => Owner::Ours,
    }
}

/// Whether a command line (arguments that end with zero bytes; empty for a dead process that its
/// parent has not looked after) is that of a server on `data`, or of one whose directory it does not tell.
fn is_server_of(arguments: &[u8], data: &Path) -> bool {
    let mut arguments = arguments.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let program = arguments.next().unwrap_or_default();
    let named = Path::new(program.as_ref()).file_name().is_some_and(|name| name == "postgres" || name == "postmaster");
    let mut arguments = arguments.skip_while(|argument| argument != "-D").skip(1);
    named
        && arguments.next().is_none_or(|directory| {
            let directory = Path::new(directory.as_ref());
            // What a relative path meant to that process is not known.
            directory.is_relative() || fs::canonicalize(directory).as_deref().unwrap_or(directory) == data
        })
}

fn to_pid(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "4711\n/h/data\n1763996400\n24001\n\n127.0.0.1\n  123 45\nready   \n";

    #[test]
    fn the_file_is_read_whole_early_and_broken() {
        let server = Postmaster::parse(WHOLE).unwrap();
        assert_eq!((server.pid, server.port, server.is_ready()), (4711, 24001, true));
        let early = Postmaster::parse("4711\n/h/data\n1763996400\n24001\n\n").unwrap();
        assert!(!early.is_ready());
        assert!(Postmaster::parse(&WHOLE.replace("ready", "stopping")).unwrap().is_stopping());
        assert_eq!(Postmaster::parse(""), None);
        assert_eq!(Postmaster::parse("4711\n"), None);
        // A single-user server writes its number with a minus.
        assert_eq!(Postmaster::parse(&WHOLE.replace("4711", "-4711")), None);
    }

    #[test]
    fn command_lines_are_told_apart() {
        let data = Path::new("/h/data");
        assert!(is_server_of(b"/usr/lib/postgresql/15/bin/postgres\0-D\0/h/data\0-c\0x=y\0", data));
        assert!(is_server_of(b"postgres\0", data));
        assert!(is_server_of(b"postgres\0-D\0data\0", data));
        assert!(!is_server_of(b"/usr/bin/postgres\0-D\0/var/lib/postgresql/15/main\0", data));
        assert!(!is_server_of(b"sleep\0-D\0/h/data\0", data));
        assert!(!is_server_of(b"", data));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_file_of_another_program_is_stale() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(PID_FILE);
        fs::write(&file, WHOLE.replace("4711", &std::process::id().to_string())).unwrap();
        assert_eq!(find(dir.path()).unwrap(), None);
        remove_stale(dir.path()).unwrap();
        assert!(!file.exists());
        assert_eq!(find(dir.path()).unwrap(), None);
        fs::write(&file, "").unwrap();
        remove_stale(dir.path()).unwrap();
        assert!(file.exists(), "a young one may be a start in progress");
        let earlier = std::time::SystemTime::now() - Duration::from_secs(10);
        fs::File::options().write(true).open(&file).unwrap().set_modified(earlier).unwrap();
        remove_stale(dir.path()).unwrap();
        assert!(!file.exists());
        // A single-user server is at work: PostgreSQL says so itself.
        fs::write(&file, "-1\n").unwrap();
        remove_stale(dir.path()).unwrap();
        assert!(file.exists());
    }
}
