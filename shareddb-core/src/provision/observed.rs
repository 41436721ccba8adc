//! Everything a plan is made from.

use std::collections::BTreeMap;

use crate::app::{App, EXTENSION_SCHEMA, Mark, Slot};
use crate::error::{Error, Result};
use crate::names::{AppName, EnvironmentName};
use crate::postgres::facts::{Bearer, DatabaseFacts, ExtensionFacts, InsideFacts, MarkFact, RoleFacts, ServerFacts};
use crate::postgres::statements;

/// One reading of the server and the Secret store, as far as one app is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) environment: EnvironmentName,
    pub(crate) server: ServerFacts,
    /// The marks of all apps.
    pub(crate) marks: Vec<MarkFact>,
    /// Those roles that have one of the app's names.
    pub(crate) roles: BTreeMap<String, RoleFacts>,
    /// The database that has the app's name for it.
    pub(crate) database: Option<DatabaseFacts>,
    /// The inside of that database; `None` while nobody can enter it.
    pub(crate) inside: Option<InsideFacts>,
    /// The wanted extensions that are not there, and all that these need, as far as the server has them.
    pub(crate) available: BTreeMap<String, ExtensionFacts>,
    pub(crate) secret: SecretFacts,
}

/// The Secret, without what is secret in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SecretFacts {
    /// There is none.
    Absent,
    /// There is one of that name that is not this app's.
    Foreign,
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
}

impl Observed {
    /// The record of one app.
    ///
    /// # Errors
    /// `Conflict` when the record stands on a role that it does not name.
    pub(crate) fn record(&self, app: &AppName) -> Result<Option<&Mark>> {
        let misplaced = |fact: &&MarkFact| {
            fact.bearer == Bearer::Role && fact.mark.app == *app && fact.name != fact.mark.database.as_str()
        };
        if let Some(misplaced) = self.marks.iter().find(misplaced) {
            let (role, right) = (&misplaced.name, &misplaced.mark.database);
            return Err(Error::conflict(
                "mark_misplaced",
                format!("role {role:?} bears the record of app {app}, which belongs on role {right}"),
            )
            .with_hint(format!("was it renamed? undo that with: {}", statements::rename_role(role, right.as_str()))));
        }
        Ok(records(&self.marks).remove(app))
    }

    /// Whether the database of the app's name is the app's: it bears its mark, or a create was killed right after it was
    /// made, when the record stood on the owner role only.
    pub(crate) fn owns_database(&self, app: &App) -> bool {
        let Some(facts) = &self.database else { return false };
        match self.mark_on(Bearer::Database, app.database.as_str()) {
            Some(mark) => mark.app == app.name,
            None => {
                let recorded = self.mark_on(Bearer::Role, app.owner.as_str()).is_some_and(|mark| mark.app == app.name);
                recorded && (!facts.allows_connections || facts.invalid) && facts.owner == self.server.admin
            }
        }
    }

    /// Where an extension goes: where it insists on being, else into a schema of the admin's.
    pub(crate) fn extension_schema(&self, extension: &str) -> &str {
        self.available.get(extension).and_then(|facts| facts.schema.as_deref()).unwrap_or(EXTENSION_SCHEMA)
    }

    /// The mark that an object bears.
    pub(crate) fn mark_on(&self, bearer: Bearer, name: &str) -> Option<&Mark> {
        self.marks.iter().find(|fact| fact.bearer == bearer && fact.name == name).map(|fact| &fact.mark)
    }
}

/// The record of each app: that of its owner role, which is written first, else that of its database. Marks on other
/// objects, such as a database kept from a restore, are no records.
pub(crate) fn records(marks: &[MarkFact]) -> BTreeMap<&AppName, &Mark> {
    let of = |bearer| {
        marks
            .iter()
            .filter(move |fact| fact.bearer == bearer && fact.name == fact.mark.database.as_str())
            .map(|fact| (&fact.mark.app, &fact.mark))
    };
    of(Bearer::Database).chain(of(Bearer::Role)).collect()
}

pub(crate) fn no_such_app(name: &AppName, environment: &EnvironmentName) -> Error {
    Error::not_found("app_not_found", format!("there is no app {name} in environment {environment}"))
        .with_hint("`shareddb list` shows the apps")
}
