//! Each kind of drift is found, shown and repaired by running `create` again.

use std::fs;

use secrecy::SecretString;
use shareddb_core::{App, AppSpec, Outcome, Plan, SecretStore as _, Slot, Step};
use shareddb_tests::TestServer;
use shareddb_tests::server::{password, unique, value};

/// What is done to an app, as statements of the admin with its names for `{…}`, and how a step of the repair is known.
pub(crate) struct Drift {
    pub(crate) what: &'static str,
    /// In the maintenance database, or in the app's own.
    pub(crate) inside: bool,
    pub(crate) sql: &'static str,
    repaired_by: fn(&Step) -> bool,
}

macro_rules! drift {
    ($what:literal, $sql:literal, $pattern:pat) => {
        Drift { what: $what, inside: false, sql: $sql, repaired_by: |step| matches!(step, $pattern) }
    };
    (inside $what:literal, $sql:literal, $pattern:pat) => {
        Drift { what: $what, inside: true, sql: $sql, repaired_by: |step| matches!(step, $pattern) }
    };
}

pub(crate) fn drifts() -> Vec<Drift> {
    vec![
        drift!("password changed", "ALTER ROLE {user} PASSWORD 'other'", Step::SetPassword { .. }),
        drift!("password removed", "ALTER ROLE {user} PASSWORD NULL", Step::SetPassword { .. }),
        drift!("grant removed", "REVOKE CONNECT ON DATABASE {db} FROM {db}", Step::SetAccess { .. }),
        drift!(
            "grant that may be passed on",
            "GRANT CONNECT ON DATABASE {db} TO {db} WITH GRANT OPTION",
            Step::SetAccess { .. }
        ),
        drift!("grant to a stranger", "GRANT CONNECT ON DATABASE {db} TO drift_stranger", Step::SetAccess { .. }),
        drift!(
            "right on a database of nobody's",
            "GRANT CONNECT ON DATABASE template1 TO {user}",
            Step::RevokeAccess { .. }
        ),
        drift!(
            "right on another app's database",
            "GRANT TEMPORARY ON DATABASE drift_other TO {db}",
            Step::RevokeAccess { .. }
        ),
        drift!(
            "right on another database by the grant of a third role",
            "SET ROLE drift_stranger; GRANT CONNECT ON DATABASE drift_other TO {user}",
            Step::RevokeAccess { .. }
        ),
        drift!("CONNECT for PUBLIC", "GRANT CONNECT ON DATABASE {db} TO PUBLIC", Step::SetAccess { .. }),
        drift!("owner changed to the app", "ALTER DATABASE {db} OWNER TO {db}", Step::OwnDatabase { .. }),
        drift!("owner changed to a stranger", "ALTER DATABASE {db} OWNER TO drift_stranger", Step::OwnDatabase { .. }),
        drift!("role setting removed", "ALTER ROLE {user} RESET role", Step::SetForRole { .. }),
        drift!("role setting added", "ALTER ROLE {user} SET work_mem = '1GB'", Step::ResetForRole { .. }),
        drift!(
            "search path changed",
            "ALTER ROLE {user2} IN DATABASE {db} SET search_path = public",
            Step::SetSearchPath { .. }
        ),
        drift!("database setting added", "ALTER DATABASE {db} SET search_path = public", Step::ResetForDatabase { .. }),
        drift!("connection limit of a login", "ALTER ROLE {user} CONNECTION LIMIT 1", Step::AlterRole { .. }),
        drift!(
            "connection limit of the database",
            "ALTER DATABASE {db} CONNECTION LIMIT 1",
            Step::LimitDatabase { .. }
        ),
        drift!("database made a template", "ALTER DATABASE {db} IS_TEMPLATE true", Step::LimitDatabase { .. }),
        drift!("database closed", "ALTER DATABASE {db} ALLOW_CONNECTIONS false", Step::OpenDatabase { .. }),
        drift!("login with an attribute", "ALTER ROLE {user} CREATEROLE CREATEDB", Step::AlterRole { .. }),
        drift!("login that cannot log in", "ALTER ROLE {user} NOLOGIN", Step::AlterRole { .. }),
        drift!("login in a foreign group", "GRANT pg_read_all_data TO {user}", Step::RevokeMembership { .. }),
        drift!(
            "login with ADMIN on its group",
            "GRANT {db} TO {user} WITH ADMIN OPTION",
            Step::RevokeMembership { .. }
        ),
        drift!("stranger in the owner role", "GRANT {db} TO drift_stranger", Step::RevokeMembership { .. }),
        drift!("stranger in a login", "GRANT {user} TO drift_stranger", Step::RevokeMembership { .. }),
        drift!("login out of its group", "REVOKE {db} FROM {user}", Step::GrantMembership { .. }),
        drift!("owner made a login", "ALTER ROLE {db} LOGIN PASSWORD 'x'", Step::AlterRole { .. }),
        drift!("owner made a superuser", "ALTER ROLE {db} SUPERUSER", Step::AlterRole { .. }),
        drift!("second login dropped", "DROP ROLE {user2}", Step::CreateLogin { .. }),
        drift!(
            "maintenance login left open",
            "ALTER ROLE {maint} LOGIN BYPASSRLS PASSWORD 'x'",
            Step::AlterRole { .. }
        ),
        drift!("password past its end", "ALTER ROLE {user} VALID UNTIL '2020-01-01'", Step::EndExpiry { .. }),
        drift!("password with an end", "ALTER ROLE {user} VALID UNTIL '2100-01-01'", Step::EndExpiry { .. }),
        drift!(inside "schema dropped", "DROP SCHEMA {schema} CASCADE", Step::CreateSchema { .. }),
        drift!(inside "schema of somebody else", "ALTER SCHEMA {schema} OWNER TO postgres", Step::CreateSchema { .. }),
        drift!(inside "public of somebody else", "ALTER SCHEMA public OWNER TO postgres", Step::OwnPublicSchema { .. }),
        drift!(inside "objects of a login", "CREATE TABLE public.stray (x int); ALTER TABLE public.stray OWNER TO {user}", Step::ReassignStrays { .. }),
        drift!("PUBLIC back on postgres", "GRANT CONNECT ON DATABASE postgres TO PUBLIC", Step::CloseToPublic { .. }),
    ]
}

pub(crate) fn fill(sql: &str, app: &App) -> String {
    sql.replace("{db}", app.database.as_str())
        .replace("{user}", app.login(Slot::One).as_str())
        .replace("{user2}", app.login(Slot::Two).as_str())
        .replace("{maint}", app.maintenance.as_str())
        .replace("{schema}", app.schema.as_str())
}

#[tokio::test]
async fn every_drift_in_the_server_is_found_and_repaired() {
    let server = TestServer::start().await;
    let provisioner = server.provisioner().await;
    server.sql("postgres", "CREATE ROLE drift_stranger").await;
    server.sql("postgres", "CREATE DATABASE drift_other").await;
    server.sql("postgres", "REVOKE ALL ON DATABASE drift_other FROM PUBLIC").await;
    server.sql("postgres", "GRANT CONNECT ON DATABASE drift_other TO drift_stranger WITH GRANT OPTION").await;
    let name = unique("drift");
    let config = server.app(&name).await;
    let app = provisioner.app(&name).await.unwrap();
    let spec = AppSpec::new(name.clone());
    let reference = server.catalog().await;
    for drift in drifts() {
        let what = drift.what;
        let database = if drift.inside { app.database.as_str() } else { "postgres" };
        server.sql(database, &fill(drift.sql, &app)).await;

        let plan: Plan = provisioner.plan(&spec).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(plan.steps.iter().any(drift.repaired_by), "{what}:\n{plan}");
        let status = provisioner.status(Some(&name)).await.unwrap();
        assert_eq!(status.apps[0].drift, plan.steps, "{what}");

        let report = provisioner.create(&spec).await.unwrap_or_else(|error| panic!("{what}: {error}\n{plan}"));
        assert_eq!(report.outcome, Outcome::Configured, "{what}");
        assert!(provisioner.plan(&spec).await.unwrap().is_empty(), "{what} is repaired");
        if what == "objects of a login" {
            server.sql(app.database.as_str(), "DROP TABLE public.stray").await;
        }
        assert_eq!(server.catalog().await, reference, "{what}");
        let session = config.connect().await.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(value(&session, "SELECT current_user").await, app.owner.as_str(), "{what}");
    }
}

#[tokio::test]
async fn a_deleted_secret_is_issued_anew_and_running_sessions_go_on() {
    let server = TestServer::shared().await;
    let provisioner = server.provisioner().await;
    let name = unique("lost");
    let config = server.app(&name).await;
    let app = provisioner.app(&name).await.unwrap();
    let running = config.connect().await.unwrap();
    let store = server.secrets();
    store.delete(&app.secret).await.unwrap();

    let report = provisioner.create(&AppSpec::new(name.clone())).await.unwrap();
    assert_eq!(report.outcome, Outcome::Configured);
    let new = provisioner.connection(&name).await.unwrap();
    assert_eq!(new.user(), app.login(Slot::Two).as_str(), "the login that nobody is using");
    assert_eq!(value(&running, "SELECT 1").await, "1");
    // Programs that still have the old password can even log in again.
    config.connect().await.unwrap();
    let session = new.connect().await.unwrap();
    session.simple_query("CREATE TABLE made_by_two (x int)").await.unwrap();
    running.simple_query("ALTER TABLE made_by_two ADD COLUMN y int").await.unwrap();
}

#[tokio::test]
async fn an_edited_secret_is_mended_and_keeps_a_password_that_works() {
    let server = TestServer::shared().await;
    let provisioner = server.provisioner().await;
    let name = unique("edited");
    let config = server.app(&name).await;
    let app = provisioner.app(&name).await.unwrap();
    let store = server.secrets();
    let spec = AppSpec::new(name.clone());

    // One key: the rest tells that the password is right.
    edit(&store, &app, &[("DB_HOST", "elsewhere")]).await;
    assert!(!provisioner.plan(&spec).await.unwrap().is_empty());
    assert_eq!(provisioner.create(&spec).await.unwrap().outcome, Outcome::Configured);
    let mended = provisioner.connection(&name).await.unwrap();
    assert_eq!((mended.host(), password(&mended)), (config.host(), password(&config)));

    // The password in one key: nobody knows which is right, so a fresh login gets a new one.
    edit(&store, &app, &[("DB_PASSWORD", "wrong")]).await;
    provisioner.create(&spec).await.unwrap();
    let fresh = provisioner.connection(&name).await.unwrap();
    assert_eq!(fresh.user(), app.login(Slot::Two).as_str());
    fresh.connect().await.unwrap();
    config.connect().await.unwrap();

    // A key of somebody else stays.
    edit(&store, &app, &[("MINE", "kept"), ("uri", "postgresql://nonsense")]).await;
    provisioner.create(&spec).await.unwrap();
    let secret = store.load(&app.secret).await.unwrap().unwrap();
    assert!(secret.data.contains_key("MINE"));
    assert_eq!(password(&provisioner.connection(&name).await.unwrap()), password(&fresh));
    assert!(provisioner.plan(&spec).await.unwrap().is_empty());
}

async fn edit(store: &shareddb_core::DirectoryStore, app: &App, changes: &[(&str, &str)]) {
    let stored = store.load(&app.secret).await.unwrap().unwrap();
    let changes = changes.iter().map(|(key, value)| ((*key).to_owned(), SecretString::from(*value)));
    store.replace(&app.secret, &app.name, &changes.collect(), &stored.version).await.unwrap();
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_stops_the_run() {
    let server = TestServer::shared().await;
    let provisioner = server.provisioner().await;
    let name = unique("unreadable");
    let config = server.app(&name).await;
    let folder = server.local().home().secrets_dir().join(format!("{name}-db-secret"));
    let file = fs::canonicalize(folder.join("DB_PASSWORD")).unwrap();
    let whole = fs::read(&file).unwrap();
    fs::write(&file, b"\xff\xfe").unwrap();
    let error = provisioner.create(&AppSpec::new(name.clone())).await.unwrap_err();
    assert_eq!(error.code(), "secret_unreadable", "{error}");
    fs::write(&file, whole).unwrap();
    assert!(provisioner.plan(&AppSpec::new(name)).await.unwrap().is_empty());
    config.connect().await.unwrap();
}

#[tokio::test]
async fn the_record_is_needed_on_both_sides() {
    let server = TestServer::shared().await;
    let provisioner = server.provisioner().await;
    let name = unique("record");
    server.app(&name).await;
    let app = provisioner.app(&name).await.unwrap();
    for (kind, object) in [("DATABASE", app.database.as_str()), ("ROLE", app.owner.as_str())] {
        server.sql("postgres", &format!("COMMENT ON {kind} {object} IS NULL")).await;
        let error = provisioner.create(&AppSpec::new(name.clone())).await.unwrap_err();
        assert_eq!(error.code(), "mark_lost", "{error}");
        // The hint is the statement that mends it.
        let statement = error.hint().unwrap().split_once(": ").unwrap().1.to_owned();
        server.sql("postgres", &statement).await;
        assert!(provisioner.plan(&AppSpec::new(name.clone())).await.unwrap().is_empty());
    }
}
