//! Runs a command until it ends, its time is up, or somebody wants it to end.

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use shareddb_core::{Error, Result};
use tokio::runtime::{self, RuntimeMetrics};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};

use crate::console::Turn;
use crate::context::Context;
use crate::failure::Failure;
use crate::units;

/// Longer than the file work that may be going on, such as writing a Secret.
const GRACE: Duration = Duration::from_secs(5);
/// How long goodbyes may take.
const FAREWELL: Duration = Duration::from_millis(500);
const PULSE: Duration = Duration::from_millis(2);

/// Runs the command. When it is cut short its future is dropped first: connections close, temporary objects go.
pub(crate) fn run(context: &Context, work: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode, Failure> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::from_io("cannot set up the runtime", error))?;
    let done = runtime.block_on(guarded(context, work));
    runtime.block_on(farewell(&runtime.metrics()));
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

async fn guarded(context: &Context, work: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode, Failure> {
    let listen = |kind| signal(kind).map_err(|error| Error::from_io("cannot listen for signals", error));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let mut deadline = std::pin::pin!(sleep(context.timeout));
    let mut timed = true;
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return Ok(done?),
            // It went to the program that has the terminal as well, and what it means there is that program's business.
            _ = interrupt.recv() => if context.console.turn() != Turn::Child {
                return Err(Failure::Interrupted { signal: number(SignalKind::interrupt()) });
            },
            _ = terminate.recv() => {
                return Err(Failure::Interrupted { signal: number(SignalKind::terminate()) });
            }
            () = &mut deadline, if timed => match context.console.turn() {
                Turn::Ours { awaited } => return Err(late(context.timeout, &awaited).into()),
                Turn::Child => timed = false,
            },
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
