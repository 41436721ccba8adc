//! How the last connects went, and when the next one may be tried.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::backoff::full_jitter;
use crate::error::Error;

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The codes of what passes by itself: a full server, one that is starting, credentials that are being replaced.
const PASSING: [&str; 4] = ["server_full", "connection_limit_reached", "server_not_ready", "credentials_rejected"];
/// Of these, the one about the login.
pub(super) const REJECTED: &str = "credentials_rejected";

/// Shared by all who connect.
#[derive(Default)]
pub(super) struct Health(Mutex<Condition>);

#[derive(Default)]
struct Condition {
    connected: bool,
    trouble: Option<Trouble>,
    pause: Option<Instant>,
    tries: u32,
}

/// What connects fail with at present.
struct Trouble {
    since: Instant,
    error: Error,
}

impl Health {
    /// Whether what failed passes by itself, so that waiting for it makes sense.
    pub(super) fn is_passing(error: &Error) -> bool {
        PASSING.contains(&error.code())
    }

    pub(super) fn succeeded(&self) {
        *self.lock() = Condition { connected: true, ..Condition::default() };
    }

    pub(super) fn failed(&self, error: &Error) {
        let mut condition = self.lock();
        if Self::is_passing(error) {
            // A pause never gets shorter than half of what it could be: all of them would otherwise come at once.
            let pause = full_jitter(FIRST_PAUSE, LONGEST_PAUSE, condition.tries) / 2 + FIRST_PAUSE / 2;
            condition.pause = Some(Instant::now() + pause);
            condition.tries += 1;
        }
        let before = condition.trouble.take().filter(|trouble| is_of_same_kind(&trouble.error, error));
        let since = before.map_or_else(Instant::now, |trouble| trouble.since);
        condition.trouble = Some(Trouble { since, error: error.repeated() });
    }

    /// What the last one was told, while it is too early for another try.
    pub(super) fn pause(&self) -> Option<Error> {
        let condition = self.lock();
        condition.pause.filter(|until| Instant::now() < *until)?;
        condition.trouble.as_ref().map(|trouble| trouble.error.repeated())
    }

    /// Whether there ever was a connection.
    pub(super) fn has_connected(&self) -> bool {
        self.lock().connected
    }

    /// What connects fail with at present, and for how long they have.
    pub(super) fn trouble(&self) -> Option<(Error, Duration)> {
        let condition = self.lock();
        condition.trouble.as_ref().map(|trouble| (trouble.error.repeated(), trouble.since.elapsed()))
    }

    fn lock(&self) -> MutexGuard<'_, Condition> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_of_same_kind(one: &Error, other: &Error) -> bool {
    (one.code() == REJECTED) == (other.code() == REJECTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_server_is_left_alone_for_a_while() {
        let health = Health::default();
        assert!(health.pause().is_none() && health.trouble().is_none());
        health.failed(&Error::unavailable("server_full", "full"));
        assert_eq!(health.pause().unwrap().to_string(), "full");
        health.succeeded();
        assert!(health.pause().is_none() && health.has_connected());
        // Nothing is gained by waiting for what does not pass.
        health.failed(&Error::not_found("database_not_found", "none"));
        assert!(health.pause().is_none());
        assert_eq!(health.trouble().unwrap().0.code(), "database_not_found");
        health.failed(&Error::permission_denied(REJECTED, "no"));
        assert_eq!(health.trouble().unwrap().0.code(), REJECTED);
    }
}
