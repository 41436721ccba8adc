//! `Server`: an environment's server within reach.

use std::sync::{PoisonError, RwLock};

use pyo3::prelude::*;
use pyo3::types::PyTuple;
use shareddb_core::{Environment as CoreEnvironment, Error, Server as Core};

use crate::errors::raise;

/// An environment's server within reach. A `with` block closes it at its end.
#[pyclass(module = "shareddb", frozen)]
pub(crate) struct Server {
    environment: CoreEnvironment,
    core: RwLock<Option<Core>>,
}

impl Server {
    pub(crate) fn new(environment: CoreEnvironment, server: Core) -> Self {
        Self { environment, core: RwLock::new(Some(server)) }
    }

    pub(crate) fn of(&self) -> &CoreEnvironment {
        &self.environment
    }

    /// The server, for one call.
    ///
    /// # Errors
    /// When it was closed.
    pub(crate) fn core(&self, py: Python<'_>) -> PyResult<Core> {
        self.core.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(|| {
            let error = Error::invalid_input("server_closed", "this Server was closed")
                .with_hint("Environment.connect gives a new one");
            raise(py, &error)
        })
    }
}

#[pymethods]
impl Server {
    /// The environment's name.
    #[getter]
    fn environment(&self) -> &str {
        self.environment.name().as_str()
    }

    /// Whether it was closed.
    #[getter]
    fn closed(&self) -> bool {
        self.core.read().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Let go of the server: a tunnel to it ends, once no call needs it any more. Done again, it does nothing.
    fn close(&self) {
        *self.core.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, _exception: &Bound<'_, PyTuple>) {
        self.close();
    }

    fn __repr__(&self) -> String {
        match &*self.core.read().unwrap_or_else(PoisonError::into_inner) {
            Some(server) => format!("<Server of {}, {}>", server.environment(), server.admin()),
            None => format!("<Server of {}, closed>", self.environment.name()),
        }
    }
}
