//! Whether a pool fits into what the server admits.

use tokio::time::timeout;

use super::options::PoolOptions;
use crate::connection::Session;
use crate::error::{Error, Result};
use crate::postgres::pooling;

/// The slots of a server, as an ordinary role sees them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    usable: i32,
    role: Option<i32>,
    database: Option<i32>,
}

impl Budget {
    pub(super) async fn ask(session: &Session, options: &PoolOptions) -> Result<Self> {
        let limit = options.recycle;
        const WHAT: &str = "asking how many sessions the server admits";
        let row = timeout(limit, session.query_one(pooling::BUDGET, &[])).await;
        let row = row
            .map_err(|_| Error::timeout("timeout", format!("{WHAT}: no answer in {limit:?}")))?
            .map_err(|source| Error::from_query(WHAT, source))?;
        let budget = Self { usable: row.get(0), role: row.get(1), database: row.get(2) };
        tracing::debug!(?budget, "what the server admits");
        Ok(budget)
    }

    /// The fewest of all limits.
    pub(super) fn slots(&self) -> usize {
        let fewest = [Some(self.usable), self.role, self.database].into_iter().flatten().min().unwrap_or(self.usable);
        usize::try_from(fewest).unwrap_or_default()
    }

    /// Says so when all replicas together do not fit.
    pub(super) fn warn(&self, options: &PoolOptions) {
        let wanted = options.size.saturating_mul(options.replicas);
        if wanted > self.slots() {
            tracing::warn!(
                size = options.size,
                replicas = options.replicas,
                slots = self.slots(),
                "all replicas of this pool together want {wanted} sessions, more than the server admits; make the pool smaller \
                 or have the limit raised"
            );
        }
    }

    /// # Errors
    ///
    /// [`Error::Refused`] when this pool alone wants more than the server has.
    pub(super) fn check(&self, options: &PoolOptions) -> Result<()> {
        if usize::try_from(self.usable).unwrap_or_default() >= options.size {
            return Ok(());
        }
        let message = format!(
            "a pool of {} connections does not fit: the server has {} slots for ordinary roles",
            options.size, self.usable
        );
        Err(Error::refused("pool_too_large", message).with_hint("make the pool smaller: 4 is enough for most apps"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_has_to_fit() {
        let budget = Budget { usable: 10, role: Some(5), database: None };
        assert_eq!(budget.slots(), 5);
        assert!(budget.check(&PoolOptions { size: 10, ..PoolOptions::default() }).is_ok());
        let error = budget.check(&PoolOptions { size: 11, ..PoolOptions::default() }).unwrap_err();
        assert!(matches!(error, Error::Refused(_)) && error.to_string().contains("11"), "{error}");
    }
}
