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
/// Secret does not name; without a Secret the first, as in a create that was interrupted. Programs may have the password of an
/// adopted login by hand: there the second comes first, as long as nobody has it or it is idle and no Secret names it.
fn idle(app: &App, observed: &Observed, named: Option<Slot>) -> Slot {
    let facts = |role: &str| observed.roles.get(role);
    let sessions = |role: &str| facts(role).map_or(0, |facts: &RoleFacts| facts.sessions);
    let (one, two) = (sessions(app.login(Slot::One).as_str()), sessions(app.login(Slot::Two).as_str()));
    if let Some(adopted) = &app.adopted {
        let second = facts(app.login(Slot::Two).as_str());
        let may_be_known =
            |second: &RoleFacts| if observed.server.superuser { second.has_password } else { adopted.issued };
        if second.is_some_and(|second| !may_be_known(second)) || named.is_none() && two == 0 {
            return Slot::Two;
        }
    }
    // Sessions from before an adoption bear the owner role's name.
    match (one + sessions(app.owner.as_str()), two) {
        (0, 0) => named.map_or(Slot::One, Slot::other),
        (one, two) if one <= two => Slot::One,
        _ => Slot::Two,
    }
}
