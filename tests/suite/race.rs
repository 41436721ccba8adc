//! Several at once: one of them does the work, and nobody is in the way for longer than that.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use shareddb_core::{AppName, AppSpec, Error, Event, Outcome, Provisioner, Report, Result, Step};
use shareddb_tests::TestServer;
use shareddb_tests::command::run;
use shareddb_tests::server::{password, unique};
use shareddb_tests::watch::{Gate, Watch, eventually};

/// Runs all of these at once, each as a task of its own.
async fn at_once<T: Send + 'static>(
    runs: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let tasks: Vec<_> = runs.into_iter().map(tokio::spawn).collect();
    join_all(tasks).await.into_iter().map(|result| result.expect("no panic")).collect()
}

fn create(provisioner: &Provisioner, spec: &AppSpec) -> impl Future<Output = Result<Report>> + use<> {
    let (provisioner, spec) = (provisioner.clone(), spec.clone());
    async move { provisioner.create(&spec).await }
}

fn drop_app(provisioner: &Provisioner, name: &AppName) -> impl Future<Output = Result<Report>> + use<> {
    let (provisioner, name) = (provisioner.clone(), name.clone());
    async move { provisioner.drop(&name, name.as_str()).await }
}

fn count(reports: &[Report], outcome: Outcome) -> usize {
    reports.iter().filter(|report| report.outcome == outcome).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_several_creates_of_one_new_app_one_makes_it() {
    let server = TestServer::start().await;
    let provisioner = server.provisioner().await;
    for crowd in [2, 8, 2, 8] {
        let name = unique("crowd");
        let spec = AppSpec::new(name.clone());
        let results = at_once((0..crowd).map(|_| create(&provisioner, &spec))).await;
        let reports: Vec<Report> = results.into_iter().map(|result| result.unwrap()).collect();
        assert_eq!((count(&reports, Outcome::Created), count(&reports, Outcome::Unchanged)), (1, crowd - 1));

        let watch = Watch::over(&server, reports[0].app.clone());
        watch.assert_closed_to_public("after the crowd").await;
        watch.assert_works("after the crowd").await;
        let databases = format!("SELECT count(*) FROM pg_database WHERE datname LIKE '{}%'", watch.app().schema);
        assert_eq!(server.value("postgres", &databases).await, "1");
        assert_eq!(provisioner.create(&spec).await.unwrap().outcome, Outcome::Unchanged);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_workers_on_five_apps_come_to_what_one_comes_to() {
    let server = TestServer::start().await;
    let provisioner = server.provisioner().await;
    let names: Vec<AppName> = (0..5).map(|_| unique("many")).collect();
    for name in &names {
        provisioner.create(&AppSpec::new(name.clone())).await.unwrap();
    }
    let sequential = server.catalog().await;
    let results = at_once(names.iter().map(|name| drop_app(&provisioner, name))).await;
    for result in results {
        assert_eq!(result.unwrap().outcome, Outcome::Dropped);
    }

    let names = Arc::new(names);
    let workers = (0..8).map(|worker| {
        let (provisioner, names) = (provisioner.clone(), Arc::clone(&names));
        async move {
            let mut reports = Vec::new();
            // Each in an order of its own.
            for number in 0..names.len() {
                let spec = AppSpec::new(names[(number * (1 + worker % 4) + worker) % names.len()].clone());
                reports.push(provisioner.create(&spec).await.unwrap_or_else(|error| panic!("{error}: {error:?}")));
            }
            reports
        }
    });
    let reports: Vec<Report> = at_once(workers).await.into_iter().flatten().collect();
    assert_eq!((count(&reports, Outcome::Created), count(&reports, Outcome::Unchanged)), (5, 35));
    assert_eq!(server.catalog().await, sequential);
    for name in names.iter() {
        let app = reports.iter().find(|report| report.app.name == *name).unwrap().app.clone();
        Watch::over(&server, app).assert_works(name.as_str()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn apps_come_and_go_at_once_without_meeting() {
    let server = TestServer::start().await;
    let provisioner = server.provisioner().await;
    let empty = server.catalog().await;
    // The walls of the server stay.
    provisioner.create(&AppSpec::new("first".parse().unwrap())).await.unwrap();
    provisioner.drop(&"first".parse().unwrap(), "first").await.unwrap();
    let walled = server.catalog().await;
    assert_ne!(empty, walled);
    let workers = (0..8).map(|_| {
        let (provisioner, name) = (provisioner.clone(), unique("mayfly"));
        async move {
            for _ in 0..3 {
                let spec = AppSpec::new(name.clone());
                let report = provisioner.create(&spec).await.unwrap_or_else(|error| panic!("{error}: {error:?}"));
                assert_eq!(report.outcome, Outcome::Created);
                let report = provisioner.drop(&name, name.as_str()).await;
                assert_eq!(report.unwrap_or_else(|error| panic!("{error}: {error:?}")).outcome, Outcome::Dropped);
            }
        }
    });
    at_once(workers).await;
    assert_eq!(server.catalog().await, walled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn create_and_drop_at_once_leave_nothing_half_done() {
    let server = TestServer::start().await;
    let provisioner = server.provisioner().await;
    let name = unique("both");
    let spec = AppSpec::new(name.clone());
    let app = provisioner.create(&spec).await.unwrap().app;
    let (watch, reference) = (Watch::over(&server, app), server.catalog().await);
    let mut seen = [0; 2];
    for round in 0..12 {
        let when = format!("round {round}");
        // Every other round begins without the app; who comes first changes, too.
        if round % 2 == 0 {
            provisioner.drop(&name, name.as_str()).await.unwrap();
        }
        let (created, dropped) = if round % 4 < 2 {
            let (drop, create) =
                (tokio::spawn(drop_app(&provisioner, &name)), tokio::spawn(create(&provisioner, &spec)));
            (create.await.unwrap(), drop.await.unwrap())
        } else {
            let (create, drop) =
                (tokio::spawn(create(&provisioner, &spec)), tokio::spawn(drop_app(&provisioner, &name)));
            (create.await.unwrap(), drop.await.unwrap())
        };
        let created = created.unwrap_or_else(|error| panic!("{when}: {error}")).outcome;
        assert!([Outcome::Created, Outcome::Unchanged].contains(&created), "{when}: {created:?}");
        match dropped {
            Ok(report) => assert_eq!(report.outcome, Outcome::Dropped, "{when}"),
            Err(error) => assert_eq!(error.code(), "app_not_found", "{when}: {error}"),
        }
        watch.assert_safe(&when).await;
        let there = watch.secret().await.is_some();
        seen[usize::from(there)] += 1;
        watch.settle().await;
        let after = provisioner.create(&spec).await.unwrap_or_else(|error| panic!("{when}: {error}")).outcome;
        assert_eq!(after, if there { Outcome::Unchanged } else { Outcome::Created }, "{when}");
        assert_eq!(server.catalog().await, reference, "{when}");
        watch.assert_works(&when).await;
    }
    println!("create and drop at once: {seen:?} times gone, there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_apps_that_want_one_user_name_one_gets_it() {
    let server = TestServer::start().await;
    let provisioner = server.provisioner().await;
    for round in 0..4 {
        let specs = [unique("name"), unique("name")].map(|name| {
            let mut spec = AppSpec::new(name);
            spec.user = Some(format!("wanted_{round}").parse().unwrap());
            spec
        });
        let results = at_once(specs.iter().map(|spec| create(&provisioner, spec))).await;
        let (winner, error) = winner_and_error(results);
        assert!(matches!(error, Error::Conflict(_)), "{error:?}");
        assert_eq!(error.code(), "name_taken", "{error}");
        let loser = specs.iter().find(|spec| spec.name != winner.app.name).unwrap();
        assert_eq!(provisioner.app(&loser.name).await.unwrap_err().code(), "app_not_found");
        Watch::over(&server, winner.app).assert_works("the winner").await;
    }
}

fn winner_and_error(results: Vec<Result<Report>>) -> (Report, Error) {
    let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 1), "{lost:?}");
    let report = won.into_iter().next().unwrap().unwrap();
    assert_eq!(report.outcome, Outcome::Created);
    (report, lost.into_iter().next().unwrap().unwrap_err())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_apps_that_do_not_both_fit_one_gets_in() {
    let server = TestServer::start().await;
    let provisioner = server.provisioner().await;
    let budget = provisioner.status(None).await.unwrap().server.budget;
    // Each needs 14: one fits, and two would be one too many.
    let mut filler = AppSpec::new(unique("filler"));
    filler.connections = Some(u16::try_from(budget.capacity - budget.promised - 27 - 4).unwrap());
    filler.allow_overcommit = true;
    provisioner.create(&filler).await.unwrap();
    for _ in 0..4 {
        let specs = [unique("budget"), unique("budget")].map(AppSpec::new);
        let results = at_once(specs.iter().map(|spec| create(&provisioner, spec))).await;
        let (winner, error) = winner_and_error(results);
        assert!(matches!(error, Error::Refused(_)), "{error:?}");
        assert_eq!(error.code(), "budget_exceeded", "{error}");
        let name = winner.app.name.clone();
        Watch::over(&server, winner.app).assert_works("the winner").await;
        provisioner.drop(&name, name.as_str()).await.unwrap();
    }
}

/// "shdb", the first half of every key; the second half zero is the lock over what all apps share.
const SHARED_LOCK: &str = "SELECT pg_advisory_lock(1936221282, 0)";

#[tokio::test]
async fn whoever_holds_the_lock_for_too_long_is_named() {
    let server = TestServer::start().await;
    let provisioner = server.provisioner().await.with_lock_patience(Duration::from_millis(300));
    let someone = server.admin().with_application_name("someone").connect().await.unwrap();
    someone.simple_query(SHARED_LOCK).await.unwrap();
    let (name, begun) = (unique("locked"), Instant::now());
    let errors = [
        provisioner.create(&AppSpec::new(name.clone())).await.unwrap_err(),
        provisioner.drop(&name, name.as_str()).await.unwrap_err(),
    ];
    assert!(begun.elapsed() > Duration::from_millis(600));
    for error in errors {
        assert!(matches!(error, Error::Timeout(_)) && error.is_retryable(), "{error:?}");
        assert_eq!(error.code(), "lock_timeout");
        assert!(error.to_string().contains("someone (process "), "{error}");
    }
    drop(someone);
    let patient = server.provisioner().await;
    assert_eq!(patient.create(&AppSpec::new(name)).await.unwrap().outcome, Outcome::Created);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn only_the_run_on_the_same_app_is_waited_for() {
    let server = TestServer::start().await;
    let provisioner = server.provisioner().await;
    let (slow, other) = (AppSpec::new(unique("slow")), AppSpec::new(unique("other")));
    let (gate, listener) = Gate::at(|event| matches!(event, Event::Begun(Step::Prove { .. })));
    let running = tokio::spawn(create(&provisioner.clone().on_event(listener), &slow));
    gate.wait();
    let hasty = provisioner.clone().with_lock_patience(Duration::from_millis(300));
    assert_eq!(hasty.create(&other).await.unwrap().outcome, Outcome::Created);

    // A third run, on another app, has nothing to do with it and is not named.
    let bystander = server.admin().with_application_name("bystander").connect().await.unwrap();
    bystander.simple_query("SELECT pg_advisory_lock(1936221282, 77)").await.unwrap();
    let error = hasty.create(&slow).await.unwrap_err();
    assert_eq!(error.code(), "lock_timeout");
    let named = format!("shareddb {} (process ", std::process::id());
    assert!(error.to_string().contains(&named), "{error}");
    assert!(!error.to_string().contains("bystander"), "{error}");
    gate.open();
    assert_eq!(running.await.unwrap().unwrap().outcome, Outcome::Created);
    assert_eq!(hasty.create(&slow).await.unwrap().outcome, Outcome::Unchanged);
}

#[tokio::test]
async fn a_run_that_has_returned_holds_no_lock() {
    let server = TestServer::start().await;
    server.provisioner().await.create(&AppSpec::new(unique("free"))).await.unwrap();
    // This runtime has one thread, which does nothing but wait for psql: nothing is left to be done in the background.
    let admin = server.admin();
    let mut psql = Command::new(server.endpoint().binaries.program("psql"));
    psql.env_clear().env("PGPASSWORD", password(&admin));
    psql.args(["-XAtc", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'", "-h", admin.host()]);
    psql.args(["-p", &admin.port().to_string(), "-U", admin.user(), admin.database()]);
    assert_eq!(run(&mut psql).expect_code(0).stdout.trim(), "0");
}

#[tokio::test]
async fn a_run_that_is_given_up_lets_the_next_one_go_on() {
    let server = TestServer::start().await;
    let provisioner = server.provisioner().await;
    let spec = AppSpec::new(unique("given-up"));
    let app = provisioner.create(&spec).await.unwrap().app;
    let (watch, reference) = (Watch::over(&server, app), server.catalog().await);
    for polls in 1.. {
        provisioner.drop(&spec.name, spec.name.as_str()).await.unwrap();
        let when = format!("given up after {polls} polls");
        let done = poll(provisioner.create(&spec), polls).await;
        // The session ends when its task comes to it, and takes the lock along.
        let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
        eventually("the lock is free", async || server.value("postgres", locks).await == "0").await;
        watch.assert_safe(&when).await;
        watch.settle().await;
        provisioner.create(&spec).await.unwrap_or_else(|error| panic!("{when}: {error}"));
        assert_eq!(server.catalog().await, reference, "{when}");
        watch.assert_works(&when).await;
        if done {
            println!("given up: {} points", polls - 1);
            break;
        }
    }
}

/// Polls a future so many times at most, and drops it. Whether it came to its end.
async fn poll<T>(future: impl Future<Output = Result<T>>, mut times: usize) -> bool {
    let mut future = Box::pin(future);
    std::future::poll_fn(|context| {
        if times == 0 {
            return std::task::Poll::Ready(false);
        }
        times -= 1;
        future.as_mut().poll(context).map(|result| result.map(drop).is_ok())
    })
    .await
}
