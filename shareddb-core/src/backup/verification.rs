//! What a check of a backup has found, as it is kept beside the backup.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::id::BackupId;

/// The outcome of a check. What could not be told is none, and is not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It was restored into a scratch database, and everything was there.
    Passed,
    /// It was read to its end and is what was written; nothing was restored.
    Read,
    /// It does not restore, or is not what was written.
    Failed,
}

impl Verdict {
    const ALL: [Self; 3] = [Self::Passed, Self::Read, Self::Failed];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Read => "read",
            Self::Failed => "failed",
        }
    }

    /// The verdict that this word stands for.
    pub(crate) fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.as_str() == word)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The record of one check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Verification {
    /// `shareddb/v1`.
    pub api_version: String,
    /// `Verification`.
    pub kind: String,
    /// Which backup was checked.
    pub id: BackupId,
    /// When the check ended, by the clock of the machine that made it.
    pub at: Timestamp,
    /// What was found.
    pub verdict: Verdict,
    /// How long it took.
    pub took_seconds: f64,
    /// Where it was restored: the environment.
    pub environment: Option<String>,
    /// The version of the server it was restored on.
    pub server: Option<String>,
    /// The version of shareddb that made the check.
    pub shareddb: String,
    /// What was wrong, a sentence each.
    pub findings: Vec<String>,
    /// What of it a restore there leaves out, and why: what a superuser made, say. Rights for roles that are not there count among
    /// it, though a restore asks first whether they are to be left out.
    #[serde(default)]
    pub left_out: Vec<String>,
}

impl Verification {
    /// A check of `id` that ended `at` this time.
    pub fn new(id: BackupId, at: Timestamp, verdict: Verdict) -> Self {
        Self {
            api_version: super::manifest::API_VERSION.to_owned(),
            kind: "Verification".to_owned(),
            id,
            at,
            verdict,
            took_seconds: 0.0,
            environment: None,
            server: None,
            shareddb: env!("CARGO_PKG_VERSION").to_owned(),
            findings: Vec::new(),
            left_out: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_words() {
        for verdict in Verdict::ALL {
            assert_eq!(Verdict::of_word(&verdict.to_string()), Some(verdict));
            assert_eq!(serde_json::to_string(&verdict).unwrap(), format!("\"{verdict}\""));
        }
        assert_eq!(Verdict::of_word("Passed"), None);
    }

    #[test]
    fn a_record_comes_back_as_it_was_written() {
        let id = "a-20261122T020056Z".parse().unwrap();
        let mut record = Verification::new(id, "2026-11-23T03:00:00Z".parse().unwrap(), Verdict::Failed);
        record.findings.push("table t: 3 rows where 4 were dumped".to_owned());
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Verification>(&text).unwrap(), record);
        assert!(
            text.starts_with(r#"{"apiVersion":"shareddb/v1","kind":"Verification","id":"a-20261122T020056Z","at":"#)
        );
    }
}
