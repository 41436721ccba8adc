//! Giving an adopted app back, as long as nobody can have another password than the old one.

use crate::adoption::Before;
use crate::app::{App, Slot};
use crate::error::{Error, Result};
use crate::names::{AppName, RoleName};
use crate::postgres::facts::ServerFacts;
use crate::provision::adopt::Adoption;
use crate::provision::adopt::heritage::DATABASE_OWNER;
use crate::provision::credential;
use crate::provision::goal::Goal;
use crate::provision::observed::{Observed, SecretFacts};
use crate::provision::plan::Plan;
use crate::provision::step::Step;
use crate::provision::{admission, reach, role_steps};

/// Decides the steps, all of one transaction.
///
/// # Errors
/// `NotFound` when no such app is recorded; `Refused` when it was not adopted or when its second login was issued;
/// `PermissionDenied` when only a superuser can give back what was taken.
pub(crate) fn plan_undo(name: &AppName, observed: &Observed) -> Result<Plan> {
    let record = observed.record(name)?.ok_or_else(|| observed.marks.no_such_app(name, &observed.environment))?;
    let app = App::recorded(record)?;
    admission::check_claims(&app, observed)?;
    let Some(adopted) = &app.adopted else {
        return Err(Error::refused("not_adopted", format!("app {name} was made by shareddb and not adopted"))
            .with_hint("there is nothing to give back; `shareddb drop` removes an app"));
    };
    if credential::may_be_known(&app, Slot::Two, observed) {
        let message = format!("login {} of app {name} has been issued since it was adopted", app.login(Slot::Two));
        return Err(Error::refused("undo_too_late", message)
            .with_hint("programs may use it by now; the app stays with shareddb"));
    }
    reach::check_entry(&app, observed)?;
    if !observed.owns_database(&app) || observed.inside.is_none() {
        return Err(Error::refused("undo_too_late", format!("database {} is not as it was adopted", app.database))
            .with_hint(format!("put that right first: shareddb create {name} -e {}", observed.environment)));
    }
    check_reach(&app, &adopted.before, observed)?;
    let present: Vec<&RoleName> = app.roles().filter(|role| observed.roles.contains_key(role.as_str())).collect();
    let slots = present.iter().copied().filter(|role| **role != app.owner).cloned().collect();
    let login = app.login(Slot::One).clone();
    let (owner, database) = (app.owner.clone(), app.database.clone());
    let acting = present.into_iter().filter_map(|role| role_steps::act_as(role, observed)).map(Box::new);
    let steps = [
        Adoption::CloseLogin { login: login.clone(), loses: Vec::new() },
        Adoption::Dissolve { roles: slots, owner: owner.clone() },
        Adoption::Reinstate { owner, login: login.clone(), database: database.clone() },
        Adoption::CarryPassword { login },
        Adoption::GiveBack { database },
    ];
    let secret = format!("Secret {} stays, with the keys that were added to it", app.secret);
    let demoted = adopted.before.attributes.iter().any(|word| word == "SUPERUSER");
    let notices = [Some(secret), demoted.then(|| format!("login {} is a superuser again", app.login(Slot::One)))];
    Ok(Plan {
        exists: true,
        steps: acting.map(|part| Adoption::Together { part }).chain(steps).map(Step::Adopt).collect(),
        partial: false,
        in_use: None,
        rotation: None,
        workloads: None,
        gaps: Vec::new(),
        notices: notices.into_iter().flatten().collect(),
        goal: Goal::UndoAdopt(name.clone()),
        app,
    })
}

/// Whether an admin who is no superuser can give back all that the adoption took.
///
/// # Errors
/// `PermissionDenied` when only a superuser can.
fn check_reach(app: &App, before: &Before, observed: &Observed) -> Result<()> {
    if observed.server.superuser {
        return Ok(());
    }
    reach::check(app, observed)?;
    let ServerFacts { admin, powers, .. } = &observed.server;
    let refused = |message: String| {
        Err(Error::permission_denied("out_of_reach", message).with_hint("log in as a superuser of the server for this"))
    };
    if before.owner != *admin {
        return refused(format!("database {} goes back to {}, which {admin} cannot do", app.database, before.owner));
    }
    if let Some(owner) = before.public_owner.as_ref().filter(|owner| **owner != *admin && *owner != DATABASE_OWNER) {
        return refused(format!("schema public goes back to {owner}, which {admin} cannot do"));
    }
    let lost = before.attributes.iter().filter(|word| !word.starts_with("NO") && !powers.may_name(word));
    let lost: Vec<&str> = lost.map(String::as_str).collect();
    if !lost.is_empty() {
        let login = app.login(Slot::One);
        return refused(format!("login {login} was {}, which {admin} cannot make it again", lost.join(", ")));
    }
    match &observed.secret {
        SecretFacts::Held(held) if held.slot == Some(Slot::One) && held.works[Slot::One as usize] => Ok(()),
        _ => refused(format!(
            "Secret {} has no password that works for login {}, and {admin} cannot read the stored one",
            app.secret,
            app.login(Slot::One)
        )),
    }
}
