//! Writing a Secret: a complete version first, then the one step that makes it current.
//!
//! Everything here expects the caller to be the directory's only writer.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use secrecy::ExposeSecret;

use super::disk;
use super::layout::{CURRENT, Folder, KEY_MAX, MARK, State, VALUE_MAX, is_key, keys_in, lost};
use super::{SecretData, SecretVersion};
use crate::error::{Error, Result};
use crate::file;
use crate::names::AppName;

/// The folder is made whole under another name and then renamed, so that nobody ever sees half a Secret.
pub(super) fn create(root: &Path, folder: &Folder, app: &AppName, data: &SecretData) -> Result<SecretVersion> {
    tidy(root, "");
    if folder.state()? != State::Absent {
        return Err(exists(folder));
    }
    let staged = Folder::make(disk::temporary_in(root))?;
    let placed = staged.write(None, data, Some(app)).and_then(|version| {
        staged.publish(&version)?;
        // An empty folder or remains of a killed write may be in the way. A folder that somebody filled in this
        // instant without our lock is not: the rename fails then.
        clear(root, folder, false)?;
        match fs::rename(staged.path(), folder.path()) {
            Ok(()) => Ok(version),
            Err(error) if matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists) => {
                Err(exists(folder).with_source(error))
            }
            Err(error) => Err(disk::fault("make", folder.path(), error)),
        }
    });
    match placed {
        Ok(version) => disk::sync(root).map(|()| SecretVersion::new(version)),
        Err(error) => {
            // Best effort; what stays is swept by the next write.
            let _ = disk::remove(staged.path());
            Err(error)
        }
    }
}

/// The swap of the link is the commit; until then the old version is current and untouched.
pub(super) fn replace(
    root: &Path,
    folder: &Folder,
    app: &AppName,
    data: &SecretData,
    version: &SecretVersion,
) -> Result<SecretVersion> {
    tidy(root, "");
    let state = folder.state()?;
    if !state.is(version) {
        return Err(moved(folder));
    }
    let old = match state {
        State::Versioned(old) => old,
        _ => folder.convert()?,
    };
    // First, since the disk may be full of them.
    tidy(folder.path(), &old);
    let old = folder.path().join(old);
    let new = folder.write(Some(&old), data, Some(app))?;
    folder.publish(&new)?;
    // The Secret is written; a failure to clean up must not say otherwise.
    if let Err(error) = disk::remove(&old) {
        tracing::warn!(error = &error as &dyn std::error::Error, "an old version of a Secret stays on the disk");
    }
    Ok(SecretVersion::new(new))
}

/// The whole folder leaves by one rename, so that a kill leaves all of it or none.
pub(super) fn delete(root: &Path, folder: &Folder) -> Result<()> {
    clear(root, folder, true)?;
    // Also what an earlier, killed delete left: this one may say "gone" only when no password is on the disk.
    disk::sweep(root, "")?;
    disk::sync(root)
}

/// Moves what is at the Secret's place out of it and removes it; only remains, unless `published` ones may go, too.
fn clear(root: &Path, folder: &Folder, published: bool) -> Result<()> {
    if folder.metadata()?.is_none() || (!published && folder.state()? != State::Absent) {
        return Ok(());
    }
    let trash = disk::temporary_in(root);
    fs::rename(folder.path(), &trash).map_err(|error| disk::fault("remove", folder.path(), error))?;
    disk::sync(root)?;
    disk::remove(&trash)
}

fn tidy(dir: &Path, kept: &str) {
    if let Err(error) = disk::sweep(dir, kept) {
        tracing::warn!(error = &error as &dyn std::error::Error, "remains of a killed write stay on the disk");
    }
}

impl Folder {
    /// Makes the folder, for its owner only.
    pub(super) fn make(path: PathBuf) -> Result<Self> {
        disk::make_dir(&path)?;
        Ok(Self::at(path))
    }

    /// Writes a complete version that nothing points at yet: `data`, and the keys of the folder `carried` beside it.
    pub(super) fn write(&self, carried: Option<&Path>, data: &SecretData, app: Option<&AppName>) -> Result<String> {
        let version = disk::version_name();
        let dir = self.path().join(&version);
        disk::make_dir(&dir)?;
        match fill(&dir, carried, data, app) {
            Ok(()) => Ok(version),
            Err(error) => {
                // Best effort, since the disk may be full: what stays is swept by the next write.
                let _ = fs::remove_dir_all(&dir);
                Err(error)
            }
        }
    }

    /// Makes `version` the current one.
    ///
    /// The links of its keys come first: killed before the swap, the old version is current and the same write is
    /// still to do; links made after the swap could be missing for ever.
    pub(super) fn publish(&self, version: &str) -> Result<()> {
        for key in keys_in(&self.path().join(version))? {
            let target = Path::new(CURRENT).join(&key);
            if fs::read_link(self.path().join(&key)).is_ok_and(|present| present == target) {
                continue;
            }
            self.link(&target, &key)?;
        }
        disk::sync(self.path())?;
        self.link(Path::new(version), CURRENT)?;
        disk::sync(self.path())
    }

    fn link(&self, target: &Path, name: &str) -> Result<()> {
        let temporary = disk::temporary_in(self.path());
        let path = self.path().join(name);
        symlink(target, &temporary).and_then(|()| fs::rename(&temporary, &path)).map_err(|error| {
            let _ = fs::remove_file(&temporary);
            disk::fault("link", &path, error)
        })
    }

    /// Brings a hand-made folder into the layout without changing what any key reads.
    ///
    /// The very same values become the first version; killed anywhere, they are all there, and not yet ours.
    pub(super) fn convert(&self) -> Result<String> {
        let version = self.write(Some(self.path()), &SecretData::new(), None)?;
        disk::sync(self.path())?;
        // Here `..data` goes first: with it the folder is whole, and its files repeat the same values.
        self.link(Path::new(&version), CURRENT)?;
        self.publish(&version)?;
        Ok(version)
    }
}

/// Refuses data that another kind of store, or a file system, could not keep.
pub(super) fn validate(data: &SecretData) -> Result<()> {
    for (key, value) in data {
        if !is_key(key) {
            return Err(Error::invalid_input(
                "secret_key_invalid",
                format!("\"{}\" cannot be the key of a Secret", key.escape_default()),
            )
            .with_hint(format!(
                "a key has letters, digits, '-', '_' and '.', at most {KEY_MAX}, and does not begin with '..'"
            )));
        }
        if value.expose_secret().len() > VALUE_MAX {
            let message = format!("the value of {key} is longer than {VALUE_MAX} bytes");
            return Err(Error::invalid_input("secret_value_too_large", message));
        }
    }
    Ok(())
}

fn fill(dir: &Path, carried: Option<&Path>, data: &SecretData, app: Option<&AppName>) -> Result<()> {
    if let Some(from) = carried {
        for key in keys_in(from)?.into_iter().filter(|key| !data.contains_key(key)) {
            let source = from.join(&key);
            let mut source =
                file::open(OpenOptions::new().read(true), &source).map_err(|error| lost(&source, error))?;
            disk::write_file(&dir.join(key), |target| io::copy(&mut source, target).map(drop))?;
        }
    }
    for (key, value) in data {
        disk::write_file(&dir.join(key), |file| file.write_all(value.expose_secret().as_bytes()))?;
    }
    if let Some(app) = app {
        disk::write_file(&dir.join(MARK), |file| file.write_all(app.as_str().as_bytes()))?;
    }
    disk::sync(dir)
}
fn exists(folder: &Folder) -> Error {
    Error::conflict("secret_exists", format!("there is a Secret at {} already", folder.path().display()))
}

pub(super) fn moved(folder: &Folder) -> Error {
    let message = format!("the Secret at {} was changed by another program meanwhile", folder.path().display());
    Error::conflict("concurrent_change", message).with_hint("nothing was written; run it again")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::SecretName;
    use crate::secrets::{DirectoryStore, SecretStore, StoredSecret};
    use secrecy::SecretString;
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    fn data(generation: &str) -> SecretData {
        (0..8).map(|n| (format!("KEY_{n}"), SecretString::from(generation))).collect()
    }

    fn whole(stored: &StoredSecret) -> String {
        let first = stored.data["KEY_0"].expose_secret().to_owned();
        assert!(stored.data.len() == 8 && stored.data.values().all(|value| value.expose_secret() == first));
        first
    }

    fn names() -> (SecretName, AppName) {
        ("app-db-secret".parse().unwrap(), "app".parse().unwrap())
    }

    #[test]
    fn keys_are_file_names_and_values_have_an_end() {
        let long = "k".repeat(KEY_MAX + 1);
        for key in ["", ".", "..", "..data", "a/b", "/etc/passwd", "a b", "a\0", "ä", &long] {
            let error = validate(&[(key.to_owned(), "v".into())].into()).unwrap_err();
            assert_eq!(error.code(), "secret_key_invalid", "{key}");
        }
        for key in [".pgpass", "ca.crt", "DB_HOST", "a-b", "k..", &long[1..]] {
            validate(&[(key.to_owned(), "v".into())].into()).unwrap();
        }
        let error = validate(&[("k".to_owned(), "v".repeat(VALUE_MAX + 1).into())].into()).unwrap_err();
        assert_eq!(error.code(), "secret_value_too_large");
    }

    #[test]
    fn a_failed_write_leaves_the_old_version_and_no_remains() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::make(dir.path().join("s")).unwrap();
        let first = folder.write(None, &data("1"), None).unwrap();
        folder.publish(&first).unwrap();
        let missing = dir.path().join("missing");
        folder.write(Some(&missing), &data("2"), None).unwrap_err();
        assert_eq!(folder.state().unwrap(), State::Versioned(first.clone()));
        let versions = disk::list(folder.path()).unwrap().into_iter().filter(|name| disk::is_remains(name));
        assert_eq!(versions.collect::<Vec<_>>(), [first.as_str()]);
    }

    #[test]
    fn a_hand_made_folder_reads_the_same_at_each_step_of_its_conversion() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::make(dir.path().join("s")).unwrap();
        let read = |key: &str| fs::read_to_string(folder.path().join(key)).unwrap();
        fs::write(folder.path().join("DB_HOST"), "h").unwrap();
        fs::write(folder.path().join("notes~"), "n").unwrap();
        // Killed after the link `..data` and before those of the keys.
        let version = folder.write(Some(folder.path()), &SecretData::new(), None).unwrap();
        folder.link(Path::new(&version), CURRENT).unwrap();
        let stored = folder.read().unwrap().unwrap();
        assert_eq!((stored.data["DB_HOST"].expose_secret(), &stored.app), ("h", &None));
        assert_eq!(read("DB_HOST"), "h");
        // The next write makes up for it, and shows its own values everywhere.
        let new = folder.write(Some(&folder.path().join(version)), &[("DB_HOST".into(), "h2".into())].into(), None);
        folder.publish(&new.unwrap()).unwrap();
        assert_eq!(
            (read("DB_HOST").as_str(), read("..data/DB_HOST").as_str(), read("notes~").as_str()),
            ("h2", "h2", "n")
        );
    }

    /// Runs itself as another process that writes without end, and kills that.
    #[tokio::test]
    async fn killed_anywhere_a_secret_is_whole_or_absent_and_the_next_run_succeeds() {
        const VICTIM: &str = "SHAREDDB_TEST_VICTIM";
        let (name, app) = names();
        if let Some(root) = std::env::var_os(VICTIM) {
            let store = DirectoryStore::new(root);
            println!("\nready");
            for generation in 0.. {
                let version = match store.load(&name).await.unwrap() {
                    Some(stored) => stored.version,
                    None => store.create(&name, &app, &data("new")).await.unwrap(),
                };
                store.replace(&name, &app, &data(&generation.to_string()), &version).await.unwrap();
                store.delete(&name).await.unwrap();
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let store = DirectoryStore::new(dir.path());
        let this = "secrets::writer::tests::killed_anywhere_a_secret_is_whole_or_absent_and_the_next_run_succeeds";
        let (mut present, mut absent) = (0, 0);
        for round in 0..60_u32 {
            let mut victim = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", this, "--nocapture"])
                .env(VICTIM, dir.path())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
            assert!(lines.any(|line| line.unwrap() == "ready"));
            // Another moment of its cycle each time.
            let end = Instant::now() + Duration::from_micros(u64::from(round) * 397);
            while Instant::now() < end {
                std::hint::spin_loop();
            }
            victim.kill().unwrap();
            victim.wait().unwrap();
            let version = match store.load(&name).await.unwrap() {
                Some(stored) => {
                    present += 1;
                    whole(&stored);
                    assert_eq!(stored.app.as_ref(), Some(&app));
                    stored.version
                }
                None => {
                    absent += 1;
                    store.create(&name, &app, &data("again")).await.unwrap()
                }
            };
            store.replace(&name, &app, &data("after"), &version).await.unwrap();
            assert_eq!(whole(&store.load(&name).await.unwrap().unwrap()), "after");
            if round % 2 == 0 {
                store.delete(&name).await.unwrap();
                assert_eq!(disk::list(dir.path()).unwrap(), ["..lock"]);
            }
        }
        assert!(present > 0 && absent > 0, "{present} present, {absent} absent");
    }
}
