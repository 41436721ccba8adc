//! Files that one by one are named, in folders as Kubernetes mounts a Secret.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::file;

/// The symbolic link whose replacement swaps all keys at once.
pub(super) const VERSION_LINK: &str = "..data";

/// The mounted folder that a file is in, directly or further below.
pub(super) fn of(path: &Path) -> Option<&Path> {
    path.ancestors().skip(1).find(|folder| folder.join(VERSION_LINK).is_symlink())
}

/// Where the link of a mounted folder points to.
pub(super) fn version(folder: &Path) -> io::Result<PathBuf> {
    fs::read_link(folder.join(VERSION_LINK))
}

/// Reads files; those of one mounted folder all from the version that it had at the first of them.
#[derive(Default)]
pub(super) struct Mounts {
    versions: BTreeMap<PathBuf, PathBuf>,
    moved: bool,
}

impl Mounts {
    /// As [`file::read`].
    pub(super) fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        let Some(folder) = of(path) else { return file::read(path) };
        let version = match self.versions.get(folder) {
            Some(version) => version,
            None => self.versions.entry(folder.to_owned()).or_insert(folder.join(version(folder)?)),
        };
        let inside = path.strip_prefix(folder).map_err(io::Error::other)?;
        match file::read(&version.join(inside)) {
            // Either it is of no version, or of one that is gone.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.moved |= !version.is_dir() || folder.join(self::version(folder)?) != *version;
                file::read(path)
            }
            read => read,
        }
    }

    /// Whether a version went while it was read: what was read is no whole then.
    pub(super) fn has_moved(&self) -> bool {
        self.moved
    }
}
