//! What keeps an admin who is no superuser from adopting an app: it needs ADMIN on the login and owns the database, and reads
//! no stored password.

use crate::adoption::Adopt;
use crate::app::{App, Slot};
use crate::postgres::adopt_statements::Owner;
use crate::postgres::facts::{RoleShape, ServerFacts};
use crate::postgres::legacy::{FoundSecret, Inventory, Legacy, Object, ObjectName};
use crate::postgres::{adopt_statements as sql, statements};
use crate::provision::adopt::finding::Finding;
use crate::provision::adopt::heritage::{self, Fate};
use crate::provision::adopt::refusals;
use crate::provision::observed::Observed;
use crate::provision::reach;

/// Each with the statement by which a superuser cures it.
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
    let words = refusals::attributes(&facts.shape).into_iter().filter(|word| !powers.may_name(word));
    let words: Vec<&str> = words.collect();
    if !words.is_empty() {
        let statement = statements::alter_role(login.as_str(), &without_privileges(facts.shape));
        beyond("login_out_of_reach", format!("{admin} cannot take {} from login {login}", words.join(", ")), statement);
    }
    let database = app.database.as_str();
    if let Some(owner) = observed.database.as_ref().map(|facts| &facts.owner).filter(|owner| *owner != admin) {
        let message = format!("database {database} belongs to {owner}, and {admin} is no superuser");
        beyond("database_out_of_reach", message, statements::own_database(database, admin));
    }
    found.extend(reach::check_entry(app, observed).err().map(|error| Finding::of(&error)));
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

/// The same role without what no app may have.
fn without_privileges(shape: RoleShape) -> RoleShape {
    RoleShape { superuser: false, createrole: false, replication: false, bypassrls: false, ..shape }
}

/// What the login owns and no app may have: only a superuser takes it.
fn privileged(adopt: &Adopt, app: &App, inventory: &Inventory) -> Option<Finding> {
    let login = app.login(Slot::One).as_str();
    let taken = |object: &&Object| heritage::fate(object, login, &adopt.take_from) == Fate::ToAdmin;
    let names: Vec<&ObjectName> = inventory.objects.iter().filter(taken).map(|object| &object.name).collect();
    let list = heritage::listed(names.iter().map(ToString::to_string))?;
    let owner = Owner::WhoeverRunsThis;
    let taken = names.iter().flat_map(|name| sql::confiscate(name, &owner));
    let check = sql::check_owner(names.iter().copied(), &owner);
    let statements: Vec<String> = [sql::PIN.to_owned()].into_iter().chain(taken).chain([check]).collect();
    Some(Finding::new(
        "objects_out_of_reach",
        format!("these must not be the app's, and only a superuser takes them: {list}"),
        format!("as a superuser, in database {}: {}", app.database, statements::typed(&statements)),
    ))
}
