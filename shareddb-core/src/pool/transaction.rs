//! A transaction over a pooled connection.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::exchange::Failure;
use super::held::Held;
use super::pooled_client::PooledClient;
use crate::error::{Error, Result, Trouble};
use crate::postgres::pooling;

/// However late it is, a COMMIT that was sent is given this long: cut off, nobody knows what came of it.
const COMMIT: Duration = Duration::from_secs(5);

/// How far transactions are kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isolation {
    /// Each statement sees what was committed before it.
    ReadCommitted,
    /// All statements see what was committed before the first one.
    RepeatableRead,
    /// As if there were one transaction after the other.
    Serializable,
}

/// Whether a transaction may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// It may.
    ReadWrite,
    /// It may not.
    ReadOnly,
}

/// How a transaction is run.
///
/// ```
/// use shareddb_core::{Isolation, TransactionOptions};
///
/// let options = TransactionOptions { isolation: Some(Isolation::Serializable), ..TransactionOptions::default() };
/// assert_eq!(options.attempts, 5);
/// ```
#[derive(Clone, Debug)]
pub struct TransactionOptions {
    /// `None`: the server's default, which is read committed.
    pub isolation: Option<Isolation>,
    /// `None`: the server's default, which is to write.
    pub access: Option<Access>,
    /// How often it is tried at most when other transactions are in its way: 5.
    pub attempts: u32,
    /// How long all tries together may take, with the pauses between them: 30 s.
    pub deadline: Duration,
}

impl Default for TransactionOptions {
    fn default() -> Self {
        Self { isolation: None, access: None, attempts: 5, deadline: Duration::from_secs(30) }
    }
}

impl TransactionOptions {
    pub(super) fn begin(&self) -> String {
        let isolation = self.isolation.map(|isolation| match isolation {
            Isolation::ReadCommitted => "READ COMMITTED",
            Isolation::RepeatableRead => "REPEATABLE READ",
            Isolation::Serializable => "SERIALIZABLE",
        });
        let access = self.access.map(|access| match access {
            Access::ReadWrite => "READ WRITE",
            Access::ReadOnly => "READ ONLY",
        });
        pooling::begin(isolation, access)
    }
}

/// What has happened in a transaction, whatever its code makes of it.
pub(super) struct Course {
    /// Statements are taken.
    open: AtomicBool,
    /// The server has nothing of it any more.
    over: AtomicBool,
    conflict: AtomicBool,
    read_only: bool,
}

impl Course {
    pub(super) fn new(options: &TransactionOptions) -> Self {
        Self {
            open: AtomicBool::new(true),
            over: AtomicBool::new(false),
            conflict: AtomicBool::new(false),
            read_only: options.access == Some(Access::ReadOnly),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.read_only
    }

    pub(super) fn note(&self, trouble: Trouble) {
        // Prepared statements that no longer fit are prepared anew by then.
        if matches!(trouble, Trouble::Conflict | Trouble::StalePlan) {
            self.conflict.store(true, Ordering::Release);
        }
    }

    /// From now on no statement is taken.
    fn close(&self) {
        self.open.store(false, Ordering::Release);
    }

    fn ends(&self) {
        self.over.store(true, Ordering::Release);
    }
}

/// A transaction: a [`PooledClient`] whose statements take effect together, or not at all. Dropped without
/// [`Self::commit`] it is rolled back, before anybody else gets the connection.
///
/// After an error the server refuses all further statements, unless [`PooledClient::batch_execute`] goes back to a savepoint;
/// a call that is dropped before its end is such an error, too. Once the transaction ends they are [`Error::InvalidInput`]
/// with the code `transaction_over`.
pub struct Transaction {
    client: Arc<PooledClient>,
    /// Somebody else ends it.
    lent: bool,
}

impl Deref for Transaction {
    type Target = PooledClient;

    fn deref(&self) -> &PooledClient {
        &self.client
    }
}

impl Transaction {
    pub(super) fn new(held: Held) -> Self {
        Self { client: Arc::new(PooledClient { held }), lent: false }
    }

    /// The same transaction, for the closure that fills it.
    pub(super) fn lent(&self) -> Self {
        Self { client: Arc::clone(&self.client), lent: true }
    }

    /// Commits.
    ///
    /// # Errors
    ///
    /// Those of [`PooledClient::query`], where nothing was committed. [`Error::Failed`] with the code `transaction_failed`, when a
    /// statement had failed or was given up and the code went on regardless: nothing was committed. [`Error::Failed`] with the
    /// code `outcome_unknown`, when the connection was lost meanwhile: everything was committed, or nothing.
    /// [`Error::InvalidInput`] with the code `transaction_lent` in the closure of [`super::Pool::transaction`], which ends its
    /// transaction by what it returns.
    pub async fn commit(self) -> Result<()> {
        self.must_be_own()?;
        self.finish(Instant::now() + COMMIT).await
    }

    /// Rolls back.
    ///
    /// # Errors
    ///
    /// Those of [`PooledClient::query`], and `transaction_lent` as for [`Self::commit`]. Nothing was committed in any case.
    pub async fn rollback(self) -> Result<()> {
        self.must_be_own()?;
        self.undo().await
    }

    fn must_be_own(&self) -> Result<()> {
        if !self.lent {
            return Ok(());
        }
        let message = format!("the transaction of {} is not its closure's to end", self.held.label);
        Err(Error::invalid_input("transaction_lent", message)
            .with_hint("return Ok to commit and Err to roll back, or begin a transaction with Pool::begin"))
    }

    /// Whether other transactions were in its way.
    pub(super) fn is_in_conflict(&self) -> bool {
        self.course().is_some_and(|course| course.conflict.load(Ordering::Acquire))
    }

    /// Rolls back, also what other tasks are still doing in it.
    pub(super) async fn undo(&self) -> Result<()> {
        self.close();
        let link = self.held.link();
        if !link.silence().await {
            return Err(self.held.unsettled());
        }
        let Ok(result) = timeout(COMMIT, self.held.send_batch(pooling::ROLLBACK)).await else {
            return Err(self.held.unsettled());
        };
        link.session.take_warnings();
        self.ended(result.is_ok());
        result.map_err(|error| self.held.failed(Failure::Server(error)))
    }

    /// Rolls back unless it has ended. What cannot be undone is cleaned as the connection comes back.
    pub(super) async fn abandon(&self) {
        if self.course().is_some_and(|course| !course.is_over()) {
            let _ = self.undo().await;
        }
    }

    pub(super) async fn finish(&self, deadline: Instant) -> Result<()> {
        self.close();
        let latest = deadline.max(Instant::now() + COMMIT);
        let link = self.held.link();
        // What was begun belongs to it; behind the COMMIT it would be a transaction of its own.
        if timeout_at(latest, link.calls.rest()).await.is_err() {
            self.undo().await?;
            let message =
                format!("the transaction of {}: a statement did not end, so nothing was committed", self.held.label);
            return Err(Error::timeout("transaction_deadline", message));
        }
        if !link.settle(true).await {
            return Err(self.held.unsettled());
        }
        let Ok(sent) = timeout_at(latest, self.held.send_batch(pooling::COMMIT)).await else {
            link.calls.breaks();
            return Err(self.unknown("no answer came"));
        };
        let Err(error) = sent else {
            self.ended(true);
            return Ok(());
        };
        let state = error.code().map(|state| state.code().to_owned());
        if state.as_deref() == Some(pooling::FAILED) {
            self.undo().await?;
            let message = format!(
                "the transaction of {}: a statement had failed or was given up, so nothing was committed",
                self.held.label
            );
            return Err(Error::failed("transaction_failed", message)
                .with_hint("return the error of a statement that failed, or undo just that one with a savepoint"));
        }
        if Trouble::of(&error) == Trouble::Lost || state.as_deref() == Some("40003") {
            let cause = error.to_string();
            let _ = self.held.failed(Failure::Server(error));
            return Err(self.unknown(&cause));
        }
        // Cancelled before the COMMIT it is still there; else the server has rolled back, and remarks that.
        let error = self.held.failed(Failure::Server(error));
        self.undo().await?;
        Err(error)
    }

    fn unknown(&self, cause: &str) -> Error {
        let message = format!(
            "the transaction of {}: the connection was lost while it was committed ({cause}); it is committed in full or not at all",
            self.held.label
        );
        Error::failed("outcome_unknown", message).with_hint("look whether its changes are there before doing it again")
    }

    fn course(&self) -> Option<&Course> {
        self.held.course.as_ref()
    }

    fn close(&self) {
        self.course().into_iter().for_each(Course::close);
    }

    fn ended(&self, ended: bool) {
        self.course().filter(|_| ended).into_iter().for_each(Course::ends);
    }
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").field("label", &format_args!("{}", self.held.label)).finish_non_exhaustive()
    }
}
