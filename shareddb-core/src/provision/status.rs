//! What is there: a line per app, and what ought to be different.

use std::fmt;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use serde::Serialize;

use crate::app::{App, AppSpec, Slot};
use crate::change::Change;
use crate::credentials::Issue;
use crate::error::{Error, Result};
use crate::names::AppName;
use crate::postgres::catalog;
use crate::postgres::clients::Client;
use crate::postgres::marks::Marks;
use crate::postgres::session::AdminSession;
use crate::provision::budget::Budget;
use crate::provision::gap::Gap;
use crate::provision::login_status::{self, LoginStatus};
use crate::provision::observe::{Survey, observe_app, takers};
use crate::provision::observed::SecretFacts;
use crate::provision::step::Step;
use crate::provision::takers::Takers;
use crate::provision::walls::{self, Wall};
use crate::provision::{Provisioner, plan};
use crate::secrets::Workload;

/// One app in a list.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct AppSummary {
    /// The app as recorded.
    pub app: App,
    /// Its database's size in bytes, if there is one.
    pub size: Option<i64>,
    /// Sessions in its database at this moment, ours included.
    pub sessions: u32,
    /// A drop has begun.
    pub dropping: bool,
}

/// One app in detail.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct AppStatus {
    /// What a list says of it.
    #[serde(flatten)]
    pub summary: AppSummary,
    /// The login that the Secret names, if it is in order.
    pub slot: Option<Slot>,
    /// The number of the password in the Secret, where that says so: how many the app has had.
    pub generation: Option<u32>,
    /// Since when the Secret has this password, where it says so. One that was never changed has it from the create.
    pub password_since: Option<Timestamp>,
    /// Its two logins; empty where they cannot be read.
    pub logins: Vec<LoginStatus>,
    /// Who is logged in as the app, by what each calls itself.
    pub clients: Vec<Client>,
    /// What takes the Secret; looked for where one app is asked about, and `None` where it cannot be told.
    pub workloads: Option<Vec<Workload>>,
    /// What hinders looking for that.
    pub workloads_hidden: Option<Problem>,
    /// What [`Provisioner::create`] would do: empty when all is as recorded.
    pub drift: Vec<Step>,
    /// Why `create` would stop, if it would.
    pub problem: Option<Problem>,
    /// What a person should know.
    pub notices: Vec<String>,
    /// What ought to be different about it and is not for the admin to change.
    pub gaps: Vec<Gap>,
}

impl AppStatus {
    fn unreadable(summary: AppSummary, error: Error) -> Self {
        Self {
            summary,
            slot: None,
            generation: None,
            password_since: None,
            logins: Vec::new(),
            clients: Vec::new(),
            workloads: None,
            workloads_hidden: None,
            drift: Vec::new(),
            problem: Some(error.into()),
            notices: Vec::new(),
            gaps: Vec::new(),
        }
    }

    /// How it is, in one word.
    pub fn state(&self) -> AppState {
        if self.summary.dropping {
            AppState::Dropping
        } else if self.summary.size.is_none()
            && self.problem.as_ref().is_none_or(|problem| problem.code != "out_of_reach")
        {
            AppState::NoDatabase
        } else if !self.drift.is_empty() {
            // That something has begun, and the trial login at the end, only follow from the changes.
            let follows = |step: &&Step| {
                step.change() == Change::Check || matches!(step, Step::MarkOwner { .. } | Step::EndRotation { .. })
            };
            AppState::Drift(self.drift.iter().filter(|step| !follows(step)).count().max(1))
        } else if self.problem.is_some() {
            AppState::Problem
        } else if !self.gaps.is_empty() {
            AppState::Gaps(self.gaps.len())
        } else {
            AppState::Ok
        }
    }

    /// Whether there is nothing to tell about it.
    pub fn is_well(&self) -> bool {
        self.state() == AppState::Ok && self.notices.is_empty()
    }
}

/// How an app is, in one word: the worst of what there is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AppState {
    /// It is being dropped.
    Dropping,
    /// Its database is gone.
    NoDatabase,
    /// So many changes would make it what its record says.
    Drift(usize),
    /// Something is in the way of making it so.
    Problem,
    /// So many things ought to be different and are not for the admin to change.
    Gaps(usize),
    /// As it should be.
    Ok,
}

impl fmt::Display for AppState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dropping => f.pad("dropping"),
            Self::NoDatabase => f.pad("NO DATABASE"),
            Self::Drift(changes) => write!(f, "DRIFT {changes}"),
            Self::Problem => f.pad("PROBLEM"),
            Self::Gaps(gaps) => write!(f, "GAPS {gaps}"),
            Self::Ok => f.pad("OK"),
        }
    }
}

/// Why an app cannot be made what its record says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Problem {
    /// The stable word of the error.
    pub code: &'static str,
    /// The error.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.hint.iter().try_for_each(|hint| write!(f, "; {hint}"))
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self { code: error.code(), message: error.to_string(), hint: error.hint().map(str::to_owned) }
    }
}

/// The server.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ServerStatus {
    /// Its version, such as `15.18`.
    pub version: String,
    /// Where it is, for people: address, the way there, and context and namespace where it has them.
    pub endpoint: String,
    /// Sessions it can hold.
    pub max_connections: u32,
    /// Sessions promised to apps.
    pub budget: Budget,
    /// What keeps apps apart.
    pub walls: Vec<Wall>,
    /// What a person should know.
    pub notices: Vec<String>,
}

/// The server and its apps.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Status {
    /// The environment.
    pub environment: String,
    /// The server.
    pub server: ServerStatus,
    /// The apps, by name.
    pub apps: Vec<AppStatus>,
}

/// Apps looked into side by side; each takes a session of the admin's in its database.
const AT_ONCE: usize = 4;

impl Provisioner {
    /// Every app of the server, by name, as it is recorded. That there is none is not an error; a record that cannot be read is
    /// left out, and [`status`](Self::status) tells of it.
    ///
    /// # Errors
    /// Whatever hinders reading.
    pub async fn list(&self) -> Result<Vec<AppSummary>> {
        let session = self.server.session().await?;
        let marks = Marks::read(&session).await?;
        self.summaries(&session, &marks).await
    }

    /// The server, and all its apps or one of them, each compared with its record.
    ///
    /// # Errors
    /// `NotFound` when the one app does not exist. An app that is not in order is not an error: see
    /// [`AppStatus::drift`] and [`AppStatus::problem`].
    pub async fn status(&self, app: Option<&AppName>) -> Result<Status> {
        let session = self.server.session().await?;
        let survey = Survey::of(&self.server, &session).await?;
        let summaries = self.summaries(&session, &survey.marks).await?;
        let all: Vec<App> = summaries.iter().map(|summary| summary.app.clone()).collect();
        let server = self.server_status(&session, &survey, &all).await?;
        let wanted = summaries.into_iter().filter(|summary| app.is_none_or(|app| summary.app.name == *app));
        let takers = match all.iter().find(|one| app.is_some_and(|app| one.name == *app)) {
            Some(one) => takers(&self.server, one).await,
            None => Takers::Unknown,
        };
        let compared = wanted.map(|summary| self.app_status(&session, &survey, summary, takers.clone()));
        let apps: Vec<AppStatus> = stream::iter(compared).buffered(AT_ONCE).try_collect().await?;
        if let (Some(app), true) = (app, apps.is_empty()) {
            return Err(survey.marks.no_such_app(app, self.server.environment()));
        }
        Ok(Status { environment: self.server.environment().to_string(), server, apps })
    }

    async fn server_status(
        &self,
        session: &AdminSession,
        Survey { server, marks }: &Survey,
        apps: &[App],
    ) -> Result<ServerStatus> {
        let rules = match catalog::access_rules(session).await {
            Err(error) if error.is_retryable() => return Err(error),
            rules => rules,
        };
        let unreadable = marks.unreadable.iter().map(ToString::to_string);
        Ok(ServerStatus {
            version: server.version.to_string(),
            endpoint: self.server.place().to_owned(),
            max_connections: server.max_connections,
            budget: Budget::of(apps, server.max_connections),
            walls: vec![walls::rights(server, apps), walls::access_rules(server, rules.as_ref(), apps)],
            notices: server.version.notice().into_iter().chain(unreadable).collect(),
        })
    }

    async fn summaries(&self, session: &AdminSession, marks: &Marks) -> Result<Vec<AppSummary>> {
        let records = marks.records();
        let databases: Vec<String> = records.values().map(|mark| mark.database.to_string()).collect();
        let usage = catalog::usage(session, &databases).await?;
        records
            .into_values()
            .map(|mark| {
                let usage = usage.get(mark.database.as_str());
                Ok(AppSummary {
                    app: App::recorded(mark)?,
                    size: usage.and_then(|usage| usage.size),
                    sessions: usage.map_or(0, |usage| usage.sessions),
                    dropping: mark.is_dropping(),
                })
            })
            .collect()
    }

    async fn app_status(
        &self,
        session: &AdminSession,
        survey: &Survey,
        summary: AppSummary,
        takers: Takers,
    ) -> Result<AppStatus> {
        let spec = AppSpec::new(summary.app.name.clone());
        let observed = match observe_app(&self.server, session, survey.clone(), &spec).await {
            Ok(observation) => observation.observed,
            // The server is gone, which is no matter of this app's.
            Err(error) if error.is_retryable() => return Err(error),
            Err(error) => return Ok(AppStatus::unreadable(summary, error)),
        };
        let (workloads, workloads_hidden) = match takers {
            Takers::Known(workloads) => (Some(workloads), None),
            Takers::Hidden(problem) => (None, Some(problem)),
            Takers::Unknown => (None, None),
        };
        let (slot, issue) = match &observed.secret {
            SecretFacts::Held(held) if held.complete => (held.slot, held.issue),
            _ => (None, Issue::default()),
        };
        let (drift, notices, mut gaps, problem) = match plan::plan(&spec, &observed) {
            Ok(plan) => (plan.steps, plan.notices, plan.gaps, None),
            Err(error) => (Vec::new(), Vec::new(), Vec::new(), Some(Problem::from(error))),
        };
        // Those of the server are told once, with its walls.
        gaps.retain(|gap| !gap.server);
        Ok(AppStatus {
            slot,
            generation: issue.generation,
            password_since: issue.since,
            logins: login_status::of(&summary.app, slot, &observed).into(),
            clients: observed.clients,
            workloads,
            workloads_hidden,
            drift,
            problem,
            notices,
            gaps,
            summary,
        })
    }
}
