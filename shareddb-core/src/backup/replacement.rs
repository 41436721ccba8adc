//! Putting something in the place of an app's database, and taking that back.

use super::event::BackupEvent;
use super::foreign::Foreign;
use super::job::Job;
use super::origin::Origin;
use super::restore::{self, Made, NotReplaced};
use super::scratch::{self, Scratch};
use super::{
    BackupId, BackupManager, BackupOptions, DumpFile, LeftOut, Manifest, OtherRoles, Reason, Recipients,
    RestoreOptions, Shelf, dump, released,
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
        let tell = |event: BackupEvent<'_>| self.listener.tell(app, event);
        self.work(app, async |job| {
            self.clear(job).await?;
            let others = options.other_roles.unwrap_or(OtherRoles::Require);
            let foreign = Foreign::check(job, file, others, &tell).await?;
            let safety = self.safety(job, options, &options.safety.recipients, &tell).await?;
            let (scratch, made) = foreign.load(job, &tell).await?;
            self.put(job, scratch, made, safety, &file.name(), &tell).await
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
        let tell = |event: BackupEvent<'_>| self.listener.tell(app, event);
        let mut report = self
            .work(app, async |job| {
                self.clear(job).await?;
                let target = restore::check(job, &manifest, options.other_roles, &tell).await?;
                let recipients = options.safety.recipients.clone().or_those_of(&manifest)?;
                let safety = self.safety(job, options, &recipients, &tell).await?;
                let (scratch, made) = restore::load(job, &origin, &target, &tell).await?;
                self.put(job, scratch, made, safety, &id.to_string(), &tell).await
            })
            .await?;
        report.manifest = Some(manifest);
        Ok(report)
    }

    async fn clear(&self, job: &Job<'_>) -> Result<()> {
        scratch::sweep(job).await?;
        scratch::expire(job).await
    }

    /// Backs up what is there before it is replaced.
    async fn safety(
        &self,
        job: &Job<'_>,
        options: &RestoreOptions,
        recipients: &Recipients,
        tell: &(dyn Fn(BackupEvent<'_>) + Sync),
    ) -> Result<Option<Manifest>> {
        if !options.safety_backup {
            return Ok(None);
        }
        let mut before = BackupOptions { reason: Reason::BeforeRestore, ..options.safety.clone() };
        before.recipients = recipients.clone();
        dump::dump(job, &self.shelf(&job.app.name), &before, tell).await.map(Some)
    }

    /// Puts what was loaded in the place of the app's database.
    async fn put(
        &self,
        job: &Job<'_>,
        scratch: Scratch<'_>,
        made: Made,
        safety: Option<Manifest>,
        from: &str,
        tell: &(dyn Fn(BackupEvent<'_>) + Sync),
    ) -> Result<RestoreReport> {
        let incoming = scratch.into_name();
        match restore::replace(job, &incoming, from, tell).await {
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
        let tell = |event: BackupEvent<'_>| self.listener.tell(app, event);
        self.work(app, async |job| {
            let kept = restore::kept(job).await?;
            // One that is taken back is kept on: nothing else has it.
            let replaced = restore::replace(job, &kept.name, &kept.mark.backup, &tell).await;
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
