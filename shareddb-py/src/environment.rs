//! `Environment`: one shared server and its place.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyTuple;
use shareddb_core::{AppName, Environment as Core, Environments, LocalHome, Result};

use crate::connection::ConnectionConfig;
use crate::local::LocalEndpoint;
use crate::runtime::wait;
use crate::server::Server;
use crate::throw_away::ThrowAway;
use crate::work::{Work, known};

/// One shared server and its place. It holds no connection.
#[pyclass(module = "shareddb", frozen)]
pub(crate) struct Environment {
    core: Core,
    /// What goes with the block in which this is used.
    throw_away: Option<ThrowAway>,
    /// Whether each block that is open has started the server.
    blocks: Mutex<Vec<bool>>,
}

impl Environment {
    fn new(core: Core) -> Self {
        Self { core, throw_away: None, blocks: Mutex::default() }
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    fn blocks(&self) -> MutexGuard<'_, Vec<bool>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end of what is thrown away, once no block needs it any more.
    fn ending(&self) -> Option<Work<()>> {
        let throw_away = self.throw_away.as_ref()?;
        self.blocks().is_empty().then(|| throw_away.end(&self.core))
    }
}

#[pymethods]
impl Environment {
    /// An environment of `shareddb.toml`, or one of `production`, `stage` and `local`, which exist without it.
    ///
    /// By default the one that `SHAREDDB_ENV` or the file chooses. `file` is read in the place of the file that is looked for.
    /// The other arguments are for environments in Kubernetes; `tunnel` has the server reached through the API also where its
    /// name means something.
    #[staticmethod]
    #[pyo3(signature = (name=None, *, file=None, namespace=None, context=None, kubeconfig=None, tunnel=false))]
    fn load(
        py: Python<'_>,
        name: Option<&str>,
        file: Option<PathBuf>,
        namespace: Option<&str>,
        context: Option<&str>,
        kubeconfig: Option<PathBuf>,
        tunnel: bool,
    ) -> PyResult<Self> {
        // With the GIL: Python changes the environment under it, and reading meanwhile is a race in the C library.
        let environment = || -> Result<Core> {
            let known = file.map_or_else(Environments::from_env, Environments::from_file)?;
            let environment = known.environment(&name.map_or_else(|| known.chosen(), str::parse)?)?;
            let environment = kubeconfig.into_iter().try_fold(environment, Core::with_kubeconfig)?;
            let environment = context.into_iter().try_fold(environment, Core::with_context)?;
            let named = |environment: Core, name: &str| environment.with_namespace(name.parse()?);
            let environment = namespace.into_iter().try_fold(environment, named)?;
            if tunnel { environment.with_tunnel() } else { Ok(environment) }
        };
        known(py, environment()).map(Self::new)
    }

    /// The embedded server that lives in the folder `path`.
    ///
    /// By default it is where `SHAREDDB_HOME` and the like say. `binaries` is the directory of PostgreSQL's programs; by default
    /// they are searched.
    #[staticmethod]
    #[pyo3(signature = (path=None, *, binaries=None))]
    fn local(py: Python<'_>, path: Option<PathBuf>, binaries: Option<PathBuf>) -> PyResult<Self> {
        known(py, local(path, binaries)).map(Self::new)
    }

    /// An embedded server for one `with` block: it is made in a folder for temporary files, and gone with all its data at the end.
    #[staticmethod]
    #[pyo3(signature = (*, binaries=None))]
    fn throw_away(py: Python<'_>, binaries: Option<PathBuf>) -> PyResult<Self> {
        let throw_away = ThrowAway::new(py)?;
        let core = known(py, local(Some(throw_away.home()), binaries))?;
        Ok(Self { throw_away: Some(throw_away), ..Self::new(core) })
    }

    /// The name.
    #[getter]
    fn name(&self) -> &str {
        self.core.name().as_str()
    }

    /// The folder of the embedded server; `None` for another.
    #[getter]
    fn path(&self) -> Option<PathBuf> {
        self.core.local_server().map(|server| server.home().path().to_owned())
    }

    /// The URL of the store with its backups; `None` where nobody has said it.
    #[getter]
    fn backups(&self) -> Option<&str> {
        self.core.backups().ok()
    }

    /// Start the server, make it the first time. That it runs already is not an error. It outlives this process.
    fn deploy(&self, py: Python<'_>) -> PyResult<LocalEndpoint> {
        let endpoint = match &self.throw_away {
            Some(throw_away) => throw_away.start(py, &self.core),
            None => wait(py, self.core.deploy()),
        };
        endpoint.map(LocalEndpoint::new)
    }

    /// End the embedded server and keep its data. `False` when it was not running, or is another.
    fn stop(&self, py: Python<'_>) -> PyResult<bool> {
        self.core.local_server().map_or(Ok(false), |server| wait(py, server.stop()))
    }

    /// Find the running server. Nobody logs in yet.
    fn connect(&self, py: Python<'_>) -> PyResult<Server> {
        wait(py, self.core.connect()).map(|server| Server::new(self.core.clone(), server))
    }

    /// How an app logs in from where it runs, as its Secret says. The server need not run.
    fn stored_connection(&self, py: Python<'_>, app: &str) -> PyResult<ConnectionConfig> {
        let app: AppName = known(py, app.parse())?;
        wait(py, self.core.stored_connection(&app)).map(ConnectionConfig::new)
    }

    /// Starts the server, if it is the embedded one.
    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        let (environment, py) = (slf.get(), slf.py());
        if environment.core.local_server().is_none() {
            return Ok(slf);
        }
        match environment.deploy(py) {
            Ok(endpoint) => environment.blocks().push(endpoint.is_started()),
            Err(error) => {
                // A Ctrl-C is answered at once; what it left goes meanwhile.
                environment.ending().map_or(Ok(()), |ending| ending.leave(py))?;
                return Err(error);
            }
        }
        Ok(slf)
    }

    /// Ends what the block has started.
    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) -> PyResult<()> {
        let started = self.blocks().pop();
        if self.throw_away.is_none() && started == Some(true) {
            self.stop(py)?;
        }
        self.ending().map_or(Ok(()), |ending| ending.wait(py))
    }

    fn __repr__(&self) -> String {
        format!("<Environment {}>", self.core.name())
    }
}

fn local(path: Option<PathBuf>, binaries: Option<PathBuf>) -> Result<Core> {
    let home = path.map_or_else(LocalHome::from_env, |path| Ok(LocalHome::at(path)))?;
    Core::local(binaries.into_iter().fold(home, LocalHome::with_binaries))
}
