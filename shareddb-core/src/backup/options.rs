//! What a caller may choose for a backup, a check or a restore.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::id::BackupId;
use super::manifest::Reason;
use super::seal::{Identities, Recipients};
use super::shelf::Shelf;

/// How a backup is taken.
#[derive(Clone)]
#[non_exhaustive]
pub struct BackupOptions {
    /// What it is taken for; by hand, unless something else is said.
    pub reason: Reason,
    /// Who can read it. Empty: everybody who can read the store.
    pub recipients: Recipients,
    /// How long somebody may wait for a lock that the dump holds before it gives way; zero is for ever. A minute, unless
    /// something else is said.
    pub yield_after: Duration,
    /// Until when no policy deletes it. Unless something else is said that is nothing for a backup, [`SAFETY_DAYS`] for one
    /// of what a restore replaces, and [`LAST_DAYS`] for the last one of an app.
    pub keep: Option<Timestamp>,
    /// For how many days it is kept, where nothing else is said.
    pub(super) keep_days: Option<i64>,
}

/// For how many days a backup is kept of what a restore has replaced, unless something else is said.
pub const SAFETY_DAYS: i64 = 7;
/// For how many days the last backup of an app is kept that was dropped, unless something else is said.
pub const LAST_DAYS: i64 = 90;

impl BackupOptions {
    /// The same for a backup that is taken for this and kept for so long, where nothing else was said.
    pub(super) fn taken_for(&self, reason: Reason, days: i64) -> Self {
        Self { reason, keep_days: Some(days), ..self.clone() }
    }

    /// Until when a backup is kept that was taken at this time.
    pub(super) fn kept_until(&self, taken_at: Timestamp) -> Option<Timestamp> {
        let days = || taken_at.checked_add(SignedDuration::from_hours(24 * self.keep_days?)).ok();
        self.keep.or_else(days)
    }
}

impl Default for BackupOptions {
    fn default() -> Self {
        Self {
            reason: Reason::Manual,
            recipients: Recipients::none(),
            yield_after: Duration::from_secs(60),
            keep: None,
            keep_days: None,
        }
    }
}

impl std::fmt::Debug for BackupOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackupOptions")
            .field("reason", &self.reason)
            .field("recipients", &self.recipients)
            .field("yield_after", &self.yield_after)
            .field("keep", &self.keep)
            .field("keep_days", &self.keep_days)
            .finish()
    }
}

/// Which of an app's backups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The newest, but for those of what restores have replaced.
    #[default]
    Latest,
    /// This one.
    Id(BackupId),
    /// The same as it was at this time.
    At(Timestamp),
}

/// What becomes of rights and policies for roles other than the app's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OtherRoles {
    /// They are as they were. A role that is missing is an error.
    Require,
    /// Those for roles that are there are as they were, and the others are left out and told.
    Existing,
    /// They are left out and told.
    LeaveOut,
}

impl OtherRoles {
    /// Every one of them.
    pub const ALL: [Self; 3] = [Self::Require, Self::Existing, Self::LeaveOut];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Require => "require",
            Self::Existing => "existing",
            Self::LeaveOut => "leave-out",
        }
    }
}

/// How a backup is proven.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct VerifyOptions {
    /// Where it lies, when that is not among the backups of this environment.
    pub shelf: Option<Shelf>,
    /// Only read it to its end; nothing is restored.
    pub quick: bool,
    /// Keys to what is encrypted.
    pub identities: Identities,
}

/// How a backup is restored.
#[derive(Clone)]
#[non_exhaustive]
pub struct RestoreOptions {
    /// Which one; the newest, unless something else is said.
    pub backup: Choice,
    /// Where it lies, when that is not among the app's own backups: those of another app or another environment.
    pub shelf: Option<Shelf>,
    /// What becomes of rights for other roles: they are required, or left out where the backup is another app's, unless
    /// something else is said.
    pub other_roles: Option<OtherRoles>,
    /// Keys to what is encrypted.
    pub identities: Identities,
    /// Whether what is there now is backed up first. It is, unless something else is said.
    pub safety_backup: bool,
    /// How that is taken.
    pub safety: BackupOptions,
}

impl Default for RestoreOptions {
    fn default() -> Self {
        Self {
            backup: Choice::Latest,
            shelf: None,
            other_roles: None,
            identities: Identities::default(),
            safety_backup: true,
            safety: BackupOptions::default(),
        }
    }
}
