//! What a backup and a restore meet besides faults: writers before a drop, views that are filled anew, superusers' objects.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use shareddb_core::{
    AppSpec, BackupEvent, BackupManager, BackupOptions, BackupStore, DumpFile, Interrupt, RestoreOptions,
    RotateOptions, Stage, Verdict, VerifyOptions,
};
use shareddb_tests::TestServer;
use shareddb_tests::clients::programs;
use shareddb_tests::majors::ForeignServer;
use shareddb_tests::server::{session, spec_of, sql, temporary_home, unique, value};
use shareddb_tests::watch::eventually;

use tokio::time::timeout;

use crate::backup_faults::{assert_tidy, at, heavy, memory};

#[tokio::test(flavor = "multi_thread")]
async fn the_last_backup_has_everything_that_was_acknowledged() {
    let server = TestServer::shared().await;
    let app = heavy(server, "last", 1000).await;
    let config = server.provisioner().await.connection(&app.name).await.unwrap();
    sql(&config, config.database(), "CREATE TABLE log (n int)").await;
    let manager = BackupManager::new(server.server().await, memory());
    let written = Arc::new(AtomicI64::new(0));
    let (counted, writing) = (Arc::clone(&written), config.clone());
    let writer = tokio::spawn(async move {
        let session = writing.connect().await.unwrap();
        while session.execute("INSERT INTO log VALUES (1)", &[]).await.is_ok() {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    eventually("it writes", async || written.load(Ordering::Relaxed) > 10).await;
    let manifest = manager.last_backup(&app.name, &BackupOptions::default()).await.unwrap();
    timeout(Duration::from_secs(30), writer).await.expect("its session has ended").unwrap();
    let log = manifest.tables.iter().find(|table| table.name == "log").unwrap();
    assert_eq!(i64::try_from(log.rows).unwrap(), written.load(Ordering::Relaxed));
    assert_eq!(config.connect().await.unwrap_err().sqlstate(), Some("28000"), "its logins stay closed");
    assert_eq!(server.provisioner().await.create(&spec_of(&app)).await.unwrap().outcome.as_str(), "configured");
    config.connect().await.unwrap();

    let interrupt = Interrupt::new();
    let raised = interrupt.clone();
    let stopped = manager.clone().with_interrupt(interrupt).on_event(at(Stage::Dumping, move || {
        let raised = raised.clone();
        async move { raised.raise() }
    }));
    let error = stopped.last_backup(&app.name, &BackupOptions::default()).await.unwrap_err();
    assert_eq!(error.code(), "interrupted");
    config.connect().await.unwrap();
    assert_tidy(server, &app, &manager, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_backup_that_fails_opens_no_login_that_a_rotation_has_closed() {
    let server = TestServer::shared().await;
    let app = heavy(server, "reopen", 1000).await;
    let provisioner = server.provisioner().await;
    let mut leaked = RotateOptions::default();
    leaked.now = true;
    provisioner.rotate(&app.name, &leaked).await.unwrap();
    let interrupt = Interrupt::new();
    let raised = interrupt.clone();
    let manager = BackupManager::new(server.server().await, memory()).with_interrupt(interrupt);
    let stopped = manager.on_event(at(Stage::Dumping, move || {
        let raised = raised.clone();
        async move { raised.raise() }
    }));
    let error = stopped.last_backup(&app.name, &BackupOptions::default()).await.unwrap_err();
    assert_eq!(error.code(), "interrupted");
    let open = format!(
        "SELECT string_agg(rolname, ' ') FROM pg_roles WHERE rolcanlogin AND rolname IN ('{}', '{}')",
        app.logins[0], app.logins[1]
    );
    assert_eq!(server.value("postgres", &open).await, app.logins[1].as_str());
    provisioner.connection(&app.name).await.unwrap().connect().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_is_filled_anew_meanwhile_voids_no_dump() {
    let server = TestServer::shared().await;
    let app = heavy(server, "view", 10).await;
    let config = server.provisioner().await.connection(&app.name).await.unwrap();
    sql(&config, config.database(), "CREATE MATERIALIZED VIEW sums AS SELECT count(*) FROM big").await;
    let manager = BackupManager::new(server.server().await, memory());
    let busy = config.clone();
    let disturbed = manager.clone().on_event(at(Stage::Counting, move || {
        let config = busy.clone();
        async move { sql(&config, config.database(), "REFRESH MATERIALIZED VIEW sums").await }
    }));
    assert_eq!(disturbed.backup(&app.name, &BackupOptions::default()).await.unwrap().attempts, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_nobody_has_locked_and_that_is_emptied_voids_a_dump() {
    let server = TestServer::shared().await;
    let app = heavy(server, "emptied", 10).await;
    let config = server.provisioner().await.connection(&app.name).await.unwrap();
    let manager = BackupManager::new(server.server().await, memory());
    // While the dump waits for one table, another is made, which is not among those that it locks.
    let holder = config.connect().await.unwrap();
    holder.batch_execute("BEGIN; LOCK TABLE big IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let making = config.clone();
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = '{}' AND wait_event_type = 'Lock'",
        app.maintenance
    );
    let maker = async {
        eventually("the dump waits", async || server.value("postgres", &waiting).await == "1").await;
        sql(&making, making.database(), "CREATE TABLE late AS SELECT 1 AS a").await;
        holder.batch_execute("COMMIT").await.unwrap();
    };
    let emptying = config.clone();
    let disturbed = manager.clone().on_event(at(Stage::Counting, move || {
        let config = emptying.clone();
        async move { sql(&config, config.database(), "TRUNCATE late").await }
    }));
    let options = BackupOptions::default();
    let (manifest, ()) = tokio::join!(disturbed.backup(&app.name, &options), maker);
    let manifest = manifest.unwrap();
    assert_eq!(manifest.attempts, 2, "in the first snapshot it had a row, which was gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_that_cannot_be_proven_loses_nothing() {
    let server = TestServer::shared().await;
    let app = heavy(server, "proof", 10).await;
    let config = server.provisioner().await.connection(&app.name).await.unwrap();
    let manager = BackupManager::new(server.server().await, memory());
    manager.backup(&app.name, &BackupOptions::default()).await.unwrap();
    sql(&config, config.database(), "CREATE TABLE precious AS SELECT 42 AS n").await;
    manager.restore(&app.name, &RestoreOptions::default(), app.name.as_str()).await.unwrap();

    server.sql("postgres", &format!("ALTER ROLE {} PASSWORD 'another'", app.logins[0])).await;
    let error = manager.undo(&app.name, app.name.as_str()).await.unwrap_err();
    assert_eq!(error.code(), "restore_taken_back", "{error}");
    server.provisioner().await.create(&spec_of(&app)).await.unwrap();
    let now = session(&config, config.database()).await;
    assert_eq!(value(&now, "SELECT count(*)::text FROM pg_tables WHERE tablename = 'precious'").await, "0");
    drop(now);
    manager.undo(&app.name, app.name.as_str()).await.unwrap();
    assert_eq!(value(&session(&config, config.database()).await, "SELECT n::text FROM precious").await, "42");

    // The same of a restore: what could not be proven goes, and what was there stays.
    server.sql("postgres", &format!("ALTER ROLE {} PASSWORD 'another'", app.logins[0])).await;
    let mut options = RestoreOptions::default();
    options.safety_backup = false;
    let error = manager.restore(&app.name, &options, app.name.as_str()).await.unwrap_err();
    assert_eq!(error.code(), "restore_taken_back", "{error}");
    server.provisioner().await.create(&spec_of(&app)).await.unwrap();
    assert_eq!(value(&session(&config, config.database()).await, "SELECT n::text FROM precious").await, "42");
    assert_tidy(server, &app, &manager, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_that_has_begun_is_brought_to_its_end() {
    let server = TestServer::shared().await;
    let app = heavy(server, "begun", 10).await;
    let manager = BackupManager::new(server.server().await, memory());
    manager.backup(&app.name, &BackupOptions::default()).await.unwrap();
    let interrupt = Interrupt::new();
    let raised = interrupt.clone();
    let stopped = manager.clone().with_interrupt(interrupt.clone()).on_event(at(Stage::Swapping, move || {
        let raised = raised.clone();
        async move { raised.raise() }
    }));
    let mut options = RestoreOptions::default();
    options.safety_backup = false;
    stopped.restore(&app.name, &options, app.name.as_str()).await.unwrap();
    assert!(interrupt.is_raised());
    assert_tidy(server, &app, &manager, 1).await;
    manager.undo(&app.name, app.name.as_str()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_superuser_has_made_in_the_database_is_named() {
    let server = TestServer::shared().await;
    let app = heavy(server, "super", 10).await;
    server.sql(app.database.as_str(), &format!("CREATE TABLE {}.of_admin (i int)", app.schema)).await;
    let manager = BackupManager::new(server.server().await, memory());
    let error = manager.backup(&app.name, &BackupOptions::default()).await.unwrap_err();
    assert_eq!(error.code(), "objects_of_others", "{error}");
    assert!(error.to_string().contains("of_admin of postgres"), "{error}");
    let owner = format!("ALTER TABLE {}.of_admin OWNER TO {}", app.schema, app.owner);
    server.sql(app.database.as_str(), &owner).await;
    manager.backup(&app.name, &BackupOptions::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_restore_would_leave_out_is_told_by_the_check() {
    let server = TestServer::shared().await;
    let (app, other) = (heavy(server, "parts", 10).await, server.made("reader").await);
    let foreign = format!(
        "CREATE EXTENSION postgres_fdw; CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw; \
         GRANT USAGE ON FOREIGN SERVER elsewhere TO {0}; SET ROLE {0}; \
         CREATE FOREIGN TABLE {1}.far (i int) SERVER elsewhere; CREATE VIEW {1}.near AS SELECT i FROM {1}.far; \
         CREATE TABLE {1}.shown (i int); GRANT SELECT ON {1}.shown TO {2}",
        app.owner, app.schema, other.owner
    );
    server.sql(app.database.as_str(), &foreign).await;
    let manager = BackupManager::new(server.server().await, memory());
    let id = manager.backup(&app.name, &BackupOptions::default()).await.unwrap().id;
    server.provisioner().await.drop(&other.name, other.name.as_str()).await.unwrap();
    let checked = manager.verify(&id, &VerifyOptions::default()).await.unwrap();
    assert_eq!((checked.verdict, checked.findings.len()), (Verdict::Passed, 0), "{checked:?}");
    assert!(checked.server.is_some());
    let told = |what: &str| checked.left_out.iter().any(|left| left.contains(what));
    for what in ["SERVER elsewhere: ", "FOREIGN TABLE", "VIEW", &format!("it grants rights to {}", other.owner)] {
        assert!(told(what), "{what}: {:?}", checked.left_out);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_bad_is_told_from_one_that_could_not_be_looked_at() {
    let server = TestServer::shared().await;
    let app = heavy(server, "bad", 20_000).await;
    let folder = temporary_home();
    let store = BackupStore::open(&format!("file://{}", folder.display()), []).unwrap();
    let manager = BackupManager::new(server.server().await, store);
    let id = manager.backup(&app.name, &BackupOptions::default()).await.unwrap().id;
    let manifest = folder.join(format!("local/{}/{id}.manifest.json", app.name));
    let whole = fs::read(&manifest).unwrap();
    fs::write(&manifest, b"{}").unwrap();
    let checked = manager.verify(&id, &VerifyOptions::default()).await.unwrap();
    assert_eq!(checked.verdict, Verdict::Failed, "{checked:?}");
    fs::write(&manifest, whole).unwrap();

    // Its load is cut by the server.
    let end = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity a JOIN pg_database d ON d.oid = a.datid \
         WHERE a.usename = d.datname AND shobj_description(d.oid, 'pg_database') LIKE '%\"app\":\"{}\"%'",
        app.name
    );
    let is_cut = AtomicBool::new(false);
    let cut = manager.clone().on_event(move |_, event| {
        let loads = matches!(event, BackupEvent::Moved { stage: Stage::Loading, .. });
        if loads && !is_cut.swap(true, Ordering::Relaxed) {
            tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(async {
                    let server = TestServer::shared().await;
                    eventually("it is cut", async || server.value("postgres", &end).await != "0").await;
                });
            });
        }
    });
    let error = cut.verify(&id, &VerifyOptions::default()).await.unwrap_err();
    assert_eq!(error.code(), "tool_hindered", "{error}");
    assert_eq!(manager.verify(&id, &VerifyOptions::default()).await.unwrap().verdict, Verdict::Passed);
}

/// Planning a count looks into indexes, and so into functions that find names by the app's search path only. From 17 on the
/// server lets nobody make such an index any more.
#[tokio::test(flavor = "multi_thread")]
async fn functions_of_any_kind_in_indexes_hinder_no_backup() {
    let server = ForeignServer::shared(16).await;
    let provisioner = server.provisioner(server.superuser());
    let spec = AppSpec::new(unique("unaccented"));
    let app = provisioner.create(&spec).await.unwrap().app;
    let config = provisioner.connection(&app.name).await.unwrap();
    let fill = "CREATE TABLE t (c text); INSERT INTO t VALUES ('a'), ('b');
        CREATE FUNCTION inner_one(x text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT upper(x)';
        CREATE FUNCTION outer_one(x text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT inner_one(x)';
        CREATE INDEX ON t (outer_one(c)); CREATE INDEX ON t ((1)) WHERE outer_one(c) = 'A';
        CREATE STATISTICS s ON outer_one(c), c FROM t;
        ALTER TABLE t ADD EXCLUDE (outer_one(c) WITH =)";
    sql(&config, config.database(), fill).await;
    let manager = BackupManager::new(provisioner.server().clone(), memory()).with_binaries(programs(16));
    let manifest = manager.backup(&app.name, &BackupOptions::default()).await.unwrap();
    let checked = manager.verify(&manifest.id, &VerifyOptions::default()).await.unwrap();
    assert_eq!((checked.verdict, checked.findings), (Verdict::Passed, vec![]));
    let plain = temporary_home().join("plain.sql");
    manager.dump(&app.name, &plain, &BackupOptions::default()).await.unwrap();
    let mut options = RestoreOptions::default();
    options.safety_backup = false;
    let file = DumpFile::open(plain).await.unwrap();
    manager.restore_file(&app.name, &file, &options, app.name.as_str()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_without_a_schema_public_comes_back_without_one() {
    let server = TestServer::shared().await;
    let app = server.made("publicless").await;
    let config = server.provisioner().await.connection(&app.name).await.unwrap();
    sql(&config, config.database(), "DROP SCHEMA public; CREATE TABLE t AS SELECT 1 AS i").await;
    let manager = BackupManager::new(server.server().await, memory());
    let manifest = manager.backup(&app.name, &BackupOptions::default()).await.unwrap();
    let checked = manager.verify(&manifest.id, &VerifyOptions::default()).await.unwrap();
    assert_eq!((checked.verdict, checked.findings), (Verdict::Passed, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_is_dropped_whose_rights_are_in_what_a_restore_has_kept() {
    let server = TestServer::shared().await;
    let (app, guest) = tokio::join!(server.made("host"), server.made("guest"));
    let config = server.provisioner().await.connection(&app.name).await.unwrap();
    sql(&config, config.database(), &format!("CREATE TABLE t (i int); GRANT SELECT ON t TO {}", guest.logins[0])).await;
    let manager = BackupManager::new(server.server().await, memory());
    manager.backup(&app.name, &BackupOptions::default()).await.unwrap();
    let report = manager.restore(&app.name, &RestoreOptions::default(), app.name.as_str()).await.unwrap();
    let dropped = server.provisioner().await.drop(&guest.name, guest.name.as_str()).await.unwrap();
    assert_eq!(dropped.outcome, shareddb_core::Outcome::Dropped);
    let open = format!("SELECT datallowconn::text FROM pg_database WHERE datname = '{}'", report.kept);
    assert_eq!(server.value("postgres", &open).await, "false", "it is closed again");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_restore_has_kept_goes_after_a_week_with_the_next_run() {
    let server = TestServer::shared().await;
    let app = heavy(server, "week", 10).await;
    let manager = BackupManager::new(server.server().await, memory());
    manager.backup(&app.name, &BackupOptions::default()).await.unwrap();
    let kept = manager.restore(&app.name, &RestoreOptions::default(), app.name.as_str()).await.unwrap().kept;
    let there = format!("SELECT count(*) FROM pg_database WHERE datname = '{kept}'");
    for (days, left) in [(6, "1"), (8, "0")] {
        let age = format!(
            "DO $$ BEGIN EXECUTE format('COMMENT ON DATABASE {kept} IS %L', regexp_replace(\
               (SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{kept}'), \
               '\"since\":\"[^\"]*\"', format('\"since\":\"%s\"', to_char(now() AT TIME ZONE 'UTC' - interval '{days} days', \
               'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')))); END $$"
        );
        server.sql("postgres", &age).await;
        manager.backup(&app.name, &BackupOptions::default()).await.unwrap();
        assert_eq!(server.value("postgres", &there).await, left, "{days}");
    }
}
