//! The decision how an app's password changes: the login that is not in use gets a new one, the Secret comes to name that, and
//! then the other login comes to its end. Killed anywhere, the Secret names a login that works.

use std::time::Duration;

use crate::app::{App, AppSpec, Slot};
use crate::error::{Error, Result};
use crate::mark::{Mark, RotationRecord};
use crate::names::{AppName, RoleName};
use crate::postgres::clients::Client;
use crate::postgres::facts::Expiry;
use crate::postgres::login_end;
use crate::provision::credential::{self, Credential, Fate, LONGEST_GRACE, Turn};
use crate::provision::goal::Goal;
use crate::provision::observed::{Observed, SecretFacts};
use crate::provision::plan::{self, Plan};
use crate::provision::step::PasswordSource;
use crate::provision::takers;

/// How a password is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RotateOptions {
    /// How long the old password goes on working, in whole seconds, a year at most: until then programs that do not read the
    /// Secret again have to be restarted. The server itself ends it; sessions that are there stay. A week, unless something
    /// else is said.
    pub grace: Duration,
    /// The old password has got into wrong hands: its login is closed and its sessions are ended as soon as the Secret has the
    /// new one, and the grace does not count. The password before it ends, too, with the sessions that use it. A login with that
    /// one which has begun and is not through can still end well, for as long as the server's `authentication_timeout`: such
    /// a session is older than the new password, and the status of the app shows it.
    pub now: bool,
    /// Workloads that take the password from their variables, or from a file that does not follow the Secret, are restarted
    /// as `kubectl rollout restart` does it, but for those that a controller restarts. Nobody waits for that.
    pub restart: bool,
}

impl Default for RotateOptions {
    fn default() -> Self {
        Self { grace: Duration::from_secs(7 * DAY), now: false, restart: false }
    }
}

const DAY: u64 = 86_400;

/// Decides the steps: the new password, with everything about the app that is not as it ought to be put right on the way.
///
/// # Errors
/// `NotFound` when there is no such app, `Refused` when the other login still works or is full, or when the Secret is not in order,
/// `InvalidInput` for a grace of more than a year, `InvalidInput` or `PermissionDenied` when workloads are to be restarted and
/// cannot be seen, and whatever would stop a create.
pub(crate) fn plan_rotate(name: &AppName, options: &RotateOptions, observed: &Observed) -> Result<Plan> {
    check_grace(options)?;
    let record = observed.record(name)?.ok_or_else(|| observed.marks.no_such_app(name, &observed.environment))?;
    let spec = AppSpec::new(name.clone());
    let app = App::derive(&spec, &observed.environment, Some(record))?;
    let current = in_use(&app, record, observed)?;
    let restarts = if options.restart { observed.takers.to_restart()? } else { Vec::new() };
    let half_done = half_done(&app, record, current, options, observed);
    let finishes = half_done.is_some();
    let turn = match half_done {
        Some(turn) => turn,
        None => next(&app, record, current, options, observed)?,
    };
    let goal = Goal::Rotate(name.clone(), options.clone());
    let mut plan = plan::compose(&spec, app, observed, &Turn { restarts, ..turn }, goal)?;
    let before = LastTurn::of(plan.app.login(current.other()), &plan.app, observed);
    if !finishes && !options.now && before.sessions > 0 {
        let LastTurn { login, who, room, .. } = before;
        plan.notices.push(format!("sessions from the last turn of {login} go on, and leave it {room}: {who}"));
    }
    if finishes {
        let login = plan.app.login(current);
        plan.notices.push(format!(
            "this only ends a rotation that was cut short after the Secret had its new password, for {login}; another one takes another run"
        ));
    }
    Ok(plan)
}

fn check_grace(options: &RotateOptions) -> Result<()> {
    if options.grace.as_secs() <= LONGEST_GRACE {
        return Ok(());
    }
    Err(Error::invalid_input("grace_invalid", "an old password goes on working for a year at most"))
}

/// The login that the Secret names.
fn in_use(app: &App, record: &Mark, observed: &Observed) -> Result<Slot> {
    let create = format!("shareddb create {} -e {}", app.name, observed.environment);
    if record.is_dropping() {
        return Err(Error::refused("drop_unfinished", format!("app {} is being dropped", app.name))
            .with_hint(format!("drop it again, or, while its database is there, bring it back first: {create}")));
    }
    match &observed.secret {
        SecretFacts::Held(held) if held.complete => held.slot,
        SecretFacts::Held(_) | SecretFacts::Absent | SecretFacts::Foreign | SecretFacts::Elsewhere(_) => None,
    }
    .ok_or_else(|| {
        let message =
            format!("Secret {} of app {} is not in order, so it cannot be said whose turn it is", app.secret, app.name);
        let message = match record.environment == observed.environment {
            true => message,
            false => format!(
                "{message}; the app was made in environment {}, and this is {}",
                record.environment, observed.environment
            ),
        };
        Error::refused("secret_unsound", message)
            .with_hint(format!("put it right first, then run this again: {create}"))
    })
}

/// What is left of a rotation that has published the Secret and was killed then. Where a password has got into wrong hands, it
/// may be the one that was published.
fn half_done(app: &App, record: &Mark, current: Slot, options: &RotateOptions, observed: &Observed) -> Option<Turn> {
    let begun = record.rotation.filter(|begun| begun.to == current && !options.now)?;
    let rotation = if begun.now { begun } else { RotationRecord { grace: options.grace.as_secs(), ..begun } };
    let credential = credential::choose(app, observed);
    Some(Turn { credential, rotation: Some(rotation), fate: Fate::of(rotation), restarts: Vec::new() })
}

/// The other login's turn. One that has been begun because of a leak, and has not published the Secret, still is because of
/// one.
fn next(app: &App, record: &Mark, current: Slot, options: &RotateOptions, observed: &Observed) -> Result<Turn> {
    let to = current.other();
    let begun = record.rotation.filter(|begun| begun.to == to);
    let now = options.now || begun.is_some_and(|begun| begun.now);
    if !now && begun.is_none() {
        check_over(app, to, observed)?;
    }
    if !now {
        check_room(app, to, observed)?;
    }
    let rotation = RotationRecord { to, grace: options.grace.as_secs(), now };
    let credential = Credential::of(app, observed, to, PasswordSource::New, true);
    Ok(Turn { credential, rotation: Some(rotation), fate: Fate::of(rotation), restarts: Vec::new() })
}

/// Sessions that a login has from the last time that it was its turn.
struct LastTurn<'a> {
    login: &'a RoleName,
    sessions: u32,
    /// How many more it may have.
    room: u32,
    who: String,
}

impl<'a> LastTurn<'a> {
    fn of(login: &'a RoleName, app: &App, observed: &Observed) -> Self {
        let clients = observed.clients.iter().filter(|client| client.login == login.as_str());
        let sessions = clients.clone().map(|client| client.sessions).sum();
        let room = u32::from(app.connections).saturating_sub(sessions);
        Self { login, sessions, room, who: clients.map(Client::to_string).collect::<Vec<_>>().join(", ") }
    }
}

/// A login that lets nobody in any more is nobody's turn either: whoever starts then would stand outside.
fn check_room(app: &App, slot: Slot, observed: &Observed) -> Result<()> {
    let LastTurn { login, sessions, room, who } = LastTurn::of(app.login(slot), app, observed);
    if room > 0 {
        return Ok(());
    }
    let message = format!("{login}, whose turn it is, has no session left: {sessions} from its last turn go on: {who}");
    Err(Error::refused("login_full", message).with_hint(format!(
        "restart those programs, so that they log in anew, or give the app more: shareddb create {name} -e {environment} --connections {more}; \
         after a leak, end all its sessions at once: shareddb rotate {name} -e {environment} --now",
        name = app.name,
        environment = observed.environment,
        more = app.connections.saturating_mul(2).min(1000),
    )))
}

/// A login whose password somebody may still need is nobody's turn.
fn check_over(app: &App, slot: Slot, observed: &Observed) -> Result<()> {
    let login = app.login(slot);
    let Some(facts) = observed.roles.get(login.as_str()).filter(|facts| facts.admits()) else { return Ok(()) };
    if !credential::may_be_known(app, slot, observed) {
        return Ok(());
    }
    let users: Vec<String> =
        observed.clients.iter().filter(|client| client.login == login.as_str()).map(Client::to_string).collect();
    let users = match users.as_slice() {
        [] => "nobody has a session with it at this moment, which shows little: a job may come back to it".to_owned(),
        users => format!("sessions with it: {}", users.join(", ")),
    };
    let since = match &observed.secret {
        SecretFacts::Held(held) => held.issue.since,
        SecretFacts::Absent | SecretFacts::Foreign | SecretFacts::Elsewhere(_) => None,
    };
    let behind: Vec<String> = takers::behind(observed.takers.known().unwrap_or_default(), since).collect();
    let users = match behind.as_slice() {
        [] => users,
        behind => format!("{users}; started before the change of password: {}", behind.join(", ")),
    };
    let now = format!("shareddb rotate {} -e {} --now", app.name, observed.environment);
    let (state, hint) = match facts.expiry {
        Expiry::Future(end) => (
            format!("still works, until {end}"),
            format!(
                "rotate again after that; after a leak, end both logins' passwords and all their sessions at once: {now}"
            ),
        ),
        Expiry::Never | Expiry::Past(_) => (
            "still works, and has no end".to_owned(),
            format!(
                "give it one with `shareddb psql --admin`, and rotate again after that: {}; after a leak, end both logins' passwords and all their sessions at once: {now}",
                login_end::set_expiry(login.as_str(), "a day, such as 2030-01-31")
            ),
        ),
    };
    Err(Error::refused("login_in_use", format!("{login}, the other login of app {}, {state}; {users}", app.name))
        .with_hint(hint))
}
