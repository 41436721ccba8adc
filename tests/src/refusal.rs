//! How a server refuses: the SQLSTATE, which is the part of an answer that is promised.

use shareddb_core::{ConnectionConfig, Error, Session};

/// Of a login that got in.
pub const CONNECTED: &str = "connected";
/// Of a statement that was carried out.
pub const DONE: &str = "done";

/// What came of a login: the SQLSTATE of the refusal, or [`CONNECTED`].
pub async fn login(config: &ConnectionConfig) -> String {
    match config.connect().await {
        Ok(_) => CONNECTED.to_owned(),
        Err(error) => sqlstate(&error),
    }
}

/// What came of a statement: the SQLSTATE of the refusal, or [`DONE`].
pub async fn statement(session: &Session, sql: &str) -> String {
    match session.simple_query(sql).await {
        Ok(_) => DONE.to_owned(),
        Err(error) => state(&error),
    }
}

/// Whether the server has ended a session, or was told to: it does so before it has done anything else there.
pub async fn has_ended(session: &Session) -> bool {
    statement(session, "SELECT pg_sleep(60)").await == "57P01" || session.is_closed()
}

/// The SQLSTATE in an error of ours.
pub fn sqlstate(error: &Error) -> String {
    error.sqlstate().map_or_else(|| format!("no answer of the server: {error:?}"), str::to_owned)
}

fn state(error: &tokio_postgres::Error) -> String {
    error.code().map_or_else(|| format!("no answer of the server: {error}"), |state| state.code().to_owned())
}
