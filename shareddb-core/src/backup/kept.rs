//! Databases that a restore has replaced.

use std::time::Duration;

use super::BackupManager;
use crate::copy_mark::CopyRole;
use crate::error::Result;
use crate::names::AppName;
use crate::postgres::copies;

/// A database that was an app's until a restore replaced it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kept {
    /// The name it is kept by.
    pub database: String,
    /// Its size on the server.
    pub bytes: u64,
    /// The backup that took its place, or that it came from.
    pub backup: String,
    /// For how long it has been kept, by the server's clock.
    pub age: Duration,
}

impl BackupManager {
    /// What restores of an app have replaced and kept, the newest first: that is what [`undo`](Self::undo) puts back.
    ///
    /// # Errors
    /// Whatever hinders reading.
    pub async fn kept(&self, app: &AppName) -> Result<Vec<Kept>> {
        let copies = copies::copies(&self.server.session().await?).await?;
        let ours = copies.into_iter().rev().filter(|copy| copy.mark.app == *app && copy.mark.role == CopyRole::Kept);
        Ok(ours
            .map(|copy| Kept { database: copy.name, bytes: copy.bytes, backup: copy.mark.backup, age: copy.age })
            .collect())
    }
}
