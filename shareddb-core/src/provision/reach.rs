//! What of a plan an admin who is no superuser may do. The rest is told, with the statements by which a superuser does it.

use std::collections::BTreeSet;

use crate::app::App;
use crate::error::{Error, Result};
use crate::mark::Progress;
use crate::postgres::adopt_statements;
use crate::postgres::facts::{RoleShape, ServerFacts};
use crate::postgres::sql::escaped;
use crate::postgres::statements::{self, MAINTENANCE_GROUP};
use crate::provision::adopt::{self, Adoption};
use crate::provision::gap::{Closer, Gap};
use crate::provision::observed::Observed;
use crate::provision::role_steps;
use crate::provision::script::Script;
use crate::provision::step::Step;

/// What becomes of a step.
enum Verdict {
    /// The admin may.
    Within,
    /// It may not, and another step of the plan does the same, or nothing is known to need it.
    Needless,
    /// A superuser has to.
    Beyond,
    /// A superuser has to allow it, by this statement; then the next create does it.
    After(String),
}

/// A plan in parts.
pub(crate) struct Parted {
    /// What the admin does.
    pub(crate) within: Vec<Step>,
    /// What is left to a superuser.
    pub(crate) gaps: Vec<Gap>,
    /// What the app's record says when everything else is done: an adopted one waits for objects that only a superuser hands
    /// over.
    pub(crate) left: Option<Progress>,
}

/// Parts a plan into what the admin does and what is left to a superuser.
pub(crate) fn part(app: &App, observed: &Observed, steps: Vec<Step>) -> Parted {
    if observed.server.superuser {
        return Parted { within: steps, gaps: Vec::new(), left: None };
    }
    let mut gaps: Vec<Gap> = Vec::new();
    let mut within = Vec::new();
    let mut awaited = Vec::new();
    let adoption = adopt::Reach::of(observed, app.roles().map(AsRef::as_ref));
    for step in steps {
        let statement = match verdict(app, observed, &adoption, &step) {
            Verdict::Within => {
                within.push(step);
                continue;
            }
            Verdict::Needless => continue,
            Verdict::Beyond if matches!(&step, Step::Adopt(adoption) if adoption.is_awaited()) => {
                awaited.push(step);
                continue;
            }
            Verdict::Beyond => statements::typed(&Script::of_superuser(app, &observed.server).statements(&step)),
            Verdict::After(statement) => statement,
        };
        // One statement can be what several steps wait for.
        if !gaps.iter().any(|gap| gap.statement == statement) {
            let database = step.is_inside().then(|| app.database.clone());
            let what = format!("{} may not do: {step}", observed.server.admin);
            gaps.push(Gap { what, closer: Closer::Superuser, statement, database, server: false });
        }
        // The part of it that it may do.
        within.extend(reachable(observed, step));
    }
    let left = (!awaited.is_empty()).then_some(Progress::Waiting);
    gaps.extend(left.map(|_| of_objects(app, observed, &awaited)));
    Parted { within, gaps, left }
}

/// All objects that only a superuser hands over, in one statement to type.
fn of_objects(app: &App, observed: &Observed, steps: &[Step]) -> Gap {
    let script = Script::of_superuser(app, &observed.server);
    let statements: Vec<String> = [adopt_statements::PIN.to_owned()].into_iter().chain(script.taking(steps)).collect();
    let names = adopt::listed(steps.iter().map(ToString::to_string)).unwrap_or_default();
    let admin = &observed.server.admin;
    Gap {
        what: format!("{admin} may not hand over what is not its own: {names}"),
        closer: Closer::Superuser,
        statement: statements::typed(&statements),
        database: Some(app.database.clone()),
        server: false,
    }
}

fn verdict(app: &App, observed: &Observed, reach: &adopt::Reach<'_>, step: &Step) -> Verdict {
    let ServerFacts { admin, powers, maintenance_group, .. } = &observed.server;
    let by_admin = |grantor: &str| if grantor == admin { Verdict::Within } else { Verdict::Beyond };
    let setting = |name: &str| {
        if powers.forbidden.contains(name) {
            Verdict::After(statements::grant_setting(name, admin))
        } else {
            Verdict::Within
        }
    };
    match step {
        Step::AlterRole { role, shape } => match observed.roles.get(role.as_str()) {
            Some(facts) if within_powers(facts.shape, *shape, observed) != *shape => Verdict::Beyond,
            _ => Verdict::Within,
        },
        Step::RevokeMembership { grantor, .. } => by_admin(grantor.as_deref().unwrap_or_default()),
        Step::GrantMembership { group, .. } if group == MAINTENANCE_GROUP => {
            if *maintenance_group && !powers.maintenance { Verdict::Beyond } else { Verdict::Within }
        }
        Step::SetForRole { name, .. } | Step::ResetForRole { name, .. } | Step::ResetForDatabase { name, .. } => {
            setting(name)
        }
        Step::RevokeAccess { grantor, .. } => by_admin(grantor),
        Step::Adopt(Adoption::Together { part }) => verdict(app, observed, reach, part),
        Step::Adopt(adoption) if !reach.covers(adoption) => Verdict::Beyond,
        Step::EndStrangers { .. } if !powers.signal => {
            let inside = observed.database.as_ref().is_some_and(|facts| !facts.strangers.is_empty());
            if inside { Verdict::Beyond } else { Verdict::Needless }
        }
        // Where nobody was and no right went, nobody is.
        Step::EndAbroad { .. } if !observed.abroad.sessions => {
            let taken = observed.abroad.access.iter().any(|access| access.grantor == *admin);
            if taken { Verdict::Within } else { Verdict::Needless }
        }
        Step::OwnPublicSchema { .. } => schema(app, observed, "public", reach.public_owner()),
        Step::CreateSchema { schema: name, .. } => schema(app, observed, name.as_str(), None),
        _ => Verdict::Within,
    }
}

/// What is the database's owner's is the admin's. What is a login's goes to the owner role as all its objects do. The inside of
/// a database that is only now adopted is known by hand.
fn schema(app: &App, observed: &Observed, name: &str, by_hand: Option<&str>) -> Verdict {
    let owner = observed.inside.as_ref().and_then(|inside| inside.schemas.get(name)).map(String::as_str);
    match owner.or(by_hand) {
        None | Some(adopt::DATABASE_OWNER) => Verdict::Within,
        Some(owner) if owner == observed.server.admin => Verdict::Within,
        Some(owner) if app.roles().any(|role| role.as_str() == owner) => Verdict::Needless,
        Some(_) => Verdict::Beyond,
    }
}

/// What the admin can make of a role: it takes or gives no attribute that it has not itself.
fn within_powers(present: RoleShape, wanted: RoleShape, observed: &Observed) -> RoleShape {
    let powers = &observed.server.powers;
    RoleShape {
        superuser: present.superuser,
        replication: if powers.replication { wanted.replication } else { present.replication },
        bypassrls: if powers.bypassrls { wanted.bypassrls } else { present.bypassrls },
        ..wanted
    }
}

/// A change of a role that goes only half the way.
fn reachable(observed: &Observed, step: Step) -> Option<Step> {
    let Step::AlterRole { role, shape } = step else { return None };
    let present = observed.roles.get(role.as_str())?.shape;
    (within_powers(present, shape, observed) != present).then_some(Step::AlterRole { role, shape })
}

/// Whether the app's own objects are the admin's to change at all.
///
/// # Errors
/// `PermissionDenied` with the statement by which a superuser cures it.
pub(crate) fn check(app: &App, observed: &Observed) -> Result<()> {
    let ServerFacts { admin, superuser, .. } = &observed.server;
    if *superuser {
        return Ok(());
    }
    let refused = |message: String, statement: String| {
        Err(Error::permission_denied("out_of_reach", message).with_hint(format!("as a superuser: {statement}")))
    };
    let facts = |role: &str| observed.roles.get(role);
    if let Some(role) = app.roles().find(|role| facts(role.as_str()).is_some_and(|facts| facts.shape.superuser)) {
        let statement = statements::alter_role(role.as_str(), &role_steps::shape(app, role));
        return refused(format!("role {role} is a superuser, and {admin} is none"), statement);
    }
    let strange: Vec<&str> =
        app.roles().map(AsRef::as_ref).filter(|role| facts(role).is_some_and(|facts| !facts.administered)).collect();
    if !strange.is_empty() {
        let message = format!("{admin} does not look after role {} of app {}", strange.join(", "), app.name);
        return refused(message, statements::grant_administration(strange, admin));
    }
    match &observed.database {
        Some(database) if observed.owns_database(app) && database.owner != *admin => refused(
            format!("database {} belongs to {}, and {admin} is no superuser", app.database, database.owner),
            statements::own_database(app.database.as_str(), admin),
        ),
        _ => Ok(()),
    }
}

/// Whether the admin may go into the app's database at all: what runs at a login there runs with the admin's rights. A superuser's
/// session does without.
///
/// # Errors
/// `Refused` with what ends it.
pub(crate) fn check_entry(app: &App, observed: &Observed) -> Result<()> {
    let enters = observed.server.superuser || !observed.database.as_ref().is_some_and(|facts| facts.login_trigger);
    if enters {
        return Ok(());
    }
    let message =
        format!("database {} runs an event trigger at each login, with the rights of whoever logs in", app.database);
    Err(Error::refused("login_trigger", message).with_hint(format!(
        "as a superuser, in database {}: ALTER EVENT TRIGGER … DISABLE for each that {} lists; after the next login of anybody it counts no more",
        app.database,
        statements::LOGIN_TRIGGERS
    )))
}

/// Whether everything of the app's that a drop takes is within reach: what is elsewhere has to be gone before its data are.
///
/// # Errors
/// `PermissionDenied` with the statement by which a superuser cures it.
pub(crate) fn check_drop(app: &App, observed: &Observed) -> Result<()> {
    check(app, observed)?;
    if observed.server.superuser {
        return Ok(());
    }
    let abroad = &observed.abroad;
    let access = abroad.access.iter().map(|access| access.database.as_str());
    let databases: BTreeSet<&str> = access.chain(abroad.rights.iter().map(String::as_str)).collect();
    let roles: Vec<&str> = app.roles().map(AsRef::as_ref).filter(|role| observed.roles.contains_key(*role)).collect();
    let refused = |message: String, place: String, statement: Vec<String>| {
        let hint = format!("as a superuser{place}: {}", statements::typed(&statement));
        Err(Error::permission_denied("out_of_reach", message).with_hint(hint))
    };
    if let Some(first) = databases.first() {
        let message = format!(
            "roles of app {} have rights in databases that are not its own: {}",
            app.name,
            databases.iter().map(|name| escaped(name)).collect::<Vec<_>>().join(", ")
        );
        return refused(message, format!(" in {}", escaped(first)), vec![statements::drop_owned(roles)]);
    }
    if abroad.ties.is_empty() {
        return Ok(());
    }
    let ties: Vec<String> = abroad.ties.iter().map(|tie| escaped(tie)).collect();
    let message = format!("roles of app {} have what only a superuser takes from them: {}", app.name, ties.join(", "));
    let place =
        format!(", in the database that {} logs into (what is the app's there is deleted)", observed.server.admin);
    refused(message, place, statements::release(&roles, abroad.estate, &observed.server.admin))
}
