//! Where the local server keeps its things.

use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::account::Account;
use crate::error::{Error, Result};
use crate::file::{self, own_uid};
use crate::home;

/// The folder of one local server, and which programs run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalHome {
    root: PathBuf,
    binaries: Option<PathBuf>,
}

impl LocalHome {
    /// The folder `path`; the programs are searched.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { root: path.into(), binaries: None }
    }

    /// `$SHAREDDB_HOME/local`; else `/var/lib/shareddb/local` for root; else `shareddb/local` under
    /// `$XDG_DATA_HOME` or `~/.local/share`. `SHAREDDB_PG_BIN` names the programs' directory.
    /// An empty variable counts as unset.
    ///
    /// # Errors
    /// `InvalidInput` (`home_unknown`) when no variable says where the user's files are.
    pub fn from_env() -> Result<Self> {
        let binaries = env::var_os("SHAREDDB_PG_BIN").filter(|value| !value.is_empty()).map(PathBuf::from);
        Ok(Self { root: home::from_env()?.join("local"), binaries })
    }

    /// Uses the programs in `dir` and no others.
    #[must_use]
    pub fn with_binaries(mut self, dir: impl Into<PathBuf>) -> Self {
        self.binaries = Some(dir.into());
        self
    }

    /// The directory of the programs to use, when one was chosen.
    pub fn binaries_override(&self) -> Option<&Path> {
        self.binaries.as_deref()
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// The server's data directory, owned by the user that it runs as.
    pub fn data_dir(&self) -> PathBuf {
        self.root.join("data")
    }

    /// The directory store of this environment's Secrets. Not made or read here.
    pub fn secrets_dir(&self) -> PathBuf {
        self.root.join("secrets")
    }

    /// The folder of this environment's backups, beside the server's own: that can be made anew, and they cannot. Not made or
    /// read here.
    pub fn backups_dir(&self) -> PathBuf {
        self.root.parent().unwrap_or(&self.root).join("backups")
    }

    /// The file with the admin's password.
    pub fn password_file(&self) -> PathBuf {
        self.root.join("admin-password")
    }

    /// The file with the port. Without it the next start chooses one.
    pub fn port_file(&self) -> PathBuf {
        self.root.join("port")
    }

    /// The server's log.
    pub fn log_file(&self) -> PathBuf {
        self.root.join("server.log")
    }

    /// The server's settings, written anew at each start.
    pub fn settings_file(&self) -> PathBuf {
        self.root.join("postgresql.conf")
    }

    /// Who may log in from where, written anew at each start.
    pub fn access_file(&self) -> PathBuf {
        self.root.join("pg_hba.conf")
    }

    /// Locked while a start or stop goes on.
    pub(super) fn lock_file(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// The same home by its real path, made when missing, found to be ours and open to `account`.
    pub(super) fn opened(&self, account: &Account) -> Result<Self> {
        let home = match self.existing()? {
            Some(home) => home,
            None => {
                let root = self.absolute()?;
                // Before anything is made there.
                let present = root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
                account.must_enter(&real(present)?, &root)?;
                make_directories(&root, account)?;
                let home = Self { root: real(&root)?, binaries: self.binaries.clone() };
                home.must_be_ours()?;
                home
            }
        };
        account.must_enter(&home.root, &home.data_dir())?;
        Ok(home)
    }

    /// The same home by its real path, or `None` when there is none yet.
    pub(super) fn existing(&self) -> Result<Option<Self>> {
        let root = match fs::canonicalize(self.absolute()?) {
            Ok(root) => root,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::from_io(format!("cannot look at {}", self.root.display()), e)),
        };
        let home = Self { root, binaries: self.binaries.clone() };
        home.must_be_ours()?;
        Ok(Some(home))
    }

    /// Writes one of our files whole or not at all, and safe from a loss of power.
    pub(super) fn write(&self, path: &Path, text: &str, mode: u32) -> Result<()> {
        let write = || {
            let mut new = path.as_os_str().to_owned();
            new.push(".new");
            let new = Path::new(&new);
            let mut file = file::open(OpenOptions::new().write(true).create(true).truncate(true).mode(mode), new)?;
            // The mode above is cut by the umask, and is not applied to what a killed write left.
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(new, path)?;
            File::open(&self.root)?.sync_all()
        };
        write().map_err(|e| Error::from_io(format!("cannot write {}", path.display()), e))
    }

    fn absolute(&self) -> Result<PathBuf> {
        let root = std::path::absolute(&self.root)
            .map_err(|e| Error::from_io(format!("cannot resolve {}", self.root.display()), e))?;
        must_be_plain(&root)?;
        Ok(root)
    }

    /// Others who can write here could put their own files in the place of ours.
    fn must_be_ours(&self) -> Result<()> {
        must_be_plain(&self.root)?;
        let shown = self.root.display();
        let meta = fs::metadata(&self.root).map_err(|e| Error::from_io(format!("cannot look at {shown}"), e))?;
        if !meta.is_dir() {
            return Err(Error::conflict("home_unsafe", format!("{shown} is not a directory")));
        }
        let me = own_uid();
        if meta.uid() != me {
            let owner = meta.uid();
            return Err(Error::permission_denied(
                "home_unsafe",
                format!("{shown} belongs to the user with id {owner}, and this runs as {me}"),
            )
            .with_hint(format!(
                "run it as that user, choose another place with SHAREDDB_HOME, or take it over with \
                 `chown {me} {shown}`"
            )));
        }
        // The sticky bit would not help: it lets others put files where we are about to write ours.
        if meta.mode() & 0o022 != 0 {
            return Err(Error::permission_denied("home_unsafe", format!("other users may write in {shown}"))
                .with_hint(format!("`chmod go-w {shown}`")));
        }
        Ok(())
    }
}

/// `pg_ctl` hands the path to a shell between double quotes, the settings hold it between single ones.
fn must_be_plain(path: &Path) -> Result<()> {
    let odd = |c: char| matches!(c, '"' | '\'' | '$' | '`' | '\\') || c.is_control();
    match path.to_str() {
        Some(text) if !text.contains(odd) => Ok(()),
        _ => Err(Error::invalid_input(
            "path_invalid",
            format!("the path {path:?} has a character that PostgreSQL's programs misread"),
        )
        .with_hint("choose a path without quotes, backslashes, `$` and control characters")),
    }
}

fn real(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).map_err(|e| Error::from_io(format!("cannot look at {}", path.display()), e))
}

/// Makes what is missing on the way to `root`; what exists keeps its mode.
fn make_directories(root: &Path, account: &Account) -> Result<()> {
    // Another account must pass through to its data, and need not see what is beside them.
    let mode = if account.is_foreign() { 0o711 } else { 0o700 };
    let missing: Vec<&Path> = root.ancestors().take_while(|path| !path.exists()).collect();
    for path in missing.into_iter().rev() {
        let made = DirBuilder::new().mode(mode).create(path).and_then(|()| {
            // Explicitly, as a umask would have cut it.
            fs::set_permissions(path, fs::Permissions::from_mode(mode))
        });
        match made {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {} // another start made it
            other => other.map_err(|e| Error::from_io(format!("cannot make {}", path.display()), e))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_a_shell_would_read_are_invalid() {
        assert!(must_be_plain(Path::new("/var/lib/my data/ünïcode-1.0")).is_ok());
        for bad in ["/a/$(id)", "/a/`id`", "/a/\"b", "/a/b'c", "/a\\b", "/a\nb"] {
            assert_eq!(must_be_plain(Path::new(bad)).unwrap_err().code(), "path_invalid", "{bad}");
        }
    }

    #[test]
    fn a_home_that_others_may_write_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let home = LocalHome::at(dir.path());
        assert!(home.must_be_ours().is_ok());
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o775)).unwrap();
        let error = home.must_be_ours().unwrap_err();
        assert!(matches!(error, Error::PermissionDenied(_)));
        assert!(error.hint().unwrap().contains("chmod go-w"));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(home.must_be_ours().is_err());
    }

    #[test]
    fn nothing_exists_before_the_first_start() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(LocalHome::at(dir.path().join("a/b")).existing().unwrap(), None);
        assert!(!dir.path().join("a").exists());
    }

    #[test]
    fn files_are_replaced_whole_with_their_mode() {
        let dir = tempfile::tempdir().unwrap();
        let home = LocalHome::at(dir.path());
        home.write(&home.port_file(), "first, longer", 0o644).unwrap();
        home.write(&home.port_file(), "next", 0o600).unwrap();
        assert_eq!(fs::read_to_string(home.port_file()).unwrap(), "next");
        assert_eq!(fs::metadata(home.port_file()).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
