//! What a pool tells of itself: metrics with fixed names, and records without secrets.

use std::time::Duration;

use shareddb_core::{ConnectionConfig, Error, Pool, PoolOptions};
use shareddb_tests::TestServer;
use shareddb_tests::journal::Journal;
use shareddb_tests::meters::Meters;
use shareddb_tests::mount::Mount;
use shareddb_tests::server::unique;
use shareddb_tests::watch::eventually;
use tokio::time::timeout;

const MARKER: &str = "m4rker-s3cret";

async fn set_password(server: &TestServer, config: &ConnectionConfig, password: &str) -> ConnectionConfig {
    server.sql("postgres", &format!("ALTER ROLE {} PASSWORD '{password}'", config.user())).await;
    config.clone().with_password(password.into())
}

async fn ask(pool: &Pool) {
    pool.get().await.unwrap().query("SELECT 1", &[]).await.unwrap();
}

/// Two transactions that wait for each other: one of them is tried again, and once more where it was quicker than the other
/// to take what that one waits for. How often.
async fn deadlock(pool: &Pool) -> u32 {
    pool.get().await.unwrap().batch_execute("CREATE TABLE t (n int); INSERT INTO t VALUES (1), (2)").await.unwrap();
    let both = tokio::sync::Barrier::new(2);
    let both = &both;
    let tries = std::cell::Cell::new(0_u32);
    let tries = &tries;
    let lock = |first: i32, second: i32| {
        pool.transaction(move |tx| async move {
            tx.execute("UPDATE t SET n = n WHERE n = $1", &[&first]).await?;
            tries.set(tries.get() + 1);
            if tries.get() <= 2 {
                both.wait().await;
            }
            tx.execute("UPDATE t SET n = n WHERE n = $1", &[&second]).await.map(drop)
        })
    };
    let (one, other): (Result<(), Error>, Result<(), Error>) = tokio::join!(lock(1, 2), lock(2, 1));
    one.and(other).unwrap();
    assert!(tries.get() > 2);
    tries.get() - 2
}

#[tokio::test]
async fn everything_that_happens_is_counted() {
    let meters = Meters::default();
    let _guard = metrics::set_default_local_recorder(&meters);
    let server = TestServer::shared().await;
    let config = server.app(&unique("meter")).await;
    let mount = Mount::of(&config);
    let (wait, idle) = (Duration::from_secs(1), Duration::from_millis(400));
    let options = PoolOptions { size: 2, wait, idle, ..PoolOptions::default() };
    let pool = Pool::with_options(ConnectionConfig::from_directory(mount.path()).unwrap(), options).unwrap();

    for _ in 0..3 {
        ask(&pool).await;
    }
    for name in ["shareddb_pool_wait_seconds", "shareddb_pool_hold_seconds"] {
        let values = meters.values(name);
        assert!(values.len() == 3 && values.iter().all(|value| *value < 1.0), "{name}: {values:?}");
    }
    let connects = meters.values("shareddb_pool_connect_seconds");
    assert!(matches!(connects[..], [took] if took > 0.0 && took < 5.0), "{connects:?}");
    assert_eq!(meters.last(r#"shareddb_pool_connects_total{outcome="ok",sqlstate=""}"#), 1.0);

    let (one, _two) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    pool.get().await.unwrap_err();
    assert_eq!(meters.last(r#"shareddb_pool_acquire_failures_total{code="pool_exhausted"}"#), 1.0);
    let waits = meters.values("shareddb_pool_wait_seconds");
    assert!(waits.iter().filter(|value| **value >= wait.as_secs_f64()).count() == 1, "{waits:?}");
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { pool.get().await.map(drop) }
    });
    eventually("the gauges say so", async || {
        meters.last("shareddb_pool_in_use") == 2.0 && meters.last("shareddb_pool_waiting") == 1.0
    })
    .await;
    drop((one, _two));
    waiting.await.unwrap().unwrap();
    eventually("the gauges say so", async || meters.last("shareddb_pool_idle") == 2.0).await;
    assert!(meters.last("shareddb_pool_budget_share") > 0.0);
    eventually("they close", async || meters.last(r#"shareddb_pool_evictions_total{reason="idle"}"#) == 2.0).await;
    let again = deadlock(&pool).await;
    assert_eq!(meters.last("shareddb_pool_transaction_retries_total"), f64::from(again));

    let before = meters.last("shareddb_pool_credential_age_seconds");
    assert!(before > 0.0);
    mount.swap(&config.clone().with_password("not-yet".into()));
    eventually("it is tried", async || meters.last(r#"shareddb_pool_rotations_total{outcome="failed"}"#) >= 1.0).await;
    assert!(meters.last(r#"shareddb_pool_connects_total{outcome="password_rejected",sqlstate="28P01"}"#) >= 1.0);
    set_password(server, &config, "not-yet").await;
    eventually("it works", async || meters.last(r#"shareddb_pool_rotations_total{outcome="proved"}"#) == 1.0).await;
    assert_eq!(meters.last("shareddb_pool_generation"), 1.0);
    eventually("they are young", async || meters.last("shareddb_pool_credential_age_seconds") < before).await;

    // The names that the documentation has, and no others.
    let names: std::collections::BTreeSet<String> =
        meters.names().iter().map(|name| name.split('{').next().unwrap_or_default().to_owned()).collect();
    let documented = include_str!("../../shareddb-core/src/pool.rs").lines().filter_map(|line| {
        let (name, _) = line.strip_prefix("/// | `")?.split_once('`')?;
        Some(name.to_owned())
    });
    assert_eq!(names, documented.collect());
}

#[tokio::test]
async fn no_record_has_a_password() {
    let server = TestServer::shared().await;
    let config = server.app(&unique("record")).await;
    let (journal, _guard) = Journal::begin();
    let first = set_password(server, &config, &format!("first-{MARKER}")).await;
    let mount = Mount::of(&first);
    let options = PoolOptions { size: 1, wait: Duration::from_secs(1), ..PoolOptions::default() };
    let pool = Pool::with_options(ConnectionConfig::from_directory(mount.path()).unwrap(), options).unwrap();
    let client = pool.get().await.unwrap();
    client.query("SELECT 1 / $1::int4", &[&0]).await.unwrap_err();
    pool.get().await.unwrap_err();
    timeout(Duration::from_millis(50), client.query("SELECT pg_sleep(30)", &[])).await.unwrap_err();
    drop(client);
    ask(&pool).await;

    // Rejected, then right: `secret-…` is read, tried, and told of.
    let next = first.clone().with_password(format!("secret-{MARKER}").into());
    mount.swap(&next);
    eventually("it is tried", async || pool.snapshot().unproved_for.is_some()).await;
    set_password(server, &config, &format!("secret-{MARKER}")).await;
    eventually("it is used", async || {
        let snapshot = pool.snapshot();
        snapshot.generation == 1 && snapshot.of_older_credentials == 0
    })
    .await;
    // One that never gets in, and one that asks nobody who is there.
    for config in [next.clone().with_password(format!("wrong-{MARKER}").into()), next.with_port(1)] {
        let wrong = Pool::new(config).unwrap();
        wrong.get().await.unwrap_err();
    }
    pool.close(Duration::from_secs(1)).await.unwrap();

    let text = journal.text();
    for said in ["shareddb_core::pool", "pool.connect", "pool.acquire", "pool.rotate", "new credentials", "do not work"]
    {
        assert!(text.contains(said), "{said}: {text}");
    }
    assert!(!text.contains(MARKER), "{text}");
}
