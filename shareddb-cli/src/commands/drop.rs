//! `shareddb drop`.

use std::process::ExitCode;

use serde::Serialize;
use shareddb_core::{
    App, AppName, AppSpec, AppSummary, BackupOptions, BackupStore, Change, Environment, LAST_DAYS, Manifest, Plan,
    Provisioner, Report, Result, SettingName,
};

use super::backup::line;
use super::backups::Item;
use super::create::{Done, notes};
use super::restore::{sessions, size, summary};
use crate::args::Drop;
use crate::confirmation::{Warning, confirm};
use crate::context::Context;
use crate::output::{Text, View};
use crate::preview::Preview;
use crate::progress::Progress;
use crate::quoting;
use crate::storage::Work;

/// An app that is gone, and what is left of it.
#[derive(Debug, Serialize)]
struct Dropped {
    #[serde(flatten)]
    report: Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    backup: Option<Item>,
}

impl View for Dropped {
    const KIND: &'static str = Done::KIND;

    fn text(&self, _style: Text) -> String {
        let backup = self.backup.as_ref().map(line).unwrap_or_default();
        format!("{backup}app/{} {}\n", self.report.app.name, self.report.outcome.as_str())
    }

    fn names(&self) -> Vec<String> {
        vec![format!("app/{}", self.report.app.name)]
    }
}

pub(crate) async fn run(args: &Drop, context: &Context) -> Result<ExitCode> {
    let app: AppName = args.app.parse()?;
    let environment = context.environment()?;
    let provisioner = context.mutator(&environment).await?;
    // Before anything is asked for: of an app that is not there, nothing else matters.
    let plan = provisioner.plan_drop(&app).await?;
    let there = summary(&provisioner, &app).await?;
    let store = match args.no_backup || there.dropping {
        true => None,
        false => Some(BackupStore::from_env(&environment, args.to.as_deref())?),
    };
    if there.dropping && !args.no_backup {
        context.console.note("a drop has begun already, with or without a backup: none is taken now");
    }
    if args.dry_run.dry_run {
        return preview(&plan, store.as_ref()).show(context, args.dry_run);
    }
    confirm(&app, args.confirm.as_deref(), &environment, context, &warning(&there, &environment, store.as_ref()))
        .await?;
    let backup = match store {
        Some(store) => Some(last_backup(args, &app, store, &environment, &provisioner, context).await?),
        None => None,
    };
    let report = provisioner.drop(&app, app.as_str()).await?;
    notes(&report, context);
    context.output.show(&Dropped { report, backup: backup.as_ref().map(Item::of) })?;
    if let Some(Manifest { id, .. }) = backup {
        let place = context.flags();
        let from = args.to.as_ref().map(|url| format!(" --from {}", quoting::argument(url))).unwrap_or_default();
        let options = options_of(&there.app)?;
        context.console.progress(&format!(
            "Back: shareddb create {app}{place}{options} && shareddb restore {app}{place}{from} --backup {id} --confirm {app}"
        ));
        let secret = there.app.settings.keys().filter(|name| name.may_hold_a_secret());
        let secret: Vec<&str> = secret.map(SettingName::as_str).collect();
        if !secret.is_empty() {
            context
                .console
                .note(&format!("what may be secret is not shown, and has to be set again: {}", secret.join(", ")));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What makes an app like this one, as words of a command.
fn options_of(app: &App) -> Result<String> {
    let usual = App::derive(&AppSpec::new(app.name.clone()), &app.environment, None)?;
    let path = |app: &App| app.search_path.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let differing = [
        ("database", app.database.to_string(), usual.database.to_string()),
        ("user", app.user.to_string(), usual.user.to_string()),
        ("connections", app.connections.to_string(), usual.connections.to_string()),
        ("search-path", path(app), path(&usual)),
    ];
    let differing = differing.into_iter().filter(|(_, own, usual)| own != usual).map(|(option, own, _)| (option, own));
    let extensions = app.extensions.iter().map(|extension| ("extension", extension.to_string()));
    let shown = app.settings.iter().filter(|(name, _)| !name.may_hold_a_secret());
    let settings = shown.map(|(name, value)| ("set", format!("{name}={value}")));
    let options = differing.chain(extensions).chain(settings);
    Ok(options.map(|(option, value)| format!(" --{option} {}", quoting::argument(&value))).collect())
}

/// Takes the backup without which nothing is dropped.
async fn last_backup(
    args: &Drop,
    app: &AppName,
    store: BackupStore,
    environment: &Environment,
    provisioner: &Provisioner,
    context: &Context,
) -> Result<Manifest> {
    let options = BackupOptions::default();
    let work =
        Work::begin(context, environment, provisioner, store, Progress::new(context.console.clone(), args.telling))?;
    let taken = work.on(app, work.manager.last_backup(app, &options)).await;
    if taken.is_err() && !context.is_ending() {
        let place = context.flags();
        context.console.note(&format!(
            "nothing was dropped, as there is no backup; without one: shareddb drop {app}{place} --no-backup --confirm {app}"
        ));
    }
    taken
}

fn preview(plan: &Plan, store: Option<&BackupStore>) -> Preview {
    let backup = store.map(|store| (Change::Add, format!("backup in {store}, kept for {LAST_DAYS} days")));
    Preview::of(plan).after(backup)
}

fn warning(there: &AppSummary, environment: &Environment, store: Option<&BackupStore>) -> Warning {
    let app = &there.app;
    let backup = match store {
        Some(store) => format!("Its logins are closed, and a last backup goes to {store}, kept for {LAST_DAYS} days."),
        None => "There is no backup.".to_owned(),
    };
    let long = format!(
        "This deletes database {} ({}, {}), its roles and secret/{} in env {}.\n{backup}",
        app.database,
        size(there),
        sessions(there.sessions),
        app.secret,
        environment.name()
    );
    Warning { short: format!("dropping app {} deletes all its data", app.name), long }
}
