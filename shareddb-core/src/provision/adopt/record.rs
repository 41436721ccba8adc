//! What is recorded of an adoption: the app's own ways, and what was there before.

use std::collections::{BTreeMap, BTreeSet};

use crate::adoption::{Adopted, Before, Grant};
use crate::app::{App, Slot};
use crate::names::{RoleName, SettingName};
use crate::postgres::facts::RoleFacts;
use crate::postgres::legacy::{FoundSecret, Legacy};
use crate::provision::adopt::case::Case;
use crate::provision::adopt::path;
use crate::provision::{admission, role_steps};

/// The app with the ways of its own that nobody has asked to change: where it looks for tables and makes them, and its settings.
pub(super) fn with_own_ways(case: &Case<'_>, mut app: App) -> App {
    let Case { spec, legacy: Legacy { outside, .. }, login, inventory, .. } = case;
    if spec.search_path.is_none() {
        let name = app.login(Slot::One).as_str();
        let may_create = login.shape.superuser
            || outside.access.iter().any(|grant| grant.right == "CREATE" && (grant.to == name || grant.to.is_empty()));
        let path = path::explicit(path::effective(login, outside), name, &inventory.schemas, may_create);
        if !path.is_empty() {
            app.search_path = path;
        }
    }
    if let Some(schema) = path::first_existing(&app.search_path, &inventory.schemas) {
        app.schema = schema.clone();
    }
    if spec.settings.is_none() {
        app.settings = settings(login, &outside.settings);
    }
    app
}

/// The app with the record of its adoption.
pub(super) fn recorded(case: &Case<'_>, app: App) -> App {
    let Case { adopt, observed, legacy, login, inventory, .. } = case;
    let (kept_keys, host, port) = match &legacy.secret {
        FoundSecret::Found { kept_keys, host, port, .. } => (kept_keys.clone(), host.clone(), *port),
        _ => (BTreeSet::new(), None, None),
    };
    let name = app.login(Slot::One).as_str();
    let members = role_steps::members(login, observed).map(|(member, _)| member);
    let adopted = Adopted {
        schema: app.schema.clone(),
        guests: guests(case, &app),
        groups: login.groups.keys().filter_map(|role| RoleName::existing(role).ok()).collect(),
        members: members.filter_map(|role| RoleName::existing(role).ok()).collect(),
        kept_keys,
        host,
        port,
        issued: false,
        end_sessions: path::uses_own_name(path::effective(login, &legacy.outside), name, &inventory.schemas),
        take_from: adopt.take_from.clone(),
        before: before(case, name),
    };
    App { adopted: Some(adopted), ..app }
}

fn before(case: &Case<'_>, name: &str) -> Before {
    let Case { observed, legacy: Legacy { outside, .. }, login, inventory, .. } = case;
    let database = observed.database.as_ref();
    let not_of = |owner: &str| {
        let owner = owner.to_owned();
        move |grant: &&Grant| grant.to != owner
    };
    let owner = database.map(|facts| facts.owner.clone()).unwrap_or_default();
    let public = inventory.public.as_ref().filter(|(owner, _)| owner != name);
    Before {
        access: outside.access.iter().filter(not_of(&owner)).cloned().collect(),
        owner,
        limit: database.map_or(-1, |facts| facts.connection_limit),
        attributes: login.shape.words(),
        valid_until: outside.login.as_ref().and_then(|login| login.valid_until.clone()),
        settings: outside.settings.clone(),
        login_settings: login.settings.clone(),
        local_settings: login.database_settings.clone(),
        public_owner: public.map(|(owner, _)| owner.clone()),
        public_access: public
            .map(|(owner, grants)| grants.iter().filter(not_of(owner)).cloned().collect())
            .unwrap_or_default(),
        login_comment: outside.login.as_ref().and_then(|login| login.comment.clone()),
        database_comment: outside.comment.clone(),
    }
}

/// The settings that were in force for the login, as the app's own: what is set closest to it counts.
fn settings(login: &RoleFacts, database: &BTreeMap<String, String>) -> BTreeMap<SettingName, String> {
    [database, &login.settings, &login.database_settings]
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| name.parse().ok().map(|name| (name, value.clone())))
        .collect()
}

/// Roles of others that may go on entering: those with rights of their own inside or on the database, and those that the caller
/// names.
fn guests(case: &Case<'_>, app: &App) -> BTreeSet<RoleName> {
    let Case { adopt, observed, legacy, .. } = case;
    let apps = admission::roles_of_others(&app.name, observed);
    let owner = observed.database.as_ref().map(|facts| facts.owner.as_str()).unwrap_or_default();
    let residents = legacy.outside.residents.iter().filter(|resident| resident.enters).map(|resident| &resident.role);
    let granted = legacy.outside.access.iter().filter(|grant| grant.right == "CONNECT" && grant.to != owner);
    residents
        .chain(granted.map(|grant| &grant.to))
        .filter(|role| {
            !role.is_empty()
                && **role != observed.server.admin
                && app.slot_of(role) != Some(Slot::One)
                && (adopt.keep_grants || !apps.contains(*role))
        })
        .filter_map(|role| RoleName::existing(role).ok())
        .chain(adopt.allow_connect.iter().cloned())
        .collect()
}
