//! Restoring a backup: everything is checked before anything is made, loaded beside the app's database, compared, and only
//! then put in its place.

use std::collections::BTreeMap;

use super::compare;
use super::event::{BackupEvent, Stage};
use super::job::Job;
use super::load::{self, Loaded};
use super::manifest::{ExtensionOwner, Manifest};
use super::scratch::Scratch;
use super::selection::{DefaultPrivileges, LeftOut, Target};
use super::swap;
use super::unpack::Unpack;
use crate::app::App;
use crate::copy_mark::CopyRole;
use crate::error::{Error, Result};
use crate::postgres::copies::{self, CopyFact, Locale};
use crate::postgres::maintenance;
use crate::postgres::requirements;

/// Looks whether the server has what the backup needs.
///
/// # Errors
/// `Refused`: another major, an extension or a role that is missing.
pub(super) async fn check(job: &Job<'_>, manifest: &Manifest, tell: &(dyn Fn(BackupEvent<'_>) + Sync)) -> Result<()> {
    tell(BackupEvent::Began(Stage::Checking));
    let major = job.facts.version.major();
    if u32::from(job.binaries.major) != major {
        let message = format!(
            "loading into PostgreSQL {major} takes pg_restore of the same version, and {} is of {}",
            job.binaries.dir.display(),
            job.binaries.major
        );
        return Err(Error::refused("client_mismatch", message)
            .with_hint(format!("install its client programs: apt-get install postgresql-client-{major}")));
    }
    let taken: u32 = manifest.server.version.split('.').next().and_then(|text| text.parse().ok()).unwrap_or_default();
    if taken > major {
        let message = format!(
            "the backup is of PostgreSQL {}, and this server is {}",
            manifest.server.version, job.facts.version
        );
        return Err(
            Error::refused("server_older", message).with_hint("restore it on a server of that version or newer")
        );
    }
    check_space(job, manifest).await?;
    let names = manifest.extensions.iter().map(|extension| extension.name.as_str());
    let missing = requirements::missing_extensions(job.admin(), names).await?;
    if !missing.is_empty() {
        let message = format!("the server lacks extensions of the backup: {}", missing.join(", "));
        return Err(Error::refused("extension_missing", message)
            .with_hint("install their packages on the server; with an image, choose one that has them"));
    }
    let missing = requirements::missing_roles(job.admin(), manifest.roles.iter().map(String::as_str)).await?;
    if !missing.is_empty() {
        let message = format!("the backup names roles that the server lacks: {}", missing.join(", "));
        return Err(Error::refused("role_missing", message).with_hint("make them first: CREATE ROLE … NOLOGIN"));
    }
    Ok(())
}

/// A full volume stops every app. Where the server is elsewhere, nobody here knows.
async fn check_space(job: &Job<'_>, manifest: &Manifest) -> Result<()> {
    let Some(free) = job.server.free_space() else { return Ok(()) };
    // What is loaded takes about what it took, and some more while indexes are built.
    let bytes = manifest.database.bytes;
    let needed = bytes.saturating_add(bytes / 5).saturating_add(requirements::log_reserve(job.admin()).await?);
    if needed <= free {
        return Ok(());
    }
    let message = format!(
        "to load the backup takes about {} MiB where the server's data are, and {} MiB are free",
        needed >> 20,
        free >> 20
    );
    Err(Error::refused("no_space", message).with_hint("make room there, or restore it on another server"))
}

/// Loads a backup into a scratch database and compares it. What is left is the scratch, whole.
pub(super) async fn load<'a>(
    job: &'a Job<'a>,
    manifest: &Manifest,
    archive: Unpack,
    tell: &(dyn Fn(BackupEvent<'_>) + Sync),
) -> Result<(Scratch<'a>, Vec<LeftOut>)> {
    let by_admin = manifest.extensions.iter().filter(|extension| extension.owner == ExtensionOwner::Admin);
    let extensions: Vec<(String, String)> =
        by_admin.map(|extension| (extension.name.to_string(), extension.schema.clone())).collect();
    let scratch = Scratch::create(job, &manifest.id.to_string(), &locale(manifest), &extensions).await?;
    match fill(job, &scratch, manifest, archive, tell).await {
        Ok(left_out) => Ok((scratch, left_out)),
        Err(error) => {
            scratch.drop().await?;
            Err(error)
        }
    }
}

async fn fill(
    job: &Job<'_>,
    scratch: &Scratch<'_>,
    manifest: &Manifest,
    archive: Unpack,
    tell: &(dyn Fn(BackupEvent<'_>) + Sync),
) -> Result<Vec<LeftOut>> {
    let target = target(manifest, &job.app);
    let total = manifest.data.archive_bytes;
    let Loaded { contents, list } = load::load(job, archive, scratch.name(), &target, total, tell).await?;
    let id = manifest.id.to_string();
    compare::archive(manifest, &contents).into_result(&id)?;
    scratch.gather().await?;
    maintenance::analyze(&job.loading(scratch.name()).connect().await?).await?;
    compare::database(job, scratch.name(), manifest, &contents, &list, tell).await?.into_result(&id)?;
    Ok(list.left_out().to_vec())
}

/// A database that has not taken the app's place.
pub(super) struct NotReplaced {
    pub(super) error: Error,
    /// What it is called now, where it stands beside.
    pub(super) beside: Option<String>,
}

/// Puts a database in the app's place and proves that the app can work there; if not, puts the old one back. Returns what
/// that one is called now.
pub(super) async fn replace(
    job: &Job<'_>,
    incoming: &str,
    backup: &str,
    tell: &(dyn Fn(BackupEvent<'_>) + Sync),
) -> Result<String, NotReplaced> {
    tell(BackupEvent::Began(Stage::Swapping));
    job.decide();
    let as_before = |error| NotReplaced { error, beside: Some(incoming.to_owned()) };
    let kept = swap::swap(job, incoming, backup).await.map_err(as_before)?;
    tell(BackupEvent::Began(Stage::Proving));
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
            let back = swap::swap(job, &kept, backup).await.map_err(in_place)?;
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

/// What of the archive can be loaded by the app's own maintenance login.
fn target(manifest: &Manifest, app: &App) -> Target {
    let by_admin = || manifest.extensions.iter().filter(|extension| extension.owner == ExtensionOwner::Admin);
    Target {
        owner: Some(manifest.database.owner.to_string()),
        extensions: by_admin().map(|extension| extension.name.to_string()).collect(),
        schemas: by_admin().map(|extension| extension.schema.clone()).filter(|schema| schema != "public").collect(),
        roles: manifest.roles.iter().cloned().chain(app.roles().map(ToString::to_string)).collect(),
        // A dump of ours has no rows of an extension that the admin made.
        members: BTreeMap::new(),
        default_privileges: DefaultPrivileges::Load,
    }
}

fn locale(manifest: &Manifest) -> Locale {
    let server = &manifest.server;
    Locale {
        encoding: server.encoding.clone(),
        collate: server.collate.clone(),
        ctype: server.ctype.clone(),
        provider: match server.provider.as_str() {
            "icu" => Some("i".to_owned()),
            "builtin" => Some("b".to_owned()),
            _ => None,
        },
        name: server.icu_locale.clone(),
    }
}
