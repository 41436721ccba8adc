//! Corners of the world in which an app may be found.

use shareddb_core::{AppSpec, Outcome};
use shareddb_tests::TestServer;
use shareddb_tests::server::{unique, value};

#[tokio::test]
async fn settings_are_found_again_however_the_server_writes_them() {
    let server = TestServer::shared().await;
    let provisioner = server.provisioner().await;
    let name = unique("setting");
    let mut spec = AppSpec::new(name.clone());
    let settings = [
        ("timezone", "Asia/Tokyo"),
        ("datestyle", "ISO, DMY"),
        ("app.tenant", "it's \\ \"me\""),
        ("temp_tablespaces", ""),
    ];
    spec.settings = Some(settings.map(|(name, value)| (name.parse().unwrap(), value.to_owned())).into());
    provisioner.create(&spec).await.unwrap();
    for spec in [&spec, &AppSpec::new(name.clone())] {
        let plan = provisioner.plan(spec).await.unwrap();
        assert!(plan.is_empty(), "{plan}");
    }
    // An old name would be stored as another one, and missed ever after.
    let mut old = AppSpec::new(name.clone());
    old.settings = Some([("sort_mem".parse().unwrap(), "8MB".to_owned())].into());
    assert_eq!(provisioner.plan(&old).await.unwrap_err().code(), "setting_invalid");
    let session = provisioner.connection(&name).await.unwrap().connect().await.unwrap();
    assert_eq!(value(&session, "SHOW timezone").await, "Asia/Tokyo");
    assert_eq!(value(&session, "SHOW app.tenant").await, "it's \\ \"me\"");
}

#[tokio::test]
async fn a_closed_database_is_opened_and_looked_into() {
    let server = TestServer::shared().await;
    let provisioner = server.provisioner().await;
    let name = unique("closed");
    let mut spec = AppSpec::new(name.clone());
    spec.extensions = Some(["pg_trgm".parse().unwrap()].into());
    let database = provisioner.create(&spec).await.unwrap().app.database;
    server.sql(database.as_str(), "DROP SCHEMA public").await;
    server.sql("postgres", &format!("ALTER DATABASE {database} ALLOW_CONNECTIONS false")).await;
    assert!(provisioner.plan(&spec).await.unwrap().partial);
    assert_eq!(provisioner.create(&spec).await.unwrap().outcome, Outcome::Configured);
    assert!(provisioner.plan(&spec).await.unwrap().is_empty());

    // What the app has in a schema of its own is seen before an extension trusts it.
    let config = provisioner.connection(&name).await.unwrap();
    config.connect().await.unwrap().simple_query("CREATE EXTENSION cube").await.unwrap();
    server.sql("postgres", &format!("ALTER DATABASE {database} ALLOW_CONNECTIONS false")).await;
    spec.extensions = Some(["earthdistance".parse().unwrap()].into());
    assert_eq!(provisioner.create(&spec).await.unwrap_err().code(), "extension_unsafe");
}

#[tokio::test]
async fn a_search_path_that_leads_nowhere_is_noted() {
    let server = TestServer::shared().await;
    let provisioner = server.provisioner().await;
    let mut spec = AppSpec::new(unique("path"));
    spec.search_path = Some(vec!["nosuch".parse().unwrap()]);
    let report = provisioner.create(&spec).await.unwrap();
    assert!(report.notices.iter().any(|notice| notice.contains("search path")), "{:?}", report.notices);
    let session = provisioner.connection(&spec.name).await.unwrap().connect().await.unwrap();
    session.batch_execute("CREATE SCHEMA nosuch").await.unwrap();
    assert!(provisioner.plan(&spec).await.unwrap().notices.is_empty());
}
