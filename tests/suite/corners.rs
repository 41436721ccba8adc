//! Corners of the world in which an app may be found.

use shareddb_core::{App, AppSpec, Error, Outcome, Slot, Step};
use shareddb_tests::server::{unique, value};
use shareddb_tests::{TestServer, refusal};

use crate::isolation::ALL_MAY_TRY;

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

/// Makes an app, and gives its names.
async fn app_on(server: &TestServer, stem: &str) -> App {
    let name = unique(stem);
    server.app(&name).await;
    server.provisioner().await.app(&name).await.unwrap()
}

fn spec_of(app: &App) -> AppSpec {
    AppSpec::new(app.name.clone())
}

/// The statement that a hint ends with.
fn statement(error: &Error) -> String {
    error.hint().unwrap_or_else(|| panic!("{error} has no hint")).rsplit_once(": ").unwrap().1.to_owned()
}

#[tokio::test]
async fn a_drop_takes_no_database_that_is_somebody_elses() {
    let server = TestServer::start().await;
    let provisioner = server.provisioner().await;
    let app = app_on(&server, "mine").await;
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
    let (app, other) = (app_on(&server, "mine").await, app_on(&server, "other").await);
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
    let app = app_on(&server, "gone").await;
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
    let app = app_on(&server, "two").await;
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

#[tokio::test]
async fn records_that_contradict_each_other_stop_both_apps() {
    let server = TestServer::start().await;
    let provisioner = server.provisioner().await;
    let app = app_on(&server, "true").await;
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

#[tokio::test]
async fn rights_that_others_gave_hinder_no_drop() {
    let server = TestServer::start().await;
    let provisioner = server.provisioner().await;
    let (app, other) = (app_on(&server, "victim").await, app_on(&server, "generous").await);
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
    let app = app_on(&server, "abroad").await;
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

#[tokio::test]
async fn a_proof_that_failed_is_tried_again() {
    let server = TestServer::start().await;
    server.set_access_rules(ALL_MAY_TRY).await;
    let provisioner = server.provisioner().await;
    let (app, neighbour) = (app_on(&server, "proven").await, app_on(&server, "neighbour").await);
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
    let app = app_on(server, "proof").await;
    let session = provisioner.connection(&app.name).await.unwrap().connect().await.unwrap();
    session.batch_execute("CREATE TABLE shareddb_proof (x int); BEGIN; LOCK TABLE shareddb_proof").await.unwrap();
    let mut more = spec_of(&app);
    more.connections = Some(12);
    assert_eq!(provisioner.create(&more).await.unwrap().outcome, Outcome::Configured);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_stops_its_own_app_only() {
    let server = TestServer::start().await;
    let provisioner = server.provisioner().await;
    let (good, bad) = (app_on(&server, "good").await, app_on(&server, "bad").await);
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
    let (app, victim) = (app_on(&server, "thief").await, app_on(&server, "victim").await);
    let claim = app.mark().to_string().replace(app.user.as_str(), victim.user.as_str());
    server.sql("postgres", &format!("COMMENT ON ROLE {} IS '{claim}'", app.owner)).await;
    assert_eq!(provisioner.create(&spec_of(&app)).await.unwrap_err().code(), "name_taken");
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
