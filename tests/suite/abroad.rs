//! What an app's roles have in databases of others.

use shareddb_core::Slot;
use shareddb_tests::server::{spec_of, value};
use shareddb_tests::{TestServer, refusal};

use crate::isolation::ALL_MAY_TRY;

#[tokio::test]
async fn rights_that_others_gave_hinder_no_drop() {
    let server = TestServer::start().await;
    let provisioner = server.provisioner().await;
    let (app, other) = (server.made("victim").await, server.made("generous").await);
    let session = provisioner.connection(&other.name).await.unwrap().connect().await.unwrap();
    let gifts = format!(
        "CREATE TABLE gift (x int); GRANT SELECT ON gift TO {owner}; \
         CREATE POLICY p ON gift TO {login} USING (true)",
        owner = app.owner,
        login = app.login(Slot::Two)
    );
    session.batch_execute(&gifts).await.unwrap();
    provisioner.drop(&app.name, app.name.as_str()).await.unwrap();
    session.batch_execute("INSERT INTO gift VALUES (1)").await.unwrap();
}

#[tokio::test]
async fn sessions_of_the_app_in_other_databases_end() {
    let server = TestServer::start().await;
    server.set_access_rules(ALL_MAY_TRY).await;
    let provisioner = server.provisioner().await;
    let app = server.made("abroad").await;
    server.sql("postgres", "CREATE DATABASE elsewhere").await;
    let config = provisioner.connection(&app.name).await.unwrap();
    let abroad = config.clone().with_database("elsewhere").connect().await.unwrap();
    server.sql("postgres", "REVOKE ALL ON DATABASE elsewhere FROM PUBLIC").await;
    let home = config.connect().await.unwrap();
    provisioner.create(&spec_of(&app)).await.unwrap();
    assert!(refusal::has_ended(&abroad).await);
    assert_eq!(value(&home, "SELECT 1").await, "1");
    assert!(provisioner.plan(&spec_of(&app)).await.unwrap().is_empty());

    server.sql("postgres", &format!("ALTER DATABASE elsewhere OWNER TO {}", app.login(Slot::One))).await;
    let notices = provisioner.plan(&spec_of(&app)).await.unwrap().notices;
    assert!(notices.iter().any(|notice| notice.contains("elsewhere")), "{notices:?}");
}
