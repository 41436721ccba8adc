//! A pool hangs never, leaves nothing behind, and says why it has no connection.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use shareddb_core::{AppSpec, ConnectionConfig, Error, Pool, PoolOptions, PoolState, PooledClient};
use shareddb_tests::TestServer;
use shareddb_tests::server::unique;
use shareddb_tests::watch::eventually;
use tokio::time::{sleep, timeout};

async fn app(stem: &str) -> (&'static TestServer, ConnectionConfig) {
    let server = TestServer::shared().await;
    let config = server.app(&unique(stem)).await;
    (server, config)
}

fn options(size: usize) -> PoolOptions {
    PoolOptions { size, wait: Duration::from_millis(500), ..PoolOptions::default() }
}

async fn text(client: &PooledClient, sql: &str) -> String {
    client.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error}")).get(0)
}

async fn pid(client: &PooledClient) -> i32 {
    client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0)
}

/// Sessions of a login that run something.
async fn active(server: &TestServer, config: &ConnectionConfig) -> String {
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{}' AND state = 'active'", config.user());
    server.value("postgres", &sql).await
}

/// Ends all sessions of a login.
async fn terminate(server: &TestServer, config: &ConnectionConfig) {
    let sql = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{}'", config.user());
    server.sql("postgres", &sql).await;
    let left = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{}'", config.user());
    eventually("they are gone", async || server.value("postgres", &left).await == "0").await;
}

#[tokio::test]
async fn connections_are_used_again_and_named() {
    let (_, config) = app("pool").await;
    let pool = Pool::new(config.clone()).unwrap();
    let first = {
        let client = pool.get().await.unwrap();
        let row = client.query_one("SELECT $1::int4 + 1, current_setting('application_name')", &[&41]).await.unwrap();
        assert_eq!((row.get::<_, i32>(0), row.get::<_, String>(1)), (42, format!("{} gen=+0", config.user())));
        pid(&client).await
    };
    let client = pool.get().await.unwrap();
    assert_eq!(pid(&client).await, first);
    let snapshot = pool.snapshot();
    assert_eq!((snapshot.in_use, snapshot.idle, snapshot.state.clone()), (1, 0, PoolState::Ready), "{snapshot}");
    assert!(snapshot.budget_share.is_some());
    drop(client);
    assert_eq!(pool.snapshot().in_use, 0);
}

#[tokio::test]
async fn an_exhausted_pool_says_who_has_the_connections() {
    let (_, config) = app("pool").await;
    let pool = Pool::with_options(config, options(2)).unwrap();
    let _one = pool.get_for("the report").await.unwrap();
    let _two = pool.get().await.unwrap();
    let started = Instant::now();
    let error = pool.get().await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(matches!(error, Error::Timeout(_)) && error.code() == "pool_exhausted", "{error:?}");
    let text = error.to_string();
    assert!(text.contains("2 of 2 in use") && text.contains("by `the report`"), "{text}");
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { pool.get().await.map(drop) }
    });
    eventually("somebody waits", async || pool.snapshot().state == PoolState::Busy).await;
    drop(_two);
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_abandoned_query_is_cancelled_and_holds_up_nobody() {
    let (server, config) = app("pool").await;
    let pool = Pool::with_options(config.clone(), options(1)).unwrap();
    let client = pool.get().await.unwrap();
    let first = pid(&client).await;
    timeout(Duration::from_millis(100), client.query("SELECT pg_sleep(30)", &[])).await.unwrap_err();
    // The same client goes on …
    let started = Instant::now();
    assert_eq!(text(&client, "SELECT 'next'").await, "next");
    let same = started.elapsed();
    timeout(Duration::from_millis(100), client.query("SELECT pg_sleep(30)", &[])).await.unwrap_err();
    drop(client);
    // … and so does the next one, over the same connection.
    let started = Instant::now();
    let client = pool.get().await.unwrap();
    assert_eq!(text(&client, "SELECT 'next'").await, "next");
    println!("the same client after {same:?}, the next after {:?}", started.elapsed());
    assert_eq!(pid(&client).await, first);
    assert_eq!(active(server, &config).await, "0");
}

#[tokio::test]
async fn a_late_cancel_meets_nobody() {
    let (_, config) = app("pool").await;
    let pool = Pool::with_options(config, options(2)).unwrap();
    for round in 0..200_u64 {
        let client = pool.get().await.unwrap();
        // Cut off at any moment, also before it was sent and after it has ended.
        let _ = timeout(Duration::from_micros(round * 5), client.query("SELECT pg_sleep(0.0005)", &[])).await;
        drop(client);
        let client = pool.get().await.unwrap();
        client.query("SELECT pg_sleep(0.001)", &[]).await.unwrap_or_else(|error| panic!("{round}: {error}"));
    }
}

#[tokio::test]
async fn nobody_gets_a_backend_that_was_terminated() {
    let (server, config) = app("pool").await;
    let pool = Pool::with_options(config.clone(), PoolOptions { size: 8, ..PoolOptions::default() }).unwrap();
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(pool.get().await.unwrap());
    }
    drop(clients);
    // The moment after which an idle connection is looked at.
    sleep(Duration::from_millis(1100)).await;
    terminate(server, &config).await;
    let queries = (0..8).map(|_| async { pool.get().await.unwrap().query("SELECT 1", &[]).await });
    let failures = futures_util::future::join_all(queries).await.into_iter().filter(Result::is_err).count();
    assert_eq!(failures, 0);
}

#[tokio::test]
async fn what_one_leaves_in_a_session_the_next_does_not_find() {
    let (_, config) = app("pool").await;
    let pool = Pool::with_options(config, options(1)).unwrap();
    let client = pool.get().await.unwrap();
    let (first, path) = (pid(&client).await, text(&client, "SHOW search_path").await);
    client.execute("CREATE TABLE kept (n int)", &[]).await.unwrap();
    drop(client);

    let client = pool.get().await.unwrap();
    client.execute("BEGIN", &[]).await.unwrap();
    client.execute("INSERT INTO kept VALUES (1)", &[]).await.unwrap();
    drop(client);
    let client = pool.get().await.unwrap();
    assert_eq!(text(&client, "SELECT count(*)::text FROM kept").await, "0", "the transaction was left open");
    client
        .batch_execute("SET search_path = nowhere; CREATE TEMP TABLE t (); LISTEN x; SELECT pg_advisory_lock(1)")
        .await
        .unwrap();
    drop(client);
    let mut client = pool.get().await.unwrap();
    assert_eq!(text(&client, "SHOW search_path").await, path);
    assert_eq!(
        text(&client, "SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()")
            .await,
        "0"
    );
    client.raw().await.unwrap().batch_execute("SET statement_timeout = 1").await.unwrap();
    drop(client);
    let client = pool.get().await.unwrap();
    assert_eq!(text(&client, "SHOW statement_timeout").await, "0");
    // A reset that gave up the role of the login would have new tables belong to the login.
    client.execute("CREATE TABLE later (n int)", &[]).await.unwrap();
    let owners = "SELECT count(DISTINCT relowner)::text FROM pg_class WHERE relname IN ('kept', 'later')";
    assert_eq!(text(&client, owners).await, "1");
    assert_eq!(pid(&client).await, first, "all of it over one connection");
}

#[tokio::test]
async fn limits_of_the_login_and_of_the_settings_hold_for_every_caller() {
    let server = TestServer::shared().await;
    let mut spec = AppSpec::new(unique("limits"));
    spec.settings = Some(BTreeMap::from([("statement_timeout".parse().unwrap(), "7s".to_owned())]));
    let provisioner = server.provisioner().await;
    provisioner.create(&spec).await.unwrap();
    let config = provisioner.connection(&spec.name).await.unwrap().with_option("lock_timeout", "3s");
    let pool = Pool::with_options(config, options(1)).unwrap();
    for _ in 0..2 {
        let client = pool.get().await.unwrap();
        assert_eq!(text(&client, "SHOW statement_timeout").await, "7s");
        assert_eq!(text(&client, "SHOW lock_timeout").await, "3s");
        client.batch_execute("SET statement_timeout = 0; SET lock_timeout = 0").await.unwrap();
    }
}

#[tokio::test]
async fn prepared_statements_heal_after_a_migration() {
    let (_, config) = app("pool").await;
    let pool = Pool::with_options(config, options(2)).unwrap();
    let (client, other) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    client.batch_execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)").await.unwrap();
    assert_eq!(other.query("SELECT * FROM t", &[]).await.unwrap()[0].len(), 1);
    client.batch_execute("ALTER TABLE t ADD COLUMN b int").await.unwrap();
    assert_eq!(other.query("SELECT * FROM t", &[]).await.unwrap()[0].len(), 2);
    drop((client, other));
    // In a transaction all of it is done again.
    let columns =
        || pool.transaction(|tx| async move { Ok::<_, Error>(tx.query("SELECT * FROM t", &[]).await?[0].len()) });
    assert_eq!(columns().await.unwrap(), 2);
    pool.get().await.unwrap().batch_execute("ALTER TABLE t ADD COLUMN c int").await.unwrap();
    assert_eq!(columns().await.unwrap(), 3);
}

#[tokio::test]
async fn a_frozen_backend_costs_a_second_at_most() {
    let (_, config) = app("pool").await;
    let options = PoolOptions { size: 4, recycle: Duration::from_millis(300), ..PoolOptions::default() };
    let pool = Pool::with_options(config, options).unwrap();
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(pool.get().await.unwrap());
    }
    let mut frozen = Vec::new();
    for client in &clients {
        let backend = rustix::process::Pid::from_raw(pid(client).await).unwrap();
        frozen.push(backend);
    }
    drop(clients);
    sleep(Duration::from_millis(1100)).await;
    for backend in &frozen {
        rustix::process::kill_process(*backend, rustix::process::Signal::STOP).unwrap();
    }
    let started = Instant::now();
    let served = pool.get().await;
    let took = started.elapsed();
    for backend in &frozen {
        rustix::process::kill_process(*backend, rustix::process::Signal::CONT).unwrap();
    }
    println!("served after {took:?}");
    assert_eq!(text(&served.unwrap(), "SELECT 'here'").await, "here");
    // The limit of looking at one, and a login: the other three are not waited for in turn.
    assert!(took < Duration::from_millis(3 * 300), "{took:?}");
}

#[tokio::test]
async fn a_full_role_is_waited_for_and_named() {
    let (server, config) = app("pool").await;
    server.sql("postgres", &format!("ALTER ROLE {} CONNECTION LIMIT 1", config.user())).await;
    let patient = PoolOptions { wait: Duration::from_secs(5), ..options(4) };
    let pool = Pool::with_options(config.clone(), patient).unwrap();
    let client = pool.get().await.unwrap();
    let error = pool.get().await.unwrap_err();
    assert_eq!((error.code(), error.sqlstate()), ("connection_limit_reached", Some("53300")), "{error:?}");
    assert!(error.to_string().contains("too many connections for role"), "{error}");
    assert!(matches!(pool.snapshot().state, PoolState::ServerFull { .. }), "{}", pool.snapshot());
    // Whoever waits gets the one that comes back.
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { pool.get().await.map(drop) }
    });
    eventually("somebody waits", async || pool.snapshot().waiting > 0).await;
    // Also between two tries.
    for _ in 0..20 {
        sleep(Duration::from_millis(5)).await;
        assert_eq!(pool.snapshot().waiting, 1);
    }
    drop(client);
    waiting.await.unwrap().unwrap();
    assert_eq!(pool.snapshot().waiting, 0);
}

/// The same login on a host that no name server knows.
fn elsewhere(config: &ConnectionConfig) -> ConnectionConfig {
    let password = config.password().unwrap().clone();
    ConnectionConfig::new("nowhere.invalid", config.port(), config.database(), config.user()).with_password(password)
}

#[tokio::test]
async fn a_pool_that_cannot_connect_says_so_at_once() {
    let (server, config) = app("pool").await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for (config, code, words) in [
        (
            config.clone().with_password("m4rker-s3cret".into()),
            "credentials_rejected",
            "password authentication failed",
        ),
        (config.clone().with_port(closed), "server_unreachable", "refused"),
        (elsewhere(&config), "server_unreachable", "lookup"),
        (config.clone().with_database("nowhere"), "login_rejected", "pg_hba.conf rejects"),
        (server.admin().with_database("nowhere"), "database_not_found", "does not exist"),
    ] {
        let pool = Pool::new(config).unwrap();
        let started = Instant::now();
        let error = pool.get().await.unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(4), "{error}");
        assert_eq!(error.code(), code, "{error}");
        let text = error.to_string();
        assert!(text.starts_with("cannot get a connection of the pool: ") && text.contains(words), "{text}");
        assert!(!format!("{error:?} {pool:?} {}", pool.snapshot()).contains("m4rker"));
        assert_ne!(pool.snapshot().state, PoolState::Ready);
    }
}

#[tokio::test]
async fn a_pool_larger_than_the_server_is_refused() {
    let server = TestServer::start().await;
    let config = server.app(&unique("pool")).await;
    let pool = Pool::with_options(config, options(500)).unwrap();
    let error = pool.get().await.unwrap_err();
    assert!(matches!(error, Error::Refused(_)) && error.code() == "pool_too_large", "{error:?}");
}

#[tokio::test]
async fn idle_connections_close_and_dead_ones_do_not_stay() {
    let (server, config) = app("pool").await;
    let options = PoolOptions { idle: Duration::from_millis(200), ..options(3) };
    let pool = Pool::with_options(config.clone(), options).unwrap();
    drop((pool.get().await.unwrap(), pool.get().await.unwrap()));
    let open = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{}'", config.user());
    eventually("they close", async || server.value("postgres", &open).await == "0").await;
    assert_eq!(pool.snapshot().idle, 0);
    // A standby takes no writes; whoever finds out gives the connection up.
    let client = pool.get().await.unwrap();
    let first = pid(&client).await;
    client.execute("SET default_transaction_read_only = on", &[]).await.unwrap();
    let error = client.execute("CREATE TABLE t ()", &[]).await.unwrap_err();
    assert_eq!(error.code(), "server_read_only");
    drop(client);
    assert_ne!(pid(&pool.get().await.unwrap()).await, first);
}
