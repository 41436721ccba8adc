//! Ends servers when their test ends, however that ends.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A process that waits for this one to be gone, by reading from a pipe that nobody writes to; then it ends the
/// servers of a home and removes the home. It works for statics, which are never dropped, and after kill -9.
#[derive(Debug)]
pub struct Reaper(Child);

impl Reaper {
    /// Watches over `home`, which it will remove, and over the PostgreSQL server in its folder `local`.
    pub fn of(home: &Path) -> Self {
        Self::over(home, &["local/data/postmaster.pid"])
    }

    /// Watches over `home`, which it will remove, and over the servers whose process ids stand in the first lines of
    /// files in it.
    pub fn over(home: &Path, process_files: &[&str]) -> Self {
        // SIGQUIT ends PostgreSQL at once, and every program made with Go.
        let script = r#"read -r _ || true
cd "$1" || exit 0
shift
pids=
for file; do pid=$(head -n 1 "$file" 2>/dev/null) && kill -QUIT "$pid" 2>/dev/null && pids="$pids $pid"; done
for pid in $pids; do
  for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$pid" 2>/dev/null || break; sleep 0.2; done
done
home=$(pwd)
cd /
if mountpoint -q "$home" 2>/dev/null; then umount "$home"; fi
rm -rf "$home""#;
        let child = Command::new("sh")
            .args(["-c", script, "reaper"])
            .arg(home)
            .args(process_files)
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
