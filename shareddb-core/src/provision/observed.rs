//! Everything a plan is made from.

use std::collections::BTreeMap;

use crate::app::{Mark, Slot};
use crate::error::{Error, Result};
use crate::names::{AppName, EnvironmentName};
use crate::postgres::facts::{Bearer, DatabaseFacts, ExtensionFacts, InsideFacts, MarkFact, RoleFacts, ServerFacts};

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
    /// Those of the wanted extensions that the server has.
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
    /// The record of one app: that of its owner role, which is written first, else that of its database.
    ///
    /// # Errors
    /// `Conflict` when the record stands on a role that it does not name.
    pub(crate) fn record(&self, app: &AppName) -> Result<Option<&Mark>> {
        let of = |bearer| self.marks.iter().filter(move |fact| fact.bearer == bearer && fact.mark.app == *app);
        if let Some(misplaced) = of(Bearer::Role).find(|fact| fact.name != fact.mark.database.as_str()) {
            return Err(Error::conflict(
                "mark_misplaced",
                format!(
                    "role {:?} bears the record of app {app}, which belongs on role {}",
                    misplaced.name, misplaced.mark.database
                ),
            )
            .with_hint(format!(
                "was it renamed? undo that with: ALTER ROLE \"{}\" RENAME TO \"{}\"",
                misplaced.name.replace('"', "\"\""),
                misplaced.mark.database
            )));
        }
        let on_role = of(Bearer::Role).next();
        let on_database = of(Bearer::Database).find(|fact| fact.name == fact.mark.database.as_str());
        Ok(on_role.or(on_database).map(|fact| &fact.mark))
    }

    /// The mark that an object bears.
    pub(crate) fn mark_on(&self, bearer: Bearer, name: &str) -> Option<&Mark> {
        self.marks.iter().find(|fact| fact.bearer == bearer && fact.name == name).map(|fact| &fact.mark)
    }
}
