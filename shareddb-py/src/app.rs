//! `App`: everything one app owns, by name; `AppSummary`: one line of a list.

use std::collections::BTreeMap;

use pyo3::prelude::*;
use shareddb_core::{App as Core, AppSummary as CoreSummary};

/// Everything one app owns, by name, and the settings in force for it.
#[pyclass(module = "shareddb", frozen, eq)]
#[derive(PartialEq)]
pub(crate) struct App(Core);

impl App {
    pub(crate) fn new(app: Core) -> Self {
        Self(app)
    }
}

#[pymethods]
impl App {
    /// The app's own name.
    #[getter]
    fn name(&self) -> &str {
        self.0.name.as_str()
    }

    /// The environment it was made in.
    #[getter]
    fn environment(&self) -> &str {
        self.0.environment.as_str()
    }

    /// The database.
    #[getter]
    fn database(&self) -> &str {
        self.0.database.as_str()
    }

    /// The role that owns every object of the app and cannot log in.
    #[getter]
    fn owner(&self) -> &str {
        self.0.owner.as_str()
    }

    /// The two logins; rotation uses them in turn.
    #[getter]
    fn logins(&self) -> (&str, &str) {
        let [one, two] = &self.0.logins;
        (one.as_str(), two.as_str())
    }

    /// The login of backups and restores, closed between them.
    #[getter]
    fn maintenance(&self) -> &str {
        self.0.maintenance.as_str()
    }

    /// The app's schema.
    #[getter]
    fn schema(&self) -> &str {
        self.0.schema.as_str()
    }

    /// The Secret that holds the credentials.
    #[getter]
    fn secret(&self) -> &str {
        self.0.secret.as_str()
    }

    /// Sessions that each login may have.
    #[getter]
    fn connections(&self) -> u16 {
        self.0.connections
    }

    /// Schemas searched for unqualified names, in order.
    #[getter]
    fn search_path(&self) -> Vec<&str> {
        self.0.search_path.iter().map(AsRef::as_ref).collect()
    }

    /// Extensions that an admin made for the app.
    #[getter]
    fn extensions(&self) -> Vec<&str> {
        self.0.extensions.iter().map(AsRef::as_ref).collect()
    }

    /// Server settings of the app's sessions.
    #[getter]
    fn settings(&self) -> BTreeMap<&str, &str> {
        self.0.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    fn __str__(&self) -> &str {
        self.name()
    }

    fn __repr__(&self) -> String {
        format!("<App {} in {}>", self.0.name, self.0.environment)
    }
}

/// One app in a list.
#[pyclass(module = "shareddb", frozen)]
pub(crate) struct AppSummary(CoreSummary);

impl AppSummary {
    pub(crate) fn new(summary: CoreSummary) -> Self {
        Self(summary)
    }
}

#[pymethods]
impl AppSummary {
    /// The app as recorded.
    #[getter]
    fn app(&self) -> App {
        App(self.0.app.clone())
    }

    /// Its database's size in bytes, if there is one.
    #[getter]
    fn size(&self) -> Option<i64> {
        self.0.size
    }

    /// Sessions in its database at this moment.
    #[getter]
    fn sessions(&self) -> u32 {
        self.0.sessions
    }

    /// A drop has begun.
    #[getter]
    fn dropping(&self) -> bool {
        self.0.dropping
    }

    fn __repr__(&self) -> String {
        format!("<AppSummary {}>", self.0.app.name)
    }
}
