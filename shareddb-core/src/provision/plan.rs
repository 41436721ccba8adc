//! The decision what to do: a pure function of what is wanted and what was observed.

use std::fmt;

use serde::Serialize;

use crate::app::{App, AppSpec};
use crate::error::Result;
use crate::names::AppName;
use crate::provision::drop_plan::plan_drop;
use crate::provision::observed::{Observed, SecretFacts};
use crate::provision::step::{PasswordSource, Step};
use crate::provision::{admission, credential, database_steps, role_steps};

/// What would be done for one app, in order. Empty: everything is as it should be.
///
/// A plan holds no secret: a password is named by where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Plan {
    /// The app as it will be.
    pub app: App,
    /// Whether the app is recorded already.
    pub exists: bool,
    /// The changes, in order.
    pub steps: Vec<Step>,
    /// The database is closed: what is to be done inside it is decided when these steps have opened it.
    pub partial: bool,
    /// What a person should know although nothing will be done about it.
    pub notices: Vec<String>,
    #[serde(skip)]
    pub(crate) goal: Goal,
}

/// What a plan is for; a fresh one is made from it before anything is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    Create(AppSpec),
    Drop(AppName),
}

impl Goal {
    /// The spec by which the world is observed.
    pub(crate) fn spec(&self) -> AppSpec {
        match self {
            Self::Create(spec) => spec.clone(),
            Self::Drop(name) => AppSpec::new(name.clone()),
        }
    }

    /// Decides how to get there.
    pub(crate) fn plan(&self, observed: &Observed) -> Result<Plan> {
        match self {
            Self::Create(spec) => plan(spec, observed),
            Self::Drop(name) => plan_drop(name, observed),
        }
    }
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "  {} {step}", step.change().symbol())?;
        }
        Ok(())
    }
}

/// Decides how an app comes to be as its spec says.
///
/// # Errors
/// `Conflict` when something else bears one of its names, `Refused` when the server is unfit or promised to others,
/// `NotFound` when an extension is not installed on the server.
pub(crate) fn plan(spec: &AppSpec, observed: &Observed) -> Result<Plan> {
    let record = observed.record(&spec.name)?;
    let app = App::derive(spec, &observed.environment, record)?;
    admission::check(spec, &app, record, observed)?;

    let mut steps = server_steps(observed);
    steps.extend(role_steps::roles(&app, observed));
    steps.extend(database_steps::database(&app, observed));
    let partial = observed.inside.is_none() && observed.database.as_ref().is_some_and(|facts| !facts.invalid);
    if !partial {
        steps.extend(credential_steps(&app, observed, !steps.is_empty()));
    }
    Ok(Plan {
        notices: admission::notices(record, observed),
        exists: record.is_some(),
        goal: Goal::Create(spec.clone()),
        app,
        steps,
        partial,
    })
}

/// The walls that all apps share.
fn server_steps(observed: &Observed) -> Vec<Step> {
    let group = (!observed.server.maintenance_group).then_some(Step::CreateMaintenanceGroup);
    let open = observed.server.open_to_public.iter().map(|database| Step::CloseToPublic { database: database.clone() });
    group.into_iter().chain(open).collect()
}

/// The password, the proof that it works, and the Secret last: once that exists, it works.
fn credential_steps(app: &App, observed: &Observed, changed: bool) -> Vec<Step> {
    let choice = credential::choose(app, observed);
    let login = app.login(choice.slot);
    let mut steps = Vec::new();
    if choice.set_password {
        steps.push(Step::SetPassword { login: login.clone(), source: choice.source });
    }
    if choice.expires {
        steps.push(Step::EndExpiry { login: login.clone() });
    }
    let publish = choice.source == PasswordSource::New
        || !matches!(&observed.secret, SecretFacts::Held(held) if held.current && held.slot == Some(choice.slot));
    if changed || publish || !steps.is_empty() {
        steps.push(Step::Prove { login: login.clone() });
    }
    if publish {
        let replace = observed.secret != SecretFacts::Absent;
        steps.push(Step::PublishSecret { secret: app.secret.clone(), slot: choice.slot, replace });
    }
    steps
}
