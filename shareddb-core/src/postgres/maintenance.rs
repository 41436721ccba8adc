//! The maintenance login: open for the minutes of a backup or a restore, closed between them.

use std::time::Duration;

use tokio::time::sleep;
use tokio_postgres::types::Type;

use crate::app::App;
use crate::connection::Session;
use crate::error::{Error, Result};
use crate::password::Verifier;
use crate::postgres::facts::{RoleShape, ServerFacts};
use crate::postgres::session::AdminSession;
use crate::postgres::sql::{escaped, identifier, identifiers, literal};
use crate::postgres::statements as sql;

/// How many sessions it needs: the one that counts, the dump's, and one that compares; one is spare.
const CONNECTIONS: i32 = 4;

/// How often sessions are ended that may be about to end, and how long between.
const ENDINGS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(100);

/// Whether the server lets this admin give the login what it takes to read every row.
pub(crate) fn may_bypass_row_security(server: &ServerFacts) -> bool {
    server.superuser || server.powers.bypassrls
}

/// Opens the login with a new password for `budget`, which is when new logins end; no session of an earlier run lasts. Returns
/// when that is.
///
/// # Errors
/// `NotFound` when the role is not there, and what the server says.
pub(crate) async fn open(
    session: &AdminSession,
    server: &ServerFacts,
    app: &App,
    verifier: &Verifier,
    budget: Duration,
) -> Result<String> {
    let what = "open the maintenance login";
    let role = app.maintenance.as_str();
    // What is set for the login in one database counts there: a load may have left it, since whoever is logged in may change
    // settings of its own.
    let places = "SELECT r.rolname::text, (now() + make_interval(secs => $2))::text, \
         ARRAY(SELECT d.datname::text FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase WHERE s.setrole = r.oid) \
         FROM pg_roles r WHERE rolname = $1";
    let seconds = budget.as_secs_f64();
    let rows = session.read(what, places, &[(&role, Type::TEXT), (&seconds, Type::FLOAT8)]).await?;
    let Some(row) = rows.first() else {
        return Err(Error::not_found("role_missing", format!("there is no role {role}, which backups log in as"))
            .with_hint(format!("`shareddb create {} -e {}` makes it", app.name, app.environment)));
    };
    let (until, databases): (String, Vec<String>) = (row.get(1), row.get(2));
    end_sessions(session, server, app, what, [role]).await?;
    let bypassrls = may_bypass_row_security(server);
    let shape = RoleShape { login: true, bypassrls, connection_limit: CONNECTIONS, ..RoleShape::CLOSED };
    let mut statements: Vec<String> = databases
        .iter()
        .map(|database| format!("ALTER ROLE {} IN DATABASE {} RESET ALL", identifier(role), identifier(database)))
        .collect();
    if server.superuser {
        statements.push(format!("ALTER ROLE {} RESET ALL", identifier(role)));
        statements.push(sql::set_for_role(role, None, "temp_file_limit", "-1"));
    }
    statements.push(altered(role, &shape, server));
    statements.push(sql::set_password(role, verifier));
    statements.push(format!("ALTER ROLE {} VALID UNTIL {}", identifier(role), literal(&until)));
    session.run_silently(what, sql::silence_log(server), &statements).await?;
    Ok(until)
}

/// Closes it again and ends its sessions, as [`crate::Provisioner::create`] wants it.
pub(crate) async fn close(session: &AdminSession, server: &ServerFacts, app: &App) -> Result<()> {
    let what = "close the maintenance login";
    let role = app.maintenance.as_str();
    let shape = RoleShape { connection_limit: CONNECTIONS, ..RoleShape::CLOSED };
    let statements = [altered(role, &shape, server), sql::clear_password(role), sql::set_expiry(role, "infinity")];
    session.run_transaction(what, &statements).await?;
    end_sessions(session, server, app, what, [role]).await
}

fn altered(role: &str, shape: &RoleShape, server: &ServerFacts) -> String {
    match server.superuser {
        true => sql::alter_role(role, shape),
        false => sql::alter_role_within(role, shape, &server.powers),
    }
}

/// Closes the app's own logins, and waits until their sessions have ended.
///
/// # Errors
/// `Conflict` naming those that have not.
pub(crate) async fn shut(session: &AdminSession, server: &ServerFacts, app: &App) -> Result<()> {
    let what = "close the app's logins";
    let closed = app.logins.each_ref().map(|login| format!("ALTER ROLE {} NOLOGIN", identifier(login)));
    session.run_transaction(what, &closed).await?;
    let logins: Vec<&str> = app.logins.iter().map(AsRef::as_ref).collect();
    let left = "SELECT format('%s (process %s)', coalesce(nullif(application_name, ''), usename), pid) FROM pg_stat_activity \
         WHERE usename = ANY ($1)";
    for _ in 0..ENDINGS {
        end_sessions(session, server, app, what, logins.iter().copied()).await?;
        if session.read(what, left, &[(&logins, Type::NAME_ARRAY)]).await?.is_empty() {
            return Ok(());
        }
        sleep(PAUSE).await;
    }
    let rows = session.read(what, left, &[(&logins, Type::NAME_ARRAY)]).await?;
    let left: Vec<String> = rows.iter().map(|row| escaped(row.get(0))).collect();
    let message = format!("sessions of app {} do not end: {}", app.name, left.join(", "));
    Err(Error::conflict("database_in_use", message).with_hint("end them, then run this again"))
}

/// Opens them again, but for one that is to stay closed.
pub(crate) async fn reopen(session: &AdminSession, app: &App) -> Result<()> {
    let open: Vec<String> =
        app.open_logins().map(|login| format!("ALTER ROLE {} LOGIN", identifier(login.as_str()))).collect();
    session.run_transaction("open the app's logins again", &open).await
}

/// Which data directory the server has.
pub(crate) async fn system_identifier(session: &AdminSession) -> Result<String> {
    let sql = "SELECT system_identifier::text FROM pg_control_system()";
    Ok(session.value("read which server this is", sql).await?.unwrap_or_default())
}

/// Everything that the app's logins made for themselves becomes the owner's, in the database of the session.
pub(crate) async fn gather(session: &AdminSession, server: &ServerFacts, app: &App) -> Result<()> {
    let owner = app.owner.as_str();
    let members = app.logins.iter().chain([&app.maintenance]);
    let statements = members.map(|login| sql::reassign_owned(login.as_str(), owner)).collect();
    session.run_transaction("hand the logins' objects to the owner", &with_rights_of(server, app, statements)).await
}

/// For a transaction: to hand objects over takes the rights of both roles, and to end a session those of whose it is. An admin who
/// is no superuser has none of an app's, so it has them until the transaction ends, and nobody sees it.
pub(crate) fn with_rights_of(server: &ServerFacts, app: &App, statements: Vec<String>) -> Vec<String> {
    if server.superuser {
        return statements;
    }
    let admin = server.admin.as_str();
    let roles = || app.roles().map(AsRef::as_ref);
    let borrow = roles().map(|role| inherit(role, admin));
    // That it may act as them stays.
    let back = roles().map(|role| sql::act_as(role, admin));
    borrow.chain(statements).chain(back).collect()
}

/// Lets an admin who is no superuser use a role's rights as its own.
pub(super) fn inherit(role: &str, admin: &str) -> String {
    format!("GRANT {} TO {} WITH INHERIT TRUE", identifier(role), identifier(admin))
}

/// Ends every session of these roles, which are the app's.
async fn end_sessions<'a>(
    session: &AdminSession,
    server: &ServerFacts,
    app: &App,
    what: &str,
    roles: impl IntoIterator<Item = &'a str>,
) -> Result<()> {
    let statements = with_rights_of(server, app, vec![sql::end_sessions(roles)]);
    session.run_transaction(what, &statements).await
}

/// Ends the app's sessions in a database that is to be dropped, and waits until they have ended: the server ends none of them for
/// an admin who has no rights of theirs. For a superuser it does.
pub(crate) async fn empty(session: &AdminSession, server: &ServerFacts, app: &App, database: &str) -> Result<()> {
    let what = "end the sessions in a database";
    let left = "SELECT pid FROM pg_stat_activity WHERE datname = $1";
    let name: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 1] = [(&database, Type::NAME)];
    for _ in 0..ENDINGS {
        if server.superuser || session.read(what, left, &name).await?.is_empty() {
            break;
        }
        let end = format!(
            "{} SELECT count(pg_terminate_backend(pid)) FROM quiet, pg_stat_activity WHERE datname = {}",
            sql::QUIETLY,
            literal(database)
        );
        // Those of others are told by whoever drops it.
        let _ = session.run_transaction(what, &with_rights_of(server, app, vec![end])).await;
        sleep(PAUSE).await;
    }
    Ok(())
}

/// Statistics for the planner, by the owner: indexes over expressions run the tenant's code. Returns what could not be had of that.
pub(crate) async fn analyze(session: &Session) -> Result<Vec<String>> {
    let sql = "SELECT format('ANALYZE %I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'm', 'p') AND c.relowner = current_user::regrole AND c.relpersistence <> 't'";
    let failed = |source| Error::from_postgres("cannot analyze what was loaded", source);
    let statements = session.query_typed(sql, &[]).await.map_err(failed)?;
    let mut missed = Vec::new();
    for row in statements {
        let statement: &str = row.get(0);
        match session.batch_execute(statement).await {
            // The tenant's code, and as the server's own analysis will meet it.
            Err(error)
                if error
                    .code()
                    .is_some_and(|code| !code.code().starts_with("57") && !code.code().starts_with("53")) =>
            {
                missed.push(escaped(&format!("{}: {error}", statement.trim_start_matches("ANALYZE "))));
            }
            done => done.map_err(failed)?,
        }
    }
    Ok(missed)
}

/// Gives a search path to every function that has none of its own, and returns which: what an index or a check calls finds
/// names that are not qualified only so, as a load has no search path.
pub(crate) async fn give_search_path(session: &Session, path: &[String]) -> Result<Vec<String>> {
    let sql = "SELECT p.oid::regprocedure::text FROM pg_proc p WHERE p.proowner = current_user::regrole AND p.prokind <> 'a' \
         AND NOT EXISTS (SELECT FROM unnest(p.proconfig) c (setting) WHERE c.setting LIKE 'search_path=%') \
         AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')";
    let failed = |source| Error::from_postgres("cannot give functions a search path", source);
    // Names come out qualified where they are not found, and nothing of the tenant's is found by this.
    session.batch_execute("SET search_path = pg_catalog").await.map_err(failed)?;
    let functions: Vec<String> =
        session.query_typed(sql, &[]).await.map_err(failed)?.iter().map(|row| row.get(0)).collect();
    let path = identifiers(path);
    for function in &functions {
        let set = format!("ALTER ROUTINE {function} SET search_path = {path}");
        session.batch_execute(&set).await.map_err(failed)?;
    }
    Ok(functions)
}

/// Takes it from them again.
pub(crate) async fn take_search_path(session: &Session, functions: &[String]) -> Result<()> {
    let failed = |source| Error::from_postgres("cannot take the search path from functions", source);
    for function in functions {
        session.batch_execute(&format!("ALTER ROUTINE {function} RESET search_path")).await.map_err(failed)?;
    }
    Ok(())
}

/// Runs statements one by one.
pub(crate) async fn run_all(session: &Session, statements: &[String]) -> Result<()> {
    for statement in statements {
        let failed = |source| Error::from_postgres("cannot say rights as they were", source);
        session.batch_execute(statement).await.map_err(failed)?;
    }
    Ok(())
}

/// Whether a session acts as the app's owner, as every one of the app's does.
pub(crate) async fn assert_user(session: &Session, owner: &str) -> Result<()> {
    let failed = |source| Error::from_postgres("cannot see as whom the app works", source);
    let rows = session.query_typed("SELECT current_user::text", &[]).await.map_err(failed)?;
    let user: String = rows.first().map(|row| row.get(0)).unwrap_or_default();
    match user == owner {
        true => Ok(()),
        false => Err(Error::failed("wrong_role", format!("the app's login acts as {user}, not as {owner}"))),
    }
}
