//! Exceptions: one class per outcome under `shareddb.Error`, each also a built-in where one fits.

use pyo3::exceptions::{
    PyConnectionError, PyException, PyLookupError, PyPermissionError, PyTimeoutError, PyValueError,
};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple, PyType};
use shareddb_core::Error;

const BASE: &str = "Error";

/// By name. Classes that Rust defines have one base, and these need two, so they are made as Python makes them.
static CLASSES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();

type Builtin = for<'py> fn(Python<'py>) -> Bound<'py, PyType>;

/// Name, fitting built-in, docstring.
const OUTCOMES: [(&str, Option<Builtin>, &str); 9] = [
    (
        "InvalidInputError",
        Some(|py| py.get_type::<PyValueError>()),
        "The input breaks a rule; nothing was sent anywhere.",
    ),
    ("NotFoundError", Some(|py| py.get_type::<PyLookupError>()), "A named thing does not exist."),
    ("ConflictError", None, "Something else is where our object should be, or changed under us."),
    ("PermissionDeniedError", Some(|py| py.get_type::<PyPermissionError>()), "Credentials or rights were not enough."),
    ("RefusedError", None, "Possible, but declined until the caller says so explicitly."),
    (
        "UnavailableError",
        Some(|py| py.get_type::<PyConnectionError>()),
        "A server, file or program that is needed is not there, or not now.",
    ),
    ("TimeoutError", Some(|py| py.get_type::<PyTimeoutError>()), "It took longer than allowed."),
    ("ToolFailedError", None, "A program that was run ended with an error."),
    ("FailedError", None, "Everything else."),
];

/// Adds the classes to the module.
pub(crate) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    for (name, class) in classes(module.py())?.bind(module.py()) {
        module.add(name.extract::<&str>()?, class)?;
    }
    Ok(())
}

/// The exception for an error of core.
pub(crate) fn raise(py: Python<'_>, error: &Error) -> PyErr {
    exception(py, error).map_or_else(|fault| fault, PyErr::from_value)
}

fn exception<'py>(py: Python<'py>, error: &Error) -> PyResult<Bound<'py, PyAny>> {
    let class = classes(py)?.bind(py).as_any().get_item(class_name(error))?;
    let exception = class.call1((with_causes(error),))?;
    exception.setattr("code", error.code())?;
    exception.setattr("hint", error.hint())?;
    exception.setattr("retryable", error.is_retryable())?;
    if let Some(hint) = error.hint() {
        // As `add_note` does, which Python 3.10 lacks: tracebacks end with it.
        exception.setattr("__notes__", vec![format!("hint: {hint}")])?;
    }
    Ok(exception)
}

fn class_name(error: &Error) -> &'static str {
    match error {
        Error::InvalidInput(_) => "InvalidInputError",
        Error::NotFound(_) => "NotFoundError",
        Error::Conflict(_) => "ConflictError",
        Error::PermissionDenied(_) => "PermissionDeniedError",
        Error::Refused(_) => "RefusedError",
        Error::Unavailable(_) => "UnavailableError",
        Error::Timeout(_) => "TimeoutError",
        Error::ToolFailed(_) => "ToolFailedError",
        Error::Failed(_) => "FailedError",
        _ => BASE,
    }
}

fn classes(py: Python<'_>) -> PyResult<&'static Py<PyDict>> {
    CLASSES.get_or_try_init(py, || {
        let body = PyDict::new(py);
        // For exceptions that Python code makes itself, in tests for one.
        body.set_item("code", "failed")?;
        body.set_item("hint", py.None())?;
        body.set_item("retryable", false)?;
        let base = define(BASE, &[py.get_type::<PyException>()], &body, "What shareddb raises.")?;
        let classes = PyDict::new(py);
        classes.set_item(BASE, &base)?;
        for (name, builtin, doc) in OUTCOMES {
            let bases: Vec<_> = [base.clone()].into_iter().chain(builtin.map(|builtin| builtin(py))).collect();
            classes.set_item(name, define(name, &bases, &PyDict::new(py), doc)?)?;
        }
        Ok(classes.unbind())
    })
}

fn define<'py>(
    name: &str,
    bases: &[Bound<'py, PyType>],
    body: &Bound<'py, PyDict>,
    doc: &str,
) -> PyResult<Bound<'py, PyType>> {
    let py = body.py();
    body.set_item("__module__", "shareddb")?;
    body.set_item("__doc__", doc)?;
    Ok(py.get_type::<PyType>().call1((name, PyTuple::new(py, bases)?, body))?.cast_into()?)
}

/// The message and its causes in one line.
fn with_causes(error: &Error) -> String {
    [vec![error.to_string()], error.causes()].concat().join(": ")
}
