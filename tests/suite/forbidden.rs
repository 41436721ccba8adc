//! What an app must not do is refused, statement by statement.

use shareddb_core::{AppSpec, Slot, Step};
use shareddb_tests::TestServer;
use shareddb_tests::refusal::{self, DONE};
use shareddb_tests::server::{unique, value};

use crate::isolation::{NO_RIGHT, Tenant};

/// Statements that an app must not get through, `{…}` being names of its own (`a_…`) and of a neighbour (`b_…`), and the
/// SQLSTATE of the refusal.
const FORBIDDEN: &[(&str, &str)] = &[
    // Becoming somebody else.
    ("SET ROLE {b_owner}", NO_RIGHT),
    ("SET ROLE {b_user}", NO_RIGHT),
    ("SET ROLE {a_maint}", NO_RIGHT),
    ("SET ROLE {a_user2}", NO_RIGHT),
    ("SET ROLE postgres", NO_RIGHT),
    ("SET ROLE shareddb_maint", NO_RIGHT),
    ("SET ROLE pg_read_server_files", NO_RIGHT),
    ("SET SESSION AUTHORIZATION postgres", NO_RIGHT),
    ("SET SESSION AUTHORIZATION {b_user}", NO_RIGHT),
    ("SET SESSION AUTHORIZATION {a_user2}", NO_RIGHT),
    ("GRANT {b_owner} TO {a_user}", NO_RIGHT),
    ("GRANT {a_owner} TO {b_user}", NO_RIGHT),
    ("GRANT {a_owner} TO {a_maint} WITH ADMIN OPTION", NO_RIGHT),
    ("GRANT postgres TO {a_owner}", NO_RIGHT),
    ("GRANT shareddb_maint TO {a_owner}", NO_RIGHT),
    ("GRANT pg_read_server_files TO {a_owner}", NO_RIGHT),
    ("GRANT pg_execute_server_program TO {a_user}", NO_RIGHT),
    ("REVOKE {b_owner} FROM {b_user}", NO_RIGHT),
    // Roles.
    ("CREATE ROLE wall_new", NO_RIGHT),
    ("CREATE USER wall_new PASSWORD 'x'", NO_RIGHT),
    ("DROP ROLE {b_user}", NO_RIGHT),
    ("DROP ROLE {a_maint}", NO_RIGHT),
    ("ALTER ROLE {b_user} PASSWORD 'x'", NO_RIGHT),
    ("ALTER ROLE {b_user} RENAME TO wall_new", NO_RIGHT),
    ("ALTER ROLE {b_user} SET role = none", NO_RIGHT),
    ("ALTER ROLE {b_owner} LOGIN", NO_RIGHT),
    ("ALTER ROLE postgres PASSWORD 'x'", NO_RIGHT),
    ("ALTER ROLE postgres SET search_path = public", NO_RIGHT),
    ("ALTER ROLE ALL SET search_path = public", NO_RIGHT),
    ("ALTER ROLE {a_maint} LOGIN PASSWORD 'x'", NO_RIGHT),
    ("ALTER ROLE {a_owner} LOGIN PASSWORD 'x'", NO_RIGHT),
    ("ALTER ROLE {a_user} SUPERUSER", NO_RIGHT),
    ("ALTER ROLE {a_user} CREATEROLE", NO_RIGHT),
    ("ALTER ROLE {a_user} CREATEDB", NO_RIGHT),
    ("ALTER ROLE {a_user} REPLICATION", NO_RIGHT),
    ("ALTER ROLE {a_user} BYPASSRLS", NO_RIGHT),
    ("ALTER ROLE {a_user} CONNECTION LIMIT -1", NO_RIGHT),
    ("ALTER ROLE {a_user} VALID UNTIL 'infinity'", NO_RIGHT),
    ("ALTER ROLE {a_user} SET temp_file_limit = -1", NO_RIGHT),
    ("COMMENT ON ROLE {a_owner} IS 'shareddb:{}'", NO_RIGHT),
    ("COMMENT ON ROLE {b_owner} IS NULL", NO_RIGHT),
    // Databases, its own among them.
    ("CREATE DATABASE wall_new", NO_RIGHT),
    ("CREATE DATABASE wall_new TEMPLATE {b_database}", NO_RIGHT),
    ("DROP DATABASE {a_database}", NO_RIGHT),
    ("DROP DATABASE {b_database}", NO_RIGHT),
    ("ALTER DATABASE {a_database} SET search_path = public", NO_RIGHT),
    ("ALTER DATABASE {a_database} SET role = postgres", NO_RIGHT),
    ("ALTER DATABASE {a_database} RENAME TO wall_new", NO_RIGHT),
    ("ALTER DATABASE {a_database} CONNECTION LIMIT -1", NO_RIGHT),
    ("ALTER DATABASE {a_database} IS_TEMPLATE true", NO_RIGHT),
    ("ALTER DATABASE {a_database} OWNER TO {a_owner}", NO_RIGHT),
    ("ALTER DATABASE {b_database} OWNER TO {a_owner}", NO_RIGHT),
    ("ALTER DATABASE postgres SET search_path = public", NO_RIGHT),
    ("COMMENT ON DATABASE {a_database} IS 'shareddb:{}'", NO_RIGHT),
    ("GRANT CONNECT ON DATABASE {b_database} TO {a_owner}", NO_RIGHT),
    ("GRANT CONNECT ON DATABASE postgres TO {a_owner}", NO_RIGHT),
    // The machine.
    ("COPY (SELECT 1) TO PROGRAM 'true'", NO_RIGHT),
    ("COPY (SELECT 1) TO '/tmp/shareddb-wall'", NO_RIGHT),
    ("CREATE TEMP TABLE f (x text); COPY f FROM '/etc/passwd'", NO_RIGHT),
    ("CREATE TEMP TABLE f (x text); COPY f FROM PROGRAM 'id'", NO_RIGHT),
    ("SELECT pg_read_file('PG_VERSION')", NO_RIGHT),
    ("SELECT pg_ls_dir('.')", NO_RIGHT),
    ("SELECT pg_ls_waldir()", NO_RIGHT),
    ("SELECT lo_import('/etc/passwd')", NO_RIGHT),
    ("SELECT lo_export(lo_create(0), '/tmp/shareddb-wall')", NO_RIGHT),
    ("CREATE FUNCTION f() RETURNS int LANGUAGE c AS 'libc', 'getpid'", NO_RIGHT),
    ("CREATE FUNCTION f(text) RETURNS text LANGUAGE internal AS 'lower'", NO_RIGHT),
    ("LOAD 'auto_explain'", NO_RIGHT),
    ("CREATE TABLESPACE wall LOCATION '/tmp'", NO_RIGHT),
    ("CREATE EXTENSION dblink", NO_RIGHT),
    ("CREATE EXTENSION postgres_fdw", NO_RIGHT),
    ("CREATE EXTENSION file_fdw", NO_RIGHT),
    ("CREATE EXTENSION pg_stat_statements", NO_RIGHT),
    // The server.
    ("ALTER SYSTEM SET log_statement = 'none'", NO_RIGHT),
    ("SELECT pg_reload_conf()", NO_RIGHT),
    ("SELECT pg_switch_wal()", NO_RIGHT),
    ("CHECKPOINT", NO_RIGHT),
    ("SET temp_file_limit = -1", NO_RIGHT),
    ("SET log_statement = 'none'", NO_RIGHT),
    ("SET session_replication_role = replica", NO_RIGHT),
    ("SET session_preload_libraries = 'auto_explain'", NO_RIGHT),
    ("CREATE EVENT TRIGGER wall ON ddl_command_start EXECUTE FUNCTION pg_catalog.now()", NO_RIGHT),
    ("CREATE PUBLICATION wall FOR ALL TABLES", NO_RIGHT),
    ("CREATE SUBSCRIPTION wall CONNECTION 'dbname=postgres' PUBLICATION x", NO_RIGHT),
    ("SELECT pg_create_physical_replication_slot('wall')", NO_RIGHT),
    ("SELECT pg_create_logical_replication_slot('wall', 'test_decoding')", NO_RIGHT),
    // What others have stored, and what they are doing.
    ("SELECT rolpassword FROM pg_authid", NO_RIGHT),
    ("SELECT passwd FROM pg_shadow", NO_RIGHT),
    ("SELECT * FROM pg_hba_file_rules", NO_RIGHT),
    ("SELECT * FROM pg_file_settings", NO_RIGHT),
    ("SELECT subconninfo FROM pg_subscription", NO_RIGHT),
    ("SELECT pg_database_size('{b_database}')", NO_RIGHT),
    ("SELECT pg_terminate_backend({b_pid})", NO_RIGHT),
    ("SELECT pg_cancel_backend({b_pid})", NO_RIGHT),
    ("SELECT pg_terminate_backend({admin_pid})", NO_RIGHT),
    ("SELECT pg_stat_reset_shared('bgwriter')", NO_RIGHT),
    ("CREATE FUNCTION pg_catalog.wall() RETURNS int LANGUAGE sql RETURN 1", NO_RIGHT),
    ("ALTER FUNCTION pg_catalog.lower(text) OWNER TO {a_owner}", NO_RIGHT),
    ("UPDATE pg_catalog.pg_class SET relname = relname", NO_RIGHT),
];

#[tokio::test]
async fn what_an_app_must_not_do_is_refused() {
    let server = TestServer::start().await;
    let (a, b) = (Tenant::new(&server, &unique("no")).await, Tenant::new(&server, &unique("no")).await);
    let neighbour = b.logins[0].connect().await.unwrap();
    let admin = server.session("postgres").await;
    let (b_pid, admin_pid) =
        (value(&neighbour, "SELECT pg_backend_pid()").await, value(&admin, "SELECT pg_backend_pid()").await);
    let names = [
        ("{a_owner}", a.app.owner.as_str()),
        ("{a_user}", a.app.login(Slot::One).as_str()),
        ("{a_user2}", a.app.login(Slot::Two).as_str()),
        ("{a_maint}", a.app.maintenance.as_str()),
        ("{a_database}", a.app.database.as_str()),
        ("{b_owner}", b.app.owner.as_str()),
        ("{b_user}", b.app.login(Slot::One).as_str()),
        ("{b_database}", b.app.database.as_str()),
        ("{b_pid}", &b_pid),
        ("{admin_pid}", &admin_pid),
    ];
    let before = server.catalog().await;
    for start in ["", "SET ROLE NONE"] {
        let session = a.logins[0].connect().await.unwrap();
        session.simple_query(start).await.unwrap();
        for (statement, expected) in FORBIDDEN {
            let statement = names.iter().fold((*statement).to_owned(), |text, (name, value)| text.replace(name, value));
            assert_eq!(refusal::statement(&session, &statement).await, *expected, "{start:?}, then: {statement}");
        }
    }
    assert_eq!(server.catalog().await, before);
    assert_eq!(value(&neighbour, "SELECT 1").await, "1");
    assert_eq!(value(&admin, "SELECT 1").await, "1");

    // What is not refused and has no effect.
    let session = a.logins[0].connect().await.unwrap();
    let grant = format!("GRANT CONNECT, CREATE ON DATABASE {} TO PUBLIC", a.app.database);
    assert_eq!(refusal::statement(&session, &grant).await, DONE);
    assert!(!session.take_warnings().is_empty());
    assert_eq!(server.catalog().await, before);
    // Statements of others are not to be seen.
    let running = format!("SELECT query FROM pg_stat_activity WHERE pid = {b_pid}");
    assert_eq!(value(&session, &running).await, "<insufficient privilege>");
}

#[tokio::test]
async fn what_an_app_may_do_to_its_own_login_is_drift_and_no_escape() {
    let server = TestServer::start().await;
    let name = unique("self");
    let a = Tenant::new(&server, &name).await;
    let before = server.catalog().await;
    let user = a.app.login(Slot::Two);
    let session = a.logins[1].connect().await.unwrap();
    for statement in [
        "SET ROLE NONE".to_owned(),
        format!("ALTER ROLE {user} RESET ALL"),
        format!("ALTER ROLE {user} SET search_path = pg_temp"),
        format!("ALTER ROLE {user} SET role = 'postgres'"),
        format!("ALTER ROLE {user} PASSWORD 'its own'"),
    ] {
        let answer = refusal::statement(&session, &statement).await;
        assert!(answer == DONE || answer == NO_RIGHT, "{statement}: {answer}");
    }
    let own = a.logins[1].clone().with_password("its own".into()).connect().await.unwrap();
    assert_eq!(value(&own, "SHOW temp_file_limit").await, "1GB");
    assert_eq!(value(&own, "SHOW is_superuser").await, "off");
    assert_ne!(value(&own, "SELECT current_user").await, "postgres");

    let provisioner = server.provisioner().await;
    let report = provisioner.create(&AppSpec::new(name.clone())).await.unwrap();
    assert!(report.steps.iter().any(|step| matches!(step, Step::SetPassword { .. })), "{:?}", report.steps);
    assert_eq!(server.catalog().await, before);
    a.logins[1].connect().await.unwrap();
}
