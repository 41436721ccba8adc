//! The Python module, by its own tests.

use std::fs;
use std::path::Path;
use std::process::Command;

use shareddb_tests::command::{program, run};

#[test]
fn the_module_passes_its_tests() {
    let modules = tempfile::tempdir().unwrap();
    // The name by which an interpreter of any version from 3.10 on finds it.
    fs::copy(program("libshareddb.so"), modules.path().join("shareddb.abi3.so")).unwrap();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shareddb-py/tests");
    let output = run(Command::new("python3")
        .env("PYTHONPATH", modules.path())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(tests)
        .args(["-m", "unittest", "-v", "test_module"]))
    .expect_code(0);
    assert!(output.stderr.contains("OK"), "{}", output.stderr);
    assert!(!output.stderr.contains("skipped"), "{}", output.stderr);
}
