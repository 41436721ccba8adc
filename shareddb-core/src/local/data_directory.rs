//! The server's data directory: whether it is whole, and its making.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use secrecy::SecretString;

use super::account::Account;
use super::binaries::Binaries;
use super::home::LocalHome;
use super::{ADMIN, admin_password, log};
use crate::error::{Error, Result};
use crate::file::{self, blocking};
use crate::password;

/// Where an initdb works before its result becomes the data directory.
const STAGING_PREFIX: &str = "data.new-";
/// Files without which a data directory is none.
const ESSENTIAL: [&str; 3] = ["PG_VERSION", "postgresql.conf", "global/pg_control"];

/// The major version of the data, `None` when there is no data directory, an error when it is not whole.
pub(super) fn major(home: &LocalHome) -> Result<Option<u16>> {
    let data = home.data_dir();
    let failed = |e| Error::from_io(format!("cannot look at {}", data.display()), e);
    match fs::symlink_metadata(&data) {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    }
    for name in ESSENTIAL {
        match fs::metadata(data.join(name)) {
            Ok(_) => {}
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(incomplete(&data, &format!("it has no {name}")));
            }
            Err(e) => return Err(failed(e)),
        }
    }
    let file = data.join("PG_VERSION");
    let version = file::read_text(&file).map_err(|e| Error::from_io(format!("cannot read {}", file.display()), e))?;
    let major = version.trim().parse().map_err(|_| incomplete(&data, "its PG_VERSION holds no version"))?;
    Ok(Some(major))
}

/// Like [`major`], and checks that `account` owns the data and others do not see them.
pub(super) fn inspect(home: &LocalHome, account: &Account) -> Result<Option<u16>> {
    let Some(major) = major(home)? else { return Ok(None) };
    let data = home.data_dir();
    let shown = data.display();
    let meta = fs::metadata(&data).map_err(|e| Error::from_io(format!("cannot look at {shown}"), e))?;
    if meta.uid() != account.uid() {
        return Err(Error::permission_denied(
            "home_unsafe",
            format!("{shown} belongs to the user with id {}, and the server runs as {}", meta.uid(), account.uid()),
        )
        .with_hint(format!("`chown -R {} {shown}`", account.uid())));
    }
    // The bits that PostgreSQL itself allows.
    if meta.mode() & 0o027 != 0 {
        return Err(Error::permission_denied("home_unsafe", format!("{shown} is open to other users"))
            .with_hint(format!("`chmod 700 {shown}`")));
    }
    Ok(Some(major))
}

fn incomplete(data: &Path, why: &str) -> Error {
    let data = data.display();
    Error::conflict("data_incomplete", format!("{data} is not a whole data directory: {why}"))
        .with_hint(format!("put it back from a copy; or, if nothing in it is needed, `rm -rf {data}` to begin anew"))
}

/// Makes the data directory with a new admin password.
///
/// Killed at any point it leaves no data directory, or a whole one with its password: initdb works in
/// a staging directory, the password file is written, then one rename makes the data appear. A
/// password file without data is overwritten by the next call.
pub(super) async fn create(home: &LocalHome, account: &Account, binaries: &Binaries) -> Result<()> {
    let (stage_home, stage_account) = (home.clone(), *account);
    let (staging, password) = blocking(move || {
        let password = password::generate()?;
        Ok((Staging::make(&stage_home, &stage_account, &password)?, password))
    })
    .await?;

    let mut command = account.command(&binaries.program("initdb"));
    command
        .arg("--pgdata")
        .arg(staging.data())
        .args(["--username", ADMIN, "--auth-local=peer", "--auth-host=scram-sha-256"])
        .arg("--pwfile")
        .arg(staging.password_file())
        .args(["--encoding=UTF8", "--data-checksums", "--no-instructions"])
        .args(["--locale", locale(account).await])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let output = command.output().await.map_err(|e| Error::from_io("cannot run initdb", e))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        return Err(log::initdb_failure(&String::from_utf8_lossy(&said)));
    }

    let home = home.clone();
    blocking(move || {
        staging.forget_password()?;
        admin_password::keep(&home, &home.password_file(), &password)?;
        let data = home.data_dir();
        fs::rename(staging.data(), &data)
            .and_then(|()| fs::File::open(home.path())?.sync_all())
            .map_err(|e| Error::from_io(format!("cannot put {} in place", data.display()), e))
    })
    .await
}

/// Sorts and compares by code point, the same on every machine; upper and lower case of all letters.
async fn locale(account: &Account) -> &'static str {
    let listed = account.command(Path::new("/usr/bin/locale")).arg("-a").stdout(Stdio::piped()).output().await;
    let listed = listed.map(|output| String::from_utf8_lossy(&output.stdout).to_lowercase()).unwrap_or_default();
    if listed.lines().any(|name| matches!(name, "c.utf8" | "c.utf-8")) { "C.UTF-8" } else { "C" }
}

/// A directory of our own around the one that initdb fills; gone with this value.
#[derive(Debug)]
struct Staging {
    path: PathBuf,
}

impl Staging {
    fn make(home: &LocalHome, account: &Account, password: &SecretString) -> Result<Self> {
        let path = home.path().join(format!("{STAGING_PREFIX}{:016x}", rand::random::<u64>()));
        let shown = path.clone();
        let failed = |e| Error::from_io(format!("cannot make {}", shown.display()), e);
        // Passed through by the server's account, written to by us alone.
        DirBuilder::new().mode(0o711).create(&path).map_err(failed)?;
        let staging = Self { path };
        // Explicitly, as a umask would have cut it.
        fs::set_permissions(&staging.path, fs::Permissions::from_mode(0o711)).map_err(failed)?;
        DirBuilder::new().mode(0o700).create(staging.data()).map_err(failed)?;
        admin_password::keep(home, &staging.password_file(), password)?;
        account.own(&staging.password_file())?;
        account.own(&staging.data())?;
        Ok(staging)
    }

    fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    fn password_file(&self) -> PathBuf {
        self.path.join("password")
    }

    /// Removes the password once initdb has read it.
    fn forget_password(&self) -> Result<()> {
        let file = self.password_file();
        fs::remove_file(&file).map_err(|e| Error::from_io(format!("cannot remove {}", file.display()), e))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What stays behind is removed by the next start.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes what killed calls left. The caller holds the lock; an orphan of a killed call may still
/// write in its own directory, hence "as far as it goes".
pub(super) fn remove_leftovers(home: &LocalHome) {
    let Ok(entries) = fs::read_dir(home.path()) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(STAGING_PREFIX) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_directory_counts() {
        let dir = tempfile::tempdir().unwrap();
        let home = LocalHome::at(dir.path());
        assert_eq!(major(&home).unwrap(), None);
        fs::create_dir(home.data_dir()).unwrap();
        let error = major(&home).unwrap_err();
        assert!(matches!(error, Error::Conflict(_)));
        assert!(error.hint().unwrap().contains("rm -rf"));
        fs::create_dir(home.data_dir().join("global")).unwrap();
        for name in ESSENTIAL {
            fs::write(home.data_dir().join(name), "15\n").unwrap();
        }
        assert_eq!(major(&home).unwrap(), Some(15));
        fs::write(home.data_dir().join("PG_VERSION"), "").unwrap();
        assert_eq!(major(&home).unwrap_err().code(), "data_incomplete");
    }

    #[test]
    fn a_file_or_a_dangling_link_is_not_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let home = LocalHome::at(dir.path());
        fs::write(home.data_dir(), "").unwrap();
        assert_eq!(major(&home).unwrap_err().code(), "data_incomplete");
        fs::remove_file(home.data_dir()).unwrap();
        std::os::unix::fs::symlink("/nowhere/data", home.data_dir()).unwrap();
        assert_eq!(major(&home).unwrap_err().code(), "data_incomplete");
    }

    #[test]
    fn staging_directories_do_not_pile_up() {
        let dir = tempfile::tempdir().unwrap();
        let home = LocalHome::at(dir.path());
        fs::create_dir_all(dir.path().join("data.new-0123/data/base")).unwrap();
        fs::create_dir(home.data_dir()).unwrap();
        remove_leftovers(&home);
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, [home.data_dir()]);
    }
}
