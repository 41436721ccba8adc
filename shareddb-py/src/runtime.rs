//! Waiting for core's futures from Python: without the GIL, and open to Ctrl-C.

use std::pin::pin;
use std::process;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use shareddb_core::Error;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::errors::raise;

/// How long a Ctrl-C may go unnoticed.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(100);
/// They move the bytes of a few sessions; the calling thread does the rest.
const WORKERS: usize = 2;

struct Shared {
    runtime: Runtime,
    pid: u32,
}

/// Built by the first call that waits, never torn down: sessions may outlive the call that opened them.
static SHARED: PyOnceLock<Shared> = PyOnceLock::new();

/// Waits for `future`. A signal handler that raises, as the one for Ctrl-C does, ends the wait: the future is dropped.
pub(crate) fn wait<T: Send>(
    py: Python<'_>,
    future: impl Future<Output = shareddb_core::Result<T>> + Send,
) -> PyResult<T> {
    let runtime = runtime(py)?;
    let waited = py.detach(|| {
        runtime.block_on(async {
            let mut future = pin!(future);
            loop {
                match timeout(SIGNAL_INTERVAL, future.as_mut()).await {
                    Ok(done) => return Ok(done),
                    Err(_) => Python::attach(|py| py.check_signals())?,
                }
            }
        })
    });
    match waited {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(raise(py, &error)),
        Err(raised) => Err(raised),
    }
}

fn runtime(py: Python<'_>) -> PyResult<&'static Runtime> {
    let shared = SHARED.get_or_try_init(py, || {
        let runtime = Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("shareddb")
            .enable_all()
            .build()
            .map_err(|source| raise(py, &Error::from_io("cannot start the threads of shareddb", source)))?;
        Ok::<_, PyErr>(Shared { runtime, pid: process::id() })
    })?;
    if shared.pid != process::id() {
        // A fork copies no thread but its own: whoever waited here would wait for ever.
        let error = Error::failed("forked", "shareddb was in use before this process was forked").with_hint(
            "start such processes with multiprocessing's method \"spawn\", or use shareddb only after the fork",
        );
        return Err(raise(py, &error));
    }
    Ok(&shared.runtime)
}
