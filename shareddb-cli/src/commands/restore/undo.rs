//! `shareddb restore --undo`.

use std::process::ExitCode;
use std::time::Duration;

use shareddb_core::{AppName, AppSummary, BackupStore, Change, Environment, Error, Kept, Provisioner, Result};

use super::{Restored, done, sessions, size};
use crate::args::Restore;
use crate::confirmation::{Warning, confirm};
use crate::context::Context;
use crate::moments::short;
use crate::preview::Preview;
use crate::progress::Progress;
use crate::storage::Work;
use crate::units;

pub(super) async fn run(
    args: &Restore,
    there: &AppSummary,
    environment: &Environment,
    provisioner: &Provisioner,
    context: &Context,
) -> Result<ExitCode> {
    let app = &there.app.name;
    let kept = Kept::of(provisioner.server(), app).await?.into_iter().next().ok_or_else(|| nothing_kept(app))?;
    if args.dry_run.dry_run {
        return preview(there, &kept).show(context, args.dry_run);
    }
    confirm(app, args.confirm.as_deref(), environment, context, &warning(there, &kept, context)).await?;
    // What is taken back is on the server.
    let store = BackupStore::from_env(environment, None).or_else(|_| BackupStore::open("memory:///", []))?;
    let progress = Progress::new(context.console.clone(), args.telling);
    let work = Work::begin(context, environment, provisioner, store, progress)?;
    let kept = work.on(app, work.manager.undo(app, app.as_str())).await?;
    done(&Restored::undone(app, kept), context)
}

fn nothing_kept(app: &AppName) -> Error {
    Error::not_found("nothing_kept", format!("nothing of app {app} was kept: there is no restore to undo"))
        .with_hint("a backup from before the restore can be restored: `shareddb backups` lists them")
}

/// How long it has been kept.
pub(crate) fn kept_for(kept: &Kept) -> Duration {
    Duration::from_secs(kept.age_seconds)
}

fn warning(there: &AppSummary, kept: &Kept, context: &Context) -> Warning {
    let long = format!(
        "This replaces all data of database {} ({}, {}) with what the restore of {} replaced {} ago ({}): what was written \
         since is not in it.\nThe present database is kept, and `shareddb restore {}{} --undo` puts it back. Sessions are ended.",
        there.app.database,
        size(there),
        sessions(there.sessions),
        kept.backup,
        short(kept_for(kept)),
        units::bytes(kept.bytes),
        there.app.name,
        context.flags(),
    );
    Warning { short: format!("this replaces the database of app {}", there.app.name), long }
}

fn preview(there: &AppSummary, kept: &Kept) -> Preview {
    let (app, size) = (&there.app, size(there));
    let replaced = format!(
        "database/{} ({size}) replaced by {} ({}, kept for {})",
        app.database,
        kept.database,
        units::bytes(kept.bytes),
        short(kept_for(kept))
    );
    let stays = (Change::Add, format!("database/shareddb_k_… with what {} is now", app.database));
    Preview::new(format!("app/{}", app.name), [(Change::Change, replaced), stays])
}
