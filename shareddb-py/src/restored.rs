//! `RestoreReport`: what a restore did.

use pyo3::prelude::*;
use shareddb_core::RestoreReport as Core;

use crate::backup::Backup;
use crate::listing::html;

/// What a restore did.
#[pyclass(module = "shareddb", frozen)]
pub(crate) struct RestoreReport(Core);

impl RestoreReport {
    pub(crate) fn new(report: Core) -> Self {
        Self(report)
    }
}

#[pymethods]
impl RestoreReport {
    /// The backup that was restored.
    #[getter]
    fn backup(&self) -> Option<Backup> {
        self.0.manifest.clone().map(Backup::taken)
    }

    /// How many tables there are now.
    #[getter]
    fn tables(&self) -> u64 {
        self.0.tables
    }

    /// How many rows they have.
    #[getter]
    fn rows(&self) -> u64 {
        self.0.rows
    }

    /// The backup of what was there before, unless it was not wanted.
    #[getter]
    fn safety(&self) -> Option<Backup> {
        self.0.safety.clone().map(Backup::taken)
    }

    /// The database that was replaced, under the name that it is kept by: `undo` puts it back.
    #[getter]
    fn kept(&self) -> &str {
        &self.0.kept
    }

    /// What of the backup was not loaded, and why.
    #[getter]
    fn left_out(&self) -> Vec<String> {
        self.0.left_out.iter().filter(|left| !left.why.is_there()).map(ToString::to_string).collect()
    }

    /// What should be known beside that.
    #[getter]
    fn remarks(&self) -> Vec<String> {
        self.0.remarks.clone()
    }

    fn _repr_html_(slf: &Bound<'_, Self>) -> PyResult<String> {
        html(slf.as_any())
    }

    fn __repr__(&self) -> String {
        let from = self.0.manifest.as_ref().map(|manifest| format!(" of {}", manifest.id)).unwrap_or_default();
        format!("<RestoreReport{from}, {} rows, {} kept>", self.0.rows, self.0.kept)
    }
}
