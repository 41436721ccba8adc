//! What `create` makes, and that it makes it once.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use secrecy::ExposeSecret as _;
use shareddb_core::{AppSpec, DirectoryStore, Outcome, SecretStore as _, Step};
use shareddb_tests::command::run;
use shareddb_tests::server::{password, unique, value};
use shareddb_tests::{Output, TestServer};

#[tokio::test]
async fn everything_an_app_owns_has_the_guides_names() {
    let server = TestServer::shared().await;
    let name = "guide-app".parse().unwrap();
    let report = server.provisioner().await.create(&AppSpec::new(name)).await.unwrap();
    assert_eq!(report.outcome, Outcome::Created);

    let app = report.app;
    assert_eq!(app.database.as_str(), "guide_app_db");
    assert_eq!(app.login(shareddb_core::Slot::One).as_str(), "guide_app_user");
    assert_eq!(app.secret.as_str(), "guide-app-db-secret");
    assert_eq!(
        server
            .value("guide_app_db", "SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'guide_app'")
            .await,
        "guide_app_db"
    );
    let owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'guide_app_db'";
    assert_eq!(server.value("postgres", owner).await, "postgres");
}

#[tokio::test]
async fn the_secret_has_every_key_and_each_form_logs_in_through_libpq() {
    let server = TestServer::shared().await;
    let name = unique("secret");
    server.app(&name).await;
    let store = server.secrets();
    let secret = store.load(&format!("{name}-db-secret").parse().unwrap()).await.unwrap().unwrap();
    let keys: BTreeSet<&str> = secret.data.keys().map(String::as_str).collect();
    let expected = [
        "DATABASE_URL",
        "DB_HOST",
        "DB_NAME",
        "DB_PASSWORD",
        "DB_PORT",
        "DB_SCHEMA",
        "DB_USER",
        "database",
        "generation",
        "host",
        "password",
        "pg_service.conf",
        "port",
        "provider",
        "rotated_at",
        "type",
        "uri",
        "username",
    ];
    assert_eq!(keys, expected.into());

    for key in ["DATABASE_URL", "uri"] {
        psql(server, &[secret.data[key].expose_secret()], &[]).expect_code(0);
    }
    let folder = server.local().home().secrets_dir().join(format!("{name}-db-secret"));
    let service_file = folder.join("pg_service.conf");
    let service = [("PGSERVICEFILE", service_file.to_str().unwrap())];
    psql(server, &[&format!("service={name}")], &service).expect_code(0);
    let plain = |key: &str| secret.data[key].expose_secret().to_owned();
    let variables = [
        ("PGHOST", plain("DB_HOST")),
        ("PGPORT", plain("DB_PORT")),
        ("PGDATABASE", plain("DB_NAME")),
        ("PGUSER", plain("DB_USER")),
        ("PGPASSWORD", plain("DB_PASSWORD")),
    ];
    psql(server, &[], &variables.each_ref().map(|(name, value)| (*name, value.as_str()))).expect_code(0);
}

fn psql(server: &TestServer, args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(server.endpoint().binaries.program("psql"));
    command.env_clear().envs(env.iter().copied()).args(["-X", "-c", "SELECT 1"]).args(args);
    run(&mut command)
}

#[tokio::test]
async fn the_folder_of_secrets_is_a_service_binding_root() {
    let server = TestServer::start().await;
    let name = unique("binding");
    server.app(&name).await;
    let root = server.local().home().secrets_dir();
    let config = shareddb_core::ConnectionConfig::from_vars(|variable| {
        (variable == "SERVICE_BINDING_ROOT").then(|| root.to_str().unwrap().to_owned())
    });
    let session = config.unwrap().connect().await.unwrap();
    assert!(value(&session, "SELECT current_user").await.starts_with("binding_"));
}

#[tokio::test]
async fn chosen_names_limit_and_settings_are_kept_by_a_bare_create() {
    let server = TestServer::shared().await;
    let provisioner = server.provisioner().await;
    let name = unique("chosen");
    let mut spec = AppSpec::new(name.clone());
    spec.database = Some("chosen_prod_db".parse().unwrap());
    spec.user = Some("chosen_prod_user".parse().unwrap());
    spec.connections = Some(3);
    spec.search_path = Some(vec!["public".parse().unwrap()]);
    spec.settings = Some([("work_mem".parse().unwrap(), "7MB".to_owned())].into());
    assert_eq!(provisioner.create(&spec).await.unwrap().outcome, Outcome::Created);
    let bare = AppSpec::new(name.clone());
    assert_eq!(provisioner.create(&bare).await.unwrap().outcome, Outcome::Unchanged);

    let config = provisioner.connection(&name).await.unwrap();
    assert_eq!((config.database(), config.user()), ("chosen_prod_db", "chosen_prod_user"));
    let session = config.connect().await.unwrap();
    assert_eq!(value(&session, "SHOW work_mem").await, "7MB");
    assert_eq!(value(&session, "SHOW search_path").await, "public");

    let mut wider = AppSpec::new(name.clone());
    wider.connections = Some(5);
    wider.settings = Some([].into());
    assert_eq!(provisioner.create(&wider).await.unwrap().outcome, Outcome::Configured);
    let session = config.connect().await.unwrap();
    assert_ne!(value(&session, "SHOW work_mem").await, "7MB");
    assert_eq!(provisioner.create(&bare).await.unwrap().app.connections, 5);

    let mut other = AppSpec::new(name);
    other.database = Some("other_db".parse().unwrap());
    assert_eq!(provisioner.create(&other).await.unwrap_err().code(), "name_recorded");
}

#[tokio::test]
async fn a_second_run_writes_nothing() {
    let server = TestServer::start().await;
    let name = unique("twice");
    server.app(&name).await;
    let catalog = server.catalog().await;
    let folder = server.local().home().secrets_dir();
    let before = tree(&folder);
    let position = server.log_position();

    let report = server.provisioner().await.create(&AppSpec::new(name)).await.unwrap();
    assert_eq!(report.outcome, Outcome::Unchanged);
    assert!(report.steps.is_empty());
    let log = server.log_since(position);
    let statements: Vec<&str> =
        log.lines().filter_map(|line| line.split_once("LOG:  ").map(|(_, text)| text)).collect();
    assert!(statements.len() >= 5, "the log shows the reading:\n{log}");
    for statement in statements {
        let text = statement.split_once(": ").map_or(statement, |(_, text)| text).trim_start();
        assert!(text.starts_with("SELECT"), "a write: {statement}");
    }
    assert_eq!(server.catalog().await, catalog);
    assert_eq!(tree(&folder), before);
}

/// Every path under a folder with its time of change.
fn tree(folder: &std::path::Path) -> BTreeSet<(std::path::PathBuf, std::time::SystemTime)> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let meta = fs::symlink_metadata(entry.path()).unwrap();
            if meta.is_dir() {
                folders.push(entry.path());
            }
            // The lock's file is opened to be locked.
            found.insert((entry.path(), meta.modified().unwrap()));
        }
    }
    found
}

#[tokio::test]
async fn extensions_of_the_admin_are_where_the_app_cannot_create() {
    let server = TestServer::shared().await;
    let provisioner = server.provisioner().await;
    let name = unique("ext");
    let mut spec = AppSpec::new(name.clone());
    spec.extensions = Some(["pg_trgm", "earthdistance", "postgres_fdw"].map(|name| name.parse().unwrap()).into());
    provisioner.create(&spec).await.unwrap();
    assert_eq!(provisioner.create(&AppSpec::new(name.clone())).await.unwrap().outcome, Outcome::Unchanged);

    let session = provisioner.connection(&name).await.unwrap().connect().await.unwrap();
    assert_eq!(value(&session, "SELECT similarity('a', 'a')::text").await, "1");
    let refused =
        session.simple_query("CREATE FUNCTION shareddb_extensions.f() RETURNS int LANGUAGE sql RETURN 1").await;
    assert_eq!(refused.unwrap_err().code().unwrap().code(), "42501");

    let mut unknown = AppSpec::new(unique("ext"));
    unknown.extensions = Some(["no_such_extension".parse().unwrap()].into());
    let before = server.value("postgres", "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'ext_1%'").await;
    let error = provisioner.create(&unknown).await.unwrap_err();
    assert_eq!(error.code(), "extension_missing");
    assert_eq!(server.value("postgres", "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'ext_1%'").await, before);

    let mut fewer = AppSpec::new(name);
    fewer.extensions = Some(["pg_trgm".parse().unwrap()].into());
    provisioner.create(&fewer).await.unwrap();
    assert_eq!(value(&session, "SELECT count(*) FROM pg_extension WHERE extname = 'postgres_fdw'").await, "1", "kept");
}

#[tokio::test]
async fn settings_the_server_does_not_know_are_refused_before_anything_exists() {
    let server = TestServer::shared().await;
    let provisioner = server.provisioner().await;
    for (setting, value) in [("no_such_setting", "1"), ("work_mem", "a lot"), ("statement_timeout", "'; DROP ROLE x")] {
        let name = unique("setting");
        let mut spec = AppSpec::new(name.clone());
        spec.settings = Some([(setting.parse().unwrap(), value.to_owned())].into());
        assert_eq!(provisioner.create(&spec).await.unwrap_err().code(), "setting_invalid");
        assert_eq!(provisioner.app(&name).await.unwrap_err().code(), "app_not_found");
    }
}

#[tokio::test]
async fn an_app_at_its_limit_is_still_repaired_and_said_to_be_proven_in_part() {
    let server = TestServer::shared().await;
    let provisioner = server.provisioner().await;
    let name = unique("limit");
    let mut spec = AppSpec::new(name.clone());
    spec.connections = Some(1);
    provisioner.create(&spec).await.unwrap();
    let config = provisioner.connection(&name).await.unwrap();
    let _busy = config.connect().await.unwrap();
    let database = config.database();
    server.sql("postgres", &format!("GRANT CONNECT ON DATABASE {database} TO PUBLIC")).await;
    let report = provisioner.create(&AppSpec::new(name)).await.unwrap();
    assert_eq!(report.proof, Some(shareddb_core::Proof::Incomplete));
    assert_eq!(report.outcome, Outcome::Configured);
}

#[tokio::test]
async fn a_plan_is_applied_as_it_was_shown_or_not_at_all() {
    let server = TestServer::shared().await;
    let provisioner = server.provisioner().await;
    let spec = AppSpec::new(unique("plan"));
    let plan = provisioner.plan(&spec).await.unwrap();
    assert!(plan.steps.iter().any(|step| matches!(step, Step::CreateDatabase { .. })));
    assert_eq!(provisioner.plan(&spec).await.unwrap(), plan, "planning changes nothing");
    assert_eq!(provisioner.apply(&plan).await.unwrap().outcome, Outcome::Created);
    assert_eq!(provisioner.apply(&plan).await.unwrap().outcome, Outcome::Unchanged);

    server.sql("postgres", &format!("ALTER ROLE {} CONNECTION LIMIT 1", plan.app.logins[0])).await;
    let repair = provisioner.plan(&spec).await.unwrap();
    server.sql("postgres", &format!("ALTER ROLE {} CREATEDB", plan.app.logins[1])).await;
    let error = provisioner.apply(&repair).await.unwrap_err();
    assert_eq!(error.code(), "plan_stale");
    assert!(!error.is_retryable(), "the same plan can never be applied");

    let goodbye = provisioner.plan_drop(&spec.name).await.unwrap();
    assert_eq!(provisioner.apply(&goodbye).await.unwrap().outcome, Outcome::Dropped);
    assert_eq!(provisioner.app(&spec.name).await.unwrap_err().code(), "app_not_found");
}

#[tokio::test]
async fn drop_takes_everything_and_nothing_else() {
    let server = TestServer::start().await;
    let provisioner = server.provisioner().await;
    server.app(&"neighbour".parse().unwrap()).await;
    let before = server.catalog().await;
    let name = unique("gone");
    let config = server.app(&name).await;
    let session = config.connect().await.unwrap();
    session.simple_query("CREATE TABLE t AS SELECT 1 AS x").await.unwrap();

    assert_eq!(provisioner.drop(&name, "another").await.unwrap_err().code(), "confirmation_required");
    assert_eq!(value(&session, "SELECT count(*) FROM t").await, "1");
    assert_eq!(provisioner.drop(&name, name.as_str()).await.unwrap().outcome, Outcome::Dropped);
    assert_eq!(server.catalog().await, before);
    let secret = format!("{name}-db-secret").parse().unwrap();
    assert!(server.secrets().load(&secret).await.unwrap().is_none());
    assert!(config.connect().await.is_err());
    assert_eq!(provisioner.drop(&name, name.as_str()).await.unwrap_err().code(), "app_not_found");
}

#[tokio::test]
async fn two_apps_share_nothing() {
    let server = TestServer::shared().await;
    let (one, two) = (unique("pair"), unique("pair"));
    let (one, two) = (server.app(&one).await, server.app(&two).await);
    assert_ne!(password(&one), password(&two));
    assert_ne!(one.user(), two.user());
    let crossed = two.with_password(password(&one).into());
    assert_eq!(crossed.connect().await.unwrap_err().code(), "password_rejected");
}

#[tokio::test]
async fn a_secret_that_is_not_the_apps_is_left_alone() {
    let server = TestServer::shared().await;
    let name = unique("foreign");
    let secret = format!("{name}-db-secret").parse().unwrap();
    let store: DirectoryStore = server.secrets();
    let data = [("MINE".to_owned(), "x".to_owned().into())].into();
    store.create(&secret, &"somebody".parse().unwrap(), &data).await.unwrap();
    let error = server.provisioner().await.create(&AppSpec::new(name.clone())).await.unwrap_err();
    assert_eq!(error.code(), "secret_taken");
    assert_eq!(server.provisioner().await.app(&name).await.unwrap_err().code(), "app_not_found");
    assert!(store.load(&secret).await.unwrap().unwrap().data.contains_key("MINE"));
}
