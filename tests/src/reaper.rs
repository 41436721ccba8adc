//! Ends a server when its test ends, however that ends.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A process that waits for this one to be gone, by reading from a pipe that nobody writes to; then it ends the
/// server on a data directory and removes the home. It works for statics, which are never dropped, and after kill -9.
#[derive(Debug)]
pub struct Reaper(Child);

impl Reaper {
    /// Watches over `home`, which it will remove.
    pub fn of(home: &Path) -> Self {
        let script = r#"read -r _ || true
pid=$(head -n 1 "$1/local/data/postmaster.pid" 2>/dev/null) && kill -QUIT "$pid" 2>/dev/null
for _ in 1 2 3 4 5 6 7 8 9 10; do [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null || break; sleep 0.2; done
if mountpoint -q "$1" 2>/dev/null; then umount "$1"; fi
rm -rf "$1""#;
        let child = Command::new("sh")
            .args(["-c", script, "reaper"])
            .arg(home)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("sh must be there");
        Self(child)
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // What it could not remove is not worth failing a test that has passed.
        let _ = self.0.wait();
    }
}
