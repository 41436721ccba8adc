//! Reading what an admin may do who is no superuser.

use tokio_postgres::types::Type;

use crate::error::{Error, Result};
use crate::postgres::facts::Powers;
use crate::postgres::session::AdminSession;
use crate::postgres::statements::MAINTENANCE_GROUP;

/// Of the role that is logged in; the server has to be 16 or newer.
pub(crate) async fn powers(session: &AdminSession) -> Result<Powers> {
    // A setting that is not listed belongs to an extension that is not loaded, if it has two parts: anybody may set that in a
    // session, and nobody without being told may store it. `role` is not listed, either; what hides otherwise is a superuser's.
    let sql = "SELECT rolcreatedb, rolcreaterole, rolreplication, rolbypassrls, \
         pg_has_role(current_user, 'pg_signal_backend', 'USAGE'), \
         coalesce((SELECT pg_has_role(current_user, g.oid, 'MEMBER WITH ADMIN OPTION') FROM pg_roles g WHERE g.rolname = $1), false), \
         ARRAY(SELECT datname::text FROM pg_database WHERE datdba = r.oid), \
         ARRAY(SELECT n FROM (SELECT lower(split_part(c, '=', 1)) AS n FROM pg_db_role_setting, unnest(setconfig) c \
                              UNION SELECT 'temp_file_limit') stored LEFT JOIN pg_settings p ON lower(p.name) = n \
               WHERE CASE WHEN p.name IS NULL THEN n <> 'role' ELSE p.context <> 'user' END \
               AND NOT has_parameter_privilege(n, 'SET')) \
         FROM pg_roles r WHERE rolname = current_user";
    let rows = session.read("read what the admin may do", sql, &[(&MAINTENANCE_GROUP, Type::TEXT)]).await?;
    let row = rows.first().ok_or_else(|| Error::failed("server_error", "the admin's role is gone"))?;
    Ok(Powers {
        createdb: row.get(0),
        createrole: row.get(1),
        replication: row.get(2),
        bypassrls: row.get(3),
        signal: row.get(4),
        maintenance: row.get(5),
        owned: row.get::<_, Vec<String>>(6).into_iter().collect(),
        forbidden: row.get::<_, Vec<String>>(7).into_iter().collect(),
    })
}
