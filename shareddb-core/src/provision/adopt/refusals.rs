//! Everything that speaks against an adoption, all at once.

use std::collections::BTreeSet;
use std::fmt;

use crate::adoption::Adopt;
use crate::app::{App, AppSpec, Slot};
use crate::error::Error;
use crate::names::AppName;
use crate::postgres::facts::RoleShape;
use crate::postgres::legacy::{Elsewhere, FoundSecret, Inventory, Legacy, NoInside};
use crate::postgres::marks::Bearer;
use crate::postgres::sql::escaped;
use crate::postgres::{adopt_statements, statements};
use crate::provision::adopt::{heritage, path, plain};
use crate::provision::observed::Observed;
use crate::provision::{admission, budget, role_steps};

/// One reason, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// A stable word.
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) cure: String,
    /// Something else is in the place, which no consent helps against.
    pub(crate) conflict: bool,
}

impl Finding {
    pub(crate) fn new(code: &'static str, message: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { code, message: message.into(), cure: cure.into(), conflict: false }
    }

    fn conflict(code: &'static str, message: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { conflict: true, ..Self::new(code, message, cure) }
    }

    fn of(error: &Error) -> Self {
        let hint = error.hint().unwrap_or("see there").to_owned();
        let conflict = matches!(error, Error::Conflict(_));
        Self { code: error.code(), message: error.to_string(), cure: hint, conflict }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}; cure: {}", self.code, self.message, self.cure)
    }
}

/// Findings as a chain of causes, so that each is told on a line of its own.
#[derive(Debug)]
struct Chain {
    finding: Finding,
    next: Option<Box<Self>>,
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.finding.fmt(f)
    }
}

impl std::error::Error for Chain {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.next.as_deref().map(|next| next as _)
    }
}

/// One error for all of them; `None` when there are none.
pub(crate) fn error(app: &AppName, findings: Vec<Finding>) -> Option<Error> {
    let count = findings.len();
    let conflict = findings.iter().all(|finding| finding.conflict);
    let chain = findings.into_iter().rev().fold(None, |next, finding| Some(Box::new(Chain { finding, next })))?;
    let reasons = if count == 1 { "1 reason".to_owned() } else { format!("{count} reasons") };
    let message = format!("app {app} cannot be adopted as it is, for {reasons}");
    let error = if conflict { Error::conflict } else { Error::refused };
    Some(
        error("adopt_refused", message)
            .with_hint("nothing was changed; each reason has its cure beside it, and --dry-run looks again")
            .with_source(*chain),
    )
}

/// Every finding, in the order of the objects: database, login, names, others, inside, Secret.
pub(super) fn findings(spec: &AppSpec, adopt: &Adopt, app: &App, observed: &Observed, legacy: &Legacy) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(database(app, observed, legacy));
    found.extend(login(adopt, app, observed, legacy));
    found.extend(elsewhere(adopt, app, legacy));
    found.extend(names(app, observed));
    found.extend(others(adopt, app, observed, legacy));
    match &legacy.inside {
        Ok(inventory) => found.extend(inside(adopt, app, observed, legacy, inventory)),
        Err(NoInside::Unreadable) => found.push(Finding::new(
            "names_unreadable",
            format!("database {} has the encoding SQL_ASCII and names that are not UTF-8", app.database),
            "rename those objects",
        )),
        Err(NoInside::Forbidden) => {}
    }
    found.extend(secret(app, &legacy.secret));
    found.extend(plain::findings(adopt, app, observed, legacy));
    if !spec.allow_overcommit {
        let budget = budget::Budget::of(admission::other_apps(&app.name, observed), observed.server.max_connections);
        found.extend(budget.check(app).err().map(|error| Finding::of(&error)));
    }
    found
}

fn database(app: &App, observed: &Observed, legacy: &Legacy) -> Vec<Finding> {
    let mut found = Vec::new();
    let name = &app.database;
    let facts = observed.database.as_ref();
    if let Some(mark) = observed.marks.on(Bearer::Database, name.as_str()) {
        found.push(Finding::conflict(
            "database_taken",
            format!("database {name} belongs to app {}", mark.app),
            "name the right one with --database",
        ));
    }
    if facts.is_some_and(|facts| facts.template || !facts.allows_connections || facts.invalid) {
        found.push(Finding::new(
            "database_unfit",
            format!("database {name} is a template, or closed"),
            "move the app's tables into a database of its own",
        ));
    }
    if legacy.outside.settings.contains_key(PRELOAD) {
        found.push(Finding::new(
            "database_unfit",
            format!("database {name} loads libraries into every session, the admin's too"),
            format!("as a superuser: {}", statements::reset_for_database(name.as_str(), PRELOAD)),
        ));
    }
    found
}

pub(super) const PRELOAD: &str = "local_preload_libraries";

/// Attributes that an app must not have, as they are said.
pub(super) fn attributes(shape: &RoleShape) -> Vec<&'static str> {
    [
        (shape.superuser, "SUPERUSER"),
        (shape.createrole, "CREATEROLE"),
        (shape.replication, "REPLICATION"),
        (shape.bypassrls, "BYPASSRLS"),
    ]
    .into_iter()
    .filter_map(|(on, word)| on.then_some(word))
    .collect()
}

fn login(adopt: &Adopt, app: &App, observed: &Observed, legacy: &Legacy) -> Vec<Finding> {
    let mut found = Vec::new();
    let name = app.login(Slot::One);
    let (Some(facts), Some(about)) = (observed.roles.get(name.as_str()), &legacy.outside.login) else {
        return vec![Finding::new(
            "login_missing",
            format!("there is no role {name} that the app could log in as"),
            "name the app's login with --user",
        )];
    };
    if about.is_admin {
        found.push(Finding::new(
            "login_is_admin",
            format!("the app logs in as the server's own superuser {name}"),
            "give it a login of its own first, which owns its objects",
        ));
        return found;
    }
    let words = attributes(&facts.shape);
    if !words.is_empty() && !adopt.demote {
        found.push(Finding::new(
            "login_privileged",
            format!("login {name} is {}", words.join(", ")),
            "--demote takes that from it; plain work goes on, COPY … TO PROGRAM and the like end",
        ));
    }
    let groups: Vec<&str> = facts.groups.keys().map(String::as_str).collect();
    let predefined: Vec<&str> = groups.iter().copied().filter(|group| group.starts_with("pg_")).collect();
    if !predefined.is_empty() {
        found.push(Finding::new(
            "login_predefined",
            format!("login {name} is a member of {}", predefined.join(", ")),
            format!("take it out of {}: they reach beyond its database", predefined.join(", ")),
        ));
    }
    let members: Vec<&str> = role_steps::members(facts, observed).map(|(member, _)| member.as_str()).collect();
    let own_groups: Vec<&str> = groups.into_iter().filter(|group| !group.starts_with("pg_")).collect();
    if !(own_groups.is_empty() && members.is_empty() || adopt.keep_memberships) {
        let told = [(&own_groups, "is a member of"), (&members, "has the members")]
            .into_iter()
            .filter(|(roles, _)| !roles.is_empty())
            .map(|(roles, what)| format!("{what} {}", escaped(&roles.join(", "))));
        found.push(Finding::new(
            "login_memberships",
            format!("login {name} {}", told.collect::<Vec<_>>().join(", and ")),
            "revoke them, or --keep-memberships passes them to the owner role",
        ));
    }
    found
}

fn elsewhere(adopt: &Adopt, app: &App, legacy: &Legacy) -> Vec<Finding> {
    let login = app.login(Slot::One);
    let mut found = Vec::new();
    let (shared, inside): (Vec<&Elsewhere>, Vec<&Elsewhere>) =
        legacy.outside.elsewhere.iter().partition(|entry| entry.database.is_empty());
    let databases: BTreeSet<String> = inside
        .iter()
        .map(|entry| {
            let what = if entry.owned { "objects" } else { "rights on objects" };
            format!("{} ({} {what})", escaped(&entry.database), entry.count)
        })
        .chain(
            shared
                .iter()
                .filter(|entry| entry.owned && entry.class == "pg_database")
                .flat_map(|entry| entry.names.iter().map(|name| format!("{} (owner)", escaped(name)))),
        )
        .collect();
    if !databases.is_empty() {
        let list: Vec<String> = databases.into_iter().collect();
        found.push(Finding::new(
            "login_shared",
            format!("login {login} also serves databases {}", list.join(", ")),
            "a login for each database; or there: REASSIGN OWNED, REVOKE",
        ));
    }
    let spaces = shared.iter().filter(|entry| entry.owned && entry.class == "pg_tablespace");
    if let Some(list) = heritage::listed(spaces.flat_map(|entry| entry.names.iter().map(|name| escaped(name)))) {
        found.push(Finding::new(
            "login_tablespaces",
            format!("login {login} owns tablespaces: {list}"),
            "make an admin their owner with ALTER TABLESPACE",
        ));
    }
    let rights = shared.iter().filter(|entry| !entry.owned && entry.class == "pg_database");
    let rights = heritage::listed(rights.flat_map(|entry| entry.names.iter().map(|name| escaped(name))));
    if let (Some(list), false) = (rights, adopt.drop_foreign_grants) {
        found.push(Finding::new(
            "login_foreign_grants",
            format!("login {login} has rights on databases {list}"),
            "revoke them, or --drop-foreign-grants does",
        ));
    }
    found
}

/// The names that the adoption needs for itself.
fn names(app: &App, observed: &Observed) -> Vec<Finding> {
    let mut found: Vec<Finding> = [admission::check_records(app, observed), admission::check_claims(app, observed)]
        .into_iter()
        .filter_map(|checked| checked.err().map(|error| Finding::of(&error)))
        .collect();
    let new = app.roles().filter(|role| *role != app.login(Slot::One));
    let taken = new.filter(|role| observed.roles.contains_key(role.as_str()));
    found.extend(taken.map(|role| {
        Finding::conflict(
            "name_taken",
            format!("role {role} exists, and the app needs that name"),
            "rename or drop that role",
        )
    }));
    let login = app.login(Slot::One);
    if let Some(mark) = observed.marks.on(Bearer::Role, login.as_str()) {
        let message = format!("role {login} bears the record of app {}", mark.app);
        found.push(Finding::conflict("login_taken", message, "name the app's login with --user"));
    }
    found
}

fn others(adopt: &Adopt, app: &App, observed: &Observed, legacy: &Legacy) -> Vec<Finding> {
    let mut found = Vec::new();
    let apps: Vec<App> = admission::other_apps(&app.name, observed).collect();
    let of_app = |role: &str| apps.iter().find(|app| app.roles().any(|name| name.as_str() == role));
    for resident in &legacy.outside.residents {
        let role = escaped(&resident.role);
        match of_app(&resident.role) {
            Some(other) if resident.owned > 0 => found.push(Finding::conflict(
                "objects_of_app",
                format!("{} objects belong to {role} of app {}", resident.owned, other.name),
                "move them to where they belong",
            )),
            Some(other) if !adopt.keep_grants => found.push(Finding::new(
                "grants_of_app",
                format!("{role} of app {} has rights in database {}", other.name, app.database),
                "revoke them, or --keep-grants lets it enter: that takes a wall down between the two",
            )),
            _ => {}
        }
    }
    let losing = legacy.outside.public_only.iter().filter(|role| {
        !adopt.close_to_others && !adopt.allow_connect.iter().any(|allowed| allowed.as_str() == role.as_str())
    });
    if let Some(list) = heritage::listed(losing.map(|role| escaped(role))) {
        found.push(Finding::new(
            "others_lose_connect",
            format!("these can enter database {} by PUBLIC's right only, and no longer will: {list}", app.database),
            "--yes agrees, --allow-connect ROLE lets one go on entering",
        ));
    }
    found
}

fn inside(adopt: &Adopt, app: &App, observed: &Observed, legacy: &Legacy, inventory: &Inventory) -> Vec<Finding> {
    let mut found = Vec::new();
    let login = app.login(Slot::One);
    let of_app = |role: &str| {
        admission::other_apps(&app.name, observed).any(|app| app.roles().any(|name| name.as_str() == role))
    };
    for (owner, objects) in heritage::others(inventory, login.as_str(), &adopt.take_from) {
        if !of_app(owner) {
            let count = objects.len();
            let list = heritage::listed(objects.into_iter()).unwrap_or_default();
            let owner = escaped(owner);
            found.push(Finding::new(
                "objects_of_others",
                format!("{count} objects belong to {owner}: {list}"),
                format!("--take-from {owner} makes them the app's, and {owner} has what it is granted"),
            ));
        }
    }
    if !inventory.policies.is_empty() && !adopt.accept_name_change {
        let policies = inventory.policies.iter().map(|(table, policy)| escaped(&format!("{policy} on {table}")));
        found.push(Finding::new(
            "policies_on_names",
            format!(
                "policies compare with the current role's name, which becomes {}: {}",
                app.owner,
                heritage::listed(policies).unwrap_or_default()
            ),
            format!("rewrite the stored names with UPDATE … SET … = '{}' and --accept-name-change", app.owner),
        ));
    }
    let path = observed.roles.get(login.as_str()).map(|facts| path::effective(facts, &legacy.outside));
    if path.is_some_and(|path| path::uses_own_name(path, login.as_str(), &inventory.schemas)) && !adopt.end_sessions {
        found.push(Finding::new(
            "schema_of_login",
            format!("running sessions find schema {login} by their role's name, and would lose it"),
            "--end-sessions ends them at that moment; new ones find it",
        ));
    }
    let dangerous = inventory.event_triggers.iter().filter(|trigger| trigger.enabled && !trigger.function_of_superuser);
    // From 17 on a superuser's session can do without them.
    if observed.server.version.major() < 17 || !observed.server.superuser {
        found.extend(dangerous.map(|trigger| {
            let (name, owner) = (escaped(&trigger.name), escaped(&trigger.function_owner));
            Finding::new(
                "event_trigger",
                format!("event trigger {name} runs code of {owner} with the admin's rights"),
                format!("as a superuser: {}", adopt_statements::disable_event_trigger(&trigger.name)),
            )
        }));
    }
    let enabled = inventory.subscriptions.iter().filter(|(_, enabled)| **enabled);
    found.extend(enabled.map(|(name, _)| {
        Finding::new(
            "subscription",
            format!("subscription {} receives changes into the database", escaped(name)),
            "let it catch up, then ALTER SUBSCRIPTION … DISABLE",
        )
    }));
    found
}

fn secret(app: &App, found: &FoundSecret) -> Vec<Finding> {
    let secret = &app.secret;
    match found {
        FoundSecret::Absent => Vec::new(),
        FoundSecret::Foreign(other) => vec![Finding::conflict(
            "secret_taken",
            format!("Secret {secret} is that of app {other}"),
            "move it away, or choose another app name",
        )],
        FoundSecret::Found { database, user, .. } => {
            let differs = |what: &str, flag: &str, found: &Option<String>, named: &str| {
                found.as_ref().filter(|found| *found != named).map(|found| {
                    Finding::conflict(
                        "secret_differs",
                        format!("Secret {secret} names the {what} {}, and not {named}", escaped(found)),
                        format!("leave {flag} out to take what the Secret says, or set the Secret right"),
                    )
                })
            };
            let database = differs("database", "--database", database, app.database.as_str());
            let user = differs("user", "--user", user, app.login(Slot::One).as_str());
            database.into_iter().chain(user).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_reasons_are_told_with_their_cures() {
        let app = "my-app".parse().unwrap();
        assert!(error(&app, Vec::new()).is_none());
        let findings =
            vec![Finding::new("one", "this is so", "do that"), Finding::conflict("two", "it is taken", "move")];
        let told = error(&app, findings.clone()).unwrap();
        assert!(matches!(told, Error::Refused(_)) && told.to_string().contains("2 reasons"));
        assert_eq!(told.causes(), ["[one] this is so; cure: do that", "[two] it is taken; cure: move"]);
        assert!(matches!(error(&app, findings[1..].to_vec()).unwrap(), Error::Conflict(_)));
    }
}
