//! What a pool says when it has no connection to give.

use std::fmt::Write as _;
use std::time::Duration;

use super::health::REJECTED;
use super::shared::Shared;
use crate::error::Error;

/// What every such sentence begins with.
const WHAT: &str = "cannot get a connection of the pool";

/// All connections stayed in use. Says who has them, and what the last connect failed with.
pub(super) fn exhausted(shared: &Shared) -> Error {
    let (size, in_use) = (shared.options.size, shared.holders.count());
    let mut message = format!("{WHAT}: none became free in {:?}: {in_use} of {size} in use", shared.options.wait);
    let waiting = shared.waiters.count().saturating_sub(1);
    if waiting > 0 {
        let _ = write!(message, ", {waiting} others waiting");
    }
    if let Some((label, held)) = shared.holders.longest() {
        let _ = write!(message, "; longest, for {}, by {label}", seconds(held));
    }
    if let Some((error, _)) = shared.health.trouble() {
        let _ = write!(message, "; the last connect failed: {error}");
    }
    Error::timeout("pool_exhausted", message).with_hint(
        "give connections back sooner (see who had one for longest), or raise the pool's size if the server has room",
    )
}

pub(super) fn closed() -> Error {
    Error::unavailable("pool_closed", format!("{WHAT}: it is closed"))
        .with_hint("the program is ending; take no more work")
}

/// What is begun beside the callers ends at once.
pub(super) fn without_runtime() -> Error {
    Error::unavailable("runtime_ended", format!("{WHAT}: the runtime that it is asked for in has ended"))
        .with_hint("the program is ending; or use the pool in a runtime that goes on")
}

/// A connect failed.
pub(super) fn unconnected(error: Error) -> Error {
    match error.code() {
        "pool_too_large" | "pool_closed" | "runtime_ended" => error,
        _ => error.within(WHAT),
    }
}

/// The server refused the login, with what had been read last.
pub(super) fn rejected(error: Error, source: &str, age: Duration) -> Error {
    if error.code() == "login_rejected" && error.hint().is_some() {
        // The server did not so much as look at the password.
        return error;
    }
    let what = format!("the credentials are rejected ({source}, in use for {})", seconds(age));
    let hint = "is the pod's Secret the newest one? Variables do not change in a running pod: restart it; a mounted directory \
                follows within about a minute";
    error.within(&what).with_code(REJECTED).with_hint(hint)
}

/// Whether a login failed because of its credentials.
pub(super) fn is_rejection(error: &Error) -> bool {
    ["password_rejected", "login_rejected", "password_missing"].contains(&error.code())
}

pub(super) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
