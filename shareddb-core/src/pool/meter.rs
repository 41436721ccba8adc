//! What a pool counts, through the `metrics` facade; nothing without that feature.

use std::time::Duration;

use crate::error::Error;

/// A caller got a connection, or did not.
pub(super) fn acquired(waited: Duration, error: Option<&Error>) {
    #[cfg(feature = "metrics")]
    {
        metrics::histogram!("shareddb_pool_wait_seconds").record(waited);
        if let Some(error) = error {
            metrics::counter!("shareddb_pool_acquire_failures_total", "code" => error.code()).increment(1);
        }
    }
    #[cfg(not(feature = "metrics"))]
    let _ = (waited, error);
}

/// A caller gave its connection back.
pub(super) fn held(duration: Duration) {
    #[cfg(feature = "metrics")]
    metrics::histogram!("shareddb_pool_hold_seconds").record(duration);
    #[cfg(not(feature = "metrics"))]
    let _ = duration;
}

/// A login succeeded or failed.
pub(super) fn connected(took: Duration, error: Option<&Error>) {
    #[cfg(feature = "metrics")]
    {
        metrics::histogram!("shareddb_pool_connect_seconds").record(took);
        let outcome = error.map_or("ok", Error::code);
        let sqlstate = error.and_then(Error::sqlstate).unwrap_or_default().to_owned();
        metrics::counter!("shareddb_pool_connects_total", "outcome" => outcome, "sqlstate" => sqlstate).increment(1);
    }
    #[cfg(not(feature = "metrics"))]
    let _ = (took, error);
}

/// A connection was given up.
pub(super) fn evicted(reason: &'static str) {
    #[cfg(feature = "metrics")]
    metrics::counter!("shareddb_pool_evictions_total", "reason" => reason).increment(1);
    #[cfg(not(feature = "metrics"))]
    let _ = reason;
}

/// A transaction was tried again.
pub(super) fn retried() {
    #[cfg(feature = "metrics")]
    metrics::counter!("shareddb_pool_transaction_retries_total").increment(1);
}

/// New credentials were tried.
pub(super) fn rotated(outcome: &'static str) {
    #[cfg(feature = "metrics")]
    metrics::counter!("shareddb_pool_rotations_total", "outcome" => outcome).increment(1);
    #[cfg(not(feature = "metrics"))]
    let _ = outcome;
}

/// The credentials in use.
#[allow(clippy::cast_precision_loss, reason = "nobody sees 2^52 rotations")]
pub(super) fn generation(generation: u64) {
    #[cfg(feature = "metrics")]
    metrics::gauge!("shareddb_pool_generation").set(generation as f64);
    #[cfg(not(feature = "metrics"))]
    let _ = generation;
}

/// What is so at this moment.
#[allow(clippy::cast_precision_loss, reason = "a pool has a thousand connections at most")]
pub(super) fn state(in_use: usize, idle: usize, waiting: usize, share: Option<f64>, age: Duration) {
    #[cfg(feature = "metrics")]
    {
        metrics::gauge!("shareddb_pool_in_use").set(in_use as f64);
        metrics::gauge!("shareddb_pool_idle").set(idle as f64);
        metrics::gauge!("shareddb_pool_waiting").set(waiting as f64);
        metrics::gauge!("shareddb_pool_credential_age_seconds").set(age.as_secs_f64());
        if let Some(share) = share {
            metrics::gauge!("shareddb_pool_budget_share").set(share);
        }
    }
    #[cfg(not(feature = "metrics"))]
    let _ = (in_use, idle, waiting, share, age);
}
