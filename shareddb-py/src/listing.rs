//! Lists that show as tables: Python's own, in `shareddb._tables`.

use pyo3::PyClass;
use pyo3::prelude::*;

/// A list of this class with these items.
pub(crate) fn listing<'py, T: PyClass + Into<PyClassInitializer<T>>>(
    py: Python<'py>,
    class: &str,
    items: impl Iterator<Item = T>,
) -> PyResult<Bound<'py, PyAny>> {
    let items: Vec<Py<T>> = items.map(|item| Py::new(py, item)).collect::<PyResult<_>>()?;
    py.import("shareddb._tables")?.getattr(class)?.call1((items,))
}

/// What a notebook shows of something that iterates over lines or rows.
pub(crate) fn html(thing: &Bound<'_, PyAny>) -> PyResult<String> {
    thing.py().import("shareddb._tables")?.call_method1("html", (thing,))?.extract()
}

/// What `print` shows of a status.
pub(crate) fn text(status: &Bound<'_, PyAny>) -> PyResult<String> {
    status.py().import("shareddb._tables")?.call_method1("status_text", (status,))?.extract()
}
