//! Runs that meet each other, or their end.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::tz::TimeZone;
use shareddb_core::{
    BackupManager, BackupOptions, Choice, Quota, RestoreOptions, RetentionPolicy, Stage, VerifyOptions,
};
use shareddb_tests::command::shareddb_command;
use shareddb_tests::server::{session, sql, value};
use shareddb_tests::watch::eventually;
use shareddb_tests::{TestServer, shareddb};

use crate::backup_faults::{assert_tidy, at, heavy, memory};

#[tokio::test(flavor = "multi_thread")]
async fn of_two_restores_at_once_one_waits() {
    let server = TestServer::shared().await;
    let app = heavy(server, "tworestores", 100).await;
    let manager = BackupManager::new(server.server().await, memory());
    manager.backup(&app.name, &BackupOptions::default()).await.unwrap();
    let options = RestoreOptions::default();
    let confirm = app.name.as_str();
    let (one, two) =
        tokio::join!(manager.restore(&app.name, &options, confirm), manager.restore(&app.name, &options, confirm));
    assert_ne!(one.unwrap().kept, two.unwrap().kept);
    let config = server.provisioner().await.connection(&app.name).await.unwrap();
    assert_eq!(value(&session(&config, config.database()).await, "SELECT count(*)::text FROM big").await, "100");
    // The backup, and what was there before each restore.
    assert_tidy(server, &app, &manager, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_restored_is_neither_pruned_nor_dropped() {
    let server = TestServer::shared().await;
    let app = heavy(server, "encounter", 100).await;
    let manager = BackupManager::new(server.server().await, memory());
    let first = manager.backup(&app.name, &BackupOptions::default()).await.unwrap().id;
    manager.backup(&app.name, &BackupOptions::default()).await.unwrap();
    manager
        .verify(&manager.shelf(&app.name).choose(&Choice::Latest).await.unwrap(), &VerifyOptions::default())
        .await
        .unwrap();
    let provisioner = server.provisioner().await.with_lock_patience(Duration::from_millis(100));
    let met = Arc::new(AtomicUsize::new(0));
    let (other, name, seen) = (manager.clone(), app.name.clone(), Arc::clone(&met));
    let outer = manager.clone().on_event(at(Stage::Loading, move || {
        let (other, name, provisioner, seen) = (other.clone(), name.clone(), provisioner.clone(), Arc::clone(&seen));
        async move {
            let policy = RetentionPolicy { last: Quota::Of(1), ..RetentionPolicy::default() };
            let plan = other.plan_prune(&name, &policy, &TimeZone::UTC).await.unwrap();
            other.prune(&name, &plan).await.unwrap();
            let error = provisioner.drop(&name, name.as_str()).await.unwrap_err();
            assert_eq!(error.code(), "lock_timeout", "{error}");
            seen.fetch_add(1, Ordering::Relaxed);
        }
    }));
    let mut options = RestoreOptions::default();
    options.backup = Choice::Id(first.clone());
    options.safety_backup = false;
    outer.restore(&app.name, &options, app.name.as_str()).await.unwrap();
    assert_eq!(met.load(Ordering::Relaxed), 1);
    let inventory = manager.shelf(&app.name).inventory().await.unwrap();
    assert!(inventory.backups.iter().any(|backup| backup.id == first), "{inventory:?}");
}

/// Killed at whatever moment, a backup is listed and whole, or not listed; and the next one is taken.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_killed_at_any_moment_is_whole_or_not_there() {
    let server = TestServer::start().await;
    let home = server.home();
    shareddb(home, &["create", "myapp"]).expect_code(0);
    let config = server.provisioner().await.connection(&"myapp".parse().unwrap()).await.unwrap();
    let fill = "CREATE TABLE t AS SELECT i, repeat(md5(i::text), 30) AS text FROM generate_series(1, 20000) i";
    sql(&config, config.database(), fill).await;
    let list = || -> Vec<String> {
        let list = shareddb(home, &["backups", "myapp", "-o", "name"]).expect_code(0).stdout;
        list.lines().map(|line| line.trim_start_matches("backup/").to_owned()).collect()
    };
    let mut ended = 0;
    for step in 1..=24_u64 {
        let mut child = shareddb_command(home)
            .args(["backup", "myapp", "--timeout", "5m"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The moment is the point of the test: whichever it is, what is asserted below holds.
        tokio::time::sleep(Duration::from_millis(step * 40)).await;
        let done = child.try_wait().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        ended += u32::from(done.is_some());
        if ended == 2 {
            break;
        }
    }
    for id in list() {
        shareddb(home, &["verify", "myapp", "--backup", &id, "--quick"]).expect_code(0);
    }
    eventually("its lock is free", async || shareddb(home, &["backup", "myapp"]).code == Some(0)).await;
    let newest = list().remove(0);
    shareddb(home, &["verify", "myapp", "--backup", &newest]).expect_code(0);
    let scratches = "SELECT count(*)::text FROM pg_database WHERE datname LIKE 'shareddb\\_r\\_%'";
    assert_eq!(server.value("postgres", scratches).await, "0");
}
