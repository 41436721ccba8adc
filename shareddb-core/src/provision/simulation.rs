//! A world in which plans are carried out without any server.
//!
//! [`World::effect`] is what a step does to what would be observed next. Passwords are told apart, and not counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use jiff::Timestamp;

use crate::app::{App, AppSpec, Slot};
use crate::credentials::Issue;
use crate::mark::{Mark, Progress};
use crate::postgres::facts::{
    AbroadFacts, DatabaseFacts, Expiry, ExtensionFacts, Grants, InsideFacts, Installed, Membership, OWNER_ACCESS,
    Powers, RoleFacts, RoleShape, ServerFacts,
};
use crate::postgres::marks::{Bearer, MarkFact, Marks};
use crate::postgres::statements::MAINTENANCE_GROUP;
use crate::postgres::version::ServerVersion;
use crate::provision::observed::{HeldSecret, Observed, SecretFacts};
use crate::provision::plan::{Plan, plan};
use crate::provision::step::Step;
use crate::provision::takers::Takers;

pub(in crate::provision) const ADMIN: &str = "postgres";
/// An admin who is no superuser.
pub(in crate::provision) const PLAIN_ADMIN: &str = "adm";

#[derive(Clone, Debug)]
pub(in crate::provision) struct World {
    pub(in crate::provision) observed: Observed,
    /// The inside of the database, whether or not anybody can look.
    pub(super) inside: InsideFacts,
    passwords: Passwords,
}

/// Which passwords are where, each told by a number of its own.
#[derive(Clone, Debug, Default)]
struct Passwords {
    made: u32,
    /// What the server has for each login.
    stored: [Option<u32>; 2],
    secret: Option<u32>,
    /// What the run in progress has made; nobody knows it any more when that is killed.
    in_memory: Option<u32>,
}

/// Worlds are the same when they look the same: which password it is does not matter, as long as it works.
impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        (&self.observed, &self.inside) == (&other.observed, &other.inside)
    }
}

pub(super) static SPEC: LazyLock<AppSpec> = LazyLock::new(|| {
    let mut spec = AppSpec::new("my-app".parse().unwrap());
    spec.extensions = Some(["pg_trgm".parse().unwrap()].into());
    spec.settings = Some([("work_mem".parse().unwrap(), "8MB".to_owned())].into());
    spec
});
pub(in crate::provision) static APP: LazyLock<App> =
    LazyLock::new(|| App::derive(&SPEC, &"local".parse().unwrap(), None).unwrap());
/// The world with the app as it should be.
pub(super) static FINE: LazyLock<World> = LazyLock::new(|| {
    let empty = World::empty();
    empty.after(&empty.steps_to_the_end())
});

impl World {
    /// A server of ours without any app.
    pub(in crate::provision) fn empty() -> Self {
        let server = ServerFacts {
            version: ServerVersion::new(150_018),
            ours: true,
            admin: ADMIN.into(),
            superuser: true,
            powers: Powers::default(),
            max_connections: 200,
            maintenance_group: true,
            open_to_public: BTreeSet::new(),
            third_grantors: BTreeMap::new(),
            visitors: BTreeMap::new(),
            temporary: BTreeMap::new(),
        };
        let observed = Observed {
            environment: "local".parse().unwrap(),
            server,
            marks: Marks::default(),
            roles: BTreeMap::new(),
            database: None,
            inside: None,
            available: [(
                "pg_trgm".to_owned(),
                ExtensionFacts { schema: None, requires: Vec::new(), superuser_only: false },
            )]
            .into(),
            clients: Vec::new(),
            takers: Takers::default(),
            abroad: AbroadFacts::default(),
            secret: SecretFacts::Absent,
            legacy: None,
            inventory: None,
        };
        Self { observed, inside: InsideFacts::default(), passwords: Passwords::default() }
    }

    /// Makes the server one of somebody else's, open to everybody.
    pub(super) fn be_foreign(&mut self) {
        let server = &mut self.observed.server;
        server.ours = false;
        server.open_to_public = ["postgres".to_owned(), "template1".to_owned()].into();
        server.visitors =
            [("postgres".to_owned(), ["clerk".to_owned()].into()), ("crm".to_owned(), BTreeSet::new())].into();
    }

    /// Makes the admin one who is no superuser, and everything what such an admin would have made.
    pub(in crate::provision) fn be_plain(&mut self) {
        let server = &mut self.observed.server;
        server.version = ServerVersion::new(180_006);
        (server.superuser, server.admin) = (false, PLAIN_ADMIN.to_owned());
        server.powers = Powers { createdb: true, createrole: true, maintenance: true, ..Powers::default() };
        server.powers.forbidden.insert("temp_file_limit".to_owned());
        for role in self.observed.roles.values_mut() {
            role.members.insert(PLAIN_ADMIN.to_owned(), own_grants());
            for grants in role.groups.values_mut().chain(role.members.values_mut()) {
                *grants = grants.values().map(|grant| (PLAIN_ADMIN.to_owned(), *grant)).collect();
            }
            role.settings.remove("temp_file_limit");
        }
        if let Some(database) = &mut self.observed.database {
            database.owner = PLAIN_ADMIN.to_owned();
        }
        if let Some(owner) = self.inside.schemas.get_mut("shareddb_extensions") {
            *owner = PLAIN_ADMIN.to_owned();
        }
    }

    pub(super) fn admin(&self) -> String {
        self.observed.server.admin.clone()
    }

    /// Who is said to have granted what the admin grants.
    fn grantor(&self) -> String {
        let server = &self.observed.server;
        if server.version.has_grantors() { server.admin.clone() } else { String::new() }
    }

    /// A role as the admin makes it.
    fn new_role(&self, shape: RoleShape) -> RoleFacts {
        let mut role = new_role(shape);
        if !self.observed.server.superuser {
            role.settable = false;
            role.members.insert(PLAIN_ADMIN.to_owned(), own_grants());
        }
        role
    }

    /// What the admin can see of passwords: without being a superuser, the login that a whole Secret names can be tried, and
    /// whatever can log in may have one.
    pub(super) fn look_at_passwords(&mut self) {
        if self.observed.server.superuser {
            return;
        }
        if let SecretFacts::Held(HeldSecret { slot: Some(slot), complete: true, works, .. }) = &mut self.observed.secret
        {
            works[slot.other() as usize] = false;
        }
        for name in [APP.owner.as_str(), APP.maintenance.as_str()] {
            if let Some(role) = self.observed.roles.get_mut(name) {
                role.has_password = role.shape.login;
            }
        }
    }

    pub(super) fn plan(&self) -> Plan {
        plan(&SPEC, &self.observed).unwrap_or_else(|error| panic!("{error}\n{self:#?}"))
    }

    /// All steps until there is nothing left to do: of a closed database they need a second look.
    pub(super) fn steps_to_the_end(&self) -> Vec<Step> {
        let (mut world, mut steps) = (self.clone(), Vec::new());
        loop {
            let plan = world.plan();
            world = world.after(&plan.steps);
            steps.extend(plan.steps);
            if !plan.partial {
                return steps;
            }
        }
    }

    /// The world after a run's steps.
    pub(super) fn after(&self, steps: &[Step]) -> Self {
        let mut world = self.clone();
        world.passwords.in_memory = None;
        steps.iter().for_each(|step| world.effect(step));
        world
    }

    pub(super) fn role(&mut self, name: &str) -> &mut RoleFacts {
        self.observed.roles.get_mut(name).unwrap_or_else(|| panic!("role {name} must exist"))
    }

    pub(super) fn database(&mut self) -> &mut DatabaseFacts {
        self.observed.database.as_mut().expect("the database must exist")
    }

    pub(in crate::provision) fn mark(&mut self, bearer: Bearer, name: &str, mark: &Mark) {
        self.observed.marks.readable.retain(|fact| (fact.bearer, fact.name.as_str()) != (bearer, name));
        self.observed.marks.readable.push(MarkFact { bearer, name: name.to_owned(), mark: mark.clone() });
        self.observed.marks.readable.sort_by_key(|fact| (fact.bearer as u8, fact.name.clone()));
    }

    /// The app's record.
    pub(super) fn recorded(&self) -> Option<&Mark> {
        self.observed.marks.on(Bearer::Role, APP.owner.as_str())
    }

    /// The app's record once nothing has begun any more.
    fn settled(&self) -> Mark {
        Mark { closed: self.recorded().and_then(|mark| mark.closed), ..APP.mark() }
    }

    /// The number of the password that the Secret has.
    pub(super) fn secret_password(&self) -> Option<u32> {
        self.passwords.secret
    }

    /// The logins that let in who has this password.
    pub(super) fn admits(&self, password: u32) -> Vec<Slot> {
        let admits = |slot: &Slot| {
            let login = self.observed.roles.get(APP.login(*slot).as_str());
            self.passwords.stored[*slot as usize] == Some(password) && login.is_some_and(RoleFacts::admits)
        };
        Slot::ALL.into_iter().filter(admits).collect()
    }

    pub(super) fn forget_mark(&mut self, bearer: Bearer, name: &str) {
        self.observed.marks.readable.retain(|fact| (fact.bearer, fact.name.as_str()) != (bearer, name));
    }

    /// What can be seen of the inside: everything or nothing.
    pub(super) fn look_inside(&mut self) {
        let enterable = |facts: &DatabaseFacts| facts.allows_connections && !facts.invalid;
        let open = self.observed.owns_database(&APP) && self.observed.database.as_ref().is_some_and(enterable);
        self.observed.inside = open.then(|| self.inside.clone());
    }

    pub(super) fn drop_role(&mut self, name: &str) {
        self.observed.roles.remove(name);
        if let Some(slot) = APP.slot_of(name) {
            self.passwords.stored[slot as usize] = None;
        }
        for role in self.observed.roles.values_mut() {
            role.groups.remove(name);
            role.members.remove(name);
        }
        self.forget_mark(Bearer::Role, name);
    }

    pub(super) fn drop_database(&mut self, name: &str) {
        if self.observed.marks.copies.iter().any(|(copy, _)| copy == name) {
            self.observed.marks.copies.retain(|(copy, _)| copy != name);
            return;
        }
        self.observed.database = None;
        self.inside = InsideFacts::default();
        self.forget_mark(Bearer::Database, name);
        for role in self.observed.roles.values_mut() {
            role.database_settings.clear();
        }
    }

    pub(super) fn effect(&mut self, step: &Step) {
        let app = &*APP;
        match step {
            Step::CreateMaintenanceGroup => self.observed.server.maintenance_group = true,
            Step::CloseToPublic { database } => {
                self.observed.server.open_to_public.remove(database);
            }
            Step::CreateOwner { role, shape, progress } => {
                let made = self.new_role(*shape);
                assert!(self.observed.roles.insert(role.to_string(), made).is_none());
                self.mark(Bearer::Role, role.as_str(), &app.mark().while_in(*progress));
            }
            Step::EndRotation { role, closed, left } => {
                assert_eq!(*left, None, "no app here waits for a superuser");
                let mark = Mark { closed: *closed, ..app.mark() };
                self.mark(Bearer::Role, role.as_str(), &mark);
            }
            Step::CreateLogin { role, shape } => {
                let made = self.new_role(*shape);
                assert!(self.observed.roles.insert(role.to_string(), made).is_none());
            }
            Step::AlterRole { role, shape } => {
                let superuser = self.observed.server.superuser;
                let present = &mut self.role(role.as_str()).shape;
                let (replication, bypassrls) = (present.replication, present.bypassrls);
                *present = *shape;
                if !superuser {
                    (present.replication, present.bypassrls) = (replication, bypassrls);
                }
            }
            Step::ClearPassword { role } => {
                self.role(role.as_str()).has_password = false;
                if let Some(slot) = app.slot_of(role.as_str()) {
                    self.passwords.stored[slot as usize] = None;
                }
            }
            Step::RevokeMembership { group, member, grantor } => {
                let grantor = grantor.as_deref().unwrap_or_default();
                if let Some(role) = self.observed.roles.get_mut(member) {
                    take_grant(&mut role.groups, group, grantor);
                }
                if let Some(role) = self.observed.roles.get_mut(group) {
                    take_grant(&mut role.members, member, grantor);
                }
            }
            Step::GrantMembership { group, member } => {
                let grantor = self.grantor();
                let groups = &mut self.role(member.as_str()).groups;
                groups.entry(group.clone()).or_default().insert(grantor.clone(), Membership::PLAIN);
                if group != MAINTENANCE_GROUP {
                    let members = &mut self.role(group).members;
                    members.entry(member.to_string()).or_default().insert(grantor, Membership::PLAIN);
                }
            }
            Step::ActAs { role } => self.role(role.as_str()).settable = true,
            Step::SetForRole { role, database, name, value } => {
                let role = self.role(role.as_str());
                let settings = if database.is_some() { &mut role.database_settings } else { &mut role.settings };
                settings.insert(name.clone(), value.clone());
            }
            Step::SetSearchPath { role, path, .. } => {
                self.role(role.as_str()).database_settings.insert("search_path".to_owned(), path.join(", "));
            }
            Step::ResetForRole { role, database, name } => {
                let role = self.role(role.as_str());
                let settings = if database.is_some() { &mut role.database_settings } else { &mut role.settings };
                settings.remove(name);
            }
            Step::RevokeAccess { database, role, .. } => {
                self.observed.abroad.access.retain(|access| (&access.database, &access.role) != (database, role));
            }
            Step::EndAbroad { .. } => self.observed.abroad.sessions = false,
            Step::TakeRights { database, .. } => {
                self.observed.abroad.rights.remove(database);
            }
            Step::MarkOwner { role, progress, rotation } => {
                let mark = Mark { rotation: *rotation, ..self.settled() }.while_in(*progress);
                self.mark(Bearer::Role, role.as_str(), &mark);
            }
            Step::DropDatabase { database } => self.drop_database(database.as_str()),
            Step::CreateDatabase { connections, .. } => {
                assert!(self.observed.database.is_none());
                self.observed.database = Some(DatabaseFacts::fresh(&self.observed.server.admin, *connections));
                self.inside = InsideFacts::fresh();
            }
            Step::MarkDatabase { database, dropping } => {
                let mark = if *dropping { app.mark().while_in(Progress::Dropping) } else { app.mark() };
                self.mark(Bearer::Database, database.as_str(), &mark);
            }
            Step::OwnDatabase { .. } => {
                let admin = self.admin();
                let facts = self.database();
                let old = std::mem::replace(&mut facts.owner, admin);
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
            Step::EndStrangers { .. } => self.database().strangers.clear(),
            Step::EndSessions { roles } => {
                for role in roles {
                    self.role(role.as_str()).sessions = 0;
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
            Step::CreateExtensionSchema { schema, .. } => {
                assert!(self.inside.schemas.insert(schema.clone(), self.admin()).is_none());
                self.inside.safe_schemas.insert(schema.clone());
            }
            Step::CreateExtension { extension, schema } => {
                self.inside.extensions.insert(extension.clone(), Installed { schema: schema.clone(), of_admin: true });
            }
            Step::ReassignStrays { login, .. } => {
                self.inside.strays.remove(login.as_str());
                for owner in self.inside.schemas.values_mut().filter(|owner| *owner == login.as_str()) {
                    *owner = app.owner.to_string();
                }
            }
            Step::SetPassword { login, source } => {
                self.role(login.as_str()).has_password = true;
                if *source == super::PasswordSource::New {
                    self.passwords.made += 1;
                    self.passwords.in_memory = Some(self.passwords.made);
                }
                let slot = app.slot_of(login.as_str()).unwrap();
                self.passwords.stored[slot as usize] = Some(self.passwords.at_hand());
            }
            Step::EndExpiry { login } => self.role(login.as_str()).expiry = Expiry::Never,
            Step::SetExpiry { login, grace } => {
                let end = if *grace == 0 { Expiry::Past } else { Expiry::Future };
                self.role(login.as_str()).expiry = end(Timestamp::UNIX_EPOCH);
            }
            Step::Prove { login, open, left } => {
                assert_eq!(*open, self.observed.server.open_to_public.iter().cloned().collect::<Vec<_>>());
                assert!(self.can_work(app.slot_of(login.as_str()).unwrap()), "{self:#?}");
                assert_eq!(*left, None, "no app here waits for a superuser");
                let mark = Mark { rotation: self.recorded().and_then(|mark| mark.rotation), ..self.settled() };
                self.mark(Bearer::Role, app.owner.as_str(), &mark);
            }
            Step::PublishSecret { slot, replace, .. } => {
                assert_eq!(*replace, self.observed.secret != SecretFacts::Absent);
                self.passwords.secret = Some(self.passwords.at_hand());
                let issue = Issue::default();
                let held = HeldSecret { slot: Some(*slot), complete: true, current: true, works: [false; 2], issue };
                self.observed.secret = SecretFacts::Held(held);
            }
            Step::DeleteSecret { .. } => {
                self.observed.secret = SecretFacts::Absent;
                self.passwords.secret = None;
            }
            Step::Restart { .. } => {}
            Step::DropRole { role } => self.drop_role(role.as_str()),
            Step::Adopt(adoption) => panic!("no app of this world was made by hand: {adoption}"),
        }
        self.look_inside();
        if let SecretFacts::Held(held) = &mut self.observed.secret {
            held.works = self.passwords.work();
        }
        self.look_at_passwords();
    }

    /// Gives the passwords numbers that fit what a test has made the world look like.
    pub(super) fn number_passwords(&mut self) {
        let works = match &self.observed.secret {
            SecretFacts::Held(held) => held.works,
            SecretFacts::Absent | SecretFacts::Foreign | SecretFacts::Elsewhere(_) => [false; 2],
        };
        let stored = Slot::ALL.map(|slot| {
            let login = self.observed.roles.get(APP.login(slot).as_str());
            // Secret's own number, or one that is neither its nor the other login's.
            login.filter(|login| login.has_password).map(|_| if works[slot as usize] { 1 } else { 2 + slot as u32 })
        });
        let secret = matches!(self.observed.secret, SecretFacts::Held(_)).then_some(1);
        self.passwords = Passwords { made: 3, stored, secret, in_memory: None };
    }

    /// Whether a login has everything that it needs to work in its database, but for the password.
    pub(super) fn can_work(&self, slot: Slot) -> bool {
        let app = &*APP;
        let login = self.observed.roles.get(app.login(slot).as_str());
        let database = self.observed.database.as_ref();
        login.is_some_and(|login| {
            login.shape.login
                && !matches!(login.expiry, Expiry::Past(_))
                && login.has_password
                && login.groups.get(app.owner.as_str()).is_some_and(|grants| grants.values().any(|grant| grant.usable))
                && login.settings.get("role").map(String::as_str) == Some(app.owner.as_str())
        }) && database.is_some_and(|database| {
            database.allows_connections
                && !database.invalid
                && database.access.get(app.owner.as_str()).is_some_and(|rights| rights.contains("CONNECT"))
        }) && self.inside.schemas.get(app.schema.as_str()).is_some_and(|owner| owner == app.owner.as_str())
    }

    /// "A Secret that exists works."
    pub(super) fn secret_works(&self) -> bool {
        match &self.observed.secret {
            SecretFacts::Held(HeldSecret { slot: Some(slot), complete: true, works, .. }) => {
                works[*slot as usize] && self.can_work(*slot)
            }
            _ => false,
        }
    }

    pub(super) fn open_to_public(&self) -> bool {
        self.observed.database.as_ref().is_some_and(|facts| facts.allows_connections && facts.access.contains_key(""))
    }
}

/// The grants of one membership.
pub(in crate::provision) fn granted(grantor: &str, grant: Membership) -> Grants {
    [(grantor.to_owned(), grant)].into()
}

/// What whoever makes a role without being a superuser has of it: from the server, not by a grant of its own.
fn own_grants() -> Grants {
    granted(ADMIN, Membership { admin: true, usable: false })
}

fn take_grant(memberships: &mut BTreeMap<String, Grants>, name: &str, grantor: &str) {
    if let Some(grants) = memberships.get_mut(name) {
        grants.remove(grantor);
        if grants.is_empty() {
            memberships.remove(name);
        }
    }
}

fn new_role(shape: RoleShape) -> RoleFacts {
    RoleFacts { shape, ..RoleFacts::empty() }
}

impl RoleFacts {
    /// A role that can do nothing and has nothing.
    pub(in crate::provision) fn empty() -> Self {
        Self {
            shape: RoleShape::CLOSED,
            expiry: Expiry::Never,
            has_password: false,
            administered: true,
            settable: true,
            groups: BTreeMap::new(),
            members: BTreeMap::new(),
            settings: BTreeMap::new(),
            database_settings: BTreeMap::new(),
            sessions: 0,
        }
    }
}

impl Passwords {
    /// The password of the run in progress: a new one, else the Secret's.
    fn at_hand(&self) -> u32 {
        self.in_memory.or(self.secret).expect("a plan uses no password that it does not have")
    }

    fn work(&self) -> [bool; 2] {
        self.stored.map(|stored| stored.is_some() && stored == self.secret)
    }
}
