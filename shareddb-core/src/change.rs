//! Kinds of changes, as lists of them mark each line.

use std::fmt;

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

/// How many changes of each kind there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ChangeCount {
    /// Of [`Change::Add`].
    pub add: usize,
    /// Of [`Change::Change`].
    pub change: usize,
    /// Of [`Change::Remove`].
    pub remove: usize,
    /// Of [`Change::Check`].
    pub check: usize,
}

impl FromIterator<Change> for ChangeCount {
    fn from_iter<I: IntoIterator<Item = Change>>(changes: I) -> Self {
        changes.into_iter().fold(Self::default(), |mut count, change| {
            *match change {
                Change::Add => &mut count.add,
                Change::Change => &mut count.change,
                Change::Remove => &mut count.remove,
                Change::Check => &mut count.check,
            } += 1;
            count
        })
    }
}

impl fmt::Display for ChangeCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { add, change, remove, check } = self;
        write!(f, "{add} to add, {change} to change, {remove} to remove")?;
        if *check > 0 { write!(f, ", {check} to try") } else { Ok(()) }
    }
}
