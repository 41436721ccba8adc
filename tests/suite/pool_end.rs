//! The end of a pool.

use std::time::Duration;

use shareddb_core::{ConnectionConfig, Error, Pool, PoolOptions, PoolState};
use shareddb_tests::mount::Mount;
use shareddb_tests::server::unique;
use shareddb_tests::watch::eventually;
use shareddb_tests::{Distance, TestServer};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};

async fn sessions(server: &TestServer, config: &ConnectionConfig) -> String {
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{}'", config.user());
    server.value("postgres", &sql).await
}

#[tokio::test]
async fn a_pool_that_ends_waits_then_cancels_then_is_gone() {
    let server = TestServer::shared().await;
    let config = server.app(&unique("end")).await;
    let pool = Pool::with_options(config.clone(), PoolOptions::default()).unwrap();
    drop((pool.get().await.unwrap(), pool.get().await.unwrap()));
    let run = |seconds: &'static str| {
        let pool = pool.clone();
        tokio::spawn(async move {
            let client = pool.get().await.unwrap();
            client.query(seconds, &[]).await
        })
    };
    let (quick, slow) = (run("SELECT pg_sleep(0.3)"), run("SELECT pg_sleep(60)"));
    eventually("both run", async || pool.snapshot().in_use == 2).await;
    pool.close(Duration::from_secs(1)).await.unwrap();
    quick.await.unwrap().unwrap();
    assert_eq!(slow.await.unwrap().unwrap_err().code(), "query_cancelled");
    assert_eq!(pool.get().await.unwrap_err().code(), "pool_closed");
    assert_eq!(pool.snapshot().state, PoolState::Closed);
    eventually("all sessions have ended", async || sessions(server, &config).await == "0").await;
    pool.close(Duration::from_secs(1)).await.unwrap();
}

#[tokio::test]
async fn a_pool_tells_who_keeps_it_from_ending() {
    let config = TestServer::shared().await.app(&unique("end")).await;
    let pool = Pool::new(config).unwrap();
    let kept = pool.get_for("the forgetful").await.unwrap();
    let error = pool.close(Duration::from_millis(50)).await.unwrap_err();
    assert!(error.code() == "pool_in_use" && error.to_string().contains("`the forgetful`"), "{error}");
    assert_eq!(kept.query("SELECT 1", &[]).await.unwrap_err().code(), "pool_closed");
}

#[tokio::test]
async fn a_pool_that_has_ended_lets_in_nobody_who_was_still_connecting() {
    let server = TestServer::shared().await;
    let config = server.app(&unique("end")).await;
    let table = Pool::new(config.clone()).unwrap();
    table.get().await.unwrap().batch_execute("CREATE TABLE t (n int)").await.unwrap();
    let far = Distance::to(config.port(), Duration::from_millis(200)).await;
    let pool = Pool::new(config.clone().with_port(far.port())).unwrap();
    let (one, other) = (pool.clone(), pool.clone());
    let work = tokio::spawn(async move {
        one.transaction(|tx| async move { tx.execute("INSERT INTO t VALUES (1)", &[]).await.map(drop) }).await
    });
    let raw = tokio::spawn(async move {
        other.get().await?.raw().await?.batch_execute("INSERT INTO t VALUES (2)").await.unwrap();
        Ok::<_, Error>(())
    });
    eventually("both connect", async || far.connections() == 2).await;
    pool.close(Duration::from_secs(5)).await.unwrap();
    for refused in [work.await.unwrap(), raw.await.unwrap()] {
        let error = refused.unwrap_err();
        assert_eq!(error.to_string(), "cannot get a connection of the pool: it is closed");
        assert_eq!(error.code(), "pool_closed");
    }
    eventually("all sessions but one have ended", async || sessions(server, &config).await == "1").await;
    let client = table.get().await.unwrap();
    let rows: i64 = client.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get(0);
    assert_eq!(rows, 0);
}

#[tokio::test]
async fn a_pool_whose_end_is_not_waited_for_opens_nothing_more() {
    let server = TestServer::shared().await;
    let app = server.made("end").await;
    let config = server.provisioner().await.connection(&app.name).await.unwrap();
    let mount = Mount::of(&config);
    let pool = Pool::new(ConnectionConfig::from_directory(mount.path()).unwrap()).unwrap();
    let client = pool.get().await.unwrap();
    timeout(Duration::from_millis(10), pool.close(Duration::from_secs(20))).await.unwrap_err();
    server.sql("postgres", &format!("ALTER ROLE {} PASSWORD 'next'", config.user())).await;
    mount.swap(&config.clone().with_password("next".into()));
    // Longer than until the mount is looked at.
    sleep(Duration::from_millis(2500)).await;
    assert_eq!(sessions(server, &config).await, "1");
    assert_eq!(pool.get().await.unwrap_err().code(), "pool_closed");
    // Its time is not over yet.
    client.query("SELECT 1", &[]).await.unwrap();
    drop(client);
    eventually("all sessions have ended", async || sessions(server, &config).await == "0").await;
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

#[test]
fn a_pool_is_kept_when_the_runtime_of_its_first_caller_has_ended() {
    let (first, second) = (runtime(), runtime());
    let server = second.block_on(TestServer::shared());
    let app = second.block_on(server.made("keep"));
    let config = second.block_on(async { server.provisioner().await.connection(&app.name).await.unwrap() });
    let mount = Mount::of(&config);
    let options = PoolOptions { idle: Duration::from_millis(400), ..PoolOptions::default() };
    let pool = Pool::with_options(ConnectionConfig::from_directory(mount.path()).unwrap(), options).unwrap();
    // Without a runtime nobody can keep it.
    let outside = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        std::pin::pin!(pool.get()).poll(&mut context).is_ready()
    }));
    assert!(outside.is_err());
    first.block_on(async { pool.get().await.unwrap().query("SELECT 1", &[]).await.unwrap() });
    drop(first);
    second.block_on(async {
        drop((pool.get().await.unwrap(), pool.get().await.unwrap()));
        eventually("idle ones close", async || sessions(server, &config).await == "0").await;
        server.sql("postgres", &format!("ALTER ROLE {} PASSWORD 'next'", config.user())).await;
        mount.swap(&config.clone().with_password("next".into()));
        eventually("the new password is in use", async || pool.snapshot().generation == 1).await;
    });
}

/// One that has ended, and one that rests since nobody drives it: what was begun there never ends.
#[test]
fn logins_of_a_runtime_that_does_nothing_any_more_hold_up_nobody() {
    let going_on = runtime();
    let config = going_on.block_on(async { TestServer::shared().await.app(&unique("rest")).await });
    let options = PoolOptions { connect: Duration::from_millis(250), ..PoolOptions::default() };
    let pool = Pool::with_options(config, options).unwrap();
    let resting = Builder::new_current_thread().enable_all().build().unwrap();
    let given_up = resting.block_on(async { timeout(Duration::from_micros(100), pool.get()).await.is_err() });
    assert!(given_up, "the login has begun, and is not through");
    going_on
        .block_on(async { timeout(Duration::from_secs(30), pool.get()).await.expect("it ends").map(drop) })
        .unwrap();
    let ended = runtime();
    let handle = ended.handle().clone();
    drop(ended);
    let (said, answer) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        // What is open still serves; all that is free is taken, so that a login is needed.
        let kept: Vec<_> =
            std::iter::from_fn(|| handle.block_on(pool.get()).map_err(|error| said.send(error.code())).ok()).collect();
        drop(kept);
    });
    assert_eq!(answer.recv_timeout(Duration::from_secs(30)).expect("it ends"), "runtime_ended");
}
