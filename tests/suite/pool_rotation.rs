//! Credentials change under a pool and nobody notices.

use std::time::Duration;

use shareddb_core::{ConnectionConfig, Error, Pool, PoolOptions, PoolState};
use shareddb_tests::mount::Mount;
use shareddb_tests::server::unique;
use shareddb_tests::watch::eventually;
use shareddb_tests::{Callers, TestServer};

/// Both logins of an app, with passwords; the first is the one in its Secret.
async fn slots(server: &TestServer) -> [ConnectionConfig; 2] {
    let app = server.made("turn").await;
    let config = server.provisioner().await.connection(&app.name).await.unwrap();
    let other = server
        .value(
            "postgres",
            &format!("SELECT rolname FROM pg_roles WHERE rolname <> '{0}' AND rolname LIKE '{0}%'", config.user()),
        )
        .await;
    [config.clone(), config.with_user(other)]
}

async fn set_password(server: &TestServer, config: &ConnectionConfig, password: &str) -> ConnectionConfig {
    server.sql("postgres", &format!("ALTER ROLE {} PASSWORD '{password}'", config.user())).await;
    config.clone().with_password(password.into())
}

/// Nobody has failed.
async fn expect_all_served(callers: Callers) {
    let tally = callers.end().await;
    println!("{} calls, the longest checkout took {:?}", tally.served, tally.longest_checkout);
    assert!(tally.served > 0 && tally.failures.is_empty(), "{tally:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_logins_in_turn_fail_nobody() {
    let server = TestServer::shared().await;
    let mut slots = slots(server).await;
    let mount = Mount::of(&slots[0]);
    let options =
        PoolOptions { life: Duration::from_millis(500), name: Some("shop".to_owned()), ..PoolOptions::default() };
    let pool = Pool::with_options(ConnectionConfig::from_directory(mount.path()).unwrap(), options).unwrap();
    let callers = Callers::of(&pool, 16);
    for round in 1..=4_usize {
        let next = set_password(server, &slots[round % 2], &format!("password-{round}")).await;
        mount.swap(&next);
        slots[round % 2] = next;
        eventually("all connections are new", async || {
            let snapshot = pool.snapshot();
            snapshot.generation == round as u64 && snapshot.of_older_credentials == 0
        })
        .await;
        let sessions =
            format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{}'", slots[(round + 1) % 2].user());
        eventually("the old login is unused", async || server.value("postgres", &sessions).await == "0").await;
    }
    let name = "SELECT current_setting('application_name')";
    let name: String = pool.get().await.unwrap().query_one(name, &[]).await.unwrap().get(0);
    assert_eq!(name, "shop gen=4", "the number is the Secret's");
    expect_all_served(callers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_login_and_a_late_secret_fail_nobody() {
    let server = TestServer::shared().await;
    let [config, _] = slots(server).await;
    let mount = Mount::of(&config);
    let options = PoolOptions { size: 8, life: Duration::from_millis(300), ..PoolOptions::default() };
    let pool = Pool::with_options(ConnectionConfig::from_directory(mount.path()).unwrap(), options).unwrap();
    let callers = Callers::of(&pool, 16);
    eventually("they are at work", async || pool.snapshot().in_use > 4).await;
    let next = set_password(server, &config, "the-next-one").await;
    // Lives end all the time, so that somebody notices before the Secret comes.
    eventually("somebody is rejected", async || matches!(pool.snapshot().state, PoolState::CredentialsRejected { .. }))
        .await;
    mount.swap(&next);
    eventually("the new password is in use", async || {
        let snapshot = pool.snapshot();
        snapshot.generation == 1 && snapshot.of_older_credentials == 0 && snapshot.state == PoolState::Ready
    })
    .await;
    expect_all_served(callers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_that_do_not_work_change_nothing() {
    let server = TestServer::shared().await;
    let slots = slots(server).await;
    let mount = Mount::of(&slots[0]);
    let pool = Pool::new(ConnectionConfig::from_directory(mount.path()).unwrap()).unwrap();
    let callers = Callers::of(&pool, 4);
    eventually("they are at work", async || pool.snapshot().in_use > 0).await;
    mount.swap(&slots[1].clone().with_password("not-yet".into()));
    eventually("it is noticed", async || pool.snapshot().unproved_for.is_some()).await;
    let snapshot = pool.snapshot();
    assert_eq!((snapshot.generation, snapshot.is_ready()), (0, true), "{snapshot}");
    set_password(server, &slots[1], "not-yet").await;
    eventually("it works by now", async || {
        let snapshot = pool.snapshot();
        snapshot.generation == 1 && snapshot.of_older_credentials == 0 && snapshot.unproved_for.is_none()
    })
    .await;
    expect_all_served(callers).await;
}

/// Sessions of a login.
async fn sessions(server: &TestServer, config: &ConnectionConfig) -> String {
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{}'", config.user());
    server.value("postgres", &sql).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_kept_holds_up_nothing() {
    let server = TestServer::shared().await;
    let [config, _] = slots(server).await;
    let mount = Mount::of(&config);
    let options = PoolOptions { idle: Duration::from_millis(400), ..PoolOptions::default() };
    let pool = Pool::with_options(ConnectionConfig::from_directory(mount.path()).unwrap(), options).unwrap();
    let kept = pool.get_for("the listener").await.unwrap();
    for generation in 1..=2 {
        let others = futures_util::future::join_all((0..3).map(|_| pool.get())).await;
        assert!(others.iter().all(Result::is_ok));
        drop(others);
        mount.swap(&set_password(server, &config, &format!("next-{generation}")).await);
        eventually("the new password is in use", async || pool.snapshot().generation == generation).await;
        eventually("idle ones close", async || sessions(server, &config).await == "1").await;
        // Nothing is opened for one that does not come back.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(sessions(server, &config).await, "1");
    }
    kept.query("SELECT 1", &[]).await.unwrap();
    let mine = "SELECT current_setting('application_name')";
    drop(kept);
    eventually("it is exchanged", async || {
        let name: String = pool.get().await.unwrap().query_one(mine, &[]).await.unwrap().get(0);
        name.ends_with(" gen=2")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_is_gone_leaves_only_what_somebody_has() {
    let server = TestServer::shared().await;
    let [config, _] = slots(server).await;
    let mount = Mount::of(&config);
    let pool = Pool::new(ConnectionConfig::from_directory(mount.path()).unwrap()).unwrap();
    let kept = pool.get().await.unwrap();
    let others = futures_util::future::join_all((0..3).map(|_| pool.get())).await;
    assert!(others.iter().all(Result::is_ok));
    drop(others);
    mount.swap(&set_password(server, &config, "next").await);
    eventually("all that can be are new", async || pool.snapshot().of_older_credentials == 1).await;
    drop(pool);
    eventually("only one is left", async || sessions(server, &config).await == "1").await;
    kept.query("SELECT 1", &[]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_in_reserve_is_looked_at_as_any_other() {
    use rustix::process::{Pid, Signal, kill_process};
    let server = TestServer::shared().await;
    let [config, _] = slots(server).await;
    let mount = Mount::of(&config);
    let options = PoolOptions { size: 2, recycle: Duration::from_millis(300), ..PoolOptions::default() };
    let pool = Pool::with_options(ConnectionConfig::from_directory(mount.path()).unwrap(), options).unwrap();
    let _kept = pool.get().await.unwrap();
    mount.swap(&set_password(server, &config, "next").await);
    eventually("a new one is there", async || pool.snapshot().generation == 1 && pool.snapshot().idle == 1).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let new = format!(
        "SELECT pid FROM pg_stat_activity WHERE usename = '{}' AND application_name LIKE '% gen=1'",
        config.user()
    );
    let frozen = Pid::from_raw(server.value("postgres", &new).await.parse().unwrap()).unwrap();
    kill_process(frozen, Signal::STOP).unwrap();
    let served = tokio::time::timeout(Duration::from_secs(5), async {
        pool.get().await.unwrap().query("SELECT 1", &[]).await.map(drop)
    })
    .await;
    kill_process(frozen, Signal::CONT).unwrap();
    served.expect("nobody waits for it").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_secret_that_leads_nowhere_holds_up_nobody() {
    let server = TestServer::shared().await;
    let [config, _] = slots(server).await;
    let mount = Mount::of(&config);
    let pool = Pool::new(ConnectionConfig::from_directory(mount.path()).unwrap()).unwrap();
    let _kept = pool.get().await.unwrap();
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    mount.swap(&config.clone().with_port(silent.local_addr().unwrap().port()));
    let started = std::time::Instant::now();
    let others = futures_util::future::join_all((0..3).map(|_| pool.get())).await;
    let took = started.elapsed();
    assert!(others.iter().all(Result::is_ok));
    assert!(took < Duration::from_secs(2), "{took:?}");
    eventually("it is told", async || pool.snapshot().unproved_for.is_some()).await;
}

#[tokio::test]
async fn settings_made_by_hand_do_not_follow_a_directory() {
    let config = TestServer::shared().await.app(&unique("hand")).await;
    let mount = Mount::of(&config);
    let read = || ConnectionConfig::from_directory(mount.path()).unwrap();
    let followed = format!("{:?}", Pool::new(read().with_application_name("x")).unwrap());
    assert!(followed.contains("the directory"), "{followed}");
    let fixed = Pool::new(read().with_password("wrong".into())).unwrap();
    assert!(format!("{fixed:?}").contains("fixed settings"));
    let error: Error = fixed.get().await.unwrap_err();
    assert_eq!(error.code(), "credentials_rejected");
}
