//! What keeps apps apart, and whether it stands.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::app::{App, AppSpec};
use crate::error::Error;
use crate::postgres::facts::{AccessRule, ServerFacts};
use crate::postgres::sql::escaped;
use crate::postgres::statements::{self, MAINTENANCE_GROUP};
use crate::provision::gap::{Closer, Gap};
use crate::provision::observed::Observed;
use crate::provision::step::Step;

/// One of the walls between apps.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Wall {
    /// What it consists in.
    pub name: &'static str,
    /// Whether it stands.
    pub state: WallState,
    /// What is missing, and the cure.
    pub detail: String,
    /// What is not for the admin to change, or not without being told to.
    pub gaps: Vec<Gap>,
}

/// Whether a wall stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum WallState {
    /// It stands, as far as can be seen.
    Stands,
    /// It does not, or not everywhere.
    Missing,
    /// The admin may not see it.
    Unknown,
}

impl WallState {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stands => "stands",
            Self::Missing => "missing",
            Self::Unknown => "unknown",
        }
    }
}

impl WallState {
    fn of(stands: bool) -> Self {
        if stands { Self::Stands } else { Self::Missing }
    }
}

/// The steps about what all apps share, and what is left open. On a server that was not made for shareddb, nothing is taken
/// from anybody unasked; making the group of maintenance logins takes nothing.
pub(crate) fn steps(spec: &AppSpec, observed: &Observed) -> (Vec<Step>, Vec<Gap>) {
    let server = &observed.server;
    let closes = server.ours || spec.secure_server;
    let closing: BTreeSet<&str> = if closes { closable(server).collect() } else { BTreeSet::new() };
    (shared_steps(server, closes), gaps(server, &closing, &recorded(observed)))
}

/// The steps alone. `closes`: whether what is open to PUBLIC is to be closed.
pub(crate) fn shared_steps(server: &ServerFacts, closes: bool) -> Vec<Step> {
    let group = (!server.maintenance_group).then_some(Step::CreateMaintenanceGroup);
    let close = closable(server).filter(|_| closes);
    let close = close.map(|database| Step::CloseToPublic { database: database.to_owned() });
    group.into_iter().chain(close).collect()
}

/// The server's own databases that stay open to everybody when these steps are done.
pub(crate) fn left_open(observed: &Observed, steps: &[Step]) -> Vec<String> {
    let closes = |database: &String| steps.contains(&Step::CloseToPublic { database: database.clone() });
    observed.server.open_to_public.iter().filter(|database| !closes(database)).cloned().collect()
}

/// Who loses access to what by these steps, and how to give it back.
pub(crate) fn losers(steps: &[Step], observed: &Observed) -> Vec<String> {
    let apps = recorded(observed);
    let server = &observed.server;
    let mut lost = Vec::new();
    for step in steps {
        let Step::CloseToPublic { database } = step else { continue };
        let name = escaped(database);
        let losers = visitors(&server.visitors, database, &apps);
        if !losers.is_empty() {
            let back = statements::grant_connect(database, losers.iter().copied());
            lost.push(format!("{} lose access to database {name}; who needs it gets it back: {back}", listed(&losers)));
        }
        let losers = visitors(&server.temporary, database, &apps);
        if !losers.is_empty() {
            let back = statements::grant_temporary(database, losers.iter().copied());
            lost.push(format!(
                "{} lose temporary tables in database {name}; who needs them gets them back: {back}",
                listed(&losers)
            ));
        }
    }
    lost
}

/// Those of the server's own databases that the admin can close.
fn closable(server: &ServerFacts) -> impl Iterator<Item = &str> {
    // The owner takes what it gave, and a superuser acts as everybody who gave something.
    let may = |database: &&String| {
        let of_owner = server.third_grantors(database).next().is_none();
        server.superuser || of_owner && server.powers.owned.contains(*database)
    };
    server.open_to_public.iter().filter(may).map(String::as_str)
}

/// What PUBLIC may enter and is not about to be closed.
fn gaps(server: &ServerFacts, closing: &BTreeSet<&str>, apps: &[App]) -> Vec<Gap> {
    let closable: BTreeSet<&str> = closable(server).collect();
    let open = server.open_to_public.iter().filter(|database| !closing.contains(database.as_str()));
    let of_server = open.map(|database| {
        let closer = if closable.contains(database.as_str()) { Closer::Consent } else { Closer::Superuser };
        let losers = visitors(&server.visitors, database, apps);
        // The admin itself may be in by nothing but PUBLIC's right.
        let keep = losers
            .contains(server.admin.as_str())
            .then(|| statements::grant_connect(database, [server.admin.as_str()]));
        let statements: Vec<String> = keep.into_iter().chain(close(server, database)).collect();
        let what = format!(
            "PUBLIC has rights on database {}, so that apps get in there{}",
            escaped(database),
            loss(&losers, server)
        );
        Gap { what, closer, statement: statements::typed(&statements), database: None, server: true }
    });
    of_server.chain(of_others(server, apps)).collect()
}

/// Databases of others are none of ours to close.
fn of_others(server: &ServerFacts, apps: &[App]) -> Option<Gap> {
    let of_app = |database: &str| apps.iter().any(|app| app.database.as_str() == database);
    let open: Vec<&str> = server
        .visitors
        .keys()
        .map(String::as_str)
        .filter(|database| !of_app(database) && !server.open_to_public.contains(*database))
        .collect();
    let losers: BTreeSet<&str> = open.iter().flat_map(|database| visitors(&server.visitors, database, apps)).collect();
    let statements: Vec<String> = open.iter().flat_map(|database| close(server, database)).collect();
    let what = format!(
        "PUBLIC has rights on databases of others, so that apps get in there: {}{}",
        open.iter().map(|database| escaped(database)).collect::<Vec<_>>().join(", "),
        loss(&losers, server)
    );
    let gap = Gap {
        what,
        closer: Closer::Superuser,
        statement: statements::typed(&statements),
        database: None,
        server: true,
    };
    (!open.is_empty()).then_some(gap)
}

/// The logins that get into a database by PUBLIC's right only; apps are to lose it.
fn visitors<'a>(visitors: &'a BTreeMap<String, BTreeSet<String>>, database: &str, apps: &[App]) -> BTreeSet<&'a str> {
    let of_app = |role: &str| apps.iter().any(|app| app.roles().any(|own| own.as_str() == role));
    visitors.get(database).into_iter().flatten().map(String::as_str).filter(|role| !of_app(role)).collect()
}

fn close(server: &ServerFacts, database: &str) -> Vec<String> {
    statements::close_to_public(database, server.third_grantors(database))
}

fn loss(losers: &BTreeSet<&str>, server: &ServerFacts) -> String {
    let others: BTreeSet<&str> = losers.iter().copied().filter(|role| *role != server.admin).collect();
    if others.is_empty() { String::new() } else { format!("; so do, and would lose it: {}", listed(&others)) }
}

fn listed(roles: &BTreeSet<&str>) -> String {
    roles.iter().map(|role| escaped(role)).collect::<Vec<_>>().join(", ")
}

fn recorded(observed: &Observed) -> Vec<App> {
    observed.marks.records().into_values().filter_map(|mark| App::recorded(mark).ok()).collect()
}

/// Rights: nobody has any by being PUBLIC.
pub(crate) fn rights(server: &ServerFacts, apps: &[App]) -> Wall {
    let open: Vec<&str> = server.open_to_public.iter().map(String::as_str).collect();
    let closing = if server.ours { closable(server).collect() } else { BTreeSet::new() };
    let gaps = gaps(server, &closing, apps);
    let detail = match (open.as_slice(), gaps.as_slice()) {
        ([], []) => "PUBLIC has no rights on postgres and template1".to_owned(),
        (open, []) => format!("PUBLIC has rights on {}: the next create takes them", open.join(", ")),
        (_, gaps) => gaps.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
    };
    Wall { name: "rights", state: WallState::of(open.is_empty() && gaps.is_empty()), detail, gaps }
}

/// `pg_hba.conf`: each line that can let an app in lets it into its own database only. A line before it that rejects is no
/// excuse, since nobody can tell from here whom its address covers.
pub(crate) fn access_rules(
    server: &ServerFacts,
    rules: Result<&(Vec<AccessRule>, bool), &Error>,
    apps: &[App],
) -> Wall {
    if let Err(error) = rules
        && !server.superuser
        && error.code() == "permission_denied"
    {
        return unseen(server);
    }
    let faults: Vec<String> = match rules {
        Ok((rules, stale)) => {
            let stale = stale.then(|| "the file was changed after it was loaded (SELECT pg_reload_conf())".to_owned());
            rules.iter().filter_map(|rule| fault(rule, apps)).chain(stale).collect()
        }
        Err(error) => vec![std::iter::once(error.to_string()).chain(error.causes()).collect::<Vec<_>>().join(": ")],
    };
    let detail = match faults.as_slice() {
        [] => "a login is admitted only to the database of its own role".to_owned(),
        faults => format!("{}: use samerole for the database, and scram-sha-256", faults.join("; ")),
    };
    Wall { name: "pg_hba", state: WallState::of(faults.is_empty()), detail, gaps: Vec::new() }
}

fn unseen(server: &ServerFacts) -> Wall {
    let gap = Gap {
        what: format!("{} may not read pg_hba.conf, so that nobody knows what it lets in", server.admin),
        closer: Closer::Superuser,
        statement: statements::grant_access_rules(&server.admin),
        database: None,
        server: true,
    };
    Wall { name: "pg_hba", state: WallState::Unknown, detail: gap.to_string(), gaps: vec![gap] }
}

fn fault(rule: &AccessRule, apps: &[App]) -> Option<String> {
    let line = rule.line;
    if let Some(error) = &rule.error {
        return Some(format!("line {line} cannot be read ({error})"));
    }
    if rule.method == "reject" {
        return None;
    }
    if rule.method == "trust" {
        return Some(format!("line {line} asks for no password (trust)"));
    }
    let user = rule.users.iter().find(|user| !is_harmless(user, &rule.databases, apps))?;
    Some(format!("line {line} admits {user} to {}", rule.databases.join(",")))
}

/// Whether the line lets no app into a database that is not its own by way of this entry.
fn is_harmless(user: &str, databases: &[String], apps: &[App]) -> bool {
    let own = |app: Option<&App>| {
        databases.iter().all(|database| {
            let relative = ["sameuser", "samerole", "samegroup", "replication"].contains(&database.as_str());
            relative || app.is_some_and(|app| app.database.as_str() == database)
        })
    };
    let app = apps.iter().find(|app| app.roles().any(|role| role.as_str() == user));
    let many = user == "all" || user.starts_with(['+', '/']);
    own(app) || user.strip_prefix('+') == Some(MAINTENANCE_GROUP) || !many && app.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provision::simulation::World;

    fn rule(databases: &[&str], users: &[&str], method: &str) -> AccessRule {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        AccessRule { line: 7, databases: owned(databases), users: owned(users), method: method.to_owned(), error: None }
    }

    #[test]
    fn lines_that_let_an_app_out_are_found() {
        let environment = "local".parse().unwrap();
        let app = |name: &str| App::derive(&AppSpec::new(name.parse().unwrap()), &environment, None).unwrap();
        let apps = [app("one"), app("two")];
        let server = World::empty().observed.server;
        let stands =
            |rule: AccessRule| access_rules(&server, Ok(&(vec![rule], false)), &apps).state == WallState::Stands;

        assert!(stands(rule(&["samerole"], &["all"], "scram-sha-256")));
        assert!(stands(rule(&["all"], &["postgres"], "scram-sha-256")));
        assert!(stands(rule(&["all"], &["+shareddb_maint"], "scram-sha-256")));
        assert!(stands(rule(&["all"], &["all"], "reject")));
        assert!(stands(rule(&["replication"], &["all"], "scram-sha-256")));
        assert!(!stands(rule(&["samerole"], &["all"], "trust")));
        assert!(!stands(rule(&["all"], &["postgres"], "trust")));
        assert!(stands(rule(&["one_db"], &["one_user", "one_user_2"], "md5")));

        assert!(!stands(rule(&["all"], &["all"], "scram-sha-256")));
        assert!(!stands(rule(&["postgres"], &["all"], "scram-sha-256")));
        assert!(!stands(rule(&["samerole", "two_db"], &["all"], "scram-sha-256")));
        assert!(!stands(rule(&["all"], &["one_user"], "scram-sha-256")));
        assert!(!stands(rule(&["one_db", "two_db"], &["one_user"], "scram-sha-256")));
        assert!(!stands(rule(&["all"], &["+one_db"], "scram-sha-256")));
        assert!(!stands(rule(&["all"], &["/^.*_user$"], "scram-sha-256")));
        assert!(!stands(rule(&["/^t"], &["two_user"], "scram-sha-256")));
        let broken = AccessRule { error: Some("invalid".into()), ..rule(&[], &[], "") };
        assert_eq!(access_rules(&server, Ok(&(Vec::new(), true)), &[]).state, WallState::Missing);
        assert!(
            access_rules(&server, Ok(&(vec![broken], false)), &[])
                .detail
                .starts_with("line 7 cannot be read (invalid)")
        );
    }
}
