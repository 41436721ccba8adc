//! The same for one app after the other. One that fails does not stop the others.

use std::process::ExitCode;

use serde::Serialize;
use shareddb_core::{AppName, Error, Provisioner, Result};

use crate::args::Format;
use crate::context::Context;
use crate::failure::{Failure, exit_code};

/// What came of it.
#[derive(Debug)]
pub(super) struct Several<T> {
    pub(super) done: Vec<T>,
    pub(super) failed: Vec<Failed>,
    /// What ended it before all had their turn.
    ended: Option<Error>,
}

/// An app for which it failed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Failed {
    app: AppName,
    code: &'static str,
    message: String,
    hint: Option<String>,
    #[serde(skip)]
    exit: u8,
}

impl<T> Several<T> {
    /// Does it for each. What fails for one of several is told at once.
    ///
    /// # Errors
    /// What fails for the only one.
    pub(super) async fn of(
        apps: &[AppName],
        context: &Context,
        each: impl AsyncFn(&AppName) -> Result<T>,
    ) -> Result<Self> {
        let mut several = Self { done: Vec::new(), failed: Vec::new(), ended: None };
        if let [only] = apps {
            several.done.push(each(only).await?);
            return Ok(several);
        }
        for app in apps {
            match each(app).await {
                Ok(done) => several.done.push(done),
                // The others will not do better.
                Err(error) if context.is_ending() => {
                    several.ended = Some(error);
                    break;
                }
                Err(error) => several.failed.push(told(app, error, context)),
            }
        }
        Ok(several)
    }

    /// How the command ends: as for the first that failed.
    ///
    /// # Errors
    /// What ended it early.
    pub(super) fn end(self) -> Result<ExitCode> {
        match (self.ended, self.failed.first()) {
            (Some(error), _) => Err(error),
            (None, Some(failed)) => Ok(ExitCode::from(failed.exit)),
            (None, None) => Ok(ExitCode::SUCCESS),
        }
    }
}

fn told(app: &AppName, error: Error, context: &Context) -> Failed {
    let failed = Failed {
        app: app.clone(),
        code: error.code(),
        message: error.to_string(),
        hint: error.hint().map(str::to_owned),
        exit: exit_code(&error),
    };
    if context.output.format() != Format::Json {
        context.console.line(&format!("app {app}:"));
    }
    Failure::from(error).report(context);
    failed
}

/// The apps that were named, or all that there are. One that is half gone is passed over.
///
/// # Errors
/// `InvalidInput` for what is no app's name, and whatever hinders reading which there are.
pub(super) async fn apps<'a>(
    named: impl IntoIterator<Item = &'a String>,
    provisioner: &Provisioner,
    context: &Context,
) -> Result<Vec<AppName>> {
    let mut apps = Vec::new();
    for name in named {
        let app: AppName = name.parse()?;
        if !apps.contains(&app) {
            apps.push(app);
        }
    }
    if !apps.is_empty() {
        return Ok(apps);
    }
    let (dropping, whole): (Vec<_>, Vec<_>) =
        provisioner.list().await?.into_iter().partition(|summary| summary.dropping);
    for summary in dropping {
        context.console.note(&format!("app {} is passed over: it is being dropped", summary.app.name));
    }
    if whole.is_empty() {
        context.console.progress("there are no apps");
    }
    Ok(whole.into_iter().map(|summary| summary.app.name).collect())
}
