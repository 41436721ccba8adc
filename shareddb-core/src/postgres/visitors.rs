//! Reading who gets into which database for no other reason than that everybody may.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Result;
use crate::postgres::session::AdminSession;

/// Every database that PUBLIC may enter, and the logins that would lose it with PUBLIC's right: no superusers, and none
/// whose own rights or groups admit them.
pub(crate) async fn visitors(session: &AdminSession) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let sql = "SELECT d.datname::text, ARRAY(SELECT r.rolname::text FROM pg_roles r \
               WHERE r.rolcanlogin AND NOT r.rolsuper AND NOT pg_has_role(r.oid, d.datdba, 'USAGE') AND NOT EXISTS ( \
                     SELECT FROM aclexplode(d.datacl) a WHERE a.grantee <> 0 AND a.privilege_type = 'CONNECT' \
                     AND pg_has_role(r.oid, a.grantee, 'USAGE'))) \
         FROM pg_database d WHERE d.datallowconn AND EXISTS ( \
               SELECT FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a \
               WHERE a.grantee = 0 AND a.privilege_type = 'CONNECT')";
    let rows = session.read("read who may enter which database", sql, &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get::<_, Vec<String>>(1).into_iter().collect())).collect())
}
