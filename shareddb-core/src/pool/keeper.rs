//! What goes on beside the callers: closing what is idle or old, and following the credentials.

use std::sync::{Arc, Weak};
use std::time::Duration;

use deadpool::managed::{Pool, WeakPool};
use tokio::time::timeout;

use super::dialling::Doubt;
use super::link::Link;
use super::manager::Manager;
use super::meter;
use super::shared::Shared;
use super::snapshot::Snapshot;

/// How often the place of the credentials is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How long a replacement waits for somebody to give an old connection back before it looks again.
const GIVEN_BACK: Duration = Duration::from_millis(100);

/// Does its work until the pool is gone.
pub(super) async fn keep(pool: WeakPool<Manager>, shared: Weak<Shared>) {
    loop {
        {
            let Some(shared) = shared.upgrade() else { return };
            let pause = LOOK.min(shared.options.idle / 4).max(Duration::from_millis(10));
            let source = shared.source.clone();
            drop(shared);
            let _ = timeout(pause, source.changed()).await;
        }
        let (Some(pool), Some(shared)) = (pool.upgrade(), shared.upgrade()) else { return };
        if shared.has_ended() {
            return;
        }
        sweep(&pool, &shared);
        follow(&pool, &shared).await;
        probe(&shared).await;
        Snapshot::of(&pool, &shared).measure();
    }
}

/// Closes what nobody has used for long enough, and what has lived long enough.
fn sweep(pool: &Pool<Manager>, shared: &Shared) {
    let idle = |link: &Link| link.rested.elapsed() > shared.options.idle;
    let old = |link: &Link| link.is_old() && !shared.keeps_the_old();
    // While nobody gets in, even what is idle may be needed.
    let keeps = |link: &Link| link.is_usable() && !old(link) && (!idle(link) || shared.keeps_the_old());
    let removed = pool.retain(|link, _| keeps(link)).removed;
    for link in &removed {
        meter::evicted(if idle(link) { "idle" } else { "life" });
    }
    shared.spares().retain(keeps);
}

/// Finds out whether connecting works again, when it did not: nobody may be asking for a connection just now.
async fn probe(shared: &Shared) {
    if shared.health.trouble().is_none() || !shared.health.has_connected() {
        return;
    }
    if let Ok(link) = shared.connect().await
        && shared.census.total() <= shared.options.size
    {
        shared.spares().push(link);
    }
}

/// Looks for other credentials, and gives all connections those, one after the other, the new one before the old one.
async fn follow(pool: &Pool<Manager>, shared: &Arc<Shared>) {
    if shared.source.rotates() {
        let used = shared.credentials();
        let doubt = if shared.source.stamp().is_none() || shared.keeps_the_old() { Doubt::Yes } else { Doubt::No };
        if shared.health.has_connected()
            && let Some(link) = shared.turn(&used, doubt).await
        {
            shared.health.succeeded();
            shared.spares().push(link);
        }
    }
    let generation = shared.credentials().generation;
    let mut spare = !shared.spares().is_empty();
    while shared.census.others(generation) > 0 && shared.credentials().generation == generation && !shared.has_ended() {
        if !spare {
            match shared.connect().await {
                Ok(link) => shared.spares().push(link),
                // What is open goes on serving.
                Err(error) => return tracing::warn!(%error, "a connection could not be replaced"),
            }
        }
        let moved = shared.moved.notified();
        tokio::pin!(moved);
        moved.as_mut().enable();
        let mut left = 1;
        let retired = pool.retain(|link, _| {
            let stays = left == 0 || link.generation == generation;
            left -= usize::from(!stays);
            stays
        });
        if retired.removed.is_empty() {
            // All old ones are in use. Those that come back are exchanged as they are asked for again.
            let _ = timeout(GIVEN_BACK, moved).await;
            spare = !shared.spares().is_empty();
        } else {
            meter::evicted("generation");
            spare = false;
        }
        for link in retired.removed {
            link.session.close().await;
        }
    }
}
