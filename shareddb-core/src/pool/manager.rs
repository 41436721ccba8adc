//! What deadpool asks of whoever makes the things in a pool.

use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::{self, Metrics, Object, RecycleError, RecycleResult};
use tokio::time::timeout;
use tracing::Instrument as _;

use super::arrivals::Turn;
use super::fault;
use super::link::{Link, Verdict};
use super::meter;
use super::shared::Shared;
use crate::error::Error;

/// A login takes so many times its limit at most, and some more: it may find its credentials refused, wait for whoever reads them
/// again, and then have others proved. Were it longer, another one is begun in vain.
const TIMES: u32 = 4;
const MORE: Duration = Duration::from_secs(2);

/// Opens connections, and looks at them before they are given out again.
pub(super) struct Manager(pub(super) Arc<Shared>);

impl managed::Manager for Manager {
    // In a box, since deadpool moves it about at every checkout.
    type Type = Box<Link>;
    type Error = Error;

    async fn create(&self) -> Result<Box<Link>, Error> {
        let shared = &self.0;
        let mut begun = 0;
        loop {
            match shared.arrivals.turn(|link| shared.is_fit_spare(link)) {
                Turn::Takes(link) => return Ok(link),
                Turn::Leaves => return Err(fault::closed()),
                // Twice is no accident.
                Turn::Waits { begins: Some(login), .. } if begun == 2 => {
                    shared.arrivals.ended(login, None);
                    return Err(fault::without_runtime());
                }
                Turn::Waits { answer, begins } => {
                    if let Some(login) = begins {
                        begun += 1;
                        shared.begin_login(login);
                    }
                    match timeout(shared.options.connect * TIMES + MORE, answer).await {
                        Ok(Ok(result)) => return result,
                        // With the runtime that it was begun in.
                        Ok(Err(_)) => {}
                        // That runtime has nothing done any more.
                        Err(_) => shared.arrivals.stalled(),
                    }
                }
            }
        }
    }

    /// What can be told without asking the server; see [`looked_at`] for the rest.
    async fn recycle(&self, link: &mut Box<Link>, _: &Metrics) -> RecycleResult<Error> {
        let shared = &self.0;
        if link.generation != shared.generation() {
            match shared.arrivals.spare(|link| shared.is_fit_spare(link)) {
                Some(spare) => {
                    *link = spare;
                    meter::evicted("generation");
                }
                // It serves until there is a new one.
                None => shared.moved.notify_one(),
            }
        }
        match shared.unfit(link) {
            None => Ok(()),
            Some(reason) => {
                meter::evicted(reason);
                Err(RecycleError::message(reason))
            }
        }
    }
}

impl Drop for Manager {
    /// The last pool is gone. What somebody has stays.
    fn drop(&mut self) {
        drop(self.0.close());
    }
}

/// Asks the server about a connection. `None`: it was of no more use.
///
/// It is asked beside the caller: when that goes away meanwhile, the connection comes back.
pub(super) async fn looked_at(object: Object<Manager>, shared: &Arc<Shared>) -> Option<Object<Manager>> {
    tokio::spawn(look(object, Arc::clone(shared)).in_current_span()).await.ok().flatten()
}

async fn look(mut object: Object<Manager>, shared: Arc<Shared>) -> Option<Object<Manager>> {
    let reason = match timeout(shared.options.recycle, object.verify(shared.suspicion())).await {
        Ok(Verdict::ReadOnly) if shared.writes() => "read_only",
        Ok(Verdict::Well | Verdict::ReadOnly) => return Some(object),
        Ok(Verdict::Dead) => {
            shared.suspect();
            "dead"
        }
        Err(_) => {
            shared.fell_silent();
            "silent"
        }
    };
    meter::evicted(reason);
    drop(Object::take(object));
    None
}
