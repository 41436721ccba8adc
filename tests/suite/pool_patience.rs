//! Who goes away while a pool works for it takes nothing along.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use shareddb_core::{Pool, PoolOptions, PooledClient};
use shareddb_tests::server::unique;
use shareddb_tests::watch::eventually;
use shareddb_tests::{Distance, TestServer};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

async fn pids(clients: impl IntoIterator<Item = &PooledClient>) -> BTreeSet<i32> {
    let pid = async |client: &PooledClient| client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    join_all(clients.into_iter().map(pid)).await.into_iter().collect()
}

/// All connections of a pool.
async fn all(pool: &Pool) -> Vec<PooledClient> {
    join_all((0..pool.snapshot().size).map(|_| pool.get())).await.into_iter().map(Result::unwrap).collect()
}

#[tokio::test]
async fn who_does_not_wait_for_a_look_costs_no_connection() {
    let config = TestServer::shared().await.app(&unique("look")).await;
    let far = Distance::to(config.port(), Duration::ZERO).await;
    let pool = Pool::new(config.with_port(far.port())).unwrap();
    let before = pids(&all(&pool).await).await;
    // The moment after which an idle connection is looked at.
    sleep(Duration::from_millis(1100)).await;
    far.set(Duration::from_millis(60));
    let calls = join_all((0..4).map(|_| timeout(Duration::from_millis(40), pool.get()))).await;
    assert!(calls.iter().all(Result::is_err), "they did not have to wait");
    far.set(Duration::ZERO);
    assert_eq!(pids(&all(&pool).await).await, before);
    assert_eq!(far.connections(), 4);
}

#[tokio::test]
async fn a_login_that_nobody_waited_for_serves_the_next_one() {
    let config = TestServer::shared().await.app(&unique("login")).await;
    let far = Distance::to(config.port(), Duration::from_millis(50)).await;
    let pool = Pool::new(config.with_port(far.port())).unwrap();
    let mut served = 0;
    for _ in 0..40 {
        served += usize::from(matches!(timeout(Duration::from_millis(100), pool.get()).await, Ok(Ok(_))));
    }
    println!("{served} of 40 served, {} logins", far.connections());
    assert!(served >= 30 && far.connections() == 1, "{served} of 40 served, {} logins", far.connections());
    // Never more than the pool may have, however many go away.
    far.set(Duration::from_millis(100));
    let _kept = pool.get().await.unwrap();
    for _ in 0..5 {
        join_all((0..8).map(|_| timeout(Duration::from_millis(20), pool.get()))).await;
    }
    eventually("all have landed", async || pool.snapshot().idle == 3).await;
    assert_eq!(far.connections(), 4);
}

#[tokio::test]
async fn the_shorter_limit_of_a_login_counts() {
    let config = TestServer::shared().await.app(&unique("limit")).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = config.with_port(silent.local_addr().unwrap().port());
    let second = Duration::from_secs(1);
    for (own, ours) in [(Some(second), Duration::from_secs(5)), (Some(Duration::from_secs(20)), second), (None, second)]
    {
        let config = own.into_iter().fold(config.clone(), shareddb_core::ConnectionConfig::with_connect_timeout);
        let pool = Pool::with_options(config, PoolOptions { connect: ours, ..PoolOptions::default() }).unwrap();
        let started = Instant::now();
        let error = pool.get().await.unwrap_err();
        assert!(error.code() == "timeout" && error.to_string().contains("no answer in 1s"), "{error}");
        assert!(started.elapsed() < 3 * second, "{own:?} {ours:?}: {:?}", started.elapsed());
    }
}
