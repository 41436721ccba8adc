//! Work that takes long: a caller stands still for it, or awaits it. Either way it can be ended early and cleans up.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use pyo3::coroutine::CancelHandle;
use pyo3::prelude::*;
use shareddb_core::{Error, Interrupt, Result};
use tokio::runtime::{Handle, Runtime};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{sleep, timeout};

use crate::errors::{raise, raised};
use crate::follower::Follower;
use crate::runtime::{heeding_signals, idle_runtime, running, runtime};

/// How long a Ctrl-C waits for the work to clean up. What takes longer goes on by itself.
const PROMPT: Duration = Duration::from_millis(80);
/// How long cleaning up may take: a login is closed, an upload taken back, a database dropped.
const LAST_STEPS: Duration = Duration::from_secs(10);
/// How long work may take that nothing ends early: a server starts and stops in a minute each, or not at all.
const WHOLE: Duration = Duration::from_secs(150);
const PULSE: Duration = Duration::from_millis(5);

/// Works that still clean up although nobody waits for them any more.
static LEAVING: AtomicUsize = AtomicUsize::new(0);

/// Something that core does, and how it ends early.
pub(crate) struct Work<T> {
    future: Pin<Box<dyn Future<Output = Result<T>> + Send>>,
    ending: Ending,
    follower: Follower,
}

/// How work ends early.
enum Ending {
    /// Its future is dropped.
    Cut,
    /// It is asked to, and cleans up.
    Asked(Interrupt),
    /// It does not.
    Never,
}

impl<T: Send + 'static> Work<T> {
    /// Work that ends where it is when it has to.
    pub(crate) fn new(follower: Follower, future: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        Self { future: Box::pin(future), ending: Ending::Cut, follower }
    }

    /// Work that cleans up once `interrupt` is raised.
    pub(crate) fn asked(
        follower: Follower,
        interrupt: Interrupt,
        future: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Self {
        Self { future: Box::pin(future), ending: Ending::Asked(interrupt), follower }
    }

    /// Work that goes on to its end, whoever waits for it.
    pub(crate) fn whole(future: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        Self { future: Box::pin(future), ending: Ending::Never, follower: Follower::default() }
    }

    fn begin(self, runtime: &Runtime) -> (Task<T>, Follower) {
        let Self { future, ending, follower } = self;
        (Task { handle: Some(runtime.spawn(future)), ending, runtime: runtime.handle().clone() }, follower)
    }

    /// Begins it and leaves it to itself. The interpreter waits for it before it ends.
    pub(crate) fn leave(self, py: Python<'_>) -> PyResult<()> {
        let (task, _) = self.begin(runtime(py)?);
        drop(task);
        Ok(())
    }

    /// Stands still until it is done. What a signal handler or the follower raises ends it.
    pub(crate) fn wait(self, py: Python<'_>) -> PyResult<T> {
        let runtime = idle_runtime(py)?;
        py.detach(|| {
            let (mut task, follower) = self.begin(runtime);
            runtime.block_on(async {
                let (error, patience) = tokio::select! {
                    biased;
                    done = heeding_signals(&mut task) => match done {
                        Ok(done) => return settled(done, &follower),
                        Err(error) => (error, PROMPT),
                    },
                    error = follower.raised() => (error, LAST_STEPS),
                };
                task.end();
                // A second Ctrl-C waits no longer.
                let _ = heeding_signals(timeout(patience, &mut task)).await;
                Err(error)
            })
        })
    }

    /// The same for a coroutine. When that is cancelled, it waits until the work has cleaned up. One that was cancelled before its
    /// first step begins nothing.
    pub(crate) async fn awaited(self, mut cancel: CancelHandle) -> PyResult<T> {
        let early = poll_fn(|context| Poll::Ready(cancel.poll_cancelled(context))).await;
        if let Poll::Ready(exception) = early {
            return Err(thrown(exception));
        }
        let runtime = Python::attach(runtime)?;
        let (mut task, follower) = self.begin(runtime);
        let error = tokio::select! {
            biased;
            exception = cancel.cancelled() => thrown(exception),
            error = follower.raised() => error,
            done = &mut task => return settled(done, &follower),
        };
        task.end();
        // On the runtime, since there are no timers on Python's threads.
        let ended = runtime.spawn(async move { timeout(LAST_STEPS, &mut task).await.is_ok() });
        let _ = ended.await;
        Err(error)
    }
}

/// What somebody has thrown into a coroutine.
fn thrown(exception: Py<PyAny>) -> PyErr {
    Python::attach(|py| PyErr::from_value(exception.into_bound(py)))
}

/// Work that was begun. It ends with whoever waits for it, and cleans up by itself where it has to.
struct Task<T: Send + 'static> {
    /// None once it is over.
    handle: Option<JoinHandle<Result<T>>>,
    ending: Ending,
    runtime: Handle,
}

impl<T: Send + 'static> Task<T> {
    fn end(&self) {
        match (&self.ending, &self.handle) {
            (Ending::Asked(interrupt), _) => interrupt.raise(),
            (Ending::Cut, Some(handle)) => handle.abort(),
            (Ending::Cut, None) | (Ending::Never, _) => {}
        }
    }
}

impl<T: Send + 'static> Future for Task<T> {
    type Output = Result<Result<T>, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // Nobody asks again for what is over.
        let Some(handle) = &mut self.handle else { return Poll::Pending };
        let done = Pin::new(handle).poll(context);
        if done.is_ready() {
            self.handle = None;
        }
        done
    }
}

impl<T: Send + 'static> Drop for Task<T> {
    fn drop(&mut self) {
        if self.handle.is_some() {
            self.end();
        }
        let Some(handle) = self.handle.take() else { return };
        let patience = if matches!(self.ending, Ending::Never) { WHOLE } else { LAST_STEPS };
        LEAVING.fetch_add(1, Ordering::Relaxed);
        self.runtime.spawn(async move {
            let _ = timeout(patience, handle).await;
            LEAVING.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn settled<T>(done: Result<Result<T>, JoinError>, follower: &Follower) -> PyResult<T> {
    if let Some(error) = follower.take() {
        return Err(error);
    }
    match done {
        Ok(done) => done.map_err(|error| raised(&error)),
        Err(broken) => {
            Err(raised(&Error::failed("internal", "the work broke off: this is a bug in shareddb").with_source(broken)))
        }
    }
}

/// Has the interpreter wait for those that still clean up before it ends.
pub(crate) fn take_leave_at_exit(py: Python<'_>) -> PyResult<()> {
    let leave = pyo3::wrap_pyfunction!(take_leave, py)?;
    py.import("atexit")?.call_method1("register", (leave,)).map(drop)
}

/// Waits for those that still clean up; Ctrl-C ends that.
#[pyfunction]
fn take_leave(py: Python<'_>) -> PyResult<()> {
    let Some(runtime) = running(py) else { return Ok(()) };
    let left = async {
        while LEAVING.load(Ordering::Relaxed) > 0 {
            sleep(PULSE).await;
        }
    };
    py.detach(|| runtime.block_on(heeding_signals(left)))
}

/// As [`raise`], for a result.
pub(crate) fn known<T>(py: Python<'_>, result: Result<T>) -> PyResult<T> {
    result.map_err(|error| raise(py, &error))
}
