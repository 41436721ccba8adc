//! `Explanation`: where each setting of a connection came from.

use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyList};
use shareddb_core::{ExplainedField as CoreField, Explanation as Core};

use crate::listing::html;

/// Where each setting came from: iterates over them. Prints as a table; no secret is in it.
#[pyclass(module = "shareddb", frozen)]
pub(crate) struct Explanation(Core);

impl Explanation {
    pub(crate) fn new(explanation: Core) -> Self {
        Self(explanation)
    }
}

#[pymethods]
impl Explanation {
    /// Everything that was said, and host, port, database, user, password and sslmode in any case.
    #[getter]
    fn fields(&self) -> Vec<ExplainedField> {
        self.0.fields.iter().cloned().map(ExplainedField).collect()
    }

    fn __len__(&self) -> usize {
        self.0.fields.len()
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        PyList::new(py, self.fields())?.try_iter()
    }

    /// The field of this name. Raises `KeyError` when nothing was said of it.
    fn __getitem__(&self, name: &str) -> PyResult<ExplainedField> {
        let found = self.0.fields.iter().find(|field| field.name == name);
        found.cloned().map(ExplainedField).ok_or_else(|| pyo3::exceptions::PyKeyError::new_err(name.to_owned()))
    }

    fn __str__(&self) -> String {
        self.0.to_string().trim_end_matches('\n').to_owned()
    }

    fn _repr_html_(slf: &Bound<'_, Self>) -> PyResult<String> {
        html(slf.as_any())
    }

    fn __repr__(&self) -> String {
        format!("<Explanation of {} settings>", self.0.fields.len())
    }
}

/// One setting.
#[pyclass(module = "shareddb", frozen)]
pub(crate) struct ExplainedField(CoreField);

#[pymethods]
impl ExplainedField {
    /// libpq's keyword.
    #[getter]
    fn name(&self) -> &'static str {
        self.0.name
    }

    /// What counts. Of a password only a fingerprint, by which two processes can be compared.
    #[getter]
    fn value(&self) -> Option<&str> {
        self.0.value.as_deref()
    }

    /// What it was called where it was found: a variable, a key of a Secret; `code` or `default`.
    #[getter]
    fn source(&self) -> &str {
        &self.0.source
    }

    /// What names it as well and does not count, each with `same`, `differs` or `incomplete`.
    #[getter]
    fn shadows(&self) -> Vec<String> {
        self.0.shadows.iter().map(ToString::to_string).collect()
    }

    /// Whether a new value reaches a process that runs already: `no`, `delayed` or `at once`.
    #[getter]
    fn rotation(&self) -> String {
        self.0.rotation.to_string()
    }

    fn __repr__(&self) -> String {
        let CoreField { name, value, source, .. } = &self.0;
        format!("<ExplainedField {name}={} from {source}>", value.as_deref().unwrap_or_default())
    }
}
