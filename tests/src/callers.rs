//! Callers of a pool that never rest, and how they fare.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use shareddb_core::{Error, Pool, PooledClient};
use tokio::task::JoinHandle;

use crate::watch::eventually;

/// What callers have been told.
#[derive(Debug, Default)]
pub struct Tally {
    /// Calls that succeeded.
    pub served: usize,
    /// How often a checkout failed, or a query, by code: `checkout: server_full`.
    pub failures: BTreeMap<String, usize>,
    /// The longest that a checkout took, whatever came of it.
    pub longest_checkout: Duration,
}

/// So many of them; they end with this.
#[derive(Debug)]
pub struct Callers {
    state: Arc<Mutex<State>>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    tally: Tally,
    done: bool,
}

impl Callers {
    /// Of one pool.
    pub fn of(pool: &Pool, callers: usize) -> Self {
        let pool = pool.clone();
        Self::of_changing(callers, move || pool.clone())
    }

    /// Of the pool that there is at each call.
    pub fn of_changing(callers: usize, pool: impl Fn() -> Pool + Clone + Send + 'static) -> Self {
        let state = Arc::<Mutex<State>>::default();
        let tasks = (0..callers).map(|_| tokio::spawn(call(pool.clone(), Arc::clone(&state))));
        Self { tasks: tasks.collect(), state }
    }

    /// What they have been told since this was last asked.
    pub fn take(&self) -> Tally {
        std::mem::take(&mut lock(&self.state).tally)
    }

    /// Whether any of them has failed since then.
    pub fn have_failed(&self) -> bool {
        !lock(&self.state).tally.failures.is_empty()
    }

    /// Returns once so many more calls have succeeded that each caller has had its turn.
    pub async fn go_on(&self) {
        let before = lock(&self.state).tally.served;
        let enough = before + 4 * self.tasks.len();
        eventually("calls succeed", async || lock(&self.state).tally.served > enough).await;
    }

    /// Lets each end its call; what they have been told since it was last asked.
    pub async fn end(mut self) -> Tally {
        lock(&self.state).done = true;
        for task in self.tasks.drain(..) {
            task.await.expect("no caller panics");
        }
        self.take()
    }
}

impl Drop for Callers {
    fn drop(&mut self) {
        lock(&self.state).done = true;
    }
}

async fn call(pool: impl Fn() -> Pool, state: Arc<Mutex<State>>) {
    while !lock(&state).done {
        let started = Instant::now();
        let client = pool().get().await;
        let took = started.elapsed();
        let result = match client {
            Ok(client) => query(&client).await.map_err(|error| ("query", error)),
            Err(error) => Err(("checkout", error)),
        };
        let failed = result.is_err();
        {
            let tally = &mut lock(&state).tally;
            tally.longest_checkout = tally.longest_checkout.max(took);
            match result {
                Ok(()) => tally.served += 1,
                Err((what, error)) => {
                    assert!(error.hint().is_some(), "{error:?}");
                    eprintln!("{what}: {error}");
                    *tally.failures.entry(format!("{what}: {}", error.code())).or_default() += 1;
                }
            }
        }
        if failed {
            // Nobody hammers a server that is down.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn query(client: &PooledClient) -> Result<(), Error> {
    client.query_one("SELECT 1", &[]).await.map(drop)
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("nothing panics here")
}
