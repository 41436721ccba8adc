//! The Python package, by its own tests, and as a wheel that somebody installs.

use std::fs;
use std::process::Command;

use shareddb_tests::command::{program, run};
use shareddb_tests::drivers::python_tools;
use shareddb_tests::python::{library, package, python, source};
use shareddb_tests::python_costs::{Extent, measure};

#[test]
fn the_package_passes_its_tests() {
    let modules = package();
    let mut tests = python(&[modules.path(), &python_tools()]);
    tests.env("SHAREDDB_COMMAND", program("shareddb"));
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
    let nobody_copies = library();
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

    // pytest is no part of it; whoever has both finds the fixtures without a word about them.
    let mut fixtures = Command::new(&inside);
    fixtures.env("PYTHONPATH", &tools).env("PYTHONDONTWRITEBYTECODE", "1").current_dir(&wheels);
    let output = run(fixtures.args(["-m", "pytest", "--fixtures", "-p", "no:cacheprovider"]));
    for fixture in ["shareddb_env [session scope]", "shareddb_app"] {
        assert!(output.stdout.contains(fixture), "{fixture}: {}{}", output.stdout, output.stderr);
    }
}

/// Too few to tell anything but that it can be measured.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_package_costs_can_be_measured() {
    let lines = measure(Extent { apps: 2, rounds: 1 }).await;
    for what in ["provisioner.app", "import shareddb", "2 creates from Python", "by the command", "by hand"] {
        assert!(lines.iter().any(|line| line.contains(what)), "{what}: {lines:#?}");
    }
}
