//! The login that loads: made for one scratch database, and gone when that is loaded.
//!
//! What is loaded can be anybody's code, and whoever is logged in may change the password of the login. So this one does not have
//! the owner's rights unless it takes them on (it does not inherit), and with them not the right to enter the app's own database:
//! whoever gets in by it is in the scratch, and stays until that is loaded.

use std::time::Duration;

use tokio::time::sleep;
use tokio_postgres::types::Type;

use super::maintenance::inherit;
use crate::app::App;
use crate::error::{Error, Result};
use crate::password::Verifier;
use crate::postgres::facts::ServerFacts;
use crate::postgres::login_end;
use crate::postgres::session::AdminSession;
use crate::postgres::sql::{identifier, literal};
use crate::postgres::statements::{self as sql, MAINTENANCE_GROUP};

/// A session that runs a statement, a session that gives functions their search path; one is spare.
const CONNECTIONS: u32 = 3;
const ENDINGS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(50);

/// Makes it, for the scratch of the same name. It lets nobody in after `until`.
pub(crate) async fn create(
    session: &AdminSession,
    server: &ServerFacts,
    app: &App,
    name: &str,
    verifier: &Verifier,
    until: &str,
) -> Result<()> {
    let (role, owner) = (identifier(name), identifier(&app.owner));
    // From 16 on it is the membership that says whether it inherits.
    let without = if server.version.has_grantors() { " WITH INHERIT FALSE, SET TRUE" } else { "" };
    let mut statements = vec![
        format!("CREATE ROLE {role} LOGIN NOINHERIT CONNECTION LIMIT {CONNECTIONS} VALID UNTIL {}", literal(until)),
        sql::set_password(name, verifier),
        format!("GRANT {owner} TO {role}{without}"),
        sql::grant_membership(MAINTENANCE_GROUP, name, server.version),
        format!("GRANT CONNECT ON DATABASE {role} TO {role}"),
    ];
    if server.superuser {
        statements.push(sql::set_for_role(name, None, "temp_file_limit", "-1"));
    }
    session.run_silently("make a login for the load", sql::silence_log(server), &statements).await
}

/// Gives it its password.
pub(crate) async fn admit(session: &AdminSession, server: &ServerFacts, name: &str, verifier: &Verifier) -> Result<()> {
    let password = [sql::set_password(name, verifier)];
    session.run_silently("let the login of the load in", sql::silence_log(server), &password).await
}

/// Lets nobody in any more, ends its sessions, and waits until they have ended. That there is none is no failure.
///
/// # Errors
/// `Conflict` when they do not end.
pub(crate) async fn close(session: &AdminSession, server: &ServerFacts, name: &str) -> Result<()> {
    let what = "close the login of the load";
    if !exists(session, name).await? {
        return Ok(());
    }
    let close = [format!("ALTER ROLE {} NOLOGIN", identifier(name)), login_end::clear_password(name)];
    let end: Vec<String> = rights(server, name).into_iter().chain([sql::end_sessions([name])]).collect();
    for _ in 0..ENDINGS {
        session.run_transaction(what, &end).await?;
        match session.run_transaction(what, &close).await {
            // Tenant code changes it in the same moment.
            Err(error) if matches!(error.sqlstate(), Some("XX000" | "55P03")) => {}
            Err(error) => return Err(error),
            Ok(()) if session.read(what, SESSIONS, &[(&name, Type::TEXT)]).await?.is_empty() => return Ok(()),
            Ok(()) => {}
        }
        sleep(PAUSE).await;
    }
    Err(Error::conflict("database_in_use", format!("sessions of {name} do not end")).with_hint("run this again"))
}

const SESSIONS: &str = "SELECT pid FROM pg_stat_activity WHERE usename = $1";

async fn exists(session: &AdminSession, name: &str) -> Result<bool> {
    let sql = "SELECT FROM pg_roles WHERE rolname = $1";
    Ok(!session.read("look for the login of the load", sql, &[(&name, Type::TEXT)]).await?.is_empty())
}

/// For a transaction in the scratch: what it has made becomes the owner's.
pub(crate) fn gather(server: &ServerFacts, app: &App, name: &str) -> Vec<String> {
    rights(server, name).into_iter().chain([sql::reassign_owned(name, app.owner.as_str())]).collect()
}

/// The same when it is to go: its rights and defaults there go, too.
pub(crate) fn dispossess(server: &ServerFacts, app: &App, name: &str) -> Vec<String> {
    gather(server, app, name).into_iter().chain([format!("DROP OWNED BY {}", identifier(name))]).collect()
}

/// Removes it. That there is none is no failure.
pub(crate) async fn drop(session: &AdminSession, name: &str) -> Result<()> {
    match exists(session, name).await? {
        true => session.run("remove the login of the load", &format!("DROP ROLE {}", identifier(name))).await,
        false => Ok(()),
    }
}

/// Those whose scratch is gone.
pub(crate) async fn left(session: &AdminSession) -> Result<Vec<String>> {
    let sql = "SELECT rolname::text FROM pg_roles r WHERE rolname LIKE 'shareddb\\_r\\_%' \
         AND NOT EXISTS (SELECT FROM pg_database d WHERE d.datname = r.rolname)";
    let rows = session.read("look for logins that are left over", sql, &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// To end its sessions and to hand on what it has takes its rights, which a superuser has.
fn rights(server: &ServerFacts, name: &str) -> Option<String> {
    (!server.superuser).then(|| inherit(name, server.admin.as_str()))
}
