//! Files that survive a power cut, folders that are only ours, names for what is not finished.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::{Error, Result};

const TEMPORARY: &str = "..tmp-";

/// Removes what killed writes left in `dir`, except `kept`.
pub(super) fn sweep(dir: &Path, kept: &str) -> Result<()> {
    for name in list(dir)? {
        if is_remains(&name) && name != kept {
            remove(&dir.join(name))?;
        }
    }
    Ok(())
}

/// Removes a folder with all it holds, or a file. That it is gone already is not an error.
pub(super) fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(fault("remove", path, error)),
        _ => Ok(()),
    }
}

/// A name for what is not finished or no longer wanted.
pub(super) fn temporary_in(dir: &Path) -> PathBuf {
    dir.join(format!("{TEMPORARY}{:016x}", rand::random::<u64>()))
}

/// The name of a version: its time for people, and random digits, so that a Secret that was deleted and made again
/// never seems unchanged.
pub(super) fn version_name() -> String {
    let millis = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |age| age.as_millis());
    format!("..{millis}.{:016x}", rand::random::<u64>())
}

/// Whether killed writes left something in `dir`, or one is under way.
pub(super) fn has_remains(dir: &Path) -> Result<bool> {
    Ok(list(dir)?.iter().any(|name| is_remains(name)))
}

/// Makes the entries of a folder survive a power cut, as `sync_all` does for the contents of a file.
pub(super) fn sync(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|handle| handle.sync_all()).map_err(|error| fault("sync", dir, error))
}

pub(super) fn private_dir() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    builder
}

pub(super) fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

pub(super) fn fault(what: &str, path: &Path, source: io::Error) -> Error {
    Error::from_io(format!("cannot {what} {}", path.display()), source)
}

pub(super) fn not_a_folder(path: &Path) -> Error {
    Error::conflict("place_taken", format!("{} is not a folder", path.display()))
        .with_hint("move it away, or choose another folder for Secrets")
}

/// Whether [`temporary_in`] or [`version_name`] made this name; narrow, for what it accepts is removed.
pub(super) fn is_remains(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    let hex = |text: &str| text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let version = || name.strip_prefix("..")?.split_once('.');
    name.strip_prefix(TEMPORARY).is_some_and(hex)
        || version().is_some_and(|(millis, rest)| millis.bytes().all(|b| b.is_ascii_digit()) && hex(rest))
}

/// The names in a folder; those of a folder that is gone are none.
pub(super) fn list(dir: &Path) -> Result<Vec<OsString>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| fault("list", dir, error))?,
    };
    entries.map(|entry| entry.map(|entry| entry.file_name()).map_err(|error| fault("list", dir, error))).collect()
}

/// Writes a new file, for its owner only, through to the disk.
pub(super) fn write_file(path: &Path, contents: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let written = private_file().create_new(true).open(path).and_then(|mut file| {
        contents(&mut file)?;
        file.sync_all()
    });
    written.map_err(|error| fault("write", path, error))
}

pub(super) fn make_dir(path: &Path) -> Result<()> {
    private_dir().create(path).map_err(|error| fault("make", path, error))
}
