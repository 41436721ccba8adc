//! The statements by which a login comes to its end, or its end is taken back.

use crate::postgres::sql::{identifier, literal};

pub(crate) fn clear_password(role: &str) -> String {
    format!("ALTER ROLE {} PASSWORD NULL", identifier(role))
}

/// For the transaction that it stands in.
pub(crate) const BRIEF_LOCKS: &str = "SET LOCAL lock_timeout = '1s'";

pub(crate) fn close_login(role: &str) -> String {
    format!("ALTER ROLE {} NOLOGIN", identifier(role))
}

/// `until` is a point in time with its offset, or `infinity`.
pub(crate) fn set_expiry(role: &str, until: &str) -> String {
    format!("ALTER ROLE {} VALID UNTIL {}", identifier(role), literal(until))
}
