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
    let session = provisioner.connection(&name).await.unwrap().connect().await.unwrap();
    assert_eq!(value(&session, "SHOW timezone").await, "Asia/Tokyo");
    assert_eq!(value(&session, "SHOW app.tenant").await, "it's \\ \"me\"");
}

#[tokio::test]
async fn settings_that_make_work_hard_do_not_hinder_the_proof() {
    let server = TestServer::shared().await;
    let mut spec = AppSpec::new(unique("hard"));
    let settings = [("default_transaction_read_only", "on"), ("statement_timeout", "1")];
    spec.settings = Some(settings.map(|(name, value)| (name.parse().unwrap(), value.to_owned())).into());
    assert_eq!(server.provisioner().await.create(&spec).await.unwrap().outcome, Outcome::Created);
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
async fn a_drop_takes_no_database_that_is_somebody_elses() {
    let server = TestServer::start().await;
    let provisioner = server.provisioner().await;
    let name = unique("mine");
    server.app(&name).await;
    let app = provisioner.app(&name).await.unwrap();
    let (database, kept) = (&app.database, "kept");
    server.sql("postgres", &format!("ALTER DATABASE {database} RENAME TO {kept}")).await;
    server.sql("postgres", &format!("COMMENT ON DATABASE {kept} IS NULL")).await;
    server.sql("postgres", "CREATE ROLE alice").await;
    server.sql("postgres", &format!("CREATE DATABASE {database} OWNER alice ALLOW_CONNECTIONS false")).await;
    let plan = provisioner.plan_drop(&name).await.unwrap();
    assert!(!plan.to_string().contains(&format!("database/{database}")), "{plan}");
    assert_eq!(provisioner.create(&AppSpec::new(name)).await.unwrap_err().code(), "mark_lost");
}

#[tokio::test]
async fn comments_of_others_and_one_damaged_app_hinder_nobody_else() {
    let server = TestServer::start().await;
    let provisioner = server.provisioner().await;
    let (good, bad) = (unique("good"), unique("bad"));
    server.app(&good).await;
    server.app(&bad).await;
    server.sql("postgres", "CREATE ROLE other; COMMENT ON ROLE other IS 'shareddb: the login of good'").await;
    let owner = provisioner.app(&bad).await.unwrap().owner;
    server.sql("postgres", &format!("ALTER ROLE {owner} RENAME TO renamed")).await;
    let status = provisioner.status(None).await.unwrap();
    let problem = |app: usize| status.apps[app].problem.as_ref().map(|problem| problem.code);
    assert_eq!((problem(0), problem(1)), (Some("mark_misplaced"), None));
    assert_eq!(provisioner.create(&AppSpec::new(good)).await.unwrap().outcome, Outcome::Unchanged);
    let hint = provisioner.create(&AppSpec::new(bad.clone())).await.unwrap_err().hint().unwrap().to_owned();
    server.sql("postgres", hint.split_once(": ").unwrap().1).await;
    assert!(provisioner.plan(&AppSpec::new(bad)).await.unwrap().is_empty());
}
