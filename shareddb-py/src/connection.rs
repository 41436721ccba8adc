//! `ConnectionConfig`: how to log in to a database.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use shareddb_core::{ConnectionConfig as Core, SecretName, SqlAlchemyDriver};

use crate::changes::Changes;
use crate::dialects::{self, exposed};
use crate::environment::Environment;
use crate::explanation::Explanation;
use crate::runtime::wait;
use crate::work::known;

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
#[allow(clippy::too_many_arguments, reason = "in Python they are named")]
impl ConnectionConfig {
    /// The four things without which there is no connection, and whatever else there is to say.
    #[new]
    #[pyo3(signature = (host, port, database, user, *, password=None, hostaddr=None, sslmode=None, sslrootcert=None,
                        application_name=None, connect_timeout=None, options=None))]
    fn from_parts(
        py: Python<'_>,
        host: String,
        port: u16,
        database: String,
        user: String,
        password: Option<String>,
        hostaddr: Option<&str>,
        sslmode: Option<&str>,
        sslrootcert: Option<PathBuf>,
        application_name: Option<String>,
        connect_timeout: Option<Duration>,
        options: Option<BTreeMap<String, String>>,
    ) -> PyResult<Self> {
        let changes = Changes {
            password,
            hostaddr,
            sslmode,
            sslrootcert,
            application_name,
            connect_timeout,
            options,
            ..Changes::default()
        };
        known(py, changes.applied(Core::new(host, port, database, user))).map(Self)
    }

    /// Read this process's environment: `SHAREDDB_SECRET_DIR`, `SERVICE_BINDING_ROOT`, `DATABASE_URL`, `DATABASE_*`,
    /// `DB_*`, `PG*`, the first of them that is complete.
    #[staticmethod]
    fn from_env(py: Python<'_>) -> PyResult<Self> {
        // With the GIL: Python changes the environment under it, and reading meanwhile is a race in the C library.
        known(py, Core::from_env()).map(Self)
    }

    /// Read variables as `from_env` does, from a mapping.
    #[staticmethod]
    #[allow(clippy::needless_pass_by_value, reason = "Python's mappings become owned ones")]
    fn from_vars(py: Python<'_>, variables: BTreeMap<String, String>) -> PyResult<Self> {
        known(py, Core::from_vars(|name| variables.get(name).cloned())).map(Self)
    }

    /// Read a `postgresql://` URL, strictly.
    #[staticmethod]
    fn from_url(py: Python<'_>, url: &str) -> PyResult<Self> {
        known(py, Core::from_url(url)).map(Self)
    }

    /// Read a directory as Kubernetes mounts a Secret.
    #[staticmethod]
    #[allow(clippy::needless_pass_by_value, reason = "Python's paths become owned ones")]
    fn from_directory(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let read = py.detach(|| Core::from_directory(&path));
        known(py, read).map(Self)
    }

    /// Read a Secret where an environment keeps it: the Kubernetes API, or a folder beside the embedded server.
    #[staticmethod]
    #[pyo3(signature = (name, *, environment))]
    fn from_secret(py: Python<'_>, name: &str, environment: &Environment) -> PyResult<Self> {
        let name: SecretName = known(py, name.parse())?;
        let read = async {
            let store = environment.core().secrets().await?;
            Core::from_secret(store.as_ref(), &name).await
        };
        wait(py, read).map(Self)
    }

    /// The same with other words in some places.
    #[pyo3(signature = (*, port=None, database=None, user=None, password=None, hostaddr=None, sslmode=None,
                        sslrootcert=None, application_name=None, connect_timeout=None, options=None))]
    fn replace(
        &self,
        py: Python<'_>,
        port: Option<u16>,
        database: Option<String>,
        user: Option<String>,
        password: Option<String>,
        hostaddr: Option<&str>,
        sslmode: Option<&str>,
        sslrootcert: Option<PathBuf>,
        application_name: Option<String>,
        connect_timeout: Option<Duration>,
        options: Option<BTreeMap<String, String>>,
    ) -> PyResult<Self> {
        let changes = Changes {
            port,
            database,
            user,
            password,
            hostaddr,
            sslmode,
            sslrootcert,
            application_name,
            connect_timeout,
            options,
        };
        known(py, changes.applied(self.0.clone())).map(Self)
    }

    /// The host name, address, or socket directory.
    #[getter]
    fn host(&self) -> &str {
        self.0.host()
    }

    /// The address that stands in for looking up the host.
    #[getter]
    fn hostaddr(&self) -> Option<String> {
        self.0.hostaddr().map(|address| address.to_string())
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

    /// The password.
    #[getter]
    fn password(&self) -> Option<String> {
        self.0.password().map(exposed)
    }

    /// How far the connection is encrypted, in libpq's word.
    #[getter]
    fn sslmode(&self) -> &'static str {
        self.0.ssl_mode().as_str()
    }

    /// The name shown in the server's activity view.
    #[getter]
    fn application_name(&self) -> Option<&str> {
        self.0.application_name()
    }

    /// How long a login may take.
    #[getter]
    fn connect_timeout(&self) -> Duration {
        self.0.connect_timeout()
    }

    /// The folder that the login was read from, a mounted Secret, which has the next password once there is one.
    #[getter]
    fn source_directory(&self) -> Option<PathBuf> {
        self.0.source_directory().map(Into::into)
    }

    /// The same connection with the login that is by now in the folder that it was read from; `None` when that is the login it
    /// has, and where it came from no folder.
    fn renewed(&self, py: Python<'_>) -> PyResult<Option<Self>> {
        let renewed = py.detach(|| self.0.renewed());
        Ok(known(py, renewed)?.map(Self))
    }

    /// Where each setting came from, what it shadows, and whether it can change while this process runs.
    fn explain(&self, py: Python<'_>) -> Explanation {
        Explanation::new(py.detach(|| self.0.explain()))
    }

    /// A `postgresql://` URL, with the password.
    #[getter]
    fn url(&self, py: Python<'_>) -> PyResult<String> {
        known(py, self.0.url()).map(|url| exposed(&url))
    }

    /// libpq's keyword string, as psycopg and psql take it, with the password.
    #[getter]
    fn conninfo(&self, py: Python<'_>) -> PyResult<String> {
        known(py, self.0.libpq()).map(|words| exposed(&words))
    }

    /// Keyword arguments for `psycopg.connect`, the password among them.
    fn psycopg<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        dialects::psycopg(py, &known(py, self.0.django())?)
    }

    /// Keyword arguments for asyncpg's `connect` and `create_pool`, the password among them.
    fn asyncpg<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        dialects::asyncpg(py, &known(py, self.0.asyncpg())?)
    }

    /// An entry of Django's `DATABASES`, with the password.
    fn django<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        dialects::django(py, &known(py, self.0.django())?)
    }

    /// A URL for SQLAlchemy's `create_engine`, with the password. `driver` is `psycopg`, `psycopg2` or `asyncpg`.
    #[pyo3(signature = (*, driver="psycopg"))]
    fn sqlalchemy_url(&self, py: Python<'_>, driver: &str) -> PyResult<String> {
        let known_drivers = [SqlAlchemyDriver::Psycopg, SqlAlchemyDriver::Psycopg2, SqlAlchemyDriver::Asyncpg];
        let driver = known(py, dialects::chosen("driver", driver, &known_drivers, |driver| driver.as_str()))?;
        known(py, self.0.sqlalchemy_url(driver)).map(|url| exposed(&url))
    }

    /// libpq's environment variables, `PGHOST` and so on, `PGPASSWORD` among them.
    fn environ(&self, py: Python<'_>) -> PyResult<BTreeMap<&'static str, String>> {
        let variables = known(py, self.0.environ())?;
        Ok(variables.iter().map(|(name, value)| (*name, exposed(value))).collect())
    }

    /// A section of libpq's service file, with the password.
    fn service_section(&self, py: Python<'_>, name: &str) -> PyResult<String> {
        known(py, self.0.service_section(name)).map(|section| exposed(&section))
    }

    /// A pool of psycopg_pool's that follows the mounted Secret. The options are those of `psycopg_pool.ConnectionPool`.
    #[pyo3(signature = (**options))]
    fn pool<'py>(slf: &Bound<'py, Self>, options: Option<&Bound<'py, PyDict>>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("shareddb.rotation")?.call_method("pool", (slf,), options)
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        format!("<ConnectionConfig {}>", self.0)
    }
}
