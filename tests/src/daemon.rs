//! A server program in the background.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A running program whose process id and output are files in its home.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    process_file: PathBuf,
    log: PathBuf,
    killed: bool,
}

impl Daemon {
    /// Starts `program ARGS…`, with `NAME.pid` and `NAME.log` in `home`. Whether it gets anywhere is not known yet.
    pub fn start(home: &Path, program: &Path, args: &[String]) -> Self {
        let name = program.file_name().expect("a program has a name").to_string_lossy().into_owned();
        let (process_file, log) = (home.join(format!("{name}.pid")), home.join(format!("{name}.log")));
        let output = fs::OpenOptions::new().create(true).append(true).open(&log).expect("the home is ours");
        // The process id is on disk before the program is there, so that the reaper cannot miss it.
        let child = Command::new("sh")
            .args(["-c", r#"echo $$ >"$1" && shift && exec "$@""#, "daemon"])
            .arg(&process_file)
            .arg(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .process_group(0)
            .spawn()
            .expect("sh must be there");
        Self { child, process_file, log, killed: false }
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_some()
    }

    /// Ends it at once, as a power cut would, and waits until it is gone.
    pub fn kill(&mut self) {
        // The file may be another's by now.
        if std::mem::replace(&mut self.killed, true) {
            return;
        }
        // One that has ended by itself cannot be killed, which is as good.
        let _ = self.child.kill();
        self.child.wait().expect("it is our child");
        let _ = fs::remove_file(&self.process_file);
    }

    /// What it has written.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).expect("the home is ours")).into_owned()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}
