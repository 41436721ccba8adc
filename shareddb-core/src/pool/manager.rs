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

/// What a login takes at most: it may find its credentials refused, wait for whoever reads them again, and have others proved; and
/// ask each session that it gets. Were it longer, another one is begun in vain.
const DIALS: u32 = 4;
const ANSWERS: u32 = 3;
const MORE: Duration = Duration::from_secs(2);

/// Opens connections, and looks at them before they are given out again.
pub(super) struct Manager(pub(super) Arc<Shared>);

impl managed::Manager for Manager {
    // In a box, since deadpool moves it about at every checkout.
    type Type = Box<Link>;
    type Error = Error;

    async fn create(&self) -> Result<Box<Link>, Error> {
        let shared = &self.0;
        let limit = shared.options.connect * DIALS + shared.options.recycle * ANSWERS + MORE;
        let mut given_up = 0;
        loop {
            match shared.arrivals.turn(limit, |link| shared.is_fit_spare(link)) {
                Turn::Takes(link) => return Ok(link),
                Turn::Leaves => return Err(fault::closed()),
                Turn::Waits { answer, begins } => {
                    if let Some(login) = begins {
                        shared.begin_login(login);
                    }
                    // When it takes too long, another one is begun.
                    let Ok(answer) = timeout(limit, answer).await else { continue };
                    if let Ok(result) = answer {
                        return result;
                    }
                    given_up += u32::from(begins.is_some_and(|login| !shared.arrivals.is_under_way(login)));
                    // Twice is no accident.
                    if given_up == 2 {
                        return Err(fault::without_runtime());
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
