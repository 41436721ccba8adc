//! Where the file with the environments is, and whether it may be followed.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use crate::error::{Error, Result};
use crate::file::own_uid;

pub(super) const NAME: &str = "shareddb.toml";
/// The same file among a user's settings.
const USER_NAME: &str = "config.toml";

/// Where the file can be; the first that is there counts.
pub(super) fn places() -> Vec<PathBuf> {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let above = env::current_dir().map(|dir| dir.ancestors().map(|dir| dir.join(NAME)).collect()).unwrap_or_default();
    let settings = || {
        let xdg = variable("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
        Some(xdg.or_else(|| Some(variable("HOME")?.join(".config")))?.join("shareddb"))
    };
    let user = variable("SHAREDDB_HOME").or_else(settings).map(|folder| folder.join(USER_NAME));
    [above, user.into_iter().collect::<Vec<_>>()].concat()
}

/// Whoever wrote the file says which files and variables are sent to which server as a password: it has to be one of us.
pub(super) fn trusted(path: &Path) -> Result<()> {
    let metadata =
        fs::metadata(path).map_err(|error| Error::from_io(format!("cannot look at {}", path.display()), error))?;
    // With sudo one works in folders of one's own.
    let sudo = || env::var("SUDO_UID").ok().and_then(|uid| uid.parse::<u32>().ok());
    let ours = [0, own_uid()].contains(&metadata.uid()) || own_uid() == 0 && sudo() == Some(metadata.uid());
    let reason = match (ours, metadata.mode() & 0o002 != 0) {
        (true, false) => return Ok(()),
        (true, true) => "everybody may write it",
        (false, _) => "it belongs to another user",
    };
    Err(Error::refused("env_file_untrusted", format!("{} is not read: {reason}", path.display()))
        .with_hint("it says where passwords are sent; make it yours (chown, chmod o-w), or work in another folder"))
}
