//! What is left to do in a database whose app has another name than the one that it was dumped from.

use tokio_postgres::types::Type;

use crate::connection::Session;
use crate::error::{Error, Result};
use crate::postgres::sql::{escaped, identifier};

/// How many objects are told.
const TOLD: u32 = 20;

/// Gives a schema another name, as its owner, if there is one.
///
/// # Errors
/// `Refused` where another one bears that name.
pub(crate) async fn rename_schema(session: &Session, from: &str, to: &str) -> Result<()> {
    let failed = |source| Error::from_postgres("cannot rename the app's schema", source);
    let sql = "SELECT nspname::text FROM pg_namespace WHERE nspname = ANY ($1)";
    let found = session.query_typed(sql, &[(&vec![from, to], Type::NAME_ARRAY)]).await.map_err(failed)?;
    let found: Vec<&str> = found.iter().map(|row| row.get(0)).collect();
    if found.contains(&to) && found.len() > 1 {
        let message = format!("what was dumped has a schema {to} beside its own, {from}, which would be called so");
        return Err(Error::refused("schema_taken", message).with_hint("restore it under another name"));
    }
    if found != [from] {
        return Ok(());
    }
    let sql = format!("ALTER SCHEMA {} RENAME TO {}", identifier(from), identifier(to));
    session.batch_execute(&sql).await.map_err(failed)
}

/// Drops an empty schema that the app has dropped: every database begins with it.
pub(crate) async fn drop_schema(session: &Session, schema: &str) -> Result<()> {
    let failed = |source| Error::from_postgres("cannot drop a schema that was not dumped", source);
    session.batch_execute(&format!("DROP SCHEMA IF EXISTS {}", identifier(schema))).await.map_err(failed)
}

/// Makes the app's schema where a dump from elsewhere has none of that name.
pub(crate) async fn make_schema(session: &Session, schema: &str) -> Result<()> {
    let failed = |source| Error::from_postgres("cannot make the app's schema", source);
    session.batch_execute(&format!("CREATE SCHEMA IF NOT EXISTS {}", identifier(schema))).await.map_err(failed)
}

/// Objects whose text has a word that begins so, which nobody has changed.
pub(crate) async fn mentions(session: &Session, word: &str) -> Result<Vec<String>> {
    // A word boundary in the sense of regular expressions; the word itself is letters, digits and underscores.
    let sql = format!(
        "SELECT what FROM (SELECT format('function %s', oid::regprocedure), concat_ws(' ', prosrc, proconfig::text) FROM pg_proc \
           WHERE oid >= 16384 AND proowner = current_user::regrole \
         UNION ALL SELECT format('policy %I on %s', polname, polrelid::regclass), \
           concat_ws(' ', pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)) FROM pg_policy \
         UNION ALL SELECT format('view %s', oid::regclass), pg_get_viewdef(oid) FROM pg_class \
           WHERE relkind IN ('v', 'm') AND oid >= 16384 AND relowner = current_user::regrole \
         UNION ALL SELECT format('default of %s', adrelid::regclass), pg_get_expr(adbin, adrelid) FROM pg_attrdef \
         UNION ALL SELECT format('check %I on %s', conname, conrelid::regclass), pg_get_constraintdef(oid) FROM pg_constraint \
           WHERE contype = 'c' AND conrelid <> 0 AND oid >= 16384) texts (what, text) \
         WHERE text ~ ('\\m' || $1) ORDER BY 1 LIMIT {TOLD}"
    );
    let failed = |source| Error::from_postgres("cannot look for what names the schema", source);
    let rows = session.query_typed(&sql, &[(&word, Type::TEXT)]).await.map_err(failed)?;
    Ok(rows.iter().map(|row| escaped(row.get(0))).collect())
}

/// Roles other than these that something in the database depends on.
pub(crate) async fn strangers(session: &Session, known: &[&str]) -> Result<Vec<String>> {
    let sql = "SELECT DISTINCT r.rolname::text FROM pg_shdepend s JOIN pg_roles r ON r.oid = s.refobjid \
         WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) \
         AND s.refclassid = 'pg_authid'::regclass AND NOT r.rolsuper AND r.rolname <> ALL ($1) ORDER BY 1";
    let failed = |source| Error::from_postgres("cannot look for roles that are named", source);
    let rows = session.query_typed(sql, &[(&known, Type::NAME_ARRAY)]).await.map_err(failed)?;
    Ok(rows.iter().map(|row| escaped(row.get(0))).collect())
}
