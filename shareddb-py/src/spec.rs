//! What an app is to be, from Python's named arguments.

use shareddb_core::{AppSpec, DatabaseName, LoginName, Result};

use crate::adopt::Adopt;
use crate::names::{Names, Words};
use crate::whole::Whole;

/// Python's named arguments, one for one; what was left out means "as recorded, else the default".
pub(crate) struct Wishes<'a> {
    pub(crate) app: &'a str,
    pub(crate) database: Option<&'a str>,
    pub(crate) user: Option<&'a str>,
    pub(crate) connections: Option<Whole>,
    pub(crate) search_path: Option<Names>,
    pub(crate) extensions: Option<Names>,
    pub(crate) settings: Option<Words>,
    pub(crate) allow_overcommit: bool,
    pub(crate) secure_server: bool,
    pub(crate) adopt: Option<Adopt>,
}

impl Wishes<'_> {
    /// # Errors
    /// `InvalidInput` for a name that cannot be one.
    pub(crate) fn spec(self) -> Result<AppSpec> {
        let mut spec = AppSpec::new(self.app.parse()?);
        // What exists may have any name.
        let exists = self.adopt.is_some();
        let database = |name| if exists { DatabaseName::existing(name) } else { name.parse() };
        let user = |name| if exists { LoginName::existing(name) } else { name.parse() };
        spec.database = self.database.map(database).transpose()?;
        spec.user = self.user.map(user).transpose()?;
        spec.adopt = self.adopt.map(|adopt| adopt.0);
        let connections = |count: Whole| count.fit("connections_invalid", "connections per login");
        spec.connections = self.connections.map(connections).transpose()?;
        spec.search_path = self.search_path.map(Names::parsed).transpose()?;
        spec.extensions = self.extensions.map(Names::parsed).transpose()?;
        let settings = |settings: Words| {
            settings.0.into_iter().map(|(name, value)| Ok((name.parse()?, value))).collect::<Result<_>>()
        };
        spec.settings = self.settings.map(settings).transpose()?;
        spec.allow_overcommit = self.allow_overcommit;
        spec.secure_server = self.secure_server;
        Ok(spec)
    }
}
