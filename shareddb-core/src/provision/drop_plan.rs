//! The decision how an app goes: closed first, its record last, so that a second run finishes what a first one began.

use crate::app::App;
use crate::error::{Error, Result};
use crate::mark::{Progress, RotationRecord};
use crate::names::{AppName, DatabaseName, RoleName};
use crate::postgres::facts::RoleShape;
use crate::postgres::marks::Bearer;
use crate::postgres::sql::escaped;
use crate::postgres::statements;
use crate::provision::admission;
use crate::provision::goal::Goal;
use crate::provision::observed::{Observed, SecretFacts};
use crate::provision::plan::Plan;
use crate::provision::reach;
use crate::provision::step::Step;

/// Decides the steps.
///
/// # Errors
/// `NotFound` when no such app is recorded, `Refused` when its roles have something in other databases or its own has
/// prepared transactions.
pub(crate) fn plan_drop(name: &AppName, observed: &Observed) -> Result<Plan> {
    let record = observed.record(name)?.ok_or_else(|| observed.marks.no_such_app(name, &observed.environment))?;
    let app = App::recorded(record)?;
    admission::check_claims(&app, observed)?;
    reach::check_drop(&app, observed)?;
    check_elsewhere(&app, observed)?;
    check_prepared(&app, observed)?;
    let database = observed.database.as_ref().filter(|_| observed.owns_database(&app));
    let mut steps = mark(&app, record.rotation, observed);
    steps.extend(close(&app, observed));
    if database.is_some_and(|facts| facts.allows_connections && !facts.invalid) {
        steps.push(Step::CloseDatabase { database: app.database.clone() });
    }
    let roles: Vec<RoleName> = app.roles().filter(|role| observed.roles.contains_key(role.as_str())).cloned().collect();
    // Whoever may not end every session has to have ended those of the app when the database goes.
    let thorough = !observed.server.superuser && database.is_some();
    let busy = |role: &RoleName| observed.roles.get(role.as_str()).is_some_and(|facts| facts.sessions > 0);
    if thorough || roles.iter().any(busy) {
        steps.push(Step::EndSessions { roles: roles.clone() });
    }
    if matches!(observed.secret, SecretFacts::Held(_)) {
        steps.push(Step::DeleteSecret { secret: app.secret.clone() });
    }
    steps.extend(database.map(|_| Step::DropDatabase { database: app.database.clone() }));
    let copies = observed.marks.copies_of(name).map(DatabaseName::of_copy);
    steps.extend(copies.map(|database| Step::DropDatabase { database }));
    // Others may have given them rights at any moment: these hinder no drop.
    let rights = observed.abroad.rights.iter();
    steps.extend(rights.map(|other| Step::TakeRights { database: other.clone(), roles: roles.clone() }));
    // The owner role bears the record: it goes last.
    steps.extend(roles.into_iter().rev().map(|role| Step::DropRole { role }));
    let databases = observed
        .marks
        .other_databases(&app)
        .map(|other| format!("database {other} bears the record of app {name} and stays: it is not the app's own"));
    let secret = match &observed.secret {
        SecretFacts::Elsewhere(place) => {
            Some(format!("Secret {} stays: it is that of an app {name} on another server, {place}", app.secret))
        }
        _ => None,
    };
    let notices = databases.chain(secret).collect();
    let (workloads, gaps, goal) = (None, Vec::new(), Goal::Drop(name.clone()));
    Ok(Plan { app, exists: true, steps, partial: false, workloads, notices, gaps, in_use: None, rotation: None, goal })
}

/// Roles with objects in another database cannot be dropped: that is found out before the data are.
fn check_elsewhere(app: &App, observed: &Observed) -> Result<()> {
    let Some(other) = observed.abroad.objects.first() else { return Ok(()) };
    let all = observed.abroad.objects.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let error = Error::refused(
        "objects_elsewhere",
        format!("roles of app {} have objects in databases that are not its own: {all}", app.name),
    );
    let hint = if observed.database.is_none() && observed.marks.other_databases(app).any(|name| name == other) {
        let rename = statements::rename_database(other, app.database.as_str());
        format!("was the app's database renamed? undo that with: {rename}")
    } else {
        let roles = app.roles().map(AsRef::as_ref).filter(|role| observed.roles.contains_key(*role));
        format!(
            "save what is worth it; this deletes the rest, as a superuser in {other}: {}",
            statements::drop_owned(roles)
        )
    };
    Err(error.with_hint(hint))
}

/// A prepared transaction keeps a database from being dropped, and is ended in that database only, which would be closed by then.
fn check_prepared(app: &App, observed: &Observed) -> Result<()> {
    let open = observed.database.as_ref().filter(|facts| observed.owns_database(app) && facts.allows_connections);
    let prepared = open.map(|facts| facts.prepared.as_slice()).unwrap_or_default();
    let Some(first) = prepared.first() else { return Ok(()) };
    let all: Vec<_> = prepared.iter().map(|gid| escaped(gid)).collect();
    let message = format!(
        "database {} has prepared transactions, which keep it from being dropped: {}",
        app.database,
        all.join(", ")
    );
    Err(Error::refused("prepared_transactions", message).with_hint(format!(
        "the app commits them; or, in {}, as the app or a superuser, each: {}",
        app.database,
        statements::roll_back_prepared(first)
    )))
}

fn mark(app: &App, rotation: Option<RotationRecord>, observed: &Observed) -> Vec<Step> {
    let mark = app.mark().rotating(rotation).while_in(Progress::Dropping);
    let of_database = mark.clone().of_database();
    let mut steps = Vec::new();
    if observed.roles.contains_key(app.owner.as_str())
        && observed.marks.on(Bearer::Role, app.owner.as_str()) != Some(&mark)
    {
        steps.push(Step::MarkOwner { role: app.owner.clone(), progress: Progress::Dropping, rotation });
    }
    let valid = observed.database.as_ref().is_some_and(|facts| !facts.invalid);
    let marked = observed.marks.on(Bearer::Database, app.database.as_str()) == Some(&of_database);
    if valid && observed.owns_database(app) && !marked {
        steps.push(Step::MarkDatabase { database: app.database.clone(), dropping: true });
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
