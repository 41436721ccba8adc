//! How many callers wait for a connection.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts callers for as long as they wait: in the line, while a login is under way, and between two tries.
#[derive(Default)]
// Apart from what every checkout reads of the rest: every one that waits writes here.
#[repr(align(128))]
pub(super) struct Waiters(AtomicUsize);

/// One caller that waits.
pub(super) struct Waiter<'a>(&'a Waiters);

impl Waiters {
    pub(super) fn enter(&self) -> Waiter<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Waiter(self)
    }

    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
