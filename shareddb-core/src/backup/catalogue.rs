//! Backups with what is known of each, and the choice of one.

use futures_util::{StreamExt as _, stream};

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
        if let Choice::Id(id) = choice {
            return Ok(id.clone());
        }
        let listed = self.list().await?;
        let fits = |listed: &&Listed| match choice {
            Choice::At(time) => listed.id.taken_at() <= *time,
            _ => true,
        };
        let app = self.app();
        let mut fitting = listed.iter().filter(fits);
        let mut found = fitting.next();
        // What was there before a restore is what was not wanted any more: it is taken by its name, or by undoing.
        while let (Choice::Latest, Some(newest)) = (choice, found) {
            match self.manifest(&newest.id).await {
                Ok(manifest) if manifest.reason == Reason::BeforeRestore => found = fitting.next(),
                _ => break,
            }
        }
        found.map(|listed| listed.id.clone()).ok_or_else(|| match (choice, listed.last()) {
            (Choice::At(time), Some(oldest)) => Error::not_found(
                "backup_not_found",
                format!("there is no backup of app {app} from {time} or before: the oldest is {}", oldest.id),
            )
            .with_hint(format!("`shareddb backups {app}` lists those that there are")),
            _ => Error::not_found("backup_not_found", format!("there is no backup of app {app}"))
                .with_hint(format!("take one: shareddb backup {app}")),
        })
    }
}

impl BackupStore {
    /// The backups of several apps, as [`Shelf::list`] lists them.
    pub async fn listings(
        &self,
        environment: &EnvironmentName,
        apps: impl IntoIterator<Item = AppName>,
    ) -> Vec<(AppName, Result<Vec<Listed>>)> {
        let listed = stream::iter(apps).map(|app| async move {
            let listed = self.shelf(environment, &app).list().await;
            (app, listed)
        });
        listed.buffered(AT_A_TIME).collect().await
    }
}
