//! What a caller gets from a pool.

use std::fmt;

use tokio_postgres::Row;

use super::exchange::Params;
use super::held::Held;
use crate::error::{Error, Result};

/// A connection of a pool; dropping it gives it back.
///
/// A call that is dropped before it has ended, by a timeout say, is cancelled on the server as soon as the connection is used
/// again or given back, once no other call of the same client stands behind it, as the cancel could meet that; in a transaction,
/// everything before it is lost with it. What is left in the session
/// (a SET, an open transaction, a lock) is gone before the next caller gets it, if it was left by a statement that shows it,
/// by [`Self::batch_execute`] or by [`Self::raw`]; what a function does inside is not seen.
pub struct PooledClient {
    pub(super) held: Held,
}

impl PooledClient {
    /// Rows of a query. The statement is prepared once for each connection and then kept, with the types of its parameters: a
    /// column that becomes `timestamptz` gets what was meant for a `timestamp` until the connection is replaced.
    ///
    /// # Errors
    ///
    /// What the server says, as an outcome: [`Error::Conflict`] for a constraint, [`Error::Timeout`] when it was
    /// cancelled, [`Error::Unavailable`] with the code `connection_lost` or `server_read_only` when the connection is of no
    /// more use. [`Error::sqlstate`] has the server's own code, and the source is the driver's error with all its details.
    pub async fn query(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>> {
        self.held.query(sql, params, Vec::push).await
    }

    /// The one row of a query.
    ///
    /// # Errors
    ///
    /// Those of [`Self::query`]; [`Error::NotFound`] and [`Error::Failed`] with the code `row_count` when there is
    /// none, or more than one.
    pub async fn query_one(&self, sql: &str, params: Params<'_>) -> Result<Row> {
        self.query_opt(sql, params).await?.ok_or_else(|| no_row(&self.held))
    }

    /// The one row of a query, or none.
    ///
    /// # Errors
    ///
    /// Those of [`Self::query`]; [`Error::Failed`] with the code `row_count` when there is more than one.
    pub async fn query_opt(&self, sql: &str, params: Params<'_>) -> Result<Option<Row>> {
        let first = |(first, count): &mut (Option<Row>, usize), row| {
            first.get_or_insert(row);
            *count += 1;
        };
        let (row, count) = self.held.query(sql, params, first).await?;
        if count > 1 {
            let message = format!("a statement of {}: {count} rows where one was expected", self.held.label);
            return Err(Error::failed("row_count", message));
        }
        Ok(row)
    }

    /// Runs a statement; the number of rows that it touched.
    ///
    /// # Errors
    ///
    /// Those of [`Self::query`].
    pub async fn execute(&self, sql: &str, params: Params<'_>) -> Result<u64> {
        self.held.execute(sql, params).await
    }

    /// Runs several statements of one text, without parameters. The connection is reset before somebody else gets it.
    ///
    /// # Errors
    ///
    /// Those of [`Self::query`].
    pub async fn batch_execute(&self, sql: &str) -> Result<()> {
        self.held.batch(sql).await
    }

    /// The driver's client, for what is missing here: COPY, portals, types of one's own, other libraries. The connection
    /// is reset before somebody else gets it, but for statements that were prepared by SQL (`PREPARE`): deallocate them.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] when an earlier call was dropped and does not end.
    pub async fn raw(&mut self) -> Result<&mut tokio_postgres::Client> {
        self.held.begin().await?.end();
        let link = self.held.link_mut();
        link.calls.lend();
        Ok(&mut link.session)
    }
}

impl fmt::Debug for PooledClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledClient").field("label", &format_args!("{}", self.held.label)).finish_non_exhaustive()
    }
}

fn no_row(held: &Held) -> Error {
    Error::not_found("row_count", format!("a statement of {}: no row where one was expected", held.label))
}
