//! Kinds of changes, as lists of them mark each line.

use serde::Serialize;

/// What kind of change something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Something comes to be.
    Add,
    /// Something becomes different.
    Change,
    /// Something goes.
    Remove,
    /// Something is tried out.
    Check,
}

impl Change {
    /// The mark in front of a line.
    pub fn symbol(self) -> char {
        match self {
            Self::Add => '+',
            Self::Change => '~',
            Self::Remove => '-',
            Self::Check => '?',
        }
    }
}
