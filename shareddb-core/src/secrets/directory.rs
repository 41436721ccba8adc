//! Secrets as folders on this machine.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::access::{exclusive, make_root, prove};
use super::layout::Folder;
use super::{SecretData, SecretStore, SecretVersion, StoredSecret};
use super::{disk, writer};
use crate::error::{Error, Result};
use crate::file::{self, blocking};
use crate::names::{AppName, SecretName};

const LOCK: &str = "..lock";
/// Writes are small; whoever holds the lock longer is stopped or its disk is stuck.
const LOCK_WAIT: Duration = Duration::from_secs(30);
const LOCK_POLL: Duration = Duration::from_millis(10);

/// Secrets in a directory, each a folder laid out exactly as kubelet mounts a Secret.
///
/// The directory serves as `SERVICE_BINDING_ROOT`, and a program that reads a mounted Secret reads this one. It is
/// made at the first write, for its owner only, and has to stay that way: writes are refused where others could
/// have put files. Reading asks for nothing but the files.
///
/// One writer at a time is held by a lock on `..lock` in the directory, between processes as well. Readers take no lock.
/// Files and folders are flushed to the disk before a write returns: what was reported written survives a power cut.
/// A write that failed or was killed leaves the Secret as it was, or complete; its remains are removed by the next.
///
/// A file that somebody lays into a Secret's folder without `..data` is a key like others; beside `..data` it is
/// left alone and not read.
#[derive(Clone, Debug)]
pub struct DirectoryStore {
    root: PathBuf,
    lock_wait: Duration,
}

impl DirectoryStore {
    /// A store in the directory `path`, which need not exist. Nothing is touched yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { root: path.into(), lock_wait: LOCK_WAIT }
    }

    fn folder(&self, name: &SecretName) -> Folder {
        Folder::at(self.root.join(name.as_str()))
    }

    /// Runs `work` as the directory's only writer.
    ///
    /// Waiting is done here and not in a blocking call: it ends after a while, leaves nothing behind when the caller
    /// gives up, and holds no thread that the present writer may need.
    async fn alone<T: Send + 'static>(&self, work: impl FnOnce(&Path) -> Result<T> + Send + 'static) -> Result<T> {
        let (root, path) = (self.root.clone(), self.root.join(LOCK));
        let file = blocking({
            let path = path.clone();
            move || open_lock(&path)
        })
        .await?;
        let started = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(disk::fault("lock", &path, error)),
                Err(TryLockError::WouldBlock) if started.elapsed() > self.lock_wait => {
                    let message = format!("another program has held {} for too long", path.display());
                    return Err(Error::timeout("lock_timeout", message)
                        .with_hint(format!("`fuser -v '{}'` shows which", path.display())));
                }
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_POLL).await,
            }
        }
        blocking(move || {
            let done = work(&root);
            // Held until here; closing the file gives it back, as does the end of the process.
            drop(file);
            done
        })
        .await
    }
}

#[async_trait]
impl SecretStore for DirectoryStore {
    async fn check(&self, name: &SecretName) -> Result<()> {
        let (root, folder) = (self.root.clone(), self.folder(name));
        blocking(move || prove(&root, &folder)).await
    }

    async fn load(&self, name: &SecretName) -> Result<Option<StoredSecret>> {
        let folder = self.folder(name);
        blocking(move || folder.read()).await
    }

    async fn create(&self, name: &SecretName, app: &AppName, data: &SecretData) -> Result<SecretVersion> {
        writer::validate(data)?;
        let (root, folder) = (self.root.clone(), self.folder(name));
        let (proven, app, data) = (folder.clone(), app.clone(), data.clone());
        blocking(move || {
            make_root(&root)?;
            prove(&root, &proven)
        })
        .await?;
        self.alone(move |root| writer::create(root, &folder, &app, &data)).await
    }

    async fn replace(
        &self,
        name: &SecretName,
        app: &AppName,
        data: &SecretData,
        version: &SecretVersion,
    ) -> Result<SecretVersion> {
        writer::validate(data)?;
        let (root, folder) = (self.root.clone(), self.folder(name));
        let (proven, app, data, version) = (folder.clone(), app.clone(), data.clone(), version.clone());
        let there = blocking(move || {
            prove(&root, &proven)?;
            proven.metadata()
        })
        .await?;
        // Without this a missing directory would surface as a lock file that cannot be made.
        if there.is_none() {
            return Err(writer::moved(&folder));
        }
        self.alone(move |root| writer::replace(root, &folder, &app, &data, &version)).await
    }

    async fn delete(&self, name: &SecretName) -> Result<()> {
        let (root, folder) = (self.root.clone(), self.folder(name));
        let found = folder.clone();
        let needed = blocking(move || {
            // Where there is nothing to delete, no right to delete is missing.
            let needed = found.metadata()?.is_some() || disk::has_remains(&root)?;
            // Not all of `prove`: that makes a file, and on a full disk a delete has to work.
            if needed { exclusive(&root).map(|()| true) } else { Ok(false) }
        })
        .await?;
        if needed { self.alone(move |root| writer::delete(root, &folder)).await } else { Ok(()) }
    }

    fn describe(&self, name: &SecretName) -> String {
        format!("secret/{name} ({})", self.folder(name).path().display())
    }
}

fn open_lock(path: &Path) -> Result<File> {
    file::open(disk::private_file().create(true), path).map_err(|error| disk::fault("open", path, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::{ExposeSecret, SecretString};
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn store() -> (tempfile::TempDir, DirectoryStore, SecretName, AppName) {
        let dir = tempfile::tempdir().unwrap();
        let store = DirectoryStore::new(dir.path().join("secrets"));
        (dir, store, "my-app-db-secret".parse().unwrap(), "my-app".parse().unwrap())
    }

    fn data(pairs: &[(&str, &str)]) -> SecretData {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), SecretString::from(*value))).collect()
    }

    fn text<'a>(stored: &'a StoredSecret, key: &str) -> &'a str {
        stored.data[key].expose_secret()
    }

    fn visible(dir: &Path) -> Vec<String> {
        let names = disk::list(dir).unwrap().into_iter().map(|name| name.into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| !name.starts_with("..")).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn the_layout_is_kubelets_and_private() {
        let (_dir, store, name, app) = store();
        let version = store.create(&name, &app, &data(&[("type", "postgresql"), ("DB_HOST", "h")])).await.unwrap();
        let folder = store.root.join(name.as_str());
        assert_eq!(visible(&store.root), [name.as_str()]);
        assert_eq!(visible(&folder), ["DB_HOST", "type"]);
        assert_eq!(fs::read_link(folder.join("..data")).unwrap(), Path::new(version.as_str()));
        assert_eq!(fs::read_link(folder.join("type")).unwrap(), Path::new("..data/type"));
        assert_eq!(fs::read_to_string(folder.join("type")).unwrap(), "postgresql");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        for dir in [&store.root, &folder, &folder.join("..data")] {
            assert_eq!(mode(dir), 0o700, "{}", dir.display());
        }
        for file in ["DB_HOST", "..data/..shareddb"] {
            assert_eq!(mode(&folder.join(file)), 0o600, "{file}");
        }
        assert_eq!(mode(&store.root.join(LOCK)), 0o600);
        assert_eq!(store.describe(&name), format!("secret/my-app-db-secret ({})", folder.display()));
    }

    #[tokio::test]
    async fn replace_leaves_one_version_and_every_foreign_key() {
        let (_dir, store, name, app) = store();
        let one = store.create(&name, &app, &data(&[("DB_HOST", "a"), ("EXTRA", "e")])).await.unwrap();
        let other: AppName = "other".parse().unwrap();
        let two = store.replace(&name, &other, &data(&[("DB_HOST", "b"), ("DB_PORT", "1")]), &one).await.unwrap();
        let stored = store.load(&name).await.unwrap().unwrap();
        assert_eq!((text(&stored, "DB_HOST"), text(&stored, "EXTRA"), text(&stored, "DB_PORT")), ("b", "e", "1"));
        assert_eq!((stored.app, &stored.version), (Some(other), &two));
        let folder = store.root.join(name.as_str());
        assert_eq!(visible(&folder), ["DB_HOST", "DB_PORT", "EXTRA"]);
        assert!(!folder.join(one.as_str()).exists(), "the old password stays on the disk");
        assert_eq!(disk::list(&folder).unwrap().len(), 3 + 2);
        let stale = store.replace(&name, &app, &data(&[("DB_HOST", "c")]), &one).await.unwrap_err();
        assert_eq!((stale.code(), stale.is_retryable()), ("concurrent_change", true));
    }

    #[tokio::test]
    async fn a_hand_made_secret_is_refused_then_taken_over_in_the_open() {
        let (_dir, store, name, app) = store();
        let folder = store.root.join(name.as_str());
        make_root(&folder).unwrap();
        fs::write(folder.join("DB_HOST"), "a").unwrap();
        fs::write(folder.join("EXTRA"), "e").unwrap();
        assert!(matches!(store.create(&name, &app, &data(&[])).await, Err(Error::Conflict(_))));
        let found = store.load(&name).await.unwrap().unwrap();
        assert_eq!((text(&found, "DB_HOST"), &found.app), ("a", &None));
        store.replace(&name, &app, &data(&[("DB_HOST", "b")]), &found.version).await.unwrap();
        let stored = store.load(&name).await.unwrap().unwrap();
        assert_eq!((text(&stored, "DB_HOST"), text(&stored, "EXTRA"), &stored.app), ("b", "e", &Some(app)));
        assert_eq!(fs::read_link(folder.join("EXTRA")).unwrap(), Path::new("..data/EXTRA"));
        assert_eq!(disk::list(&folder).unwrap().len(), 2 + 2);
    }

    #[tokio::test]
    async fn remains_of_a_killed_write_are_in_nobodys_way() {
        let (_dir, store, name, app) = store();
        let folder = store.root.join(name.as_str());
        make_root(&folder.join("..1.0123456789abcdef")).unwrap();
        symlink("..data/DB_HOST", folder.join("DB_HOST")).unwrap();
        fs::create_dir(store.root.join("..tmp-0123456789abcdef")).unwrap();
        fs::write(store.root.join("..tmp-0123456789abcdef/DB_PASSWORD"), "p").unwrap();
        store.check(&name).await.unwrap();
        assert!(store.load(&name).await.unwrap().is_none());
        store.create(&name, &app, &data(&[("DB_PORT", "1")])).await.unwrap();
        assert_eq!(visible(&folder), ["DB_PORT"]);
        assert_eq!(disk::list(&store.root).unwrap().len(), 2, "the Secret and the lock");
        // A delete that was killed after its rename: the next one finds no Secret, and still clears up.
        fs::rename(&folder, store.root.join("..tmp-0123456789abcdef")).unwrap();
        store.delete(&name).await.unwrap();
        assert_eq!(disk::list(&store.root).unwrap(), [LOCK]);
    }

    #[tokio::test]
    async fn nothing_to_delete_needs_no_directory() {
        let (dir, store, name, _) = store();
        store.delete(&name).await.unwrap();
        assert!(store.load(&name).await.unwrap().is_none());
        store.check(&name).await.unwrap();
        assert_eq!(disk::list(dir.path()).unwrap().len(), 0);
    }

    #[tokio::test]
    async fn who_waits_too_long_for_the_lock_wrote_nothing() {
        let (_dir, mut store, name, app) = store();
        store.lock_wait = Duration::from_millis(30);
        make_root(&store.root).unwrap();
        let held = open_lock(&store.root.join(LOCK)).unwrap();
        held.lock().unwrap();
        assert!(matches!(store.create(&name, &app, &data(&[])).await, Err(Error::Timeout(_))));
        assert!(store.load(&name).await.unwrap().is_none(), "reading waits for nobody");
        drop(held);
        store.create(&name, &app, &data(&[])).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_read_is_torn_while_others_write_delete_and_make_anew() {
        let (_dir, store, name, app) = store();
        let of = |generation: u32| -> SecretData {
            (0..12).map(|n| (format!("KEY_{n}"), SecretString::from(generation.to_string()))).collect()
        };
        let mut version = store.create(&name, &app, &of(0)).await.unwrap();
        for deleting in [false, true] {
            let writer = tokio::spawn({
                let (store, name, app) = (store.clone(), name.clone(), app.clone());
                async move {
                    for generation in 1..100 {
                        if deleting && generation % 3 == 0 {
                            store.delete(&name).await.unwrap();
                            version = store.create(&name, &app, &of(generation)).await.unwrap();
                        } else {
                            version = store.replace(&name, &app, &of(generation), &version).await.unwrap();
                        }
                    }
                    version
                }
            });
            let mut reads = 0;
            while !writer.is_finished() {
                let Some(stored) = store.load(&name).await.unwrap() else {
                    assert!(deleting, "a replace took the Secret away");
                    continue;
                };
                let first = text(&stored, "KEY_0");
                assert_eq!((stored.data.len(), stored.app.as_ref()), (12, Some(&app)));
                assert!(stored.data.values().all(|value| value.expose_secret() == first));
                reads += 1;
            }
            version = writer.await.unwrap();
            assert!(reads > 10, "{reads}");
        }
    }
}
