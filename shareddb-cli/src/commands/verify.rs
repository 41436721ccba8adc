//! `shareddb verify`.

use std::process::ExitCode;

use serde::Serialize;
use shareddb_core::{AppName, BackupStore, Choice, Error, Identities, Result, Verdict, Verification, VerifyOptions};

use super::several::{Failed, Several, apps};
use crate::args::Verify;
use crate::color::Style;
use crate::context::Context;
use crate::moments;
use crate::output::{Text, View};
use crate::preview::CHANGES as NO;
use crate::progress::Progress;
use crate::quoting::printable;
use crate::storage::Work;

#[derive(Debug, Serialize)]
struct Checked {
    items: Vec<Verification>,
    failed: Vec<Failed>,
}

impl View for Checked {
    const KIND: &'static str = "VerificationList";

    fn text(&self, style: Text) -> String {
        let line = |check: &Verification| {
            let (word, color) = match check.verdict {
                Verdict::Passed => ("passed", Style::Good),
                Verdict::Read => ("read", Style::Good),
                Verdict::Failed => ("FAILED", Style::Bad),
            };
            let findings = check.findings.iter().map(|finding| format!("  {}\n", printable(finding)));
            let left_out = check.left_out.iter().map(|what| format!("  not restored: {}\n", printable(what)));
            let findings = findings.chain(left_out);
            let took = moments::took(check.took_seconds);
            format!("backup/{} {}  {took}\n{}", check.id, style.paint.apply(color, word), findings.collect::<String>())
        };
        self.items.iter().map(line).collect()
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|check| format!("backup/{}", check.id)).collect()
    }
}

pub(crate) async fn run(args: &Verify, context: &Context) -> Result<ExitCode> {
    let choice = args.backup.clone().unwrap_or_default();
    let named = named(args.app.as_deref(), &choice, args.all)?;
    let mut options = VerifyOptions::default();
    options.quick = args.quick;
    options.identities = Identities::files(args.keys.identity.clone()).await?;
    let source = context.environment()?;
    let store = BackupStore::from_env(&source, args.from.as_deref())?;
    let elsewhere = args.on.as_deref().map(|name| context.other_environment(name)).transpose()?;
    let environment = elsewhere.as_ref().unwrap_or(&source);
    let provisioner = context.mutator(environment).await?;
    let mut apps = match &elsewhere {
        // Whose backups there are the store knows.
        Some(_) if args.all => store.apps(source.name()).await?,
        _ => apps(named.iter(), &provisioner, context).await?,
    };
    if args.all {
        let mut with_backups = Vec::new();
        for (app, listed) in store.listings(source.name(), apps).await {
            match listed?.is_empty() {
                true => context.console.note(&format!("app {app} has no backup")),
                false => with_backups.push(app),
            }
        }
        apps = with_backups;
    }
    let progress = Progress::new(context.console.clone(), args.telling);
    let work = Work::begin(context, environment, &provisioner, store.clone(), progress)?;
    let mut checked = Several::of(&apps, context, async |app| {
        work.on(app, async {
            let shelf = store.shelf(source.name(), app);
            let id = shelf.choose(&choice).await?;
            let mut options = options.clone();
            options.shelf = elsewhere.as_ref().map(|_| shelf);
            work.manager.verify(&id, &options).await
        })
        .await
    })
    .await?;
    let view = Checked { items: std::mem::take(&mut checked.done), failed: std::mem::take(&mut checked.failed) };
    context.output.show(&view)?;
    let bad = view.items.iter().any(|check| check.verdict == Verdict::Failed);
    checked.failed = view.failed;
    match (checked.end()?, bad) {
        // That one does not restore is worse than that another could not be looked at.
        (_, true) => Ok(ExitCode::from(NO)),
        (code, false) => Ok(code),
    }
}

/// Whose backups are meant; nobody's name means everybody's.
fn named(app: Option<&str>, choice: &Choice, all: bool) -> Result<Option<String>> {
    match (app, choice) {
        (Some(app), Choice::Id(id)) => {
            let app: AppName = app.parse()?;
            if *id.app() != app {
                return Err(Error::invalid_input("backup_foreign", format!("{id} is no backup of app {app}"))
                    .with_hint(format!("`shareddb backups {app}` lists those that there are")));
            }
            Ok(Some(app.to_string()))
        }
        (Some(app), _) => Ok(Some(app.to_owned())),
        (None, Choice::Id(id)) => Ok(Some(id.app().to_string())),
        (None, _) if all => Ok(None),
        (None, _) => Err(Error::invalid_input("app_missing", "the latest backup of which app?")
            .with_hint("name the app: shareddb verify APP; or --all for those of every one")),
    }
}
