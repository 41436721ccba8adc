//! Whether a server has what a database from elsewhere needs.

use tokio_postgres::types::Type;

use crate::error::{Error, Result};
use crate::postgres::session::AdminSession;

/// Those of these extensions that the server does not have.
pub(crate) async fn missing_extensions<'a>(
    session: &AdminSession,
    names: impl Iterator<Item = &'a str>,
) -> Result<Vec<String>> {
    let sql = "SELECT n FROM unnest($1) n WHERE NOT EXISTS (SELECT FROM pg_available_extensions a WHERE a.name = n)";
    those(session, "look for extensions", sql, names.collect()).await
}

/// Those of these extensions that nobody but a superuser may make.
pub(crate) async fn superusers_extensions<'a>(
    session: &AdminSession,
    names: impl Iterator<Item = &'a str>,
) -> Result<Vec<String>> {
    let sql = "SELECT n FROM unnest($1) n WHERE EXISTS (SELECT FROM pg_available_extensions a \
         JOIN pg_available_extension_versions v ON v.name = a.name AND v.version = a.default_version \
         WHERE a.name = n AND v.superuser AND NOT v.trusted)";
    those(session, "look for extensions", sql, names.collect()).await
}

/// Every role there is.
pub(crate) async fn roles(session: &AdminSession) -> Result<Vec<String>> {
    let rows = session.read("look for roles", "SELECT rolname::text FROM pg_roles", &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Those of these roles that do not exist.
pub(crate) async fn missing_roles<'a>(
    session: &AdminSession,
    names: impl Iterator<Item = &'a str>,
) -> Result<Vec<String>> {
    let sql = "SELECT n FROM unnest($1) n WHERE NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = n)";
    those(session, "look for roles", sql, names.collect()).await
}

/// Bytes of log that the server may write before it makes room.
pub(crate) async fn log_reserve(session: &AdminSession) -> Result<u64> {
    let sql = "SELECT pg_size_bytes(current_setting('max_wal_size'))";
    let bytes = session.value("read the server's settings", sql).await?;
    Ok(bytes.and_then(|text| text.parse().ok()).unwrap_or_default())
}

/// Bytes that all databases take whose size the admin may know.
pub(crate) async fn bytes_of_databases(session: &AdminSession) -> Result<u64> {
    let sql = "SELECT coalesce(sum(pg_database_size(oid)), 0)::int8::text FROM pg_database \
         WHERE has_database_privilege(oid, 'CONNECT') OR pg_has_role('pg_read_all_stats', 'USAGE')";
    let bytes = session.value("read how large the databases are", sql).await?;
    Ok(bytes.and_then(|text| text.parse().ok()).unwrap_or_default())
}

/// Whether so many more objects can be locked at once: the table of locks is the whole server's, and when it is full every
/// app's statements fail. A quarter of it is left to others.
///
/// # Errors
/// `Refused` (`lock_table_small`) with the setting that it takes.
pub(crate) async fn lock_room(session: &AdminSession, needed: u64) -> Result<()> {
    let sql = "SELECT current_setting('max_locks_per_transaction')::int8, \
         current_setting('max_connections')::int8 + current_setting('max_prepared_transactions')::int8, \
         (SELECT count(*) FROM pg_locks WHERE NOT fastpath)";
    let rows = session.read("look how many locks the server has room for", sql, &[]).await?;
    let Some(row) = rows.first() else { return Ok(()) };
    let [each, sessions, used] = [0, 1, 2].map(|column| row.get::<_, i64>(column).unsigned_abs());
    let wanted = (needed + used) * 4 / 3;
    if wanted <= each * sessions {
        return Ok(());
    }
    let message = format!(
        "the dump locks {needed} tables and sequences at once, and the server has room for {} locks, {used} of them in use",
        each * sessions
    );
    let hint = format!(
        "raise max_locks_per_transaction from {each} to {} and restart the server",
        (wanted / sessions + 1).next_power_of_two()
    );
    Err(Error::refused("lock_table_small", message).with_hint(hint))
}

async fn those(session: &AdminSession, what: &str, sql: &str, names: Vec<&str>) -> Result<Vec<String>> {
    let rows = session.read(what, sql, &[(&names, Type::TEXT_ARRAY)]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
