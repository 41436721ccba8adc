//! The end of a pool.

use std::time::Duration;

use shareddb_core::{Pool, PoolOptions, PoolState};
use shareddb_tests::TestServer;
use shareddb_tests::server::unique;
use shareddb_tests::watch::eventually;

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
    let open = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{}'", config.user());
    eventually("all sessions have ended", async || server.value("postgres", &open).await == "0").await;
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
