//! Rotations in the simulated world: every crash point, and whichever command comes next.

use std::time::Duration;

use crate::app::{App, Slot};
use crate::error::Result;
use crate::mark::Progress;
use crate::postgres::clients::Client;
use crate::postgres::facts::Expiry;
use crate::postgres::marks::Bearer;
use crate::provision::credential;
use crate::provision::drop_plan::plan_drop;
use crate::provision::observed::SecretFacts;
use crate::provision::plan::Plan;
use crate::provision::rotation::{RotateOptions, plan_rotate};
use crate::provision::simulation::{APP, FINE, World};
use crate::provision::step::Step;
use crate::provision::takers::Takers;
use crate::secrets::{Delivery, Workload, WorkloadKind};

fn options(grace: u64) -> RotateOptions {
    RotateOptions { grace: Duration::from_secs(grace), now: false, restart: false }
}

fn leaked() -> RotateOptions {
    RotateOptions { now: true, ..RotateOptions::default() }
}

fn plan(world: &World, options: &RotateOptions) -> Result<Plan> {
    plan_rotate(&APP.name, options, &world.observed)
}

/// A whole rotation.
fn rotated(world: &World, options: &RotateOptions) -> World {
    let mut world = world.clone();
    loop {
        let plan = plan(&world, options).unwrap_or_else(|error| panic!("{error}\n{world:#?}"));
        world = world.after(&plan.steps);
        if !plan.partial {
            return world;
        }
    }
}

fn slot(world: &World) -> Slot {
    match &world.observed.secret {
        SecretFacts::Held(held) => held.slot.expect("the Secret names a login"),
        other => panic!("{other:?}"),
    }
}

/// The world some time later: what had an end has ended.
fn later(world: &World) -> World {
    let mut world = world.clone();
    for role in world.observed.roles.values_mut() {
        if let Expiry::Future(end) = role.expiry {
            role.expiry = Expiry::Past(end);
        }
    }
    world
}

/// Worlds from which a rotation begins.
fn starts() -> Vec<World> {
    let mut plain = FINE.clone();
    plain.be_plain();
    plain.look_at_passwords();
    let mut all = Vec::new();
    for start in [FINE.clone(), plain] {
        let second = later(&rotated(&start, &options(60)));
        let mut drifted = start.clone();
        drifted.drop_role("my_app_user_2");
        drifted.database().allows_connections = false;
        drifted.look_inside();
        let mut busy = second.clone();
        busy.role("my_app_user").sessions = 2;
        busy.role("my_app_user_2").sessions = 1;
        let closed = rotated(&start, &leaked());
        all.extend([start, second, drifted, busy, closed]);
    }
    all
}

/// What a rotation leaves, whichever way it came about.
fn assert_rotated(start: &World, end: &World, options: &RotateOptions) {
    let old = start.secret_password().unwrap();
    assert!(end.secret_works() && end.plan().is_empty(), "{}\n{end:#?}", end.plan());
    assert_eq!(end.recorded().unwrap().rotation, None);
    assert_ne!(end.secret_password(), Some(old), "the password is another one");
    let other = &end.observed.roles[APP.login(slot(end).other()).as_str()];
    if options.now {
        assert!(!other.shape.login && !other.has_password && other.sessions == 0, "{other:?}");
        assert!(end.admits(old).is_empty(), "the old password opens nothing");
    } else {
        assert!(options.grace.is_zero() != other.admits() && other.expiry != Expiry::Never, "{other:?}");
    }
}

#[test]
fn a_rotation_killed_anywhere_is_finished_by_the_next() {
    let mut crashes = 0;
    for (number, start) in starts().iter().enumerate() {
        for options in [options(60), options(0), leaked()] {
            let end = rotated(start, &options);
            assert_rotated(start, &end, &options);
            let mut crashed = start.clone();
            loop {
                let plan = plan(&crashed, &options).unwrap();
                for crash in 0..plan.steps.len() {
                    let killed = crashed.after(&plan.steps[..crash]);
                    crashes += 1;
                    assert!(
                        killed.secret_works() || !start.secret_works(),
                        "start {number}, {crash} steps: {killed:#?}"
                    );
                    assert_rotated(start, &rotated(&killed, &options), &options);
                    let again = self::plan(&killed, &options).unwrap();
                    for second in 0..again.steps.len() {
                        let twice = killed.after(&again.steps[..second]);
                        assert!(twice.secret_works() || !start.secret_works());
                        assert_rotated(start, &rotated(&twice, &options), &options);
                    }
                }
                crashed = crashed.after(&plan.steps);
                if !plan.partial {
                    break;
                }
            }
        }
    }
    assert!(crashes > 200, "{crashes}");
}

#[test]
fn a_create_ends_a_rotation_that_was_killed() {
    for start in starts() {
        let old = start.secret_password();
        for options in [options(60), leaked()] {
            let first = plan(&start, &options).unwrap();
            for crash in 0..=first.steps.len() {
                let killed = start.after(&first.steps[..crash]);
                let open = killed.secret_password() == old && killed.recorded().unwrap().rotation.is_some();
                let told = killed.plan().notices.iter().any(|notice| notice.contains("because of a leak"));
                assert_eq!(told, open && options.now, "{crash} steps: a leak that is not ended is told");
                let end = killed.after(&killed.steps_to_the_end());
                assert!(end.plan().is_empty() && end.secret_works(), "{crash} steps:\n{}\n{end:#?}", end.plan());
                assert_eq!(end.recorded().unwrap().rotation, None);
                assert_eq!(end.secret_password(), killed.secret_password(), "a create makes no new password");
                let begun = killed.recorded().unwrap().rotation.is_some();
                let published = killed.secret_password() != old;
                let other = &end.observed.roles[APP.login(slot(&end).other()).as_str()];
                match (begun, published) {
                    (true, true) if !options.now => assert!(matches!(other.expiry, Expiry::Future(_)), "{other:?}"),
                    (true, _) => assert!(!other.shape.login && !other.has_password, "{crash} steps: {other:?}"),
                    (false, _) => {}
                }
                // What was begun in vain does not stand in the way.
                if !published {
                    assert_rotated(&start, &rotated(&end, &options), &options);
                }
            }
        }
    }
}

#[test]
fn the_other_login_has_to_be_over() {
    let mut once = rotated(&FINE, &options(3600));
    let refused = plan(&once, &options(3600)).unwrap_err();
    assert_eq!(refused.code(), "login_in_use");
    assert!(
        refused.to_string().contains("my_app_user, the other login of app my-app, still works, until"),
        "{refused}"
    );
    assert!(refused.to_string().contains("a job may come back"), "{refused}");
    once.observed.clients = vec![Client {
        login: "my_app_user".to_owned(),
        application: "orders gen=1".to_owned(),
        generation: Some(1),
        address: Some("10.0.0.7".to_owned()),
        sessions: 3,
        since: None,
    }];
    let refused = plan(&once, &options(3600)).unwrap_err();
    assert!(refused.to_string().ends_with("sessions with it: 3 × orders gen=1 from 10.0.0.7"), "{refused}");
    assert_rotated(&once, &rotated(&once, &leaked()), &leaked());
    let mut over = later(&once);
    over.observed.clients.clone_from(&once.observed.clients);
    let notices = plan(&over, &options(0)).unwrap().notices;
    assert!(notices.iter().any(|notice| notice.contains("leave it 7: 3 × orders gen=1")), "{notices:?}");
    over.observed.clients[0].sessions = 10;
    assert_eq!(plan(&over, &options(0)).unwrap_err().code(), "login_full");
    assert!(plan(&over, &leaked()).is_ok());
    assert_rotated(&once, &rotated(&later(&once), &options(0)), &options(0));
    // A password that somebody has set by hand has no end.
    let mut endless = later(&once);
    endless.role("my_app_user").expiry = Expiry::Never;
    let refused = plan(&endless, &options(3600)).unwrap_err();
    assert!(refused.to_string().contains("has no end"), "{refused}");
    assert!(refused.hint().unwrap().contains("VALID UNTIL"), "{refused:?}");
}

/// A leak that becomes known while a rotation is half done: the password that was published just now may be the one.
#[test]
fn a_leak_makes_a_new_password_whatever_was_half_done() {
    let steps = plan(&FINE, &options(3600)).unwrap().steps;
    let published = steps.iter().position(|step| matches!(step, Step::PublishSecret { .. })).unwrap();
    let killed = FINE.after(&steps[..=published]);
    let end = rotated(&killed, &leaked());
    assert_rotated(&killed, &end, &leaked());
    assert!(end.admits(FINE.secret_password().unwrap()).is_empty());
    // The other way round: whoever goes on need not know of the leak.
    let steps = plan(&FINE, &leaked()).unwrap().steps;
    for crash in 1..steps.len() {
        assert_rotated(&FINE, &rotated(&FINE.after(&steps[..crash]), &options(3600)), &leaked());
    }
}

#[test]
fn an_end_that_has_been_set_is_not_put_off() {
    let steps = plan(&FINE, &options(0)).unwrap().steps;
    let set = steps.iter().position(|step| matches!(step, Step::SetExpiry { .. })).unwrap();
    let killed = FINE.after(&steps[..=set]);
    for end in [rotated(&killed, &options(3600)), killed.after(&killed.steps_to_the_end())] {
        assert!(!end.observed.roles["my_app_user"].admits() && end.recorded().unwrap().rotation.is_none());
    }
}

#[test]
fn only_those_are_restarted_that_would_stay_behind() {
    let of = |kind, name: &str, delivery| Workload::new(kind, name, delivery);
    let mut reloaded = of(WorkloadKind::Deployment, "reloaded", Delivery::Environment);
    reloaded.reloaded = true;
    let mut world = FINE.clone();
    world.observed.takers = Takers::Known(vec![
        of(WorkloadKind::Deployment, "variables", Delivery::Environment),
        of(WorkloadKind::StatefulSet, "file", Delivery::SubPath),
        of(WorkloadKind::Deployment, "files", Delivery::Mounted),
        of(WorkloadKind::CronJob, "job", Delivery::Environment),
        reloaded,
    ]);
    let mut with = options(60);
    with.restart = true;
    let restarts = |steps: &[Step]| -> Vec<String> {
        steps.iter().filter(|step| matches!(step, Step::Restart { .. })).map(ToString::to_string).collect()
    };
    let steps = plan(&world, &with).unwrap().steps;
    assert_eq!(restarts(&steps), ["deployment/variables: restarted", "statefulset/file: restarted"]);
    assert!(restarts(&plan(&world, &options(60)).unwrap().steps).is_empty());
    // Whoever was not restarted yet is by the run that goes on.
    let first = steps.iter().position(|step| matches!(step, Step::Restart { .. })).unwrap();
    let killed = world.after(&steps[..=first]);
    assert_eq!(restarts(&plan(&killed, &with).unwrap().steps).len(), 2);
    world.observed.takers = Takers::Unknown;
    assert_eq!(plan(&world, &with).unwrap_err().code(), "restart_unsupported");
}

/// A plain admin goes by the record.
#[test]
fn the_second_login_is_free_until_it_has_had_its_turn() {
    let mut app = APP.clone();
    let mut world = FINE.clone();
    world.be_plain();
    world.role("my_app_user_2").has_password = true;
    let known = |app: &App, slot| credential::may_be_known(app, slot, &world.observed);
    assert_eq!((known(&app, Slot::One), known(&app, Slot::Two)), (true, false));
    app.generation = 2;
    assert!(known(&app, Slot::Two), "it has had its turn");
}

#[test]
fn what_cannot_be_rotated_says_what_to_do() {
    let code = |world: &World| plan(world, &options(60)).unwrap_err();
    assert_eq!(code(&World::empty()).code(), "app_not_found");
    let mut lost = FINE.clone();
    lost.observed.secret = SecretFacts::Absent;
    assert_eq!(code(&lost).code(), "secret_unsound");
    assert_eq!(code(&lost).hint(), Some("put it right first, then run this again: shareddb create my-app -e local"));
    let mut dropping = FINE.clone();
    dropping.mark(Bearer::Role, "my_app_db", &APP.mark().while_in(Progress::Dropping));
    assert_eq!(code(&dropping).code(), "drop_unfinished");
    let long = RotateOptions { grace: Duration::from_secs(400 * 86_400), now: false, restart: false };
    assert_eq!(plan(&FINE, &long).unwrap_err().code(), "grace_invalid");
}

/// A drop that is called off leaves what a rotation has begun to the create that calls it off.
#[test]
fn a_drop_in_between_forgets_no_rotation() {
    let steps = plan(&FINE, &options(3600)).unwrap().steps;
    for crash in 0..steps.len() {
        let killed = FINE.after(&steps[..crash]);
        let begun = killed.recorded().unwrap().rotation;
        let drop = plan_drop(&APP.name, &killed.observed).unwrap().steps;
        let data = drop.iter().position(|step| matches!(step, Step::DeleteSecret { .. })).unwrap();
        let called_off = killed.after(&drop[..data]);
        assert_eq!(called_off.recorded().unwrap().rotation, begun);
        let end = called_off.after(&called_off.steps_to_the_end());
        assert!(end.plan().is_empty() && end.secret_works(), "{crash} steps\n{end:#?}");
    }
}
