//! What an app or a dump can do with its rights while it is backed up, proven or restored, and what it cannot.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use shareddb_core::{
    App, BackupManager, BackupOptions, ConnectionConfig, DumpFile, Reason, Recipients, RestoreOptions, Verdict,
    VerifyOptions,
};
use shareddb_tests::TestServer;
use shareddb_tests::server::{rows, session, sql, temporary_home, value};
use tokio::task::JoinHandle;

use crate::backup_faults::memory;

/// Gives the login that it runs by a password that others know, and goes on as if nothing had been.
const TAKE: &str = "DECLARE acting text := current_setting('role'); BEGIN PERFORM set_config('role', 'none', false); \
     EXECUTE format('ALTER ROLE %I PASSWORD %L', session_user, 'pwned'); PERFORM set_config('role', acting, false); RETURN true; \
     EXCEPTION WHEN OTHERS THEN RETURN true; END";

async fn made(server: &TestServer, stem: &str) -> (App, ConnectionConfig) {
    let app = server.made(stem).await;
    let config = server.provisioner().await.connection(&app.name).await.unwrap();
    (app, config)
}

/// Somebody who tries the maintenance login of an app and those of loads with that password, again and again, at the app's own
/// database. Returns how often that let anybody in, and how many logins were tried.
async fn intruder(
    server: &TestServer,
    config: &ConnectionConfig,
    app: &App,
) -> (Arc<AtomicBool>, JoinHandle<[usize; 2]>) {
    let (config, maintenance) = (config.clone().with_password("pwned".to_owned().into()), app.maintenance.to_string());
    let admin = server.session("postgres").await;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let task = tokio::spawn(async move {
        let (mut entered, mut tried) = (0, 0);
        while !stopped.load(Ordering::Relaxed) {
            let loads = rows(&admin, "SELECT rolname FROM pg_roles WHERE rolname LIKE 'shareddb\\_r\\_%'").await;
            for login in loads.into_iter().chain([maintenance.clone()]) {
                tried += usize::from(login != maintenance);
                entered += usize::from(config.clone().with_user(login).connect().await.is_ok());
            }
        }
        [entered, tried]
    });
    (stop, task)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_that_changes_the_password_of_the_login_lets_nobody_in() {
    let server = TestServer::shared().await;
    let (app, config) = made(server, "victim").await;
    sql(&config, config.database(), "CREATE TABLE secret AS SELECT 'secret' AS text").await;
    let path = temporary_home().join("hostile.sql");
    let rows: String = (1..=200).map(|i| format!("{i}\n")).collect();
    let script = format!(
        "--\n-- PostgreSQL database dump\n--\n\nCREATE SCHEMA x;\n\
         CREATE FUNCTION x.g() RETURNS boolean LANGUAGE plpgsql AS $$ {TAKE} $$;\n\
         CREATE TABLE x.t (a integer, CONSTRAINT c CHECK (x.g()));\n\
         INSERT INTO x.t (a) VALUES (1);\nSELECT pg_catalog.pg_sleep(0.5);\n\
         COPY x.t (a) FROM stdin;\n{rows}\\.\n\n--\n-- PostgreSQL database dump complete\n--\n"
    );
    fs::write(&path, script).unwrap();
    let manager = BackupManager::new(server.server().await, memory());
    let (stop, task) = intruder(server, &config, &app).await;
    let file = DumpFile::open(&path).await.unwrap();
    let restored = manager.restore_file(&app.name, &file, &RestoreOptions::default(), app.name.as_str()).await;
    stop.store(true, Ordering::Relaxed);
    let [entered, tried] = task.await.unwrap();
    assert_eq!(entered, 0, "{restored:?}");
    assert!(tried > 0);
    restored.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_changes_the_password_of_the_login_is_proven_all_the_same() {
    let server = TestServer::shared().await;
    let (app, config) = made(server, "taker").await;
    let plant = format!(
        "CREATE FUNCTION take() RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$ {TAKE} $$; \
         CREATE FUNCTION f(i int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM {schema}.take(); RETURN true; END $$; \
         CREATE TABLE t AS SELECT generate_series(1, 1000) AS i; CREATE INDEX ON t (i) WHERE f(1)",
        schema = app.schema
    );
    sql(&config, config.database(), &plant).await;
    let manager = BackupManager::new(server.server().await, memory());
    let (stop, task) = intruder(server, &config, &app).await;
    let id = manager.backup(&app.name, &BackupOptions::default()).await.unwrap().id;
    let checked = manager.verify(&id, &VerifyOptions::default()).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    assert_eq!(task.await.unwrap()[0], 0);
    assert_eq!(checked.verdict, Verdict::Passed, "{:?}", checked.findings);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_name_objects_come_back() {
    let server = TestServer::shared().await;
    let (app, config) = made(server, "naming").await;
    let fill = "CREATE TABLE public.orders (id int PRIMARY KEY); CREATE FUNCTION twice(i int) RETURNS int LANGUAGE sql AS 'SELECT 2 * i'; \
         CREATE TYPE pair AS (what regclass, type regtype); \
         CREATE TABLE audit (tbl regclass, fn regprocedure, cfg regconfig, pair pair, many regclass[]); \
         INSERT INTO audit VALUES ('public.orders', 'twice(int)', 'english', ROW('orders', 'pair'), ARRAY['orders'::regclass, 'audit'])";
    sql(&config, config.database(), fill).await;
    let manager = BackupManager::new(server.server().await, memory());
    let id = manager.backup(&app.name, &BackupOptions::default()).await.unwrap().id;
    let checked = manager.verify(&id, &VerifyOptions::default()).await.unwrap();
    assert_eq!((checked.verdict, checked.findings), (Verdict::Passed, vec![]));
    manager.restore(&app.name, &RestoreOptions::default(), app.name.as_str()).await.unwrap();
    let named = "SELECT concat_ws(' ', tbl, fn, cfg, pair, many) FROM audit";
    let named = value(&session(&config, config.database()).await, named).await;
    assert_eq!(named, "orders twice(integer) english (orders,pair) {orders,audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_no_dump_has_are_no_backup() {
    let server = TestServer::shared().await;
    let (app, config) = made(server, "within").await;
    let fill = "CREATE EXTENSION hstore; CREATE TABLE lost AS SELECT generate_series(1, 99) AS i; \
         CREATE SEQUENCE counted; ALTER EXTENSION hstore ADD TABLE lost; ALTER EXTENSION hstore ADD SEQUENCE counted";
    sql(&config, config.database(), fill).await;
    let manager = BackupManager::new(server.server().await, memory());
    let error = manager.backup(&app.name, &BackupOptions::default()).await.unwrap_err();
    assert_eq!(error.code(), "rows_in_extension", "{error}");
    assert!(error.to_string().contains("99 rows") && error.to_string().contains("lost"), "{error}");
    let hint = error.hint().unwrap().to_owned();
    let cure = hint.split(": ").nth(1).unwrap().split(';').next().unwrap();
    sql(&config, config.database(), cure).await;
    let id = manager.backup(&app.name, &BackupOptions::default()).await.unwrap().id;
    let checked = manager.verify(&id, &VerifyOptions::default()).await.unwrap();
    assert_eq!((checked.verdict, checked.findings), (Verdict::Passed, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_encrypted_is_not_written_in_clear_by_a_restore_or_a_drop() {
    let server = TestServer::shared().await;
    let (app, config) = made(server, "sealed").await;
    sql(&config, config.database(), "CREATE TABLE t AS SELECT 1 AS i").await;
    let path = temporary_home().join("plain.sql");
    let manager = BackupManager::new(server.server().await, memory());
    manager.dump(&app.name, &path, &BackupOptions::default()).await.unwrap();
    let key = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
    let mut options = BackupOptions::default();
    options.recipients = Recipients::keys([key]).unwrap();
    let open = manager.backup(&app.name, &BackupOptions::default()).await.unwrap();
    let sealed = manager.backup(&app.name, &options).await.unwrap();
    assert!(!open.settings.is_empty() && sealed.settings.is_empty(), "values of settings may be secret");
    let file = DumpFile::open(&path).await.unwrap();
    let report = manager.restore_file(&app.name, &file, &RestoreOptions::default(), app.name.as_str()).await.unwrap();
    let safety = report.safety.unwrap();
    assert!(safety.data.encryption.is_some());
    assert_eq!(safety.keep.unwrap().duration_since(safety.taken_at).as_hours(), 7 * 24);
    let last = manager.last_backup(&app.name, &BackupOptions::default()).await.unwrap();
    assert_eq!(last.reason, Reason::BeforeDrop);
    assert!(last.data.encryption.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_loaded_beyond_the_search_path_is_told() {
    let server = TestServer::shared().await;
    let ((first, from), (second, _)) = tokio::join!(made(server, "whence"), made(server, "whither"));
    sql(&from, from.database(), "CREATE TABLE t AS SELECT 1 AS i").await;
    let path = temporary_home().join("other.sql");
    let manager = BackupManager::new(server.server().await, memory());
    manager.dump(&first.name, &path, &BackupOptions::default()).await.unwrap();
    let file = DumpFile::open(&path).await.unwrap();
    let report =
        manager.restore_file(&second.name, &file, &RestoreOptions::default(), second.name.as_str()).await.unwrap();
    let wanted = format!("--search-path {},{},public", first.schema, second.schema);
    assert!(report.remarks.iter().any(|remark| remark.contains(&wanted)), "{:?}", report.remarks);
}
