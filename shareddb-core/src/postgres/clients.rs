//! Who is logged in as an app.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;
use tokio_postgres::types::Type;

use crate::error::Result;
use crate::names::RoleName;
use crate::postgres::catalog::PROOF;
use crate::postgres::session::AdminSession;
use crate::postgres::session_name;
use crate::postgres::sql::escaped;

/// Sessions of one login from one place under one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Client {
    /// The login.
    pub login: String,
    /// What they call themselves (`application_name`); may be empty, and may be anything.
    pub application: String,
    /// The number of the password that they were opened with, where their name says so: a pool's does.
    pub generation: Option<u32>,
    /// The address they come from; none for a socket, and none where the admin may not see it.
    pub address: Option<String>,
    /// How many they are.
    pub sessions: u32,
    /// Since when the oldest of them is there, where the admin may see that.
    pub since: Option<Timestamp>,
}

/// For people: `3 × "orders gen=7" from 10.0.0.7`.
impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.application.is_empty() { "without a name".to_owned() } else { escaped(&self.application) };
        write!(f, "{} × {name}", self.sessions)?;
        self.address.iter().try_for_each(|address| write!(f, " from {address}"))
    }
}

/// Everybody who is logged in as one of these, without trial logins of ours.
pub(crate) async fn of(session: &AdminSession, logins: &[RoleName]) -> Result<Vec<Client>> {
    let names: Vec<&str> = logins.iter().map(AsRef::as_ref).collect();
    let sql = "SELECT usename::text, coalesce(application_name, ''), host(client_addr), count(*)::int4, \
         extract(epoch FROM min(backend_start))::int8 \
         FROM pg_stat_activity WHERE usename = ANY ($1) AND application_name <> $2 GROUP BY 1, 2, 3 ORDER BY 1, 4 DESC, 2, 3";
    let rows = session.read("see who is logged in", sql, &[(&names, Type::TEXT_ARRAY), (&PROOF, Type::TEXT)]).await?;
    let client = |row: &tokio_postgres::Row| {
        let application: String = row.get(1);
        let since = row.get::<_, Option<i64>>(4).and_then(|second| Timestamp::from_second(second).ok());
        Client {
            login: row.get(0),
            generation: session_name::generation(&application),
            application,
            address: row.get(2),
            sessions: row.get::<_, i32>(3).unsigned_abs(),
            since,
        }
    };
    Ok(rows.iter().map(client).collect())
}
