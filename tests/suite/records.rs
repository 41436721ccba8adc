//! Records that are damaged, misplaced or false.

use shareddb_core::{AppSpec, Outcome};
use shareddb_tests::TestServer;
use shareddb_tests::server::{spec_of, unique};

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

#[tokio::test]
async fn a_record_that_cannot_be_read_stops_its_own_app_only() {
    let server = TestServer::start().await;
    let provisioner = server.provisioner().await;
    let (good, bad) = (server.made("good").await, server.made("bad").await);
    let whole = bad.mark().to_string();
    for (what, damaged) in [
        ("damaged", whole[..whole.len() - 1].to_owned()),
        ("newer", whole.replace("\"version\":1", "\"version\":2").replace("\"user\"", "\"login\"")),
        ("impossible", whole.replace("\"connections\":10", "\"connections\":0")),
    ] {
        for (kind, object) in [("ROLE", &bad.owner.to_string()), ("DATABASE", &bad.database.to_string())] {
            server.sql("postgres", &format!("COMMENT ON {kind} {object} IS '{damaged}'")).await;
            assert_eq!(provisioner.create(&spec_of(&good)).await.unwrap().outcome, Outcome::Unchanged, "{what} {kind}");
            let error = provisioner.create(&spec_of(&bad)).await.unwrap_err();
            assert_eq!(error.code(), "mark_unreadable", "{what} {kind}: {error}");
            assert!(provisioner.list().await.unwrap().iter().any(|line| line.app == good), "{what} {kind}");
            let status = provisioner.status(None).await.unwrap();
            assert!(status.server.notices.iter().any(|notice| notice.contains(object.as_str())), "{what}: {status:?}");
        }
        let gone = provisioner.app(&bad.name).await.unwrap_err();
        assert!(gone.code() == "app_not_found" && gone.hint().unwrap().contains("cannot be read"), "{gone:?}");
        for (kind, object) in [("ROLE", &bad.owner.to_string()), ("DATABASE", &bad.database.to_string())] {
            server.sql("postgres", &format!("COMMENT ON {kind} {object} IS '{whole}'")).await;
        }
        assert!(provisioner.plan(&spec_of(&bad)).await.unwrap().is_empty(), "{what}");
    }
}

#[tokio::test]
async fn a_record_cannot_claim_the_roles_of_another_app() {
    let server = TestServer::start().await;
    let provisioner = server.provisioner().await;
    let (app, victim) = (server.made("thief").await, server.made("victim").await);
    let claim = app.mark().to_string().replace(app.user.as_str(), victim.user.as_str());
    server.sql("postgres", &format!("COMMENT ON ROLE {} IS '{claim}'", app.owner)).await;
    assert_eq!(provisioner.create(&spec_of(&app)).await.unwrap_err().code(), "name_taken");
}

#[tokio::test]
async fn records_that_contradict_each_other_stop_both_apps() {
    let server = TestServer::start().await;
    let provisioner = server.provisioner().await;
    let app = server.made("true").await;
    let config = provisioner.connection(&app.name).await.unwrap();
    let other = AppSpec::new(unique("false"));
    let claim = app.mark().to_string().replace(&format!("\"{}\"", app.name), &format!("\"{}\"", other.name));
    server.sql("postgres", &format!("COMMENT ON DATABASE {} IS '{claim}'", app.database)).await;
    let drop = provisioner.drop(&other.name, other.name.as_str()).await.unwrap_err();
    let create = provisioner.create(&other).await.unwrap_err();
    assert_eq!((drop.code(), create.code()), ("name_taken", "name_taken"), "{drop} {create}");
    assert_eq!(provisioner.create(&spec_of(&app)).await.unwrap_err().code(), "name_taken");
    config.connect().await.unwrap();
}
