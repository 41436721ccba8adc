//! Whole numbers, of which Python's have no end.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyInt;
use shareddb_core::{Error, Result};

/// A number that may fit into core's.
#[derive(Clone, Copy)]
pub(crate) struct Whole(i64);

impl Whole {
    /// The number, of which core judges the rest.
    ///
    /// # Errors
    /// `InvalidInput` for one that does not fit.
    pub(crate) fn fit(self, code: &'static str, what: &str) -> Result<u16> {
        u16::try_from(self.0).map_err(|_| Error::invalid_input(code, format!("{} is no number of {what}", self.0)))
    }
}

impl<'py> FromPyObject<'_, 'py> for Whole {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let number = object
            .cast::<PyInt>()
            .map_err(|_| PyTypeError::new_err(format!("expected an int, not {}", kind(&object))))?;
        // One that is larger than this fits nowhere either.
        let furthest = if number.lt(0)? { i64::MIN } else { i64::MAX };
        Ok(Self(number.extract().unwrap_or(furthest)))
    }
}

/// What somebody has given instead; the value itself may be a secret.
pub(crate) fn kind(object: &Bound<'_, PyAny>) -> String {
    object.get_type().name().map_or_else(|_| "that".to_owned(), |name| name.to_string())
}
