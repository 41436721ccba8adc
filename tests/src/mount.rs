//! A Secret in a pod.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use secrecy::ExposeSecret as _;
use shareddb_core::{ConnectionConfig, SecretData};
use tempfile::TempDir;

/// Mounts a Secret as kubelet does: a folder of links through `..data` into the one version that there is.
pub fn mounted(data: &SecretData) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    mount_at(data, folder.path());
    folder
}

/// The same in a folder that exists.
pub fn mount_at(data: &SecretData, folder: &Path) {
    let version = "..2026_01_02_03_04_05.0000000001";
    fs::create_dir(folder.join(version)).expect("the folder is ours");
    symlink(version, folder.join("..data")).expect("the folder is ours");
    for (key, value) in data {
        fs::write(folder.join(version).join(key), value.expose_secret()).expect("the folder is ours");
        symlink(Path::new("..data").join(key), folder.join(key)).expect("the folder is ours");
    }
}

/// A mounted Secret that kubelet replaces.
#[derive(Debug)]
pub struct Mount {
    folder: TempDir,
    version: AtomicU32,
}

impl Mount {
    /// With the settings of this login.
    pub fn of(config: &ConnectionConfig) -> Self {
        let mount = Self::empty();
        mount.swap(config);
        mount
    }

    /// With the keys of this Secret.
    pub fn of_secret(data: &SecretData) -> Self {
        let mount = Self::empty();
        mount.replace(data);
        mount
    }

    fn empty() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder"), version: 0.into() }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Replaces all keys at once by those of this login, and counts them.
    pub fn swap(&self, config: &ConnectionConfig) {
        let number = self.version.load(Ordering::Relaxed);
        let password = config.password().expect("a password").clone();
        let keys = [
            ("DB_HOST", config.host().into()),
            ("DB_PORT", config.port().to_string().into()),
            ("DB_NAME", config.database().into()),
            ("DB_USER", config.user().into()),
            ("DB_PASSWORD", password),
            ("generation", number.to_string().into()),
        ];
        self.replace(&keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect());
    }

    /// Replaces all keys at once, as kubelet does it: a new folder, a link renamed over the old link, and the old folder goes.
    pub fn replace(&self, data: &SecretData) {
        let folder = self.path();
        let number = self.version.fetch_add(1, Ordering::Relaxed);
        let version = format!("..2026_01_02_03_04_05.{number:010}");
        fs::create_dir(folder.join(&version)).expect("the folder is ours");
        for (key, value) in data {
            fs::write(folder.join(&version).join(key), value.expose_secret()).expect("the folder is ours");
            if number == 0 {
                symlink(Path::new("..data").join(key), folder.join(key)).expect("the folder is ours");
            }
        }
        let before = fs::read_link(folder.join("..data")).ok();
        symlink(&version, folder.join("..data_tmp")).expect("the folder is ours");
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).expect("the folder is ours");
        if let Some(before) = before {
            fs::remove_dir_all(folder.join(before)).expect("the folder is ours");
        }
    }
}
