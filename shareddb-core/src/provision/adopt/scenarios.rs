//! Hand-made apps as values: what speaks against adopting them, and what is decided when nothing does.

use std::collections::BTreeMap;

use crate::adoption::{Adopt, Grant};
use crate::app::AppSpec;
use crate::error::Error;
use crate::mark::Progress;
use crate::names::RoleName;
use crate::postgres::facts::{Access, DatabaseFacts, Expiry, Membership, RoleFacts, RoleShape};
use crate::postgres::legacy::{
    DefaultRight, Elsewhere, EventTrigger, FoundSecret, Inventory, Legacy, LoginFacts, NoInside, Object, ObjectKind,
    ObjectName, Outside, Resident,
};
use crate::postgres::marks::Bearer;
use crate::postgres::version::ServerVersion;
use crate::provision::adopt::Adoption;
use crate::provision::observed::Observed;
use crate::provision::plan::{Plan, plan};
use crate::provision::simulation::{ADMIN, APP, PLAIN_ADMIN, World, granted};
use crate::provision::step::{PasswordSource, Phase, Step};

const LOGIN: &str = "my_app_user";
const OWNER: &str = "my_app_db";
/// Another one than the admin.
const SUPERUSER: &str = "root";

/// The guide's app: a database of the admin's, a login with rights on it, five keys.
fn guide() -> Observed {
    let mut observed = World::empty().observed;
    let shape = RoleShape { login: true, ..RoleShape::CLOSED };
    let login = RoleFacts { shape, expiry: Expiry::Never, has_password: true, ..RoleFacts::empty() };
    observed.roles.insert(LOGIN.into(), login);
    let mut database = DatabaseFacts::fresh(ADMIN, 10);
    (database.allows_connections, database.connection_limit) = (true, -1);
    database.access.insert(LOGIN.into(), ["CONNECT", "CREATE", "TEMPORARY"].map(str::to_owned).into());
    observed.database = Some(database);
    let outside = Outside {
        login: Some(LoginFacts { oid: 16_400, is_admin: false, valid_until: None, md5: false, comment: None }),
        access: vec![grant("", "CONNECT"), grant(LOGIN, "CONNECT"), grant(LOGIN, "CREATE"), grant(ADMIN, "CONNECT")],
        default_path: "\"$user\", public".into(),
        ..Outside::default()
    };
    let inside = Inventory {
        objects: vec![
            object(ObjectKind::Schema, "public", "pg_database_owner"),
            object(ObjectKind::Table, "public.mine", LOGIN),
            object(ObjectKind::Table, "public.theirs", ADMIN),
            object(ObjectKind::View, "public.seen", ADMIN),
            object(ObjectKind::Schema, "archive", ADMIN),
        ],
        schemas: ["public", "archive", "pg_catalog"].map(str::to_owned).into(),
        public: Some(("pg_database_owner".into(), vec![grant("", "USAGE"), grant(LOGIN, "CREATE")])),
        ..Inventory::default()
    };
    let secret = FoundSecret::Found {
        database: Some(OWNER.into()),
        user: Some(LOGIN.into()),
        works: true,
        kept_keys: [].into(),
        copies: [].into(),
        host: None,
        port: None,
    };
    let (database, user) = (OWNER.parse().unwrap(), LOGIN.parse().unwrap());
    observed.legacy = Some(Box::new(Legacy { database, user, outside, secret, inside: Ok(inside) }));
    observed
}

fn grant(to: &str, right: &str) -> Grant {
    Grant { to: to.into(), right: right.into(), grantable: false }
}

fn object(kind: ObjectKind, identity: &str, owner: &str) -> Object {
    Object {
        name: ObjectName { kind, identity: identity.into(), oid: 16_500 },
        schema: "public".into(),
        owner: owner.into(),
        of_admin: [ADMIN, PLAIN_ADMIN, SUPERUSER].contains(&owner),
        in_extension: false,
        follows: false,
        unforced: false,
        definer: false,
        untrusted: false,
        of_trigger: false,
        all_tables: false,
        creatable: true,
    }
}

fn decide(observed: &Observed, consent: impl FnOnce(&mut Adopt)) -> Result<Plan, Error> {
    let mut spec = AppSpec::new("my-app".parse().unwrap());
    let mut adopt = Adopt::default();
    consent(&mut adopt);
    spec.adopt = Some(adopt);
    plan(&spec, observed)
}

fn legacy(observed: &mut Observed) -> &mut Legacy {
    observed.legacy.as_mut().unwrap()
}

fn outside(observed: &mut Observed) -> &mut Outside {
    &mut legacy(observed).outside
}

fn inside(observed: &mut Observed) -> &mut Inventory {
    legacy(observed).inside.as_mut().unwrap()
}

fn login(observed: &mut Observed) -> &mut RoleFacts {
    observed.roles.get_mut(LOGIN).unwrap()
}

fn role(name: &str) -> RoleName {
    RoleName::existing(name).unwrap()
}

type Disturb = fn(&mut Observed);
type Consent = fn(&mut Adopt);

/// What can be found, its word, and the consent that answers it, if any does.
fn rows() -> Vec<(Disturb, &'static str, Option<Consent>)> {
    vec![
        (|o| o.database.as_mut().unwrap().template = true, "database_unfit", None),
        (|o| o.database.as_mut().unwrap().allows_connections = false, "database_unfit", None),
        (
            |o| {
                outside(o).settings.insert("local_preload_libraries".into(), "x".into());
            },
            "database_unfit",
            None,
        ),
        (|o| outside(o).login = None, "login_missing", None),
        (|o| outside(o).login.as_mut().unwrap().is_admin = true, "login_is_admin", None),
        (|o| login(o).shape.superuser = true, "login_privileged", Some(|adopt| adopt.demote = true)),
        (|o| login(o).shape.replication = true, "login_privileged", Some(|adopt| adopt.demote = true)),
        (
            |o| {
                login(o).groups.insert("pg_monitor".into(), granted("", Membership::PLAIN));
            },
            "login_predefined",
            None,
        ),
        (
            |o| {
                login(o).members.insert("person".into(), granted("", Membership::PLAIN));
            },
            "login_memberships",
            Some(|adopt| adopt.keep_memberships = true),
        ),
        (|o| outside(o).elsewhere.push(found("other", "pg_class", true)), "login_shared", None),
        (|o| outside(o).elsewhere.push(found("", "pg_database", true)), "login_shared", None),
        (|o| outside(o).elsewhere.push(found("", "pg_tablespace", true)), "login_tablespaces", None),
        (
            |o| outside(o).elsewhere.push(found("", "pg_database", false)),
            "login_foreign_grants",
            Some(|adopt| adopt.drop_foreign_grants = true),
        ),
        (
            |o| {
                o.roles.insert("my_app_user_2".into(), RoleFacts::empty());
            },
            "name_taken",
            None,
        ),
        (
            |o| {
                outside(o).public_only.insert("person".into());
            },
            "others_lose_connect",
            Some(|adopt| adopt.close_to_others = true),
        ),
        (
            |o| {
                outside(o).public_only.insert("person".into());
            },
            "others_lose_connect",
            Some(|adopt| adopt.allow_connect = [role("person")].into()),
        ),
        (
            |o| inside(o).objects.push(object(ObjectKind::Table, "public.work", "worker")),
            "objects_of_others",
            Some(|adopt| adopt.take_from = [role("worker")].into()),
        ),
        (
            |o| inside(o).policies.push(("public.t".into(), "p".into())),
            "policies_on_names",
            Some(|adopt| adopt.accept_name_change = true),
        ),
        (
            |o| {
                inside(o).schemas.insert(LOGIN.into());
            },
            "schema_of_login",
            Some(|adopt| adopt.end_sessions = true),
        ),
        (|o| inside(o).event_triggers.push(trigger(false)), "event_trigger", None),
        (
            |o| {
                inside(o).subscriptions.insert("feed".into(), true);
            },
            "subscription",
            None,
        ),
        (|o| legacy(o).inside = Err(NoInside::Unreadable), "names_unreadable", None),
        (|o| legacy(o).secret = FoundSecret::Foreign("other".parse().unwrap()), "secret_taken", None),
        (|o| o.server.max_connections = 20, "budget_exceeded", None),
    ]
}

fn found(database: &str, class: &str, owned: bool) -> Elsewhere {
    let (database, class) = (database.into(), class.into());
    Elsewhere { database, class, owned, count: 1, names: vec!["thing".into()] }
}

fn trigger(function_of_superuser: bool) -> EventTrigger {
    EventTrigger {
        name: "watch".into(),
        enabled: true,
        owner: ADMIN.into(),
        function_owner: LOGIN.into(),
        function_of_superuser,
    }
}

#[test]
fn each_finding_has_its_word_and_each_consent_answers_one() {
    let decided = decide(&guide(), |_| {});
    assert!(decided.is_ok(), "{decided:?}");
    for (index, (disturb, code, consent)) in rows().into_iter().enumerate() {
        let mut observed = guide();
        disturb(&mut observed);
        let error = decide(&observed, |_| {}).unwrap_err();
        assert_eq!(error.code(), "adopt_refused", "row {index}");
        let causes = error.causes();
        assert_eq!(causes.len(), 1, "row {index}: {causes:?}");
        assert!(causes[0].starts_with(&format!("[{code}] ")) && causes[0].contains("; cure: "), "{causes:?}");
        if let Some(consent) = consent {
            let decided = decide(&observed, consent);
            assert!(decided.is_ok(), "row {index}: {decided:?}");
        }
    }
}

#[test]
fn all_findings_are_in_one_answer() {
    let mut observed = guide();
    let mut expected = Vec::new();
    for (disturb, code, _) in rows() {
        // Some hide others: without a login, or an inside, there is nothing to find there.
        let hiding = ["login_missing", "login_is_admin", "names_unreadable", "database_unfit"].contains(&code);
        if !hiding && !expected.contains(&code) {
            disturb(&mut observed);
            expected.push(code);
        }
    }
    let causes = decide(&observed, |_| {}).unwrap_err().causes();
    for code in &expected {
        assert!(causes.iter().any(|cause| cause.starts_with(&format!("[{code}]"))), "{code}: {causes:?}");
    }
    assert_eq!(causes.len(), expected.len(), "{causes:#?}");
}

#[test]
fn from_17_on_event_triggers_do_not_fire_for_the_admin() {
    let mut observed = guide();
    inside(&mut observed).event_triggers.push(trigger(false));
    observed.server.version = ServerVersion::new(170_005);
    let plan = decide(&observed, |_| {}).unwrap();
    assert!(matches!(&plan.steps[0], Step::Adopt(Adoption::DisableTrigger { .. })), "{plan}");
}

#[test]
fn the_swap_comes_first_and_whole_and_the_secret_last() {
    let mut observed = guide();
    let access = Access { database: "other".into(), role: LOGIN.into(), grantor: ADMIN.into() };
    observed.abroad.access.insert(access);
    let right = DefaultRight { role: ADMIN.into(), schema: None, objects: "TABLES".into() };
    inside(&mut observed).default_rights.push(right);
    outside(&mut observed).residents.push(Resident { role: "report".into(), owned: 0, enters: true });
    let plan = decide(&observed, |_| {}).unwrap();
    let phases: Vec<Phase> = plan.steps.iter().map(Step::phase).collect();
    let end = phases.iter().position(|phase| *phase != Phase::Swap).unwrap();
    assert!(phases[end..].iter().all(|phase| *phase != Phase::Swap), "{plan}");
    let at = |wanted: &dyn Fn(&Adoption) -> bool| {
        plan.steps.iter().position(|step| matches!(step, Step::Adopt(adoption) if wanted(adoption))).unwrap()
    };
    let rename = at(&|adoption| matches!(adoption, Adoption::RenameLogin { .. }));
    let carry = at(&|adoption| matches!(adoption, Adoption::CarryPassword { .. }));
    let lines: Vec<String> = plan.steps.iter().map(ToString::to_string).collect();
    let line =
        |text: &str| lines.iter().position(|line| line.contains(text)).unwrap_or_else(|| panic!("{text}: {plan}"));
    assert!(line("rights of my_app_user on database/other") < rename, "while it has that name");
    assert!(rename < carry && carry < end);
    assert!(line("schema archive: owned by my_app_db") < end);
    assert!(line("right of report to enter") < end && line("right of report to use schema/public") < end);
    assert!(line("default rights of my_app_db on tables") < end);
    assert_eq!(
        line("my_app_db: recorded as being adopted"),
        lines.iter().rposition(|l| l.contains("recorded")).unwrap()
    );
    assert!(line("table public.theirs") >= end && line("table public.theirs") < line("view public.seen"));
    assert!(!lines.iter().any(|line| line.contains("public.mine")), "what is the login's is not touched");
    assert!(matches!(plan.steps.last(), Some(Step::PublishSecret { replace: true, .. })));
    let app = &plan.app;
    assert_eq!((app.schema.as_str(), app.search_path.len()), ("public", 1));
    assert!(app.is_guest("report") && app.mark().adopted.is_some());
}

#[test]
fn without_a_secret_that_works_the_second_login_is_issued() {
    for secret in [FoundSecret::Absent, stale()] {
        let mut observed = guide();
        legacy(&mut observed).secret = secret;
        let plan = decide(&observed, |_| {}).unwrap();
        let second = plan.app.logins[1].clone();
        let issued = Step::SetPassword { login: second, source: PasswordSource::New };
        assert!(plan.steps.contains(&issued), "{plan}");
        assert!(plan.steps.iter().any(|step| matches!(step, Step::Adopt(Adoption::CarryPassword { .. }))));
    }
}

fn stale() -> FoundSecret {
    FoundSecret::Found {
        database: None,
        user: None,
        works: false,
        kept_keys: [].into(),
        copies: [].into(),
        host: None,
        port: None,
    }
}

#[test]
fn extensions_are_made_by_a_second_look() {
    let mut spec = AppSpec::new("my-app".parse().unwrap());
    spec.adopt = Some(Adopt::default());
    spec.extensions = Some(["pg_trgm".parse().unwrap()].into());
    let plan = plan(&spec, &guide()).unwrap();
    assert!(plan.partial && plan.app.extensions.len() == 1);
    let later = |step: &Step| match step {
        Step::Adopt(Adoption::Together { part }) => matches!(**part, Step::CreateExtension { .. }),
        step => matches!(step, Step::CreateExtension { .. } | Step::Prove { .. } | Step::PublishSecret { .. }),
    };
    assert!(!plan.steps.iter().any(later), "{plan}");
}

#[test]
fn limits_and_settings_are_inherited() {
    let mut observed = guide();
    login(&mut observed).shape.connection_limit = 33;
    login(&mut observed).settings = BTreeMap::from([("work_mem".into(), "2MB".into())]);
    login(&mut observed).sessions = 3;
    outside(&mut observed).settings = BTreeMap::from([
        ("work_mem".into(), "1MB".into()),
        ("timezone".into(), "UTC".into()),
        ("role".into(), "x".into()),
    ]);
    let plan = decide(&observed, |_| {}).unwrap();
    let settings: Vec<String> = plan.app.settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!((plan.app.connections, settings), (33, vec!["timezone=UTC".to_owned(), "work_mem=2MB".to_owned()]));
    let limits = |step: &&Step| step.to_string().contains("database/my_app_db: 37 connections");
    assert!(!plan.steps.iter().any(|step| limits(&step)), "as long as sessions are from before: {plan}");
}

#[test]
fn what_is_recorded_already_is_not_adopted_again() {
    let mut observed = guide();
    let mark = APP.mark();
    let mut world = World::empty();
    world.mark(Bearer::Role, OWNER, &mark.while_in(Progress::Changing));
    observed.marks = world.observed.marks;
    assert_ne!(
        decide(&observed, |_| {}).map(|plan| plan.steps.len()).map_err(|error| error.code()),
        Err("adopt_refused")
    );
}

/// The guide's app, made by an admin who is no superuser and decides now.
fn plain() -> Observed {
    let mut world = World::empty();
    world.observed = guide();
    world.be_plain();
    let mut observed = world.observed;
    for object in &mut inside(&mut observed).objects {
        if object.owner == ADMIN {
            PLAIN_ADMIN.clone_into(&mut object.owner);
        }
    }
    login(&mut observed).administered = true;
    login(&mut observed).settable = false;
    observed
}

#[test]
fn a_plain_admin_takes_over_what_it_made() {
    let plan = decide(&plain(), |_| {}).unwrap();
    let gaps: Vec<String> = plan.gaps.iter().filter(|gap| !gap.server).map(ToString::to_string).collect();
    assert!(gaps.iter().all(|gap| gap.contains("temp_file_limit")), "{gaps:#?}");
    let at = |text: &str| plan.to_string().find(text).unwrap_or_else(|| panic!("{text}: {plan}"));
    assert!(at("role/my_app_db: the admin may act as it") < at("schema archive: owned by my_app_db"));
    assert!(plan.steps.iter().any(|step| matches!(step, Step::Prove { left: None, .. })));
}

#[test]
fn a_plain_admin_leaves_to_a_superuser_what_is_a_superusers() {
    let mut observed = plain();
    let objects = &mut inside(&mut observed).objects;
    objects.push(object(ObjectKind::Schema, "sealed", SUPERUSER));
    objects.push(object(ObjectKind::Table, "public.foreign", SUPERUSER));
    // What is its own and lies where the app may not create yet waits, too.
    objects.push(Object { schema: "sealed".into(), ..object(ObjectKind::Table, "sealed.own", PLAIN_ADMIN) });
    let plan = decide(&observed, |_| {}).unwrap();
    let told: Vec<_> = plan.gaps.iter().filter(|gap| gap.what.contains("not its own")).collect();
    let [gap] = told.as_slice() else { panic!("{told:#?}") };
    assert!(gap.database.is_some() && !gap.server);
    let place = |text: &str| gap.statement.find(text).unwrap_or_else(|| panic!("{text}: {}", gap.statement));
    assert!(place("ALTER SCHEMA sealed") < place("ALTER TABLE sealed.own"), "{}", gap.statement);
    place("ALTER TABLE public.foreign OWNER TO \"my_app_db\"");
    for left in ["sealed", "foreign"] {
        assert!(!plan.to_string().contains(left), "{plan}");
    }
    assert!(plan.steps.iter().any(|step| matches!(step, Step::Prove { left: Some(Progress::Waiting), .. })), "{plan}");
}

#[test]
fn what_a_plain_admin_lacks_is_told_with_its_cure() {
    let rows: [(Disturb, &str); 7] = [
        (|o| login(o).administered = false, "login_out_of_reach"),
        (|o| login(o).shape.superuser = true, "login_out_of_reach"),
        (|o| login(o).shape.bypassrls = true, "login_out_of_reach"),
        (|o| o.database.as_mut().unwrap().owner = SUPERUSER.into(), "database_out_of_reach"),
        (|o| legacy(o).secret = FoundSecret::Absent, "password_unproven"),
        (|o| legacy(o).secret = stale(), "password_unproven"),
        (
            |o| {
                let code = Object { untrusted: true, ..object(ObjectKind::Routine, "public.raw()", LOGIN) };
                inside(o).objects.push(code);
            },
            "objects_out_of_reach",
        ),
    ];
    for (index, (disturb, code)) in rows.into_iter().enumerate() {
        let mut observed = plain();
        disturb(&mut observed);
        let causes = decide(&observed, |adopt| adopt.demote = true).unwrap_err().causes();
        assert_eq!(causes.len(), 1, "row {index}: {causes:?}");
        assert!(causes[0].starts_with(&format!("[{code}] ")) && causes[0].contains("superuser"), "{causes:?}");
    }
    let mut observed = plain();
    observed.server.version = ServerVersion::new(180_001);
    inside(&mut observed).event_triggers.push(trigger(false));
    let causes = decide(&observed, |_| {}).unwrap_err().causes();
    assert!(causes[0].starts_with("[event_trigger]"), "its session cannot do without them: {causes:?}");
}
