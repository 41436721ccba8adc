//! Everything a plan is made from.

use std::collections::BTreeMap;

use crate::app::{App, EXTENSION_SCHEMA, Slot};
use crate::credentials::Issue;
use crate::error::{Error, Result};
use crate::mark::Mark;
use crate::names::{AppName, EnvironmentName};
use crate::postgres::clients::Client;
use crate::postgres::facts::{AbroadFacts, DatabaseFacts, ExtensionFacts, InsideFacts, RoleFacts, ServerFacts};
use crate::postgres::legacy::{Inventory, Legacy};
use crate::postgres::marks::{Bearer, Marks};
use crate::postgres::statements;
use crate::provision::takers::Takers;

/// One reading of the server and the Secret store, as far as one app is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) environment: EnvironmentName,
    pub(crate) server: ServerFacts,
    /// The marks of all apps.
    pub(crate) marks: Marks,
    /// Those roles that have one of the app's names.
    pub(crate) roles: BTreeMap<String, RoleFacts>,
    /// The database that has the app's name for it.
    pub(crate) database: Option<DatabaseFacts>,
    /// The inside of that database; `None` while nobody can enter it.
    pub(crate) inside: Option<InsideFacts>,
    /// The wanted extensions that are not there, and all that these need, as far as the server has them.
    pub(crate) available: BTreeMap<String, ExtensionFacts>,
    /// Who is logged in as the app.
    pub(crate) clients: Vec<Client>,
    /// Who takes its Secret, where that was asked for.
    pub(crate) takers: Takers,
    /// What the app's roles have outside its database.
    pub(crate) abroad: AbroadFacts,
    pub(crate) secret: SecretFacts,
    /// A hand-made app that is to be adopted.
    pub(crate) legacy: Option<Box<Legacy>>,
    /// What has owners in the database, while an adoption is not through.
    pub(crate) inventory: Option<Box<Inventory>>,
}

/// The Secret, without what is secret in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SecretFacts {
    /// There is none.
    Absent,
    /// There is one of that name that is not this app's.
    Foreign,
    /// It is an app's of this name on another server, at this host and port: it is whole, names another place than ours, and
    /// its password opens nothing here.
    Elsewhere(String),
    /// It is the app's.
    Held(HeldSecret),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeldSecret {
    /// The login that its DB_USER names, if that is one of the app's.
    pub(crate) slot: Option<Slot>,
    /// It has a password, and all our keys say the same.
    pub(crate) complete: bool,
    /// All our keys are what would be written now for that login and password.
    pub(crate) current: bool,
    /// Whether its password is the one that the server stores, for each login.
    pub(crate) works: [bool; 2],
    /// Which of the app's passwords it is.
    pub(crate) issue: Issue,
}

impl Observed {
    /// The record of one app.
    ///
    /// # Errors
    /// `Conflict` when the record stands on a role that it does not name.
    pub(crate) fn record(&self, app: &AppName) -> Result<Option<&Mark>> {
        let mut roles = self.marks.readable.iter().filter(|fact| fact.bearer == Bearer::Role && fact.mark.app == *app);
        let Some(misplaced) = roles.find(|fact| fact.name != fact.mark.owner()) else {
            return Ok(self.marks.records().remove(app));
        };
        let (role, right) = (&misplaced.name, misplaced.mark.owner());
        let hint = match self.marks.on(Bearer::Role, right) {
            Some(_) => {
                format!("role {right} bears it, too; take it from the other one: {}", statements::unmark_role(role))
            }
            None => format!("was it renamed? undo that with: {}", statements::rename_role(role, right)),
        };
        let message = format!("role {role:?} bears the record of app {app}, which belongs on role {right}");
        Err(Error::conflict("mark_misplaced", message).with_hint(hint))
    }

    /// Whether the database of the app's name is the app's: it bears its mark, or a create was killed right after it was
    /// made, when the record stood on the owner role only.
    pub(crate) fn owns_database(&self, app: &App) -> bool {
        let Some(facts) = &self.database else { return false };
        match self.marks.on(Bearer::Database, app.database.as_str()) {
            Some(mark) => mark.app == app.name,
            None => {
                let recorded = self.marks.on(Bearer::Role, app.owner.as_str()).is_some_and(|mark| mark.app == app.name);
                recorded && (!facts.allows_connections || facts.invalid) && facts.owner == self.server.admin
            }
        }
    }

    /// Where an extension goes: where it insists on being, else into a schema of the admin's.
    pub(crate) fn extension_schema(&self, extension: &str) -> &str {
        self.available.get(extension).and_then(|facts| facts.schema.as_deref()).unwrap_or(EXTENSION_SCHEMA)
    }
}
