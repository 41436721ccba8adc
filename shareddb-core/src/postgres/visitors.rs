//! Reading who gets into which database for no other reason than that everybody may.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Result;
use crate::postgres::session::AdminSession;

/// Databases to logins.
pub(crate) type Visitors = BTreeMap<String, BTreeSet<String>>;

/// Every database that PUBLIC may enter, and the logins that would lose it with PUBLIC's right: no superusers, and none
/// whose own rights or groups admit them. Then every database to those who would stay in, and lose temporary tables.
pub(crate) async fn visitors(session: &AdminSession) -> Result<(Visitors, Visitors)> {
    let sql = "SELECT d.datname::text, \
         ARRAY(SELECT l.name FROM logins l WHERE l.database = d.oid AND NOT 'CONNECT' = ANY (l.own)), \
         ARRAY(SELECT l.name FROM logins l WHERE l.database = d.oid AND 'CONNECT' = ANY (l.own) AND NOT 'TEMPORARY' = ANY (l.own) \
               AND EXISTS (SELECT FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a \
                     WHERE a.grantee = 0 AND a.privilege_type = 'TEMPORARY')) \
         FROM pg_database d WHERE d.datallowconn AND EXISTS ( \
               SELECT FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a \
               WHERE a.grantee = 0 AND a.privilege_type = 'CONNECT')";
    let logins = "WITH logins AS MATERIALIZED (SELECT d.oid AS database, r.rolname::text AS name, ARRAY( \
               SELECT a.privilege_type FROM aclexplode(d.datacl) a \
               WHERE CASE WHEN a.grantee <> 0 THEN pg_has_role(r.oid, a.grantee, 'USAGE') END) AS own \
         FROM pg_database d, pg_roles r \
         WHERE r.rolcanlogin AND NOT r.rolsuper AND NOT pg_has_role(r.oid, d.datdba, 'USAGE'))";
    let rows = session.read("read who may enter which database", &format!("{logins} {sql}"), &[]).await?;
    let column = |column: usize| {
        rows.iter().map(|row| (row.get(0), row.get::<_, Vec<String>>(column).into_iter().collect())).collect()
    };
    Ok((column(1), column(2)))
}
