//! What is printed when a command fails, and how the process ends then.

use std::process::ExitCode;

use serde::Serialize;
use shareddb_core::Error;

use crate::args::Format;
use crate::color::Style;
use crate::context::Context;
use crate::quoting::printable_lines;

/// As clap exits.
const USAGE: u8 = 2;

/// Why there is no result.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command failed.
    Failed(Error),
    /// The command line makes no sense.
    Usage { message: String, hint: Option<String> },
    /// A signal ended it.
    Interrupted { signal: u8, hint: String },
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// An error as programs read it.
#[derive(Debug, Serialize)]
struct Account {
    code: &'static str,
    message: String,
    hint: Option<String>,
    exit: u8,
    causes: Vec<String>,
}

impl Failure {
    /// Prints it on standard error, and says how to exit.
    pub(crate) fn report(self, context: &Context) -> ExitCode {
        let console = &context.console;
        let account = self.account();
        let exit = ExitCode::from(account.exit);
        if context.output.format() == Format::Json
            && let Ok(json) = serde_json::to_string(&account)
        {
            console.line(&json);
            return exit;
        }
        let paint = console.paint();
        console.line(&format!("{} {}", paint.apply(Style::Bad, "error:"), printable_lines(&account.message)));
        for cause in &account.causes {
            console.line(&format!("  because: {}", printable_lines(cause)));
        }
        if let Some(hint) = &account.hint {
            console.line(&format!("{} {}", paint.apply(Style::Quiet, "hint:"), printable_lines(hint)));
        }
        exit
    }

    fn account(&self) -> Account {
        match self {
            Self::Failed(error) => Account {
                code: error.code(),
                message: error.to_string(),
                hint: error.hint().map(ToOwned::to_owned),
                exit: exit_code(error),
                causes: error.causes(),
            },
            Self::Usage { message, hint } => {
                Account { code: "usage", message: message.clone(), hint: hint.clone(), exit: USAGE, causes: Vec::new() }
            }
            Self::Interrupted { signal, hint } => Account {
                code: "interrupted",
                message: "interrupted".to_owned(),
                hint: Some(hint.clone()),
                exit: 128 + signal,
                causes: Vec::new(),
            },
        }
    }
}

/// How a command ends that failed so.
pub(crate) fn exit_code(error: &Error) -> u8 {
    match error {
        Error::InvalidInput(_) => USAGE,
        Error::NotFound(_) => 4,
        Error::Refused(_) | Error::Conflict(_) => 5,
        Error::Unavailable(_) => 6,
        Error::Timeout(_) => 7,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_have_their_exit_codes() {
        let exits = [
            Error::invalid_input("c", "m"),
            Error::not_found("c", "m"),
            Error::conflict("c", "m"),
            Error::refused("c", "m"),
            Error::unavailable("c", "m"),
            Error::timeout("c", "m"),
            Error::permission_denied("c", "m"),
            Error::tool_failed("c", "m"),
            Error::failed("c", "m"),
        ]
        .map(|error| exit_code(&error));
        assert_eq!(exits, [2, 4, 5, 5, 6, 7, 1, 1, 1]);
        assert_eq!(Failure::Interrupted { signal: 2, hint: String::new() }.account().exit, 130);
    }
}
