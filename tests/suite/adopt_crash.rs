//! Killed at any moment of an adoption, the app works with its old password, and the next run comes to the same end.

use std::sync::Arc;

use shareddb_core::{AppSpec, Provisioner};
use shareddb_tests::TestServer;
use shareddb_tests::command::{mortal, outlives};
use shareddb_tests::legacy::{Legacy, OPEN_RULES};
use shareddb_tests::proxy::{Loss, Proxy};
use shareddb_tests::server::value;
use shareddb_tests::watch::nothing_left;

async fn assert_works(server: &TestServer, legacy: &Legacy, when: &str) {
    let session = legacy.session(server).await;
    let counts = "SELECT (SELECT count(*) FROM mine) || ' ' || (SELECT count(*) FROM theirs) || ' ' || (SELECT count(*) FROM of_theirs)";
    assert_eq!(value(&session, counts).await, "1 1 1", "{when}");
    let config = shareddb_core::ConnectionConfig::from_directory(&legacy.folder(server)).unwrap();
    let secret = config.connect().await.unwrap_or_else(|error| panic!("{when}: {error}"));
    assert_eq!(value(&secret, counts).await, "1 1 1", "{when}: by the Secret");
}

async fn make(server: &TestServer) -> Legacy {
    let legacy = Legacy::make(server, "die").await;
    legacy.write_secret(server, &[("EXTRA", "e")]);
    legacy.session(server).await.batch_execute("CREATE TABLE mine AS SELECT 1 AS x").await.unwrap();
    server
        .sql(
            &legacy.database,
            &format!(
                "CREATE SCHEMA more; CREATE TABLE theirs AS SELECT 1 AS x; CREATE VIEW of_theirs AS SELECT * FROM theirs; \
                 CREATE TABLE more.table (x int); CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; \
                 GRANT ALL ON ALL TABLES IN SCHEMA public, more TO {}",
                legacy.user
            ),
        )
        .await;
    legacy
}

#[tokio::test]
async fn an_adoption_killed_at_any_event_is_finished_by_the_next_run() {
    let server = TestServer::start().await;
    server.set_access_rules(OPEN_RULES).await;
    let provisioner = server.provisioner().await;
    // An undisturbed one is what to come to.
    let first = make(&server).await;
    provisioner.create(&first.spec()).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
    let reference = first.state(&server).await;
    let provision = |name| AppSpec::new(name);
    for event in 0.. {
        let legacy = make(&server).await;
        let done = outlives(&mut mortal(server.home()), &legacy.name, "adopt", event);
        let when = format!("adoption killed at event {event}");
        assert_works(&server, &legacy, &when).await;
        // Once it is recorded, the plain command goes on, too.
        let recorded = provisioner.app(&legacy.name).await.is_ok();
        let spec = if recorded && event % 2 == 0 { provision(legacy.name.clone()) } else { legacy.spec() };
        provisioner.create(&spec).await.unwrap_or_else(|error| panic!("{when}: {error}: {:?}", error.causes()));
        assert_works(&server, &legacy, &when).await;
        nothing_left(&provisioner, &legacy.spec()).await;
        assert_eq!(legacy.state(&server).await, reference, "{when}");
        assert_eq!(legacy.key(&server, "EXTRA"), "e");
        provisioner.drop(&legacy.name, legacy.name.as_str()).await.unwrap();
        if done {
            println!("adoption: {event} crash points");
            assert!(event > 50, "every step has two events: {event}");
            break;
        }
    }
}

#[tokio::test]
async fn an_adoption_that_loses_any_answer_is_finished_by_the_next_run() {
    let server = TestServer::start().await;
    server.set_access_rules(OPEN_RULES).await;
    let proxy = Proxy::to(server.admin().port()).await;
    let admin = server.admin().with_port(proxy.port());
    let provisioner = Provisioner::new(server.server_with(admin, Arc::new(server.secrets())));
    let mut lost_swap = 0;
    for number in 0.. {
        let legacy = make(&server).await;
        let when = format!("adoption without answer {number}");
        proxy.arm(number, Loss::Answer);
        let result = provisioner.create(&legacy.spec()).await;
        let struck = proxy.disarm();
        if let Err(error) = &result {
            assert!(error.is_retryable(), "{when}: {error:?}");
            lost_swap += usize::from(provisioner.app(&legacy.name).await.is_ok());
        }
        assert_works(&server, &legacy, &when).await;
        provisioner
            .create(&legacy.spec())
            .await
            .unwrap_or_else(|error| panic!("{when}: {error}: {:?}", error.causes()));
        assert_works(&server, &legacy, &when).await;
        nothing_left(&provisioner, &legacy.spec()).await;
        assert_eq!(legacy.dependencies(&server, &legacy.user).await, "0", "{when}");
        provisioner.drop(&legacy.name, legacy.name.as_str()).await.unwrap();
        if !struck {
            println!("adoption: {number} answers lost, {lost_swap} of them after the swap");
            assert!(number > 30 && lost_swap > 3, "{number} {lost_swap}");
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_adoptions_at_once_one_does_it_and_the_other_finds_it_done() {
    let server = TestServer::start().await;
    server.set_access_rules(OPEN_RULES).await;
    let legacy = make(&server).await;
    let (one, two, spec) = (server.provisioner().await, server.provisioner().await, legacy.spec());
    let (one, two) = tokio::join!(one.create(&spec), two.create(&spec));
    let mut outcomes = [one.unwrap().outcome.as_str(), two.unwrap().outcome.as_str()];
    outcomes.sort_unstable();
    assert_eq!(outcomes, ["adopted", "unchanged"]);
    assert_works(&server, &legacy, "after both").await;
}
