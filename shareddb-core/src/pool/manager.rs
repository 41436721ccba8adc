//! What deadpool asks of whoever makes the things in a pool.

use std::sync::Arc;

use deadpool::managed::{self, Metrics, RecycleError, RecycleResult};
use tokio::time::timeout;

use super::link::Link;
use super::meter;
use super::shared::Shared;
use crate::error::Error;

/// Opens connections, and looks at them before they are given out again.
pub(super) struct Manager(pub(super) Arc<Shared>);

impl managed::Manager for Manager {
    type Type = Link;
    type Error = Error;

    async fn create(&self) -> Result<Link, Error> {
        match self.0.take_spare() {
            Some(link) => Ok(link),
            // Logins are rare and their state is large; every caller would carry it along.
            None => Box::pin(self.0.connect()).await,
        }
    }

    async fn recycle(&self, link: &mut Link, _: &Metrics) -> RecycleResult<Error> {
        let shared = &self.0;
        if !link.is_usable() {
            return evicted(shared, "closed");
        }
        if shared.is_silent(link) {
            return evicted(shared, "silent");
        }
        if link.is_old() && !shared.keeps_the_old() {
            return evicted(shared, "life");
        }
        if link.generation != shared.credentials().generation && !shared.spares().is_empty() {
            // The new one is open already.
            return evicted(shared, "generation");
        }
        let suspicion = shared.suspicion();
        if link.is_trusted(suspicion) {
            return Ok(());
        }
        match timeout(shared.options.recycle, link.verify(suspicion)).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                shared.suspect();
                evicted(shared, "dead")
            }
            Err(_) => {
                shared.fell_silent();
                evicted(shared, "silent")
            }
        }
    }
}

fn evicted(shared: &Shared, reason: &'static str) -> RecycleResult<Error> {
    meter::evicted(reason);
    shared.moved.notify_waiters();
    Err(RecycleError::message(reason))
}
