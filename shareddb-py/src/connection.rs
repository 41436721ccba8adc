//! `ConnectionConfig`: how to log in to a database.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping};
use shareddb_core::{ConnectionConfig as Core, RootCertificate, SecretName, SqlAlchemyDriver};

use crate::changes::{self, Changes};
use crate::dialects::{self, exposed};
use crate::environment::Environment;
use crate::explanation::Explanation;
use crate::names::{Words, mapping};
use crate::psql::PsqlCommand;
use crate::runtime::wait;
use crate::whole::{Whole, kind};
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
        port: Whole,
        database: String,
        user: String,
        password: Option<String>,
        hostaddr: Option<&str>,
        sslmode: Option<&str>,
        sslrootcert: Option<PathBuf>,
        application_name: Option<String>,
        connect_timeout: Option<Duration>,
        options: Option<Words>,
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
        let port = known(py, changes::port(port))?;
        known(py, changes.applied(Core::new(host, port, database, user))).map(Self)
    }

    /// Read this process's environment.
    ///
    /// One source supplies everything: `SHAREDDB_SECRET_DIR`, `SERVICE_BINDING_ROOT`, `DATABASE_URL`, `DATABASE_*`,
    /// `DB_*` or `PG*`, the first of them that is complete.
    #[staticmethod]
    fn from_env(py: Python<'_>) -> PyResult<Self> {
        // With the GIL: Python changes the environment under it, and reading meanwhile is a race in the C library.
        known(py, Core::from_env()).map(Self)
    }

    /// Find out where a program was told its database: this URL or this folder, or else its environment.
    ///
    /// What is said outright counts alone. Of both a URL and a folder the folder counts; they have to name the same database.
    #[staticmethod]
    #[pyo3(signature = (*, url=None, directory=None))]
    #[allow(clippy::needless_pass_by_value, reason = "Python's paths become owned ones")]
    fn infer(py: Python<'_>, url: Option<&str>, directory: Option<PathBuf>) -> PyResult<Self> {
        // With the GIL, as for `from_env`.
        known(py, Core::infer(url, directory.as_deref())).map(Self)
    }

    /// Read variables as `from_env` does, from a mapping, such as `os.environ`.
    #[staticmethod]
    fn from_vars(py: Python<'_>, variables: &Bound<'_, PyAny>) -> PyResult<Self> {
        // Only what is asked for: the rest may be anything.
        let (variables, fault) = (mapping(variables)?, Cell::new(None));
        let read = Core::from_vars(|name| {
            let value = variable(variables, name);
            value.unwrap_or_else(|error| {
                fault.set(Some(error));
                None
            })
        });
        fault.take().map_or_else(|| known(py, read).map(Self), Err)
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

    /// The same with other words in some places; `options` are added.
    #[pyo3(signature = (*, port=None, database=None, user=None, password=None, hostaddr=None, sslmode=None,
                        sslrootcert=None, application_name=None, connect_timeout=None, options=None))]
    fn replace(
        &self,
        py: Python<'_>,
        port: Option<Whole>,
        database: Option<String>,
        user: Option<String>,
        password: Option<String>,
        hostaddr: Option<&str>,
        sslmode: Option<&str>,
        sslrootcert: Option<PathBuf>,
        application_name: Option<String>,
        connect_timeout: Option<Duration>,
        options: Option<Words>,
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

    /// The same without an address: the host name is looked up again.
    fn without_hostaddr(&self) -> Self {
        Self(self.0.clone().without_hostaddr())
    }

    /// The same without a limit for logins, which not every driver has a word for: it is 5 seconds again.
    fn without_connect_timeout(&self) -> Self {
        Self(self.0.clone().without_connect_timeout())
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

    /// The file with the certificate that the server's must descend from, where there is a file.
    #[getter]
    fn sslrootcert(&self) -> Option<PathBuf> {
        self.0.root_certificate().and_then(RootCertificate::path).map(Into::into)
    }

    /// That certificate itself, as PEM; `None` where none was named.
    fn root_certificate(&self, py: Python<'_>) -> PyResult<Option<String>> {
        let text = py.detach(|| self.0.root_certificate().map(RootCertificate::text).transpose());
        known(py, text)
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

    /// The same connection with the login that is by now in the folder that it was read from.
    ///
    /// `None` when that is the login it has, and where it came from no folder.
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

    /// A line of libpq's password file, with the password.
    fn pgpass(&self, py: Python<'_>) -> PyResult<String> {
        known(py, self.0.pgpass()).map(|line| exposed(&line))
    }

    /// `url`, `user` and `password` for the PostgreSQL JDBC driver, as Spark takes them.
    fn jdbc<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        dialects::jdbc(py, &known(py, self.0.jdbc())?)
    }

    /// How to start psql, with the password in its environment.
    fn psql(&self, py: Python<'_>) -> PyResult<PsqlCommand> {
        known(py, self.0.psql()).map(PsqlCommand::new)
    }

    /// libpq's environment variables as text, with the password: for a `.env` file, a shell, or what reads JSON.
    ///
    /// `form` is `dotenv`, `shell` or `json`.
    fn export(&self, py: Python<'_>, form: &str) -> PyResult<String> {
        let form = known(py, dialects::form(form))?;
        known(py, self.0.export(form)).map(|text| exposed(&text))
    }

    /// A pool of psycopg_pool's that follows the mounted Secret: the options are those of `psycopg_pool.ConnectionPool`.
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

/// As `get` says, which makes nothing up.
fn variable(variables: &Bound<'_, PyMapping>, name: &str) -> PyResult<Option<String>> {
    let value = variables.call_method1("get", (name,))?;
    if value.is_none() {
        return Ok(None);
    }
    let wrong = |_| PyTypeError::new_err(format!("{name}: expected a str, not {}", kind(&value)));
    value.extract().map(Some).map_err(wrong)
}
