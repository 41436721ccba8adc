//! `PsqlCommand`: how to start psql.

use std::collections::BTreeMap;

use pyo3::prelude::*;
use shareddb_core::PsqlCommand as Core;

use crate::dialects::exposed;

/// How to start psql. `str` is the command line for a shell, without the password.
#[pyclass(module = "shareddb", frozen)]
pub(crate) struct PsqlCommand(Core);

impl PsqlCommand {
    pub(crate) fn new(command: Core) -> Self {
        Self(command)
    }
}

#[pymethods]
impl PsqlCommand {
    /// The arguments after `psql`, without the password.
    #[getter]
    fn arguments(&self) -> Vec<&str> {
        self.0.arguments().to_vec()
    }

    /// What psql needs in its environment: `PGPASSWORD`.
    #[getter]
    fn environment(&self) -> BTreeMap<&'static str, String> {
        self.0.environment().iter().map(|(name, value)| (*name, exposed(value))).collect()
    }

    /// The same as lines for a shell, with the password.
    fn exports(&self) -> String {
        exposed(&self.0.exports())
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        format!("<PsqlCommand {}>", self.0)
    }
}
