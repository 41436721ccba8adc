//! Backups and restores that are cut, hindered or disturbed: nothing is listed that does not restore, and the app's
//! database is old or new, never neither.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use shareddb_core::{
    App, AppName, AppSpec, BackupEvent, BackupManager, BackupOptions, BackupStore, Interrupt, RestoreOptions, Stage,
    Verdict, VerifyOptions,
};
use shareddb_tests::clients::programs;
use shareddb_tests::proxy::{Loss, Proxy};
use shareddb_tests::server::{session, sql, temporary_home, unique, value};
use shareddb_tests::{ForeignServer, TestServer, watch::eventually};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

/// A store in memory.
pub(crate) fn memory() -> BackupStore {
    BackupStore::new(Arc::new(InMemory::new()), "")
}

/// An app with one table of so many rows of a kilobyte that does not compress.
pub(crate) async fn heavy(server: &TestServer, stem: &str, rows: u32) -> App {
    let app = server.made(stem).await;
    let config = server.provisioner().await.connection(&app.name).await.unwrap();
    let fill = format!(
        "CREATE TABLE big AS SELECT i, (SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 30) WHERE i > 0) AS noise \
         FROM generate_series(1, {rows}) i"
    );
    sql(&config, config.database(), &fill).await;
    app
}

/// Does something once, when a backup or restore comes to a stage; the run waits for it.
pub(crate) fn at<F: Future<Output = ()> + Send + 'static>(
    wanted: Stage,
    act: impl Fn() -> F + Send + Sync + 'static,
) -> impl Fn(&AppName, BackupEvent<'_>) + Send + Sync + 'static {
    let times = AtomicUsize::new(0);
    move |_, event| {
        let reached = matches!(event, BackupEvent::Began(stage) if stage == wanted);
        if reached && times.fetch_add(1, Ordering::Relaxed) == 0 {
            block_in_place(|| Handle::current().block_on(act()));
        }
    }
}

/// The maintenance login is closed, no scratch and no login of a load is left, and nothing lies in the store but whole backups.
pub(crate) async fn assert_tidy(server: &TestServer, app: &App, manager: &BackupManager, backups: usize) {
    let shape = format!(
        "SELECT concat_ws(' ', rolcanlogin, rolbypassrls, rolpassword) FROM pg_authid WHERE rolname = '{}'",
        app.maintenance
    );
    assert_eq!(server.value("postgres", &shape).await, "f f");
    let scratches = "SELECT count(*) FROM pg_database WHERE datname LIKE 'shareddb\\_r\\_%'";
    let of_app = format!("{scratches} AND shobj_description(oid, 'pg_database') LIKE '%\"app\":\"{}\"%'", app.name);
    assert_eq!(server.value("postgres", &of_app).await, "0");
    let loads = format!(
        "SELECT count(*) FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member \
         WHERE m.roleid = '{}'::regrole AND r.rolname LIKE 'shareddb\\_r\\_%'",
        app.owner
    );
    assert_eq!(server.value("postgres", &loads).await, "0");
    let inventory = manager.shelf(&app.name).inventory().await.unwrap();
    assert_eq!((inventory.backups.len(), inventory.orphans.len()), (backups, 0), "{inventory:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_whose_session_is_ended_leaves_nothing() {
    let server = TestServer::shared().await;
    let app = heavy(server, "cut", 20_000).await;
    let end = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = '{}' AND query LIKE 'COPY %'",
        app.maintenance
    );
    let manager = BackupManager::new(server.server().await, memory());
    let cutter = end.clone();
    let cut = manager.clone().on_event(move |_, event| {
        if let BackupEvent::Moved { stage: Stage::Dumping, .. } = event {
            block_in_place(|| {
                Handle::current().block_on(async { TestServer::shared().await.sql("postgres", &cutter).await });
            });
        }
    });
    let error = cut.backup(&app.name, &BackupOptions::default()).await.unwrap_err();
    assert_eq!(error.code(), "tool_hindered", "{error}");
    assert_tidy(server, &app, &manager, 0).await;
    let manifest = manager.backup(&app.name, &BackupOptions::default()).await.unwrap();
    assert_eq!(manager.verify(&manifest.id, &VerifyOptions::default()).await.unwrap().verdict, Verdict::Passed);
    assert_tidy(server, &app, &manager, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_leaves_nothing_wherever_it_comes() {
    let server = TestServer::shared().await;
    let app = heavy(server, "stop", 2_000).await;
    let manager = BackupManager::new(server.server().await, memory());
    manager.backup(&app.name, &BackupOptions::default()).await.unwrap();
    for stage in [Stage::Counting, Stage::Dumping] {
        let interrupt = Interrupt::new();
        let raised = interrupt.clone();
        let stopped = manager.clone().with_interrupt(interrupt).on_event(at(stage, move || {
            let raised = raised.clone();
            async move { raised.raise() }
        }));
        let error = stopped.backup(&app.name, &BackupOptions::default()).await.unwrap_err();
        assert_eq!(error.code(), "interrupted", "{stage:?}");
        assert_tidy(server, &app, &manager, 1).await;
    }
    for stage in [Stage::Checking, Stage::Loading, Stage::Comparing] {
        let interrupt = Interrupt::new();
        let raised = interrupt.clone();
        let stopped = manager.clone().with_interrupt(interrupt).on_event(at(stage, move || {
            let raised = raised.clone();
            async move { raised.raise() }
        }));
        let mut options = RestoreOptions::default();
        options.safety_backup = false;
        let error = stopped.restore(&app.name, &options, app.name.as_str()).await.unwrap_err();
        assert_eq!(error.code(), "interrupted", "{stage:?}");
        assert_tidy(server, &app, &manager, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_table_is_waited_for_and_whoever_holds_it_is_named() {
    let server = TestServer::shared().await;
    let app = heavy(server, "locked", 10).await;
    let config = server.provisioner().await.connection(&app.name).await.unwrap();
    let manager = BackupManager::new(server.server().await, memory());
    let holder = config.clone().with_application_name("migration").connect().await.unwrap();
    holder.batch_execute("BEGIN; LOCK TABLE big IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let error = manager.backup(&app.name, &BackupOptions::default()).await.unwrap_err();
    assert_eq!(error.code(), "table_locked");
    assert!(error.to_string().contains("migration (process "), "{error}");
    assert_tidy(server, &app, &manager, 0).await;

    let holder = Arc::new(holder);
    let waiting = manager.clone().on_event(move |_, event| {
        if let BackupEvent::Noticed(_) = event {
            block_in_place(|| Handle::current().block_on(holder.batch_execute("COMMIT"))).unwrap();
        }
    });
    let manifest = waiting.backup(&app.name, &BackupOptions::default()).await.unwrap();
    assert_eq!(manifest.attempts, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_waits_for_the_dump_goes_first() {
    let server = TestServer::shared().await;
    let app = heavy(server, "yield", 250_000).await;
    let config = server.provisioner().await.connection(&app.name).await.unwrap();
    let slow = ThrottleConfig { wait_put_per_call: Duration::from_secs(4), ..ThrottleConfig::default() };
    let store = BackupStore::new(Arc::new(ThrottledStore::new(InMemory::new(), slow)), "");
    let manager = BackupManager::new(server.server().await, store);
    let (migrating, begun) = (config.clone(), AtomicBool::new(false));
    // By then pg_dump has its locks, and whoever wants more waits for its end.
    let yielding = manager.clone().on_event(move |_, event| {
        let dumps = matches!(event, BackupEvent::Moved { stage: Stage::Dumping, .. });
        if dumps && !begun.swap(true, Ordering::Relaxed) {
            let session =
                block_in_place(|| Handle::current().block_on(migrating.connect())).expect("the app is below its limit");
            tokio::spawn(async move {
                session.batch_execute("ALTER TABLE big ADD COLUMN more int DEFAULT random() * 9").await
            });
        }
    });
    let mut options = BackupOptions::default();
    options.yield_after = Duration::from_secs(1);
    let manifest = yielding.backup(&app.name, &options).await.unwrap();
    // One more for each time that the table is still locked.
    assert!(manifest.attempts >= 2, "{}", manifest.attempts);
    let now = session(&config, config.database()).await;
    assert_eq!(value(&now, "SELECT count(more)::text FROM big").await, "250000");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_at_once_one_waits_or_is_told_for_whom() {
    let server = TestServer::shared().await;
    let app = heavy(server, "twice", 1000).await;
    let manager = BackupManager::new(server.server().await, memory());
    let options = BackupOptions::default();
    let (one, two) = tokio::join!(manager.backup(&app.name, &options), manager.backup(&app.name, &options));
    assert_ne!(one.unwrap().id, two.unwrap().id);
    let impatient = manager.clone().with_lock_patience(Duration::from_millis(100));
    let name = app.name.clone();
    let outer = manager.clone().on_event(at(Stage::Dumping, move || {
        let (impatient, name) = (impatient.clone(), name.clone());
        async move {
            let error = impatient.backup(&name, &BackupOptions::default()).await.unwrap_err();
            assert_eq!(error.code(), "lock_timeout");
            assert!(error.to_string().contains("shareddb "), "{error}");
        }
    }));
    outer.backup(&app.name, &options).await.unwrap();
    assert_tidy(server, &app, &manager, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_changes_meanwhile_is_never_taken_for_empty() {
    let server = TestServer::shared().await;
    let app = heavy(server, "rewritten", 50).await;
    let config = server.provisioner().await.connection(&app.name).await.unwrap();
    let manager = BackupManager::new(server.server().await, memory());
    // A table that is in nobody's list yet when the tables are locked, and is emptied before pg_dump comes to it.
    let busy = config.clone();
    let disturbed = manager.clone().on_event(at(Stage::Counting, move || {
        let config = busy.clone();
        async move {
            let session = config.connect().await.unwrap();
            session.batch_execute("CREATE TABLE late AS SELECT 1 AS a").await.unwrap();
        }
    }));
    let manifest = disturbed.backup(&app.name, &BackupOptions::default()).await.unwrap();
    assert!(manifest.tables.iter().all(|table| table.name != "late"), "it was made after the snapshot");
    assert_eq!(manifest.tables.iter().map(|table| table.rows).collect::<Vec<_>>(), [50]);
    assert_eq!(manager.verify(&manifest.id, &VerifyOptions::default()).await.unwrap().verdict, Verdict::Passed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_loses_any_request_or_answer_leaves_old_or_new() {
    let server = TestServer::start().await;
    let app = heavy(&server, "swap", 10).await;
    let config = server.provisioner().await.connection(&app.name).await.unwrap();
    let manager = BackupManager::new(server.server().await, memory());
    manager.backup(&app.name, &BackupOptions::default()).await.unwrap();
    sql(&config, config.database(), "CREATE TABLE mark ()").await;
    manager.restore(&app.name, &RestoreOptions::default(), app.name.as_str()).await.unwrap();
    let proxy = Proxy::to(server.endpoint().port).await;
    let lossy = BackupManager::new(
        server.server_with(server.admin().with_port(proxy.port()), Arc::new(server.secrets())),
        memory(),
    );
    let mut lost = 0;
    for loss in [Loss::Request, Loss::Answer] {
        for number in 0.. {
            proxy.arm(number, loss);
            let done = lossy.undo(&app.name, app.name.as_str()).await;
            let struck = proxy.disarm();
            lost += usize::from(struck);
            // Whatever came of it: the app works, on one or the other.
            let now = config.connect().await.unwrap_or_else(|error| panic!("{number} {loss:?}: {error}"));
            assert_eq!(value(&now, "SELECT count(*)::text FROM big").await, "10", "{number} {loss:?}");
            drop(now);
            if let Err(error) = &done {
                assert!(struck, "{number} {loss:?}: {error}");
                lossy
                    .undo(&app.name, app.name.as_str())
                    .await
                    .unwrap_or_else(|error| panic!("{number} {loss:?}: {error}"));
            }
            let copies = "SELECT count(*)::text FROM pg_database WHERE datname LIKE 'shareddb\\_%'";
            assert_eq!(server.value("postgres", copies).await, "1", "{number} {loss:?}");
            let plan = server.provisioner().await.plan(&AppSpec::new(app.name.clone())).await.unwrap();
            assert!(plan.is_empty(), "{number} {loss:?}: {plan}");
            if !struck {
                assert!(done.is_ok());
                break;
            }
        }
    }
    assert!(lost > 20, "{lost}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_writes_meanwhile_sees_two_errors_at_most() {
    let server = TestServer::shared().await;
    let app = heavy(server, "writer", 1000).await;
    let config = server.provisioner().await.connection(&app.name).await.unwrap();
    sql(&config, config.database(), "CREATE TABLE log (n int)").await;
    let manager = BackupManager::new(server.server().await, memory());
    manager.backup(&app.name, &BackupOptions::default()).await.unwrap();
    let going = Arc::new(AtomicUsize::new(0));
    let (writes, codes) = (Arc::clone(&going), config.clone());
    let writer = tokio::spawn(async move {
        let mut seen = Vec::new();
        let mut after = 0;
        while after < 20 {
            match codes.connect().await {
                Ok(session) => loop {
                    let written = session.execute("INSERT INTO log VALUES (1)", &[]).await;
                    if writes.load(Ordering::Relaxed) == 1 {
                        after += 1;
                    }
                    match written {
                        Ok(_) if after < 20 => {}
                        Ok(_) => break,
                        Err(error) => {
                            seen.push(error.code().map_or("closed".to_owned(), |code| code.code().to_owned()));
                            break;
                        }
                    }
                },
                Err(error) => seen.push(error.sqlstate().unwrap_or(error.code()).to_owned()),
            }
        }
        seen
    });
    let mut options = RestoreOptions::default();
    options.safety_backup = false;
    let report = manager.restore(&app.name, &options, app.name.as_str()).await.unwrap();
    going.store(1, Ordering::Relaxed);
    let seen = writer.await.unwrap();
    assert!(
        seen.len() <= 3 && seen.iter().all(|code| ["57P01", "3D000", "closed"].contains(&code.as_str())),
        "{seen:?}"
    );
    // What was written after the swap is in the new database only.
    let now = session(&config, config.database()).await;
    assert_eq!(value(&now, "SELECT (count(*) >= 20)::text FROM log").await, "true");
    assert!(report.kept.starts_with("shareddb_k_"));
    eventually("the app's sessions have ended", async || {
        server
            .value("postgres", &format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{}'", report.kept))
            .await
            == "0"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_enters_a_scratch() {
    let server = TestServer::shared().await;
    let (app, other) = (heavy(server, "mine", 10).await, server.made("other").await);
    let configs = [
        server.provisioner().await.connection(&app.name).await.unwrap(),
        server.provisioner().await.connection(&other.name).await.unwrap(),
    ];
    let manager = BackupManager::new(server.server().await, memory());
    manager.backup(&app.name, &BackupOptions::default()).await.unwrap();
    let name = app.name.clone();
    let tried = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tried);
    let watched = manager.clone().on_event(at(Stage::Comparing, move || {
        let (configs, name, counted) = (configs.clone(), name.clone(), Arc::clone(&counted));
        async move {
            let server = TestServer::shared().await;
            let scratch = server
                .value("postgres", &format!("SELECT datname FROM pg_database WHERE shobj_description(oid, 'pg_database') LIKE 'shareddb-copy:%\"{name}\"%'"))
                .await;
            for config in configs {
                let error = config.with_database(scratch.clone()).connect().await.unwrap_err();
                assert!(["42501", "28000"].contains(&error.sqlstate().unwrap_or_default()), "{error}");
                counted.fetch_add(1, Ordering::Relaxed);
            }
        }
    }));
    let mut options = RestoreOptions::default();
    options.safety_backup = false;
    watched.restore(&app.name, &options, app.name.as_str()).await.unwrap();
    assert_eq!(tried.load(Ordering::Relaxed), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_somebody_has_edited_restores_nothing() {
    let server = TestServer::shared().await;
    let (app, other) = (heavy(server, "edited", 10).await, server.made("another").await);
    let folder = temporary_home();
    let store = BackupStore::open(&format!("file://{}", folder.display()), []).unwrap();
    let manager = BackupManager::new(server.server().await, store);
    let id = manager.backup(&app.name, &BackupOptions::default()).await.unwrap().id;
    let path = folder.join(format!("local/{}/{id}.manifest.json", app.name));
    let whole = fs::read_to_string(&path).unwrap();
    let manifest = manager.shelf(&app.name).manifest(&id).await.unwrap();
    let size = format!("\"bytes\":{}", manifest.database.bytes);
    let version = format!("\"server\":{{\"version\":\"{}\"", manifest.server.version);
    let collation = format!("\"collate\":\"{}\"", manifest.server.collate);
    let mut options = RestoreOptions::default();
    options.safety_backup = false;
    for (from, to, code) in [
        ("\"rows\":10", "\"rows\":11", "backup_differs"),
        (size.as_str(), "\"bytes\":1125899906842624", "no_space"),
        ("\"apiVersion\":\"shareddb/v1\"", "\"apiVersion\":\"shareddb/v9\"", "manifest_version"),
        (version.as_str(), "\"server\":{\"version\":\"99.1\"", "server_older"),
        (collation.as_str(), "\"collate\":\"xx_XX.UTF-8\"", "locale_missing"),
        ("\"name\":\"big\"", "\"name\":\"bag\"", "backup_differs"),
        ("\"roles\":[]", "\"roles\":[\"nobody_knows_me\"]", "role_missing"),
        (
            "\"extensions\":[]",
            "\"extensions\":[{\"name\":\"not_there\",\"version\":\"1\",\"schema\":\"public\",\"owner\":\"admin\"}]",
            "extension_missing",
        ),
    ] {
        assert_eq!(whole.matches(from).count(), 1, "{from}: {whole}");
        fs::write(&path, whole.replace(from, to)).unwrap();
        let error = manager.restore(&app.name, &options, app.name.as_str()).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.hint().is_some(), "{error}");
        assert_tidy(server, &app, &manager, 1).await;
    }
    fs::write(&path, whole.replace(&format!("\"app\":\"{}\"", app.name), &format!("\"app\":\"{}\"", other.name)))
        .unwrap();
    let error = manager.restore(&app.name, &options, app.name.as_str()).await.unwrap_err();
    assert_eq!(error.code(), "backup_foreign", "{error}");
    fs::write(&path, whole).unwrap();
    manager.restore(&app.name, &options, app.name.as_str()).await.unwrap();
}

/// Where `pg_hba.conf` lets everybody try, rights alone keep them out.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_has_the_right_to_enter_a_scratch() {
    let server = ForeignServer::shared(16).await;
    let provisioner = server.provisioner(server.superuser());
    let (app, other) = (AppSpec::new(unique("mine")), AppSpec::new(unique("other")));
    for spec in [&app, &other] {
        provisioner.create(spec).await.unwrap();
    }
    let configs =
        [provisioner.connection(&app.name).await.unwrap(), provisioner.connection(&other.name).await.unwrap()];
    let manager = BackupManager::new(provisioner.server().clone(), memory()).with_binaries(programs(16));
    manager.backup(&app.name, &BackupOptions::default()).await.unwrap();
    let (name, admin) = (app.name.clone(), server.superuser());
    let tried = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tried);
    let watched = manager.clone().on_event(at(Stage::Comparing, move || {
        let (configs, name, admin, counted) = (configs.clone(), name.clone(), admin.clone(), Arc::clone(&counted));
        async move {
            let scratch = format!(
                "SELECT datname::text FROM pg_database WHERE shobj_description(oid, 'pg_database') LIKE 'shareddb-copy:%\"{name}\"%'"
            );
            let scratch = value(&session(&admin, "postgres").await, &scratch).await;
            for config in configs {
                let error = config.with_database(scratch.clone()).connect().await.unwrap_err();
                assert_eq!(error.sqlstate(), Some("42501"), "{error}");
                counted.fetch_add(1, Ordering::Relaxed);
            }
        }
    }));
    let mut options = RestoreOptions::default();
    options.safety_backup = false;
    watched.restore(&app.name, &options, app.name.as_str()).await.unwrap();
    assert_eq!(tried.load(Ordering::Relaxed), 2);
}
