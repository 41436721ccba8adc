//! Reading what extensions there are, and where their scripts may look names up.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::types::Type;

use crate::error::Result;
use crate::postgres::facts::ExtensionFacts;
use crate::postgres::session::AdminSession;

/// Those of the extensions that the server has, and all that these need, directly or not: also what only an older version
/// needs, since a newer one may be made by way of it.
pub(crate) async fn available(session: &AdminSession, wanted: &[&str]) -> Result<BTreeMap<String, ExtensionFacts>> {
    if wanted.is_empty() {
        return Ok(BTreeMap::new());
    }
    let sql = "WITH RECURSIVE versions AS MATERIALIZED (SELECT name, version, schema, requires, superuser, trusted FROM pg_available_extension_versions), \
         needed (name) AS (SELECT unnest($1::name[]) \
               UNION SELECT unnest(v.requires) FROM needed n JOIN versions v ON v.name = n.name) \
         SELECT v.name::text, v.schema::text, ARRAY(SELECT DISTINCT r::text FROM versions o, unnest(o.requires) r WHERE o.name = v.name), \
               v.superuser AND NOT v.trusted \
         FROM needed n JOIN pg_available_extensions a ON a.name = n.name \
              JOIN versions v ON v.name = a.name AND v.version = a.default_version";
    let rows = session.read("read the list of extensions", sql, &[(&wanted, Type::TEXT_ARRAY)]).await?;
    let facts = |row: &tokio_postgres::Row| ExtensionFacts {
        schema: row.get(1),
        requires: row.get(2),
        superuser_only: row.get(3),
    };
    Ok(rows.iter().map(|row| (row.get(0), facts(row))).collect())
}

/// Schemas of superusers or the admin in which nobody else may create, or has anything that a script could find by its name.
pub(crate) async fn safe_schemas(session: &AdminSession) -> Result<BTreeSet<String>> {
    let sql = "WITH tenants AS MATERIALIZED (SELECT oid FROM pg_roles WHERE NOT rolsuper AND rolname <> current_user), \
         theirs AS (SELECT pronamespace AS oid FROM pg_proc WHERE proowner IN (TABLE tenants) \
               UNION SELECT oprnamespace FROM pg_operator WHERE oprowner IN (TABLE tenants) \
               UNION SELECT typnamespace FROM pg_type WHERE typowner IN (TABLE tenants) \
               UNION SELECT relnamespace FROM pg_class WHERE relowner IN (TABLE tenants)) \
         SELECT nspname::text FROM pg_namespace \
         WHERE nspowner NOT IN (TABLE tenants) AND oid NOT IN (TABLE theirs) AND NOT EXISTS (SELECT FROM aclexplode(nspacl) \
               WHERE privilege_type = 'CREATE' AND (grantee = 0 OR grantee IN (TABLE tenants)))";
    let rows = session.read("read who may create in which schema", sql, &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
