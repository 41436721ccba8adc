//! The planner against a simulated world: every state of its factors, every crash point.
//!
//! [`World::effect`] is what a step does to what would be observed next. A crash is any prefix of a plan's steps; with or
//! without the effect of the last one are two neighbouring prefixes. That is stricter than reality, where the steps of a
//! transaction stand or fall together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::app::{App, AppSpec, EXTENSION_SCHEMA, Mark, Slot};
use crate::postgres::facts::{
    Bearer, DatabaseFacts, Expiry, InsideFacts, MarkFact, Membership, OWNER_ACCESS, RoleFacts, RoleShape, ServerFacts,
};
use crate::postgres::statements::MAINTENANCE_GROUP;
use crate::postgres::version::ServerVersion;
use crate::provision::drop_plan::plan_drop;
use crate::provision::observed::{HeldSecret, Observed, SecretFacts};
use crate::provision::plan::{Plan, plan};
use crate::provision::step::{SettingValue, Step};

const ADMIN: &str = "postgres";

#[derive(Clone, Debug, PartialEq, Eq)]
struct World {
    observed: Observed,
    /// The inside of the database, whether or not anybody can look.
    inside: InsideFacts,
}

static SPEC: LazyLock<AppSpec> = LazyLock::new(|| AppSpec::new("my-app".parse().unwrap()));
static APP: LazyLock<App> = LazyLock::new(|| App::derive(&SPEC, &"local".parse().unwrap(), None).unwrap());
/// The world with the app as it should be.
static FINE: LazyLock<World> = LazyLock::new(|| {
    let empty = World::empty();
    empty.after(&empty.plan().steps)
});

impl World {
    /// A server of ours without any app.
    fn empty() -> Self {
        let server = ServerFacts {
            version: ServerVersion::new(150_018),
            admin: ADMIN.into(),
            superuser: true,
            max_connections: 200,
            maintenance_group: true,
            open_to_public: BTreeSet::new(),
        };
        let observed = Observed {
            environment: "local".parse().unwrap(),
            server,
            marks: Vec::new(),
            roles: BTreeMap::new(),
            database: None,
            inside: None,
            available: BTreeMap::new(),
            secret: SecretFacts::Absent,
        };
        Self { observed, inside: InsideFacts::default() }
    }

    fn plan(&self) -> Plan {
        plan(&SPEC, &self.observed).unwrap_or_else(|error| panic!("{error}\n{self:#?}"))
    }

    /// The world after some steps.
    fn after(&self, steps: &[Step]) -> Self {
        let mut world = self.clone();
        steps.iter().for_each(|step| world.effect(step));
        world
    }

    fn role(&mut self, name: &str) -> &mut RoleFacts {
        self.observed.roles.get_mut(name).unwrap_or_else(|| panic!("role {name} must exist"))
    }

    fn database(&mut self) -> &mut DatabaseFacts {
        self.observed.database.as_mut().expect("the database must exist")
    }

    fn mark(&mut self, bearer: Bearer, name: &str, mark: &Mark) {
        self.observed.marks.retain(|fact| (fact.bearer, fact.name.as_str()) != (bearer, name));
        self.observed.marks.push(MarkFact { bearer, name: name.to_owned(), mark: mark.clone() });
        self.observed.marks.sort_by_key(|fact| (fact.bearer as u8, fact.name.clone()));
    }

    fn forget_mark(&mut self, bearer: Bearer, name: &str) {
        self.observed.marks.retain(|fact| (fact.bearer, fact.name.as_str()) != (bearer, name));
    }

    /// What can be seen of the inside: everything or nothing.
    fn look_inside(&mut self) {
        let open = self
            .observed
            .database
            .as_ref()
            .is_some_and(|facts| facts.allows_connections && !facts.invalid && facts.marked);
        self.observed.inside = open.then(|| self.inside.clone());
    }

    fn drop_role(&mut self, name: &str) {
        self.observed.roles.remove(name);
        for role in self.observed.roles.values_mut() {
            role.groups.remove(name);
            role.members.remove(name);
        }
        self.forget_mark(Bearer::Role, name);
    }

    fn drop_database(&mut self, name: &str) {
        self.observed.database = None;
        self.inside = InsideFacts::default();
        self.forget_mark(Bearer::Database, name);
        for role in self.observed.roles.values_mut() {
            role.database_settings.clear();
        }
    }

    fn effect(&mut self, step: &Step) {
        let app = &*APP;
        match step {
            Step::CreateMaintenanceGroup => self.observed.server.maintenance_group = true,
            Step::CloseToPublic { database } => {
                self.observed.server.open_to_public.remove(database);
            }
            Step::CreateOwner { role, shape, mark } => {
                assert!(self.observed.roles.insert(role.to_string(), new_role(*shape)).is_none());
                self.mark(Bearer::Role, role.as_str(), mark);
            }
            Step::CreateLogin { role, shape } => {
                assert!(self.observed.roles.insert(role.to_string(), new_role(*shape)).is_none());
            }
            Step::AlterRole { role, shape } => self.role(role.as_str()).shape = *shape,
            Step::ClearPassword { role } => self.role(role.as_str()).has_password = false,
            Step::RevokeMembership { group, member } => {
                if let Some(role) = self.observed.roles.get_mut(member) {
                    role.groups.remove(group);
                }
                if let Some(role) = self.observed.roles.get_mut(group) {
                    role.members.remove(member);
                }
            }
            Step::GrantMembership { group, member } => {
                self.role(member.as_str()).groups.insert(group.clone(), Membership::PLAIN);
                if group != MAINTENANCE_GROUP {
                    self.role(group).members.insert(member.to_string(), Membership::PLAIN);
                }
            }
            Step::SetForRole { role, database, name, value } => {
                let value = match value {
                    SettingValue::Text(text) => text.clone(),
                    SettingValue::Names(names) => names.join(", "),
                };
                let role = self.role(role.as_str());
                let settings = if database.is_some() { &mut role.database_settings } else { &mut role.settings };
                settings.insert(name.clone(), value);
            }
            Step::ResetForRole { role, database, name } => {
                let role = self.role(role.as_str());
                let settings = if database.is_some() { &mut role.database_settings } else { &mut role.settings };
                settings.remove(name);
            }
            Step::MarkOwner { role, mark } => self.mark(Bearer::Role, role.as_str(), mark),
            Step::DropDatabase { database } => self.drop_database(database),
            Step::CreateDatabase { connections, .. } => {
                assert!(self.observed.database.is_none());
                self.observed.database = Some(DatabaseFacts::fresh(ADMIN, *connections));
                self.inside = InsideFacts::fresh();
            }
            Step::MarkDatabase { database, mark } => {
                self.database().marked = true;
                self.mark(Bearer::Database, database.as_str(), mark);
            }
            Step::OwnDatabase { .. } => {
                let facts = self.database();
                let old = std::mem::replace(&mut facts.owner, ADMIN.to_owned());
                facts.access.remove(&old);
            }
            Step::SetAccess { owner, revoke, .. } => {
                let facts = self.database();
                facts.access.remove("");
                facts.access.retain(|grantee, _| !revoke.contains(grantee));
                facts.access.insert(owner.to_string(), OWNER_ACCESS.map(str::to_owned).into());
            }
            Step::LimitDatabase { connections, .. } => {
                let facts = self.database();
                facts.connection_limit = i32::from(*connections);
                facts.template = false;
            }
            Step::ResetForDatabase { name, .. } => {
                self.database().settings.remove(name);
            }
            Step::EndSessions { database: Some(_), .. } => self.database().strangers.clear(),
            Step::EndSessions { database: None, roles } => {
                for role in roles {
                    self.role(role).sessions = 0;
                }
            }
            Step::OpenDatabase { .. } => self.database().allows_connections = true,
            Step::CloseDatabase { .. } => self.database().allows_connections = false,
            Step::OwnPublicSchema { owner } => {
                if let Some(public) = self.inside.schemas.get_mut("public") {
                    *public = owner.to_string();
                }
            }
            Step::CreateSchema { schema, owner } => {
                self.inside.schemas.insert(schema.to_string(), owner.to_string());
            }
            Step::CreateExtensionSchema { .. } => {
                self.inside.schemas.insert(EXTENSION_SCHEMA.to_owned(), ADMIN.to_owned());
            }
            Step::CreateExtension { extension, schema } => {
                self.inside.extensions.insert(extension.to_string(), schema.clone());
            }
            Step::ReassignStrays { login, .. } => {
                self.inside.strays.remove(login.as_str());
            }
            Step::SetPassword { login, source } => {
                self.role(login.as_str()).has_password = true;
                let slot = app.slot_of(login.as_str()).unwrap();
                if let SecretFacts::Held(held) = &mut self.observed.secret {
                    held.works[slot as usize] = *source == super::PasswordSource::Secret;
                }
            }
            Step::EndExpiry { login } => self.role(login.as_str()).expiry = Expiry::Never,
            Step::Prove { login } => assert!(self.can_work(app.slot_of(login.as_str()).unwrap()), "{self:#?}"),
            Step::PublishSecret { slot, replace, .. } => {
                let works = match &self.observed.secret {
                    SecretFacts::Held(held) if held.works[*slot as usize] => held.works,
                    _ => [*slot == Slot::One, *slot == Slot::Two],
                };
                assert_eq!(*replace, self.observed.secret != SecretFacts::Absent);
                let held = HeldSecret { slot: Some(*slot), complete: true, current: true, works };
                self.observed.secret = SecretFacts::Held(held);
            }
            Step::DeleteSecret { .. } => self.observed.secret = SecretFacts::Absent,
            Step::DropRole { role } => self.drop_role(role),
        }
        self.look_inside();
    }

    /// Whether a login has everything that it needs to work in its database, but for the password.
    fn can_work(&self, slot: Slot) -> bool {
        let app = &*APP;
        let login = self.observed.roles.get(app.login(slot).as_str());
        let database = self.observed.database.as_ref();
        login.is_some_and(|login| {
            login.shape.login
                && login.expiry != Expiry::Past
                && login.has_password
                && login.groups.get(app.owner.as_str()).is_some_and(|membership| membership.usable)
                && login.settings.get("role").map(String::as_str) == Some(app.owner.as_str())
        }) && database.is_some_and(|database| {
            database.allows_connections
                && !database.invalid
                && database.access.get(app.owner.as_str()).is_some_and(|rights| rights.contains("CONNECT"))
        }) && self.inside.schemas.get(app.schema.as_str()).is_some_and(|owner| owner == app.owner.as_str())
    }

    /// "A Secret that exists works."
    fn secret_works(&self) -> bool {
        match &self.observed.secret {
            SecretFacts::Held(HeldSecret { slot: Some(slot), complete: true, works, .. }) => {
                works[*slot as usize] && self.can_work(*slot)
            }
            _ => false,
        }
    }

    fn open_to_public(&self) -> bool {
        self.observed.database.as_ref().is_some_and(|facts| facts.allows_connections && facts.access.contains_key(""))
    }
}

fn new_role(shape: RoleShape) -> RoleFacts {
    RoleFacts {
        shape,
        expiry: Expiry::Never,
        has_password: false,
        groups: BTreeMap::new(),
        members: BTreeMap::new(),
        settings: BTreeMap::new(),
        database_settings: BTreeMap::new(),
        sessions: 0,
    }
}

type Disturb = fn(&mut World);

/// Each factor is a list of ways in which one part of the world may be; the first is always "as it should be". These
/// have to do with each other, so that every combination is tried.
fn factors() -> Vec<Vec<Disturb>> {
    let fine: Disturb = |_| {};
    vec![owners(fine), firsts(fine), seconds(fine), databases(fine), accesses(fine), secrets(fine), uses(fine)]
}

/// What has to do with nothing else: its variants are dealt out over the combinations of the others in turn.
fn rest() -> Vec<Disturb> {
    rests(|_| {})
}

const SECRETS: usize = 5;
const USES: usize = 6;

fn owners(fine: Disturb) -> Vec<Disturb> {
    vec![
        fine,
        |world| world.drop_role("my_app_db"),
        |world| {
            let owner = world.role("my_app_db");
            owner.shape = RoleShape { login: true, superuser: true, connection_limit: 5, ..RoleShape::CLOSED };
            owner.has_password = true;
        },
        |world| {
            let owner = world.role("my_app_db");
            owner.groups.insert("pg_read_all_data".into(), Membership::PLAIN);
            owner.members.insert("stranger".into(), Membership::PLAIN);
        },
        |world| {
            let mark = Mark { dropping: true, ..APP.mark() };
            world.mark(Bearer::Role, "my_app_db", &mark);
        },
    ]
}

fn firsts(fine: Disturb) -> Vec<Disturb> {
    vec![
        fine,
        |world| world.drop_role("my_app_user"),
        |world| {
            let login = world.role("my_app_user");
            login.shape = RoleShape { createrole: true, login: false, ..RoleShape::CLOSED };
            login.members.insert("stranger".into(), Membership::PLAIN);
        },
        |world| {
            world.role("my_app_user").groups.clear();
            if let Some(owner) = world.observed.roles.get_mut("my_app_db") {
                owner.members.remove("my_app_user");
            }
        },
        |world| {
            let login = world.role("my_app_user");
            login.groups.insert("my_app_db".into(), Membership { admin: true, usable: false });
            login.groups.insert("pg_monitor".into(), Membership::PLAIN);
        },
        |world| {
            let login = world.role("my_app_user");
            login.settings = [("work_mem".to_owned(), "1GB".to_owned())].into();
            login.database_settings = [("search_path".to_owned(), "public".to_owned())].into();
        },
    ]
}

fn seconds(fine: Disturb) -> Vec<Disturb> {
    vec![fine, |world| world.drop_role("my_app_user_2"), |world| {
        let login = world.role("my_app_user_2");
        login.shape.connection_limit = 3;
        login.has_password = true;
        login.settings.remove("role");
    }]
}

fn databases(fine: Disturb) -> Vec<Disturb> {
    vec![
        fine,
        |world| world.drop_database("my_app_db"),
        |world| {
            world.drop_database("my_app_db");
            world.observed.database = Some(DatabaseFacts::fresh(ADMIN, 14));
            world.inside = InsideFacts::fresh();
        },
        |world| {
            let facts = world.database();
            facts.invalid = true;
            facts.connection_limit = -2;
        },
        |world| world.database().allows_connections = false,
    ]
}

fn accesses(fine: Disturb) -> Vec<Disturb> {
    fn with(world: &mut World, change: fn(&mut DatabaseFacts)) {
        world.observed.database.iter_mut().for_each(change);
    }
    vec![
        fine,
        |world| {
            with(world, |facts| {
                facts.access.insert(String::new(), ["CONNECT".to_owned()].into());
            });
        },
        |world| with(world, |facts| facts.access.clear()),
        |world| {
            with(world, |facts| {
                facts.access.insert("stranger".into(), ["CONNECT*".to_owned()].into());
                facts.strangers.insert("stranger".into());
            });
        },
        |world| {
            with(world, |facts| {
                facts.owner = "my_app_db".into();
                facts.access.remove("my_app_db");
            });
        },
    ]
}

fn rests(fine: Disturb) -> Vec<Disturb> {
    vec![
        fine,
        |world| {
            world.inside.schemas.clear();
            world.observed.server.open_to_public = ["postgres".to_owned(), "template1".to_owned()].into();
        },
        |world| {
            world.inside.strays.insert("my_app_user".into());
            world.inside.schemas.insert("public".into(), "stranger".into());
            world.drop_role("my_app_maint");
        },
        |world| {
            if let Some(facts) = &mut world.observed.database {
                facts.template = true;
                facts.settings.insert("search_path".into());
            }
            let maintenance = world.role("my_app_maint");
            maintenance.shape = RoleShape { login: true, bypassrls: true, connection_limit: 4, ..RoleShape::CLOSED };
            maintenance.has_password = true;
            world.observed.server.maintenance_group = false;
            world.role("my_app_maint").groups.remove(MAINTENANCE_GROUP);
        },
    ]
}

fn secrets(fine: Disturb) -> Vec<Disturb> {
    fn held(world: &mut World, change: impl Fn(&mut HeldSecret)) {
        if let SecretFacts::Held(secret) = &mut world.observed.secret {
            change(secret);
        }
    }
    vec![
        fine,
        |world| world.observed.secret = SecretFacts::Absent,
        |world| held(world, |secret| secret.works = [false, false]),
        |world| held(world, |secret| (secret.complete, secret.current) = (false, false)),
        |world| held(world, |secret| (secret.complete, secret.current, secret.works) = (false, false, [false, false])),
        |world| held(world, |secret| secret.current = false),
        |world| {
            held(world, |secret| (secret.slot, secret.works) = (Some(Slot::Two), [false, true]));
            if let Some(login) = world.observed.roles.get_mut("my_app_user_2") {
                login.has_password = true;
            }
        },
        |world| {
            held(world, |secret| {
                *secret = HeldSecret { slot: None, complete: true, current: false, works: [false, true] };
            });
        },
    ]
}

fn uses(fine: Disturb) -> Vec<Disturb> {
    fn sessions(world: &mut World, counts: [u32; 2]) {
        for (name, count) in ["my_app_user", "my_app_user_2"].into_iter().zip(counts) {
            if let Some(login) = world.observed.roles.get_mut(name) {
                login.sessions = count;
                login.expiry = if count == 0 { Expiry::Past } else { login.expiry };
            }
        }
    }
    vec![fine, |world| sessions(world, [2, 0]), |world| sessions(world, [0, 2]), |world| sessions(world, [3, 2])]
}

/// Roles that are gone can work for nobody, whatever the Secret's factor said.
fn consistent(mut world: World) -> World {
    let has_password = |world: &World, name: &str| world.observed.roles.get(name).is_some_and(|role| role.has_password);
    let exist = ["my_app_user", "my_app_user_2"].map(|name| has_password(&world, name));
    if let SecretFacts::Held(held) = &mut world.observed.secret {
        held.works = [held.works[0] && exist[0], held.works[1] && exist[1]];
    }
    if world.observed.database.is_none() {
        world.inside = InsideFacts::default();
    }
    let roles = &world.observed.roles;
    world.inside.strays.retain(|role| roles.contains_key(role));
    world.look_inside();
    world
}

/// The world of number `index` of all combinations.
fn world(factors: &[Vec<Disturb>], mut index: usize) -> World {
    let mut world = FINE.clone();
    // A number that no factor's length divides deals them evenly.
    rest()[index / 7 % rest().len()](&mut world);
    for factor in factors {
        factor[index % factor.len()](&mut world);
        index /= factor.len();
    }
    consistent(world)
}

/// Every single crash from one state, and one random second crash after each. Returns how many crash points were tried.
fn crash_everywhere(start: &World, random: &mut impl FnMut(usize) -> usize) -> usize {
    let steps = start.plan().steps;
    let reference = start.after(&steps);
    assert!(reference.plan().is_empty(), "a second run has nothing to do\n{}\n{start:#?}", reference.plan());
    assert!(reference.secret_works() && !reference.open_to_public(), "{reference:#?}");
    let mut crashed = start.clone();
    let check = |crashed: &World| {
        assert!(
            !start.secret_works() || crashed.secret_works(),
            "a Secret that worked works\n{start:#?}\n{crashed:#?}"
        );
        assert!(start.open_to_public() || !crashed.open_to_public(), "never open to PUBLIC\n{start:#?}\n{crashed:#?}");
    };
    for step in &steps {
        crashed.effect(step);
        if matches!(step, Step::PublishSecret { .. }) {
            assert!(crashed.secret_works(), "a Secret that exists works\n{crashed:#?}");
        }
        check(&crashed);
        let again = crashed.plan().steps;
        assert_eq!(crashed.after(&again), reference, "the next run converges, from\n{start:#?}");
        let twice = crashed.after(&again[..random(again.len() + 1)]);
        check(&twice);
        assert_eq!(twice.after(&twice.plan().steps), reference, "after two crashes, too, from\n{start:#?}");
    }
    steps.len()
}

/// A small generator with a fixed seed (xorshift64), so that a failure can be repeated.
fn random() -> impl FnMut(usize) -> usize {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    }
}

#[test]
fn every_state_and_every_crash_point_converges() {
    let factors = factors();
    let count = factors.iter().map(Vec::len).product::<usize>();
    let (refused, crashes) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (factors, refused, crashes) = (&factors, &refused, &crashes);
            scope.spawn(move || {
                let mut random = random();
                for index in (thread..count).step_by(threads) {
                    let start = world(factors, index);
                    match plan(&SPEC, &start.observed) {
                        Ok(_) => {
                            crashes.fetch_add(crash_everywhere(&start, &mut random), Ordering::Relaxed);
                        }
                        Err(error) => {
                            assert!(justly_refused(&start, error.code()), "{error}\n{start:#?}");
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    println!("{count} states, {} refused, {} crash points", refused.into_inner(), crashes.into_inner());
}

/// What has lost its record on both sides, or its data in a drop, is not taken up again.
fn justly_refused(world: &World, code: &str) -> bool {
    let owner = world.observed.mark_on(Bearer::Role, "my_app_db");
    let marked = world.observed.mark_on(Bearer::Database, "my_app_db").is_some();
    let database = world.observed.database.as_ref();
    match code {
        "name_taken" => owner.is_none() && !marked,
        "drop_unfinished" => owner.is_some_and(|mark| mark.dropping) && database.is_none_or(|facts| facts.invalid),
        "mark_lost" => owner.is_some() && !marked && database.is_some_and(|facts| facts.owner != ADMIN),
        _ => false,
    }
}

#[test]
fn a_new_app_from_every_crash_point() {
    let crashes = crash_everywhere(&World::empty(), &mut random());
    assert!(crashes > 20, "{crashes}");
}

#[test]
fn a_drop_killed_anywhere_is_finished_by_the_next() {
    let name = "my-app".parse().unwrap();
    let start = FINE.clone();
    let steps = plan_drop(&name, &start.observed).unwrap().steps;
    let end = start.after(&steps);
    assert_eq!(end, World::empty());
    assert_eq!(plan_drop(&name, &end.observed).unwrap_err().code(), "app_not_found");
    for crash in 0..steps.len() {
        let crashed = start.after(&steps[..crash]);
        let again = plan_drop(&name, &crashed.observed).unwrap().steps;
        assert_eq!(crashed.after(&again), end, "killed after {crash} steps");
    }
}

#[test]
fn create_brings_back_a_drop_that_has_not_reached_the_data() {
    let name = "my-app".parse().unwrap();
    let start = FINE.clone();
    let steps = plan_drop(&name, &start.observed).unwrap().steps;
    let data = steps.iter().position(|step| matches!(step, Step::DropDatabase { .. })).unwrap();
    for crash in 0..=data {
        let crashed = start.after(&steps[..crash]);
        let back = crashed.after(&crashed.plan().steps);
        assert!(back.plan().is_empty() && back.secret_works(), "after {crash} steps");
    }
    let gone = start.after(&steps[..=data]);
    assert_eq!(plan(&SPEC, &gone.observed).unwrap_err().code(), "drop_unfinished");
}

#[test]
fn drift_is_named_by_its_step() {
    for (factor, disturbances) in factors().into_iter().chain([rest()]).enumerate() {
        for (variant, disturb) in disturbances.iter().enumerate().skip(1) {
            let mut world = FINE.clone();
            disturb(&mut world);
            let world = consistent(world);
            // The Secret may name either login, and the other one's password may end.
            let harmless = matches!((factor, variant), (SECRETS, 6) | (USES, 1 | 3));
            match plan(&SPEC, &world.observed) {
                Ok(plan) => assert_eq!(plan.is_empty(), harmless, "factor {factor}, variant {variant}:\n{plan}"),
                Err(error) => assert!(justly_refused(&world, error.code()), "{error}"),
            }
        }
    }
}
