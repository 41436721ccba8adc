//! Python's callable that is told of events.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::call::PyCallArgs;
use pyo3::prelude::*;
use tokio::sync::Notify;

/// Who is told of events, and what it raised: that ends the work.
#[derive(Clone, Default)]
pub(crate) struct Follower(Arc<Inner>);

#[derive(Default)]
struct Inner {
    raised: Mutex<Option<PyErr>>,
    bell: Notify,
}

impl Follower {
    /// Calls it from whichever thread the work is on.
    pub(crate) fn tell<'py>(&self, py: Python<'py>, callable: &Py<PyAny>, arguments: impl PyCallArgs<'py>) {
        if let Err(error) = callable.bind(py).call1(arguments) {
            let mut raised = self.0.raised.lock().unwrap_or_else(PoisonError::into_inner);
            // The first counts; more may come until the work has ended.
            raised.get_or_insert(error);
            self.0.bell.notify_one();
        }
    }

    /// What it raised, once it does.
    pub(crate) async fn raised(&self) -> PyErr {
        loop {
            self.0.bell.notified().await;
            if let Some(error) = self.take() {
                return error;
            }
        }
    }

    /// What it raised, if it did.
    pub(crate) fn take(&self) -> Option<PyErr> {
        self.0.raised.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
