//! The Python package, by its own tests, and as a wheel that somebody installs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use shareddb_tests::command::{program, run};
use shareddb_tests::drivers::python_tools;
use tempfile::TempDir;

/// The library is where it is while nobody builds it anew.
static LIBRARY: Mutex<()> = Mutex::new(());

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../shareddb-py")
}

/// The package as an interpreter of any version from 3.10 on finds it.
fn package() -> TempDir {
    let modules = tempfile::tempdir().unwrap();
    let package = modules.path().join("shareddb");
    fs::create_dir(&package).unwrap();
    for entry in fs::read_dir(source().join("python/shareddb")).unwrap().map(Result::unwrap) {
        if entry.path().is_file() {
            fs::copy(entry.path(), package.join(entry.file_name())).unwrap();
        }
    }
    let _nobody_builds = LIBRARY.lock().unwrap_or_else(PoisonError::into_inner);
    fs::copy(program("lib_shareddb.so"), package.join("_shareddb.abi3.so")).unwrap();
    modules
}

/// An interpreter that finds these folders.
fn python(folders: &[&Path]) -> Command {
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", std::env::join_paths(folders).unwrap()).env("PYTHONDONTWRITEBYTECODE", "1");
    python
}

#[test]
fn the_package_passes_its_tests() {
    let modules = package();
    let mut tests = python(&[modules.path(), &python_tools()]);
    let output = run(tests.current_dir(source()).args(["-m", "pytest", "-q", "-rs"])).expect_code(0);
    assert!(output.stdout.contains(" passed") && !output.stdout.contains("skipped"), "{}", output.stdout);
}

/// What is in the README under a heading for Python.
fn readme() -> String {
    let readme = fs::read_to_string(source().join("../README.md")).unwrap();
    let blocks = readme.split("```python\n").skip(1).map(|block| block.split("```").next().unwrap());
    let text = blocks.collect::<Vec<_>>().join("\n");
    assert!(text.contains("import shareddb"), "the README has no lines of Python");
    text
}

#[test]
fn an_installed_wheel_does_what_the_readme_says() {
    let (tools, place) = (python_tools(), tempfile::tempdir().unwrap());
    let (wheels, clean) = (place.path().join("wheels"), place.path().join("clean"));
    let target = program("lib_shareddb.so").ancestors().nth(2).unwrap().to_owned();
    let mut maturin = Command::new(tools.join("bin/maturin"));
    maturin.args(["build", "--profile", "dev", "--locked", "--offline", "--out"]).arg(&wheels);
    let nobody_copies = LIBRARY.lock().unwrap_or_else(PoisonError::into_inner);
    run(maturin.current_dir(source()).env("CARGO_TARGET_DIR", target)).expect_code(0);
    drop(nobody_copies);
    let [wheel] =
        fs::read_dir(&wheels).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>().try_into().unwrap();
    assert!(wheel.to_str().unwrap().contains("-cp310-abi3-"), "{}", wheel.display());

    // Debian's Python has no pip for such a place; the one outside installs into it.
    run(Command::new("python3").args(["-m", "venv", "--without-pip"]).arg(&clean)).expect_code(0);
    let inside = clean.join("bin/python");
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "--python"]).arg(&inside).args(["install", "--quiet", "--no-index", "--no-deps"]);
    run(pip.args(["--disable-pip-version-check"]).arg(&wheel)).expect_code(0);
    let mut lines = Command::new(&inside);
    let output = run(lines.current_dir(place.path()).arg("-c").arg(readme())).expect_code(0);
    assert!(output.stdout.contains("created"), "{}", output.stdout);
}
