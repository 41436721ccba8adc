//! What can go wrong, sorted by what the caller can do about it.
//!
//! This file alone classifies errors of other crates. `Display` never contains the source:
//! walk [`std::error::Error::source`] to print the chain.

use std::fmt;

use tokio_postgres::error::SqlState;

#[cfg(feature = "kubernetes")]
mod kubernetes;
mod login;
#[cfg(feature = "pool")]
mod query;
#[cfg(feature = "backup")]
mod store;

#[cfg(feature = "kubernetes")]
pub(crate) use kubernetes::{API_ANSWER_MAX, ApiRequest, cut_by, is_disputed, shell_word, shortened};
pub(crate) use login::{LoginAttempt, PasswordAskedInClear};
#[cfg(feature = "pool")]
pub(crate) use query::Trouble;

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// An outcome that is not success. Variants say what happened, not where.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller's input breaks a rule; nothing was sent anywhere.
    #[error(transparent)]
    InvalidInput(Fault),
    /// A named thing does not exist.
    #[error(transparent)]
    NotFound(Fault),
    /// Something else is where our object should be, or changed under us.
    #[error(transparent)]
    Conflict(Fault),
    /// Credentials or rights were not enough.
    #[error(transparent)]
    PermissionDenied(Fault),
    /// Possible, but declined until the caller says so explicitly.
    #[error(transparent)]
    Refused(Fault),
    /// A server, file or program that is needed is not there, or not now.
    #[error(transparent)]
    Unavailable(Fault),
    /// It took longer than allowed.
    #[error(transparent)]
    Timeout(Fault),
    /// A program that was run ended with an error.
    #[error(transparent)]
    ToolFailed(Fault),
    /// Everything else.
    #[error(transparent)]
    Failed(Fault),
}

/// The particulars of an [`Error`]: a stable word, a sentence, perhaps a remedy and a cause.
#[derive(Debug)]
pub struct Fault {
    code: &'static str,
    message: String,
    hint: Option<String>,
    sqlstate: Option<String>,
    source: Option<Source>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// What is the same for every variant: its constructor, and the way to its fault.
macro_rules! variants {
    ($($(#[$doc:meta])* $name:ident => $variant:ident;)*) => {
        $($(#[$doc])*
        pub fn $name(code: &'static str, message: impl Into<String>) -> Self {
            Self::$variant(Fault { code, message: message.into(), hint: None, sqlstate: None, source: None })
        })*

        fn fault(&self) -> &Fault {
            match self { $(Self::$variant(fault))|* => fault }
        }

        fn fault_mut(&mut self) -> &mut Fault {
            match self { $(Self::$variant(fault))|* => fault }
        }

        /// The same once more, for the next one who is told of it; without what it was made from.
        #[cfg(feature = "pool")]
        pub(crate) fn repeated(&self) -> Self {
            let fault = self.fault();
            let fault = Fault {
                code: fault.code,
                message: fault.message.clone(),
                hint: fault.hint.clone(),
                sqlstate: fault.sqlstate.clone(),
                source: None,
            };
            match self { $(Self::$variant(_) => Self::$variant(fault)),* }
        }
    };
}

impl Error {
    variants! {
        /// An [`Error::InvalidInput`] with a stable `code` and a message for people.
        invalid_input => InvalidInput;
        /// An [`Error::NotFound`].
        not_found => NotFound;
        /// An [`Error::Conflict`].
        conflict => Conflict;
        /// An [`Error::PermissionDenied`].
        permission_denied => PermissionDenied;
        /// An [`Error::Refused`].
        refused => Refused;
        /// An [`Error::Unavailable`].
        unavailable => Unavailable;
        /// An [`Error::Timeout`].
        timeout => Timeout;
        /// An [`Error::ToolFailed`].
        tool_failed => ToolFailed;
        /// An [`Error::Failed`].
        failed => Failed;
    }

    /// Adds the remedy: what to do, with the command to type where there is one.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.fault_mut().hint = Some(hint.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.fault_mut().source = Some(source.into());
        self
    }

    /// The same outcome as part of a larger undertaking, with its causes in the sentence itself: for those who print no more
    /// than that.
    #[cfg(feature = "pool")]
    pub(crate) fn within(mut self, what: &str) -> Self {
        let mut message = format!("{what}: {self}");
        for cause in self.causes() {
            message.push_str(": ");
            message.push_str(&cause);
        }
        self.fault_mut().message = message;
        self
    }

    /// The same as another outcome.
    #[cfg(feature = "pool")]
    pub(crate) fn with_code(mut self, code: &'static str) -> Self {
        self.fault_mut().code = code;
        self
    }

    /// A stable word for programs, such as `name_invalid`.
    pub fn code(&self) -> &'static str {
        self.fault().code
    }

    /// What to do about it, when that is known.
    pub fn hint(&self) -> Option<&str> {
        self.fault().hint.as_deref()
    }

    /// What the server calls it, when the server said no.
    pub fn sqlstate(&self) -> Option<&str> {
        self.fault().sqlstate.as_deref()
    }

    /// The causes, outermost first, without what the sentences before have said already.
    pub fn causes(&self) -> Vec<String> {
        let mut said = vec![self.to_string()];
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            let text = cause.to_string();
            if !text.is_empty() && !said.iter().any(|said| said.contains(&text)) {
                said.push(text);
            }
            next = cause.source();
        }
        said.split_off(1)
    }

    /// Whether the same call may succeed later with nothing else changed.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Timeout(_))
            || ["concurrent_change", "deploy_overtaken"].contains(&self.code())
    }

    /// Classifies a failure to read or write a file; `what` says what was being done.
    pub fn from_io(what: impl fmt::Display, source: std::io::Error) -> Self {
        use std::io::ErrorKind;
        let message = what.to_string();
        let error = match source.kind() {
            ErrorKind::NotFound => Self::not_found("file_not_found", message),
            ErrorKind::PermissionDenied => Self::permission_denied("file_permission", message),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                Self::unavailable("disk_full", message).with_hint("free some space on that disk, then run it again")
            }
            ErrorKind::ReadOnlyFilesystem => Self::permission_denied("file_permission", message)
                .with_hint("it is on a read-only file system: choose another place, or mount it for writing"),
            ErrorKind::NotADirectory | ErrorKind::IsADirectory | ErrorKind::DirectoryNotEmpty => {
                Self::conflict("place_taken", message)
            }
            // No regular file, no text, or no end: something else is where our file should be.
            ErrorKind::InvalidData => {
                Self::conflict("file_unfit", message).with_hint("move it away, or put the file that belongs there back")
            }
            ErrorKind::TimedOut => Self::timeout("timeout", message),
            _ => Self::failed("io", message),
        };
        error.with_source(source)
    }

    /// Classifies an error of the PostgreSQL client; `what` says what was being done.
    ///
    /// Of what the server says, only its message and SQLSTATE are kept: a detail can carry an app's data.
    pub fn from_postgres(what: impl fmt::Display, source: tokio_postgres::Error) -> Self {
        let Some(db) = source.as_db_error() else {
            return Self::unavailable("server_unreachable", what.to_string())
                .with_hint("is the server running? `shareddb status` shows where it should be")
                .with_source(source);
        };
        let state = db.code();
        let mut message = format!("{what}: {} ({})", db.message(), state.code());
        if *state == SqlState::DEPENDENT_OBJECTS_STILL_EXIST {
            // This one names the objects, and nothing else.
            message = format!("{message}: {}", db.detail().unwrap_or_default().replace('\n', "; "));
        }
        let mut error = match db.routine() {
            // The limit of a role or of a database, which is found out after the password.
            Some("InitializeSessionUserId" | "CheckMyDatabase") if state.code() == "53300" => {
                Self::unavailable("connection_limit_reached", message)
                    .with_hint("sessions of other programs hold every slot; end some, or raise the limit")
            }
            _ => Self::from_sqlstate(state, message),
        };
        error.fault_mut().sqlstate = Some(state.code().to_owned());
        error
    }

    fn from_sqlstate(state: &SqlState, message: String) -> Self {
        match state.code() {
            "28P01" => Self::permission_denied("password_rejected", message),
            "28000" => Self::permission_denied("login_rejected", message),
            "42501" => Self::permission_denied("permission_denied", message),
            "3D000" => Self::not_found("database_not_found", message),
            "42704" => Self::not_found("object_not_found", message),
            "42710" | "42P04" | "42P06" | "23505" => Self::conflict("name_taken", message),
            "XX000" if message.contains("tuple concurrently updated") => Self::conflict("concurrent_change", message),
            "XX000" if message.contains("checkpoint request failed") => {
                Self::unavailable("server_out_of_resources", message)
                    .with_hint("the server's log says why; most often its disk is full: free some space on it")
            }
            "40001" | "40P01" => Self::conflict("concurrent_change", message),
            "2BP01" => Self::conflict("objects_depend", message).with_hint(
                "something outside the app's own database hangs on it: look at it, remove it, run this again",
            ),
            "55000" if message.contains("not currently accepting connections") => {
                Self::unavailable("database_closed", message)
            }
            "55006" => Self::conflict("object_in_use", message),
            "55P03" => Self::timeout("lock_timeout", message),
            "57014" => Self::timeout("timeout", message),
            "53300" => Self::unavailable("server_full", message)
                .with_hint("sessions hold every slot of the server; end some, or raise max_connections"),
            "53100" => Self::unavailable("disk_full", message)
                .with_hint("the server's disk is full: free some space on it, then run it again"),
            "57P01" | "57P02" => Self::unavailable("server_not_ready", message)
                .with_hint("the server was stopped, or an admin ended the session: run it again"),
            "57P03" => Self::unavailable("server_not_ready", message)
                .with_hint("the server is starting or stopping: run it again in a moment"),
            code if code.starts_with("53") => Self::unavailable("server_out_of_resources", message),
            code if code.starts_with("08") => Self::unavailable("server_unreachable", message),
            _ => Self::failed("server_error", message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    #[test]
    fn display_leaves_the_source_to_the_chain() {
        let error = Error::from_io("cannot read x", std::io::Error::other("inner"));
        assert_eq!(error.to_string(), "cannot read x");
        assert_eq!(error.source().unwrap().to_string(), "inner");
        assert_eq!(error.code(), "io");
    }

    #[test]
    fn a_cause_is_told_once() {
        let inner = std::io::Error::other(std::io::Error::other("no such file"));
        let error = Error::failed("c", "cannot read x").with_source(inner);
        assert_eq!(error.causes(), ["no such file"]);
        let error =
            Error::failed("c", "cannot read x: no such file").with_source(std::io::Error::other("no such file"));
        assert!(error.causes().is_empty());
    }

    #[test]
    fn server_states_become_outcomes() {
        let kind = |state: &SqlState| Error::from_sqlstate(state, "m".into());
        assert!(matches!(kind(&SqlState::TOO_MANY_CONNECTIONS), Error::Unavailable(_)));
        assert!(matches!(kind(&SqlState::DUPLICATE_OBJECT), Error::Conflict(_)));
        assert!(matches!(kind(&SqlState::LOCK_NOT_AVAILABLE), Error::Timeout(_)));
        assert!(kind(&SqlState::DISK_FULL).is_retryable());
        assert!(kind(&SqlState::ADMIN_SHUTDOWN).is_retryable());
        assert!(kind(&SqlState::ADMIN_SHUTDOWN).hint().unwrap().ends_with("run it again"));
        assert!(!kind(&SqlState::SYNTAX_ERROR).is_retryable());
    }
}
