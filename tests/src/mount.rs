//! A Secret in a pod.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

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
    version: std::sync::atomic::AtomicU32,
}

impl Mount {
    /// With the settings of this login.
    pub fn of(config: &ConnectionConfig) -> Self {
        let mount = Self { folder: tempfile::tempdir().expect("a temporary folder"), version: 0.into() };
        mount.swap(config);
        mount
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Replaces all keys at once by those of this login, as kubelet does it: a new folder, a link renamed over the old
    /// link, and the old folder goes.
    pub fn swap(&self, config: &ConnectionConfig) {
        let folder = self.path();
        let number = self.version.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let version = format!("..2026_01_02_03_04_05.{number:010}");
        fs::create_dir(folder.join(&version)).expect("the folder is ours");
        let password = config.password().expect("a password").expose_secret().to_owned();
        let values = [
            ("DB_HOST", config.host().to_owned()),
            ("DB_PORT", config.port().to_string()),
            ("DB_NAME", config.database().to_owned()),
            ("DB_USER", config.user().to_owned()),
            ("DB_PASSWORD", password),
            ("generation", number.to_string()),
        ];
        for (key, value) in values {
            fs::write(folder.join(&version).join(key), value).expect("the folder is ours");
        }
        let before = fs::read_link(folder.join("..data")).ok();
        symlink(&version, folder.join("..data_tmp")).expect("the folder is ours");
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).expect("the folder is ours");
        if let Some(before) = before {
            fs::remove_dir_all(folder.join(before)).expect("the folder is ours");
        }
    }
}
