//! The operating system's account that the server runs as.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use crate::error::{Error, Result};
use crate::file::own_uid;

const SERVER_USER: &str = "postgres";

/// An account: ours, or, as PostgreSQL refuses to run as root, that of the user `postgres`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Account {
    uid: u32,
    gid: u32,
    /// Whether children change to it. Also: whether others than we must be able to read the settings.
    foreign: bool,
}

impl Account {
    pub(super) fn of_servers() -> Result<Self> {
        let (uid, gid) = (own_uid(), rustix::process::getegid().as_raw());
        if uid != 0 {
            return Ok(Self { uid, gid, foreign: false });
        }
        let passwd = fs::read_to_string("/etc/passwd").map_err(|e| Error::from_io("cannot read /etc/passwd", e))?;
        match find_user(&passwd, SERVER_USER) {
            Some((uid, gid)) if uid != 0 => Ok(Self { uid, gid, foreign: true }),
            _ => Err(Error::unavailable(
                "os_user_missing",
                format!("there is no user `{SERVER_USER}` here, and PostgreSQL does not run as root"),
            )
            .with_hint(
                "the package postgresql makes that user; without the package: \
                 `useradd --system --user-group postgres`",
            )),
        }
    }

    /// Whether it is another account than ours.
    pub(super) fn is_foreign(self) -> bool {
        self.foreign
    }

    pub(super) fn uid(self) -> u32 {
        self.uid
    }

    /// A command that runs `program` as this account, with nothing of our environment: no secret of
    /// ours stays readable in a server that outlives us, no `PGDATA` or `LANG` changes what it does.
    pub(super) fn command(self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LC_ALL", "C");
        // Our own working directory may be closed to that account.
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if self.foreign {
            command.gid(self.gid).uid(self.uid);
        }
        command
    }

    /// Gives `path` to this account.
    pub(super) fn own(self, path: &Path) -> Result<()> {
        if !self.foreign {
            return Ok(());
        }
        chown(path, Some(self.uid), Some(self.gid))
            .map_err(|e| Error::from_io(format!("cannot give {} to user {SERVER_USER}", path.display()), e))
    }

    /// Checks that this account can pass through every directory down to `path`, on the way to `goal`.
    pub(super) fn must_enter(self, path: &Path, goal: &Path) -> Result<()> {
        if !self.foreign {
            return Ok(());
        }
        let Some(closed) = self.first_closed(path)? else { return Ok(()) };
        let closed = closed.display();
        Err(Error::permission_denied(
            "home_closed",
            format!("user {SERVER_USER} cannot enter {closed} on the way to {}", goal.display()),
        )
        .with_hint(format!(
            "as root the server runs as {SERVER_USER}: `chmod o+x {closed}` lets it pass through (not list), \
             or choose another place with SHAREDDB_HOME or SHAREDDB_PG_BIN"
        )))
    }

    fn first_closed(self, path: &Path) -> Result<Option<PathBuf>> {
        let mut chain: Vec<&Path> = path.ancestors().collect();
        chain.reverse();
        for directory in chain {
            let meta = fs::metadata(directory)
                .map_err(|e| Error::from_io(format!("cannot look at {}", directory.display()), e))?;
            if meta.is_dir() && !self.may_enter(meta.mode(), meta.uid(), meta.gid()) {
                return Ok(Some(directory.to_owned()));
            }
        }
        Ok(None)
    }

    /// What the kernel decides for a process with this account and no further groups.
    fn may_enter(self, mode: u32, uid: u32, gid: u32) -> bool {
        let bit = match () {
            () if uid == self.uid => 0o100,
            () if gid == self.gid => 0o010,
            () => 0o001,
        };
        mode & bit != 0
    }
}

/// The uid and gid of `name` in the text of /etc/passwd.
fn find_user(passwd: &str, name: &str) -> Option<(u32, u32)> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        match fields[..] {
            [user, _, uid, gid, ..] if user == name => Some((uid.parse().ok()?, gid.parse().ok()?)),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_whole_name() {
        let passwd = "root:x:0:0::/root:/bin/sh\npostgres2:x:7:7::/:/bin/sh\npostgres:x:101:104:,,:/:/bin/sh\n";
        assert_eq!(find_user(passwd, "postgres"), Some((101, 104)));
        assert_eq!(find_user(passwd, "postgre"), None);
        assert_eq!(find_user("postgres:x:many:1::\n", "postgres"), None);
    }

    #[test]
    fn only_the_bits_of_its_class_count() {
        let account = Account { uid: 101, gid: 104, foreign: true };
        assert!(account.may_enter(0o711, 0, 0));
        assert!(!account.may_enter(0o700, 0, 0));
        assert!(account.may_enter(0o700, 101, 0));
        assert!(account.may_enter(0o710, 0, 104));
        // The owner and the group are not "others", even where others may.
        assert!(!account.may_enter(0o011, 101, 0));
        assert!(!account.may_enter(0o701, 0, 104));
    }

    #[test]
    fn the_closed_directory_is_named_not_its_child() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        fs::set_permissions(dir.path().join("a"), fs::Permissions::from_mode(0o700)).unwrap();
        let stranger = Account { uid: 4_000_000, gid: 4_000_000, foreign: true };
        assert_eq!(stranger.first_closed(&inner).unwrap(), Some(dir.path().join("a")));
        let error = stranger.must_enter(&inner, &inner).unwrap_err();
        assert_eq!(error.code(), "home_closed");
        assert!(error.hint().unwrap().contains("chmod o+x"));
    }
}
