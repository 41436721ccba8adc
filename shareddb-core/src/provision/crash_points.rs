//! The planner against a simulated world: every state of its factors, every crash point.
//!
//! A crash is any prefix of a plan's steps; with or without the effect of the last one are two neighbouring prefixes. That
//! is stricter than reality, where the steps of a transaction stand or fall together.

use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::Timestamp;

use crate::app::{AppSpec, Slot};
use crate::credentials::Issue;
use crate::mark::Progress;
use crate::postgres::facts::{Access, DatabaseFacts, Expiry, InsideFacts, Membership, RoleFacts, RoleShape};
use crate::postgres::marks::Bearer;
use crate::postgres::statements::MAINTENANCE_GROUP;
use crate::provision::drop_plan::plan_drop;
use crate::provision::gap::Closer;
use crate::provision::observed::{HeldSecret, SecretFacts};
use crate::provision::plan::plan;
use crate::provision::simulation::{ADMIN, APP, FINE, SPEC, World, granted};
use crate::provision::step::Step;

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

/// Whoever made a grant by hand. The plain admin's superuser has this name, too.
const BY_OTHERS: &str = ADMIN;

const SECRETS: usize = 5;
const USES: usize = 6;
const REST: usize = 7;

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
            owner.groups.insert("pg_read_all_data".into(), granted(BY_OTHERS, Membership::PLAIN));
            owner.members.insert("stranger".into(), granted(BY_OTHERS, Membership::PLAIN));
        },
        |world| {
            world.mark(Bearer::Role, "my_app_db", &APP.mark().while_in(Progress::Dropping));
        },
        |world| world.mark(Bearer::Role, "my_app_db", &APP.mark().while_in(Progress::Creating)),
        |world| world.mark(Bearer::Role, "my_app_db", &APP.mark().while_in(Progress::Changing)),
    ]
}

fn firsts(fine: Disturb) -> Vec<Disturb> {
    vec![
        fine,
        |world| world.drop_role("my_app_user"),
        |world| {
            let login = world.role("my_app_user");
            login.shape = RoleShape { createrole: true, login: false, ..RoleShape::CLOSED };
            login.members.insert("stranger".into(), granted(BY_OTHERS, Membership::PLAIN));
        },
        |world| {
            world.role("my_app_user").groups.clear();
            if let Some(owner) = world.observed.roles.get_mut("my_app_db") {
                owner.members.remove("my_app_user");
            }
        },
        |world| {
            let grants = world.role("my_app_user").groups.values().next().cloned().unwrap_or_default();
            let wrong = grants.into_keys().map(|grantor| (grantor, Membership { admin: true, usable: false }));
            let login = world.role("my_app_user");
            login.groups.insert("my_app_db".into(), wrong.collect());
            login.groups.insert("pg_monitor".into(), granted(BY_OTHERS, Membership::PLAIN));
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
            world.observed.database = Some(DatabaseFacts::fresh(&world.admin(), 14));
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
            let access = Access { database: "template1".into(), role: "my_app_user".into(), grantor: ADMIN.into() };
            world.observed.abroad.access.insert(access);
            world.observed.abroad.sessions = true;
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
        World::be_foreign,
        World::be_plain,
        |world| {
            world.be_foreign();
            world.be_plain();
            world.inside.schemas.insert("public".into(), "my_app_user".into());
            world.inside.strays.insert("my_app_user".into());
            world.observed.abroad.sessions = true;
            world.role("my_app_user_2").settable = false;
            let maintenance = world.role("my_app_maint");
            maintenance.shape.bypassrls = true;
            maintenance.groups.remove(MAINTENANCE_GROUP);
            world.observed.server.powers.maintenance = false;
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
                *secret = HeldSecret {
                    slot: None,
                    complete: true,
                    current: false,
                    works: [false, true],
                    issue: Issue::default(),
                };
            });
        },
    ]
}

fn uses(fine: Disturb) -> Vec<Disturb> {
    fn sessions(world: &mut World, counts: [u32; 2]) {
        for (name, count) in ["my_app_user", "my_app_user_2"].into_iter().zip(counts) {
            if let Some(login) = world.observed.roles.get_mut(name) {
                login.sessions = count;
                login.expiry = if count == 0 { Expiry::Past(Timestamp::UNIX_EPOCH) } else { login.expiry };
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
    world.number_passwords();
    world.look_at_passwords();
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
    let steps = start.steps_to_the_end();
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
        let again = crashed.steps_to_the_end();
        assert_eq!(crashed.after(&again), reference, "the next run converges, from\n{start:#?}");
        let twice = crashed.after(&again[..random(again.len() + 1)]);
        check(&twice);
        assert_eq!(twice.after(&twice.steps_to_the_end()), reference, "after two crashes, too, from\n{start:#?}");
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
                    let refusal = plan(&SPEC, &start.observed).err().map(|error| error.code());
                    assert_eq!(refusal, expected_refusal(&start), "{start:#?}");
                    match refusal {
                        None => crashes.fetch_add(crash_everywhere(&start, &mut random), Ordering::Relaxed),
                        Some(_) => refused.fetch_add(1, Ordering::Relaxed),
                    };
                }
            });
        }
    });
    println!("{count} states, {} refused, {} crash points", refused.into_inner(), crashes.into_inner());
}

/// What has lost its record is not taken up again, and what has lost its data is not replaced by something empty.
fn expected_refusal(world: &World) -> Option<&'static str> {
    let owner = world.observed.marks.on(Bearer::Role, "my_app_db");
    let marked = world.observed.marks.on(Bearer::Database, "my_app_db");
    let database = world.observed.database.as_ref();
    let Some(record) = owner.or(marked) else {
        let taken = database.is_some() || APP.roles().any(|role| world.observed.roles.contains_key(role.as_str()));
        return taken.then_some("name_taken");
    };
    let Some(facts) = database.filter(|facts| !facts.invalid) else {
        return match record.progress {
            Some(Progress::Creating) => out_of_reach(world).then_some("out_of_reach"),
            Some(Progress::Dropping) => Some("drop_unfinished"),
            _ => Some("database_lost"),
        };
    };
    // A create that was killed leaves one that nobody can enter.
    let left_behind = !facts.allows_connections && facts.owner == world.admin();
    if marked.is_none() && !left_behind {
        return Some("mark_lost");
    }
    out_of_reach(world).then_some("out_of_reach")
}

/// What a superuser has to put right first.
fn out_of_reach(world: &World) -> bool {
    let superuser = |role: &RoleFacts| role.shape.superuser;
    let observed = &world.observed;
    !observed.server.superuser
        && (observed.roles.values().any(superuser)
            || observed.database.as_ref().is_some_and(|facts| facts.owner != observed.server.admin))
}

#[test]
fn a_new_app_from_every_crash_point() {
    let (mut foreign, mut plain) = (World::empty(), World::empty());
    foreign.be_foreign();
    plain.be_plain();
    for start in [World::empty(), foreign, plain] {
        let crashes = crash_everywhere(&start, &mut random());
        assert!(crashes > 20, "{crashes}");
    }
}

#[test]
fn a_drop_killed_anywhere_is_finished_by_the_next() {
    drop_everywhere(&FINE, &World::empty());
    let (mut plain, mut gone) = (FINE.clone(), World::empty());
    plain.be_plain();
    gone.be_plain();
    drop_everywhere(&plain, &gone);
    let (mut restored, mut gone) = (FINE.clone(), World::empty());
    let other = ("shareddb_k_2".to_owned(), "other".parse().unwrap());
    restored.observed.marks.copies = vec![("shareddb_k_1".to_owned(), "my-app".parse().unwrap()), other.clone()];
    gone.observed.marks.copies.push(other);
    drop_everywhere(&restored, &gone);
}

fn drop_everywhere(start: &World, gone: &World) {
    let name = "my-app".parse().unwrap();
    let steps = plan_drop(&name, &start.observed).unwrap().steps;
    let end = start.after(&steps);
    assert_eq!(&end, gone);
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
        let back = crashed.after(&crashed.steps_to_the_end());
        assert!(back.plan().is_empty() && back.secret_works(), "after {crash} steps");
    }
    let gone = start.after(&steps[..=data]);
    assert_eq!(plan(&SPEC, &gone.observed).unwrap_err().code(), "drop_unfinished");
}

#[test]
fn on_a_server_of_somebody_elses_nothing_is_taken_unasked() {
    let closes = |step: &Step| matches!(step, Step::CloseToPublic { .. });
    let told = |world: &World, spec: &AppSpec| {
        let plan = plan(spec, &world.observed).unwrap();
        let closers = plan.gaps.iter().filter(|gap| gap.server).map(|gap| gap.closer).collect::<Vec<_>>();
        (plan.steps.iter().filter(|step| closes(step)).count(), closers)
    };
    let mut secure = SPEC.clone();
    secure.secure_server = true;
    let mut foreign = World::empty();
    foreign.be_foreign();
    // postgres and template1, and a database of others, which nobody of ours closes.
    assert_eq!(told(&foreign, &SPEC), (0, vec![Closer::Consent, Closer::Consent, Closer::Superuser]));
    assert_eq!(told(&foreign, &secure), (2, vec![Closer::Superuser]));
    foreign.be_plain();
    assert_eq!(told(&foreign, &secure), (0, vec![Closer::Superuser; 3]));
    foreign.observed.server.powers.owned.insert("template1".to_owned());
    assert_eq!(told(&foreign, &secure).0, 1);
}

#[test]
fn every_disturbance_is_drift() {
    for (factor, disturbances) in factors().into_iter().chain([rest()]).enumerate() {
        for (variant, disturb) in disturbances.iter().enumerate().skip(1) {
            let mut world = FINE.clone();
            disturb(&mut world);
            let world = consistent(world);
            // The Secret may name either login, and the other one's password may end. What is open on somebody else's server
            // and what an admin must not do is told, and is no drift.
            let harmless = matches!((factor, variant), (SECRETS, 6) | (USES, 1 | 3) | (REST, 4 | 5));
            match plan(&SPEC, &world.observed) {
                Ok(plan) => assert_eq!(plan.is_empty(), harmless, "factor {factor}, variant {variant}:\n{plan}"),
                Err(error) => assert_eq!(Some(error.code()), expected_refusal(&world)),
            }
        }
    }
}
