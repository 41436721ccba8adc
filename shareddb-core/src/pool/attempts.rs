//! Transactions, tried again while others are in their way.

use std::future::Future;
use std::panic::Location;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::backoff::full_jitter;
use super::exchange::Failure;
use super::holders::Label;
use super::transaction::Course;
use super::{Pool, Transaction, TransactionOptions, meter};
use crate::error::{Error, Result, Trouble};

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Further than any clock reaches would be too far for the runtime's timers.
const FOR_EVER: Duration = Duration::from_secs(86_400 * 365 * 30);

impl Pool {
    /// Runs a transaction with the options of [`TransactionOptions::default`]; see [`Self::transaction_with`].
    ///
    /// ```no_run
    /// # use shareddb_core::{Error, Pool};
    /// # async fn app(pool: Pool, from: i64, to: i64) -> Result<(), Error> {
    /// pool.transaction(|tx| async move {
    ///     tx.execute("UPDATE account SET balance = balance - 1 WHERE id = $1", &[&from]).await?;
    ///     tx.execute("UPDATE account SET balance = balance + 1 WHERE id = $1", &[&to]).await
    /// })
    /// .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`Self::transaction_with`].
    #[track_caller]
    pub fn transaction<T, E, W, F>(&self, work: W) -> impl Future<Output = Result<T, E>> + use<'_, T, E, W, F>
    where
        W: FnMut(Transaction) -> F,
        F: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        self.attempt(TransactionOptions::default(), Label::Place(Location::caller()), work)
    }

    /// Runs a transaction: `work` fills it, `Ok` commits it, `Err` rolls it back.
    ///
    /// When other transactions are in its way (40001, 40P01) all of it is done again, whatever `work` makes of that error;
    /// so nothing but the database should be changed in there. Values that `work` uses have to be there each time:
    /// `let name = &name;` before it lends one to all of them.
    ///
    /// # Errors
    ///
    /// What `work` returns; those of [`Self::get`] and of [`Transaction::commit`]. [`Error::Conflict`] when the
    /// others stayed in its way, and [`Error::Timeout`] with the code `transaction_deadline` after
    /// [`TransactionOptions::deadline`]; nothing was committed then. With the code `outcome_unknown` it may have been.
    #[track_caller]
    pub fn transaction_with<T, E, W, F>(
        &self,
        options: TransactionOptions,
        work: W,
    ) -> impl Future<Output = Result<T, E>> + use<'_, T, E, W, F>
    where
        W: FnMut(Transaction) -> F,
        F: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        self.attempt(options, Label::Place(Location::caller()), work)
    }

    /// Begins a transaction that its caller ends, and that is tried once.
    ///
    /// # Errors
    ///
    /// Those of [`Self::get`], and of [`super::PooledClient::query`].
    #[track_caller]
    pub fn begin(&self, options: TransactionOptions) -> impl Future<Output = Result<Transaction>> + Send + '_ {
        let label = Label::Place(Location::caller());
        async move { self.open(&options, label).await }
    }

    async fn attempt<T, E, W, F>(&self, options: TransactionOptions, label: Label, mut work: W) -> Result<T, E>
    where
        W: FnMut(Transaction) -> F,
        F: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        let now = Instant::now();
        let deadline = now.checked_add(options.deadline).unwrap_or(now + FOR_EVER);
        let late = || {
            let message =
                format!("the transaction of {label} was not done in {:?}; nothing was committed", options.deadline);
            E::from(Error::timeout("transaction_deadline", message))
        };
        for attempt in 1.. {
            let begun = timeout_at(deadline, self.open(&options, label)).await;
            let transaction = begun.map_err(|_| late())?.map_err(E::from)?;
            let result = timeout_at(deadline, work(transaction.lent())).await.map_err(|_| late())?;
            let failure = match result {
                Ok(value) if !transaction.is_in_conflict() => match transaction.finish(deadline).await {
                    Ok(()) => return Ok(value),
                    Err(error) => E::from(error),
                },
                Ok(_) => {
                    let message = format!("the transaction of {label}: others stayed in its way in {attempt} tries");
                    E::from(Error::conflict("concurrent_change", message))
                }
                Err(error) => error,
            };
            let again = transaction.is_in_conflict() && attempt < options.attempts;
            if !again {
                transaction.abandon().await;
                return Err(failure);
            }
            transaction.abandon().await;
            meter::retried();
            let pause = full_jitter(FIRST_PAUSE, LONGEST_PAUSE, attempt);
            if Instant::now() + pause >= deadline {
                return Err(failure);
            }
            tokio::time::sleep(pause).await;
        }
        Err(late())
    }

    /// A connection that has ended unnoticed is found out by the BEGIN, which can be sent again over another one.
    async fn open(&self, options: &TransactionOptions, label: Label) -> Result<Transaction> {
        let mut left = self.shared.options.size;
        loop {
            let mut held = self.hold(label).await?;
            held.course = Some(Course::new(options));
            let (error, lost) = match timeout(self.shared.options.connect, held.send_batch(&options.begin())).await {
                Ok(Ok(())) => return Ok(Transaction::new(held)),
                Ok(Err(error)) => {
                    let lost = Trouble::of(&error) == Trouble::Lost;
                    (held.failed(Failure::Server(error)), lost)
                }
                // A BEGIN waits for nobody: this server is gone.
                Err(_) => (held.unsettled(), true),
            };
            if !lost || left == 0 {
                return Err(error);
            }
            left -= 1;
        }
    }
}
