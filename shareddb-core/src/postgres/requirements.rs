//! Whether a server has what a database from elsewhere needs.

use tokio_postgres::types::Type;

use crate::error::Result;
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

async fn those(session: &AdminSession, what: &str, sql: &str, names: Vec<&str>) -> Result<Vec<String>> {
    let rows = session.read(what, sql, &[(&names, Type::TEXT_ARRAY)]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
