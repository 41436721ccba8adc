//! `shareddb drop`.

use std::process::ExitCode;

use shareddb_core::{AppName, Error, Provisioner, Result};

use super::create::{Done, notes};
use crate::args::Drop;
use crate::context::Context;
use crate::preview::Preview;
use crate::units;

pub(crate) async fn run(args: &Drop, context: &Context) -> Result<ExitCode> {
    let app: AppName = args.app.parse()?;
    let environment = context.environment()?;
    let provisioner = context.mutator(&environment).await?;
    // Before anything is asked for: of an app that is not there, nothing else matters.
    let plan = provisioner.plan_drop(&app).await?;
    if args.dry_run.dry_run {
        return Preview::of(&plan).show(context, args.dry_run);
    }
    if !args.no_backup {
        return Err(Error::refused(
            "backup_impossible",
            "this version cannot take the backup that comes before a drop",
        )
        .with_hint(format!(
            "drop it without one: shareddb drop {app}{} --no-backup --confirm {app}",
            context.flags()
        )));
    }
    let confirmed = match &args.confirm {
        Some(name) => name.clone(),
        None if environment.is_protected() => {
            return Err(Error::refused("env_protected", format!("environment {} is protected", environment.name()))
                .with_hint(format!("say in the command itself what is to go: --confirm {app}")));
        }
        None => ask(&provisioner, &app, context).await?,
    };
    let report = provisioner.drop(&app, &confirmed).await?;
    notes(&report, context);
    context.output.show(&Done(report))?;
    Ok(ExitCode::SUCCESS)
}

/// The name as a person types it; nothing where there is nobody to ask.
async fn ask(provisioner: &Provisioner, name: &AppName, context: &Context) -> Result<String> {
    let status = provisioner.status(Some(name)).await?;
    let Some(found) = status.apps.first() else { return Ok(String::new()) };
    let (app, size) = (&found.summary.app, found.summary.size.map(units::size));
    let warning = format!(
        "This deletes database {} ({}, {} sessions), its roles and secret/{} in env {}. There is no backup.",
        app.database,
        size.as_deref().unwrap_or("already gone"),
        found.summary.sessions,
        app.secret,
        status.environment
    );
    let answer = context.console.ask(&warning, "Type the app's name to go on:").await?;
    Ok(answer.unwrap_or_default())
}
