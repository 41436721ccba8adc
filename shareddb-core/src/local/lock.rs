//! One start or stop at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::file::{self, blocking};

const PATIENCE: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_millis(50);

/// Held while a start or stop goes on; the kernel releases it when its process ends in whatever way.
/// Children do not inherit it: the server must not hold it.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    pub(super) async fn acquire(path: &Path) -> Result<Self> {
        Self::acquire_within(path, PATIENCE).await
    }

    async fn acquire_within(path: &Path, patience: Duration) -> Result<Self> {
        let deadline = Instant::now() + patience;
        let shown = path.to_owned();
        loop {
            let path = shown.clone();
            // A blocking lock would leave its thread behind when the caller gives up.
            match blocking(move || attempt(&path)).await? {
                Attempt::Locked(file) => return Ok(Self { _file: file }),
                Attempt::Held { by } if Instant::now() >= deadline => {
                    return Err(Error::timeout(
                        "local_busy",
                        format!("another start or stop of the local server goes on{by}; {}", shown.display()),
                    )
                    .with_hint("wait for it, or end that process if it hangs, then run this again"));
                }
                Attempt::Held { .. } => tokio::time::sleep(INTERVAL).await,
            }
        }
    }
}

enum Attempt {
    Locked(File),
    Held { by: String },
}

fn attempt(path: &Path) -> Result<Attempt> {
    let failed = |e| Error::from_io(format!("cannot lock {}", path.display()), e);
    let mut options = OpenOptions::new();
    let mut file =
        file::open(options.read(true).write(true).create(true).truncate(false).mode(0o600), path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Attempt::Held { by: holder(&mut file) }),
        Err(TryLockError::Error(e)) => return Err(failed(e)),
    }
    // Only for the message to those who wait in vain, so a full disk does not matter.
    let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
    Ok(Attempt::Locked(file))
}

fn holder(file: &mut File) -> String {
    let mut pid = String::new();
    let read = file.rewind().and_then(|()| file.read_to_string(&mut pid));
    if read.is_err() || pid.parse::<u32>().is_err() {
        return String::new();
    }
    match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!(" in process {pid} ({})", name.trim()),
        Err(_) => format!(" in process {pid}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_second_waits_and_learns_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = Lock::acquire(&path).await.unwrap();
        let error = Lock::acquire_within(&path, Duration::from_millis(60)).await.unwrap_err();
        assert!(matches!(error, Error::Timeout(_)));
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        let (second, ()) = tokio::join!(Lock::acquire(&path), async { drop(first) });
        assert!(second.is_ok());
    }
}
