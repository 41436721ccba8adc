//! What to do about an app's four roles.

use std::collections::{BTreeMap, BTreeSet};

use crate::adoption::Adopted;
use crate::app::{App, MAINTENANCE_CONNECTIONS, Slot};
use crate::mark::Progress;
use crate::names::RoleName;
use crate::postgres::facts::{Access, Grants, Membership, RoleFacts, RoleShape};
use crate::postgres::statements::MAINTENANCE_GROUP;
use crate::provision::adopt::Adoption;
use crate::provision::observed::Observed;
use crate::provision::step::Step;

/// Space for sorts and joins on disk that one process of an app may take.
pub(crate) const TEMP_FILE_LIMIT: &str = "1GB";

/// What one of the roles ought to be.
struct Desired<'a> {
    name: &'a RoleName,
    shape: RoleShape,
    groups: Vec<&'a str>,
    /// The login of the database's name, where `samerole` asks for a membership in it.
    passage: Option<&'a RoleName>,
    /// Whom the passage is for.
    passing: Option<&'a RoleName>,
    settings: BTreeMap<&'static str, String>,
}

/// What one of the app's roles may do.
pub(crate) fn shape(app: &App, role: &RoleName) -> RoleShape {
    if app.logins.contains(role) {
        RoleShape { login: true, connection_limit: i32::from(app.connections), ..RoleShape::CLOSED }
    } else if *role == app.maintenance {
        RoleShape { connection_limit: i32::from(MAINTENANCE_CONNECTIONS), ..RoleShape::CLOSED }
    } else {
        RoleShape::CLOSED
    }
}

/// All steps about roles, in the one transaction they are made for. One login may be closed.
pub(crate) fn roles(app: &App, closed: Option<Slot>, observed: &Observed, progress: Progress) -> Vec<Step> {
    let mut steps = owner(app, observed, progress);
    for name in &app.logins {
        let settings = [("role", app.owner.to_string()), ("temp_file_limit", TEMP_FILE_LIMIT.to_owned())].into();
        let passage = app.namesake().filter(|namesake| *namesake != name);
        let passing = app.logins.iter().find(|other| app.namesake() == Some(name) && *other != name);
        let groups = vec![app.owner.as_str()];
        let shape = RoleShape { login: closed.is_none_or(|slot| name != app.login(slot)), ..shape(app, name) };
        steps.extend(member(&Desired { name, shape, groups, passage, passing, settings }, observed));
    }
    let settings = [("temp_file_limit", "-1".to_owned())].into();
    let groups = vec![app.owner.as_str(), MAINTENANCE_GROUP];
    let (name, passage, passing) = (&app.maintenance, None, None);
    steps.extend(member(&Desired { name, shape: shape(app, name), groups, passage, passing, settings }, observed));
    let foreign = observed.abroad.access.iter().cloned();
    steps.extend(foreign.map(|Access { database, role, grantor }| Step::RevokeAccess { database, role, grantor }));
    revokes_first(steps)
}

/// Whoever was given a membership to pass on loses it after those whom it gave it to: CASCADE would take theirs along, and
/// to revoke what is gone is a warning.
fn revokes_first(steps: Vec<Step>) -> Vec<Step> {
    let (mut revokes, rest): (Vec<Step>, Vec<Step>) =
        steps.into_iter().partition(|step| matches!(step, Step::RevokeMembership { .. }));
    let mut ordered = Vec::new();
    while !revokes.is_empty() {
        let (blocked, mut ready): (Vec<Step>, Vec<Step>) =
            revokes.iter().cloned().partition(|step| revokes.iter().any(|other| stands_on(other, step)));
        // Grants in a circle are none that a server keeps.
        let last = ready.is_empty();
        ordered.append(if last { &mut revokes } else { &mut ready });
        revokes = if last { Vec::new() } else { blocked };
    }
    ordered.into_iter().chain(rest).collect()
}

/// Whether the first revoke is of a grant that the member in the second one made.
fn stands_on(grant: &Step, base: &Step) -> bool {
    match (grant, base) {
        // What a role granted itself stands on another grant, not on itself.
        _ if grant == base => false,
        (
            Step::RevokeMembership { group, grantor: Some(grantor), .. },
            Step::RevokeMembership { group: same, member, .. },
        ) => group == same && grantor == member,
        _ => false,
    }
}

fn owner(app: &App, observed: &Observed, progress: Progress) -> Vec<Step> {
    let (role, shape) = (app.owner.clone(), shape(app, &app.owner));
    let act = act_as(&app.owner, observed);
    let Some(facts) = observed.roles.get(role.as_str()) else {
        return std::iter::once(Step::CreateOwner { role, shape, progress }).chain(act).collect();
    };
    let mut steps = Vec::from_iter(act);
    if facts.shape != shape {
        steps.push(Step::AlterRole { role: role.clone(), shape });
    }
    if facts.has_password {
        steps.push(Step::ClearPassword { role: role.clone() });
    }
    let kept = |kept: fn(&Adopted) -> &BTreeSet<RoleName>| app.adopted.iter().flat_map(kept).map(RoleName::as_str);
    let groups: Vec<&str> = kept(|adopted| &adopted.groups).collect();
    let foreign = facts.groups.iter().filter(|(group, _)| !groups.contains(&group.as_str()));
    steps.extend(foreign.flat_map(|(group, grants)| revoke(group, role.as_str(), grants)));
    let ours: Vec<&str> = app.logins.iter().chain([&app.maintenance]).map(AsRef::as_ref).collect();
    let ours: Vec<&str> = ours.into_iter().chain(kept(|adopted| &adopted.members)).collect();
    let foreign = members(facts, observed).filter(|(member, _)| !ours.contains(&member.as_str()));
    steps.extend(foreign.flat_map(|(member, grants)| revoke(role.as_str(), member, grants)));
    steps
}

/// The members of a role, without the admin that looks after it.
pub(super) fn members<'a>(
    facts: &'a RoleFacts,
    observed: &'a Observed,
) -> impl Iterator<Item = (&'a String, &'a Grants)> {
    let server = &observed.server;
    facts.members.iter().filter(|(member, _)| server.superuser || **member != server.admin)
}

/// Whether a role has a membership that goes, and with it whatever it granted.
fn is_member(facts: &RoleFacts, role: &str, observed: &Observed) -> bool {
    members(facts, observed).any(|(member, _)| member == role)
}

/// What an admin who is no superuser needs beside the right to change a role.
pub(super) fn act_as(role: &RoleName, observed: &Observed) -> Option<Step> {
    let may = observed.server.superuser || observed.roles.get(role.as_str()).is_some_and(|facts| facts.settable);
    (!may).then(|| Step::ActAs { role: role.clone() })
}

/// A role that is a member of the owner role: the two logins and the maintenance login.
fn member(desired: &Desired<'_>, observed: &Observed) -> Vec<Step> {
    let role = desired.name;
    let mut steps = Vec::new();
    let nothing = BTreeMap::new();
    let facts = observed.roles.get(role.as_str());
    match facts {
        None => steps.push(Step::CreateLogin { role: role.clone(), shape: desired.shape }),
        Some(facts) => steps.extend(amend(desired, facts, observed)),
    }
    steps.extend(act_as(role, observed));
    let groups = facts.map_or(&nothing, |facts| &facts.groups);
    for group in &desired.groups {
        // A grant repeated does not take options back: only a new one has exactly ours.
        let grants = groups.get(*group).cloned().unwrap_or_default();
        let lasts =
            |grantor: &str| !observed.roles.get(*group).is_some_and(|facts| is_member(facts, grantor, observed));
        let (plain, other): (Grants, Grants) =
            grants.into_iter().partition(|(grantor, grant)| *grant == Membership::PLAIN && lasts(grantor));
        steps.extend(revoke(group, role.as_str(), &other));
        if plain.is_empty() {
            steps.push(Step::GrantMembership { group: (*group).to_owned(), member: role.clone() });
        }
    }
    if let Some(group) = desired.passage.filter(|group| !groups.contains_key(group.as_str())) {
        steps.push(Step::Adopt(Adoption::GrantPassage { group: group.clone(), member: role.clone() }));
    }
    for (name, value) in &desired.settings {
        if facts.and_then(|facts| facts.settings.get(*name)) != Some(value) {
            steps.push(set(role, name, value));
        }
    }
    steps
}

fn amend(desired: &Desired<'_>, facts: &RoleFacts, observed: &Observed) -> Vec<Step> {
    let role = desired.name;
    let mut steps = Vec::new();
    if facts.shape != desired.shape {
        steps.push(Step::AlterRole { role: role.clone(), shape: desired.shape });
    }
    if facts.has_password && !desired.shape.login {
        steps.push(Step::ClearPassword { role: role.clone() });
    }
    let ours = |group: &str| {
        desired.groups.contains(&group) || desired.passage.is_some_and(|passage| passage.as_str() == group)
    };
    let foreign = facts.groups.iter().filter(|(group, _)| !ours(group));
    steps.extend(foreign.flat_map(|(group, grants)| revoke(group, role.as_str(), grants)));
    let passing = |member: &str| desired.passing.is_some_and(|passing| passing.as_str() == member);
    let foreign = members(facts, observed).filter(|(member, _)| !passing(member));
    steps.extend(foreign.flat_map(|(member, grants)| revoke(role.as_str(), member, grants)));
    let extra = facts.settings.keys().filter(|name| !desired.settings.contains_key(name.as_str()));
    steps.extend(extra.map(|name| Step::ResetForRole { role: role.clone(), database: None, name: name.clone() }));
    steps
}

/// Each grant by itself; without a name, whoever granted it does not count.
fn revoke(group: &str, member: &str, grants: &Grants) -> Vec<Step> {
    let grantors = grants.keys().map(|grantor| Some(grantor).filter(|name| !name.is_empty()).cloned());
    grantors
        .map(|grantor| Step::RevokeMembership { group: group.to_owned(), member: member.to_owned(), grantor })
        .collect()
}

fn set(role: &RoleName, name: &str, value: &str) -> Step {
    Step::SetForRole { role: role.clone(), database: None, name: name.to_owned(), value: value.to_owned() }
}
