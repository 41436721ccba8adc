//! One Secret as a folder, laid out as kubelet mounts it.
//!
//! ```text
//! myapp-db-secret/
//!   DB_HOST -> ..data/DB_HOST                     what consumers open
//!   ..data -> ..1767225600000.0123456789abcdef    the swap of this link is the commit
//!   ..1767225600000.0123456789abcdef/             one version, complete before anything points at it
//!     DB_HOST
//!     ..shareddb                                  the mark: the app's name
//! ```
//!
//! The mark is in the versioned folder, so that one rename changes data and mark together and no kill can part
//! them; its name begins with `..`, which consumers of such folders skip when they list keys.
//!
//! This file finds out what is there and reads it, without any lock; `writer` writes.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::access::{is_closed, unexposed};
use super::disk::{self, fault, is_remains, list};
use super::{SecretData, SecretVersion, StoredSecret};
use crate::error::{Error, Result};
use crate::file;
use crate::names::AppName;

pub(super) const CURRENT: &str = "..data";
pub(super) const MARK: &str = "..shareddb";
pub(super) const KEY_MAX: usize = 253;
/// Kubernetes takes no more in a whole Secret.
pub(super) const VALUE_MAX: usize = file::SIZE_MAX;
/// A reader starts again only after somebody else's write; this many in a row is no ordinary writer.
const READS_MAX: usize = 1000;

/// What is at a Secret's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing, an empty folder, or remains of ours that were never published.
    Absent,
    /// Files that somebody put there without our layout; names their state.
    Plain(String),
    /// Our layout, or kubelet's; names the target of `..data`.
    Versioned(String),
}

impl State {
    pub(super) fn is(&self, version: &SecretVersion) -> bool {
        match self {
            Self::Absent => false,
            Self::Plain(text) | Self::Versioned(text) => text == version.as_str(),
        }
    }
}

/// A Secret's folder, which may or may not exist.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is a folder. A file or a link in its place is somebody else's: `Conflict`.
    pub(super) fn metadata(&self) -> Result<Option<fs::Metadata>> {
        match fs::symlink_metadata(&self.path) {
            Ok(metadata) if metadata.is_dir() => Ok(Some(metadata)),
            Ok(_) => Err(disk::not_a_folder(&self.path)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(fault("look at", &self.path, error)),
        }
    }

    pub(super) fn state(&self) -> Result<State> {
        for _ in 0..READS_MAX {
            if self.metadata()?.is_none() {
                return Ok(State::Absent);
            }
            let link = self.path.join(CURRENT);
            match fs::read_link(&link) {
                Ok(target) => return version_in(&link, &target).map(State::Versioned),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(fault("read the link", &link, error)),
            }
            if let Some(state) = self.unpublished()? {
                return Ok(state);
            }
        }
        Err(restless(&self.path))
    }

    /// The state of a folder that had no `..data`, or `None` when that changed meanwhile.
    fn unpublished(&self) -> Result<Option<State>> {
        let mut seen = BTreeMap::new();
        for name in list(&self.path)? {
            let path = self.path.join(&name);
            if name == CURRENT {
                return Ok(None);
            }
            if is_remains(&name) || points_at_current(&path) {
                continue;
            }
            match fs::metadata(&path).or_else(|_| fs::symlink_metadata(&path)) {
                // The contents stay out of it: a version shows up in messages.
                Ok(m) => seen.insert(name, (m.ino(), m.len(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec())),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(fault("look at", &path, error)),
            };
        }
        if seen.is_empty() {
            return Ok(Some(State::Absent));
        }
        let mut hasher = DefaultHasher::new();
        seen.hash(&mut hasher);
        Ok(Some(State::Plain(format!("plain:{:016x}", hasher.finish()))))
    }

    /// Reads the Secret, never half of one state and half of another.
    ///
    /// Old versions are removed only once `..data` has moved on. So what was read is whole if the link still
    /// stands where it stood before, and otherwise nothing that was read counts, neither keys nor errors.
    pub(super) fn read(&self) -> Result<Option<StoredSecret>> {
        let mut before = self.state()?;
        for _ in 0..READS_MAX {
            let read = match &before {
                State::Absent => return Ok(None),
                State::Plain(text) => read_keys(&self.path).map(|data| (data, None, text)),
                State::Versioned(text) => {
                    let dir = self.path.join(text);
                    self.read_version(&dir).map(|(data, app)| (data, app, text))
                }
            };
            let after = self.state()?;
            if after == before {
                return read.map(|(data, app, text)| {
                    Some(StoredSecret { data, version: SecretVersion::new(text.as_str()), app })
                });
            }
            before = after;
        }
        Err(restless(&self.path))
    }

    fn read_version(&self, dir: &Path) -> Result<(SecretData, Option<AppName>)> {
        let app = read_mark(dir)?;
        // Where one of the folders on the way lets in nobody else, the modes of the files do not matter. A Secret that
        // is not ours, such as a mount of kubelet, has other guards.
        let on_the_way = [self.path.parent().unwrap_or(dir), &self.path, dir];
        if app.is_some() && !on_the_way.into_iter().any(is_closed) {
            for key in keys_in(dir)? {
                unexposed(&self.path, &dir.join(key))?;
            }
        }
        Ok((read_keys(dir)?, app))
    }
}

fn restless(path: &Path) -> Error {
    Error::conflict("concurrent_change", format!("{} changes faster than it can be read", path.display()))
}

fn unreadable(path: &Path, reason: &str) -> Error {
    Error::failed("secret_unreadable", format!("cannot read {}: {reason}", path.display()))
}

fn version_in(link: &Path, target: &Path) -> Result<String> {
    match target.to_str() {
        Some(text) if text.len() > 2 && text.starts_with("..") && !text.contains('/') => Ok(text.to_owned()),
        _ => Err(unreadable(link, "it does not point at a version beside it")),
    }
}

/// As Kubernetes has it.
pub(super) fn is_key(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=KEY_MAX).contains(&name.len()) && name != "." && !name.starts_with("..") && name.chars().all(allowed)
}

/// The keys in a folder: files with the name of a key. An editor's `DB_HOST~` and folders are none.
pub(super) fn keys_in(dir: &Path) -> Result<Vec<String>> {
    let mut keys = Vec::new();
    for entry in fs::read_dir(dir).map_err(|error| lost(dir, error))? {
        let entry = entry.map_err(|error| lost(dir, error))?;
        let Some(name) = entry.file_name().into_string().ok().filter(|name| is_key(name)) else { continue };
        match fs::metadata(entry.path()) {
            // Asked before opening, since opening a pipe would wait for its other end.
            Ok(metadata) if metadata.is_file() => keys.push(name),
            Ok(_) => {}
            Err(_) if points_at_current(&entry.path()) => {}
            Err(error) => return Err(lost(&entry.path(), error)),
        }
    }
    Ok(keys)
}

fn read_keys(dir: &Path) -> Result<SecretData> {
    keys_in(dir)?.into_iter().map(|key| Ok((key.clone(), read_value(&dir.join(key))?))).collect()
}

fn read_value(path: &Path) -> Result<SecretString> {
    let open = file::open(OpenOptions::new().read(true), path).map_err(|error| lost(path, error))?;
    let bytes = file::contents(open).map_err(|error| match error.kind() {
        ErrorKind::InvalidData => unreadable(path, &error.to_string()),
        _ => lost(path, error),
    })?;
    // Not the whole error as the source: it holds the value.
    String::from_utf8(bytes)
        .map(SecretString::from)
        .map_err(|error| unreadable(path, "the value is not UTF-8").with_source(error.utf8_error()))
}

fn read_mark(dir: &Path) -> Result<Option<AppName>> {
    let path = dir.join(MARK);
    match file::read_text(&path) {
        Ok(text) => {
            text.parse().map(Some).map_err(|error: Error| unreadable(&path, "no app has this name").with_source(error))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(lost(&path, error)),
    }
}

fn points_at_current(path: &Path) -> bool {
    fs::read_link(path).is_ok_and(|target| target.starts_with(CURRENT))
}

/// A file that should be there cannot be read. Never `NotFound`, which callers might take for "no Secret".
pub(super) fn lost(path: &Path, source: io::Error) -> Error {
    match source.kind() {
        ErrorKind::NotFound => unreadable(path, "it is missing").with_source(source),
        _ => fault("read", path, source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;
    use std::os::unix::fs::symlink;

    const V1: &str = "..1767225600000.0123456789abcdef";

    fn folder() -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        fs::create_dir(&path).unwrap();
        (dir, Folder::at(path))
    }

    fn put(folder: &Folder, name: &str, value: impl AsRef<[u8]>) {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, value).unwrap();
    }

    fn point(folder: &Folder, name: &str, target: &str) {
        symlink(target, folder.path().join(name)).unwrap();
    }

    fn values(stored: &StoredSecret) -> Vec<(&str, &str)> {
        stored.data.iter().map(|(key, value)| (key.as_str(), value.expose_secret())).collect()
    }

    #[test]
    fn no_folder_an_empty_one_and_remains_are_no_secret() {
        let (dir, folder) = folder();
        assert!(Folder::at(dir.path().join("other")).read().unwrap().is_none());
        assert!(folder.read().unwrap().is_none());
        put(&folder, &format!("{V1}/DB_HOST"), "h");
        point(&folder, "DB_HOST", "..data/DB_HOST");
        point(&folder, "..tmp-0123456789abcdef", V1);
        assert!(folder.read().unwrap().is_none());
    }

    #[test]
    fn a_mount_of_kubelet_is_read() {
        let (_dir, folder) = folder();
        put(&folder, "..2026_01_01_00_00_00.123/DB_HOST", "h");
        point(&folder, "..data", "..2026_01_01_00_00_00.123");
        point(&folder, "DB_HOST", "..data/DB_HOST");
        let stored = folder.read().unwrap().unwrap();
        assert_eq!(values(&stored), [("DB_HOST", "h")]);
        assert_eq!((stored.version.as_str(), stored.app), ("..2026_01_01_00_00_00.123", None));
    }

    #[test]
    fn plain_files_are_a_secret_of_somebody_else() {
        let (_dir, folder) = folder();
        put(&folder, "DB_HOST", "h");
        put(&folder, "DB_HOST~", "old");
        put(&folder, "sub/DB_PORT", "1");
        put(&folder, "..shareddb", "my-app");
        let stored = folder.read().unwrap().unwrap();
        assert_eq!(values(&stored), [("DB_HOST", "h")]);
        assert_eq!(stored.app, None, "a mark beside the files marks nothing");
        put(&folder, "DB_HOST", "h2");
        assert_ne!(folder.read().unwrap().unwrap().version, stored.version);
    }

    #[test]
    fn what_is_not_surely_ours_is_never_absent() {
        for name in ["notes~", "sub/file", "..notes", "..data2/file", "..2026_01_01.1/DB_HOST"] {
            let (_dir, folder) = folder();
            put(&folder, name, "x");
            assert!(matches!(folder.state().unwrap(), State::Plain(_)), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_neither_lost_nor_shown() {
        type Case = (&'static str, fn(&Folder));
        let cases: [Case; 7] = [
            ("missing version", |folder| point(folder, "..data", V1)),
            ("elsewhere", |folder| point(folder, "..data", "/etc")),
            ("no link", |folder| put(folder, "..data/DB_HOST", "h")),
            ("not UTF-8", |folder| put(folder, "DB_PASSWORD", b"hunter2\xff")),
            ("too large", |folder| put(folder, "DB_PASSWORD", vec![b'x'; VALUE_MAX + 1])),
            ("dangling", |folder| point(folder, "DB_PASSWORD", "nowhere")),
            ("bad mark", |folder| {
                put(folder, &format!("{V1}/..shareddb"), "No App");
                point(folder, "..data", V1);
            }),
        ];
        for (what, make) in cases {
            let (_dir, folder) = folder();
            make(&folder);
            let error = folder.read().unwrap_err();
            assert!(matches!(error, Error::Failed(_)), "{what}: {error:?}");
            assert!(!format!("{error:?}").contains("hunter2") && !format!("{error:?}").contains("104, 117"));
            assert!(error.to_string().contains(folder.path().to_str().unwrap()), "{what}: {error}");
        }
        let (_dir, folder) = folder();
        put(&folder, "DB_PASSWORD", b"\xff");
        assert!(folder.read().unwrap_err().to_string().contains("DB_PASSWORD"));
        put(&folder, "DB_PASSWORD", vec![b'x'; VALUE_MAX]);
        folder.read().unwrap();
    }

    #[test]
    fn a_link_or_file_in_the_place_is_a_conflict() {
        let (dir, folder) = folder();
        symlink(folder.path(), dir.path().join("link")).unwrap();
        assert!(matches!(Folder::at(dir.path().join("link")).read(), Err(Error::Conflict(_))));
    }
}
