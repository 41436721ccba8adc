//! Giving an application its database, and taking it away: observe, plan, execute.

mod admission;
mod adopt;
mod budget;
mod credential;
mod database_steps;
mod drop_plan;
mod event;
mod execute;
mod gap;
mod goal;
mod login_status;
mod observe;
mod observed;
mod plan;
mod proof;
mod reach;
mod report;
mod role_steps;
mod rotation;
mod script;
mod secure;
mod status;
mod step;
mod takers;
mod walls;

#[cfg(test)]
mod crash_points;
#[cfg(test)]
mod rotation_crashes;
#[cfg(test)]
mod simulation;

pub use crate::postgres::clients::Client;
pub use crate::postgres::facts::RoleShape;
pub use crate::postgres::legacy::{ObjectKind, ObjectName};
pub use adopt::Adoption;
pub use budget::Budget;
pub use event::Event;
pub use gap::{Closer, Gap};
pub use login_status::{LoginState, LoginStatus};
pub use plan::Plan;
pub use proof::Proof;
pub use report::{Outcome, Report};
pub use rotation::RotateOptions;
pub use status::{AppState, AppStatus, AppSummary, Problem, ServerStatus, Status};
pub use step::{PasswordSource, Step};
pub use walls::{Wall, WallState};

use std::time::Duration;

use crate::app::{App, AppSpec};
use crate::connection::ConnectionConfig;
use crate::error::{Error, Result};
use crate::names::AppName;
use crate::postgres::lock::AppLock;
use crate::server::Server;
use adopt::plan_undo;
use drop_plan::plan_drop;
use event::Listener;
use execute::{Done, Execution};
use goal::Goal;
use observe::observe;
use observed::Observed;
use rotation::plan_rotate;

/// How long a run waits for another one, unless told otherwise.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);

/// Provisions the apps of one server.
///
/// Everything can be done again: what is as it should be is left alone, and a run that was killed is finished by the next.
#[derive(Clone, Debug)]
pub struct Provisioner {
    server: Server,
    listener: Listener,
    lock_patience: Duration,
}

impl Provisioner {
    /// A provisioner for `server`. Connects to nothing yet.
    pub fn new(server: Server) -> Self {
        Self { server, listener: Listener::default(), lock_patience: LOCK_PATIENCE }
    }

    /// The server that it provisions on.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Tells `listener` what happens while a plan is carried out.
    #[must_use]
    pub fn on_event(mut self, listener: impl Fn(Event<'_>) + Send + Sync + 'static) -> Self {
        self.listener = Listener::new(listener);
        self
    }

    /// Sets how long a run waits while another one works on the same app; a minute when nothing was said.
    #[must_use]
    pub fn with_lock_patience(mut self, patience: Duration) -> Self {
        self.lock_patience = patience;
        self
    }

    /// Decides what [`create`](Self::create) would do, and does nothing.
    ///
    /// # Errors
    /// `Conflict` when one of the app's names is taken, `Refused` when the server is unfit or promised to others or something
    /// speaks against an adoption (`adopt_refused`, with every reason and its cure as causes), `PermissionDenied` when the
    /// admin, who is no superuser, does not look after the app, and whatever hinders reading. That there is much to do is not
    /// an error, nor that there is nothing.
    pub async fn plan(&self, spec: &AppSpec) -> Result<Plan> {
        self.decide(&Goal::Create(spec.clone())).await
    }

    /// Decides what [`drop`](Self::drop) would do, and does nothing.
    ///
    /// # Errors
    /// `NotFound` when there is no such app, `Refused` when its roles have something in other databases or prepared
    /// transactions are open in its own, `PermissionDenied` when that is not the admin's to take away.
    pub async fn plan_drop(&self, app: &AppName) -> Result<Plan> {
        self.decide(&Goal::Drop(app.clone())).await
    }

    /// Carries out a plan, if it is still what would be decided now.
    ///
    /// # Errors
    /// `Conflict` (`plan_stale`) when it is not, and nothing was done; `NotFound` for the drop of an app that is gone. That a
    /// create is done already is not an error.
    pub async fn apply(&self, plan: &Plan) -> Result<Report> {
        self.run(&plan.goal, Some(plan)).await
    }

    /// Makes an app what its spec says: its database, roles, schema, rights, password and Secret, proven by logging in.
    ///
    /// # Errors
    /// As [`plan`](Self::plan); besides, whatever a step meets. What was done stays done and is closed to others; the same
    /// call goes on from there. That the app exists is not an error: its drift is repaired. Nor is what the admin may not do:
    /// see [`Report::gaps`].
    pub async fn create(&self, spec: &AppSpec) -> Result<Report> {
        self.run(&Goal::Create(spec.clone()), None).await
    }

    /// Removes an app with its data. `confirm` is the app's name again.
    ///
    /// # Errors
    /// `Refused` when `confirm` is another text; else as [`plan_drop`](Self::plan_drop).
    pub async fn drop(&self, app: &AppName, confirm: &str) -> Result<Report> {
        if confirm != app.as_str() {
            return Err(Error::refused("confirmation_required", format!("dropping app {app} deletes all its data"))
                .with_hint(format!("say so by giving its name again: --confirm {app}")));
        }
        self.run(&Goal::Drop(app.clone()), None).await
    }

    /// Decides what [`undo_adopt`](Self::undo_adopt) would do, and does nothing.
    ///
    /// # Errors
    /// As [`undo_adopt`](Self::undo_adopt).
    pub async fn plan_undo_adopt(&self, app: &AppName) -> Result<Plan> {
        self.decide(&Goal::UndoAdopt(app.clone())).await
    }

    /// Gives an adopted app back: the owner role becomes the login again that it was, with the same password, rights and
    /// settings, and shareddb forgets the app. Objects that changed hands stay with that role, and the Secret stays.
    ///
    /// # Errors
    /// `NotFound` when there is no such app, `Refused` when it was not adopted, or when its second login has been issued,
    /// `PermissionDenied` when only a superuser can give back what was taken.
    pub async fn undo_adopt(&self, app: &AppName) -> Result<Report> {
        self.run(&Goal::UndoAdopt(app.clone()), None).await
    }

    /// Decides what [`rotate`](Self::rotate) would do, and does nothing.
    ///
    /// # Errors
    /// As [`rotate`](Self::rotate).
    pub async fn plan_rotate(&self, app: &AppName, options: &RotateOptions) -> Result<Plan> {
        self.decide(&Goal::Rotate(app.clone(), options.clone())).await
    }

    /// Gives an app a new password without a failed query: its other login gets one, that is proven, the Secret comes to name
    /// it in one write, and the login before it goes on working until the grace is over. What else is not as recorded is put
    /// right on the way. A rotation that was killed is finished by the next one, or ended by [`create`](Self::create).
    ///
    /// # Errors
    /// `Refused` when the other login still works (`login_in_use`, with who uses it), or when sessions of its last turn leave
    /// nobody else in (`login_full`), unless that is to end [now](RotateOptions::now); when the Secret is not in order, or the app is being dropped; `InvalidInput` for a grace of more
    /// than a year; `InvalidInput` or `PermissionDenied` (`restart_unsupported`, `workloads_hidden`) when workloads are to be
    /// restarted and cannot be seen; `NotFound` when there is no such app;
    /// `Conflict` when somebody else changed the Secret meanwhile, and then it is theirs; else as [`create`](Self::create).
    pub async fn rotate(&self, app: &AppName, options: &RotateOptions) -> Result<Report> {
        self.run(&Goal::Rotate(app.clone(), options.clone()), None).await
    }

    /// How an app logs in, over the route in use from here, as its Secret says. Where that is a tunnel, it works for as long as
    /// this provisioner, its server or a clone of one of them exists; what stays true is
    /// [`Environment::stored_connection`](crate::Environment::stored_connection).
    ///
    /// # Errors
    /// `NotFound` when there is no such app or Secret, `Failed` when the Secret is damaged.
    pub async fn connection(&self, app: &AppName) -> Result<ConnectionConfig> {
        let app = self.app(app).await?;
        self.server.stored_config(&app).await
    }

    /// An app as it is recorded.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub async fn app(&self, name: &AppName) -> Result<App> {
        self.server.recorded(name).await
    }

    async fn decide(&self, goal: &Goal) -> Result<Plan> {
        let session = self.server.session().await?;
        decide(goal, &observe(&self.server, &session, goal).await?.observed)
    }

    /// Decides under the app's lock and carries that out.
    async fn run(&self, goal: &Goal, expected: Option<&Plan>) -> Result<Report> {
        let lock = AppLock::take(self.server.session().await?, &goal.spec().name, self.lock_patience).await?;
        let result = self.run_locked(&lock, goal, expected).await;
        lock.release().await;
        result.map_err(|error| self.server.with_trouble(error))
    }

    async fn run_locked(&self, lock: &AppLock, goal: &Goal, expected: Option<&Plan>) -> Result<Report> {
        let mut observation = observe(&self.server, lock.session(), goal).await?;
        let mut plan = decide(goal, &observation.observed)?;
        if plan.is_empty() {
            return Ok(Report::new(plan, Done::default()));
        }
        if expected.is_some_and(|expected| (&expected.app, &expected.steps) != (&plan.app, &plan.steps)) {
            let message = format!("app {} has changed since the plan was made", plan.app.name);
            return Err(Error::conflict("plan_stale", message).with_hint("make a new plan"));
        }
        let mut before = Vec::new();
        if plan.partial {
            Execution::new(&self.server, lock, &self.listener, &plan, observation, self.lock_patience)
                .run(&plan.steps)
                .await?;
            before = plan.steps;
            observation = observe(&self.server, lock.session(), goal).await?;
            let (exists, mut notices) = (plan.exists, plan.notices);
            plan = decide(goal, &observation.observed)?;
            plan.exists = exists;
            notices.retain(|notice| !plan.notices.contains(notice));
            plan.notices.splice(0..0, notices);
        }
        if plan.partial {
            let message = format!("somebody closes database {} while it is worked on", plan.app.database);
            return Err(Error::conflict("concurrent_change", message).with_hint("end that, then run this again"));
        }
        if plan.steps.iter().any(|step| matches!(step, Step::PublishSecret { .. })) {
            self.server.secrets().check(&plan.app.secret).await?;
        }
        let execution = Execution::new(&self.server, lock, &self.listener, &plan, observation, self.lock_patience);
        let done = execution.run(&plan.steps).await.map_err(|error| goal.explain(error, self.server.environment()))?;
        plan.steps.splice(0..0, before);
        Ok(Report::new(plan, done))
    }
}

fn decide(goal: &Goal, observed: &Observed) -> Result<Plan> {
    match goal {
        Goal::Create(spec) => plan::plan(spec, observed),
        Goal::Drop(name) => plan_drop(name, observed),
        Goal::UndoAdopt(name) => plan_undo(name, observed),
        Goal::Rotate(name, options) => plan_rotate(name, options, observed),
    }
}
