//! The password of the local server's admin, and the file that keeps it.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};

use super::home::LocalHome;
use crate::error::{Error, Result};
use crate::file::{self, own_uid};

/// Writes it to `file` under the home, readable by us alone.
pub(super) fn keep(home: &LocalHome, file: &Path, password: &SecretString) -> Result<()> {
    home.write(file, password.expose_secret(), 0o600)
}

/// Reads it back. The file exists exactly when the data directory does.
pub(super) fn read(home: &LocalHome) -> Result<SecretString> {
    let file = home.password_file();
    let shown = file.display();
    let open = match file::open(OpenOptions::new().read(true), &file) {
        Ok(open) => open,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(lost(
                home,
                format!("{} is here, but {shown}, the password of its admin, is gone", home.data_dir().display()),
            ));
        }
        Err(e) => return Err(Error::from_io(format!("cannot read {shown}"), e)),
    };
    let failed = |e| Error::from_io(format!("cannot read {shown}"), e);
    let meta = open.metadata().map_err(failed)?;
    if meta.uid() != own_uid() || meta.mode() & 0o077 != 0 {
        return Err(Error::permission_denied("home_unsafe", format!("{shown} is open to other users"))
            .with_hint(format!("`chown {} {shown} && chmod 600 {shown}`", own_uid())));
    }
    let text = file::text(open).map_err(failed)?;
    // A person may have written it with an editor.
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(lost(home, format!("{shown} is empty: the password of the server's admin is gone"))),
        password => Ok(password.to_owned().into()),
    }
}

fn lost(home: &LocalHome, message: String) -> Error {
    Error::conflict("admin_password_missing", message).with_hint(format!(
        "put the file back; or, while the server is stopped, give the admin another password in single-user \
         mode (`postgres --single -D {} postgres`, as the user that owns the data) and write the same into \
         the file, with mode 0600",
        home.data_dir().display()
    ))
}

/// What to do when the server rejects it.
pub(super) fn rejected_hint(home: &LocalHome) -> String {
    format!(
        "the server's admin has another password than the one in {}: write the right one into that file",
        home.password_file().display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_file_is_read_only_while_it_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let home = LocalHome::at(dir.path());
        assert_eq!(read(&home).unwrap_err().code(), "admin_password_missing");
        keep(&home, &home.password_file(), &"secret".into()).unwrap();
        assert_eq!(fs::metadata(home.password_file()).unwrap().mode() & 0o777, 0o600);
        assert_eq!(read(&home).unwrap().expose_secret(), "secret");
        fs::write(home.password_file(), "\n").unwrap();
        let error = read(&home).unwrap_err();
        assert!(matches!(error, Error::Conflict(_)) && error.hint().is_some(), "{error:?}");
        fs::set_permissions(home.password_file(), fs::Permissions::from_mode(0o640)).unwrap();
        let error = read(&home).unwrap_err();
        assert!(error.hint().unwrap().contains("chmod 600"));
    }
}
