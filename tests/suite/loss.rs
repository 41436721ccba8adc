//! What an app has lost is missed, and what is not its own stays.

use shareddb_core::Outcome;
use shareddb_tests::TestServer;
use shareddb_tests::server::{spec_of, statement};

#[tokio::test]
async fn a_drop_takes_no_database_that_is_somebody_elses() {
    let server = TestServer::start().await;
    let provisioner = server.provisioner().await;
    let app = server.made("mine").await;
    let database = &app.database;
    server.sql("postgres", &format!("ALTER DATABASE {database} RENAME TO kept")).await;
    server.sql("postgres", "COMMENT ON DATABASE kept IS NULL; CREATE ROLE alice").await;
    server.sql("postgres", &format!("CREATE DATABASE {database} OWNER alice ALLOW_CONNECTIONS false")).await;
    assert_eq!(provisioner.create(&spec_of(&app)).await.unwrap_err().code(), "mark_lost");
    // The roles could not go while the renamed one has their objects.
    assert_eq!(provisioner.plan_drop(&app.name).await.unwrap_err().code(), "objects_elsewhere");
    server.sql("postgres", "DROP DATABASE kept").await;
    provisioner.drop(&app.name, app.name.as_str()).await.unwrap();
    assert_eq!(
        server.value("postgres", &format!("SELECT count(*) FROM pg_database WHERE datname = '{database}'")).await,
        "1"
    );
}

#[tokio::test]
async fn a_drop_takes_no_database_only_for_its_comment() {
    let server = TestServer::start().await;
    let provisioner = server.provisioner().await;
    let (app, other) = (server.made("mine").await, server.made("other").await);
    server.sql("postgres", &format!("CREATE DATABASE {}_copy", app.database)).await;
    let databases =
        [other.database.to_string(), "template1".into(), "postgres".into(), format!("{}_copy", app.database)];
    for database in &databases {
        server.sql("postgres", &format!("COMMENT ON DATABASE {database} IS '{}'", app.mark())).await;
    }
    let report = provisioner.drop(&app.name, app.name.as_str()).await.unwrap();
    assert_eq!(report.notices.len(), databases.len(), "{:?}", report.notices);
    let all = format!("SELECT count(*) FROM pg_database WHERE datname IN ('{}')", databases.join("', '"));
    assert_eq!(server.value("postgres", &all).await, databases.len().to_string());
    // The record of the other app still stands on its owner role.
    let lost = provisioner.create(&spec_of(&other)).await.unwrap_err();
    assert_eq!(lost.code(), "name_taken", "{lost}");
}

#[tokio::test]
async fn a_database_that_is_gone_is_missed() {
    let server = TestServer::start().await;
    let provisioner = server.provisioner().await;
    let app = server.made("gone").await;
    server.sql(app.database.as_str(), "CREATE TABLE precious AS SELECT 1 AS x").await;
    server.sql("postgres", &format!("ALTER DATABASE {} RENAME TO kept", app.database)).await;

    let lost = provisioner.create(&spec_of(&app)).await.unwrap_err();
    assert_eq!(lost.code(), "database_lost", "{lost}");
    let refused = provisioner.drop(&app.name, app.name.as_str()).await.unwrap_err();
    assert_eq!(refused.code(), "objects_elsewhere", "{refused}");
    assert_eq!(statement(&lost), statement(&refused));
    server.sql("postgres", &statement(&lost)).await;
    assert_eq!(provisioner.create(&spec_of(&app)).await.unwrap().outcome, Outcome::Unchanged);
    assert_eq!(server.value(app.database.as_str(), "SELECT x FROM precious").await, "1");

    server.sql("postgres", &format!("DROP DATABASE {}", app.database)).await;
    assert_eq!(provisioner.create(&spec_of(&app)).await.unwrap_err().code(), "database_lost");
    provisioner.drop(&app.name, app.name.as_str()).await.unwrap();
    assert_eq!(provisioner.create(&spec_of(&app)).await.unwrap().outcome, Outcome::Created);
}

#[tokio::test]
async fn two_databases_that_could_be_the_apps_are_both_named() {
    let server = TestServer::start().await;
    let provisioner = server.provisioner().await;
    let app = server.made("two").await;
    server.sql("postgres", &format!("ALTER DATABASE {} RENAME TO kept", app.database)).await;
    // A create that never came to its end has nothing to lose, unless there is something that bears its record.
    let half = app.mark().to_string().replacen('{', "{\"progress\":\"creating\",", 1);
    server.sql("postgres", &format!("COMMENT ON ROLE {} IS '{half}'", app.owner)).await;
    assert_eq!(provisioner.create(&spec_of(&app)).await.unwrap_err().code(), "database_lost");
    server.sql("postgres", &format!("CREATE DATABASE {}", app.database)).await;
    let error = provisioner.create(&spec_of(&app)).await.unwrap_err();
    assert!(error.code() == "mark_lost" && error.to_string().contains("kept"), "{error}");
    server.sql("postgres", &format!("DROP DATABASE {}", app.database)).await;
    server.sql("postgres", &statement(&error)).await;
    assert_eq!(provisioner.create(&spec_of(&app)).await.unwrap().outcome, Outcome::Configured);
}
