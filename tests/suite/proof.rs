//! The trial login at the end of a create.

use shareddb_core::{AppSpec, Outcome, Step};
use shareddb_tests::TestServer;
use shareddb_tests::server::{spec_of, unique};

use crate::isolation::ALL_MAY_TRY;

#[tokio::test]
async fn settings_that_make_work_hard_do_not_hinder_the_proof() {
    let server = TestServer::shared().await;
    let mut spec = AppSpec::new(unique("hard"));
    let settings = [
        ("default_transaction_read_only", "on"),
        ("statement_timeout", "1"),
        ("idle_in_transaction_session_timeout", "1"),
    ];
    spec.settings = Some(settings.map(|(name, value)| (name.parse().unwrap(), value.to_owned())).into());
    assert_eq!(server.provisioner().await.create(&spec).await.unwrap().outcome, Outcome::Created);
}

#[tokio::test]
async fn a_proof_that_failed_is_tried_again() {
    let server = TestServer::start().await;
    server.set_access_rules(ALL_MAY_TRY).await;
    let provisioner = server.provisioner().await;
    let (app, neighbour) = (server.made("proven").await, server.made("neighbour").await);
    let reference = server.catalog().await;
    server.sql("postgres", &format!("GRANT CONNECT ON DATABASE {} TO PUBLIC", neighbour.database)).await;
    // Nothing of this app's has changed, so that there is nothing to prove.
    assert_eq!(provisioner.create(&spec_of(&app)).await.unwrap().outcome, Outcome::Unchanged);
    let mut more = spec_of(&app);
    more.connections = Some(11);
    for spec in [&more, &spec_of(&app), &spec_of(&app)] {
        let error = provisioner.create(spec).await.unwrap_err();
        assert_eq!(error.code(), "isolation_broken", "{error}");
        let status = provisioner.status(Some(&app.name)).await.unwrap();
        assert!(status.apps[0].drift.iter().any(|step| matches!(step, Step::Prove { .. })), "{status:?}");
    }
    provisioner.create(&spec_of(&neighbour)).await.unwrap();
    assert_eq!(provisioner.create(&spec_of(&app)).await.unwrap().outcome, Outcome::Configured);
    assert_eq!(provisioner.create(&spec_of(&app)).await.unwrap().outcome, Outcome::Unchanged);
    more.connections = Some(10);
    provisioner.create(&more).await.unwrap();
    assert_eq!(server.catalog().await, reference);
}

#[tokio::test]
async fn the_proof_is_not_in_the_way_of_what_an_app_has() {
    let server = TestServer::shared().await;
    let provisioner = server.provisioner().await;
    let app = server.made("proof").await;
    let session = provisioner.connection(&app.name).await.unwrap().connect().await.unwrap();
    session.batch_execute("CREATE TABLE shareddb_proof (x int); BEGIN; LOCK TABLE shareddb_proof").await.unwrap();
    let mut more = spec_of(&app);
    more.connections = Some(12);
    assert_eq!(provisioner.create(&more).await.unwrap().outcome, Outcome::Configured);
}

#[tokio::test]
async fn a_full_server_puts_nothing_unproven_into_service() {
    let server = TestServer::start().await;
    let app = unique("full");
    let reserved: usize = server.value("postgres", "SHOW superuser_reserved_connections").await.parse().unwrap();
    let slots: usize = server.value("postgres", "SHOW max_connections").await.parse().unwrap();
    let mut sessions = Vec::new();
    for _ in 0..slots - reserved {
        sessions.push(server.session("postgres").await);
    }
    let error = server.provisioner().await.create(&AppSpec::new(app.clone())).await.unwrap_err();
    assert_eq!(error.code(), "server_full", "{error}");
    assert_eq!(server.provisioner().await.connection(&app).await.unwrap_err().code(), "secret_missing");
    drop(sessions);
    let outcome = server.provisioner().await.create(&AppSpec::new(app)).await.unwrap().outcome;
    assert_eq!(outcome, Outcome::Configured);
}
