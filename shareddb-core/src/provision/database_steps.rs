//! What to do about an app's database, from outside and from inside.

use std::collections::{BTreeMap, BTreeSet};

use crate::app::App;
use crate::names::RoleName;
use crate::postgres::facts::{DatabaseFacts, InsideFacts, OWNER_ACCESS, RoleFacts};
use crate::postgres::marks::Bearer;
use crate::postgres::sql::{is_list, parse_identifier_list};
use crate::provision::adopt::Adoption;
use crate::provision::observed::Observed;
use crate::provision::step::Step;

/// All steps about the database, as far as it can be seen: it opens only after PUBLIC has lost its rights. Of one that is
/// there and closed nobody knows the inside; that is decided with a second look, once it is open.
pub(crate) fn database(app: &App, observed: &Observed) -> Vec<Step> {
    let mut steps = Vec::new();
    let existing = observed.database.as_ref().filter(|facts| !facts.invalid);
    if existing.is_none() {
        if observed.database.is_some() {
            steps.push(Step::DropDatabase { database: app.database.clone() });
        }
        steps.push(Step::CreateDatabase { database: app.database.clone(), connections: app.database_connections() });
    }
    let fresh = DatabaseFacts::fresh(&observed.server.admin, app.database_connections());
    let facts = existing.unwrap_or(&fresh);
    // The mark of one that is dropped goes with it, as settings in it do.
    let recorded = existing.and_then(|_| observed.marks.on(Bearer::Database, app.database.as_str()));
    if recorded != Some(&app.mark().of_database()) {
        steps.push(Step::MarkDatabase { database: app.database.clone(), dropping: false });
    }
    steps.extend(outside(app, observed, facts));
    let in_database = |role: &RoleName| existing.and(observed.roles.get(role.as_str()));
    steps.extend(settings(app, in_database));
    // Somebody may have come in after this was observed, and before a right was taken.
    let taken = existing.is_some() && steps.iter().any(|step| matches!(step, Step::SetAccess { .. }));
    if taken || !facts.strangers.is_empty() {
        steps.push(Step::EndStrangers { database: app.database.clone() });
    }
    if !facts.allows_connections {
        steps.push(Step::OpenDatabase { database: app.database.clone() });
    }
    match (existing, &observed.inside) {
        (None, _) => steps.extend(inside(app, observed, &InsideFacts::fresh())),
        (Some(_), Some(facts)) => steps.extend(inside(app, observed, facts)),
        (Some(_), None) => {}
    }
    steps
}

fn outside(app: &App, observed: &Observed, facts: &DatabaseFacts) -> Vec<Step> {
    let database = app.database.clone();
    let mut steps = Vec::new();
    let foreign_owner = facts.owner != observed.server.admin;
    if foreign_owner {
        steps.push(Step::OwnDatabase { database: database.clone() });
    }
    let desired = BTreeMap::from([(app.owner.to_string(), OWNER_ACCESS.map(str::to_owned).into())]);
    // A change of owner takes the old owner's rights along, and they may have been the app's.
    let guest = |grantee: &str| app.is_guest(grantee);
    let access: BTreeMap<&String, &BTreeSet<String>> =
        facts.access.iter().filter(|(grantee, _)| !guest(grantee)).collect();
    if foreign_owner || access != desired.iter().collect() {
        let exact = |grantee: &String| facts.access.get(grantee) == desired.get(grantee);
        let mut revoke: Vec<String> = access.into_keys().filter(|grantee| !exact(grantee)).cloned().collect();
        if foreign_owner && facts.owner != app.owner.as_str() {
            revoke.push(facts.owner.clone());
        }
        revoke.retain(|grantee| *grantee != app.owner.as_str() || !foreign_owner);
        steps.push(Step::SetAccess { database: database.clone(), owner: app.owner.clone(), revoke });
    }
    let enters = |guest: &RoleName| {
        facts.access.get(guest.as_str()).is_some_and(|rights| rights.iter().any(|right| right.starts_with("CONNECT")))
    };
    let guests = app.guests().filter(|guest| !enters(guest));
    // One that was dropped since needs nothing.
    let guests = guests.filter(|guest| observed.roles.contains_key(guest.as_str()));
    steps.extend(guests.map(|role| Step::Adopt(Adoption::Admit { database: database.clone(), role: role.clone() })));
    // Sessions from before an adoption count twice until they reconnect, since new ones have a role of their own.
    let before = observed.roles.get(app.owner.as_str()).is_some_and(|owner| owner.sessions > 0);
    if facts.connection_limit != i32::from(app.database_connections()) && !before || facts.template {
        steps.push(Step::LimitDatabase { database: database.clone(), connections: app.database_connections() });
    }
    let foreign = facts.settings.iter();
    steps.extend(foreign.map(|name| Step::ResetForDatabase { database: database.clone(), name: name.clone() }));
    steps
}

/// Settings of the logins in this database: the search path, and what the spec asks for.
fn settings<'a>(app: &App, facts: impl Fn(&RoleName) -> Option<&'a RoleFacts>) -> Vec<Step> {
    let (database, path) = (&app.database, app.effective_search_path());
    let mut steps = Vec::new();
    for role in &app.logins {
        let stored = facts(role).map(|facts| &facts.database_settings);
        let is = |name: &str, same: &dyn Fn(&str) -> bool| {
            stored.and_then(|stored| stored.get(name)).is_some_and(|value| same(value))
        };
        if !is(SEARCH_PATH, &|stored| parse_identifier_list(stored) == path) {
            steps.push(Step::SetSearchPath { role: role.clone(), database: database.clone(), path: path.clone() });
        }
        for (name, value) in
            app.settings.iter().filter(|(name, value)| !is(name.as_str(), &|stored| same(name.as_str(), stored, value)))
        {
            let (role, database, name) = (role.clone(), Some(database.clone()), name.to_string());
            steps.push(Step::SetForRole { role, database, name, value: value.clone() });
        }
        let ours = |name: &str| name == SEARCH_PATH || app.settings.keys().any(|setting| setting.as_str() == name);
        steps.extend(extra(app, role, stored, ours));
    }
    let stored = facts(&app.maintenance).map(|facts| &facts.database_settings);
    steps.extend(extra(app, &app.maintenance, stored, |_| false));
    steps
}

const SEARCH_PATH: &str = "search_path";

fn extra(
    app: &App,
    role: &RoleName,
    stored: Option<&BTreeMap<String, String>>,
    desired: impl Fn(&str) -> bool,
) -> Vec<Step> {
    let names = stored.into_iter().flat_map(BTreeMap::keys).filter(|name| !desired(name));
    names
        .map(|name| Step::ResetForRole { role: role.clone(), database: Some(app.database.clone()), name: name.clone() })
        .collect()
}

/// The server delimits names in lists its own way.
fn same(name: &str, stored: &str, value: &str) -> bool {
    let names = |list| parse_identifier_list(list).into_iter().filter(|name| !name.is_empty()).collect::<Vec<_>>();
    stored == value || is_list(name) && names(stored) == names(value)
}

fn inside(app: &App, observed: &Observed, facts: &InsideFacts) -> Vec<Step> {
    let mut steps = Vec::new();
    let owner = app.owner.clone();
    let owner_of = |schema: &str| facts.schemas.get(schema).map(String::as_str);
    // An app may drop `public`; that is no drift.
    if owner_of("public").is_some_and(|found| found != owner.as_str()) {
        steps.push(Step::OwnPublicSchema { owner: owner.clone() });
    }
    if owner_of(app.schema.as_str()) != Some(owner.as_str()) {
        steps.push(Step::CreateSchema { schema: app.schema.clone(), owner: owner.clone() });
    }
    steps.extend(extensions(app, observed, facts));
    let strays = |login: &&RoleName| facts.strays.contains(login.as_str());
    let logins = app.logins.iter().chain([&app.maintenance]).filter(strays);
    steps.extend(logins.map(|login| Step::ReassignStrays { login: login.clone(), owner: owner.clone() }));
    steps
}

/// The missing extensions, each after those that it needs, and the schemas that they go into. No CASCADE: that would put what
/// is needed wherever it is found.
fn extensions(app: &App, observed: &Observed, facts: &InsideFacts) -> Vec<Step> {
    let (mut seen, mut missing) = (BTreeSet::new(), Vec::new());
    for extension in &app.extensions {
        after_needed(extension.as_str(), observed, facts, &mut seen, &mut missing);
    }
    let mut schemas: BTreeSet<&str> = facts.schemas.keys().map(String::as_str).collect();
    let mut steps = Vec::new();
    for extension in missing {
        let schema = observed.extension_schema(extension);
        if schemas.insert(schema) {
            steps.push(Step::CreateExtensionSchema { schema: schema.to_owned(), owner: app.owner.clone() });
        }
        steps.push(Step::CreateExtension { extension: extension.to_owned(), schema: schema.to_owned() });
    }
    steps
}

fn after_needed<'a>(
    extension: &'a str,
    observed: &'a Observed,
    facts: &InsideFacts,
    seen: &mut BTreeSet<&'a str>,
    missing: &mut Vec<&'a str>,
) {
    if facts.extensions.contains_key(extension) || !seen.insert(extension) {
        return;
    }
    for needed in observed.available.get(extension).iter().flat_map(|facts| &facts.requires) {
        after_needed(needed, observed, facts, seen, missing);
    }
    missing.push(extension);
}
