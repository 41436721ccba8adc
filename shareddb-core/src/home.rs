//! The folder of everything that shareddb keeps on this machine.

use std::env;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::file::own_uid;

/// `$SHAREDDB_HOME`; else `/var/lib/shareddb` for root; else `shareddb` under `$XDG_DATA_HOME` or `~/.local/share`. An
/// empty variable counts as unset.
///
/// # Errors
/// `InvalidInput` (`home_unknown`) when no variable says where the user's files are.
pub(crate) fn from_env() -> Result<PathBuf> {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // The XDG specification has relative paths ignored.
    let data_home = variable("XDG_DATA_HOME").filter(|path| path.is_absolute());
    let data_home = data_home.or_else(|| Some(variable("HOME")?.join(".local/share")));
    match (variable("SHAREDDB_HOME"), data_home) {
        (Some(home), _) => Ok(home),
        (None, _) if own_uid() == 0 => Ok("/var/lib/shareddb".into()),
        (None, Some(data_home)) => Ok(data_home.join("shareddb")),
        (None, None) => Err(Error::invalid_input("home_unknown", "HOME is not set, so there is no place for data")
            .with_hint("set SHAREDDB_HOME to the folder that shareddb may use")),
    }
}
