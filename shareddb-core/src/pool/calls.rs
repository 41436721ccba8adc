//! What is known of a session from the calls that went over it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The calls of one connection, and what they left.
#[derive(Default)]
pub(super) struct Calls {
    in_flight: AtomicUsize,
    abandoned: AtomicBool,
    traces: AtomicBool,
    broken: AtomicBool,
}

/// One call; dropped before its end it was abandoned.
pub(super) struct Call<'a> {
    calls: &'a Calls,
    ended: bool,
}

impl Calls {
    pub(super) fn begin(&self) -> Call<'_> {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        Call { calls: self, ended: false }
    }

    /// Something may be left in the session for the next one.
    pub(super) fn leave_traces(&self) {
        self.traces.store(true, Ordering::Release);
    }

    /// The connection must not be used again.
    pub(super) fn breaks(&self) {
        self.broken.store(true, Ordering::Release);
    }

    pub(super) fn has_traces(&self) -> bool {
        self.traces.load(Ordering::Acquire)
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Whether nobody waits for what the server is still doing.
    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }

    /// Whether somebody waits for what the server is doing.
    pub(super) fn is_busy(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) > 0
    }

    /// What was abandoned has ended.
    pub(super) fn settle(&self) {
        self.abandoned.store(false, Ordering::Release);
    }

    /// The session is as at its beginning.
    pub(super) fn clean(&self) {
        self.abandoned.store(false, Ordering::Release);
        self.traces.store(false, Ordering::Release);
    }
}

impl Call<'_> {
    pub(super) fn end(mut self) {
        self.ended = true;
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.calls.abandoned.store(true, Ordering::Release);
        }
        self.calls.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_is_dropped_is_abandoned() {
        let calls = Calls::default();
        calls.begin().end();
        assert!(!calls.is_abandoned() && !calls.is_busy());
        let call = calls.begin();
        assert!(calls.is_busy());
        drop(call);
        assert!(calls.is_abandoned() && !calls.is_busy());
        calls.clean();
        assert!(!calls.is_abandoned());
    }
}
