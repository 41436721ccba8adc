//! Connections that are open and nobody's yet, and who waits for one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::error::Result;

/// Each login is the pool's and not that of the caller who was the reason for it: if that one has gone away when it is
/// done, it serves the next one.
pub(super) struct Arrivals<T>(Mutex<State<T>>);

struct State<T> {
    /// Those that nobody waited for.
    spares: Vec<T>,
    waiting: VecDeque<oneshot::Sender<Result<T>>>,
    /// Logins under way, some of them for callers that have gone away.
    /// Each with the time of its beginning.
    logins: BTreeMap<u64, Instant>,
    begun: u64,
    closed: bool,
}

/// What a caller who needs a connection does.
pub(super) enum Turn<T> {
    Takes(T),
    /// Waits; when no answer comes it asks again.
    Waits {
        answer: oneshot::Receiver<Result<T>>,
        /// The login that it has to begin, for whose end there is [`Arrivals::ended`].
        begins: Option<u64>,
    },
    /// Goes away.
    Leaves,
}

impl<T> Default for Arrivals<T> {
    fn default() -> Self {
        Self(Mutex::new(State {
            spares: Vec::new(),
            waiting: VecDeque::new(),
            logins: BTreeMap::new(),
            begun: 0,
            closed: false,
        }))
    }
}

impl<T> Arrivals<T> {
    /// For a caller who needs one that is fit. On a login that takes longer than `limit` nobody counts any more: the runtime that
    /// it was begun in may rest.
    pub(super) fn turn(&self, limit: Duration, fit: impl FnMut(&T) -> bool) -> Turn<T> {
        let mut state = self.lock();
        if state.closed {
            return Turn::Leaves;
        }
        if let Some(spare) = state.spare(fit) {
            return Turn::Takes(spare);
        }
        let (sender, answer) = oneshot::channel();
        state.waiting.retain(|waiting| !waiting.is_closed());
        state.waiting.push_back(sender);
        state.logins.retain(|_, begun| begun.elapsed() < limit);
        let begins = (state.waiting.len() > state.logins.len()).then(|| state.begin());
        Turn::Waits { answer, begins }
    }

    /// A login has ended; without an outcome it was given up.
    pub(super) fn ended(&self, login: u64, outcome: Option<Result<T>>) {
        let mut state = self.lock();
        state.logins.remove(&login);
        match outcome {
            Some(Ok(link)) => state.land(link),
            Some(Err(error)) => {
                state.next().map(|waiting| waiting.send(Err(error)));
            }
            None => state.tell_who_is_left_over(),
        }
    }

    /// Whether a login has neither ended nor taken too long.
    pub(super) fn is_under_way(&self, login: u64) -> bool {
        self.lock().logins.contains_key(&login)
    }

    /// A connection is there: for the one who has waited longest, or in reserve.
    pub(super) fn land(&self, link: T) {
        self.lock().land(link);
    }

    /// One that is fit, if there is one in reserve.
    pub(super) fn spare(&self, fit: impl FnMut(&T) -> bool) -> Option<T> {
        self.lock().spare(fit)
    }

    pub(super) fn has_spare(&self) -> bool {
        !self.lock().spares.is_empty()
    }

    /// Closes those in reserve that are not to be kept.
    pub(super) fn retain(&self, keeps: impl FnMut(&T) -> bool) {
        self.lock().spares.retain(keeps);
    }

    /// Nobody gets one any more. What was in reserve.
    pub(super) fn close(&self) -> Vec<T> {
        let mut state = self.lock();
        state.closed = true;
        state.waiting.clear();
        std::mem::take(&mut state.spares)
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn begin(&mut self) -> u64 {
        self.begun += 1;
        self.logins.insert(self.begun, Instant::now());
        self.begun
    }

    /// Who waits for a login that there is no more asks again.
    fn tell_who_is_left_over(&mut self) {
        self.waiting.retain(|waiting| !waiting.is_closed());
        if self.waiting.len() > self.logins.len() {
            self.waiting.pop_front();
        }
    }

    fn spare(&mut self, fit: impl FnMut(&T) -> bool) -> Option<T> {
        self.spares.retain(fit);
        self.spares.pop()
    }

    fn next(&mut self) -> Option<oneshot::Sender<Result<T>>> {
        self.waiting.retain(|waiting| !waiting.is_closed());
        self.waiting.pop_front()
    }

    fn land(&mut self, mut link: T) {
        while let Some(waiting) = self.next() {
            match waiting.send(Ok(link)) {
                Err(Ok(back)) => link = back,
                Ok(()) | Err(Err(_)) => return,
            }
        }
        if !self.closed {
            self.spares.push(link);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    const LIMIT: Duration = Duration::from_secs(60);

    fn waits(arrivals: &Arrivals<u8>) -> (oneshot::Receiver<Result<u8>>, Option<u64>) {
        waits_for(arrivals, LIMIT)
    }

    fn waits_for(arrivals: &Arrivals<u8>, limit: Duration) -> (oneshot::Receiver<Result<u8>>, Option<u64>) {
        match arrivals.turn(limit, |_| true) {
            Turn::Waits { answer, begins } => (answer, begins),
            _ => panic!("there is one in reserve"),
        }
    }

    fn takes(arrivals: &Arrivals<u8>) -> Option<u8> {
        match arrivals.turn(LIMIT, |_| true) {
            Turn::Takes(link) => Some(link),
            _ => None,
        }
    }

    #[test]
    fn a_login_whose_caller_has_gone_away_is_for_the_next_one() {
        let arrivals = Arrivals::default();
        let (first, one) = waits(&arrivals);
        drop(first);
        let (mut next, begins) = waits(&arrivals);
        assert!(begins.is_none(), "one is under way");
        let (mut third, other) = waits(&arrivals);
        arrivals.ended(one.unwrap(), Some(Ok(1)));
        assert_eq!(next.try_recv().unwrap().unwrap(), 1);
        assert!(third.try_recv().is_err());
        drop(third);
        arrivals.ended(other.unwrap(), Some(Ok(2)));
        assert!(arrivals.has_spare());
        assert_eq!(arrivals.spare(|link| *link > 2), None, "not fit");
        arrivals.land(3);
        assert_eq!(takes(&arrivals), Some(3));
    }

    #[test]
    fn who_waits_is_told_how_a_login_has_ended() {
        let arrivals = Arrivals::default();
        let ((mut one, first), (mut other, second)) = (waits(&arrivals), waits(&arrivals));
        arrivals.ended(first.unwrap(), Some(Err(Error::unavailable("server_unreachable", "no"))));
        assert_eq!(one.try_recv().unwrap().unwrap_err().code(), "server_unreachable");
        // With its runtime, say.
        arrivals.ended(second.unwrap(), None);
        assert!(matches!(other.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
        assert!(waits(&arrivals).1.is_some(), "it asks again, and a new one is begun");
    }

    #[test]
    fn a_login_that_rests_holds_up_nobody() {
        let arrivals = Arrivals::default();
        let (first, resting) = waits(&arrivals);
        drop(first);
        let (second, begins) = waits(&arrivals);
        assert!(begins.is_none());
        drop(second);
        // Whoever goes away first does not make it younger.
        let (third, begins) = waits_for(&arrivals, Duration::ZERO);
        arrivals.ended(begins.unwrap(), None);
        drop(third);
        let (mut fourth, begins) = waits(&arrivals);
        arrivals.ended(begins.unwrap(), Some(Ok(1)));
        assert_eq!(fourth.try_recv().unwrap().unwrap(), 1);
        // The one that rested has gone on.
        arrivals.ended(resting.unwrap(), Some(Ok(2)));
        assert_eq!(takes(&arrivals), Some(2));
        assert!(waits(&arrivals).1.is_some());
    }

    #[test]
    fn a_login_that_is_given_up_disturbs_nobody_whose_own_goes_on() {
        let arrivals = Arrivals::default();
        let (mut whole, alive) = waits(&arrivals);
        let (mut other, given_up) = waits(&arrivals);
        arrivals.ended(given_up.unwrap(), None);
        // One of them asks again, and there is a login for each then.
        let told = [&mut whole, &mut other]
            .map(|answer| matches!(answer.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
        assert_eq!(told.iter().filter(|told| **told).count(), 1);
        assert!(arrivals.is_under_way(alive.unwrap()) && !arrivals.is_under_way(given_up.unwrap()));
        let (_again, begins) = waits(&arrivals);
        arrivals.ended(begins.unwrap(), None);
        assert!(waits(&arrivals).1.is_some());
    }

    #[test]
    fn after_the_end_nothing_is_kept() {
        let arrivals = Arrivals::default();
        arrivals.land(1);
        assert_eq!(arrivals.close(), [1]);
        arrivals.land(2);
        assert!(!arrivals.has_spare() && matches!(arrivals.turn(LIMIT, |_| true), Turn::Leaves));
    }
}
