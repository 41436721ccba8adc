//! Killed at any moment, the next run comes to the same end.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use secrecy::SecretString;
use shareddb_core::{
    App, AppName, AppSpec, Error, Event, Outcome, Provisioner, Report, SecretStore as _, SecretVersion, Step,
};
use shareddb_tests::TestServer;
use shareddb_tests::command::{mortal, outlives};
use shareddb_tests::watch::{Gate, Watch, back};

fn app_name() -> AppName {
    "crash".parse().unwrap()
}

async fn drop_app(provisioner: &Provisioner) {
    let name = app_name();
    provisioner.drop(&name, name.as_str()).await.unwrap_or_else(|error| panic!("{error}"));
}

/// `create` comes to the state of an undisturbed one, and then finds nothing to do.
async fn assert_converges(watch: &Watch<'_>, server: &TestServer, reference: &[String], when: &str) {
    watch.settle().await;
    let provisioner = server.provisioner().await;
    let spec = AppSpec::new(app_name());
    provisioner.create(&spec).await.unwrap_or_else(|error| panic!("{when}: {error}"));
    assert_eq!(server.catalog().await, reference, "{when}");
    watch.assert_closed_to_public(when).await;
    watch.assert_works(when).await;
    assert_eq!(provisioner.create(&spec).await.unwrap().outcome, Outcome::Unchanged, "{when}");
}

#[tokio::test]
async fn a_create_killed_at_any_event_is_finished_by_the_next() {
    let server = TestServer::start().await;
    let (provisioner, name) = (server.provisioner().await, app_name());
    let app = provisioner.create(&AppSpec::new(name.clone())).await.unwrap().app;
    let (watch, reference) = (Watch::over(&server, app), server.catalog().await);
    for event in 0.. {
        drop_app(&provisioner).await;
        // The server as it was before its first app.
        server
            .sql("postgres", "GRANT CONNECT ON DATABASE postgres, template1 TO PUBLIC; DROP ROLE shareddb_maint")
            .await;
        let done = outlives(&mut mortal(server.home()), &name, "create", event);
        let when = format!("create killed at event {event}");
        watch.assert_safe(&when).await;
        assert_converges(&watch, &server, &reference, &when).await;
        if done {
            println!("create: {event} crash points");
            assert!(event > 40, "every step has two events");
            break;
        }
    }
}

#[tokio::test]
async fn a_repair_killed_at_any_event_is_finished_by_the_next() {
    let server = TestServer::start().await;
    let (provisioner, name) = (server.provisioner().await, app_name());
    let app = provisioner.create(&AppSpec::new(name.clone())).await.unwrap().app;
    let mut watch = Watch::over(&server, app);
    // The state of an undisturbed repair is the one to come to.
    watch.damaged = Some(disturb(&server, watch.app()).await);
    provisioner.create(&AppSpec::new(name.clone())).await.unwrap();
    let reference = server.catalog().await;
    for event in 0.. {
        drop_app(&provisioner).await;
        provisioner.create(&AppSpec::new(name.clone())).await.unwrap();
        watch.damaged = Some(disturb(&server, watch.app()).await);
        let done = outlives(&mut mortal(server.home()), &name, "create", event);
        let when = format!("repair killed at event {event}");
        watch.assert_safe(&when).await;
        assert_converges(&watch, &server, &reference, &when).await;
        if done {
            println!("repair: {event} crash points");
            assert!(event > 14, "the repair has many steps");
            break;
        }
    }
}

/// Changes attributes, memberships and settings of the logins, the database's owner and state, and the Secret.
async fn disturb(server: &TestServer, app: &App) -> SecretVersion {
    let ([one, two], database) = (&app.logins, &app.database);
    server
        .sql(
            "postgres",
            &format!(
                "ALTER ROLE {one} NOLOGIN CREATEDB CONNECTION LIMIT 1 VALID UNTIL '2020-01-01'; ALTER ROLE {two} RESET role; \
                 REVOKE {database} FROM {two}; ALTER DATABASE {database} OWNER TO {database}; \
                 ALTER DATABASE {database} SET work_mem = '1GB'"
            ),
        )
        .await;
    let store = server.secrets();
    let stored = store.load(&app.secret).await.unwrap().unwrap();
    let edited = [("DB_PASSWORD".to_owned(), SecretString::from("wrong"))].into();
    store.replace(&app.secret, &app.name, &edited, &stored.version).await.unwrap()
}

#[tokio::test]
async fn a_drop_killed_at_any_event_is_finished_by_the_next() {
    let server = TestServer::start().await;
    let (provisioner, name) = (server.provisioner().await, app_name());
    let neighbour = provisioner.create(&AppSpec::new("neighbour".parse().unwrap())).await.unwrap().app;
    let neighbour = Watch::over(&server, neighbour);
    let empty = server.catalog().await;
    for event in 0.. {
        let app = provisioner.create(&AppSpec::new(name.clone())).await.unwrap().app;
        let watch = Watch::over(&server, app);
        let done = outlives(&mut mortal(server.home()), &name, "drop", event);
        let when = format!("drop killed at event {event}");
        watch.assert_safe(&when).await;
        neighbour.assert_works(&when).await;
        match provisioner.drop(&name, name.as_str()).await {
            Ok(report) => assert_eq!(report.outcome, Outcome::Dropped, "{when}"),
            Err(error) => assert_eq!(error.code(), "app_not_found", "{when}: {error}"),
        }
        assert_eq!(server.catalog().await, empty, "{when}");
        assert_eq!(watch.secret().await, None, "{when}");
        if done {
            println!("drop: {event} crash points");
            assert!(event > 16, "every step has two events");
            break;
        }
    }
    neighbour.assert_works("after all").await;
}

#[tokio::test]
async fn a_killed_drop_is_undone_by_create_while_the_data_are_there() {
    let server = TestServer::start().await;
    let (provisioner, name) = (server.provisioner().await, app_name());
    let spec = AppSpec::new(name.clone());
    let app = provisioner.create(&spec).await.unwrap().app;
    let (watch, reference) = (Watch::over(&server, app), server.catalog().await);
    let valid = format!("SELECT count(*) FROM pg_database WHERE datname = '{}'", watch.app().database);
    let mut counts = [0; 3];
    for event in 0.. {
        server.sql(watch.app().database.as_str(), "CREATE TABLE kept (x int)").await;
        let done = outlives(&mut mortal(server.home()), &name, "drop", event);
        let when = format!("drop killed at event {event}");
        let there = server.value("postgres", &valid).await == "1";
        match provisioner.create(&spec).await {
            Ok(report) if there => {
                assert_ne!(report.outcome, Outcome::Created, "{when}");
                // It panics when the table is gone.
                server.sql(watch.app().database.as_str(), "DROP TABLE kept").await;
                counts[0] += 1;
            }
            Ok(report) => {
                assert_eq!(report.outcome, Outcome::Created, "{when}");
                counts[2] += 1;
            }
            Err(error) => {
                assert_eq!((error.code(), there), ("drop_unfinished", false), "{when}: {error}");
                drop_app(&provisioner).await;
                counts[1] += 1;
            }
        }
        assert_converges(&watch, &server, &reference, &when).await;
        if done {
            println!("drop, then create: {event} crash points (undone, refused, made anew: {counts:?})");
            assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
            break;
        }
    }
}

/// Attempts to hit a moment of milliseconds.
const ATTEMPTS: usize = 30;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_inside_create_database_is_no_harm() {
    let server = TestServer::start().await;
    let (provisioner, name) = (server.provisioner().await, app_name());
    let spec = AppSpec::new(name.clone());
    let app = provisioner.create(&spec).await.unwrap().app;
    let (watch, reference) = (Watch::over(&server, app), server.catalog().await);
    let mut hits = 0;
    for attempt in 0..ATTEMPTS {
        drop_app(&provisioner).await;
        let before = folders(&server);
        let (gate, listener) = Gate::at(|event| matches!(event, Event::Begun(Step::CreateDatabase { .. })));
        let creating = tokio::spawn({
            let (provisioner, spec) = (provisioner.clone().on_event(listener), spec.clone());
            async move { provisioner.create(&spec).await }
        });
        // The new folder has some of its files.
        let half = move |server: &TestServer| {
            folders(server).iter().any(|folder| !before.contains(folder) && entries(folder) > 50)
        };
        let result = killed(&server, &gate, half, creating).await;
        let when = format!("attempt {attempt}");
        let rows = format!("SELECT count(*) FROM pg_database WHERE datname = '{}'", watch.app().database);
        let hit = server.value("postgres", &rows).await == "0";
        if hit {
            let error = result.expect_err("its session is dead");
            assert!(matches!(error, Error::Unavailable(_)) && error.is_retryable(), "{when}: {error:?}");
            hits += 1;
        }
        watch.assert_safe(&when).await;
        provisioner.list().await.unwrap();
        provisioner.status(None).await.unwrap();
        assert_converges(&watch, &server, &reference, &when).await;
        if hits == 2 {
            println!("killed inside CREATE DATABASE: {hits} of {} attempts", attempt + 1);
            return;
        }
    }
    panic!("inside CREATE DATABASE: {hits} hits of {ATTEMPTS}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_inside_drop_database_is_no_harm() {
    let server = TestServer::start().await;
    let (provisioner, name) = (server.provisioner().await, app_name());
    let spec = AppSpec::new(name.clone());
    server.app(&"neighbour".parse().unwrap()).await;
    let empty = server.catalog().await;
    let app = provisioner.create(&spec).await.unwrap().app;
    let (watch, reference) = (Watch::over(&server, app), server.catalog().await);
    let of_database =
        |column: &str| format!("SELECT max({column}) FROM pg_database WHERE datname = '{}'", watch.app().database);
    let mut hits = 0;
    for attempt in 0..ATTEMPTS {
        let oid = server.value("postgres", &of_database("oid")).await;
        let folder = base(&server).join(oid);
        let whole = entries(&folder);
        let (gate, listener) = Gate::at(|event| matches!(event, Event::Begun(Step::DropDatabase { .. })));
        let dropping = tokio::spawn({
            let (provisioner, name) = (provisioner.clone().on_event(listener), name.clone());
            async move { provisioner.drop(&name, name.as_str()).await }
        });
        let result = killed(&server, &gate, move |_| entries(&folder) < whole, dropping).await;
        let when = format!("attempt {attempt}");
        let limit = server.value("postgres", &of_database("datconnlimit")).await;
        if limit == "-2" {
            let error = result.expect_err("its session is dead");
            assert!(matches!(error, Error::Unavailable(_)) && error.is_retryable(), "{when}: {error:?}");
            hits += 1;
            assert_eq!(provisioner.create(&spec).await.unwrap_err().code(), "drop_unfinished", "{when}");
        }
        assert!(provisioner.list().await.unwrap().iter().any(|app| app.app.name.as_str() == "neighbour"));
        provisioner.status(None).await.unwrap();
        match provisioner.drop(&name, name.as_str()).await {
            Ok(report) => assert_eq!(report.outcome, Outcome::Dropped, "{when}"),
            Err(error) => assert_eq!((error.code(), limit.as_str()), ("app_not_found", "NULL"), "{when}: {error}"),
        }
        assert_eq!(server.catalog().await, empty, "{when}");
        assert_converges(&watch, &server, &reference, &when).await;
        if hits == 2 {
            println!("killed inside DROP DATABASE: {hits} of {} attempts", attempt + 1);
            return;
        }
    }
    panic!("inside DROP DATABASE: {hits} hits of {ATTEMPTS}");
}

/// Kills, with SIGKILL, the server process that works for a run waiting at its gate, at the moment when `half` of the
/// work is done; waits until the server is back.
async fn killed(
    server: &TestServer,
    gate: &Gate,
    half: impl Fn(&TestServer) -> bool,
    run: tokio::task::JoinHandle<shareddb_core::Result<Report>>,
) -> shareddb_core::Result<Report> {
    gate.wait();
    let position = server.log_position();
    let worker =
        "SELECT a.pid FROM pg_locks JOIN pg_stat_activity a USING (pid) WHERE locktype = 'advisory' AND granted";
    let pid: i32 = server.value("postgres", worker).await.parse().unwrap();
    gate.open();
    let deadline = Instant::now() + Duration::from_secs(10);
    // No pause: the moment is short.
    tokio::task::block_in_place(|| {
        while !half(server) && !run.is_finished() {
            assert!(Instant::now() < deadline, "the server does not begin");
        }
    });
    // It may have finished, and its process ended, a moment before.
    let killed = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).is_ok();
    let result = run.await.unwrap();
    if killed {
        shareddb_tests::watch::eventually("the server notices", async || {
            server.log_since(position).contains("all server processes terminated; reinitializing")
        })
        .await;
    }
    back(server).await;
    result
}

fn base(server: &TestServer) -> PathBuf {
    server.local().home().data_dir().join("base")
}

fn folders(server: &TestServer) -> Vec<PathBuf> {
    fs::read_dir(base(server)).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// How many files a folder has; none when it is gone.
fn entries(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

/// What the server leaves when it dies in DROP DATABASE, made without a kill.
#[tokio::test]
async fn an_invalid_database_is_made_anew_or_dropped() {
    let server = TestServer::start().await;
    let (provisioner, name) = (server.provisioner().await, app_name());
    let spec = AppSpec::new(name.clone());
    server.app(&"neighbour".parse().unwrap()).await;
    let empty = server.catalog().await;
    let app = provisioner.create(&spec).await.unwrap().app;
    let (watch, reference) = (Watch::over(&server, app), server.catalog().await);
    let invalidate = format!(
        "SET allow_system_table_mods = on; UPDATE pg_database SET datconnlimit = -2 WHERE datname = '{}'",
        watch.app().database
    );

    server.sql("postgres", &invalidate).await;
    let list = provisioner.list().await.unwrap();
    let line = list.iter().find(|line| line.app.name == name).unwrap();
    assert_eq!((line.size, line.dropping), (None, false));
    // Somebody else's DROP DATABASE: the data of an app that was whole are gone, which must not go unnoticed.
    let status = provisioner.status(Some(&name)).await.unwrap();
    assert_eq!(status.apps[0].problem.as_ref().map(|problem| problem.code), Some("database_lost"));
    assert_eq!(provisioner.status(None).await.unwrap().apps.len(), 2);
    assert_eq!(provisioner.create(&spec).await.unwrap_err().code(), "database_lost");

    // One that was never whole has lost nothing.
    let half = watch.app().mark().to_string().replacen('{', "{\"progress\":\"creating\",", 1);
    server.sql("postgres", &format!("COMMENT ON ROLE {} IS '{half}'", watch.app().owner)).await;
    let status = provisioner.status(Some(&name)).await.unwrap();
    assert!(status.apps[0].drift.iter().any(|step| matches!(step, Step::DropDatabase { .. })), "{status:?}");
    assert_eq!(provisioner.create(&spec).await.unwrap().outcome, Outcome::Configured);
    assert_converges(&watch, &server, &reference, "made anew").await;

    server.sql("postgres", &invalidate).await;
    assert_eq!(provisioner.drop(&name, name.as_str()).await.unwrap().outcome, Outcome::Dropped);
    assert_eq!(server.catalog().await, empty);
    assert_eq!(watch.secret().await, None);
}
