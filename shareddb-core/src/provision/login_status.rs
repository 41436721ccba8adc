//! How an app's two logins are.

use jiff::Timestamp;
use serde::Serialize;

use crate::app::{App, Slot};
use crate::names::RoleName;
use crate::postgres::facts::{Expiry, RoleFacts};
use crate::provision::credential;
use crate::provision::observed::Observed;

/// What a login is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum LoginState {
    /// The Secret names it.
    InUse,
    /// The Secret does not name it any more, and its password works until its end.
    Ending,
    /// The Secret does not name it, and its password works without an end.
    Open,
    /// Its password has come to its end. Sessions from before may go on.
    Ended,
    /// It lets nobody in: it has no password, may not log in, or does not exist.
    Closed,
}

impl LoginState {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InUse => "in use",
            Self::Ending => "ending",
            Self::Open => "open",
            Self::Ended => "ended",
            Self::Closed => "closed",
        }
    }
}

/// One of an app's logins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct LoginStatus {
    /// The role.
    pub role: RoleName,
    /// What it is good for.
    pub state: LoginState,
    /// When its password ends or has ended, by the server's clock.
    pub ends: Option<Timestamp>,
    /// Its sessions at this moment.
    pub sessions: u32,
}

/// Both, in order. `in_use` is the one that the Secret names.
pub(crate) fn of(app: &App, in_use: Option<Slot>, observed: &Observed) -> [LoginStatus; 2] {
    Slot::ALL.map(|slot| {
        let role = app.login(slot).clone();
        let facts = observed.roles.get(role.as_str());
        let ends = match facts.map(|facts| facts.expiry) {
            Some(Expiry::Past(end) | Expiry::Future(end)) => Some(end),
            Some(Expiry::Never) | None => None,
        };
        let known = credential::may_be_known(app, slot, observed);
        LoginStatus {
            state: if in_use == Some(slot) { LoginState::InUse } else { state(facts, known) },
            sessions: facts.map_or(0, |facts| facts.sessions),
            role,
            ends,
        }
    })
}

fn state(facts: Option<&RoleFacts>, known: bool) -> LoginState {
    match facts {
        Some(facts) if facts.shape.login && facts.has_password => match facts.expiry {
            Expiry::Past(_) => LoginState::Ended,
            Expiry::Future(_) => LoginState::Ending,
            Expiry::Never if known => LoginState::Open,
            Expiry::Never => LoginState::Closed,
        },
        Some(_) | None => LoginState::Closed,
    }
}
