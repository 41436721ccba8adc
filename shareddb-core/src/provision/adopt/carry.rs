//! Carrying out an adoption: the swap in one transaction, and what changes hands afterwards.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::names::RoleName;
use crate::password::Verifier;
use crate::postgres::adopt_statements as sql;
use crate::postgres::legacy::ObjectName;
use crate::postgres::session::AdminSession;
use crate::postgres::statements;
use crate::provision::adopt::{Adoption, script};
use crate::provision::execute::{self, Execution};
use crate::provision::proof;
use crate::provision::script::Script;
use crate::provision::step::Step;

/// What is locked together at most: each object takes several places in the server's lock table.
const LOT: usize = 200;
/// Between two attempts the programs that wait behind us get their turn.
const PAUSE: Duration = Duration::from_millis(300);
const JITTER: u64 = 100;

impl Execution<'_> {
    /// All of the swap, or nothing.
    pub(in crate::provision) async fn swap(&mut self, steps: &[Step]) -> Result<()> {
        let gives_back = |step: &Step| matches!(step, Step::Adopt(Adoption::GiveBack { .. }));
        let what = if steps.iter().any(gives_back) { "give the app back" } else { "adopt the app" };
        let session = self.tenant_session(self.app.database.as_str()).await?;
        let silence = [statements::silence_log(&self.observation.observed.server), self.silence_md5()].join("; ");
        session.begin(what, &silence).await?;
        let done = self.swap_within(&session, what, steps).await;
        session.end(what, done).await
    }

    /// From 18 on the server warns of MD5, and a warning is a failure elsewhere.
    fn silence_md5(&self) -> &'static str {
        if self.observation.observed.server.version.major() >= 18 { sql::SILENCE_MD5 } else { "" }
    }

    async fn swap_within(&mut self, session: &AdminSession, what: &str, steps: &[Step]) -> Result<()> {
        let mut carried = None;
        for step in steps {
            if let Step::Adopt(Adoption::CarryPassword { login }) = step {
                let statements = self.carry(login, carried.as_ref());
                session.run_all(what, &statements).await?;
                continue;
            }
            let statements = self.sql(step)?;
            session.run_all(&format!("do: {step}"), &statements).await?;
            if let Step::Adopt(Adoption::CloseLogin { login, .. }) = step {
                carried = self.locked_password(session, login).await?;
            }
        }
        let checks: Vec<String> = script::checks(steps).collect();
        session.run_all(what, &checks).await.map_err(replaced)
    }

    /// The identity of the login that was looked at.
    fn login_oid(&self) -> Option<u32> {
        self.observation
            .observed
            .legacy
            .as_ref()
            .and_then(|legacy| legacy.outside.login.as_ref())
            .map(|login| login.oid)
    }

    fn carry(&self, login: &RoleName, carried: Option<&Verifier>) -> Vec<String> {
        let before = self.app.adopted.as_ref().map(|adopted| &adopted.before);
        sql::carry_password(login.as_str(), carried, before.and_then(|before| before.valid_until.as_deref()))
    }

    /// The login's password, if it is still the login that was looked at. The role is locked by now: whoever sets another
    /// password waits, and fails.
    async fn locked_password(&self, session: &AdminSession, login: &RoleName) -> Result<Option<Verifier>> {
        if self.observation.observed.server.superuser {
            return stored(session, login, self.login_oid()).await;
        }
        let what = "see which role the login is";
        check_identity(login, self.login_oid(), session.value(what, &sql::identity(login.as_str())).await?)?;
        // What cannot be read is made anew, if it still opens the door: until the commit others see the login as it was.
        let password = self.password()?;
        let config = self.app_config(login, password.clone());
        if !proof::is_asked(&config).await? {
            return Err(proof::not_asked(login.as_str()));
        }
        if !proof::accepts(&config).await? {
            let message = format!("login {login} has another password than a moment ago");
            return Err(Error::conflict("concurrent_change", message).with_hint("nothing was changed; run it again"));
        }
        Verifier::of(&password).map(Some)
    }

    /// Hands over what an admin made, so patiently that no program of the app waits for long.
    pub(in crate::provision) async fn take(&mut self, steps: &[Step]) -> Result<()> {
        let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + self.patience);
        for lot in steps.chunks(LOT) {
            let objects: Vec<&ObjectName> = lot.iter().filter_map(object).collect();
            let script = Script::of_admin(self.app, &self.observation.observed.server);
            let statements: Vec<String> =
                [sql::TAKE_LOCK_TIMEOUT.to_owned()].into_iter().chain(script.taking(lot)).collect();
            let what = execute::what(lot);
            let session = self.inside().await?;
            while let Err(error) = session.run_transaction(&what, &statements).await {
                if !matches!(error, Error::Timeout(_)) && error.code() != "concurrent_change" {
                    return Err(replaced(error));
                }
                if Instant::now() > deadline {
                    return Err(blocked(session, &objects, error).await);
                }
                tokio::time::sleep(PAUSE + Duration::from_millis(rand::random_range(0..JITTER))).await;
            }
        }
        Ok(())
    }
}

/// The error when a name stands for another object than it did: nothing has changed hands.
fn replaced(error: Error) -> Error {
    if error.sqlstate() != Some(sql::NOT_A_NUMBER) {
        return error;
    }
    Error::conflict(
        "objects_replaced",
        "an object that was to change hands has been replaced by another one of its name",
    )
    .with_hint("somebody renames or makes objects meanwhile; run it again, and look at what is listed")
    .with_source(error)
}

fn object(step: &Step) -> Option<&ObjectName> {
    match step {
        Step::Adopt(Adoption::Take { object, .. }) => Some(object),
        _ => None,
    }
}

/// The password as the server has it, if the role is the one that was looked at.
async fn stored(session: &AdminSession, login: &RoleName, oid: Option<u32>) -> Result<Option<Verifier>> {
    let row = session.value("read the login's stored password", &sql::stored_password(login.as_str())).await?;
    let row = row.unwrap_or_default();
    let (found, password) = row.split_once(' ').unwrap_or((&row, ""));
    check_identity(login, oid, Some(found.to_owned()))?;
    match password {
        "" => Ok(None),
        password => Verifier::stored(password).map(Some).ok_or_else(|| {
            Error::failed("password_unreadable", format!("the stored password of role {login} has an unknown form"))
        }),
    }
}

fn check_identity(login: &RoleName, expected: Option<u32>, found: Option<String>) -> Result<()> {
    if expected.is_none_or(|oid| found.is_some_and(|found| found == oid.to_string())) {
        return Ok(());
    }
    let message = format!("role {login} is another one than a moment ago");
    Err(Error::conflict("concurrent_change", message).with_hint("nothing was changed; run it again"))
}

/// The last lock was in vain: who holds it.
async fn blocked(session: &AdminSession, objects: &[&ObjectName], error: Error) -> Error {
    let names = objects.first().map(ToString::to_string).unwrap_or_default();
    let holders = session.value("see who is in the way", &sql::blockers(objects)).await.ok().flatten();
    let holders = holders.unwrap_or_else(|| "a session that has just ended".to_owned());
    Error::timeout("objects_in_use", format!("{names} is in use by {holders}, so that it cannot change hands"))
        .with_hint("the app works as before; let that end, then run the same command again: it goes on from there")
        .with_source(error)
}
