//! Which login and which password the Secret is to name.

use crate::app::{App, Slot};
use crate::postgres::facts::{Expiry, RoleFacts};
use crate::provision::observed::{Observed, SecretFacts};
use crate::provision::step::PasswordSource;

/// The decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Credential {
    pub(crate) slot: Slot,
    pub(crate) source: PasswordSource,
    pub(crate) set_password: bool,
    /// The login's password has an end date, which the one that a Secret names must not have.
    pub(crate) expires: bool,
}

/// Keeps what works: a complete Secret is right even when the server says otherwise; of a damaged one, a password that
/// the server accepts is kept; else a login that nobody is using gets a new one.
pub(crate) fn choose(app: &App, observed: &Observed) -> Credential {
    let role = |slot| observed.roles.get(app.login(slot).as_str());
    let credential = |slot, source, set_password| Credential {
        slot,
        source,
        set_password,
        expires: role(slot).is_some_and(|facts| facts.expiry != Expiry::Never),
    };
    let SecretFacts::Held(held) = &observed.secret else {
        return credential(idle(app, observed, None), PasswordSource::New, true);
    };
    let works = |slot: Slot| held.works[slot as usize];
    match held.slot {
        Some(slot) if held.complete => credential(slot, PasswordSource::Secret, !works(slot)),
        named => match named.into_iter().chain(Slot::ALL).find(|slot| works(*slot)) {
            Some(slot) => credential(slot, PasswordSource::Secret, false),
            None => credential(idle(app, observed, named), PasswordSource::New, true),
        },
    }
}

/// The login without sessions, so that running programs stay connected. Without any sessions, the one that the damaged
/// Secret does not name; without a Secret the first, as in a create that was interrupted.
fn idle(app: &App, observed: &Observed, named: Option<Slot>) -> Slot {
    let sessions = |slot| observed.roles.get(app.login(slot).as_str()).map_or(0, |facts: &RoleFacts| facts.sessions);
    let (one, two) = (sessions(Slot::One), sessions(Slot::Two));
    // Programs may have the password of an adopted login by hand; nobody has one of a login that never had any.
    let unissued = observed.roles.get(app.login(Slot::Two).as_str()).is_some_and(|facts| !facts.has_password);
    if app.adopted.is_some() && unissued {
        return Slot::Two;
    }
    match (one, two) {
        (0, 0) => named.map_or(Slot::One, Slot::other),
        _ if one <= two => Slot::One,
        _ => Slot::Two,
    }
}
