//! `shareddb backup`.

use std::process::ExitCode;

use serde::Serialize;
use shareddb_core::{BackupOptions, Recipients, Result};

use super::backups::Item;
use super::several::{Failed, Several, apps};
use crate::args::Backup;
use crate::context::Context;
use crate::moments;
use crate::output::{Text, View};
use crate::progress::Progress;
use crate::storage::{Work, store};
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
    options.yield_after = args.yield_after;
    options.keep = args.keep_until;
    let environment = context.environment()?;
    let store = store(&environment, args.to.as_deref())?;
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
