//! The record of a database beside an app's own, which the server itself keeps as the database's comment.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::names::AppName;

/// No record of an app begins so.
const PREFIX: &str = "shareddb-copy:";

/// What a copy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CopyRole {
    /// A backup is loaded into it, and nobody but the maintenance login may enter.
    Scratch,
    /// It was the app's until a restore took its place.
    Kept,
}

/// What a copy is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CopyMark {
    pub(crate) role: CopyRole,
    pub(crate) app: AppName,
    /// The backup that it was loaded from, or that took its place.
    pub(crate) backup: String,
    /// The server's time when it became what it is: `2026-11-22T02:00:56Z`.
    pub(crate) since: String,
}

impl CopyMark {
    /// Reads a comment; `None` for any other.
    pub(crate) fn parse(comment: &str) -> Option<Self> {
        serde_json::from_str(comment.strip_prefix(PREFIX)?).ok()
    }
}

impl fmt::Display for CopyMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_string(self).map_err(|_| fmt::Error)?;
        write!(f, "{PREFIX}{json}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mark::Mark;

    #[test]
    fn it_survives_its_comment_and_is_no_record_of_an_app() {
        let mark = CopyMark {
            role: CopyRole::Kept,
            app: "a".parse().unwrap(),
            backup: "a-20261122T020056Z".into(),
            since: "2026-11-22T02:00:56Z".into(),
        };
        assert_eq!(CopyMark::parse(&mark.to_string()), Some(mark.clone()));
        assert!(Mark::parse(&mark.to_string()).is_none());
        assert_eq!(CopyMark::parse("shareddb:{}"), None);
    }
}
