//! `Environment` and what it leads to: the embedded server's endpoint, and `Server`.

use std::path::PathBuf;

use pyo3::prelude::*;
use shareddb_core::{
    Environment as Core, Environments, Error, LocalEndpoint as CoreEndpoint, LocalHome, Server as CoreServer,
};

use crate::errors::raise;
use crate::runtime::wait;

/// One shared server and its place. It holds no connection.
#[pyclass(module = "shareddb", frozen)]
pub(crate) struct Environment(Core);

#[pymethods]
impl Environment {
    /// The embedded server that lives in the folder `path`; by default where `SHAREDDB_HOME` and the like say.
    ///
    /// `binaries` is the directory of PostgreSQL's programs; by default they are searched.
    #[staticmethod]
    #[pyo3(signature = (path=None, *, binaries=None))]
    fn local(py: Python<'_>, path: Option<PathBuf>, binaries: Option<PathBuf>) -> PyResult<Self> {
        let home = match path {
            Some(path) => Ok(LocalHome::at(path)),
            None => LocalHome::from_env(),
        };
        let environment = home.and_then(|home| {
            Core::local(match binaries {
                Some(binaries) => home.with_binaries(binaries),
                None => home,
            })
        });
        environment.map(Self).map_err(|error| raise(py, &error))
    }

    /// An environment of `shareddb.toml`, or one of `production`, `stage` and `local`, which exist without it. By default
    /// the one that `SHAREDDB_ENV` or the file chooses. The other arguments are for environments in Kubernetes; `tunnel` has the
    /// server reached through the API also where its name means something.
    #[staticmethod]
    #[pyo3(signature = (name=None, *, namespace=None, context=None, kubeconfig=None, tunnel=false))]
    fn named(
        py: Python<'_>,
        name: Option<&str>,
        namespace: Option<&str>,
        context: Option<&str>,
        kubeconfig: Option<PathBuf>,
        tunnel: bool,
    ) -> PyResult<Self> {
        let environment = || {
            let known = Environments::from_env()?;
            let environment = known.environment(&name.map_or_else(|| known.chosen(), str::parse)?)?;
            let environment = kubeconfig.into_iter().try_fold(environment, Core::with_kubeconfig)?;
            let environment = context.into_iter().try_fold(environment, Core::with_context)?;
            let named = |environment: Core, name: &str| environment.with_namespace(name.parse()?);
            let environment = namespace.into_iter().try_fold(environment, named)?;
            if tunnel { environment.with_tunnel() } else { Ok(environment) }
        };
        environment().map(Self).map_err(|error: Error| raise(py, &error))
    }

    /// The name.
    #[getter]
    fn name(&self) -> &str {
        self.0.name().as_str()
    }

    /// The folder of the embedded server; `None` for another.
    #[getter]
    fn path(&self) -> Option<PathBuf> {
        self.0.local_server().map(|server| server.home().path().to_owned())
    }

    /// Start the server, make it the first time. That it runs already is not an error. It outlives this process.
    fn deploy(&self, py: Python<'_>) -> PyResult<LocalEndpoint> {
        wait(py, self.0.deploy()).map(LocalEndpoint)
    }

    /// End the embedded server and keep its data. `False` when it was not running, or is another.
    fn stop(&self, py: Python<'_>) -> PyResult<bool> {
        self.0.local_server().map_or(Ok(false), |server| wait(py, server.stop()))
    }

    /// Find the running server. Nobody logs in yet.
    fn connect(&self, py: Python<'_>) -> PyResult<Server> {
        wait(py, self.0.connect()).map(Server)
    }

    fn __repr__(&self) -> String {
        format!("<Environment {}>", self.0.name())
    }
}

/// The running embedded server.
#[pyclass(module = "shareddb", frozen)]
pub(crate) struct LocalEndpoint(CoreEndpoint);

#[pymethods]
impl LocalEndpoint {
    /// The address that the server listens on.
    #[getter]
    fn host(&self) -> &'static str {
        self.0.host()
    }

    /// The TCP port on it; the same at every start.
    #[getter]
    fn port(&self) -> u16 {
        self.0.port
    }

    /// The superuser's name.
    #[getter]
    fn admin(&self) -> &str {
        &self.0.admin
    }

    /// The file of mode 0600 that keeps the superuser's password.
    #[getter]
    fn password_file(&self) -> PathBuf {
        self.0.password_file.clone()
    }

    /// What the server calls its version.
    #[getter]
    fn version(&self) -> &str {
        &self.0.version
    }

    /// The server's process.
    #[getter]
    fn pid(&self) -> u32 {
        self.0.pid
    }

    /// The directory of the programs that fit this server.
    #[getter]
    fn binaries(&self) -> PathBuf {
        self.0.binaries.dir.clone()
    }

    /// Whether this call started it.
    #[getter]
    fn started(&self) -> bool {
        self.0.started
    }

    /// Whether this call made the data directory.
    #[getter]
    fn created(&self) -> bool {
        self.0.created
    }

    /// Whether the home was moved since the server started: until it is stopped and started it cannot read its
    /// settings anew.
    #[getter]
    fn moved(&self) -> bool {
        self.0.moved
    }

    fn __repr__(&self) -> String {
        let CoreEndpoint { version, port, pid, .. } = &self.0;
        format!("<LocalEndpoint PostgreSQL {version} on {}:{port}, process {pid}>", self.0.host())
    }
}

/// An environment's server within reach.
#[pyclass(module = "shareddb", frozen)]
pub(crate) struct Server(CoreServer);

impl Server {
    pub(crate) fn core(&self) -> &CoreServer {
        &self.0
    }
}

#[pymethods]
impl Server {
    /// The environment's name.
    #[getter]
    fn environment(&self) -> &str {
        self.0.environment().as_str()
    }

    fn __repr__(&self) -> String {
        format!("<Server of {}, {}>", self.0.environment(), self.0.admin())
    }
}
