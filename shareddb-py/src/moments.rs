//! Core's times as Python's.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use pyo3::prelude::*;
use shareddb_core::Error;

use crate::errors::raise;

/// A time as an aware `datetime`.
pub(crate) fn moment(time: Timestamp) -> SystemTime {
    time.into()
}

/// An aware `datetime` as core's time.
pub(crate) fn timestamp(py: Python<'_>, time: SystemTime) -> PyResult<Timestamp> {
    Timestamp::try_from(time).map_err(|source| {
        let error = Error::invalid_input("time_invalid", "no such time is known here").with_source(source);
        raise(py, &error)
    })
}

/// Seconds as a `timedelta`.
pub(crate) fn span(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}
