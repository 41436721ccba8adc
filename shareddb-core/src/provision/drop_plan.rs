//! The decision how an app goes: closed first, its record last, so that a second run finishes what a first one began.

use crate::app::{App, AppSpec, Mark};
use crate::error::Result;
use crate::names::{AppName, RoleName};
use crate::postgres::facts::{Bearer, RoleShape};
use crate::provision::observed::{Observed, SecretFacts, no_such_app};
use crate::provision::plan::{Goal, Plan};
use crate::provision::step::Step;

/// Decides the steps.
///
/// # Errors
/// `NotFound` when no such app is recorded.
pub(crate) fn plan_drop(name: &AppName, observed: &Observed) -> Result<Plan> {
    let record = observed.record(name)?.ok_or_else(|| no_such_app(name, &observed.environment))?;
    let app = App::derive(&AppSpec::new(name.clone()), &observed.environment, Some(record))?;
    let databases = databases(&app, observed);
    let mut steps = mark(&app, observed, &databases);
    steps.extend(close(&app, observed));
    steps.extend(
        databases
            .iter()
            .filter(|database| is_open(&app, observed, database))
            .map(|database| Step::CloseDatabase { database: database.clone() }),
    );
    let roles: Vec<String> =
        app.roles().map(ToString::to_string).filter(|role| observed.roles.contains_key(role)).collect();
    if roles.iter().any(|role| observed.roles.get(role).is_some_and(|facts| facts.sessions > 0)) {
        steps.push(Step::EndSessions { database: None, roles: roles.clone() });
    }
    if matches!(observed.secret, SecretFacts::Held(_)) {
        steps.push(Step::DeleteSecret { secret: app.secret.clone() });
    }
    steps.extend(databases.into_iter().map(|database| Step::DropDatabase { database }));
    // The owner role bears the record: it goes last.
    steps.extend(roles.into_iter().rev().map(|role| Step::DropRole { role }));
    Ok(Plan { app, exists: true, steps, partial: false, notices: Vec::new(), goal: Goal::Drop(name.clone()) })
}

/// The app's database and every other that bears its mark, such as a copy kept from a restore.
fn databases(app: &App, observed: &Observed) -> Vec<String> {
    let own = app.database.as_str();
    let copies = observed
        .marks
        .iter()
        .filter(|fact| fact.bearer == Bearer::Database && fact.mark.app == app.name && fact.name != own)
        .map(|fact| fact.name.clone());
    observed.owns_database(app).then(|| own.to_owned()).into_iter().chain(copies).collect()
}

fn is_open(app: &App, observed: &Observed, database: &str) -> bool {
    database != app.database.as_str()
        || observed.database.as_ref().is_some_and(|facts| facts.allows_connections && !facts.invalid)
}

fn mark(app: &App, observed: &Observed, databases: &[String]) -> Vec<Step> {
    let mark = Mark { dropping: true, ..app.mark() };
    let mut steps = Vec::new();
    if observed.roles.contains_key(app.owner.as_str())
        && observed.mark_on(Bearer::Role, app.owner.as_str()) != Some(&mark)
    {
        steps.push(Step::MarkOwner { role: app.owner.clone(), mark: mark.clone() });
    }
    let valid = observed.database.as_ref().is_some_and(|facts| !facts.invalid);
    if valid
        && databases.iter().any(|database| *database == app.database.as_str())
        && observed.mark_on(Bearer::Database, app.database.as_str()) != Some(&mark)
    {
        steps.push(Step::MarkDatabase { database: app.database.clone(), mark });
    }
    steps
}

fn close(app: &App, observed: &Observed) -> Vec<Step> {
    let open = |role: &&RoleName| observed.roles.get(role.as_str()).is_some_and(|facts| facts.shape.login);
    app.roles()
        .filter(open)
        .map(|role| Step::AlterRole {
            role: role.clone(),
            shape: RoleShape { connection_limit: 0, ..RoleShape::CLOSED },
        })
        .collect()
}
