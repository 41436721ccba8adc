//! From core's errors to exceptions. The classes are Python's own, in `shareddb._errors`: each has two bases, and one that Rust
//! defines has one.

use pyo3::prelude::*;
use shareddb_core::Error;

/// The exception for an error of core.
pub(crate) fn raise(py: Python<'_>, error: &Error) -> PyErr {
    exception(py, error).map_or_else(|fault| fault, PyErr::from_value)
}

/// The exception for an error of core, where the interpreter is not at hand.
pub(crate) fn raised(error: &Error) -> PyErr {
    Python::attach(|py| raise(py, error))
}

fn exception<'py>(py: Python<'py>, error: &Error) -> PyResult<Bound<'py, PyAny>> {
    let exception = py.import("shareddb._errors")?.getattr(class_name(error))?.call1((with_causes(error),))?;
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
        _ => "Error",
    }
}

/// The message and its causes in one line.
fn with_causes(error: &Error) -> String {
    [vec![error.to_string()], error.causes()].concat().join(": ")
}
