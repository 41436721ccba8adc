//! Putting something in the place of an app's database, and taking that back.

use super::foreign::Foreign;
use super::incoming::{self, Made};
use super::job::Job;
use super::origin::Origin;
use super::restore::Own;
use super::scratch::{self, Scratch};
use super::swap::{self, NotReplaced};
use super::{
    BackupId, BackupManager, DumpFile, LeftOut, Manifest, OtherRoles, Reason, Recipients, RestoreOptions, SAFETY_DAYS,
    Shelf, dump, released,
};
use crate::error::{Error, Result};
use crate::names::AppName;

/// What a restore did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RestoreReport {
    /// The backup that was restored; none for a dump that was made elsewhere.
    pub manifest: Option<Manifest>,
    /// How many tables there are now.
    pub tables: u64,
    /// How many rows they have.
    pub rows: u64,
    /// The backup of what was there before, unless it was not wanted.
    pub safety: Option<Manifest>,
    /// The database that was replaced, under the name that it is kept by.
    pub kept: String,
    /// What of the backup was not loaded, and why.
    pub left_out: Vec<LeftOut>,
    /// What should be known beside that.
    pub remarks: Vec<String>,
}

impl BackupManager {
    /// Puts a backup in the place of an app's database. Until it has been loaded and compared, nothing of the app's is
    /// touched; what was there is kept for [`undo`](Self::undo). `confirm` is the app's name again.
    ///
    /// # Errors
    /// `Refused` when `confirm` is another text, or when the server lacks something; `NotFound` when there is no such backup;
    /// `Failed` when it is damaged. The app's database is as it was then.
    pub async fn restore(&self, app: &AppName, options: &RestoreOptions, confirm: &str) -> Result<RestoreReport> {
        confirmed(app, confirm)?;
        let shelf = options.shelf.clone().unwrap_or_else(|| self.shelf(app));
        let id = shelf.choose(&options.backup).await?;
        let hold = self.held(&shelf, &id, "restore").await;
        let done = self.restore_held(app, &shelf, &id, options).await;
        released(hold).await;
        done
    }

    /// The same with a dump that was made elsewhere: a script of pg_dump's, or an archive. It is read to its end before
    /// anything is made, loaded with the owner's rights, and run by no psql. Of the options, the backup and its shelf mean nothing.
    ///
    /// # Errors
    /// As [`restore`](Self::restore), and `Refused` for what no dump has: commands of psql's, an end that is missing, an
    /// extension that only an admin may make and has not.
    pub async fn restore_file(
        &self,
        app: &AppName,
        file: &DumpFile,
        options: &RestoreOptions,
        confirm: &str,
    ) -> Result<RestoreReport> {
        confirmed(app, confirm)?;
        self.work(app, async |job| {
            scratch::clear(job).await?;
            let others = options.other_roles.unwrap_or(OtherRoles::Require);
            let foreign = Foreign::check(job, file, others).await?;
            let safety = self.safety(job, options, &options.safety.recipients).await?;
            let (scratch, made) = incoming::load(&foreign, job).await?;
            self.put(job, scratch, made, safety, &file.name()).await
        })
        .await
    }

    async fn restore_held(
        &self,
        app: &AppName,
        shelf: &Shelf,
        id: &BackupId,
        options: &RestoreOptions,
    ) -> Result<RestoreReport> {
        let manifest = shelf.manifest(id).await?;
        let origin = Origin::open(shelf, &manifest, &options.identities).await?;
        let mut report = self
            .work(app, async |job| {
                scratch::clear(job).await?;
                let own = Own::check(job, &origin, options.other_roles).await?;
                let recipients = options.safety.recipients.clone().or_those_of(&manifest)?;
                let safety = self.safety(job, options, &recipients).await?;
                let (scratch, made) = incoming::load(&own, job).await?;
                self.put(job, scratch, made, safety, &id.to_string()).await
            })
            .await?;
        report.manifest = Some(manifest);
        Ok(report)
    }

    /// Backs up what is there before it is replaced.
    async fn safety(
        &self,
        job: &Job<'_>,
        options: &RestoreOptions,
        recipients: &Recipients,
    ) -> Result<Option<Manifest>> {
        if !options.safety_backup {
            return Ok(None);
        }
        let shelf = self.shelf(&job.app.name);
        let mut before = options.safety.taken_for(Reason::BeforeRestore, SAFETY_DAYS);
        before.recipients = shelf.recipients(recipients).await?;
        dump::dump(job, &shelf, &before).await.map(Some)
    }

    /// Puts what was loaded in the place of the app's database.
    async fn put(
        &self,
        job: &Job<'_>,
        scratch: Scratch<'_>,
        made: Made,
        safety: Option<Manifest>,
        from: &str,
    ) -> Result<RestoreReport> {
        let incoming = scratch.into_name();
        match swap::replace(job, &incoming, from).await {
            Ok(kept) => {
                let Made { left_out, remarks, tables, rows } = made;
                Ok(RestoreReport { manifest: None, tables, rows, safety, kept, left_out, remarks })
            }
            Err(NotReplaced { error, beside }) => {
                // The backup has it still.
                if let Some(name) = beside {
                    let _ = scratch::drop_copy(job, &name).await;
                }
                Err(error)
            }
        }
    }

    /// Takes back the last restore: the database that it replaced is the app's again, and the restored one is kept.
    ///
    /// # Errors
    /// `Refused` when `confirm` is not the app's name, `NotFound` when nothing was kept.
    pub async fn undo(&self, app: &AppName, confirm: &str) -> Result<String> {
        confirmed(app, confirm)?;
        self.work(app, async |job| {
            let kept = swap::kept(job).await?;
            // One that is taken back is kept on: nothing else has it.
            let replaced = swap::replace(job, &kept.name, &kept.mark.backup).await;
            replaced.map_err(|NotReplaced { error, .. }| error)
        })
        .await
    }
}

fn confirmed(app: &AppName, confirm: &str) -> Result<()> {
    if confirm == app.as_str() {
        return Ok(());
    }
    Err(Error::refused("confirmation_required", format!("this replaces the database of app {app}"))
        .with_hint(format!("say so by giving its name again: --confirm {app}")))
}
