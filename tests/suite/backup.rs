//! Taking a backup, proving it, restoring it and taking that back, on a database with every kind of object.

use shareddb_core::{App, BackupManager, BackupOptions, BackupStore, Choice, RestoreOptions, Verdict, VerifyOptions};
use shareddb_tests::TestServer;
use shareddb_tests::server::{session, sql, temporary_home, value};

/// What an app can make.
pub(crate) const EVERYTHING: &str = include_str!("../fixtures/everything.sql");

/// A store in a folder of its own.
pub(crate) fn folder_store() -> BackupStore {
    let folder = temporary_home();
    BackupStore::open(&format!("file://{}", folder.display()), []).unwrap()
}

/// Makes an app and fills its database with every kind of object.
pub(crate) async fn filled(server: &TestServer, stem: &str) -> App {
    let app = server.made(stem).await;
    let config = server.provisioner().await.connection(&app.name).await.unwrap();
    sql(&config, config.database(), EVERYTHING).await;
    app
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_comes_back() {
    let server = TestServer::shared().await;
    let app = filled(server, "everything").await;
    let config = server.provisioner().await.connection(&app.name).await.unwrap();
    let manager = BackupManager::new(server.server().await, folder_store());

    let manifest = manager.backup(&app.name, &BackupOptions::default()).await.unwrap();
    assert_eq!(
        manifest.tables.iter().map(|table| table.rows).sum::<u64>(),
        500 + 4 + 1 + 2 + 1 + 400 + 1 + 1 + 10 + 100
    );
    assert_eq!((manifest.large_objects, manifest.attempts), (2, 1));
    assert_eq!(manager.shelf(&app.name).list().await.unwrap().len(), 1);
    let checked = manager.verify(&manifest.id, &VerifyOptions::default()).await.unwrap();
    assert_eq!((checked.verdict, checked.findings), (Verdict::Passed, vec![]));

    let app_session = session(&config, config.database()).await;
    app_session
        .batch_execute("DROP MATERIALIZED VIEW moods; DELETE FROM parted; INSERT INTO tree VALUES (9, NULL, NULL)")
        .await
        .unwrap();
    let report = manager.restore(&app.name, &RestoreOptions::default(), app.name.as_str()).await.unwrap();
    assert!(report.left_out.iter().all(|left| left.what.contains("SCHEMA - public")), "{:?}", report.left_out);
    // What was there before it is not what a restore means by the newest.
    assert_eq!(manager.shelf(&app.name).list().await.unwrap().len(), 2);
    assert_eq!(manager.shelf(&app.name).choose(&Choice::Latest).await.unwrap(), manifest.id);
    let restored = session(&config, config.database()).await;
    assert_eq!(value(&restored, "SELECT count(*)::text FROM parted").await, "400");
    assert_eq!(value(&restored, "SELECT count(*)::text FROM secret_rows").await, "50", "policies hold");
    assert_eq!(value(&restored, "SELECT nextval('people_id_seq')::text").await, "501");
    assert!(server.provisioner().await.plan(&shareddb_core::AppSpec::new(app.name.clone())).await.unwrap().is_empty());

    manager.undo(&app.name, app.name.as_str()).await.unwrap();
    let undone = session(&config, config.database()).await;
    assert_eq!(value(&undone, "SELECT count(*)::text FROM parted").await, "0");
    assert_eq!(value(&undone, "SELECT count(*)::text FROM tree WHERE id = 9").await, "1");
    assert!(server.provisioner().await.plan(&shareddb_core::AppSpec::new(app.name.clone())).await.unwrap().is_empty());

    // What a restore has kept goes with the app.
    let dropped = server.provisioner().await.drop(&app.name, app.name.as_str()).await.unwrap();
    assert_eq!(dropped.outcome, shareddb_core::Outcome::Dropped);
    let left = format!("SELECT count(*)::text FROM pg_shdescription WHERE description LIKE '%\"{}\"%'", app.name);
    assert_eq!(server.value("postgres", &left).await, "0");
}
