//! A Secret in a pod.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use secrecy::ExposeSecret as _;
use shareddb_core::SecretData;
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
