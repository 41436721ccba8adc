//! What is left to do in a database whose app has another name than the one that it was dumped from.

use tokio_postgres::types::Type;

use crate::connection::Session;
use crate::error::{Error, Result};
use crate::postgres::sql::{escaped, identifier, literal};

/// How many objects are told.
const TOLD: u32 = 20;

/// Gives a schema another name, as its owner; `false` where there is none, or another one bears that name.
pub(crate) async fn rename_schema(session: &Session, from: &str, to: &str) -> Result<bool> {
    let failed = |source| Error::from_postgres("cannot rename the app's schema", source);
    let sql = "SELECT nspname::text FROM pg_namespace WHERE nspname = ANY ($1)";
    let found = session.query_typed(sql, &[(&vec![from, to], Type::NAME_ARRAY)]).await.map_err(failed)?;
    let found: Vec<&str> = found.iter().map(|row| row.get(0)).collect();
    if found != [from] {
        return Ok(false);
    }
    let sql = format!("ALTER SCHEMA {} RENAME TO {}", identifier(from), identifier(to));
    session.batch_execute(&sql).await.map(|()| true).map_err(failed)
}

/// Makes the app's schema where a dump from elsewhere has none of that name.
pub(crate) async fn make_schema(session: &Session, schema: &str) -> Result<()> {
    let failed = |source| Error::from_postgres("cannot make the app's schema", source);
    session.batch_execute(&format!("CREATE SCHEMA IF NOT EXISTS {}", identifier(schema))).await.map_err(failed)
}

/// Routines whose text or settings have this word, which nobody has changed.
pub(crate) async fn mentions(session: &Session, word: &str) -> Result<Vec<String>> {
    // A word boundary in the sense of regular expressions; the word itself is letters, digits and underscores.
    let sql = format!(
        "SELECT p.oid::regprocedure::text FROM pg_proc p WHERE p.oid >= 16384 AND p.proowner = current_user::regrole \
         AND (p.prosrc ~ ('\\m' || $1 || '\\M') OR p.proconfig::text ~ ('\\m' || $1 || '\\M')) ORDER BY 1 LIMIT {TOLD}"
    );
    let failed = |source| Error::from_postgres("cannot look for what names the schema", source);
    let rows = session.query_typed(&sql, &[(&word, Type::TEXT)]).await.map_err(failed)?;
    Ok(rows.iter().map(|row| escaped(row.get(0))).collect())
}

/// Roles other than these that something in the database depends on.
pub(crate) async fn strangers(session: &Session, known: &[&str]) -> Result<Vec<String>> {
    let known = known.iter().map(literal).collect::<Vec<_>>().join(", ");
    let sql = format!(
        "SELECT DISTINCT r.rolname::text FROM pg_shdepend s JOIN pg_roles r ON r.oid = s.refobjid \
         WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) \
         AND s.refclassid = 'pg_authid'::regclass AND NOT r.rolsuper AND r.rolname NOT IN ({known}) ORDER BY 1"
    );
    let failed = |source| Error::from_postgres("cannot look for roles that are named", source);
    let rows = session.query_typed(&sql, &[]).await.map_err(failed)?;
    Ok(rows.iter().map(|row| escaped(row.get(0))).collect())
}
