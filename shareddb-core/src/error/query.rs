//! What an app's own statement failed with, and what that says about the connection.

use tokio_postgres::error::DbError;

use super::Error;

/// What a failed statement means for the connection that it was sent over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The connection is as good as before.
    None,
    /// The connection has ended or is about to, and others may have, too.
    Lost,
    /// The server takes no writes any more.
    ReadOnly,
    /// What was prepared no longer fits the tables, or is gone: nothing was executed.
    StalePlan,
    /// Another transaction was in the way; the whole transaction can be tried again.
    Conflict,
}

impl Trouble {
    /// What the driver says, looked at.
    pub(crate) fn of(error: &tokio_postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else {
            // What never left this program says nothing about the connection: a value that does not fit its type.
            return if error.is_closed()
                || std::error::Error::source(error).is_some_and(|cause| cause.is::<std::io::Error>())
            {
                Self::Lost
            } else {
                Self::None
            };
        };
        match db.code().code() {
            "57P01" | "57P02" | "57P03" | "57P05" | "25P03" => Self::Lost,
            code if code.starts_with("08") => Self::Lost,
            "25006" => Self::ReadOnly,
            "0A000" if is_stale_plan(db) => Self::StalePlan,
            "26000" => Self::StalePlan,
            "40001" | "40P01" => Self::Conflict,
            _ => Self::None,
        }
    }

    /// Whether the server no longer knows what to make of a statement: of its names, its types, or what it has noted of them
    /// (`cache lookup failed for type …`, XX000, after a type was replaced).
    pub(crate) fn is_of_meaning(error: &tokio_postgres::Error) -> bool {
        error.code().is_some_and(|state| state.code().starts_with("42") || state.code() == "XX000")
    }
}

/// The words are translated on some servers, the routine is not.
fn is_stale_plan(db: &DbError) -> bool {
    db.routine() == Some("RevalidateCachedQuery") || db.message() == "cached plan must not change result type"
}

impl Error {
    /// Classifies what an app's statement failed with; `what` says which one.
    ///
    /// The driver's error is the source, for those who want the constraint or the detail.
    pub(crate) fn from_query(what: &str, source: tokio_postgres::Error) -> Self {
        let Some(db) = source.as_db_error() else {
            return if Trouble::of(&source) == Trouble::Lost {
                Self::lost(format!("{what}: the connection to the server was lost")).with_source(source)
            } else {
                Self::failed("query_failed", what.to_owned()).with_source(source).within_itself()
            };
        };
        let state = db.code().code().to_owned();
        let message = format!("{what}: {} ({state})", db.message());
        let mut error = match state.as_str() {
            code if code.starts_with("23") => Self::conflict("constraint_violated", message),
            "25006" => Self::unavailable("server_read_only", message).with_hint(
                "the server takes no writes: another one may have taken its place; the next try connects anew",
            ),
            "42P01" | "42703" | "42883" | "3F000" => Self::not_found("object_not_found", message),
            "57014" => Self::timeout("query_cancelled", message),
            _ if Trouble::of(&source) == Trouble::Lost => Self::lost(message),
            code if ["28P01", "28000", "42710", "42P04", "42P06"].contains(&code) => {
                Self::failed("query_failed", message)
            }
            _ => Self::from_sqlstate(db.code(), message),
        };
        error.fault_mut().sqlstate = Some(state);
        error.with_source(source)
    }

    fn lost(message: String) -> Self {
        Self::unavailable("connection_lost", message)
            .with_hint("whether the statement was carried out is not known; the next one gets another connection")
    }

    /// With the causes in the sentence.
    fn within_itself(mut self) -> Self {
        for cause in self.causes() {
            let message = format!("{self}: {cause}");
            self.fault_mut().message = message;
        }
        self
    }
}
