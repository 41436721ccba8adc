//! How a pool is, for health endpoints.

use std::fmt;
use std::time::Duration;

use deadpool::managed::Pool;

use super::health::REJECTED;
use super::manager::Manager;
use super::meter;
use super::shared::Shared;

/// What a pool knows of itself and of its server. Nothing was asked for it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Whether a caller would be served, or why not.
    pub state: PoolState,
    /// The most connections there may be.
    pub size: usize,
    /// Connections that callers have.
    pub in_use: usize,
    /// Connections that are open and nobody has.
    pub idle: usize,
    /// Callers that wait for one.
    pub waiting: usize,
    /// How often the credentials have changed.
    pub generation: u64,
    /// For how long the credentials have been in use.
    pub credentials_age: Duration,
    /// Connections that were opened with older credentials and still serve.
    pub of_older_credentials: usize,
    /// For how long there have been newer credentials that do not work; the pool goes on with those it has.
    pub unproved_for: Option<Duration>,
    /// The share of the server's slots for this login that a full pool takes; unknown before the first connect.
    pub budget_share: Option<f64>,
}

/// Whether a pool serves.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolState {
    /// Connections are there or can be opened, as far as is known.
    Ready,
    /// All connections are in use and callers wait. The database is well.
    Busy,
    /// No connection can be opened.
    DatabaseDown {
        /// For how long.
        since: Duration,
        /// What the last connect failed with.
        reason: String,
    },
    /// The server refuses the credentials; connections that are open go on.
    CredentialsRejected {
        /// For how long.
        since: Duration,
    },
    /// The server, the database or the role has no slot for another connection; those that are open go on.
    ServerFull {
        /// For how long.
        since: Duration,
    },
    /// The pool was closed.
    Closed,
}

impl Snapshot {
    pub(super) fn of(pool: &Pool<Manager>, shared: &Shared) -> Self {
        let waiting = shared.waiters.count();
        let in_use = shared.holders.count();
        let credentials = shared.credentials();
        let state = if shared.has_ended() || pool.is_closed() {
            PoolState::Closed
        } else if let Some((error, since)) = shared.health.trouble() {
            match error.code() {
                REJECTED => PoolState::CredentialsRejected { since },
                "server_full" | "connection_limit_reached" => PoolState::ServerFull { since },
                _ => PoolState::DatabaseDown { since, reason: error.to_string() },
            }
        } else if waiting > 0 && in_use >= shared.options.size {
            PoolState::Busy
        } else {
            PoolState::Ready
        };
        #[allow(clippy::cast_precision_loss, reason = "servers have thousands of slots at most")]
        let share = |slots: usize| shared.options.size as f64 / slots.max(1) as f64;
        Self {
            state,
            size: shared.options.size,
            in_use,
            idle: shared.census.total().saturating_sub(in_use),
            waiting,
            generation: credentials.generation,
            credentials_age: credentials.since.elapsed(),
            of_older_credentials: shared.census.others(credentials.generation),
            unproved_for: shared.unproved_for(),
            budget_share: shared.budget.get().map(|budget| share(budget.slots())),
        }
    }

    pub(super) fn measure(&self) {
        meter::state(self.in_use, self.idle, self.waiting, self.budget_share, self.credentials_age);
    }

    /// Whether a new caller can expect to be served in time.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, PoolState::Ready | PoolState::Busy)
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.state {
            PoolState::Ready => f.write_str("ready")?,
            PoolState::Busy => f.write_str("busy")?,
            PoolState::DatabaseDown { since, reason } => {
                write!(f, "database down for {:.0} s ({reason})", since.as_secs_f64())?;
            }
            PoolState::CredentialsRejected { since } => {
                write!(f, "credentials rejected for {:.0} s", since.as_secs_f64())?;
            }
            PoolState::ServerFull { since } => write!(f, "server full for {:.0} s", since.as_secs_f64())?,
            PoolState::Closed => f.write_str("closed")?,
        }
        write!(f, ": {} of {} in use, {} idle, {} waiting", self.in_use, self.size, self.idle, self.waiting)
    }
}
