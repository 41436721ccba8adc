//! `shareddb restore`.

use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use shareddb_core::{
    AppName, AppSummary, BackupStore, Change, Choice, Error, Kept, LeftOut, Manifest, Provisioner, RestoreOptions,
    Result, Why,
};

use super::backup::line;
use super::backups::Item;
use crate::args::Restore;
use crate::confirmation::{Warning, confirm};
use crate::context::Context;
use crate::moments::{age, from_now, short};
use crate::output::{Text, View};
use crate::preview::Preview;
use crate::progress::Progress;
use crate::storage::{Work, identities, store};
use crate::units;

/// How long the backup of what was there before is kept, whatever the policy.
const SAFETY_DAYS: i64 = 7;

/// A restore that was done, or taken back.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Restored {
    app: AppName,
    outcome: &'static str,
    /// The backup that was restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    backup: Option<Item>,
    /// The backup of what was there before.
    #[serde(skip_serializing_if = "Option::is_none")]
    safety: Option<Item>,
    /// The database that was replaced, by the name that it is kept by.
    kept: String,
    left_out: Vec<Absent>,
}

/// Something of the backup that was not loaded.
#[derive(Debug, Serialize)]
struct Absent {
    what: String,
    why: String,
}

impl View for Restored {
    const KIND: &'static str = "Restore";

    fn text(&self, _style: Text) -> String {
        let safety = self.safety.as_ref().map(line).unwrap_or_default();
        let from = self.backup.as_ref().map(|item| format!(" from {}", item.name())).unwrap_or_default();
        format!("{safety}app/{} {}{from}\n", self.app, self.outcome)
    }

    fn names(&self) -> Vec<String> {
        vec![format!("app/{}", self.app)]
    }
}

pub(crate) async fn run(args: &Restore, context: &Context) -> Result<ExitCode> {
    let app: AppName = args.app.parse()?;
    let mut options = RestoreOptions::default();
    options.identities = identities(&args.keys)?;
    options.safety_backup = !args.no_safety_backup;
    options.safety.keep = from_now(SAFETY_DAYS);
    let environment = context.environment()?;
    let store = match store(&environment, args.from.as_deref()) {
        // What is taken back is on the server.
        Err(_) if args.undo => BackupStore::open("memory:///", [])?,
        store => store?,
    };
    let provisioner = context.mutator(&environment).await?;
    let there = summary(&provisioner, &app).await?;
    let progress = Progress::new(context.console.clone(), args.telling);
    if args.undo {
        let kept = Kept::of(provisioner.server(), &app).await?.into_iter().next().ok_or_else(|| nothing_kept(&app))?;
        if args.dry_run.dry_run {
            return undo_preview(&there, &kept).show(context, args.dry_run);
        }
        confirm(&app, args.confirm.as_deref(), &environment, context, &undo_warning(&there, &kept, context)).await?;
        let work = Work::begin(context, &environment, &provisioner, store, progress)?;
        let kept = work.on(&app, work.manager.undo(&app, app.as_str())).await?;
        return done(&Restored::undone(&app, kept), context);
    }
    let shelf = store.shelf(environment.name(), &app);
    let choice = args.at.map_or_else(|| args.backup.clone(), Choice::At);
    let id = shelf.choose(&choice).await?;
    let manifest = shelf.manifest(&id).await?;
    // What was shown is what is restored, also when there is a newer one by then.
    options.backup = Choice::Id(id);
    if args.dry_run.dry_run {
        return preview(&there, &manifest, &options).show(context, args.dry_run);
    }
    let warning = warning(&there, &manifest, &options, context);
    confirm(&app, args.confirm.as_deref(), &environment, context, &warning).await?;
    let work = Work::begin(context, &environment, &provisioner, store, progress)?;
    let report = work.on(&app, work.manager.restore(&app, &options, app.as_str())).await?;
    drop(work);
    let left_out: Vec<Absent> =
        report.left_out.iter().filter(|left| left.why != Why::AlreadyThere).map(absent).collect();
    for Absent { what, why } in &left_out {
        context.console.note(&format!("not restored: {what}, {why}"));
    }
    let restored = Restored {
        app,
        outcome: "restored",
        backup: Some(Item::of(&report.manifest)),
        safety: report.safety.as_ref().map(Item::of),
        kept: report.kept,
        left_out,
    };
    done(&restored, context)
}

impl Restored {
    fn undone(app: &AppName, kept: String) -> Self {
        Self { app: app.clone(), outcome: "as before", backup: None, safety: None, kept, left_out: Vec::new() }
    }
}

/// Prints it, with what was kept and the way back.
fn done(restored: &Restored, context: &Context) -> Result<ExitCode> {
    context.output.show(restored)?;
    let Restored { app, kept, .. } = restored;
    let place = context.flags();
    context.console.progress(&format!("What was there is kept as database {kept}"));
    context.console.progress(&format!("Undo: shareddb restore {app}{place} --undo --confirm {app}"));
    Ok(ExitCode::SUCCESS)
}

/// What a list says of an app.
///
/// # Errors
/// `NotFound` when there is none.
pub(super) async fn summary(provisioner: &Provisioner, app: &AppName) -> Result<AppSummary> {
    let there = provisioner.list().await?.into_iter().find(|summary| summary.app.name == *app);
    match there {
        Some(there) => Ok(there),
        // It says why.
        None => Err(provisioner
            .app(app)
            .await
            .err()
            .unwrap_or_else(|| Error::not_found("app_not_found", format!("there is no app {app}")))),
    }
}

fn nothing_kept(app: &AppName) -> Error {
    Error::not_found("nothing_kept", format!("nothing of app {app} was kept: there is no restore to undo"))
        .with_hint("a backup from before the restore can be restored: `shareddb backups` lists them")
}

/// The size of its database.
pub(super) fn size(there: &AppSummary) -> String {
    there.size.map_or_else(|| "gone".to_owned(), units::size)
}

/// So many sessions.
pub(super) fn sessions(count: u32) -> String {
    if count == 1 { "1 session".to_owned() } else { format!("{count} sessions") }
}

fn warning(there: &AppSummary, manifest: &Manifest, options: &RestoreOptions, context: &Context) -> Warning {
    let app = &there.app;
    let safety = if options.safety_backup { "A backup of the present state is taken first; the" } else { "The" };
    let long = format!(
        "This replaces all data of database {} ({}, {}) in env {} with\n{}, taken {} ago ({} rows): what was written since \
         is not in it.\n{safety} present database is kept as well, and `shareddb restore {}{} --undo` puts it back. Sessions are ended.",
        app.database,
        size(there),
        sessions(there.sessions),
        manifest.environment,
        manifest.id,
        age(manifest.taken_at),
        manifest.tables.iter().map(|table| table.rows).sum::<u64>(),
        app.name,
        context.flags(),
    );
    Warning { short: format!("this replaces the database of app {}", there.app.name), long }
}

fn preview(there: &AppSummary, manifest: &Manifest, options: &RestoreOptions) -> Preview {
    let app = &there.app;
    let stored = units::bytes(manifest.data.bytes);
    let safety = options.safety_backup.then(|| (Change::Add, "backup of what is there now".to_owned()));
    let replaced = format!(
        "database/{} ({}) replaced by backup/{} ({stored}, taken {} ago)",
        app.database,
        size(there),
        manifest.id,
        age(manifest.taken_at)
    );
    let kept = (Change::Add, format!("database/shareddb_k_… with what {} is now", app.database));
    let changes = safety.into_iter().chain([(Change::Change, replaced), kept]);
    Preview::new(format!("app/{}", app.name), changes)
}

/// How long it has been kept.
pub(super) fn kept_for(kept: &Kept) -> Duration {
    Duration::from_secs(kept.age_seconds)
}

fn undo_warning(there: &AppSummary, kept: &Kept, context: &Context) -> Warning {
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

fn undo_preview(there: &AppSummary, kept: &Kept) -> Preview {
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

fn absent(left: &LeftOut) -> Absent {
    let names = |names: &std::collections::BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(", ");
    let why = match &left.why {
        Why::AlreadyThere => "which is there already".to_owned(),
        Why::OfExtension(extension) => format!("which belongs to extension {extension}"),
        Why::NeedsSuperuser => "which only a superuser can make".to_owned(),
        Why::BelongsTo(role) => format!("which belongs to role {role}"),
        Why::Needs(what) => format!("which needs {what}"),
        Why::GrantsTo(roles) => format!("as far as it is for {}", names(roles)),
        Why::GrantedBy(roles) => format!("as far as it is granted by {}", names(roles)),
        Why::NamesOwner => "which names the owner".to_owned(),
        other => format!("{other:?}"),
    };
    Absent { what: left.what.clone(), why }
}
