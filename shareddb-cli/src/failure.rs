//! What is printed when a command fails, and how the process ends then.

use std::error::Error as StdError;
use std::process::ExitCode;

use serde::Serialize;
use shareddb_core::Error;

use crate::args::Format;
use crate::color::Style;
use crate::context::Context;
use crate::quoting::printable_lines;

/// Why there is no result.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command failed.
    Failed(Error),
    /// A signal ended it.
    Interrupted { signal: u8 },
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
        let account = self.account(console.is_verbose());
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

    fn account(&self, details: bool) -> Account {
        match self {
            Self::Failed(error) => Account {
                code: error.code(),
                message: error.to_string(),
                hint: error.hint().map(ToOwned::to_owned),
                exit: exit_code(error),
                causes: causes(error, details),
            },
            Self::Interrupted { signal } => Account {
                code: "interrupted",
                message: "interrupted".to_owned(),
                hint: Some("what is done stays done: the same command goes on from there".to_owned()),
                exit: 128 + signal,
                causes: Vec::new(),
            },
        }
    }
}

fn exit_code(error: &Error) -> u8 {
    match error {
        Error::InvalidInput(_) => 2,
        Error::NotFound(_) => 4,
        Error::Refused(_) | Error::Conflict(_) => 5,
        Error::Unavailable(_) => 6,
        Error::Timeout(_) => 7,
        _ => 1,
    }
}

/// The chain below an error, without what was said already. A server's detail may show data, so it is told on demand only.
fn causes(error: &Error, details: bool) -> Vec<String> {
    let mut said = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        let text = if details { text.trim() } else { text.lines().next().unwrap_or_default().trim() };
        let bare = without_labels(text);
        if !bare.is_empty() && !said.iter().any(|said| said.contains(bare)) {
            said.push(bare.to_owned());
        }
        next = cause.source();
    }
    said.split_off(1)
}

/// The client labels what a server said twice.
fn without_labels(text: &str) -> &str {
    let text = text.strip_prefix("db error").map_or(text, |rest| rest.trim_start_matches(": "));
    let labels = ["ERROR: ", "FATAL: ", "PANIC: "];
    labels.iter().find_map(|label| text.strip_prefix(label)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

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
        assert_eq!(Failure::Interrupted { signal: 2 }.account(false).exit, 130);
    }

    #[test]
    fn a_cause_is_told_once() {
        let error = Error::failed("c", "cannot do it: syntax error (42601)")
            .with_source(io::Error::other(io::Error::other("db error: ERROR: syntax error")));
        assert!(causes(&error, false).is_empty());
        let error = Error::failed("c", "cannot read x").with_source(io::Error::other("no such file"));
        assert_eq!(causes(&error, false), ["no such file"]);
    }

    #[test]
    fn details_are_told_on_demand() {
        let error = Error::failed("c", "m").with_source(io::Error::other("ERROR: dup\nDETAIL: Key (a)=(1)"));
        assert_eq!(causes(&error, false), ["dup"]);
        assert_eq!(causes(&error, true), ["dup\nDETAIL: Key (a)=(1)"]);
    }
}
