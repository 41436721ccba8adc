//! Callers of a pool, and how they fare.

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
    /// What the last one that failed was told.
    pub last_error: Option<String>,
    /// The longest that a checkout took, whatever came of it.
    pub longest_checkout: Duration,
}

impl Tally {
    /// As if the same callers had been told this, too.
    pub fn add(&mut self, other: Self) {
        self.served += other.served;
        self.longest_checkout = self.longest_checkout.max(other.longest_checkout);
        self.last_error = other.last_error.or(self.last_error.take());
        for (what, count) in other.failures {
            *self.failures.entry(what).or_default() += count;
        }
    }
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
    /// That never rest.
    pub fn of(pool: &Pool, callers: usize) -> Self {
        Self::resting(pool, callers, Duration::ZERO)
    }

    /// That rest after each call.
    pub fn resting(pool: &Pool, callers: usize, rest: Duration) -> Self {
        let state = Arc::<Mutex<State>>::default();
        let tasks = (0..callers).map(|_| tokio::spawn(call(pool.clone(), rest, Arc::clone(&state))));
        Self { tasks: tasks.collect(), state }
    }

    /// What they have been told since this was last asked.
    pub fn take(&self) -> Tally {
        std::mem::take(&mut lock(&self.state).tally)
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

async fn call(pool: Pool, rest: Duration, state: Arc<Mutex<State>>) {
    while !lock(&state).done {
        let started = Instant::now();
        let client = pool.get().await;
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
                    tally.last_error = Some(error.to_string());
                    *tally.failures.entry(format!("{what}: {}", error.code())).or_default() += 1;
                }
            }
        }
        // Nobody hammers a server that is down.
        let rest = if failed { rest.max(Duration::from_millis(5)) } else { rest };
        if !rest.is_zero() {
            tokio::time::sleep(rest).await;
        }
    }
}

async fn query(client: &PooledClient) -> Result<(), Error> {
    client.query_one("SELECT 1", &[]).await.map(drop)
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("nothing panics here")
}
