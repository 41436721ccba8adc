//! Packages from Python's registry, kept on this machine once they were fetched.

use std::fs::{self, File};
use std::hash::{Hash as _, Hasher as _};
use std::path::PathBuf;
use std::process::Command;

use crate::archive::cache;
use crate::command::run;

/// PostgreSQL's drivers. Versions are pinned: what a test has shown stays shown.
const DRIVERS: [&str; 6] = [
    "asyncpg==0.31.0",
    "greenlet==3.2.4",
    "psycopg[binary]==3.2.13",
    "psycopg-pool==3.3.3",
    "psycopg2-binary==2.9.11",
    "sqlalchemy==2.0.44",
];
/// What the tests of the Python package need beside them.
const TOOLS: [&str; 6] = [
    "asyncpg-stubs==0.31.3",
    "basedpyright==1.40.2",
    "django==5.2.19",
    "maturin==1.16.0",
    "mypy==2.4.1",
    "pytest==9.2.0",
];

/// A folder for `PYTHONPATH` with PostgreSQL's drivers.
pub fn python_drivers() -> PathBuf {
    fetched(&DRIVERS)
}

/// A folder for `PYTHONPATH` with them and all that the tests of the Python package need.
pub fn python_tools() -> PathBuf {
    fetched(&[DRIVERS.as_slice(), &TOOLS].concat())
}

/// A folder for `PYTHONPATH` with a reader of dotenv files.
pub fn python_dotenv() -> PathBuf {
    fetched(&["python-dotenv==1.2.4"])
}

/// Two test runs at once fetch them once.
fn fetched(packages: &[&str]) -> PathBuf {
    let cache = cache();
    let name = format!("python-{}", versions(packages));
    let place = cache.join(&name);
    let lock = File::create(cache.join(format!("{name}.lock"))).expect("the cache can be written");
    lock.lock().expect("a lock");
    if !place.exists() {
        // What is half fetched has another name.
        let folder = tempfile::tempdir_in(&cache).expect("the cache can be written");
        let whole = folder.path().join("whole");
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:", "--target"]);
        run(pip.arg(&whole).args(packages)).expect_code(0);
        fs::rename(&whole, &place).expect("the place is free under the lock");
    }
    place
}

/// A few digits that are others when a version is another.
fn versions(packages: &[&str]) -> String {
    let mut hasher = std::hash::DefaultHasher::new();
    packages.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
