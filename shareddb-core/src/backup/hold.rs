//! A word that a backup is in use, so that nobody deletes it meanwhile.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::id::BackupId;
use super::manifest::{API_VERSION, document};
use super::object::{ObjectName, Part, Token};
use super::shelf::Shelf;
use crate::error::Result;

/// A backup that is held: no prune deletes it. Dropped without [`Hold::release`] it holds until its time has come, as it does
/// when the program is killed.
#[derive(Debug)]
pub struct Hold {
    shelf: Shelf,
    name: ObjectName,
    why: String,
}

/// What lies in the store for it. A prune reads the name only.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HoldRecord {
    api_version: String,
    kind: String,
    id: BackupId,
    until: Option<Timestamp>,
    why: String,
    host: String,
}

impl Hold {
    pub(super) async fn place(shelf: &Shelf, id: &BackupId, why: &str, until: Option<Timestamp>) -> Result<Self> {
        // Names have whole seconds, and a hold must not end early.
        let until = until.map(|until| Timestamp::from_second(until.as_second() + 1).unwrap_or(Timestamp::MAX));
        let name = ObjectName { id: id.clone(), part: Part::Hold { until, token: Token::random() } };
        let record = HoldRecord {
            api_version: API_VERSION.to_owned(),
            kind: "Hold".to_owned(),
            id: id.clone(),
            until,
            why: why.to_owned(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        };
        shelf.store().mark(shelf.environment()).await?;
        shelf.store().create(&shelf.path(&name), document(&record)?.into()).await?;
        Ok(Self { shelf: shelf.clone(), name, why: why.to_owned() })
    }

    /// The backup that is held.
    pub fn id(&self) -> &BackupId {
        &self.name.id
    }

    /// Holds it until a later time, for work that takes longer than was thought.
    ///
    /// # Errors
    /// As the store says; the hold is then as it was.
    pub async fn extend(&mut self, until: Timestamp) -> Result<()> {
        let longer = Self::place(&self.shelf, &self.name.id, &self.why, Some(until)).await?;
        let old = std::mem::replace(&mut self.name, longer.name);
        self.shelf.store().delete(&self.shelf.path(&old)).await
    }

    /// Ends it.
    ///
    /// # Errors
    /// As the store says; it then ends when its time has come.
    pub async fn release(self) -> Result<()> {
        self.shelf.store().delete(&self.shelf.path(&self.name)).await
    }
}
