//! A pool of connections that never hangs, leaves nothing behind, and follows its credentials.
//!
//! It stands on deadpool's generic pool: that counts, queues and hands out; what a connection is, when it is good, and how
//! it comes back is decided here.

mod arrivals;
mod attempts;
mod backoff;
mod budget;
mod calls;
mod canceller;
mod census;
mod closing;
mod dialling;
mod exchange;
mod fault;
mod health;
mod held;
mod holders;
mod keeper;
mod link;
mod manager;
mod meter;
mod options;
mod parameter;
mod pooled_client;
#[cfg(feature = "kubernetes")]
mod secret;
mod shared;
mod snapshot;
mod source;
mod statement_cache;
mod transaction;
mod waiters;

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool::managed::{self, Object, PoolError, QueueMode, Timeouts};
use tracing::Instrument as _;

pub use options::{PoolOptions, Statements};
pub use pooled_client::PooledClient;
pub use snapshot::{PoolState, Snapshot};
pub use source::CredentialSource;
pub use transaction::{Access, Isolation, Transaction, TransactionOptions};

use crate::error::{Error, Result};
use health::Health;
use held::Held;
use holders::Label;
use keeper::Kept;
use manager::{Manager, looked_at};
use shared::Shared;

/// What came of asking deadpool for a connection.
type Try = std::result::Result<Object<Manager>, PoolError<Error>>;

/// Connections to one database, opened as they are needed and given to one caller at a time. Clones are the same pool.
///
/// Nothing waits without end: [`PoolOptions`] has the limits. A connection that was idle for more than a second is looked
/// at before it is given out; what a caller abandons is cancelled on the server; what it leaves behind in the session is
/// removed. A login, and a look, go on when the caller that was the reason for them has gone away, and serve the next one.
/// Sessions that take no writes are left once new ones do; where none does, they stay. A mounted Secret is looked at every
/// two seconds, and before each login: new credentials are proved by one connection, then the others are replaced, the new
/// one before the old one; one that a caller keeps is replaced after it has come back. While they do not work the pool goes
/// on with the connections it has.
///
/// All of that is done in the runtime of a caller, and in another one's when that has ended.
///
/// Limits for statements, locks and idle transactions are those of the app's role (`shareddb create --set
/// statement_timeout=30s`); [`ConnectionConfig::with_option`](crate::ConnectionConfig::with_option) sets others for one pool.
///
/// ```no_run
/// use shareddb_core::{ConnectionConfig, Error, Pool};
///
/// # async fn app() -> Result<(), Error> {
/// let pool = Pool::new(ConnectionConfig::from_env()?)?;
/// let client = pool.get().await?;
/// let row = client.query_one("SELECT count(*) FROM orders WHERE customer = $1", &[&17]).await?;
/// # let _: i64 = row.get(0);
/// # Ok(())
/// # }
/// ```
///
/// # Metrics
///
/// With the feature `metrics`, through the facade of that name. All durations are in seconds; gauges are set every two
/// seconds.
///
/// | name | kind | what |
/// |---|---|---|
/// | `shareddb_pool_wait_seconds` | histogram | until a caller had a connection, or was told that there is none |
/// | `shareddb_pool_acquire_failures_total` | counter | callers that were told so, by `code` of the error |
/// | `shareddb_pool_hold_seconds` | histogram | for how long callers kept connections |
/// | `shareddb_pool_connect_seconds` | histogram | how long logins took, failed ones as well |
/// | `shareddb_pool_connects_total` | counter | logins, by `outcome` (`ok` or the code of the error) and `sqlstate` |
/// | `shareddb_pool_evictions_total` | counter | connections that were given up, by `reason`: `idle`, `life`, `closed`, `dead`, `silent`, `read_only`, `generation`, `broken` |
/// | `shareddb_pool_transaction_retries_total` | counter | transactions that were begun again |
/// | `shareddb_pool_rotations_total` | counter | new credentials that were tried, by `outcome`: `proved`, `failed` |
/// | `shareddb_pool_generation` | gauge | how often the credentials have changed |
/// | `shareddb_pool_credential_age_seconds` | gauge | for how long the credentials have been in use |
/// | `shareddb_pool_in_use` | gauge | connections that callers have |
/// | `shareddb_pool_idle` | gauge | connections that nobody has |
/// | `shareddb_pool_waiting` | gauge | callers that wait |
/// | `shareddb_pool_budget_share` | gauge | the share of the server's slots for this login that a full pool takes |
#[derive(Clone)]
pub struct Pool {
    connections: managed::Pool<Manager>,
    shared: Arc<Shared>,
    kept: Kept,
}

impl Pool {
    /// A pool with the options of [`PoolOptions::default`]. Nothing is opened yet.
    ///
    /// # Errors
    ///
    /// Those of [`Self::with_options`].
    pub fn new(source: impl Into<CredentialSource>) -> Result<Self> {
        Self::with_options(source, PoolOptions::default())
    }

    /// A pool. Nothing is opened yet.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] when an option is out of range, when the config could connect nowhere, and when a config
    /// with settings for the session is to go through a pooler, which takes none ([`Statements::Unnamed`]).
    pub fn with_options(source: impl Into<CredentialSource>, options: PoolOptions) -> Result<Self> {
        options.check()?;
        let source = source.into();
        let config = source.first().config;
        config.tokio_postgres()?;
        if options.statements == Statements::Unnamed && config.has_options() {
            let message = "the connection settings: a pooler takes no settings with the login (`options`)";
            return Err(Error::invalid_input("pool_options_invalid", message)
                .with_hint("set them for the role instead: they then hold behind the pooler, too"));
        }
        let shared = Arc::new(Shared::new(source, options));
        let connections = managed::Pool::builder(Manager(Arc::clone(&shared)))
            .max_size(shared.options.size)
            // The one that was used last is the likeliest to be alive, and the others get the chance to close.
            .queue_mode(QueueMode::Lifo)
            .runtime(deadpool::Runtime::Tokio1)
            .build()
            .map_err(|source| Error::failed("pool_failed", "cannot make the pool").with_source(source))?;
        Ok(Self { connections, shared, kept: Kept::default() })
    }

    /// A connection, for as long as the caller keeps it. In errors about connections that are kept too long the caller is
    /// called by its place in the source; [`Self::get_for`] gives it a name.
    ///
    /// # Errors
    ///
    /// Each says in one sentence at which stage it failed, and why. [`Error::Timeout`] with the code `pool_exhausted` when
    /// all stayed in use for [`PoolOptions::wait`]; [`Error::PermissionDenied`] with the code `credentials_rejected`;
    /// [`Error::Unavailable`] with `server_full` or `connection_limit_reached` when the server, the database or the role
    /// has had no slot for as long; with `pool_closed` after [`Self::close`], and `runtime_ended` where nothing is run beside the
    /// caller any more; [`Error::Refused`] with `pool_too_large` when
    /// the pool is larger than the server; and those of [`crate::ConnectionConfig::connect`].
    #[track_caller]
    pub fn get(&self) -> impl Future<Output = Result<PooledClient>> + Send + '_ {
        let label = Label::Place(Location::caller());
        async move { Ok(PooledClient { held: self.hold(label).await? }) }
    }

    /// The same for a caller that has a name.
    ///
    /// # Errors
    ///
    /// Those of [`Self::get`].
    pub async fn get_for(&self, label: &'static str) -> Result<PooledClient> {
        Ok(PooledClient { held: self.hold(Label::Word(label)).await? })
    }

    /// How the pool is. Asks nobody, so that it can be called at any moment.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(&self.connections, &self.shared)
    }

    async fn hold(&self, label: Label) -> Result<Held> {
        self.kept.ensure(&self.connections, &self.shared);
        const AT_ONCE: Timeouts = Timeouts { wait: Some(Duration::ZERO), create: None, recycle: None };
        let object = match self.connections.timeout_get(&AT_ONCE).await {
            Ok(object) if self.is_trusted(&object) => {
                meter::acquired(Duration::ZERO, None);
                object
            }
            first => self.wait_for_one(first).await?,
        };
        let since = given_out(&object);
        let held = Held::new(object, Arc::clone(&self.shared), label, since);
        // Whoever closes the pool waits for those who are noted, and for nobody who comes later.
        if self.connections.is_closed() {
            return Err(fault::closed());
        }
        Ok(held)
    }

    /// Whether there is no reason to ask the server about it.
    fn is_trusted(&self, object: &Object<Manager>) -> bool {
        object.is_trusted(self.shared.suspicion(), given_out(object))
    }

    /// Waits for a connection that comes back and is well, or for what is in the way of a new one to pass.
    async fn wait_for_one(&self, first: Try) -> Result<Object<Manager>> {
        let _waits = self.shared.waiters.enter();
        let asked = Instant::now();
        let wait = pin!(self.wait_since(asked, first));
        let span = tracing::debug_span!("pool.acquire");
        // To enter one that nobody takes has its price, too.
        let result = if span.is_disabled() { wait.await } else { wait.instrument(span).await };
        let until = result.as_ref().map_or_else(|_| Instant::now(), given_out);
        meter::acquired(until.saturating_duration_since(asked), result.as_ref().err());
        result
    }

    async fn wait_since(&self, asked: Instant, first: Try) -> Result<Object<Manager>> {
        let deadline = asked + self.shared.options.wait;
        let left = |now| deadline.saturating_duration_since(now);
        let (mut last, mut now) = (first, asked);
        loop {
            match last {
                Ok(object) if self.is_trusted(&object) => return Ok(object),
                Ok(object) => {
                    if let Some(object) = looked_at(object, &self.shared).await {
                        return Ok(object);
                    }
                    now = Instant::now();
                }
                Err(PoolError::Backend(error)) if !left(now).is_zero() && self.may_pass(&error) => {
                    let pause = backoff::full_jitter(Duration::from_millis(50), left(now), 0);
                    tokio::time::sleep(pause).await;
                    now = Instant::now();
                }
                Err(PoolError::Timeout(_)) if !left(now).is_zero() => {}
                Err(other) => return Err(self.refusal(other)),
            }
            let timeouts = Timeouts { wait: Some(left(now)), create: None, recycle: None };
            last = self.connections.timeout_get(&timeouts).await;
            if last.is_err() {
                now = Instant::now();
            }
        }
    }

    /// Whether waiting helps. Credentials that never worked are told of at once.
    fn may_pass(&self, error: &Error) -> bool {
        let shared = &self.shared;
        Health::is_passing(error)
            && (error.code() != health::REJECTED
                || shared.health.has_connected() && (shared.source.rotates() || shared.census.total() > 0))
    }

    fn refusal(&self, error: PoolError<Error>) -> Error {
        match error {
            PoolError::Timeout(_) => fault::exhausted(&self.shared),
            PoolError::Closed => fault::closed(),
            PoolError::Backend(error) => fault::unconnected(error),
            other => Error::failed("pool_failed", format!("the pool: {other}")),
        }
    }
}

/// When deadpool gave it out, or the server answered after that. To read the clock again would be a fair part of what a
/// checkout costs.
fn given_out(object: &Object<Manager>) -> Instant {
    let metrics = Object::metrics(object);
    metrics.recycled.unwrap_or(metrics.created).max(object.rested)
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("source", &self.shared.source).field("state", &self.snapshot()).finish()
    }
}
