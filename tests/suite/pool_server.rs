//! The server goes, comes back, fills up or changes sides under a pool.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use shareddb_core::{ConnectionConfig, Error, Pool, PoolOptions, PoolState, PooledClient, Session};
use shareddb_tests::proxy::{Loss, Proxy};
use shareddb_tests::server::unique;
use shareddb_tests::watch::{back, eventually};
use shareddb_tests::{Callers, TestServer};

async fn ask(pool: &Pool) -> Result<i32, Error> {
    Ok(pool.get().await?.query_one("SELECT pg_backend_pid()", &[]).await?.get(0))
}

/// As many connections as the pool has, idle.
async fn fill(pool: &Pool) {
    let all = join_all((0..pool.snapshot().size).map(|_| pool.get())).await;
    assert!(all.iter().all(Result::is_ok));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ends_and_comes_back_is_used_again() {
    let server = TestServer::start().await;
    let config = server.app(&unique("restart")).await;
    // Both together have fewer than the login may: how many that are is told elsewhere.
    let options = PoolOptions { size: 4, ..PoolOptions::default() };
    let [busy, idle] = [options.clone(), options].map(|options| Pool::with_options(config.clone(), options).unwrap());
    fill(&idle).await;
    let callers = Callers::of(&busy, 16);
    callers.go_on().await;
    assert_eq!(callers.take().failures, BTreeMap::new());

    for ends in ["it is restarted", "it crashes"] {
        if ends == "it is restarted" {
            server.local().stop().await.unwrap();
            let down = async || matches!(busy.snapshot().state, PoolState::DatabaseDown { .. });
            eventually("it is noticed", down).await;
            assert!(!busy.snapshot().is_ready());
            server.environment().deploy().await.unwrap();
        } else {
            let position = server.log_position();
            let pid = rustix::process::Pid::from_raw(ask(&busy).await.unwrap()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            // Until the server has seen it, it lets the admin in as ever.
            eventually("it is seen", async || server.log_since(position).contains("terminated by signal 9")).await;
            back(&server).await;
        }
        eventually("the pool has noticed", async || busy.snapshot().state == PoolState::Ready).await;
        callers.go_on().await;
        let failures = callers.take().failures;
        println!("{ends}: {failures:?}");
        const TOLD: [&str; 3] =
            ["query: connection_lost", "checkout: server_unreachable", "checkout: server_not_ready"];
        assert!(failures.keys().all(|told| TOLD.contains(&told.as_str())), "{ends}: {failures:?}");
        // One for each connection that there was, at most; the rest are connects while nobody listened.
        assert!(failures.get(TOLD[0]).is_none_or(|lost| *lost <= 4), "{ends}: {failures:?}");

        callers.go_on().await;
        assert_eq!(callers.take().failures, BTreeMap::new(), "{ends}, and was there again");
        // Those that lay idle all the while are found out before anybody gets one.
        let calls = join_all((0..4).map(|_| ask(&idle))).await;
        assert!(calls.iter().all(Result::is_ok), "{ends}: {calls:?}");
    }
    callers.end().await;
}

#[tokio::test]
async fn what_a_look_finds_dead_nobody_gets() {
    let server = TestServer::shared().await;
    let config = server.app(&unique("dead")).await;
    let proxy = Proxy::to(config.port()).await;
    let pool = Pool::with_options(config.with_port(proxy.port()), PoolOptions::default()).unwrap();
    fill(&pool).await;
    // The moment after which an idle connection is looked at.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    // As after a firewall has forgotten it: the connection seems to be open, and ends with the first byte that is sent.
    proxy.arm(0, Loss::Request);
    ask(&pool).await.unwrap();
    assert!(proxy.disarm(), "it was not looked at");
}

#[tokio::test]
async fn a_server_that_takes_no_writes_any_more_is_left_by_all() {
    let server = TestServer::start().await;
    let pool = Pool::with_options(server.app(&unique("side")).await, PoolOptions::default()).unwrap();
    let (one, other) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    let text = async |client: &PooledClient, sql| -> String { client.query_one(sql, &[]).await.unwrap().get(0) };
    let pid = "SELECT pg_backend_pid()::text";
    let before = [text(&one, pid).await, text(&other, pid).await];
    // Sessions that are open become what those of a server are that has turned into a standby.
    server.sql("postgres", "ALTER SYSTEM SET default_transaction_read_only = on").await;
    server.sql("postgres", "SELECT pg_reload_conf()").await;
    for client in [&one, &other] {
        eventually("it takes no writes", async || text(client, "SHOW transaction_read_only").await == "on").await;
    }
    let error = one.execute("CREATE TABLE t (n int)", &[]).await.unwrap_err();
    assert_eq!((error.code(), error.sqlstate()), ("server_read_only", Some("25006")));
    drop((one, other));
    let (one, other) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    let after = [text(&one, pid).await, text(&other, pid).await];
    assert!(after.iter().all(|pid| !before.contains(pid)), "{before:?} {after:?}");
}

#[tokio::test]
async fn sessions_that_were_never_to_write_stay() {
    let server = TestServer::shared().await;
    let config = server.app(&unique("reads")).await.with_option("default_transaction_read_only", "on");
    let pool = Pool::new(config).unwrap();
    for loss in ["a backend is ended", "somebody tries to write"] {
        // Each keeps a connection for a while of its own, so that there is always one that has not been looked at.
        let caller = |number: u64| {
            let pool = &pool;
            async move {
                let mut seen = BTreeSet::new();
                for _ in 0..25 {
                    let client = pool.get().await.unwrap();
                    let pid = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap();
                    seen.insert(pid.get::<_, i32>(0));
                    tokio::time::sleep(Duration::from_millis(10 + 10 * number)).await;
                }
                seen
            }
        };
        let lose = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let client = pool.get().await.unwrap();
            if loss == "a backend is ended" {
                let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
                server.sql("postgres", &format!("SELECT pg_terminate_backend({pid})")).await;
                eventually("it is noticed", async || client.query("SELECT 1", &[]).await.is_err()).await;
            } else {
                let error = client.execute("CREATE TABLE t (n int)", &[]).await.unwrap_err();
                assert_eq!(error.code(), "server_read_only");
            }
        };
        let (seen, ()) = tokio::join!(join_all((1..=3).map(caller)), lose);
        let backends = seen.into_iter().flatten().collect::<BTreeSet<_>>().len();
        assert!(backends <= 5, "{loss}, and 75 calls went over {backends} sessions");
    }
}

#[tokio::test]
async fn sessions_that_take_no_writes_are_left_once_new_ones_do() {
    let server = TestServer::shared().await;
    let config = server.app(&unique("turns")).await;
    let set = |word| format!("ALTER ROLE {} {word}", config.user());
    server.sql("postgres", &set("SET default_transaction_read_only = on")).await;
    let pool = Pool::new(config.clone()).unwrap();
    let clients = join_all((0..3).map(|_| pool.get())).await.into_iter().map(Result::unwrap).collect::<Vec<_>>();
    // As when the name of a server leads to another one.
    server.sql("postgres", &set("RESET default_transaction_read_only")).await;
    let error = clients[0].execute("CREATE TABLE t (n int)", &[]).await.unwrap_err();
    assert_eq!(error.code(), "server_read_only");
    let fourth = pool.get().await.unwrap();
    drop(clients);
    let all = join_all((0..3).map(|_| pool.get())).await.into_iter().map(Result::unwrap);
    for client in all.chain([fourth]) {
        client.execute("CREATE TEMP TABLE t (n int)", &[]).await.unwrap();
    }
}

#[tokio::test]
async fn a_pool_that_was_too_large_fits_once_the_server_is_larger() {
    let server = TestServer::start().await;
    let resize = async |slots: u32| {
        server.sql("postgres", &format!("ALTER SYSTEM SET max_connections = {slots}")).await;
        server.local().stop().await.unwrap();
        server.environment().deploy().await.unwrap();
    };
    resize(30).await;
    let config = server.app(&unique("grows")).await;
    let pool = Pool::with_options(config, PoolOptions { size: 60, ..PoolOptions::default() }).unwrap();
    for _ in 0..2 {
        assert_eq!(pool.get().await.unwrap_err().code(), "pool_too_large");
    }
    assert!(!pool.snapshot().is_ready(), "{}", pool.snapshot());
    resize(100).await;
    ask(&pool).await.unwrap();
    assert!(pool.snapshot().is_ready(), "{}", pool.snapshot());
}

/// Takes every slot that a server has for ordinary roles.
async fn take_all(config: &ConnectionConfig) -> Vec<Session> {
    let mut sessions = Vec::new();
    loop {
        match config.connect().await {
            Ok(session) => sessions.push(session),
            Err(error) => {
                assert_eq!(error.code(), "server_full", "{error:?}");
                return sessions;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_others_fill_is_waited_for_and_not_hammered() {
    let server = TestServer::start().await;
    server.sql("postgres", "ALTER SYSTEM SET max_connections = 30").await;
    server.local().stop().await.unwrap();
    server.environment().deploy().await.unwrap();
    let (config, others) = (server.app(&unique("full")).await, server.app(&unique("others")).await);
    server.sql("postgres", &format!("ALTER ROLE {} CONNECTION LIMIT -1", others.user())).await;
    server.sql("postgres", &format!("ALTER DATABASE {} CONNECTION LIMIT -1", others.database())).await;
    let options = PoolOptions { wait: Duration::from_secs(1), ..PoolOptions::default() };
    let pool = Pool::with_options(config, options).unwrap();
    let first = pool.get().await.unwrap();
    let taken = take_all(&others).await;

    let position = server.log_position();
    let started = Instant::now();
    let errors = join_all((0..16).map(|_| pool.get())).await;
    let took = started.elapsed();
    let error = errors.into_iter().find_map(Result::err).unwrap();
    assert_eq!((error.code(), error.sqlstate()), ("server_full", Some("53300")), "{error:?}");
    let text = error.to_string();
    assert!(text.starts_with("cannot get a connection of the pool: ") && text.contains("connection slots"), "{text}");
    assert!(error.hint().unwrap().contains("max_connections"), "{error:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert!(matches!(pool.snapshot().state, PoolState::ServerFull { .. }), "{}", pool.snapshot());
    let refused = server.log_since(position).matches("FATAL:  remaining connection slots").count();
    println!("{refused} logins by 16 callers in {took:?}");
    // Unchecked, each of them tries again as soon as the server has said no.
    assert!((1..=40).contains(&refused), "{refused} logins in {took:?}");
    // What is open goes on serving.
    drop(first);
    ask(&pool).await.unwrap();

    let waiting = join_all((0..4).map(|_| async { pool.get().await }));
    let leaving = async {
        eventually("somebody waits", async || pool.snapshot().waiting > 0 || pool.snapshot().in_use > 0).await;
        join_all(taken.into_iter().map(Session::close)).await;
    };
    let (served, ()) = tokio::join!(waiting, leaving);
    let served: Vec<_> = served.into_iter().map(|client| client.map(|_| ())).collect();
    assert!(served.iter().all(Result::is_ok), "{served:?}");
    eventually("the pool is well", async || pool.snapshot().state == PoolState::Ready).await;
}
