//! A transaction over a pooled connection.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

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
    open: AtomicBool,
    failed: AtomicBool,
    conflict: AtomicBool,
    read_only: bool,
}

impl Course {
    pub(super) fn new(options: &TransactionOptions) -> Self {
        Self {
            open: AtomicBool::new(true),
            failed: AtomicBool::new(false),
            conflict: AtomicBool::new(false),
            read_only: options.access == Some(Access::ReadOnly),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.read_only
    }

    pub(super) fn note(&self, trouble: Trouble) {
        self.failed.store(true, Ordering::Release);
        // Prepared statements that no longer fit are prepared anew by then.
        if matches!(trouble, Trouble::Conflict | Trouble::StalePlan) {
            self.conflict.store(true, Ordering::Release);
        }
    }

    fn close(&self) {
        self.open.store(false, Ordering::Release);
    }
}

/// A transaction: a [`PooledClient`] whose statements take effect together, or not at all. Dropped without
/// [`Self::commit`] it is rolled back, before anybody else gets the connection.
///
/// After an error the server refuses all further statements, unless [`PooledClient::batch_execute`] goes back to a savepoint;
/// once the transaction has ended they are [`Error::InvalidInput`] with the code `transaction_over`.
pub struct Transaction {
    client: Arc<PooledClient>,
}

impl Deref for Transaction {
    type Target = PooledClient;

    fn deref(&self) -> &PooledClient {
        &self.client
    }
}

impl Transaction {
    pub(super) fn new(held: Held) -> Self {
        Self { client: Arc::new(PooledClient { held }) }
    }

    /// The same transaction, for the closure that fills it.
    pub(super) fn lent(&self) -> Self {
        Self { client: Arc::clone(&self.client) }
    }

    /// Commits.
    ///
    /// # Errors
    ///
    /// Those of [`PooledClient::query`], where nothing was committed. [`Error::Failed`] with the code `transaction_failed`, when a
    /// statement had failed and the code went on regardless: nothing was committed. [`Error::Failed`] with the code
    /// `outcome_unknown`, when the connection was lost meanwhile: everything was committed, or nothing.
    pub async fn commit(self) -> Result<()> {
        self.finish(Instant::now() + COMMIT).await
    }

    /// Rolls back.
    ///
    /// # Errors
    ///
    /// Those of [`PooledClient::query`]. Nothing was committed in any case.
    pub async fn rollback(self) -> Result<()> {
        self.undo().await
    }

    /// Whether other transactions were in its way.
    pub(super) fn is_in_conflict(&self) -> bool {
        self.course().is_some_and(|course| course.conflict.load(Ordering::Acquire))
    }

    pub(super) async fn undo(&self) -> Result<()> {
        let result = self.held.send_batch(pooling::ROLLBACK).await;
        self.close(result.is_ok());
        self.held.link().session.take_warnings();
        result.map_err(|error| self.held.failed(Failure::Server(error)))
    }

    /// Rolls back unless it has ended. What cannot be undone in time is cleaned as the connection comes back.
    pub(super) async fn abandon(&self) {
        if self.course().is_some_and(Course::is_open) {
            let _ = timeout_at(Instant::now() + COMMIT, self.undo()).await;
        }
    }

    pub(super) async fn finish(&self, deadline: Instant) -> Result<()> {
        if self.course().is_some_and(|course| course.failed.load(Ordering::Acquire))
            && self.held.send_batch(pooling::STILL_GOOD).await.is_err()
        {
            self.undo().await?;
            let message =
                format!("the transaction of {}: a statement had failed, so nothing was committed", self.held.label);
            return Err(Error::failed("transaction_failed", message)
                .with_hint("return the error of a statement that failed, or undo just that one with a savepoint"));
        }
        let sent = timeout_at(deadline.max(Instant::now() + COMMIT), self.held.send_batch(pooling::COMMIT)).await;
        let error = match sent {
            Ok(Ok(())) => {
                self.close(true);
                return Ok(());
            }
            Ok(Err(error)) => error,
            Err(_) => return Err(self.unknown("no answer came")),
        };
        if Trouble::of(&error) == Trouble::Lost || error.code().is_some_and(|code| code.code() == "40003") {
            let cause = error.to_string();
            let _ = self.held.failed(Failure::Server(error));
            return Err(self.unknown(&cause));
        }
        // The server has rolled back.
        self.close(true);
        Err(self.held.failed(Failure::Server(error)))
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

    fn close(&self, ended: bool) {
        if let (true, Some(course)) = (ended, self.course()) {
            course.close();
        }
    }
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").field("label", &format_args!("{}", self.held.label)).finish_non_exhaustive()
    }
}
