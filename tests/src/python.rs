//! The Python package as it was built, and an interpreter that finds it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;

use crate::command::program;

/// The library is where it is while nobody builds it anew.
static LIBRARY: Mutex<()> = Mutex::new(());

/// Where the package's source is.
pub fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../shareddb-py")
}

/// Keeps the compiled library where it is, or everybody else from it, for as long as it is held.
pub fn library() -> MutexGuard<'static, ()> {
    LIBRARY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The package in a folder of its own, for any interpreter from 3.10 on.
pub fn package() -> TempDir {
    let modules = tempfile::tempdir().unwrap();
    let package = modules.path().join("shareddb");
    fs::create_dir(&package).unwrap();
    for entry in fs::read_dir(source().join("python/shareddb")).unwrap().map(Result::unwrap) {
        if entry.path().is_file() {
            fs::copy(entry.path(), package.join(entry.file_name())).unwrap();
        }
    }
    let _nobody_builds = library();
    fs::copy(program("lib_shareddb.so"), package.join("_shareddb.abi3.so")).unwrap();
    modules
}

/// An interpreter that finds these folders.
pub fn python(folders: &[&Path]) -> Command {
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", std::env::join_paths(folders).unwrap()).env("PYTHONDONTWRITEBYTECODE", "1");
    python
}
