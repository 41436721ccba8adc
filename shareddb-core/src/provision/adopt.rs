//! Taking over an app that was made by hand, in place and while it works.
//!
//! The old login itself becomes the owner role, by renaming it: everything it owns and holds is bound to the role and not to
//! its name, and so are its running sessions. A new login gets the old name and the old password. That is one transaction,
//! the swap. What an admin made for the app changes hands afterwards, bit by bit, while the app works.

mod carry;
mod case;
mod change;
mod finding;
mod heritage;
mod look;
mod path;
mod plain;
mod reach;
mod record;
mod refusals;
mod script;
mod swap;
mod undo;

#[cfg(test)]
mod scenarios;

use std::collections::{BTreeMap, BTreeSet};

use crate::adoption::Adopt;
use crate::app::{App, AppSpec, DEFAULT_CONNECTIONS, Slot};
use crate::error::{Error, Result};
use crate::mark::Mark;
use crate::names::SettingName;
use crate::postgres::facts::{Expiry, RoleFacts, RoleShape};
use crate::postgres::legacy::{FoundSecret, Legacy};
use crate::postgres::sql::{escaped, parse_identifier_list};
use crate::provision::credential::{self, Credential};
use crate::provision::gap::Gap;
use crate::provision::goal::Goal;
use crate::provision::observed::Observed;
use crate::provision::plan::Plan;
use crate::provision::reach::{Parted, part};
use crate::provision::step::{PasswordSource, Step};
use crate::provision::walls;

use case::Case;
pub use change::Adoption;
pub(crate) use heritage::{DATABASE_OWNER, listed};
pub(crate) use look::look;
pub(crate) use reach::Reach;
pub(crate) use undo::plan_undo;

/// Decides how a hand-made app is taken over.
///
/// # Errors
/// `Refused` or `Conflict` (`adopt_refused`) with every reason and its cure, as causes.
pub(crate) fn plan(spec: &AppSpec, adopt: &Adopt, observed: &Observed, legacy: &Legacy) -> Result<Plan> {
    let named = AppSpec { database: Some(legacy.database.clone()), user: Some(legacy.user.clone()), ..spec.clone() };
    let mut app = App::derive(&named, &observed.environment, None)?;
    let login = observed.roles.get(app.login(Slot::One).as_str());
    if let (Some(login), None) = (login, spec.connections) {
        app.connections = connections(login);
    }
    if let Some(error) = finding::error(&spec.name, refusals::findings(spec, adopt, &app, observed, legacy)) {
        return Err(error);
    }
    let (Some(login), Ok(inventory)) = (login, &legacy.inside) else {
        return Err(Error::failed("internal", "a finding was overlooked"));
    };
    let case = Case { spec, adopt, observed, legacy, login, inventory };
    let mut app = record::recorded(&case, record::with_own_ways(&case, app));

    let credential = kept(login, &legacy.secret);
    credential::note_issue(&mut app, None, &credential);
    let (walls, mut gaps, open) = walls(spec, &app, observed);
    // While the lock over what all apps share is still held.
    let mut changes = walls;
    changes.extend(swap::steps(&app, &case));
    changes.extend(sessions(&app, observed, true));
    changes.extend(heritage::taken(inventory, &app, app.login(Slot::One).as_str(), &adopt.take_from));
    let Parted { within: mut steps, gaps: beyond, left } = part(&app, observed, changes);
    gaps.extend(beyond);
    // Where they go is decided by a second look, from within.
    let partial = !app.extensions.is_empty();
    if !partial {
        steps.extend(credential.steps(&app));
        steps.push(Step::Prove { login: app.login(credential.slot).clone(), open, left });
        let replace = legacy.secret != FoundSecret::Absent;
        steps.push(Step::PublishSecret { secret: app.secret.clone(), slot: credential.slot, replace });
    }
    Ok(Plan {
        notices: notices(&app, &case).into_iter().chain(walls::losers(&steps, observed)).collect(),
        gaps,
        exists: false,
        goal: Goal::Create(spec.clone()),
        app,
        steps,
        partial,
        in_use: Some(credential.slot),
        rotation: None,
        workloads: None,
    })
}

/// What is to be done about the walls of all apps, what is not for us to do, and what stays open. The app's own database is
/// closed by the swap.
fn walls(spec: &AppSpec, app: &App, observed: &Observed) -> (Vec<Step>, Vec<Gap>, Vec<String>) {
    let mut others = observed.clone();
    others.server.visitors.remove(app.database.as_str());
    // It is about to be an app's, as all logins are that have no business there.
    for visitors in others.server.visitors.values_mut().chain(others.server.temporary.values_mut()) {
        visitors.remove(app.login(Slot::One).as_str());
    }
    let (mut steps, gaps) = walls::steps(spec, &others);
    let open = walls::left_open(&others, &steps);
    steps.retain(|step| *step != Step::CreateMaintenanceGroup);
    (steps, gaps, open)
}

/// What is left of an adoption that has passed its swap.
pub(crate) fn rest(app: &App, record: Option<&Mark>, observed: &Observed) -> Vec<Step> {
    if !record.is_some_and(Mark::is_adopting) {
        return Vec::new();
    }
    let mut steps: Vec<Step> = sessions(app, observed, false).into_iter().collect();
    if let Some(inventory) = &observed.inventory {
        let take_from = app.adopted.iter().flat_map(|adopted| adopted.take_from.iter().cloned()).collect();
        let of_extensions = |name: &str| {
            let installed = observed.inside.iter().flat_map(|inside| inside.extensions.values());
            installed.into_iter().any(|extension| parse_identifier_list(name) == [extension.schema.as_str()])
        };
        let late = heritage::late_schemas(inventory, app.owner.as_str(), &take_from);
        steps.extend(
            late.filter(|object| !of_extensions(&object.name.identity)).map(|schema| heritage::take(schema, app)),
        );
        steps.extend(heritage::taken(inventory, app, app.owner.as_str(), &take_from));
        steps.extend(heritage::default_rights(inventory, app));
    }
    steps
}

/// Sessions from before, which bear the owner role's name, where they must not go on.
fn sessions(app: &App, observed: &Observed, planned: bool) -> Option<Step> {
    let role = if planned { app.login(Slot::One) } else { &app.owner };
    let running = observed.roles.get(role.as_str()).is_some_and(|facts| facts.sessions > 0);
    let ends = app.adopted.as_ref().is_some_and(|adopted| adopted.end_sessions);
    // Some may come between now and the swap.
    (ends && (planned || running)).then(|| Step::EndSessions { roles: vec![app.owner.clone()] })
}

/// As many as the login was promised, or has.
fn connections(login: &RoleFacts) -> u16 {
    let declared = u32::try_from(login.shape.connection_limit).unwrap_or_default();
    let needed = declared.max(login.sessions).max(u32::from(DEFAULT_CONNECTIONS));
    u16::try_from(needed).unwrap_or(u16::MAX).min(1000)
}

/// The old password goes on where the Secret has it; else the second login is issued, and programs with the old one go on.
fn kept(login: &RoleFacts, secret: &FoundSecret) -> Credential {
    match secret {
        FoundSecret::Found { works: true, .. } => Credential {
            slot: Slot::One,
            source: PasswordSource::Secret,
            set_password: false,
            expires: login.expiry != Expiry::Never,
        },
        _ => Credential { slot: Slot::Two, source: PasswordSource::New, set_password: true, expires: false },
    }
}

fn notices(app: &App, case: &Case<'_>) -> Vec<String> {
    let Case { adopt, observed, legacy, login, inventory, .. } = case;
    let prepared = observed.database.as_ref().map(|facts| facts.prepared.as_slice()).unwrap_or_default();
    let name = app.login(Slot::One);
    let outside = &legacy.outside;
    let mut told = heritage::notices(inventory, name.as_str(), &adopt.take_from);
    let mut tell = |text: Option<String>| told.extend(text);
    tell((!app.extensions.is_empty()).then(|| {
        format!("what is to be done about extensions and the Secret is decided when {} is the owner", app.owner)
    }));
    let guests = app.guests().map(ToString::to_string);
    tell(listed(guests).map(|list| format!("these go on entering database {}: {list}", app.database)));
    let lost = outside.public_only.iter().filter(|role| !app.is_guest(role)).map(|role| escaped(role));
    tell(listed(lost).map(|list| format!("these can enter database {} no longer: {list}", app.database)));
    tell((app.connections > DEFAULT_CONNECTIONS).then(|| {
        format!("each login may have {} connections, since the app has or was promised as many", app.connections)
    }));
    tell((login.sessions > 0).then(|| {
        format!("{} sessions of {name} go on as {}, by that name, until they reconnect", login.sessions, app.owner)
    }));
    let settings = [&outside.settings, &login.settings, &login.database_settings].into_iter().flat_map(BTreeMap::keys);
    // The search path has its own way, and the role is what shareddb sets.
    let lost = settings.filter(|name| !["search_path", "role"].contains(&name.as_str()));
    let lost: BTreeSet<&String> = lost.filter(|name| name.parse::<SettingName>().is_err()).collect();
    tell(
        listed(lost.into_iter().map(|name| escaped(name)))
            .map(|list| format!("these settings are of a kind that no app can have, and end: {list}")),
    );
    tell(
        listed(prepared.iter().map(|gid| escaped(gid)))
            .map(|list| format!("prepared transactions survive this: {list}")),
    );
    tell(listed(outside.slots.iter().map(|slot| escaped(slot))).map(|list| {
        format!("replication slots stay, and go with the database; one in use keeps it from being dropped: {list}")
    }));
    tell(
        outside.login.as_ref().is_some_and(|login| login.md5).then(|| {
            format!("the password of {name} is stored as MD5, and goes on so; a new one will be SCRAM-SHA-256")
        }),
    );
    match &legacy.secret {
        FoundSecret::Found { works: true, kept_keys, copies, .. } => {
            tell(listed(copies.iter().cloned()).map(|list| {
                format!(
                    "keys of Secret {} hold the password under other names, and keep it when it changes: {list}",
                    app.secret
                )
            }));
            tell(
                listed(kept_keys.iter().cloned())
                    .map(|list| format!("keys of Secret {} that say something of their own stay: {list}", app.secret)),
            );
        }
        FoundSecret::Found { .. } => tell(Some(format!(
            "the password in Secret {} is not that of {name}: the Secret gets the second login, and programs with the old \
             password go on",
            app.secret
        ))),
        _ => tell(Some(format!(
            "Secret {} is made for the second login; programs with the old password of {name} go on",
            app.secret
        ))),
    }
    told
}

/// The role that the login becomes, as it will be.
fn heir(login: &RoleFacts) -> RoleFacts {
    RoleFacts {
        shape: RoleShape::CLOSED,
        expiry: Expiry::Never,
        has_password: false,
        settings: BTreeMap::new(),
        database_settings: BTreeMap::new(),
        ..login.clone()
    }
}
