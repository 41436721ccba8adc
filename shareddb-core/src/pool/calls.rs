//! What is known of a session from the calls that went over it.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The calls of one connection, and what they left.
#[derive(Default)]
pub(super) struct Calls {
    count: Mutex<Count>,
    /// The last call in flight has ended, or nobody settles what was abandoned any more.
    moved: Notify,
    traces: AtomicBool,
    lent: AtomicBool,
    broken: AtomicBool,
}

#[derive(Default)]
struct Count {
    in_flight: usize,
    abandoned: bool,
    settling: bool,
    /// Somebody waits until none is in flight.
    awaited: bool,
}

/// One call; dropped before its end it was abandoned.
pub(super) struct Call<'a> {
    calls: &'a Calls,
    ended: bool,
}

/// Whoever ends what was abandoned: nobody begins anything meanwhile, as a cancel could meet it.
pub(super) struct Settling<'a>(&'a Calls);

impl Calls {
    /// Begins a call. `None`: what was abandoned has to end first, as it would hold up this one and cancelling it could meet
    /// this one. In a transaction it has, whatever else is in flight: that has failed with it.
    pub(super) fn begin(&self, transaction: bool) -> Option<Call<'_>> {
        let mut count = self.lock();
        if count.settling || count.is_to_end(transaction) {
            return None;
        }
        count.in_flight += 1;
        Some(Call { calls: self, ended: false })
    }

    /// Begins a call, whatever goes on.
    pub(super) fn force(&self) -> Call<'_> {
        self.lock().in_flight += 1;
        Call { calls: self, ended: false }
    }

    /// The right to end what was abandoned, once nobody else has it. `None`: nothing is to be ended.
    pub(super) async fn turn(&self, transaction: bool) -> Option<Settling<'_>> {
        loop {
            let mut moved = pin!(self.moved.notified());
            moved.as_mut().enable();
            {
                let mut count = self.lock();
                if !count.settling {
                    let wanted = count.is_to_end(transaction);
                    count.settling = wanted;
                    // Made only if it is given out: its end needs the lock.
                    return wanted.then(|| Settling(self));
                }
            }
            moved.await;
        }
    }

    /// Returns once no call is in flight.
    pub(super) async fn rest(&self) {
        loop {
            let mut moved = pin!(self.moved.notified());
            moved.as_mut().enable();
            {
                let mut count = self.lock();
                if count.in_flight == 0 {
                    return;
                }
                count.awaited = true;
            }
            moved.await;
        }
    }

    /// Something may be left in the session for the next one.
    pub(super) fn leave_traces(&self) {
        self.traces.store(true, Ordering::Release);
    }

    /// The session is in the hands of somebody whose calls are not seen.
    pub(super) fn lend(&self) {
        self.leave_traces();
        self.lent.store(true, Ordering::Release);
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

    /// Whether the server does nothing, as far as calls tell.
    pub(super) fn is_settled(&self) -> bool {
        let count = self.lock();
        count.in_flight == 0 && !count.abandoned
    }

    /// Whether nobody waits for what the server is still doing.
    pub(super) fn is_abandoned(&self) -> bool {
        self.lock().abandoned
    }

    /// Whether the server may be doing something that nobody waits for.
    pub(super) fn may_be_working(&self) -> bool {
        self.is_abandoned() || self.lent.load(Ordering::Acquire)
    }

    /// What was abandoned has ended.
    pub(super) fn settle(&self) {
        self.lock().abandoned = false;
    }

    /// The session is as at its beginning.
    pub(super) fn clean(&self) {
        self.settle();
        self.lent.store(false, Ordering::Release);
        self.traces.store(false, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Count {
    /// Whether what was abandoned is ended now. Behind what is still waited for the next one stands in line, but in a transaction.
    fn is_to_end(&self, transaction: bool) -> bool {
        self.abandoned && (transaction || self.in_flight == 0)
    }
}

impl Call<'_> {
    pub(super) fn end(mut self) {
        self.ended = true;
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let mut count = self.calls.lock();
        count.abandoned |= !self.ended;
        count.in_flight -= 1;
        let told = count.in_flight == 0 && std::mem::take(&mut count.awaited);
        drop(count);
        if told {
            self.calls.moved.notify_waiters();
        }
    }
}

impl Drop for Settling<'_> {
    fn drop(&mut self) {
        self.0.lock().settling = false;
        self.0.moved.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[test]
    fn a_call_that_is_dropped_is_abandoned() {
        let calls = Calls::default();
        calls.begin(false).unwrap().end();
        assert!(calls.is_settled() && !calls.is_abandoned());
        let (call, beside) = (calls.begin(false).unwrap(), calls.begin(false).unwrap());
        drop(call);
        assert!(calls.is_abandoned() && calls.rest().now_or_never().is_none());
        calls.begin(false).expect("it stands in line").end();
        beside.end();
        assert!(calls.rest().now_or_never().is_some() && calls.begin(false).is_none());
        calls.force().end();
        calls.clean();
        assert!(!calls.is_abandoned());
    }

    #[test]
    fn in_a_transaction_nothing_begins_behind_what_was_abandoned() {
        let calls = Calls::default();
        let beside = calls.begin(true).unwrap();
        drop(calls.begin(true));
        assert!(calls.begin(true).is_none() && calls.begin(false).is_some());
        assert!(calls.turn(false).now_or_never().unwrap().is_none());
        let turn = calls.turn(true).now_or_never().unwrap().expect("there is something to settle");
        assert!(calls.rest().now_or_never().is_none());
        beside.end();
        calls.settle();
        drop(turn);
        assert!(calls.begin(true).is_some());
    }

    #[test]
    fn one_settles_and_the_others_wait() {
        let calls = Calls::default();
        assert!(calls.turn(false).now_or_never().unwrap().is_none());
        drop(calls.begin(false));
        let turn = calls.turn(false).now_or_never().unwrap().expect("there is something to settle");
        let mut other = Box::pin(calls.turn(false));
        assert!((&mut other).now_or_never().is_none() && calls.begin(false).is_none());
        // Given up before its end: it is the other one's turn.
        drop(turn);
        let turn = other.now_or_never().unwrap().expect("there still is");
        calls.settle();
        drop(turn);
        assert!(calls.turn(false).now_or_never().unwrap().is_none() && calls.begin(false).is_some());
    }

    #[test]
    fn the_last_call_is_waited_for() {
        let calls = Calls::default();
        let call = calls.begin(false).unwrap();
        let mut rest = Box::pin(calls.rest());
        assert!((&mut rest).now_or_never().is_none());
        call.end();
        assert!(rest.now_or_never().is_some());
    }
}
