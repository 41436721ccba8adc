//! What speaks against an adoption, and how it is told.

use std::fmt;

use crate::error::Error;
use crate::names::AppName;

/// One reason, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// A stable word.
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) cure: String,
    /// Something else is in the place, which no consent helps against.
    pub(crate) conflict: bool,
}

impl Finding {
    pub(crate) fn new(code: &'static str, message: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { code, message: message.into(), cure: cure.into(), conflict: false }
    }

    pub(super) fn conflict(code: &'static str, message: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { conflict: true, ..Self::new(code, message, cure) }
    }

    pub(super) fn of(error: &Error) -> Self {
        let hint = error.hint().unwrap_or("see there").to_owned();
        let conflict = matches!(error, Error::Conflict(_));
        Self { code: error.code(), message: error.to_string(), cure: hint, conflict }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}; cure: {}", self.code, self.message, self.cure)
    }
}

/// Findings as a chain of causes, so that each is told on a line of its own.
#[derive(Debug)]
struct Chain {
    finding: Finding,
    next: Option<Box<Self>>,
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.finding.fmt(f)
    }
}

impl std::error::Error for Chain {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.next.as_deref().map(|next| next as _)
    }
}

/// One error for all of them; `None` when there are none.
pub(crate) fn error(app: &AppName, findings: Vec<Finding>) -> Option<Error> {
    let count = findings.len();
    let conflict = findings.iter().all(|finding| finding.conflict);
    let chain = findings.into_iter().rev().fold(None, |next, finding| Some(Box::new(Chain { finding, next })))?;
    let reasons = if count == 1 { "1 reason".to_owned() } else { format!("{count} reasons") };
    let message = format!("app {app} cannot be adopted as it is, for {reasons}");
    let error = if conflict { Error::conflict } else { Error::refused };
    Some(
        error("adopt_refused", message)
            .with_hint("nothing was changed; each reason has its cure beside it, and --dry-run looks again")
            .with_source(*chain),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_reasons_are_told_with_their_cures() {
        let app = "my-app".parse().unwrap();
        assert!(error(&app, Vec::new()).is_none());
        let findings =
            vec![Finding::new("one", "this is so", "do that"), Finding::conflict("two", "it is taken", "move")];
        let told = error(&app, findings.clone()).unwrap();
        assert!(matches!(told, Error::Refused(_)) && told.to_string().contains("2 reasons"));
        assert_eq!(told.causes(), ["[one] this is so; cure: do that", "[two] it is taken; cure: move"]);
        assert!(matches!(error(&app, findings[1..].to_vec()).unwrap(), Error::Conflict(_)));
    }
}
