//! `shareddb prune`.

use std::process::ExitCode;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use shareddb_core::{AppName, BackupId, BackupStore, Judged, KeepReason, PrunePlan, Pruned, Result, RetentionPolicy};

use crate::args::Prune;
use crate::color::Style;
use crate::context::Context;
use crate::moments::{age, day};
use crate::output::{Text, View};
use crate::preview::CHANGES;
use crate::table::{Cell, Table};
use crate::units;

/// What becomes of each backup.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Pruning {
    items: Vec<Item>,
    /// Objects of no backup that were deleted.
    orphans: Vec<String>,
    dry_run: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    id: BackupId,
    app: AppName,
    taken_at: Timestamp,
    bytes: u64,
    fate: Fate,
    /// What keeps it.
    kept_by: Vec<String>,
    /// Why the store does not let it go.
    #[serde(skip_serializing_if = "Option::is_none")]
    retained: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Fate {
    Kept,
    /// It would go.
    Doomed,
    Deleted,
    /// Somebody has begun to hold it, or the store does not let it go.
    Spared,
}

impl Pruning {
    fn sum(&self, fate: Fate) -> (usize, u64) {
        let items = || self.items.iter().filter(|item| item.fate == fate);
        (items().count(), items().map(|item| item.bytes).sum())
    }
}

impl View for Pruning {
    const KIND: &'static str = "PruneList";

    fn text(&self, style: Text) -> String {
        let mut table = Table::new(["ID", "TAKEN", "SIZE", "KEPT-BY"]);
        for item in &self.items {
            let kept_by = match item.fate {
                Fate::Kept => item.kept_by.join(",").into(),
                Fate::Doomed => Cell::styled("-", Style::Bad),
                Fate::Deleted => Cell::styled("deleted", Style::Bad),
                Fate::Spared => Cell::styled(item.retained.as_ref().map_or("held", |_| "the-store"), Style::Warn),
            };
            table.row([
                item.id.to_string().into(),
                age(item.taken_at).into(),
                units::bytes(item.bytes).into(),
                kept_by,
            ]);
        }
        let (kept, _) = self.sum(Fate::Kept);
        let summary = match self.dry_run {
            true => {
                let (doomed, bytes) = self.sum(Fate::Doomed);
                format!(
                    "{doomed} to delete ({}), {kept} to keep. Nothing was deleted (dry run).\n",
                    units::bytes(bytes)
                )
            }
            false => {
                let (deleted, bytes) = self.sum(Fate::Deleted);
                format!("{deleted} deleted ({}), {} kept\n", units::bytes(bytes), kept + self.sum(Fate::Spared).0)
            }
        };
        table.render(style.paint) + &summary
    }

    fn names(&self) -> Vec<String> {
        let gone = self.items.iter().filter(|item| matches!(item.fate, Fate::Doomed | Fate::Deleted));
        gone.map(|item| format!("backup/{}", item.id)).collect()
    }
}

pub(crate) async fn run(args: &Prune, context: &Context) -> Result<ExitCode> {
    let policy = RetentionPolicy {
        last: args.keep_last.unwrap_or_default(),
        hourly: args.keep_hourly.unwrap_or_default(),
        daily: args.keep_daily.unwrap_or_default(),
        weekly: args.keep_weekly.unwrap_or_default(),
        monthly: args.keep_monthly.unwrap_or_default(),
        yearly: args.keep_yearly.unwrap_or_default(),
    };
    let environment = context.environment()?;
    let store = BackupStore::from_env(&environment, args.from.as_deref())?;
    context.console.progress(&format!("env {} · {store}", environment.name()));
    let apps: Vec<AppName> = match &args.app {
        Some(app) => vec![app.parse()?],
        None => store.apps(environment.name()).await?,
    };
    let mut plans = Vec::new();
    // Before anything is deleted: what is wrong with one is known for all.
    for app in &apps {
        let shelf = store.shelf(environment.name(), app);
        let plan = shelf.plan_prune(&policy, &TimeZone::UTC).await?;
        plans.push((shelf, plan));
    }
    let mut pruning = Pruning { items: Vec::new(), orphans: Vec::new(), dry_run: args.dry_run.dry_run };
    for (shelf, plan) in &plans {
        let pruned = match args.dry_run.dry_run {
            true => None,
            false => Some(shelf.prune(plan).await?),
        };
        pruning.items.extend(items(plan, pruned.as_ref()));
        pruning.orphans.extend(pruned.into_iter().flat_map(|pruned| pruned.orphans));
    }
    for item in &pruning.items {
        if let Some(why) = &item.retained {
            context.console.note(&format!("{} stays: {why}", item.id));
        }
    }
    context.output.show(&pruning)?;
    let differs = args.dry_run.exit_code && pruning.sum(Fate::Doomed).0 > 0;
    Ok(if differs { ExitCode::from(CHANGES) } else { ExitCode::SUCCESS })
}

/// A reason as one word.
fn word(reason: &KeepReason) -> String {
    match reason {
        KeepReason::Until(until) if *until < Timestamp::MAX => format!("until-{}", day(*until)),
        // Of what a newer version has written.
        KeepReason::Until(_) => "not-understood".to_owned(),
        reason => reason.to_string().replace(' ', "-"),
    }
}

/// What was planned, and what came of it if it was carried out.
fn items(plan: &PrunePlan, pruned: Option<&Pruned>) -> Vec<Item> {
    let item = |judged: &Judged| {
        let backup = &judged.backup;
        let retained = pruned.and_then(|pruned| pruned.retained.iter().find(|(id, _)| *id == backup.id));
        let fate = match pruned {
            _ if judged.stays() => Fate::Kept,
            None => Fate::Doomed,
            Some(pruned) if retained.is_some() || pruned.spared.contains(&backup.id) => Fate::Spared,
            Some(_) => Fate::Deleted,
        };
        Item {
            id: backup.id.clone(),
            app: backup.id.app().clone(),
            taken_at: backup.id.taken_at(),
            bytes: backup.bytes,
            fate,
            // A cell has no spaces, so that a line splits into its columns.
            kept_by: judged.reasons.iter().map(word).collect(),
            retained: retained.map(|(_, why)| why.clone()),
        }
    };
    plan.backups.iter().map(item).collect()
}
