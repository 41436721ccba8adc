//! The one transaction in which a hand-made app becomes ours: decided as what `create` would do to the world right after the
//! login was renamed, so that nothing is left to do for the next one.

use crate::app::{App, Slot};
use crate::mark::Progress;
use crate::postgres::facts::{AbroadFacts, InsideFacts, Installed, RoleFacts};
use crate::postgres::legacy::{EventTrigger, Inventory};
use crate::provision::adopt::case::Case;
use crate::provision::adopt::{Adoption, heir, heritage, refusals};
use crate::provision::observed::Observed;
use crate::provision::step::{Phase, Step};
use crate::provision::{database_steps, role_steps};

pub(super) fn steps(app: &App, case: &Case<'_>) -> Vec<Step> {
    let Case { adopt, observed, login, inventory, .. } = case;
    let (name, admin) = (app.login(Slot::One), observed.server.admin.as_str());
    let after = after(app, case);
    let mut steps = disabled_triggers(inventory, name.as_str());
    // As long as the login has its name: afterwards that is another role's.
    steps.extend(
        observed
            .abroad
            .access
            .iter()
            .filter(|access| access.role == name.as_str())
            .map(|access| Step::RevokeAccess {
                database: access.database.clone(),
                role: access.role.clone(),
                grantor: access.grantor.clone(),
            })
            .map(together),
    );
    let mut loses: Vec<String> = refusals::attributes(&login.shape).into_iter().map(str::to_owned).collect();
    loses.extend(login.shape.createdb.then(|| "CREATEDB".to_owned()));
    steps.push(Step::Adopt(Adoption::CloseLogin { login: name.clone(), loses }));
    steps.push(Step::Adopt(Adoption::RenameLogin {
        login: name.clone(),
        owner: app.owner.clone(),
        database: app.database.clone(),
    }));
    steps.extend((!observed.server.maintenance_group).then_some(together(Step::CreateMaintenanceGroup)));
    steps.extend(role_steps::roles(app, None, &after, Progress::Adopting).into_iter().map(within));
    steps.push(Step::Adopt(Adoption::CarryPassword { login: name.clone() }));
    steps.extend(heritage::handed_over(inventory, app, name.as_str(), &adopt.take_from, admin));
    let inside = database_steps::database(app, &after).into_iter();
    let (later, now): (Vec<Step>, Vec<Step>) = inside.partition(|step| matches!(step, Step::EndStrangers { .. }));
    steps.extend(now.into_iter().map(within));
    steps.extend(public(app, inventory, name.as_str()));
    steps.extend(heritage::default_rights(inventory, app));
    steps.push(together(Step::MarkOwner { role: app.owner.clone(), progress: Progress::Adopting, rotation: None }));
    steps.extend(later);
    steps
}

fn together(step: Step) -> Step {
    Step::Adopt(Adoption::Together { part: Box::new(step) })
}

/// What belongs to the swap anyway stays as it is.
fn within(step: Step) -> Step {
    if step.phase() == Phase::Swap { step } else { together(step) }
}

/// The world as it will be when the login has become the owner role, and nothing else has happened.
fn after(app: &App, case: &Case<'_>) -> Observed {
    let Case { observed, login, inventory, .. } = *case;
    let (name, owner) = (app.login(Slot::One).as_str(), app.owner.as_str());
    let mut after = observed.clone();
    let ended = app.adopted.as_ref().is_some_and(|adopted| adopted.end_sessions);
    let heir = RoleFacts { sessions: if ended { 0 } else { login.sessions }, ..heir(login) };
    // Of guests only that they exist matters.
    let guests = app.guests().map(|guest| (guest.to_string(), heir.clone()));
    after.roles = guests.chain([(owner.to_owned(), heir.clone())]).collect();
    after.abroad = AbroadFacts::default();
    after.server.maintenance_group = true;
    if let Some(database) = &mut after.database {
        if database.owner == name {
            owner.clone_into(&mut database.owner);
        }
        if let Some(rights) = database.access.remove(name) {
            database.access.insert(owner.to_owned(), rights);
        }
        database.strangers.remove(name);
    }
    // Schemas have steps of their own; here each is as it will be.
    let schemas = inventory.schemas.iter().map(|schema| (schema.clone(), owner.to_owned())).collect();
    // Extensions wait for a look from inside, at who could create where they go.
    let installed = Installed { schema: String::new(), of_admin: true };
    let extensions = app.extensions.iter().map(|name| (name.to_string(), installed.clone())).collect();
    after.inside = Some(InsideFacts { schemas, extensions, ..InsideFacts::default() });
    after
}

/// Those whose code is the app's: it could be changed at any time, and runs with the rights of whoever sets it off.
fn disabled_triggers(inventory: &Inventory, login: &str) -> Vec<Step> {
    let ours = |trigger: &&EventTrigger| trigger.owner == login || trigger.function_owner == login;
    let triggers = inventory.event_triggers.iter().filter(ours);
    triggers.map(|trigger| Step::Adopt(Adoption::DisableTrigger { trigger: trigger.name.clone() })).collect()
}

/// Schema `public` goes to the app once; whoever used it through PUBLIC and may still enter goes on using it.
fn public(app: &App, inventory: &Inventory, login: &str) -> Vec<Step> {
    let Some((_, grants)) = inventory.public.as_ref().filter(|(owner, _)| owner != login) else {
        return Vec::new();
    };
    let open = grants.iter().any(|grant| grant.to.is_empty() && grant.right == "USAGE");
    let guests = app.guests().filter(|_| open);
    // As its owner of now, since an admin who is no superuser gives nothing of the new one's.
    guests
        .map(|role| Step::Adopt(Adoption::ShowPublic { role: role.clone() }))
        .chain([together(Step::OwnPublicSchema { owner: app.owner.clone() })])
        .collect()
}
