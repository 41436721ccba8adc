//! `shareddb backup`.

use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;
use shareddb_core::{AppName, BackupOptions, BackupStore, Environment, Error, PlainDump, Recipients, Result};

use super::backups::Item;
use super::several::{Failed, Several, apps};
use crate::args::Backup;
use crate::context::Context;
use crate::moments;
use crate::output::{Text, View};
use crate::progress::Progress;
use crate::quoting::argument;
use crate::storage::Work;
use crate::units;

/// Backups that were taken.
#[derive(Debug, Serialize)]
struct Taken {
    items: Vec<Item>,
    failed: Vec<Failed>,
}

impl View for Taken {
    const KIND: &'static str = "BackupList";

    fn text(&self, _style: Text) -> String {
        self.items.iter().map(line).collect()
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(Item::name).collect()
    }
}

/// The line of a backup that was taken.
pub(super) fn line(item: &Item) -> String {
    let facts = item.facts.as_ref().map(|facts| {
        let rows = if facts.rows == 1 { "1 row".to_owned() } else { format!("{} rows", facts.rows) };
        format!(
            "  {rows}  {} -> {}  {}",
            units::bytes(facts.database_bytes),
            units::bytes(facts.stored),
            moments::took(facts.took_seconds)
        )
    });
    format!("{} created{}\n", item.name(), facts.unwrap_or_default())
}

pub(crate) async fn run(args: &Backup, context: &Context) -> Result<ExitCode> {
    let mut options = BackupOptions::default();
    options.recipients = Recipients::keys(args.encrypt_to.iter().map(String::as_str))?;
    options.reason = args.reason.into();
    options.yield_after = args.yield_after;
    options.keep = args.keep_until;
    let environment = context.environment()?;
    if let Some(path) = &args.output {
        return plain(args, path, &options, &environment, context).await;
    }
    let store = BackupStore::from_env(&environment, args.to.as_deref())?;
    let place = store.to_string();
    let provisioner = context.mutator(&environment).await?;
    let apps = apps(&args.apps, &provisioner, context).await?;
    let work =
        Work::begin(context, &environment, &provisioner, store, Progress::new(context.console.clone(), args.telling))?;
    context.console.progress(&format!("backups go to {place}"));
    let mut taken = Several::of(&apps, context, async |app| {
        let manifest = work.on(app, work.manager.backup(app, &options)).await?;
        for warning in &manifest.warnings {
            context.console.note(&format!("{app}: {warning}"));
        }
        Ok(Item::of(&manifest))
    })
    .await?;
    let view = Taken { items: std::mem::take(&mut taken.done), failed: std::mem::take(&mut taken.failed) };
    context.output.show(&view)?;
    taken.failed = view.failed;
    taken.end()
}

/// A plain dump that was written.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Written(PlainDump);

impl View for Written {
    const KIND: &'static str = "Dump";

    fn text(&self, _style: Text) -> String {
        let PlainDump { path, rows, bytes, took_seconds, .. } = &self.0;
        format!("{} written  {rows} rows  {}  {}\n", path.display(), units::bytes(*bytes), moments::took(*took_seconds))
    }

    fn names(&self) -> Vec<String> {
        vec![self.0.path.display().to_string()]
    }
}

async fn plain(
    args: &Backup,
    path: &Path,
    options: &BackupOptions,
    environment: &Environment,
    context: &Context,
) -> Result<ExitCode> {
    let [app] = args.apps.as_slice() else {
        return Err(Error::invalid_input("output_of_several", "a file takes the dump of one app")
            .with_hint("run it once for each; or leave out --output, and all go to the store"));
    };
    let app: AppName = app.parse()?;
    let provisioner = context.mutator(environment).await?;
    let nowhere = BackupStore::open("memory:///", [])?;
    let progress = Progress::new(context.console.clone(), args.telling);
    let work = Work::begin(context, environment, &provisioner, nowhere, progress)?;
    let written = work.on(&app, work.manager.dump(&app, path, options)).await?;
    context.output.show(&Written(written))?;
    context.console.progress(&format!(
        "Restore it: shareddb restore {app}{} --input {}; it is no backup of the store, and nobody verifies or prunes it",
        context.flags(),
        argument(&path.display().to_string())
    ));
    Ok(ExitCode::SUCCESS)
}
