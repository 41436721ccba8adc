//! One connection of a pool.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::SqlState;

use super::calls::Calls;
use super::canceller::Canceller;
use super::census::Counted;
use super::options::{PoolOptions, Statements};
use super::statement_cache::StatementCache;
use crate::connection::Session;
use crate::postgres::pooling;

/// How long an abandoned statement may take to end after it was cancelled.
const DRAIN: Duration = Duration::from_secs(2);
/// Statements that wait in line, or have not got to the server yet, need more than one.
const BETWEEN_CANCELS: Duration = Duration::from_millis(20);
/// A connection that was used this recently is taken to be alive.
const FRESH: Duration = Duration::from_secs(1);

/// A session, with what the pool knows of it.
pub(super) struct Link {
    pub(super) session: Session,
    pub(super) calls: Calls,
    pub(super) statements: StatementCache,
    pub(super) canceller: Arc<Canceller>,
    /// Of the credentials that it was opened with.
    pub(super) generation: u64,
    /// When it has lived long enough.
    pub(super) due: Instant,
    /// When it was last known to be there: somebody gave it back, or the server was asked.
    pub(super) rested: Instant,
    /// The suspicion that it has been cleared of.
    pub(super) cleared: u64,
    pub(super) _counted: Counted,
}

/// What the server has said when it was asked.
pub(super) enum Verdict {
    Well,
    /// It is there, and takes no writes.
    ReadOnly,
    Dead,
}

impl Link {
    /// Whether it may go on, as far as that can be told without asking the server.
    pub(super) fn is_usable(&self) -> bool {
        !self.session.is_closed() && !self.calls.is_broken()
    }

    pub(super) fn is_old(&self) -> bool {
        Instant::now() > self.due
    }

    /// Whether it is given to the next one as it is.
    pub(super) fn is_clean(&self) -> bool {
        !self.calls.has_traces() && self.calls.is_settled()
    }

    /// Whether there is no reason to ask the server.
    pub(super) fn is_trusted(&self, suspicion: u64, now: Instant) -> bool {
        self.cleared == suspicion && now.saturating_duration_since(self.rested) <= FRESH
    }

    /// Asks the server whether it is there, and takes writes where that is in doubt. Has no limit of its own.
    pub(super) async fn verify(&mut self, suspicion: u64) -> Verdict {
        let writes = if self.cleared == suspicion {
            self.session.check_connection().await.map(|()| true)
        } else {
            takes_writes(&self.session).await
        };
        let Ok(writes) = writes else { return Verdict::Dead };
        self.cleared = suspicion;
        self.rested = Instant::now();
        if writes { Verdict::Well } else { Verdict::ReadOnly }
    }

    /// Ends what was abandoned, if nobody waits for anything. In a `transaction` it ends what somebody waits for as well, and the
    /// transaction has failed, also where the server was through before. `false`: it did not end in time, and nobody must use the
    /// session.
    pub(super) async fn settle(&self, transaction: bool) -> bool {
        let Some(_turn) = self.calls.turn(transaction).await else { return true };
        let settled = match transaction {
            true => self.hush().await && self.drain().await && self.fail().await,
            false => self.drain().await,
        };
        if settled {
            self.calls.settle();
        }
        settled
    }

    /// Fails the transaction. `false`: as above.
    async fn fail(&self) -> bool {
        let failed = timeout(DRAIN, self.session.batch_execute(pooling::FAIL)).await;
        matches!(failed, Ok(Err(error)) if error.as_db_error().is_some())
    }

    /// Ends everything, also what somebody waits for. `false`: as above.
    pub(super) async fn silence(&self) -> bool {
        self.hush().await && self.settle(false).await
    }

    /// Cancels until no call is in flight. `false`: as above.
    async fn hush(&self) -> bool {
        let silent = timeout(DRAIN, async {
            while timeout(BETWEEN_CANCELS, self.calls.rest()).await.is_err() {
                self.cancel().await;
            }
        });
        silent.await.is_ok()
    }

    async fn cancel(&self) {
        if self.canceller.cancel().await.is_err() {
            tracing::debug!("the server takes no request to cancel");
        }
    }

    /// Ends what is going on. `false`: as above.
    async fn drain(&self) -> bool {
        let ended = async {
            loop {
                // The server answers in turn: once it answers this, what was before has ended.
                let mut last = pin!(self.session.check_connection());
                let mut pause = BETWEEN_CANCELS;
                let answer = loop {
                    self.cancel().await;
                    // What was abandoned may have got there after the cancel, which found nothing to do then.
                    match timeout(pause, last.as_mut()).await {
                        Ok(answer) => break answer,
                        Err(_) => pause *= 2,
                    }
                };
                // It may meet the last one itself.
                if !answer.as_ref().is_err_and(|error| error.code() == Some(&SqlState::QUERY_CANCELED)) {
                    return answer.is_ok();
                }
            }
        };
        timeout(DRAIN, ended).await.unwrap_or(false)
    }

    /// Makes it as it was at the beginning. `false`: that did not come about in time, and nobody must use it again.
    pub(super) async fn wash(&self, options: &PoolOptions) -> bool {
        if self.calls.may_be_working() && !self.drain().await {
            return false;
        }
        if !self.reset(options).await && (!self.is_usable() || !self.drain().await || !self.reset(options).await) {
            return false;
        }
        self.calls.clean();
        self.is_usable()
    }

    async fn reset(&self, options: &PoolOptions) -> bool {
        let statements = match options.statements {
            Statements::Cached => pooling::RESET,
            Statements::Unnamed => pooling::ROLLBACK,
        };
        let reset = timeout(options.recycle, self.session.batch_execute(statements)).await;
        // The server remarks that there was no transaction, where there was none.
        self.session.take_warnings();
        matches!(reset, Ok(Ok(())))
    }
}

/// Whether the server takes writes over a session.
pub(super) async fn takes_writes(session: &Session) -> Result<bool, tokio_postgres::Error> {
    let rows = session.simple_query(pooling::READ_ONLY).await?;
    Ok(rows.iter().all(|row| match row {
        SimpleQueryMessage::Row(row) => row.get(0) == Some("off"),
        _ => true,
    }))
}
