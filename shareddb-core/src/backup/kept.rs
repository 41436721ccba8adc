//! Databases that a restore has replaced.

use serde::Serialize;

use crate::copy_mark::CopyRole;
use crate::error::Result;
use crate::names::AppName;
use crate::postgres::copies;
use crate::server::Server;

/// A database that was an app's until a restore replaced it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Kept {
    /// The name it is kept by.
    pub database: String,
    /// Its size on the server.
    pub bytes: u64,
    /// The backup that took its place, or that it came from.
    pub backup: String,
    /// For how many seconds it has been kept, by the server's clock.
    pub age_seconds: u64,
}

impl Kept {
    /// What restores of an app have replaced and kept, the newest first: that is what [`undo`](super::BackupManager::undo) puts back.
    ///
    /// # Errors
    /// Whatever hinders reading.
    pub async fn of(server: &Server, app: &AppName) -> Result<Vec<Self>> {
        let copies = copies::copies(&server.session().await?).await?;
        let ours = copies.into_iter().rev().filter(|copy| copy.mark.app == *app && copy.mark.role == CopyRole::Kept);
        Ok(ours
            .map(|copy| Self {
                database: copy.name,
                bytes: copy.bytes,
                backup: copy.mark.backup,
                age_seconds: copy.age.as_secs(),
            })
            .collect())
    }
}
