//! What goes on beside the callers: closing what is idle or old, and following the credentials.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use deadpool::managed::{Pool, WeakPool};
use tokio::time::{Instant, sleep_until};

use super::dialling::Doubt;
use super::link::Link;
use super::manager::Manager;
use super::meter;
use super::shared::Shared;
use super::snapshot::Snapshot;

/// How often the place of the credentials is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Whether somebody keeps the pool: a task in the runtime of one of its callers, for as long as that lasts.
#[derive(Clone, Default)]
pub(super) struct Kept(Arc<AtomicBool>);

/// Held by whoever keeps it.
struct Post(Arc<AtomicBool>);

/// What came of replacing one connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Exchange {
    /// It was done, and there may be more.
    Done,
    /// None is to be replaced that could be.
    Idle,
    Failed,
}

impl Kept {
    /// Has the pool kept, unless it is. That needs a runtime, which a pool is made without.
    pub(super) fn ensure(&self, pool: &Pool<Manager>, shared: &Arc<Shared>) {
        let has_keeper = self.0.load(Ordering::Relaxed);
        if has_keeper || shared.closing.is_cancelled() || self.0.swap(true, Ordering::AcqRel) {
            return;
        }
        let post = Post(Arc::clone(&self.0));
        let (pool, shared) = (pool.weak(), Arc::downgrade(shared));
        tokio::spawn(async move {
            keep(pool, shared).await;
            drop(post);
        });
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Does its work until the pool is gone. While it waits it keeps nothing alive.
async fn keep(pool: WeakPool<Manager>, shared: Weak<Shared>) {
    let mut due = Instant::now();
    let mut last = Exchange::Idle;
    loop {
        let mut asked = false;
        if last != Exchange::Done {
            let Some(shared) = shared.upgrade() else { return };
            let (source, moved, closing) = (shared.source.clone(), Arc::clone(&shared.moved), shared.closing.clone());
            drop(shared);
            tokio::select! {
                () = closing.cancelled() => return,
                () = sleep_until(due) => {}
                () = source.changed() => due = Instant::now(),
                // Who does not get in is not asked more often than at each look.
                () = moved.notified(), if last != Exchange::Failed => asked = true,
            }
        }
        let (Some(pool), Some(shared)) = (pool.upgrade(), shared.upgrade()) else { return };
        let work = async {
            if Instant::now() >= due {
                look(&pool, &shared).await;
                due = Instant::now() + LOOK.min(shared.options.idle / 4).max(Duration::from_millis(10));
            }
            exchange(&pool, &shared, asked).await
        };
        match shared.closing.run_until_cancelled(work).await {
            Some(exchange) => last = exchange,
            None => return,
        }
    }
}

async fn look(pool: &Pool<Manager>, shared: &Arc<Shared>) {
    sweep(pool, shared);
    follow(shared).await;
    probe(shared).await;
    Snapshot::of(pool, shared).measure();
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
    shared.arrivals.retain(|link| keeps(link));
}

/// Finds out whether connecting works again, when it did not: nobody may be asking for a connection just now.
async fn probe(shared: &Arc<Shared>) {
    if shared.health.trouble().is_none() || !shared.health.has_connected() {
        return;
    }
    if let Ok(link) = shared.connect().await
        && shared.census.total() <= shared.options.size
    {
        shared.arrivals.land(link);
    }
}

/// Looks for other credentials.
async fn follow(shared: &Arc<Shared>) {
    if shared.source.rotates() && shared.health.has_connected() {
        let doubt = if shared.source.stamp().is_none() || shared.keeps_the_old() { Doubt::Yes } else { Doubt::No };
        if let Some(link) = shared.turn(&shared.credentials(), doubt).await {
            shared.arrivals.land(link);
        }
    }
}

/// Replaces one connection of older credentials, the new one before the old one. Those that somebody has are replaced when
/// they are asked for again, and nothing is opened for one that does not come back.
async fn exchange(pool: &Pool<Manager>, shared: &Arc<Shared>, asked: bool) -> Exchange {
    let generation = shared.generation();
    let is_older = |link: &Link| link.generation != generation;
    shared.arrivals.retain(|link| !is_older(link));
    if shared.census.others(generation) == 0 {
        return Exchange::Idle;
    }
    if !shared.arrivals.has_spare() {
        let mut lies_idle = false;
        pool.retain(|link, _| {
            lies_idle |= is_older(link);
            true
        });
        if !asked && !lies_idle {
            return Exchange::Idle;
        }
        match shared.connect().await {
            Ok(link) => shared.arrivals.land(link),
            Err(error) => {
                // What is open goes on serving.
                tracing::warn!(%error, "a connection could not be replaced");
                return Exchange::Failed;
            }
        }
    }
    let mut left = 1;
    let retired = pool.retain(|link, _| {
        let stays = left == 0 || !is_older(link);
        left -= usize::from(!stays);
        stays
    });
    let Some(link) = retired.removed.into_iter().next() else { return Exchange::Idle };
    meter::evicted("generation");
    link.session.close().await;
    Exchange::Done
}
