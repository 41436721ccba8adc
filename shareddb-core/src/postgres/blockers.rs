//! Who waits for whom.

use std::time::Duration;

use tokio_postgres::types::Type;

use crate::error::Result;
use crate::postgres::session::AdminSession;
use crate::postgres::sql::escaped;

/// Sessions that wait for one of a role's, longer than `patience`: what they are called, and what they run. Empty: nobody.
pub(crate) async fn waiting_for(session: &AdminSession, role: &str, patience: Duration) -> Result<Vec<String>> {
    let sql = "SELECT format('%s (process %s, for %s s)', coalesce(nullif(a.application_name, ''), a.usename), a.pid, \
         round(extract(epoch FROM now() - l.waitstart))) \
         FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid AND NOT l.granted \
         WHERE l.waitstart < now() - make_interval(secs => $2) AND a.usename <> $1 \
         AND EXISTS (SELECT FROM unnest(pg_blocking_pids(a.pid)) b JOIN pg_stat_activity o ON o.pid = b WHERE o.usename = $1)";
    let seconds = patience.as_secs_f64();
    let rows =
        session.read("see who waits for the dump", sql, &[(&role, Type::NAME), (&seconds, Type::FLOAT8)]).await?;
    Ok(rows.iter().map(|row| escaped(row.get(0))).collect())
}

/// Sessions of others in a database that keep everybody else off a table.
pub(crate) async fn locking(session: &AdminSession, database: &str) -> Result<Vec<String>> {
    let sql = "SELECT DISTINCT format('%s (process %s)', coalesce(nullif(a.application_name, ''), a.usename), a.pid) \
         FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
         WHERE l.granted AND l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' \
         AND l.database = (SELECT oid FROM pg_database WHERE datname = $1)";
    let rows = session.read("see who has locked tables", sql, &[(&database, Type::NAME)]).await?;
    Ok(rows.iter().map(|row| escaped(row.get(0))).collect())
}
