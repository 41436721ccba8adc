//! `Provisioner`: giving an application its database, and taking it away.

use std::time::Duration;

use pyo3::coroutine::CancelHandle;
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};
use shareddb_core::{AppName, Event, Provisioner as Core, Report as CoreReport, RotateOptions};

use crate::adopt::Adopt;
use crate::app::{App, AppSummary};
use crate::connection::ConnectionConfig;
use crate::follower::Follower;
use crate::listing::listing;
use crate::names::{Names, Words, name};
use crate::plan::{Plan, Report, line};
use crate::runtime::wait;
use crate::server::Server;
use crate::spec::Wishes;
use crate::status::Status;
use crate::whole::Whole;
use crate::work::{Work, known};

/// Provisions the apps of one server. Everything can be done again: what is as it should be is left alone.
#[pyclass(module = "shareddb", frozen)]
pub(crate) struct Provisioner {
    server: Py<Server>,
    on_event: Option<Py<PyAny>>,
    lock_patience: Option<Duration>,
}

impl Provisioner {
    fn core(&self, py: Python<'_>) -> PyResult<Core> {
        let core = Core::new(self.server.get().core(py)?);
        Ok(self.lock_patience.into_iter().fold(core, Core::with_lock_patience))
    }

    /// Core's, and who follows what it does.
    fn followed(&self, py: Python<'_>) -> PyResult<(Core, Follower)> {
        let (core, follower) = (self.core(py)?, Follower::default());
        let Some(callable) = self.on_event.as_ref().map(|callable| callable.clone_ref(py)) else {
            return Ok((core, follower));
        };
        let teller = follower.clone();
        let told = core.on_event(move |event| {
            let (word, step) = match event {
                Event::Begun(step) => ("begun", step),
                Event::Done(step) => ("done", step),
                _ => return,
            };
            Python::try_attach(|py| teller.tell(py, &callable, (word, line(step))));
        });
        Ok((told, follower))
    }

    fn creation(&self, py: Python<'_>, wishes: Wishes<'_>) -> PyResult<Work<CoreReport>> {
        let spec = known(py, wishes.spec())?;
        let (core, follower) = self.followed(py)?;
        Ok(Work::new(follower, async move { core.create(&spec).await }))
    }

    fn rotation(&self, py: Python<'_>, app: &str, options: RotateOptions) -> PyResult<Work<CoreReport>> {
        let app: AppName = name(py, app)?;
        let (core, follower) = self.followed(py)?;
        Ok(Work::new(follower, async move { core.rotate(&app, &options).await }))
    }
}

fn rotate_options(grace: Option<Duration>, now: bool, restart: bool) -> RotateOptions {
    let mut options = RotateOptions::default();
    options.grace = grace.unwrap_or(options.grace);
    (options.now, options.restart) = (now, restart);
    options
}

#[pymethods]
#[allow(clippy::too_many_arguments, reason = "in Python they are named")]
impl Provisioner {
    /// A provisioner for `server`. Connects to nothing yet.
    ///
    /// `on_event` is called with `begun` or `done` and a step while a plan is carried out; what it raises ends that.
    /// `lock_patience` is how long a run waits while another one works on the same app; a minute when nothing was said.
    #[new]
    #[pyo3(signature = (server, *, on_event=None, lock_patience=None))]
    fn new(server: Py<Server>, on_event: Option<Py<PyAny>>, lock_patience: Option<Duration>) -> Self {
        Self { server, on_event, lock_patience }
    }

    /// Decide what `create` would do, and do nothing.
    #[pyo3(signature = (app, *, database=None, user=None, connections=None, search_path=None, extensions=None,
                        settings=None, allow_overcommit=false, secure_server=false, adopt=None))]
    fn plan(
        &self,
        py: Python<'_>,
        app: &str,
        database: Option<&str>,
        user: Option<&str>,
        connections: Option<Whole>,
        search_path: Option<Names>,
        extensions: Option<Names>,
        settings: Option<Words>,
        allow_overcommit: bool,
        secure_server: bool,
        adopt: Option<Adopt>,
    ) -> PyResult<Plan> {
        let wishes = Wishes {
            app,
            database,
            user,
            connections,
            search_path,
            extensions,
            settings,
            allow_overcommit,
            secure_server,
            adopt,
        };
        let spec = known(py, wishes.spec())?;
        let core = self.core(py)?;
        wait(py, core.plan(&spec)).map(Plan::new)
    }

    /// Make an app what the arguments say: its database, roles, schema, rights, password and Secret.
    #[pyo3(signature = (app, *, database=None, user=None, connections=None, search_path=None, extensions=None,
                        settings=None, allow_overcommit=false, secure_server=false, adopt=None))]
    fn create(
        &self,
        py: Python<'_>,
        app: &str,
        database: Option<&str>,
        user: Option<&str>,
        connections: Option<Whole>,
        search_path: Option<Names>,
        extensions: Option<Names>,
        settings: Option<Words>,
        allow_overcommit: bool,
        secure_server: bool,
        adopt: Option<Adopt>,
    ) -> PyResult<Report> {
        let wishes = Wishes {
            app,
            database,
            user,
            connections,
            search_path,
            extensions,
            settings,
            allow_overcommit,
            secure_server,
            adopt,
        };
        self.creation(py, wishes)?.wait(py).map(Report::new)
    }

    /// `create` for a coroutine. Cancelled, it ends where it is; the same call goes on from there.
    #[pyo3(signature = (app, *, database=None, user=None, connections=None, search_path=None, extensions=None,
                        settings=None, allow_overcommit=false, secure_server=false, adopt=None))]
    async fn create_async(
        &self,
        app: String,
        database: Option<String>,
        user: Option<String>,
        connections: Option<Whole>,
        search_path: Option<Names>,
        extensions: Option<Names>,
        settings: Option<Words>,
        allow_overcommit: bool,
        secure_server: bool,
        adopt: Option<Adopt>,
        #[pyo3(cancel_handle)] cancel: CancelHandle,
    ) -> PyResult<Report> {
        let wishes = Wishes {
            app: &app,
            database: database.as_deref(),
            user: user.as_deref(),
            connections,
            search_path,
            extensions,
            settings,
            allow_overcommit,
            secure_server,
            adopt,
        };
        let work = Python::attach(|py| self.creation(py, wishes))?;
        work.awaited(cancel).await.map(Report::new)
    }

    /// Decide what `drop` would do, and do nothing.
    fn plan_drop(&self, py: Python<'_>, app: &str) -> PyResult<Plan> {
        let (core, app): (_, AppName) = (self.core(py)?, name(py, app)?);
        wait(py, core.plan_drop(&app)).map(Plan::new)
    }

    /// Carry out a plan.
    fn apply(&self, py: Python<'_>, plan: &Plan) -> PyResult<Report> {
        let (core, follower) = self.followed(py)?;
        let plan = plan.core().clone();
        Work::new(follower, async move { core.apply(&plan).await }).wait(py).map(Report::new)
    }

    /// Remove an app with its data. `confirm` is the app's name again.
    #[pyo3(signature = (app, *, confirm))]
    fn drop(&self, py: Python<'_>, app: &str, confirm: String) -> PyResult<Report> {
        let app: AppName = name(py, app)?;
        let (core, follower) = self.followed(py)?;
        Work::new(follower, async move { core.drop(&app, &confirm).await }).wait(py).map(Report::new)
    }

    /// Decide what `rotate` would do, and do nothing.
    #[pyo3(signature = (app, *, grace=None, now=false, restart=false))]
    fn plan_rotate(
        &self,
        py: Python<'_>,
        app: &str,
        grace: Option<Duration>,
        now: bool,
        restart: bool,
    ) -> PyResult<Plan> {
        let (core, app): (_, AppName) = (self.core(py)?, name(py, app)?);
        wait(py, core.plan_rotate(&app, &rotate_options(grace, now, restart))).map(Plan::new)
    }

    /// Give an app a new password without a failed query: its other login gets one, the Secret comes to name it, and the login
    /// before it goes on working until the `grace` is over, a week.
    #[pyo3(signature = (app, *, grace=None, now=false, restart=false))]
    fn rotate(&self, py: Python<'_>, app: &str, grace: Option<Duration>, now: bool, restart: bool) -> PyResult<Report> {
        self.rotation(py, app, rotate_options(grace, now, restart))?.wait(py).map(Report::new)
    }

    /// `rotate` for a coroutine. Cancelled, it ends where it is, and the Secret works; the same call goes on from there.
    #[pyo3(signature = (app, *, grace=None, now=false, restart=false))]
    async fn rotate_async(
        &self,
        app: String,
        grace: Option<Duration>,
        now: bool,
        restart: bool,
        #[pyo3(cancel_handle)] cancel: CancelHandle,
    ) -> PyResult<Report> {
        let work = Python::attach(|py| self.rotation(py, &app, rotate_options(grace, now, restart)))?;
        work.awaited(cancel).await.map(Report::new)
    }

    /// Decide what `undo_adopt` would do, and do nothing.
    fn plan_undo_adopt(&self, py: Python<'_>, app: &str) -> PyResult<Plan> {
        let (core, app): (_, AppName) = (self.core(py)?, name(py, app)?);
        wait(py, core.plan_undo_adopt(&app)).map(Plan::new)
    }

    /// Give an adopted app back as it was: its login, password, rights and settings; the Secret stays.
    fn undo_adopt(&self, py: Python<'_>, app: &str) -> PyResult<Report> {
        let app: AppName = name(py, app)?;
        let (core, follower) = self.followed(py)?;
        Work::new(follower, async move { core.undo_adopt(&app).await }).wait(py).map(Report::new)
    }

    /// Every app of the server, by name: a list that prints as a table.
    fn list<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let core = self.core(py)?;
        let apps = wait(py, core.list())?;
        listing(py, "AppList", apps.into_iter().map(AppSummary::new))
    }

    /// The server, and all its apps or one of them, each compared with its record.
    #[pyo3(signature = (app=None))]
    fn status(&self, py: Python<'_>, app: Option<&str>) -> PyResult<Status> {
        let core = self.core(py)?;
        let app: Option<AppName> = app.map(|app| name(py, app)).transpose()?;
        wait(py, core.status(app.as_ref())).map(Status::new)
    }

    /// An app as it is recorded.
    fn app(&self, py: Python<'_>, app: &str) -> PyResult<App> {
        let (core, app): (_, AppName) = (self.core(py)?, name(py, app)?);
        wait(py, core.app(&app)).map(App::new)
    }

    /// How an app logs in, as its Secret says.
    fn connection(&self, py: Python<'_>, app: &str) -> PyResult<ConnectionConfig> {
        let (core, app): (_, AppName) = (self.core(py)?, name(py, app)?);
        wait(py, core.connection(&app)).map(ConnectionConfig::new)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.server)?;
        visit.call(self.on_event.as_ref())
    }

    fn __repr__(&self) -> String {
        format!("<Provisioner of {}>", self.server.get().of().name())
    }
}
