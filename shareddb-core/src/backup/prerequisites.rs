//! What a server must have before anything is loaded into it.

use std::collections::{BTreeMap, BTreeSet};

use super::event::{BackupEvent, Stage};
use super::job::Job;
use super::manifest::{ExtensionOwner, Manifest};
use super::options::OtherRoles;
use super::renaming::Renaming;
use super::selection::Target;
use crate::error::{Error, Result};
use crate::postgres::requirements;

/// Looks whether the server has what the backup needs, and what of it can be loaded.
///
/// # Errors
/// `Refused`: another major, an extension or a role that is missing, too little space.
pub(super) async fn check(job: &Job<'_>, manifest: &Manifest, others: Option<OtherRoles>) -> Result<Target> {
    job.tell(BackupEvent::Began(Stage::Checking));
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
    let Some(free) = job.server.free_space(job.admin()).await? else { return Ok(()) };
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
