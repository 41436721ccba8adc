//! Whether a server runs on a data directory, told by its `postmaster.pid`.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::port::who_listens;
use crate::error::{Error, Result};
use crate::file;

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

    /// Whether its command line names a file of settings that is not `file`, under whatever path: the home was moved.
    pub(super) fn reads_settings_elsewhere(&self, file: &Path) -> bool {
        let arguments = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let arguments = arguments.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        let mut named = arguments.filter_map(|argument| argument.strip_prefix("config_file=").map(PathBuf::from));
        named.next_back().is_some_and(|named| file::read(&named).ok() != file::read(file).ok())
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
    Ok((owner_of(found.pid, data) == Owner::Ours).then_some(found))
}

/// Removes a file that outlived its server where PostgreSQL itself would refuse to start: when its
/// number now belongs to another program of the same user, or when it is empty after a loss of power or
/// a full disk. The caller holds the lock, so none of us is about to write it.
///
/// # Errors
/// `Conflict` while something answers on the server's port, which is `stored` where the file does not say: a server
/// ends when its file goes.
pub(super) fn remove_stale(data: &Path, stored: Option<u16>) -> Result<()> {
    let file = data.join(PID_FILE);
    let (port, why) = match read(data)? {
        Some(found) if owner_of(found.pid, data) == Owner::Other => {
            (Some(found.port), format!("names process {}, which does not work on these data", found.pid))
        }
        None if is_empty(&file) => (stored, "is empty".to_owned()),
        _ => return Ok(()),
    };
    if let Some(port) = port.filter(|port| answers(*port)) {
        return Err(Error::conflict(
            "server_unclear",
            format!("{} {why}, but something answers on the server's port {port}", file.display()),
        )
        .with_hint(format!(
            "`{}` shows which process: end it, or, when it is no server on these data, remove the file; then run \
             this again",
            who_listens(port)
        )));
    }
    tracing::info!(file = %file.display(), "removing the process file of a server that is gone");
    fs::remove_file(&file).map_err(|e| Error::from_io(format!("cannot remove {}", file.display()), e))
}

/// What to do about a file that holds no server's number, which PostgreSQL refuses to start beside.
pub(super) fn hint_if_damaged(data: &Path) -> Option<String> {
    let file = data.join(PID_FILE);
    // A number with a minus is that of a single-user server, which PostgreSQL tells itself.
    let damaged = file::read_text(&file).is_ok_and(|text| Postmaster::parse(&text).is_none() && !text.starts_with('-'));
    damaged.then(|| format!("when no PostgreSQL works on these data, remove {}, then run this again", file.display()))
}

fn is_empty(file: &Path) -> bool {
    // A server fills the file within microseconds of making it; a young one may be somebody else's start.
    let settled = |meta: &fs::Metadata| meta.modified().ok()?.elapsed().ok().map(|age| age > Duration::from_secs(1));
    fs::metadata(file).is_ok_and(|meta| meta.len() == 0 && settled(&meta).unwrap_or(true))
}

fn answers(port: u16) -> bool {
    match TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, port).into(), Duration::from_secs(1)) {
        Ok(_) => true,
        // Somebody listens who does not get round to it.
        Err(e) => e.kind() == io::ErrorKind::TimedOut,
    }
}

fn read(data: &Path) -> Result<Option<Postmaster>> {
    let file = data.join(PID_FILE);
    match file::read_text(&file) {
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
    let directory = PathBuf::from(format!("/proc/{pid}/cwd"));
    if fs::metadata(&directory).is_ok() {
        return if is_same(&directory, data) { Owner::Ours } else { Owner::Other };
    }
    match fs::read(format!("/proc/{pid}/cmdline")) {
        Ok(arguments) if may_serve(&arguments, pid, data) => Owner::Ours,
        Ok(_) => Owner::Other,
        Err(_) if Path::new("/proc/self").exists() => Owner::Nobody, // it ended meanwhile
        Err(_) => Owner::Ours,
    }
}

/// Whether two paths lead to one data directory, as with a bind mount. File systems that show another's, such as
/// NFS and overlays, have numbers of their own: there it is one if it holds the same process file.
fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    let process_file = |path| process_file(path).ok().filter(|(text, ..)| !text.is_empty());
    identity(one).is_some_and(|found| identity(other) == Some(found))
        // The server may write it between the two looks.
        || (0..3).any(|_| process_file(one).is_some_and(|found| process_file(other) == Some(found)))
}

/// Text and time of change of a process file. Nobody can set that time, so a copy of the data never has the same.
fn process_file(data: &Path) -> io::Result<(String, i64, i64)> {
    let open = file::open(File::options().read(true), &data.join(PID_FILE))?;
    let meta = open.metadata()?;
    Ok((file::text(open)?, meta.ctime(), meta.ctime_nsec()))
}

/// Whether a process with this command line (arguments that end with zero bytes; empty for a dead process that its
/// parent has not looked after) may be the server on `data`: any server but one that evidently has other data.
fn may_serve(arguments: &[u8], pid: u32, data: &Path) -> bool {
    let mut arguments = arguments.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let program = arguments.next().unwrap_or_default();
    let named = Path::new(program.as_ref()).file_name().is_some_and(|name| name == "postgres" || name == "postmaster");
    let directory = arguments.skip_while(|argument| argument != "-D").nth(1);
    named && !directory.is_some_and(|directory| serves_elsewhere(Path::new(directory.as_ref()), pid, data))
}

/// Whether process `pid` is surely the server on `directory`, and that is not `data`. What a relative path, or one that
/// is not to be seen from here, meant to that process is not known.
fn serves_elsewhere(directory: &Path, pid: u32, data: &Path) -> bool {
    let user = |path: &Path| fs::metadata(path).map(|meta| meta.uid()).ok();
    let names_it = || read(directory).is_ok_and(|found| found.is_some_and(|found| found.pid == pid));
    let of_another_user = || user(Path::new(&format!("/proc/{pid}"))).is_some_and(|other| user(data) != Some(other));
    directory.is_absolute() && !is_same(directory, data) && (names_it() || of_another_user())
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
    fn any_server_may_be_ours_that_has_no_other_data() {
        let dir = tempfile::tempdir().unwrap();
        let (data, other) = (dir.path().join("data"), dir.path().join("other"));
        fs::create_dir(&data).unwrap();
        fs::create_dir(&other).unwrap();
        let pid = std::process::id();
        let may_serve = |arguments: &str| may_serve(arguments.replace(' ', "\0").as_bytes(), pid, &data);
        let on = |directory: &Path| format!("/usr/lib/postgresql/15/bin/postgres -D {} -c x=y ", directory.display());
        assert!(may_serve(&on(&data)) && may_serve("postgres ") && may_serve("postmaster -D data "));
        assert!(may_serve(&on(Path::new("/not/seen/from/here"))));
        assert!(may_serve(&on(&other)));
        fs::write(other.join(PID_FILE), WHOLE.replace("4711", &pid.to_string())).unwrap();
        assert!(!may_serve(&on(&other)));
        assert!(!may_serve(&on(&data).replace("postgres -D", "sleep -D")) && !may_serve(""));
    }

    /// A process that works in a directory, until it is dropped.
    struct Worker(std::process::Child);

    impl Worker {
        fn in_directory(directory: &Path) -> Self {
            Self(std::process::Command::new("sleep").arg("60").current_dir(directory).spawn().unwrap())
        }
    }

    impl Drop for Worker {
        fn drop(&mut self) {
            let _ = self.0.kill().and_then(|()| self.0.wait());
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_same_process_file_is_the_same_server_and_a_copy_of_it_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let [data, seen, copied] = ["data", "seen", "copied"].map(|name| dir.path().join(name));
        for directory in [&data, &seen, &copied] {
            fs::create_dir(directory).unwrap();
        }
        let worker = Worker::in_directory(&data);
        let pid = worker.0.id();
        fs::write(data.join(PID_FILE), WHOLE.replace("4711", &pid.to_string())).unwrap();
        // Another directory by its numbers, with the very same file.
        fs::hard_link(data.join(PID_FILE), seen.join(PID_FILE)).unwrap();
        fs::copy(data.join(PID_FILE), copied.join(PID_FILE)).unwrap();
        assert_eq!(find(&data).unwrap().unwrap().pid, pid);
        assert_eq!(find(&seen).unwrap().unwrap().pid, pid);
        assert_eq!(find(&copied).unwrap(), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn nothing_is_stale_while_the_port_answers() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(PID_FILE);
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let us = std::process::id().to_string();
        for text in [WHOLE.replace("4711", &us).replace("24001", &port.to_string()), String::new()] {
            fs::write(&file, &text).unwrap();
            let earlier = std::time::SystemTime::now() - Duration::from_secs(10);
            File::options().write(true).open(&file).unwrap().set_modified(earlier).unwrap();
            let error = remove_stale(dir.path(), Some(port)).unwrap_err();
            assert!(matches!(error, Error::Conflict(_)));
            assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
            assert!(text.is_empty() || error.to_string().contains(&format!("process {us}")), "{error}");
            assert!(error.hint().unwrap().contains(&port.to_string()));
            assert!(file.exists());
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_file_of_another_program_is_stale() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(PID_FILE);
        // Bound and given back: nobody listens there.
        let port = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let us = std::process::id().to_string();
        fs::write(&file, WHOLE.replace("4711", &us).replace("24001", &port.to_string())).unwrap();
        assert_eq!(find(dir.path()).unwrap(), None);
        remove_stale(dir.path(), None).unwrap();
        assert!(!file.exists());
        assert_eq!(find(dir.path()).unwrap(), None);
        fs::write(&file, "").unwrap();
        remove_stale(dir.path(), None).unwrap();
        assert!(file.exists(), "a young one may be a start in progress");
        let earlier = std::time::SystemTime::now() - Duration::from_secs(10);
        File::options().write(true).open(&file).unwrap().set_modified(earlier).unwrap();
        remove_stale(dir.path(), None).unwrap();
        assert!(!file.exists());
        // No number at all: only a person can tell whether a server works there.
        fs::write(&file, "abc\n").unwrap();
        assert!(hint_if_damaged(dir.path()).unwrap().contains("postmaster.pid"));
        fs::write(&file, WHOLE).unwrap();
        assert_eq!(hint_if_damaged(dir.path()), None);
        // A single-user server is at work: PostgreSQL says so itself.
        fs::write(&file, "-1\n").unwrap();
        assert_eq!(hint_if_damaged(dir.path()), None);
        remove_stale(dir.path(), None).unwrap();
        assert!(file.exists());
    }
}
