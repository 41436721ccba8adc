//! Restoring a backup: everything is checked before anything is made, loaded beside the app's database, compared, and only
//! then put in its place.

use std::collections::{BTreeMap, BTreeSet};

use super::compare;
use super::event::{BackupEvent, Stage};
use super::job::Job;
use super::load::{Loaded, Loader, Order};
use super::manifest::{ExtensionOwner, Manifest, ServerFacts};
use super::options::OtherRoles;
use super::origin::Origin;
use super::renaming::Renaming;
use super::scratch::Scratch;
use super::selection::{LeftOut, Target};
use super::swap;
use crate::copy_mark::CopyRole;
use crate::error::{Error, Result};
use crate::postgres::copies::{self, CopyFact, Locale};
use crate::postgres::maintenance;
use crate::postgres::renaming;
use crate::postgres::requirements;

/// What is known of a load beside its scratch database.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) left_out: Vec<LeftOut>,
    pub(super) remarks: Vec<String>,
    pub(super) tables: u64,
    pub(super) rows: u64,
}

/// Looks whether the server has what the backup needs, and what of it can be loaded.
///
/// # Errors
/// `Refused`: another major, an extension or a role that is missing, too little space.
pub(super) async fn check(
    job: &Job<'_>,
    manifest: &Manifest,
    others: Option<OtherRoles>,
    tell: &(dyn Fn(BackupEvent<'_>) + Sync),
) -> Result<Target> {
    tell(BackupEvent::Began(Stage::Checking));
    let major = client_fits(job)?;
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
    check_space(job, manifest.database.bytes).await?;
    // What was loaded is dumped without its rows, to be compared.
    let objects = manifest.tables.len() + manifest.sequences.len();
    requirements::lock_room(job.admin(), objects as u64).await?;
    let names: Vec<&str> = manifest.extensions.iter().map(|extension| extension.name.as_str()).collect();
    extensions_there(job, &names).await?;
    let renamed = Renaming::of(manifest, &job.app).roles;
    let usual = if renamed.is_empty() { OtherRoles::Require } else { OtherRoles::LeaveOut };
    let named = manifest.roles.iter().cloned().collect();
    let roles = roles_there(job, &named, others.unwrap_or(usual)).await?;
    let by_admin = || manifest.extensions.iter().filter(|extension| extension.owner == ExtensionOwner::Admin);
    Ok(Target {
        owner: Some(manifest.database.owner.to_string()),
        loader: job.app.owner.to_string(),
        extensions: by_admin().map(|extension| extension.name.to_string()).collect(),
        schemas: by_admin().map(|extension| extension.schema.clone()).filter(|schema| schema != "public").collect(),
        roles,
        // What is about them belongs to the admin, and is left out for that.
        held: BTreeSet::new(),
        // A dump of ours has no rows of an extension that the admin made.
        members: BTreeMap::new(),
        renamed,
    })
}

/// The server's major version, which pg_restore's has to be.
pub(super) fn client_fits(job: &Job<'_>) -> Result<u32> {
    let major = job.facts.version.major();
    if u32::from(job.binaries.major) == major {
        return Ok(major);
    }
    let message = format!(
        "loading into PostgreSQL {major} takes pg_restore of the same version, and {} is of {}",
        job.binaries.dir.display(),
        job.binaries.major
    );
    Err(Error::refused("client_mismatch", message)
        .with_hint(format!("install its client programs: apt-get install postgresql-client-{major}")))
}

pub(super) async fn extensions_there(job: &Job<'_>, names: &[&str]) -> Result<()> {
    let missing = requirements::missing_extensions(job.admin(), names.iter().copied()).await?;
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!("the server lacks extensions of the backup: {}", missing.join(", "));
    Err(Error::refused("extension_missing", message)
        .with_hint("install their packages on the server; with an image, choose one that has them"))
}

/// The roles that rights may be granted to: the app's own, and those of `named` that are there and wanted.
pub(super) async fn roles_there(
    job: &Job<'_>,
    named: &BTreeSet<String>,
    others: OtherRoles,
) -> Result<BTreeSet<String>> {
    let own: BTreeSet<String> = job.app.roles().map(ToString::to_string).collect();
    if others == OtherRoles::LeaveOut {
        return Ok(own);
    }
    let foreign = named.difference(&own).map(String::as_str);
    let missing: BTreeSet<String> = requirements::missing_roles(job.admin(), foreign).await?.into_iter().collect();
    if others == OtherRoles::Require && !missing.is_empty() {
        let listed = missing.into_iter().collect::<Vec<_>>().join(", ");
        let message = format!("rights are granted to roles that the server lacks: {listed}");
        return Err(Error::refused("role_missing", message)
            .with_hint("make them first: CREATE ROLE … NOLOGIN; or leave such rights out: --skip-grants-to-missing"));
    }
    Ok(own.iter().chain(named.difference(&missing)).cloned().collect())
}

/// A full volume stops every app. Where the server is elsewhere, nobody here knows.
pub(super) async fn check_space(job: &Job<'_>, bytes: u64) -> Result<()> {
    let Some(free) = job.server.free_space() else { return Ok(()) };
    // What is loaded takes about what it took, and some more while indexes are built.
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
    origin: &Origin<'_>,
    target: &Target,
    tell: &(dyn Fn(BackupEvent<'_>) + Sync),
) -> Result<(Scratch<'a>, Made)> {
    let once = load_in(job, origin, target, &Order::Once, tell).await;
    match once {
        Err(error) if error.code() == "names_unqualified" => {
            tell(BackupEvent::Noticed(WITH_PATH));
            let path = search_path(job, origin.manifest.database.schema.as_str());
            let (scratch, mut made) = load_in(job, origin, target, &Order::WithPath(&path), tell).await?;
            made.remarks.push(WITH_PATH.to_owned());
            Ok((scratch, made))
        }
        once => once,
    }
}

/// A dump is loaded without a search path, so that nobody's objects are taken for others.
pub(super) const WITH_PATH: &str = "functions that indexes, checks or views use find their own names by the search path \
     only, and had one while this was loaded: give it to them for good, ALTER FUNCTION … SET search_path = …";

/// The app's, with the schema as it is called in the dump.
pub(super) fn search_path(job: &Job<'_>, schema: &str) -> Vec<String> {
    let own = job.app.schema.as_str();
    let path = job.app.effective_search_path().into_iter();
    path.map(|name| if name == own { schema.to_owned() } else { name }).collect()
}

async fn load_in<'a>(
    job: &'a Job<'a>,
    origin: &Origin<'_>,
    target: &Target,
    order: &Order<'_>,
    tell: &(dyn Fn(BackupEvent<'_>) + Sync),
) -> Result<(Scratch<'a>, Made)> {
    let manifest = origin.manifest;
    let by_admin = manifest.extensions.iter().filter(|extension| extension.owner == ExtensionOwner::Admin);
    let extensions: Vec<(String, String)> =
        by_admin.map(|extension| (extension.name.to_string(), extension.schema.clone())).collect();
    let scratch = Scratch::create(job, &manifest.id.to_string(), &locale(&manifest.server), &extensions).await?;
    let filled = fill(job, &scratch, origin, target, order, tell).await;
    scratch.if_filled(filled).await
}

async fn fill(
    job: &Job<'_>,
    scratch: &Scratch<'_>,
    origin: &Origin<'_>,
    target: &Target,
    order: &Order<'_>,
    tell: &(dyn Fn(BackupEvent<'_>) + Sync),
) -> Result<Made> {
    let manifest = origin.manifest;
    let loader = Loader { job, database: scratch.name(), tell };
    let Loaded { contents, list } = loader.load(origin, target, order).await?;
    let id = manifest.id.to_string();
    compare::archive(manifest, &contents).into_result(&id)?;
    let path = search_path(job, manifest.database.schema.as_str());
    let mut remarks = loader.settle(scratch, &path).await?;
    let renaming = Renaming::of(manifest, &job.app);
    compare::database(&loader, manifest, &contents, &list, &renaming, &path).await?.into_result(&id)?;
    remarks.extend(rename(job, scratch.name(), &renaming, target).await?);
    Ok(Made {
        left_out: list.left_out().to_vec(),
        remarks,
        tables: manifest.tables.len() as u64,
        rows: manifest.tables.iter().map(|table| table.rows).sum(),
    })
}

/// Gives the app's schema its name here, and looks that nothing depends on roles of the app that it was dumped from.
async fn rename(job: &Job<'_>, database: &str, names: &Renaming, target: &Target) -> Result<Vec<String>> {
    if names.roles.is_empty() {
        return Ok(Vec::new());
    }
    let session = job.loading(database).connect().await?;
    let mut remarks = Vec::new();
    if let Some([from, to]) = &names.schema {
        renaming::rename_schema(&session, from, to).await?;
        renaming::make_schema(&session, to).await?;
        let still = renaming::mentions(&session, from).await?;
        if !still.is_empty() {
            remarks.push(format!("these say {from}, which is {to} here, and were not changed: {}", still.join(", ")));
        }
    }
    let known = target.roles.iter().map(String::as_str).chain([job.facts.admin.as_str()]);
    let strangers = renaming::strangers(&session, &known.collect::<Vec<_>>()).await?;
    if strangers.is_empty() {
        return Ok(remarks);
    }
    let message = format!("what was loaded still depends on roles that are not the app's: {}", strangers.join(", "));
    Err(Error::failed("roles_left", message).with_hint("restore it under its own app's name, or with --keep-grants"))
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

/// The encoding and locale of the database that a backup is of.
pub(super) fn locale(server: &ServerFacts) -> Locale {
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
