//! The marks of a server: the records of its apps.

use std::collections::BTreeMap;

use crate::app::App;
use crate::copy_mark::CopyMark;
use crate::error::{Error, Result};
use crate::mark::Mark;
use crate::names::{AppName, EnvironmentName};
use crate::postgres::session::AdminSession;

/// Every mark on a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    pub(crate) readable: Vec<MarkFact>,
    pub(crate) unreadable: Vec<UnreadableMark>,
    /// Databases beside those of the apps, each with whose it is.
    pub(crate) copies: Vec<(String, AppName)>,
}

/// A mark and the object that bears it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MarkFact {
    pub(crate) bearer: Bearer,
    pub(crate) name: String,
    pub(crate) mark: Mark,
}

/// A comment that claims to be a mark, and why it cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnreadableMark {
    pub(crate) bearer: Bearer,
    pub(crate) name: String,
    reasons: Vec<String>,
    hint: String,
}

/// What kind of object bears a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bearer {
    Role,
    Database,
}

impl Bearer {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Role => "role",
            Self::Database => "database",
        }
    }
}

impl Mark {
    /// The name of the object that it belongs on.
    pub(crate) fn name_of(&self, bearer: Bearer) -> &str {
        match bearer {
            Bearer::Role => self.owner(),
            Bearer::Database => self.database.as_str(),
        }
    }
}

impl Marks {
    /// Reads them. One that cannot be read hinders nobody but its app.
    pub(crate) async fn read(session: &AdminSession) -> Result<Self> {
        let sql = "SELECT d.datname IS NOT NULL, coalesce(d.datname, r.rolname)::text, s.description \
             FROM pg_shdescription s \
             LEFT JOIN pg_database d ON s.classoid = 'pg_database'::regclass AND d.oid = s.objoid \
             LEFT JOIN pg_roles r ON s.classoid = 'pg_authid'::regclass AND r.oid = s.objoid \
             WHERE (s.description LIKE 'shareddb:{%' OR s.description LIKE 'shareddb-copy:{%' \
                 AND d.datdba IN (SELECT oid FROM pg_roles WHERE rolsuper OR rolname = current_user)) AND coalesce(d.datname, r.rolname) IS NOT NULL ORDER BY 1, 2";
        let mut marks = Self::default();
        for row in session.read("read the records of apps", sql, &[]).await? {
            let bearer = if row.get(0) { Bearer::Database } else { Bearer::Role };
            let name: String = row.get(1);
            if let Some(copy) = CopyMark::parse(row.get(2)) {
                marks.copies.push((name, copy.app));
                continue;
            }
            let Some(mark) = Mark::parse(row.get(2)) else { continue };
            match mark.and_then(|mark| App::recorded(&mark).map(|_| mark)) {
                Ok(mark) => marks.readable.push(MarkFact { bearer, name, mark }),
                Err(error) => marks.unreadable.push(UnreadableMark::new(bearer, name, &error)),
            }
        }
        Ok(marks)
    }

    /// The mark that an object bears.
    pub(crate) fn on(&self, bearer: Bearer, name: &str) -> Option<&Mark> {
        self.readable.iter().find(|fact| fact.bearer == bearer && fact.name == name).map(|fact| &fact.mark)
    }

    /// The record of each app: that of its owner role, which is written first, else that of its database. Marks on other
    /// objects, such as a database that was renamed, are no records.
    pub(crate) fn records(&self) -> BTreeMap<&AppName, &Mark> {
        let of = |bearer| {
            self.readable
                .iter()
                .filter(move |fact| fact.bearer == bearer && fact.name == fact.mark.name_of(bearer))
                .map(|fact| (&fact.mark.app, &fact.mark))
        };
        // Whoever owns a database can write on it, and what is recorded of an adoption is done when it is undone: that stands on
        // the owner role since the moment of the adoption.
        of(Bearer::Database).filter(|(_, mark)| mark.adopted.is_none()).chain(of(Bearer::Role)).collect()
    }

    /// Databases that bear an app's mark without being its own.
    pub(crate) fn other_databases<'a>(&'a self, app: &'a App) -> impl Iterator<Item = &'a str> {
        self.readable
            .iter()
            .filter(|fact| fact.bearer == Bearer::Database && fact.mark.app == app.name)
            .map(|fact| fact.name.as_str())
            .filter(|name| *name != app.database.as_str())
    }

    /// Databases that a restore has left beside an app's own, or that one was killed in.
    pub(crate) fn copies_of(&self, app: &AppName) -> impl Iterator<Item = &str> {
        self.copies.iter().filter(move |(_, of)| of == app).map(|(name, _)| name.as_str())
    }

    /// That no app of this name is recorded. An unreadable record may be its.
    pub(crate) fn no_such_app(&self, name: &AppName, environment: &EnvironmentName) -> Error {
        let error = Error::not_found("app_not_found", format!("there is no app {name} in environment {environment}"));
        match self.unreadable.first() {
            Some(mark) => error.with_hint(mark.to_string()),
            None => error.with_hint("`shareddb list` shows the apps"),
        }
    }
}

impl UnreadableMark {
    fn new(bearer: Bearer, name: String, error: &Error) -> Self {
        let reasons = std::iter::once(error.to_string()).chain(error.causes()).collect();
        Self { bearer, name, reasons, hint: error.hint().unwrap_or_default().to_owned() }
    }

    /// The error of the app that it is about.
    pub(crate) fn error(&self) -> Error {
        Error::conflict("mark_unreadable", self.to_string()).with_hint(&*self.hint)
    }
}

impl std::fmt::Display for UnreadableMark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the comment of {} {:?} cannot be read: {}", self.bearer.as_str(), self.name, self.reasons.join(": "))
    }
}
