//! Core's times as Python's.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use shareddb_core::Error;

use crate::errors::raise;
use crate::whole::kind;

/// A time as an aware `datetime`.
pub(crate) fn moment(time: Timestamp) -> SystemTime {
    time.into()
}

/// An aware `datetime` that Python has given.
#[derive(Clone, Copy)]
pub(crate) struct Moment(SystemTime);

impl Moment {
    /// It as core's time.
    pub(crate) fn timestamp(self, py: Python<'_>) -> PyResult<Timestamp> {
        Timestamp::try_from(self.0).map_err(|source| {
            let error = Error::invalid_input("time_invalid", "no such time is known here").with_source(source);
            raise(py, &error)
        })
    }
}

impl<'py> FromPyObject<'_, 'py> for Moment {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let zone = object
            .getattr("tzinfo")
            .map_err(|_| PyTypeError::new_err(format!("expected a datetime, not {}", kind(&object))))?;
        if zone.is_none() {
            return Err(PyTypeError::new_err(
                "a datetime without a timezone may be any moment: give it one, such as timezone.utc",
            ));
        }
        object.extract().map(Self)
    }
}

/// Seconds as a `timedelta`.
pub(crate) fn span(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}
