//! `Status`: the server and its apps, each compared with its record.

use std::time::SystemTime;

use pyo3::prelude::*;
use shareddb_core::{
    AppStatus as CoreApp, LoginStatus as CoreLogin, ServerStatus as CoreServer, Status as Core, Wall as CoreWall,
};

use crate::app::AppSummary;
use crate::listing::{html, listing, text};
use crate::moments::moment;
use crate::plan::{lines, number};
use crate::workload::{Workload, workloads};

/// The server and its apps.
#[pyclass(module = "shareddb", frozen)]
pub(crate) struct Status(Core);

impl Status {
    pub(crate) fn new(status: Core) -> Self {
        Self(status)
    }
}

#[pymethods]
impl Status {
    /// The environment.
    #[getter]
    fn environment(&self) -> &str {
        &self.0.environment
    }

    /// The server.
    #[getter]
    fn server(&self) -> ServerStatus {
        ServerStatus(self.0.server.clone())
    }

    /// The apps, by name.
    #[getter]
    fn apps<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        listing(py, "AppStatusList", self.0.apps.iter().cloned().map(AppStatus))
    }

    fn __str__(slf: &Bound<'_, Self>) -> PyResult<String> {
        text(slf.as_any())
    }

    fn __repr__(&self) -> String {
        format!("<Status of {}, {} apps>", self.0.environment, self.0.apps.len())
    }

    fn _repr_html_(slf: &Bound<'_, Self>) -> PyResult<String> {
        html(slf.as_any())
    }
}

/// The server.
#[pyclass(module = "shareddb", frozen)]
pub(crate) struct ServerStatus(CoreServer);

#[pymethods]
impl ServerStatus {
    /// Its version, such as `15.18`.
    #[getter]
    fn version(&self) -> &str {
        &self.0.version
    }

    /// Where it is, for people.
    #[getter]
    fn endpoint(&self) -> &str {
        &self.0.endpoint
    }

    /// Sessions it can hold.
    #[getter]
    fn max_connections(&self) -> u32 {
        self.0.max_connections
    }

    /// Sessions promised to apps.
    #[getter]
    fn promised(&self) -> u32 {
        self.0.budget.promised
    }

    /// Sessions that may be promised.
    #[getter]
    fn capacity(&self) -> u32 {
        self.0.budget.capacity
    }

    /// What keeps apps apart.
    #[getter]
    fn walls(&self) -> Vec<Wall> {
        self.0.walls.iter().cloned().map(Wall).collect()
    }

    /// What a person should know.
    #[getter]
    fn notices(&self) -> Vec<String> {
        self.0.notices.clone()
    }

    fn __repr__(&self) -> String {
        format!("<ServerStatus PostgreSQL {} at {}>", self.0.version, self.0.endpoint)
    }
}

/// One of the walls between apps.
#[pyclass(module = "shareddb", frozen)]
pub(crate) struct Wall(CoreWall);

#[pymethods]
impl Wall {
    /// What it consists in.
    #[getter]
    fn name(&self) -> &'static str {
        self.0.name
    }

    /// Whether it stands: `stands`, `missing`, or `unknown` where the admin may not see it.
    #[getter]
    fn state(&self) -> &'static str {
        self.0.state.as_str()
    }

    /// What is missing, and the cure.
    #[getter]
    fn detail(&self) -> &str {
        &self.0.detail
    }

    /// What is not for the admin to change, or not without being told to, each with the statement that changes it.
    #[getter]
    fn gaps(&self) -> Vec<String> {
        self.0.gaps.iter().map(ToString::to_string).collect()
    }

    fn __repr__(&self) -> String {
        format!("<Wall {} {}>", self.0.name, self.state())
    }
}

/// One app in detail.
#[pyclass(module = "shareddb", frozen)]
pub(crate) struct AppStatus(CoreApp);

#[pymethods]
impl AppStatus {
    /// What a list says of it.
    #[getter]
    fn summary(&self) -> AppSummary {
        AppSummary::new(self.0.summary.clone())
    }

    /// How it is, in a word or two: `OK`, `DRIFT 2`, `PROBLEM`, `GAPS 1`, `NO DATABASE` or `dropping`.
    #[getter]
    fn state(&self) -> String {
        self.0.state().to_string()
    }

    /// Which login the Secret names, 1 or 2; `None` when the Secret is not in order.
    #[getter]
    fn slot(&self) -> Option<u8> {
        self.0.slot.map(number)
    }

    /// The number of the password in the Secret, where that says so: how many the app has had.
    #[getter]
    fn generation(&self) -> Option<u32> {
        self.0.generation
    }

    /// Since when the Secret has this password, where it says so.
    #[getter]
    fn password_since(&self) -> Option<SystemTime> {
        self.0.password_since.map(moment)
    }

    /// Its two logins; empty where they cannot be read.
    #[getter]
    fn logins(&self) -> Vec<LoginStatus> {
        self.0.logins.iter().cloned().map(LoginStatus).collect()
    }

    /// Who is logged in as the app, by what each calls itself.
    #[getter]
    fn clients(&self) -> Vec<String> {
        self.0.clients.iter().map(ToString::to_string).collect()
    }

    /// What takes the Secret; looked for where one app is asked about, and `None` where it cannot be told.
    #[getter]
    fn workloads(&self) -> Option<Vec<Workload>> {
        self.0.workloads.as_deref().map(workloads)
    }

    /// What `create` would do: empty when all is as recorded.
    #[getter]
    fn drift(&self) -> Vec<String> {
        lines(&self.0.drift)
    }

    /// The stable word of what would stop `create`, if something would.
    #[getter]
    fn problem_code(&self) -> Option<&'static str> {
        self.0.problem.as_ref().map(|problem| problem.code)
    }

    /// What would stop `create`, and what to do about it, if something would.
    #[getter]
    fn problem(&self) -> Option<String> {
        self.0.problem.as_ref().map(ToString::to_string)
    }

    /// What a person should know.
    #[getter]
    fn notices(&self) -> Vec<String> {
        self.0.notices.clone()
    }

    /// What ought to be different and is not for the admin to change, each with the statement that changes it.
    #[getter]
    fn gaps(&self) -> Vec<String> {
        self.0.gaps.iter().map(ToString::to_string).collect()
    }

    fn __repr__(&self) -> String {
        format!("<AppStatus {} {}>", self.0.summary.app.name, self.0.state())
    }
}

/// One of an app's logins.
#[pyclass(module = "shareddb", frozen)]
pub(crate) struct LoginStatus(CoreLogin);

#[pymethods]
impl LoginStatus {
    /// The role.
    #[getter]
    fn role(&self) -> &str {
        self.0.role.as_str()
    }

    /// What it is good for: `in use`, `ending`, `open`, `ended` or `closed`.
    #[getter]
    fn state(&self) -> &'static str {
        self.0.state.as_str()
    }

    /// When its password ends or has ended, by the server's clock.
    #[getter]
    fn ends(&self) -> Option<SystemTime> {
        self.0.ends.map(moment)
    }

    /// Its sessions at this moment.
    #[getter]
    fn sessions(&self) -> u32 {
        self.0.sessions
    }

    fn __repr__(&self) -> String {
        format!("<LoginStatus {} {}>", self.0.role, self.0.state.as_str())
    }
}
