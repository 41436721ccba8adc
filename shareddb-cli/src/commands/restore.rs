//! `shareddb restore`.

mod incoming;
pub(super) mod undo;

use std::process::ExitCode;

use serde::Serialize;
use shareddb_core::{
    AppName, AppSpec, AppSummary, Change, Environment, Error, LeftOut, Provisioner, RestoreReport, Result,
};

use super::backup::line;
use super::backups::Item;
use crate::args::Restore;
use crate::confirmation::{Warning, confirm};
use crate::context::Context;
use crate::output::{Text, View};
use crate::preview::Preview;
use crate::progress::Progress;
use crate::storage::Work;
use crate::units;
use incoming::{Incoming, What};

/// A restore that was done, or taken back.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Restored {
    app: AppName,
    outcome: &'static str,
    /// The backup that was restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    backup: Option<Item>,
    /// The file, where that was no backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    /// How many rows the database has now.
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<u64>,
    /// The backup of what was there before.
    #[serde(skip_serializing_if = "Option::is_none")]
    safety: Option<Item>,
    /// The database that was replaced, by the name that it is kept by.
    kept: String,
    left_out: Vec<Absent>,
    remarks: Vec<String>,
}

/// Something of the backup that was not loaded.
#[derive(Debug, Serialize)]
struct Absent {
    what: String,
    why: String,
}

impl Absent {
    fn of(left: &LeftOut) -> Self {
        Self { what: left.what.clone(), why: left.why.to_string() }
    }
}

impl View for Restored {
    const KIND: &'static str = "Restore";

    fn text(&self, _style: Text) -> String {
        let safety = self.safety.as_ref().map(line).unwrap_or_default();
        let source = self.backup.as_ref().map(Item::name).or_else(|| self.file.clone());
        let from = source.map(|source| format!(" from {source}")).unwrap_or_default();
        // Of a backup it was said when it was taken.
        let rows = self.rows.filter(|_| self.file.is_some()).map(|rows| format!("  {rows} rows")).unwrap_or_default();
        format!("{safety}app/{} {}{from}{rows}\n", self.app, self.outcome)
    }

    fn names(&self) -> Vec<String> {
        vec![format!("app/{}", self.app)]
    }
}

pub(crate) async fn run(args: &Restore, context: &Context) -> Result<ExitCode> {
    let source: AppName = args.app.parse()?;
    let app: AppName = args.other.as_deref().map_or_else(|| Ok(source.clone()), str::parse)?;
    let environment = context.environment()?;
    if args.undo {
        let provisioner = context.mutator(&environment).await?;
        return undo::run(args, &summary(&provisioner, &app).await?, &environment, &provisioner, context).await;
    }
    let incoming = Incoming::of(args, &source, &environment, context).await?;
    let mut options = incoming.options(args).await?;
    let provisioner = context.mutator(&environment).await?;
    let there = match summary(&provisioner, &app).await {
        Err(error) if error.code() == "app_not_found" && args.other.is_some() => None,
        there => Some(there?),
    };
    if args.dry_run.dry_run {
        return preview(&app, there.as_ref(), &incoming, options.safety_backup).show(context, args.dry_run);
    }
    incoming.crossing(&environment).into_iter().for_each(|line| context.console.note(&line));
    match &there {
        Some(there) => {
            let warning = warning(there, &incoming, options.safety_backup, &environment, context);
            confirm(&app, args.confirm.as_deref(), &environment, context, &warning).await?;
        }
        None => {
            let report = provisioner.create(&AppSpec::new(app.clone())).await?;
            super::create::notes(&report, context);
            context.console.progress(&format!("app {app} created"));
            options.safety_backup = false;
        }
    }
    let progress = Progress::new(context.console.clone(), args.telling);
    let work = Work::begin(context, &environment, &provisioner, incoming.store.clone(), progress)?;
    let report = match &incoming.what {
        What::Backup(..) => work.on(&app, work.manager.restore(&app, &options, app.as_str())).await,
        What::File(file) => work.on(&app, work.manager.restore_file(&app, file, &options, app.as_str())).await,
    };
    drop(work);
    if there.is_none() && report.is_err() {
        let drop = format!("shareddb drop {app}{} --no-backup --confirm {app}", context.flags());
        context.console.note(&format!("app {app} was made for this and is empty; if it is not wanted: {drop}"));
    }
    let restored = Restored::of(&app, &incoming, report?, context);
    match there {
        Some(_) => done(&restored, context),
        // Nothing was there that anybody would want back.
        None => context.output.show(&restored).map(|()| ExitCode::SUCCESS),
    }
}

impl Restored {
    fn of(app: &AppName, incoming: &Incoming, report: RestoreReport, context: &Context) -> Self {
        let left_out: Vec<Absent> =
            report.left_out.iter().filter(|left| !left.why.is_there()).map(Absent::of).collect();
        for Absent { what, why } in &left_out {
            context.console.note(&format!("not restored: {what}: {why}"));
        }
        report.remarks.iter().for_each(|remark| context.console.note(remark));
        let file = match &incoming.what {
            What::File(file) => Some(file.path().display().to_string()),
            What::Backup(..) => None,
        };
        Self {
            app: app.clone(),
            outcome: "restored",
            backup: report.manifest.as_ref().map(Item::of),
            file,
            rows: Some(report.rows),
            safety: report.safety.as_ref().map(Item::of),
            kept: report.kept,
            left_out,
            remarks: report.remarks,
        }
    }

    fn undone(app: &AppName, kept: String) -> Self {
        Self {
            app: app.clone(),
            outcome: "as before",
            backup: None,
            file: None,
            rows: None,
            safety: None,
            kept,
            left_out: Vec::new(),
            remarks: Vec::new(),
        }
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

/// The size of its database.
pub(super) fn size(there: &AppSummary) -> String {
    there.size.map_or_else(|| "gone".to_owned(), units::size)
}

/// So many sessions.
pub(super) fn sessions(count: u32) -> String {
    if count == 1 { "1 session".to_owned() } else { format!("{count} sessions") }
}

fn warning(
    there: &AppSummary,
    incoming: &Incoming,
    is_saved: bool,
    environment: &Environment,
    context: &Context,
) -> Warning {
    let app = &there.app;
    let safety = if is_saved { "A backup of the present state is taken first; the" } else { "The" };
    let long = format!(
        "This replaces all data of database {} ({}, {}) in env {} with\n{}: what was written since is not in it.\n\
         {safety} present database is kept as well, and `shareddb restore {}{} --undo` puts it back. Sessions are ended.",
        app.database,
        size(there),
        sessions(there.sessions),
        environment.name(),
        incoming.described(),
        app.name,
        context.flags(),
    );
    Warning { short: format!("this replaces the database of app {}", there.app.name), long }
}

fn preview(app: &AppName, there: Option<&AppSummary>, incoming: &Incoming, is_saved: bool) -> Preview {
    let planned = incoming.planned();
    let changes = match there {
        None => {
            vec![(Change::Add, format!("app/{app}")), (Change::Change, format!("its database replaced by {planned}"))]
        }
        Some(there) => {
            let database = &there.app.database;
            let safety = is_saved.then(|| (Change::Add, "backup of what is there now".to_owned()));
            let replaced = (Change::Change, format!("database/{database} ({}) replaced by {planned}", size(there)));
            let kept = (Change::Add, format!("database/shareddb_k_… with what {database} is now"));
            safety.into_iter().chain([replaced, kept]).collect()
        }
    };
    Preview::new(format!("app/{app}"), changes)
}
