//! How many connections are open, by the generation of their credentials.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts connections for as long as they are open.
#[derive(Clone, Default)]
pub(super) struct Census(Arc<Mutex<BTreeMap<u64, usize>>>);

/// One connection.
pub(super) struct Counted {
    census: Census,
    generation: u64,
}

impl Census {
    pub(super) fn count(&self, generation: u64) -> Counted {
        *self.lock().entry(generation).or_default() += 1;
        Counted { census: self.clone(), generation }
    }

    pub(super) fn total(&self) -> usize {
        self.lock().values().sum()
    }

    /// Those of other generations than this one.
    pub(super) fn others(&self, generation: u64) -> usize {
        self.lock().iter().filter(|(other, _)| **other != generation).map(|(_, count)| count).sum()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.census.lock();
        if let Some(count) = counts.get_mut(&self.generation) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.generation);
            }
        }
    }
}
