//! `LocalEndpoint`: the running embedded server.

use std::path::PathBuf;

use pyo3::prelude::*;
use shareddb_core::LocalEndpoint as Core;

/// The running embedded server.
#[pyclass(module = "shareddb", frozen)]
pub(crate) struct LocalEndpoint(Core);

impl LocalEndpoint {
    pub(crate) fn new(endpoint: Core) -> Self {
        Self(endpoint)
    }

    /// Whether the call that made this has started it.
    pub(crate) fn is_started(&self) -> bool {
        self.0.started
    }
}

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
        let Core { version, port, pid, .. } = &self.0;
        format!("<LocalEndpoint PostgreSQL {version} on {}:{port}, process {pid}>", self.0.host())
    }
}
