//! Loading a backup of ours beside the app's database, and comparing every row and definition with what was dumped.

use std::collections::BTreeSet;

use async_trait::async_trait;

use super::event::BackupEvent;
use super::incoming::{Incoming, Made, Order, search_path};
use super::job::Job;
use super::load::{Loaded, Loader};
use super::manifest::{ExtensionOwner, Manifest};
use super::options::OtherRoles;
use super::origin::Origin;
use super::renaming::Renaming;
use super::scratch::{self, Scratch};
use super::selection::Target;
use super::{compare, prerequisites};
use crate::app::App;
use crate::error::{Error, Result};
use crate::postgres::renaming;

/// Settings that we make ourselves.
const OF_EVERY_APP: [&str; 2] = ["role", "search_path"];

/// A backup of ours, and what of it the server takes.
pub(super) struct Own<'a> {
    origin: &'a Origin<'a>,
    target: Target,
}

impl<'a> Own<'a> {
    /// Looks whether the server has what it needs.
    ///
    /// # Errors
    /// `Refused`, with what to do.
    pub(super) async fn check(job: &Job<'_>, origin: &'a Origin<'a>, others: Option<OtherRoles>) -> Result<Self> {
        let target = prerequisites::check(job, origin.manifest, others).await?;
        let (there, here) = (&origin.manifest.server.system_identifier, job.system_identifier().await?);
        if !there.is_empty() && !here.is_empty() && *there != here {
            job.tell(BackupEvent::Noticed("the backup was taken on another server than this"));
        }
        Ok(Self { origin, target })
    }

    async fn fill(&self, job: &Job<'_>, scratch: &Scratch<'_>, order: &Order) -> Result<Made> {
        let manifest = self.origin.manifest;
        let loader = Loader { job, scratch };
        let Loaded { contents, list } = loader.load(self.origin, &self.target, order).await?;
        let id = manifest.id.to_string();
        compare::archive(manifest, &contents).into_result(&id)?;
        let path = search_path(job, manifest.database.schema.as_str());
        let mut remarks = loader.settle(&path).await?;
        let renaming = Renaming::of(manifest, &job.app);
        compare::database(&loader, manifest, &contents, &list, &renaming, &path).await?.into_result(&id)?;
        remarks.extend(rename(job, scratch, &renaming, &self.target).await?);
        remarks.extend(unlike(manifest, &job.app));
        Ok(Made {
            left_out: list.left_out().to_vec(),
            remarks,
            tables: manifest.tables.len() as u64,
            rows: manifest.tables.iter().map(|table| table.rows).sum(),
        })
    }
}

#[async_trait]
impl Incoming for Own<'_> {
    fn schema<'a>(&'a self, _: &'a Job<'_>) -> &'a str {
        self.origin.manifest.database.schema.as_str()
    }

    async fn load_in<'j>(&self, job: &'j Job<'j>, order: &Order) -> Result<(Scratch<'j>, Made)> {
        let manifest = self.origin.manifest;
        let by_admin = manifest.extensions.iter().filter(|extension| extension.owner == ExtensionOwner::Admin);
        let extensions: Vec<(String, String)> =
            by_admin.map(|extension| (extension.name.to_string(), extension.schema.clone())).collect();
        let locale = scratch::locale(&manifest.server);
        let scratch = Scratch::create(job, &manifest.id.to_string(), &locale, &extensions).await?;
        let filled = self.fill(job, &scratch, order).await;
        scratch.if_filled(filled).await
    }
}

/// What the app had when it was backed up, and has no more: that is the app's, and not the database's.
fn unlike(manifest: &Manifest, app: &App) -> impl Iterator<Item = String> {
    let by_admin = manifest.extensions.iter().filter(|extension| extension.owner == ExtensionOwner::Admin);
    let wanted: BTreeSet<_> = by_admin.map(|extension| &extension.name).chain(&app.extensions).collect();
    let settings: BTreeSet<&str> = manifest
        .settings
        .iter()
        .flat_map(|of_role| &of_role.set)
        .filter(|(name, _)| !OF_EVERY_APP.contains(&name.as_str()))
        .filter(|(name, value)| !app.settings.iter().any(|(own, here)| own.as_str() == *name && here == *value))
        .map(|(name, _)| name.as_str())
        .collect();
    let settings: Vec<&str> = settings.into_iter().collect();
    let create = format!("shareddb create {} -e {}", app.name, app.environment);
    // What is given replaces what is recorded.
    let extensions = (wanted.len() > app.extensions.len()).then(|| {
        let options: Vec<String> = wanted.iter().map(|name| format!("--extension {name}")).collect();
        format!("the app was made with more extensions than it is now: {create} {}", options.join(" "))
    });
    let settings = (!settings.is_empty()).then(|| {
        let settings = settings.join(", ");
        format!("the app had other settings when it was backed up ({settings}): {create} --set NAME=VALUE, with all that it is to have")
    });
    extensions.into_iter().chain(settings)
}

/// Gives the app's schema its name here, and looks that nothing depends on roles of the app that it was dumped from.
async fn rename(job: &Job<'_>, scratch: &Scratch<'_>, names: &Renaming, target: &Target) -> Result<Vec<String>> {
    if names.roles.is_empty() {
        return Ok(Vec::new());
    }
    let session = scratch.loading().await?.connect().await?;
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
