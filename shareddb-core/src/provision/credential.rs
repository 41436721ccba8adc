//! Which login and which password the Secret is to name.

use crate::app::{App, Slot};
use crate::mark::{self, Mark, Progress, RotationRecord};
use crate::postgres::facts::{Expiry, RoleFacts, RoleShape};
use crate::provision::observed::{Observed, SecretFacts};
use crate::provision::role_steps;
use crate::provision::step::{PasswordSource, Step};
use crate::secrets::Workload;

/// The decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Credential {
    pub(crate) slot: Slot,
    pub(crate) source: PasswordSource,
    pub(crate) set_password: bool,
    /// The login's password has an end date, which the one that a Secret names must not have.
    pub(crate) expires: bool,
}

impl Credential {
    pub(crate) fn of(app: &App, observed: &Observed, slot: Slot, source: PasswordSource, set_password: bool) -> Self {
        let expires = observed.roles.get(app.login(slot).as_str()).is_some_and(|facts| facts.expiry != Expiry::Never);
        Self { slot, source, set_password, expires }
    }

    /// The steps about the password.
    pub(crate) fn steps(&self, app: &App) -> Vec<Step> {
        let login = app.login(self.slot);
        let set = Step::SetPassword { login: login.clone(), source: self.source };
        let end = Step::EndExpiry { login: login.clone() };
        self.set_password.then_some(set).into_iter().chain(self.expires.then_some(end)).collect()
    }
}

/// What becomes of the login that the Secret does not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is as it is.
    Stays,
    /// Its password works for so many seconds more.
    Ends { grace: u64 },
    /// It lets nobody in, since its password is nobody's any more.
    Closes,
    /// The same, and whoever is in has to go.
    Cuts,
}

/// What is to happen to the two logins, and what is recorded of it until it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) credential: Credential,
    pub(crate) rotation: Option<RotationRecord>,
    /// Of the other login.
    pub(crate) fate: Fate,
    /// What is to be restarted then.
    pub(crate) restarts: Vec<Workload>,
}

impl Turn {
    /// That of a create, which keeps what works. A rotation that was cut short is ended: the other login comes to its end as was
    /// said. But where the Secret has stayed as it was, nobody knows the password that was made, and the login that has it is
    /// closed.
    pub(crate) fn keeping(app: &App, record: Option<&Mark>, observed: &Observed) -> Self {
        let credential = choose(app, observed);
        let rotation = record.and_then(|mark| mark.rotation);
        let stayed =
            matches!(&observed.secret, SecretFacts::Held(held) if held.complete && held.slot == Some(credential.slot));
        let fate = match rotation {
            None => Fate::Stays,
            Some(begun) if begun.to != credential.slot && stayed => Fate::Closes,
            Some(begun) => Fate::of(begun),
        };
        Self { credential, rotation, fate, restarts: Vec::new() }
    }

    /// The login that is to let nobody in by now. One whose turn it is to be closed later is left as it is found.
    pub(crate) fn closed(&self, app: &App, observed: &Observed) -> Option<Slot> {
        let other = self.credential.slot.other();
        let shut = observed.roles.get(app.login(other).as_str()).is_some_and(|facts| !facts.shape.login);
        let closes = matches!(self.fate, Fate::Closes | Fate::Cuts);
        (if closes { shut } else { app.closed == Some(other) }).then_some(other)
    }

    /// The steps about the password of the login that the Secret is to name.
    pub(crate) fn begin(&self, app: &App, observed: &Observed) -> Vec<Step> {
        let mut steps = self.credential.steps(app);
        // Whoever logged in with the password that it had before.
        let login = app.login(self.credential.slot);
        let before = observed.roles.get(login.as_str()).is_some_and(|facts| facts.admits() || facts.sessions > 0);
        if self.fate == Fate::Cuts && self.credential.set_password && before {
            steps.push(Step::EndSessions { roles: vec![login.clone()] });
        }
        steps
    }

    /// The steps after the Secret is published.
    pub(crate) fn end(&self, app: &App, observed: &Observed, left: Option<Progress>) -> Vec<Step> {
        if self.rotation.is_none() {
            return Vec::new();
        }
        let role = app.login(self.credential.slot.other());
        let facts = observed.roles.get(role.as_str());
        let mut steps = Vec::new();
        // A run that was killed after it had set the end has left that.
        let ends = facts.is_some_and(|facts| facts.expiry != Expiry::Never) && !self.credential.set_password;
        if let Fate::Ends { grace } = self.fate
            && !ends
        {
            steps.push(Step::SetExpiry { login: role.clone(), grace });
        }
        let closes = matches!(self.fate, Fate::Closes | Fate::Cuts);
        if closes && facts.is_some_and(|facts| facts.has_password) {
            steps.push(Step::ClearPassword { role: role.clone() });
        }
        if closes && facts.is_none_or(|facts| facts.shape.login) {
            let shape = RoleShape { login: false, ..role_steps::shape(app, role) };
            steps.push(Step::AlterRole { role: role.clone(), shape });
        }
        if self.fate == Fate::Cuts {
            // Sessions from before an adoption bear the owner role's name.
            let before = observed.roles.get(app.owner.as_str()).filter(|facts| facts.sessions > 0);
            steps.push(Step::EndSessions {
                roles: std::iter::once(role).chain(before.map(|_| &app.owner)).cloned().collect(),
            });
        }
        steps.extend(self.restarts.iter().map(|workload| Step::Restart { workload: workload.clone() }));
        let closed = closes.then_some(self.credential.slot.other());
        steps.push(Step::EndRotation { role: app.owner.clone(), closed, left });
        steps
    }
}

impl Fate {
    /// What a rotation has said of the login that it leaves.
    pub(crate) fn of(rotation: RotationRecord) -> Self {
        if rotation.now { Self::Cuts } else { Self::Ends { grace: rotation.grace } }
    }
}

/// Of an adopted app it is recorded when its second login is issued: then it cannot be given back any more. Passwords are
/// counted once the app has been whole.
pub(crate) fn note_issue(app: &mut App, record: Option<&Mark>, credential: &Credential) {
    if let Some(adopted) = &mut app.adopted {
        adopted.issued |= credential.slot == Slot::Two && credential.set_password;
    }
    let whole = record.is_some_and(|mark| mark.progress != Some(Progress::Creating));
    if whole && credential.source == PasswordSource::New {
        app.generation = app.generation.saturating_add(1);
    }
}

/// Whether anybody may know a password of a login. Who is no superuser sees no passwords and goes by what is recorded: the first
/// login of an adopted app has had one by hand, its second one has none before it was issued, and of an app that has had only
/// one password in its life the Secret has that.
pub(crate) fn may_be_known(app: &App, slot: Slot, observed: &Observed) -> bool {
    let Some(facts) = observed.roles.get(app.login(slot).as_str()) else { return false };
    if observed.server.superuser || !facts.has_password {
        return facts.has_password;
    }
    let named = matches!(&observed.secret, SecretFacts::Held(held) if held.slot == Some(slot));
    let recorded = match &app.adopted {
        Some(adopted) => slot == Slot::One || adopted.issued,
        None => app.generation > mark::FIRST_GENERATION,
    };
    recorded || named || facts.sessions > 0 || facts.expiry != Expiry::Never
}

/// Keeps what works: a complete Secret is right even when the server says otherwise; of a damaged one, a password that
/// the server accepts is kept; else a login that nobody is using gets a new one.
pub(crate) fn choose(app: &App, observed: &Observed) -> Credential {
    let credential = |slot, source, set_password| Credential::of(app, observed, slot, source, set_password);
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
    if app.adopted.is_some() {
        let second = facts(app.login(Slot::Two).as_str());
        if second.is_some() && !may_be_known(app, Slot::Two, observed) || named.is_none() && two == 0 {
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
