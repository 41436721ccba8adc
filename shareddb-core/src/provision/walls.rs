//! What keeps apps apart, and whether it stands.

use serde::Serialize;

use crate::app::App;
use crate::error::Error;
use crate::postgres::facts::{AccessRule, ServerFacts};
use crate::postgres::statements::MAINTENANCE_GROUP;

/// One of the walls between apps.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Wall {
    /// What it consists in.
    pub name: &'static str,
    /// Whether it stands.
    pub stands: bool,
    /// What is missing, and the cure.
    pub detail: String,
}

/// Rights: nobody has any by being PUBLIC.
pub(crate) fn rights(server: &ServerFacts) -> Wall {
    let open: Vec<&str> = server.open_to_public.iter().map(String::as_str).collect();
    let detail = match open.as_slice() {
        [] => "PUBLIC has no rights on postgres and template1".to_owned(),
        open => format!("PUBLIC has rights on {}: the next create takes them", open.join(", ")),
    };
    Wall { name: "rights", stands: open.is_empty(), detail }
}

/// `pg_hba.conf`: each line that can let an app in lets it into its own database only. A line before it that rejects is no
/// excuse, since nobody can tell from here whom its address covers.
pub(crate) fn access_rules(rules: Result<&(Vec<AccessRule>, bool), &Error>, apps: &[&App]) -> Wall {
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
    Wall { name: "pg_hba", stands: faults.is_empty(), detail }
}

fn fault(rule: &AccessRule, apps: &[&App]) -> Option<String> {
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
fn is_harmless(user: &str, databases: &[String], apps: &[&App]) -> bool {
    let own = |app: Option<&&App>| {
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
    use crate::app::AppSpec;

    fn rule(databases: &[&str], users: &[&str], method: &str) -> AccessRule {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        AccessRule { line: 7, databases: owned(databases), users: owned(users), method: method.to_owned(), error: None }
    }

    #[test]
    fn lines_that_let_an_app_out_are_found() {
        let environment = "local".parse().unwrap();
        let app = |name: &str| App::derive(&AppSpec::new(name.parse().unwrap()), &environment, None).unwrap();
        let (one, two) = (app("one"), app("two"));
        let stands = |rule: AccessRule| access_rules(Ok(&(vec![rule], false)), &[&one, &two]).stands;

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
        assert!(!access_rules(Ok(&(Vec::new(), true)), &[]).stands);
        assert!(access_rules(Ok(&(vec![broken], false)), &[]).detail.starts_with("line 7 cannot be read (invalid)"));
    }
}
