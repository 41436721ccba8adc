//! Putting one database in the place of another: one transaction, in which everything is either old or new.

use std::time::Duration;

use tokio::time::sleep;

use super::event::{BackupEvent, Stage};
use super::job::Job;
use super::scratch;
use crate::copy_mark::{CopyMark, CopyRole};
use crate::error::{Error, Result};
use crate::postgres::copies::{self, CopyFact, Fittings, Swap};
use crate::postgres::maintenance;
use crate::postgres::session::AdminSession;
use tokio_postgres::types::Oid;

/// How often the sessions of the live database are ended while it waits for them.
const PRESSURE: Duration = Duration::from_millis(100);
/// Before the first time: the database has to be locked by then, or its apps would be back at once.
const LEAD: Duration = Duration::from_millis(50);
const ATTEMPTS: u32 = 4;

/// Puts `incoming` in the place of the app's database, which is kept under the name that is returned. `backup` says what for.
///
/// # Errors
/// `Conflict` naming the sessions that did not end; then everything is as it was.
pub(crate) async fn swap(job: &Job<'_>, incoming: &str, backup: &str) -> Result<String> {
    let admin = job.admin();
    let live = job.app.database.as_str();
    let fittings = Fittings::read(admin, live).await?;
    for statement in fittings.fit(incoming) {
        admin.run("give the restored database its settings", &statement).await?;
    }
    let since = copies::now(admin).await?;
    let kept = scratch::name('k', &since);
    let kept_mark = CopyMark { role: CopyRole::Kept, app: job.app.name.clone(), backup: backup.to_owned(), since };
    let swap = Swap { app: &job.app, incoming, kept: &kept, kept_mark, fittings: &fittings };
    let (old, new) = (known(admin, live).await?, known(admin, incoming).await?);
    let other = job.server.session().await?;
    let mut attempt = 1;
    loop {
        match once(job, &other, &swap, old, new).await {
            Ok(()) => return Ok(kept),
            Err(error) if error.sqlstate() == Some("55006") && attempt < ATTEMPTS => attempt += 1,
            Err(error) => return settle(job, error, new, old, &kept).await,
        }
    }
}

async fn once(job: &Job<'_>, other: &AdminSession, swap: &Swap<'_>, old: Oid, new: Oid) -> Result<()> {
    let admin = job.admin();
    let ending = |database| maintenance::with_rights_of(&job.facts, &job.app, vec![copies::end_sessions_in(database)]);
    let what = "put the restored database in the place of the app's";
    // Ours would be in the way, too.
    other.run_transaction(what, &ending(new)).await?;
    let pressure = async {
        sleep(LEAD).await;
        loop {
            // That it cannot end them is told by the rename.
            let _ = other.run_transaction(what, &ending(old)).await;
            sleep(PRESSURE).await;
        }
    };
    let first = swap.first();
    let mut done = tokio::select! {
        done = admin.run(what, &first) => done,
        () = pressure => Ok(()),
    };
    if done.is_ok() {
        done = admin.run_all(what, &swap.rest()).await;
    }
    admin.end(what, done).await
}

/// What became of a swap whose last word is not known: the database's OID tells.
async fn settle(job: &Job<'_>, error: Error, new: Oid, old: Oid, kept: &str) -> Result<String> {
    let live = job.app.database.as_str();
    let session = job.server.session().await;
    let Ok(session) = session else { return Err(error) };
    if copies::oid(&session, live).await? == Some(new) {
        return Ok(kept.to_owned());
    }
    if error.sqlstate() != Some("55006") {
        return Err(error);
    }
    let held = copies::sessions_in(&session, old).await?;
    let message = format!("sessions in database {live} do not end: {}", held.join(", "));
    Err(Error::conflict("database_in_use", message)
        .with_hint("nothing was changed; end them, then run this again")
        .with_source(error))
}

async fn known(admin: &AdminSession, database: &str) -> Result<Oid> {
    let missing = || Error::not_found("database_missing", format!("there is no database {database}"));
    copies::oid(admin, database).await?.ok_or_else(missing)
}

/// A database that has not taken the app's place.
pub(super) struct NotReplaced {
    pub(super) error: Error,
    /// What it is called now, where it stands beside.
    pub(super) beside: Option<String>,
}

/// Puts a database in the app's place and proves that the app can work there; if not, puts the old one back. Returns what
/// that one is called now.
pub(super) async fn replace(job: &Job<'_>, incoming: &str, backup: &str) -> Result<String, NotReplaced> {
    job.tell(BackupEvent::Began(Stage::Swapping));
    job.decide();
    let as_before = |error| NotReplaced { error, beside: Some(incoming.to_owned()) };
    let kept = swap(job, incoming, backup).await.map_err(as_before)?;
    job.tell(BackupEvent::Began(Stage::Proving));
    match prove(job).await {
        Ok(()) => Ok(kept),
        Err(error) if error.is_retryable() => {
            let message = format!("app {} has what was restored, but nobody could log in to it just now", job.app.name);
            let environment = job.server.environment();
            let hint =
                format!("see `shareddb status {} -e {environment}`; the database before it is kept", job.app.name);
            let error = Error::unavailable("restore_unproven", message).with_hint(hint).with_source(error);
            Err(NotReplaced { error, beside: None })
        }
        Err(error) => {
            let in_place = |error| NotReplaced { error, beside: None };
            let back = swap(job, &kept, backup).await.map_err(in_place)?;
            let message = format!("app {} cannot log in to what was restored: the database is as before", job.app.name);
            let hint = format!("`shareddb create {} -e {}` mends its Secret", job.app.name, job.server.environment());
            let error = Error::failed("restore_taken_back", message).with_hint(hint).with_source(error);
            Err(NotReplaced { error, beside: Some(back) })
        }
    }
}

/// Logs in as the app, with what its Secret says, over the way in use from here.
async fn prove(job: &Job<'_>) -> Result<()> {
    let config = job.server.stored_config(&job.app).await?;
    let session = match config.connect().await {
        // It is at its limit of connections: so somebody logs in.
        Err(error) if error.sqlstate() == Some("53300") => return Ok(()),
        session => session?,
    };
    maintenance::assert_user(&session, job.app.owner.as_str()).await
}

/// The database that the last restore replaced.
///
/// # Errors
/// `NotFound` when there is none.
pub(super) async fn kept(job: &Job<'_>) -> Result<CopyFact> {
    let copies = copies::copies(job.admin()).await?;
    let ours = copies.into_iter().filter(|copy| copy.mark.app == job.app.name && copy.mark.role == CopyRole::Kept);
    ours.last().ok_or_else(|| {
        Error::not_found(
            "nothing_kept",
            format!("nothing of app {} was kept: there is no restore to undo", job.app.name),
        )
        .with_hint("a backup from before the restore can be restored: `shareddb backups` lists them")
    })
}
