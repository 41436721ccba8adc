//! The statements that one connection has prepared.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_postgres::Statement;

/// A session holds memory of the server for each: about 25 KB for a join.
const MOST: usize = 100;

/// Statements by their text. The one that was not used for longest makes room.
#[derive(Default)]
pub(super) struct StatementCache(Mutex<Known>);

#[derive(Default)]
struct Known {
    statements: HashMap<String, Used>,
    uses: u64,
}

struct Used {
    statement: Statement,
    traces: bool,
    last: u64,
    /// It was used after it was prepared.
    reused: bool,
}

/// A prepared statement, and whether it can leave something in its session.
pub(super) struct Prepared {
    pub(super) statement: Statement,
    pub(super) traces: bool,
}

impl StatementCache {
    pub(super) fn find(&self, sql: &str) -> Option<Prepared> {
        let mut known = self.lock();
        known.uses += 1;
        let now = known.uses;
        let used = known.statements.get_mut(sql)?;
        used.last = now;
        used.reused = true;
        Some(Prepared { statement: used.statement.clone(), traces: used.traces })
    }

    pub(super) fn insert(&self, sql: &str, prepared: &Prepared) {
        let mut known = self.lock();
        if known.statements.len() >= MOST {
            let oldest = known.statements.iter().min_by_key(|(_, used)| used.last).map(|(sql, _)| sql.clone());
            oldest.and_then(|sql| known.statements.remove(&sql));
        }
        let used =
            Used { statement: prepared.statement.clone(), traces: prepared.traces, last: known.uses, reused: false };
        known.statements.insert(sql.to_owned(), used);
    }

    /// Forgets one. Whether it had been in use before.
    pub(super) fn forget(&self, sql: &str) -> bool {
        self.lock().statements.remove(sql).is_some_and(|used| used.reused)
    }

    /// Forgets all of them; the server is told as the last user of each lets go.
    pub(super) fn clear(&self) {
        self.lock().statements.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
