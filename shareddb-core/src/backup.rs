//! Backups that are known to restore: taken, listed, proven, restored, pruned.

mod archive;
mod blocks;
mod catalogue;
mod compare;
mod cursor;
mod digest;
mod download;
mod dump;
mod dump_file;
mod event;
mod foreign;
mod grants;
mod hold;
mod id;
mod incoming;
mod interrupt;
mod inventory;
mod job;
mod joiner;
mod kept;
mod keyring;
mod lexer;
mod live;
mod load;
mod location;
mod manifest;
mod object;
mod options;
mod origin;
mod pack;
mod pins;
mod plain;
mod prerequisites;
mod program;
mod prune;
mod record;
mod renaming;
mod replacement;
mod restore;
mod retention;
#[cfg(test)]
mod sample;
mod schema_digest;
mod scratch;
mod script;
mod script_load;
mod seal;
mod selection;
mod shelf;
mod splitter;
mod statement;
mod store;
mod swap;
mod toc;
mod toc_reader;
mod unpack;
mod upload;
mod verification;
mod verify;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use archive::{ArchiveReader, Contents, Position};
pub use catalogue::Described;
pub use digest::{RowCounter, RowDigest, Rows};
pub use download::Download;
pub use dump_file::{DumpFile, DumpForm};
pub use event::{BackupEvent, Stage};
pub use hold::Hold;
pub use id::BackupId;
pub use interrupt::Interrupt;
pub use inventory::{Inventory, Listed, Orphan, Verified};
pub use kept::Kept;
pub use manifest::{
    DatabaseFacts, Encryption, ExtensionFacts, ExtensionOwner, Manifest, Reason, RoleSettings, SequenceFacts,
    ServerFacts, Stored, TableFacts,
};
pub use options::{BackupOptions, Choice, LAST_DAYS, OtherRoles, RestoreOptions, SAFETY_DAYS, VerifyOptions};
pub use pack::{Pack, PackOptions};
pub use plain::PlainDump;
pub use prune::Pruned;
pub use replacement::RestoreReport;
pub use retention::{Candidate, Judged, KeepReason, LastAttempt, PrunePlan, Quota, RetentionPolicy, Rule, plan_prune};
pub use schema_digest::{difference, schema_digest};
pub use script::{Piece, ScriptReader};
pub use seal::{Identities, Recipients};
pub use selection::{LeftOut, LoadList, Target, Why, roles_named};
pub use shelf::{Sealing, Shelf};
pub use statement::{MissingRoles, ScriptTarget};
pub use store::BackupStore;
pub use toc::{ArchiveVersion, Entry, Section, Toc};
pub use unpack::Unpack;
pub use upload::{Upload, Uploaded};
pub use verification::{Verdict, Verification};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::error::{Error, Result};
use crate::names::AppName;
use crate::server::Server;
use dump::{Attempt, Patience};
use event::Listener;
use job::Job;

/// How long a run waits for another one on the same app.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);
/// How long one backup, check or restore may take.
const BUDGET: Duration = Duration::from_secs(60 * 60);

/// Backs up the apps of one server, proves and restores what was backed up.
///
/// Each call works under the app's lock, with a login that is open for as long and may enter nothing but the app's database.
#[derive(Clone, Debug)]
pub struct BackupManager {
    server: Server,
    store: BackupStore,
    listener: Listener,
    lock_patience: Duration,
    budget: Duration,
    binaries: Option<PathBuf>,
    interrupt: Interrupt,
}

impl BackupManager {
    /// A manager of the backups of `server` in `store`. Connects to nothing yet.
    pub fn new(server: Server, store: BackupStore) -> Self {
        Self {
            server,
            store,
            listener: Listener::default(),
            lock_patience: LOCK_PATIENCE,
            budget: BUDGET,
            binaries: None,
            interrupt: Interrupt::default(),
        }
    }

    /// Tells `listener` what happens meanwhile.
    #[must_use]
    pub fn on_event(mut self, listener: impl Fn(&AppName, BackupEvent<'_>) + Send + Sync + 'static) -> Self {
        self.listener = Listener::new(listener);
        self
    }

    /// Sets how long a run waits while another one works on the same app; a minute when nothing was said.
    #[must_use]
    pub fn with_lock_patience(mut self, patience: Duration) -> Self {
        self.lock_patience = patience;
        self
    }

    /// Sets how long one backup, check or restore may take; an hour when nothing was said.
    #[must_use]
    pub fn with_budget(mut self, budget: Duration) -> Self {
        self.budget = budget;
        self
    }

    /// Sets the folder of `pg_dump` and `pg_restore`; they are looked for when nothing was said.
    #[must_use]
    pub fn with_binaries(mut self, folder: impl Into<PathBuf>) -> Self {
        self.binaries = Some(folder.into());
        self
    }

    /// Sets what ends a run early. It then leaves nothing behind, which takes a moment.
    #[must_use]
    pub fn with_interrupt(mut self, interrupt: Interrupt) -> Self {
        self.interrupt = interrupt;
        self
    }

    /// The backups of an app.
    pub fn shelf(&self, app: &AppName) -> Shelf {
        self.store.shelf(self.server.environment(), app)
    }

    /// Takes a backup of an app. It exists when this returns, and not before.
    ///
    /// # Errors
    /// `NotFound` when there is no such app; `Timeout` when tables stay locked, naming by whom, or when it gave way to somebody;
    /// `ToolFailed` with what pg_dump said; `Unavailable` when the store cannot be reached. Nothing is listed then.
    pub async fn backup(&self, app: &AppName, options: &BackupOptions) -> Result<Manifest> {
        let shelf = self.shelf(app);
        // Nobody is to wait for a dump that has no place.
        let listed = shelf.list().await?;
        if let (None, Some(newest)) = (options.recipients.encryption(), listed.first())
            && shelf.manifest(&newest.id).await.is_ok_and(|newest| newest.data.encryption.is_some())
        {
            self.listener.tell(app, BackupEvent::Noticed("the backup before is encrypted, and this one is not"));
        }
        self.work(app, async |job| {
            scratch::clear(job).await?;
            dump::dump(job, &shelf, options).await
        })
        .await
    }

    /// Writes a plain dump of an app into a file, compressed where that is called `.gz` or `.zst`: for people, and no backup. It
    /// is there when it is whole, takes the place of a file of that name, and only its owner may read it. Of the options only
    /// `yield_after` means something.
    ///
    /// # Errors
    /// As [`backup`](Self::backup), and when the file cannot be written. There is none then, or the old one.
    pub async fn dump(&self, app: &AppName, path: &Path, options: &BackupOptions) -> Result<PlainDump> {
        self.work(app, async |job| {
            scratch::clear(job).await?;
            let attempt = Attempt { job, yield_after: options.yield_after };
            let mut patience = Patience::default();
            loop {
                match attempt.write(path).await {
                    Ok(written) => return Ok(written),
                    Err(miss) => patience.after(miss, &attempt).await?,
                }
            }
        })
        .await
    }

    /// A backup before an app is dropped: its logins are closed first and their sessions ended, so that nothing is written
    /// which the backup has not. They stay closed when it has been taken, and are opened again when not. A
    /// [`create`](crate::Provisioner::create) opens them as well.
    ///
    /// # Errors
    /// As [`backup`](Self::backup), and `Conflict` when sessions do not end.
    pub async fn last_backup(&self, app: &AppName, options: &BackupOptions) -> Result<Manifest> {
        let shelf = self.shelf(app);
        shelf.list().await?;
        let recipients = shelf.recipients(&options.recipients).await?;
        let options = BackupOptions { recipients, ..options.taken_for(Reason::BeforeDrop, LAST_DAYS) };
        self.work(app, async |job| {
            job.shut().await?;
            dump::dump(job, &shelf, &options).await
        })
        .await
    }

    /// Proves a backup: reads it to its end, loads it into a database of its own, compares every row and definition with what
    /// was dumped, and writes the verdict beside it. A backup that fails is no error.
    ///
    /// # Errors
    /// `NotFound` when there is no such backup, and whatever keeps the answer from being known.
    pub async fn verify(&self, id: &BackupId, options: &VerifyOptions) -> Result<Verification> {
        verify::verify(self, id, options).await
    }

    /// Keeps prunes away from a backup. Where nothing can be written, it is read all the same.
    async fn held(&self, shelf: &Shelf, id: &BackupId, why: &str) -> Option<Hold> {
        match shelf.hold(id, why, Some(self.until())).await {
            Ok(hold) => Some(hold),
            Err(error) => {
                let notice = format!("a prune may delete the backup meanwhile: {error}");
                self.listener.tell(shelf.app(), BackupEvent::Noticed(&notice));
                None
            }
        }
    }

    /// Decides which backups of an app a policy gives up, and deletes nothing. Needs no server.
    ///
    /// # Errors
    /// `InvalidInput` for a policy that keeps nothing, and as the store says.
    pub async fn plan_prune(&self, app: &AppName, policy: &RetentionPolicy, zone: &TimeZone) -> Result<PrunePlan> {
        self.shelf(app).plan_prune(policy, zone).await
    }

    /// Deletes what a plan gives up, and what old runs have left in the store. Holds are looked at again before each. Needs no
    /// server, and no space.
    ///
    /// # Errors
    /// As the store says; the rest is as it was then, and the same call goes on.
    pub async fn prune(&self, app: &AppName, plan: &PrunePlan) -> Result<Pruned> {
        self.shelf(app).prune(plan).await
    }

    /// Does something under the app's lock, for so long as nobody interrupts and the budget lasts; what was opened for it is
    /// closed whatever comes of it.
    async fn work<T>(&self, app: &AppName, work: impl AsyncFnOnce(&Job<'_>) -> Result<T>) -> Result<T> {
        self.listener.tell(app, BackupEvent::Began(Stage::Waiting));
        let job = tokio::select! {
            job = Job::begin(self, app) => job?,
            error = self.interrupt.raised() => return Err(error),
        };
        let cut = async {
            let error = tokio::select! {
                error = self.interrupt.raised() => error,
                () = tokio::time::sleep(self.budget) => self.over_budget(app),
            };
            job.undecided().await;
            error
        };
        let done = tokio::select! {
            done = work(&job) => done,
            error = cut => Err(error),
        };
        // What was cut short may have left a transaction open.
        job.admin().abandon().await;
        if done.is_err() {
            // What cannot be swept now is swept by the next run.
            let _ = scratch::sweep(&job).await;
            if let Err(error) = job.reopen(self.lock_patience).await {
                let notice = format!("the app's logins are still closed, `shareddb create {app}` opens them: {error}");
                self.listener.tell(app, BackupEvent::Noticed(&notice));
            }
        }
        let ended = job.end().await;
        let done = done.map_err(|error| self.server.with_trouble(error))?;
        ended.map(|()| done)
    }

    /// When the work is over, whatever comes of it.
    fn until(&self) -> Timestamp {
        Timestamp::now() + self.budget
    }

    fn over_budget(&self, app: &AppName) -> Error {
        Error::timeout("budget_exceeded", format!("the work on app {app} took longer than {:?}", self.budget))
            .with_hint("give it more time: --timeout")
    }
}

/// A hold that stays ends by itself.
async fn released(hold: Option<Hold>) {
    if let Some(hold) = hold {
        let _ = hold.release().await;
    }
}
