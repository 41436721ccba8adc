//! The threads that core's futures run on, and waiting for one of them without the GIL and open to Ctrl-C.

use std::pin::pin;
use std::process;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use shareddb_core::{Error, Result};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::timeout;

use crate::errors::raise;

/// How long a Ctrl-C may go unnoticed.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(50);
/// They move the bytes of a few sessions; the calling thread does the rest.
const WORKERS: usize = 2;

struct Shared {
    runtime: Runtime,
    pid: u32,
}

/// Built by the first call that waits, never torn down: sessions may outlive the call that opened them.
static SHARED: PyOnceLock<Shared> = PyOnceLock::new();

/// Waits for `future`. A signal handler that raises, as the one for Ctrl-C does, ends the wait: the future is dropped.
pub(crate) fn wait<T: Send>(py: Python<'_>, future: impl Future<Output = Result<T>> + Send) -> PyResult<T> {
    let runtime = idle_runtime(py)?;
    py.detach(|| runtime.block_on(heeding_signals(future)))?.map_err(|error| raise(py, &error))
}

/// The same future, cut short when a signal handler raises something.
pub(crate) async fn heeding_signals<F: Future>(future: F) -> PyResult<F::Output> {
    let mut future = pin!(future);
    loop {
        if let Ok(done) = timeout(SIGNAL_INTERVAL, future.as_mut()).await {
            return Ok(done);
        }
        if !Python::attach(has_handled_signals)? {
            return Ok(future.await);
        }
    }
}

/// Runs the handlers of those signals that came. `false` on a thread that never runs any: Python's main thread alone does.
fn has_handled_signals(py: Python<'_>) -> PyResult<bool> {
    py.check_signals()?;
    let threads = py.import("threading")?;
    threads.call_method0("get_ident")?.eq(threads.call_method0("main_thread")?.getattr("ident")?)
}

/// The runtime, for a thread that wants to stand still until something is done.
pub(crate) fn idle_runtime(py: Python<'_>) -> PyResult<&'static Runtime> {
    if Handle::try_current().is_ok() {
        let error = Error::failed("called_from_callback", "this thread is at work for shareddb already")
            .with_hint("call shareddb from another thread, or after the call that this function was called from");
        return Err(raise(py, &error));
    }
    runtime(py)
}

pub(crate) fn runtime(py: Python<'_>) -> PyResult<&'static Runtime> {
    let shared = SHARED.get_or_try_init(py, || {
        let runtime = Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("shareddb")
            .enable_all()
            .build()
            .map_err(|source| raise(py, &Error::from_io("cannot start the threads of shareddb", source)))?;
        crate::work::take_leave_at_exit(py)?;
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

/// The runtime, if there is one and its threads are this process's.
pub(crate) fn running(py: Python<'_>) -> Option<&'static Runtime> {
    SHARED.get(py).filter(|shared| shared.pid == process::id()).map(|shared| &shared.runtime)
}
