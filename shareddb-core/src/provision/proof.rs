//! Trying, as the app, what it can and cannot do.

use std::time::Duration;

use serde::Serialize;

use crate::app::App;
use crate::connection::{ConnectionConfig, Session};
use crate::error::{Error, Result};
use crate::password;
use crate::postgres::catalog::PROOF;
use crate::postgres::statements as sql;

/// What became of the proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Proof {
    /// The login works, makes the owner's objects, and was refused by other databases, but for those that everybody may
    /// enter and that the plan says are open.
    Complete,
    /// The password is right, but every session that the app may have is in use.
    Incomplete,
}

impl Proof {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Incomplete => "incomplete",
        }
    }
}

/// A session that has just ended may be counted for a moment longer.
const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(50);

/// Logs in as `config` says and tries. `others` are databases that must not let it in.
///
/// # Errors
/// `PermissionDenied` when the login does not work, `Failed` when it is not what it should be: then the Secret must not
/// be published.
pub(crate) async fn prove(config: &ConnectionConfig, app: &App, others: &[String]) -> Result<Proof> {
    for database in others {
        if !is_refused(config, database).await? {
            return Ok(Proof::Incomplete);
        }
    }
    let Some(session) = log_in(config).await? else { return Ok(Proof::Incomplete) };
    let wrap = |source| Error::from_postgres(format_args!("cannot work as {}", config.user()), source);
    let current: String = session.query_one(sql::CURRENT_USER, &[]).await.map_err(wrap)?.get(0);
    if current != app.owner.as_str() {
        return Err(Error::failed(
            "wrong_role",
            format!(
                "{} works as {current:?} and not as {}, so its objects would have the wrong owner",
                config.user(),
                app.owner
            ),
        ));
    }
    let table = format!("shareddb_proof_{:08x}", rand::random::<u32>());
    session.simple_query(&sql::try_table(app.schema.as_str(), &table)).await.map_err(wrap)?;
    Ok(Proof::Complete)
}

/// Whether the server takes a login's password, whatever it says of the rest.
///
/// # Errors
/// Whatever leaves that open.
pub(crate) async fn accepts(config: &ConnectionConfig) -> Result<bool> {
    /// What is found out after the password: that the database or its rights do not admit the login, or no slot is left.
    const AFTERWARDS: [&str; 4] =
        ["permission_denied", "database_not_found", "database_closed", "connection_limit_reached"];
    match config.clone().with_application_name(PROOF).connect().await {
        Ok(_) => Ok(true),
        Err(error) if AFTERWARDS.contains(&error.code()) => Ok(true),
        Err(error) if is_wrong_password(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the server asks for a password at all, from here: one that nobody has is tried.
///
/// # Errors
/// Whatever leaves that open.
pub(crate) async fn is_asked(config: &ConnectionConfig) -> Result<bool> {
    let wrong = password::generate()?;
    Ok(!accepts(&config.clone().with_password(wrong)).await?)
}

/// The error when it does not: then nothing can be known of a password.
pub(crate) fn not_asked(login: &str) -> Error {
    Error::refused(
        "password_not_asked",
        format!("the server asks {login} for no password from here, so that none can be proven"),
    )
    .with_hint("let a rule of pg_hba.conf ask for it (scram-sha-256 instead of trust), or adopt as a superuser")
}

/// Whether a login failed because of the password. A server that has a rule against it says no more than that.
pub(crate) fn is_wrong_password(error: &Error) -> bool {
    ["password_rejected", "login_rejected"].contains(&error.code())
}

async fn log_in(config: &ConnectionConfig) -> Result<Option<Session>> {
    for attempt in 1..=ATTEMPTS {
        match config.connect().await {
            Ok(session) => return Ok(Some(session)),
            Err(error) if error.code() == "connection_limit_reached" => {
                if attempt < ATTEMPTS {
                    tokio::time::sleep(PAUSE).await;
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// `false` when the login's own limit kept it from being tried.
async fn is_refused(config: &ConnectionConfig, database: &str) -> Result<bool> {
    /// Refused by pg_hba, refused by rights, not there (any more), and closed: each keeps the app out.
    const REFUSALS: [&str; 4] = ["login_rejected", "permission_denied", "database_not_found", "database_closed"];
    match log_in(&config.clone().with_database(database)).await {
        Ok(Some(_)) => {
            Err(Error::failed("isolation_broken", format!("{} gets into database {database:?}", config.user()))
                .with_hint("PUBLIC or one of the app's roles has CONNECT on it: revoke that, then run this again"))
        }
        Ok(None) => Ok(false),
        Err(error) if REFUSALS.contains(&error.code()) => Ok(true),
        Err(error) => Err(error),
    }
}
