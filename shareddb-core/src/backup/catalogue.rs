//! Backups with what is known of each, and the choice of one.

use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;

use super::id::BackupId;
use super::inventory::Listed;
use super::manifest::{Manifest, Reason};
use super::options::Choice;
use super::shelf::Shelf;
use super::store::BackupStore;
use crate::error::{Error, Result};
use crate::names::{AppName, EnvironmentName};

/// Objects that are read side by side.
const AT_A_TIME: usize = 16;

/// A backup and its manifest.
#[derive(Debug)]
#[non_exhaustive]
pub struct Described {
    /// What the listing shows.
    pub listed: Listed,
    /// What is known of it, or why that cannot be told.
    pub manifest: Result<Manifest>,
}

impl Shelf {
    /// The backups, the newest first, each with its manifest. One that was deleted meanwhile is left out.
    ///
    /// # Errors
    /// As for [`Self::list`]. A manifest that cannot be read is none.
    pub async fn describe(&self) -> Result<Vec<Described>> {
        let listed = stream::iter(self.list().await?);
        let described = listed.map(|listed| async move {
            let manifest = self.manifest(&listed.id).await;
            Described { listed, manifest }
        });
        let gone =
            |described: &Described| described.manifest.as_ref().is_err_and(|error| error.code() == "backup_not_found");
        Ok(described.buffered(AT_A_TIME).filter(|described| std::future::ready(!gone(described))).collect().await)
    }

    /// The backup that a choice means.
    ///
    /// # Errors
    /// `NotFound` when there is none. A name is taken at its word.
    pub async fn choose(&self, choice: &Choice) -> Result<BackupId> {
        let time = match choice {
            Choice::Id(id) => return Ok(id.clone()),
            Choice::At(time) => *time,
            Choice::Latest => Timestamp::MAX,
        };
        let listed = self.list().await?;
        let fitting = listed.iter().filter(|listed| listed.id.taken_at() <= time).cloned().collect();
        let found = self.without_replaced(fitting).await.into_iter().next();
        found.map(|listed| listed.id).ok_or_else(|| self.nothing_fits(choice, &listed))
    }

    /// Leaves out the newest ones if they hold what restores have replaced, which was not wanted any more: that is taken by its
    /// name, or by undoing.
    async fn without_replaced(&self, mut listed: Vec<Listed>) -> Vec<Listed> {
        let mut replaced = 0;
        for backup in &listed {
            match self.manifest(&backup.id).await {
                Ok(manifest) if manifest.reason == Reason::BeforeRestore => replaced += 1,
                _ => break,
            }
        }
        listed.drain(..replaced);
        listed
    }

    fn nothing_fits(&self, choice: &Choice, listed: &[Listed]) -> Error {
        let app = self.app();
        let list = format!("`shareddb backups {app}` lists those that there are");
        let then = match choice {
            Choice::At(time) => format!(" from {time} or before"),
            _ => String::new(),
        };
        match (choice, listed) {
            (_, []) => Error::not_found("backup_not_found", format!("there is no backup of app {app}"))
                .with_hint(format!("take one: shareddb backup {app}")),
            (Choice::At(time), [.., oldest]) if oldest.id.taken_at() > *time => Error::not_found(
                "backup_not_found",
                format!("there is no backup of app {app}{then}: the oldest is {}", oldest.id),
            )
            .with_hint(list),
            _ => Error::not_found(
                "backup_not_found",
                format!("there is no backup of app {app}{then} but of what restores have replaced, which is taken by its name only"),
            )
            .with_hint(list),
        }
    }
}

impl BackupStore {
    /// The backups of several apps, the newest first, each from the one on that [`Choice::Latest`] means.
    pub async fn listings(
        &self,
        environment: &EnvironmentName,
        apps: impl IntoIterator<Item = AppName>,
    ) -> Vec<(AppName, Result<Vec<Listed>>)> {
        let listed = stream::iter(apps).map(|app| async move {
            let shelf = self.shelf(environment, &app);
            let listed = match shelf.list().await {
                Ok(listed) => Ok(shelf.without_replaced(listed).await),
                Err(error) => Err(error),
            };
            (app, listed)
        });
        listed.buffered(AT_A_TIME).collect().await
    }
}
