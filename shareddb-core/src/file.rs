//! Small files whose place somebody else may have filled, and work on files beside async code.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
#[cfg(feature = "backup")]
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::error::{Error, Result};

/// Kubernetes takes no more in a whole Secret, and no file of ours comes near it.
pub(crate) const SIZE_MAX: usize = 1 << 20;

/// Opens a regular file. Without waiting: an ordinary open of a pipe waits for its other end, where neither a
/// timeout nor a signal reaches it.
///
/// # Errors
/// `InvalidData` for a pipe, a socket or a device, and `IsADirectory` for a folder.
pub(crate) fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = match options.custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path) {
        // A pipe that nobody reads, or a socket.
        Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => {
            return Err(odd("not a regular file"));
        }
        file => file?,
    };
    match file.metadata()?.file_type() {
        kind if kind.is_file() => Ok(file),
        kind if kind.is_dir() => Err(ErrorKind::IsADirectory.into()),
        _ => Err(odd("not a regular file")),
    }
}

/// Reads a regular file.
///
/// # Errors
/// As [`open`], and `InvalidData` for a file of more than [`SIZE_MAX`] bytes.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    contents(open(OpenOptions::new().read(true), path)?)
}

/// Reads a regular file of text.
///
/// # Errors
/// As [`read`], and `InvalidData` for what is not UTF-8.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    text(open(OpenOptions::new().read(true), path)?)
}

/// The text in an open file.
///
/// # Errors
/// `InvalidData` for more than [`SIZE_MAX`] bytes, and for what is not UTF-8.
pub(crate) fn text(file: File) -> io::Result<String> {
    // Not the whole error: it holds the bytes, which may be a password.
    String::from_utf8(contents(file)?).map_err(|error| io::Error::new(ErrorKind::InvalidData, error.utf8_error()))
}

/// What is in an open file.
///
/// # Errors
/// `InvalidData` for more than [`SIZE_MAX`] bytes.
pub(crate) fn contents(file: File) -> io::Result<Vec<u8>> {
    let limit = SIZE_MAX + 1;
    // All the room at once: growing would leave copies of a password in freed memory.
    let size = usize::try_from(file.metadata()?.len()).unwrap_or(limit);
    let mut bytes = Vec::with_capacity(size.saturating_add(1).min(limit));
    file.take(limit as u64).read_to_end(&mut bytes)?;
    if bytes.len() > SIZE_MAX { Err(odd("longer than 1 MiB")) } else { Ok(bytes) }
}

fn odd(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("it is {what}"))
}

/// Runs work on files, which may wait for a disk, off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Error::failed("internal", "work on files was cut short").with_source(error)),
    }
}

/// Makes a folder, and those above it, for its owner only. One that is there already stays as it is.
///
/// # Errors
/// As the disk says.
#[cfg(feature = "backup")]
pub(crate) fn make_private_folder(path: &Path) -> Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| Error::from_io(format!("cannot make the folder {}", path.display()), error))
}

/// Bytes that others than root may still write where a folder is.
#[cfg(feature = "backup")]
pub(crate) fn free_space(folder: &Path) -> Option<u64> {
    let volume = rustix::fs::statvfs(folder).ok()?;
    Some(volume.f_bavail.saturating_mul(volume.f_frsize))
}

/// The user that we act as.
pub(crate) fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::net::UnixListener;

    fn pipe(path: &Path) {
        let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
        assert!(made.success());
    }

    #[test]
    fn only_regular_files_are_read_and_nobody_waits() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        pipe(&at("pipe"));
        let _listener = UnixListener::bind(at("socket")).unwrap();
        for path in [at("pipe"), at("socket"), "/dev/null".into()] {
            let error = Error::from_io("cannot read it", read(&path).unwrap_err());
            assert!(matches!(error, Error::Conflict(_)), "{error:?}");
            assert!(error.causes()[0].contains("not a regular file"), "{error:?}");
            assert!(error.hint().is_some());
        }
        let error = open(OpenOptions::new().append(true), &at("pipe")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert_eq!(read(dir.path()).unwrap_err().kind(), ErrorKind::IsADirectory);
        assert_eq!(read(&at("none")).unwrap_err().kind(), ErrorKind::NotFound);
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        fs::write(at("file"), "text").unwrap();
        assert_eq!(read_text(&at("link")).unwrap(), "text");
    }

    #[test]
    fn files_have_an_end_and_text_is_text() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, vec![b'a'; SIZE_MAX]).unwrap();
        assert_eq!(read(&path).unwrap().len(), SIZE_MAX);
        fs::write(&path, vec![b'a'; SIZE_MAX + 1]).unwrap();
        assert_eq!(read(&path).unwrap_err().to_string(), "it is longer than 1 MiB");
        fs::write(&path, b"m4rker\xff").unwrap();
        let error = read_text(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(!format!("{error:?}").contains("109"), "{error:?}");
    }
}
