//! What ought to be and is not, and is not for the admin to change.

use std::fmt;

use serde::Serialize;

use crate::names::DatabaseName;

/// Something that ought to be different and stays as it is, with the statement that changes it. It is never counted as done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Gap {
    /// What is not as it should be.
    pub what: String,
    /// Who is to close it.
    pub closer: Closer,
    /// The SQL that does it.
    pub statement: String,
    /// The database to run that in, where it matters.
    pub database: Option<DatabaseName>,
    /// It is about the server and so about every app on it.
    pub server: bool,
}

/// Who closes a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Closer {
    /// The admin may not: a superuser has to.
    Superuser,
    /// The admin may, and does so when told to secure a server that is not its own.
    Consent,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.closer {
            Closer::Superuser => "as a superuser",
            Closer::Consent => "--secure-server does it",
        };
        write!(f, "{}; {how}", self.what)?;
        if let Some(database) = &self.database {
            write!(f, ", in database {database}")?;
        }
        write!(f, ": {}", self.statement)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_who_closes_it_and_where() {
        let gap = |closer, database: Option<&str>| Gap {
            what: "it is open".to_owned(),
            closer,
            statement: "CLOSE".to_owned(),
            database: database.map(|name| name.parse().unwrap()),
            server: false,
        };
        let told = gap(Closer::Superuser, Some("my_app_db")).to_string();
        assert_eq!(told, "it is open; as a superuser, in database my_app_db: CLOSE");
        assert_eq!(gap(Closer::Consent, None).to_string(), "it is open; --secure-server does it: CLOSE");
    }
}
