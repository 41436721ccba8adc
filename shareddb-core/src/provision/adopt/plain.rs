//! Adopting, and undoing it, as an admin who is no superuser: it needs ADMIN on the login and owns the database, reads no
//! stored password, and leaves to a superuser what is a superuser's.

use crate::adoption::{Adopt, Adopted};
use crate::app::{App, Slot};
use crate::error::{Error, Result};
use crate::postgres::facts::{RoleShape, ServerFacts};
use crate::postgres::legacy::{FoundSecret, Inventory, Legacy, Object, ObjectKind, ObjectName};
use crate::postgres::{adopt_statements as sql, statements};
use crate::provision::adopt::Adoption;
use crate::provision::adopt::heritage::{self, Fate};
use crate::provision::adopt::refusals::{self, Finding};
use crate::provision::observed::{Observed, SecretFacts};
use crate::provision::reach;

/// What keeps such an admin from adopting the app at all, with the statements by which a superuser cures it.
pub(super) fn findings(adopt: &Adopt, app: &App, observed: &Observed, legacy: &Legacy) -> Vec<Finding> {
    let ServerFacts { admin, superuser, powers, .. } = &observed.server;
    let login = app.login(Slot::One);
    let Some(facts) = observed.roles.get(login.as_str()).filter(|_| !*superuser) else { return Vec::new() };
    let mut found = Vec::new();
    let mut beyond = |code, message: String, statement: String| {
        found.push(Finding::new(code, message, format!("as a superuser: {statement}")));
    };
    if !facts.administered {
        let statement = statements::grant_administration([login.as_str()], admin);
        beyond("login_out_of_reach", format!("{admin} does not look after login {login}"), statement);
    }
    let words = refusals::attributes(&facts.shape).into_iter().filter(|word| !statements::may_name(word, powers));
    let words: Vec<&str> = words.collect();
    if !words.is_empty() {
        let statement = statements::alter_role(login.as_str(), &RoleShape { login: true, ..RoleShape::CLOSED });
        beyond("login_out_of_reach", format!("{admin} cannot take {} from login {login}", words.join(", ")), statement);
    }
    let database = app.database.as_str();
    if let Some(owner) = observed.database.as_ref().map(|facts| &facts.owner).filter(|owner| *owner != admin) {
        let message = format!("database {database} belongs to {owner}, and {admin} is no superuser");
        beyond("database_out_of_reach", message, statements::own_database(database, admin));
    }
    if let Ok(inventory) = &legacy.inside {
        found.extend(privileged(adopt, app, inventory));
    }
    if matches!(legacy.secret, FoundSecret::Absent | FoundSecret::Found { works: false, .. }) {
        found.push(Finding::new(
            "password_unproven",
            format!(
                "Secret {} has no password that opens {database} for {login}, and {admin} cannot read the stored one",
                app.secret
            ),
            "put into the Secret what programs log in with, or adopt as a superuser",
        ));
    }
    found
}

/// What the login owns and no app may have: only a superuser takes it.
fn privileged(adopt: &Adopt, app: &App, inventory: &Inventory) -> Option<Finding> {
    let login = app.login(Slot::One).as_str();
    let taken = |object: &&Object| heritage::fate(object, login, &adopt.take_from) == Fate::ToAdmin;
    let names: Vec<&ObjectName> = inventory.objects.iter().filter(taken).map(|object| &object.name).collect();
    let list = heritage::listed(names.iter().map(ToString::to_string))?;
    let statements: Vec<String> = names.iter().map(|name| sql::own_by_whoever_runs_this(name)).collect();
    Some(Finding::new(
        "objects_out_of_reach",
        format!("these must not be the app's, and only a superuser takes them: {list}"),
        format!("as a superuser, in database {}: {}", app.database, statements::typed(&statements)),
    ))
}

/// Whether a change that only an adoption makes is the admin's to make. What changes hands has to be its own, and the app
/// has to be allowed to create where that is.
pub(crate) fn is_within(app: &App, observed: &Observed, adoption: &Adoption) -> bool {
    let admin = observed.server.admin.as_str();
    let owner = |name: &ObjectName| inventory(observed)?.objects.iter().find(|object| object.name == *name);
    match adoption {
        Adoption::Take { object, .. } | Adoption::HandOver { object, .. } => owner(object).is_some_and(|object| {
            object.owner == admin
                && schema_owner(observed, &object.schema).is_none_or(|owner| reach::is_ours(app, observed, owner))
        }),
        Adoption::ShowPublic { .. } => public_owner(observed).is_none_or(|owner| reach::is_ours(app, observed, owner)),
        Adoption::RevokeDefaults { role, .. } => role == admin,
        Adoption::DisableTrigger { .. } => false,
        _ => true,
    }
}

fn inventory(observed: &Observed) -> Option<&Inventory> {
    let by_hand = || observed.legacy.as_ref().and_then(|legacy| legacy.inside.as_ref().ok());
    observed.inventory.as_deref().or_else(by_hand)
}

fn schema_owner<'a>(observed: &'a Observed, schema: &str) -> Option<&'a str> {
    let named = |object: &&Object| object.name.kind == ObjectKind::Schema && object.name.identity == schema;
    inventory(observed)?.objects.iter().find(named).map(|object| object.owner.as_str())
}

/// Who owns schema `public` of an app that is to be adopted.
pub(crate) fn public_owner(observed: &Observed) -> Option<&str> {
    inventory(observed)?.public.as_ref().map(|(owner, _)| owner.as_str())
}

/// Whether such an admin can give back all that an adoption took.
///
/// # Errors
/// `PermissionDenied` when only a superuser can.
pub(super) fn check_undo(app: &App, adopted: &Adopted, observed: &Observed) -> Result<()> {
    if observed.server.superuser {
        return Ok(());
    }
    reach::check(app, observed)?;
    let ServerFacts { admin, powers, .. } = &observed.server;
    let before = &adopted.before;
    let refused = |message: String| {
        Err(Error::permission_denied("out_of_reach", message).with_hint("log in as a superuser of the server for this"))
    };
    if before.owner != *admin {
        return refused(format!("database {} goes back to {}, which {admin} cannot do", app.database, before.owner));
    }
    if let Some(owner) = before.public_owner.as_ref().filter(|owner| !reach::is_ours(app, observed, owner)) {
        return refused(format!("schema public goes back to {owner}, which {admin} cannot do"));
    }
    let lost = before.attributes.iter().filter(|word| !word.starts_with("NO") && !statements::may_name(word, powers));
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
