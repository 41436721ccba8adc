//! Runs a command until it ends, its time is up, or somebody wants it to end.

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use shareddb_core::{Error, Result};
use tokio::runtime::{self, Handle, RuntimeMetrics};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::console::Turn;
use crate::context::Context;
use crate::failure::Failure;
use crate::units;

/// Longer than the file work that may be going on, such as writing a Secret.
const GRACE: Duration = Duration::from_secs(5);
/// How long goodbyes may take.
const FAREWELL: Duration = Duration::from_millis(500);
const PULSE: Duration = Duration::from_millis(2);
/// How long work may take that was asked to end: a login is closed, an upload taken back, a database dropped.
const LAST_STEPS: Duration = Duration::from_secs(10);

const GOES_ON: &str = "what is done stays done: the same command goes on from there";
const CUT_OFF: &str = "it did not end in time: what it left behind is no backup, and goes with the next run";

/// Runs the command. When it is cut short its future is dropped first: connections close, temporary objects go.
pub(crate) fn run(context: &Context, work: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode, Failure> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::from_io("cannot set up the runtime", error))?;
    let done = runtime.block_on(guarded(context, work));
    runtime.block_on(farewell(&runtime.metrics()));
    context.console.clear();
    runtime.shutdown_timeout(GRACE);
    done
}

/// Lets sessions that have just ended say goodbye to their server, and tunnels carry that: otherwise they are there a while longer.
async fn farewell(metrics: &RuntimeMetrics) {
    let _ = timeout(FAREWELL, async {
        while metrics.num_alive_tasks() > 0 {
            sleep(PULSE).await;
        }
    })
    .await;
}

/// Why a command is to end early.
#[derive(Clone, Copy, Debug)]
enum Cause {
    Signal(SignalKind),
    Late,
}

async fn guarded(context: &Context, work: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode, Failure> {
    let mut causes = Causes::new(context)?;
    let mut work = std::pin::pin!(work);
    let cause = tokio::select! {
        done = &mut work => return Ok(done?),
        cause = causes.next() => cause,
    };
    let awaited = awaited(context);
    let Some(interrupt) = context.interrupt() else { return Err(causes.failure(cause, &awaited, GOES_ON)) };
    interrupt.raise();
    context.console.progress("ending what was begun; Ctrl-C again ends at once");
    tokio::select! {
        done = ended(&mut work) => match done {
            Ok(code) => Ok(code),
            Err(error) if error.code() == "interrupted" => {
                Err(causes.failure(cause, &awaited, "nothing of it was kept; what was done before stays"))
            }
            Err(error) => {
                context.console.note(&error.to_string());
                Err(causes.failure(cause, &awaited, CUT_OFF))
            }
        },
        () = sleep(LAST_STEPS) => Err(causes.failure(cause, &awaited, CUT_OFF)),
        () = causes.signal() => Err(causes.failure(cause, &awaited, CUT_OFF)),
    }
}

/// Waits for the end of work, and of what it has left to others when it was dropped, such as taking back an upload.
async fn ended(work: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    let done = work.await;
    let tasks = Handle::current().metrics();
    while tasks.num_alive_tasks() > 0 {
        sleep(PULSE).await;
    }
    done
}

fn awaited(context: &Context) -> String {
    match context.console.turn() {
        Turn::Ours { awaited } => awaited,
        Turn::Child => String::new(),
    }
}

/// What may end a command early.
struct Causes<'a> {
    context: &'a Context,
    interrupt: Signal,
    terminate: Signal,
    deadline: Option<Instant>,
}

impl<'a> Causes<'a> {
    fn new(context: &'a Context) -> Result<Self> {
        let listen = |kind| signal(kind).map_err(|error| Error::from_io("cannot listen for signals", error));
        Ok(Self {
            context,
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            deadline: context.limit.map(|limit| Instant::now() + limit),
        })
    }

    async fn next(&mut self) -> Cause {
        loop {
            let deadline = self.deadline;
            let late = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let is_child = || self.context.console.turn() == Turn::Child;
            tokio::select! {
                // It went to the program that has the terminal as well, and what it means there is that program's business.
                _ = self.interrupt.recv() => if !is_child() {
                    return Cause::Signal(SignalKind::interrupt());
                },
                _ = self.terminate.recv() => return Cause::Signal(SignalKind::terminate()),
                () = late => match is_child() {
                    false => return Cause::Late,
                    true => self.deadline = None,
                },
            }
        }
    }

    /// A signal more.
    async fn signal(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    fn failure(&self, cause: Cause, awaited: &str, hint: &str) -> Failure {
        match (cause, self.context.limit) {
            (Cause::Signal(kind), _) => Failure::Interrupted { signal: number(kind), hint: hint.to_owned() },
            (Cause::Late, limit) => late(limit.unwrap_or_default(), awaited).into(),
        }
    }
}

fn number(kind: SignalKind) -> u8 {
    u8::try_from(kind.as_raw_value()).unwrap_or_default()
}

fn late(timeout: Duration, awaited: &str) -> Error {
    let message = format!("not done after {}; still awaited: {awaited}", units::duration(timeout));
    Error::timeout("timeout", message)
        .with_hint("what is done stays done: run the same command again, with a longer --timeout if need be")
}
