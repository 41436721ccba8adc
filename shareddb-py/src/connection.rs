//! `ConnectionConfig`: how to log in to a database.

use std::collections::BTreeMap;
use std::path::PathBuf;

use pyo3::prelude::*;
use secrecy::{ExposeSecret, SecretString};
use shareddb_core::ConnectionConfig as Core;

use crate::errors::raise;

/// Everything needed to log in to one database as one user.
///
/// Neither `str` nor `repr` shows the password. It cannot be pickled, so that the password gets into no file by accident.
#[pyclass(module = "shareddb", frozen)]
pub(crate) struct ConnectionConfig(Core);

impl ConnectionConfig {
    pub(crate) fn new(config: Core) -> Self {
        Self(config)
    }
}

#[pymethods]
impl ConnectionConfig {
    /// Read this process's environment: `SHAREDDB_SECRET_DIR`, `SERVICE_BINDING_ROOT`, `DATABASE_URL`, `DATABASE_*`,
    /// `DB_*`, `PG*`, the first of them that is complete.
    #[staticmethod]
    fn from_env(py: Python<'_>) -> PyResult<Self> {
        // With the GIL: Python changes the environment under it, and reading meanwhile is a race in the C library.
        Core::from_env().map(Self).map_err(|error| raise(py, &error))
    }

    /// Read a `postgresql://` URL, strictly.
    #[staticmethod]
    fn from_url(py: Python<'_>, url: &str) -> PyResult<Self> {
        Core::from_url(url).map(Self).map_err(|error| raise(py, &error))
    }

    /// Read a directory as Kubernetes mounts a Secret.
    #[staticmethod]
    #[allow(clippy::needless_pass_by_value, reason = "Python's paths become owned ones")]
    fn from_directory(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        py.detach(|| Core::from_directory(&path)).map(Self).map_err(|error| raise(py, &error))
    }

    /// The host name, address, or socket directory.
    #[getter]
    fn host(&self) -> &str {
        self.0.host()
    }

    /// The port.
    #[getter]
    fn port(&self) -> u16 {
        self.0.port()
    }

    /// The database.
    #[getter]
    fn database(&self) -> &str {
        self.0.database()
    }

    /// The user.
    #[getter]
    fn user(&self) -> &str {
        self.0.user()
    }

    /// A `postgresql://` URL, with the password.
    fn url(&self, py: Python<'_>) -> PyResult<String> {
        let url = self.0.url().map_err(|error| raise(py, &error))?;
        Ok(exposed(&url))
    }

    /// libpq's keyword string, as psycopg and psql take it, with the password.
    fn libpq(&self, py: Python<'_>) -> PyResult<String> {
        let words = self.0.libpq().map_err(|error| raise(py, &error))?;
        Ok(exposed(&words))
    }

    /// libpq's environment variables, `PGHOST` and so on, `PGPASSWORD` among them.
    fn environ(&self, py: Python<'_>) -> PyResult<BTreeMap<&'static str, String>> {
        let variables = self.0.environ().map_err(|error| raise(py, &error))?;
        Ok(variables.iter().map(|(name, value)| (*name, exposed(value))).collect())
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        format!("<ConnectionConfig {}>", self.0)
    }
}

/// Python has no type that hides a secret, so it gets one only where the caller's words ask for it.
fn exposed(secret: &SecretString) -> String {
    secret.expose_secret().to_owned()
}
