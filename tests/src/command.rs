//! Running programs as a user does.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use shareddb_core::AppName;

/// What a program left behind.
#[derive(Debug)]
pub struct Output {
    /// Its exit code, or `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Output {
    /// Panics with everything it said unless it ended with this code.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }
}

/// Runs a command to its end, without any input.
pub fn run(command: &mut Command) -> Output {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{:?} must be there: {error}", command.get_program()));
    Output {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// `shareddb ARGS…` on the environment `local` of a home.
pub fn shareddb(home: &Path, args: &[&str]) -> Output {
    run(shareddb_command(home).args(args))
}

/// The command `shareddb` with a clean environment, to be given arguments.
pub fn shareddb_command(home: &Path) -> Command {
    let mut command = at_home("shareddb", home);
    command.env("NO_COLOR", "1");
    command
}

/// The program that provisions and kills itself, in the environment that a home chooses, for [`outlives`].
pub fn mortal(home: &Path) -> Command {
    let mut command = at_home("provision-and-die", home);
    command.current_dir(home);
    command
}

/// Has a [`mortal`] do one verb for an app and die at an event. Whether it came to its end before.
#[track_caller]
pub fn outlives(mortal: &mut Command, app: &AppName, verb: &str, event: usize) -> bool {
    let output = run(mortal.args([app.as_str(), verb, &event.to_string()]));
    match output.code {
        Some(0) => true,
        None => false,
        Some(_) => panic!("{verb}, event {event}: {output:?}"),
    }
}

/// A program of this workspace, told of a home and of nothing else.
fn at_home(name: &str, home: &Path) -> Command {
    let mut command = Command::new(program(name));
    for (name, _) in std::env::vars() {
        if name.starts_with("PG")
            || name.starts_with("SHAREDDB_")
            || name.starts_with("DB_")
            || name.starts_with("DATABASE_")
        {
            command.env_remove(name);
        }
    }
    command.env("SHAREDDB_HOME", home);
    command
}

/// A program of this workspace, built beside this one.
pub fn program(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("this program has a path");
    let target = this.ancestors().find(|folder| folder.join("deps").is_dir()).expect("a target folder");
    let program = target.join(name);
    assert!(program.exists(), "{} is not built: run `cargo build --workspace` first", program.display());
    program
}
