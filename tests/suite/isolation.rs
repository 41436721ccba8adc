//! An app reaches nothing of its neighbours, of the server's own databases, or of whoever administers it.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use shareddb_core::provision::{Event, Step};
use shareddb_core::{App, AppName, AppSpec, ConnectionConfig, Outcome, Provisioner, SecretStore as _, Slot};
use shareddb_tests::TestServer;
use shareddb_tests::refusal::{self, CONNECTED, DONE};
use shareddb_tests::server::{password, rows, unique, value};

/// What many servers have: every role with a password may try every database. Rights alone keep apps apart then.
const ALL_MAY_TRY: &str = "local all postgres peer\nhost all all 127.0.0.1/32 scram-sha-256\n";

/// SQLSTATE of a login that `pg_hba.conf` rejects.
const REJECTED: &str = "28000";
/// SQLSTATE of a password that is wrong, and of a role without one.
const NO_PASSWORD: &str = "28P01";
/// SQLSTATE of a right that is not there.
const NO_RIGHT: &str = "42501";

/// An app with both logins usable.
struct Tenant {
    app: App,
    /// How the two logins get in, first slot first.
    logins: [ConnectionConfig; 2],
}

impl Tenant {
    async fn new(server: &TestServer, name: &AppName) -> Self {
        let first = server.app(name).await;
        let provisioner = server.provisioner().await;
        let app = provisioner.app(name).await.unwrap();
        // A Secret that is lost while its login is in use is made anew for the other one.
        let busy = first.connect().await.unwrap();
        server.environment().secrets().delete(&app.secret).await.unwrap();
        provisioner.create(&AppSpec::new(name.clone())).await.unwrap();
        let second = provisioner.connection(name).await.unwrap();
        drop(busy);
        assert_eq!((first.user(), second.user()), (app.login(Slot::One).as_str(), app.login(Slot::Two).as_str()));
        Self { app, logins: [first, second] }
    }

    /// What both logins and every other role of the app's get from a database: one answer, or the two of them.
    async fn answers(&self, database: &str) -> Vec<String> {
        let mut answers = Vec::new();
        for login in &self.logins {
            answers.push(refusal::login(&login.clone().with_database(database)).await);
        }
        answers.dedup();
        answers
    }
}

#[tokio::test]
async fn each_of_the_two_walls_keeps_an_app_in_by_itself() {
    let server = TestServer::start().await;
    let (a, b) = (Tenant::new(&server, &unique("wall")).await, Tenant::new(&server, &unique("wall")).await);
    let b_database = b.app.database.as_str();
    let targets = [b_database, "postgres", "template1"];
    let session = b.logins[0].connect().await.unwrap();
    session.simple_query("CREATE TABLE kept AS SELECT 42 AS x").await.unwrap();

    for target in targets {
        assert_eq!(a.answers(target).await, [REJECTED], "both walls: {target}");
    }
    assert_eq!(a.answers("template0").await, [REJECTED]);
    assert_eq!(a.answers("no_such_database").await, [REJECTED], "names of databases cannot even be tried out");

    // Rights come back by accident: our pg_hba.conf is the wall that stands.
    let accident = format!(
        "GRANT CONNECT ON DATABASE postgres, template1 TO PUBLIC; GRANT ALL ON DATABASE {b_database} TO PUBLIC"
    );
    server.sql("postgres", &accident).await;
    for target in targets {
        assert_eq!(a.answers(target).await, [REJECTED], "pg_hba alone: {target}");
    }

    // Neither wall: the app does get in, so that the refusals above and below mean something.
    server.set_access_rules(ALL_MAY_TRY).await;
    for target in targets {
        assert_eq!(a.answers(target).await, [CONNECTED], "no wall: {target}");
    }
    let inside = a.logins[0].clone().with_database(b_database).connect().await.unwrap();
    assert_eq!(refusal::statement(&inside, "SELECT * FROM kept").await, "42P01", "the schema is not on its path");
    let table = format!("SELECT * FROM {}.kept", b.app.schema);
    assert_eq!(refusal::statement(&inside, &table).await, NO_RIGHT, "even so, rows stay out of reach");
    drop(inside);

    // Our rights under rules that let all in.
    let provisioner = server.provisioner().await;
    let repaired = provisioner.create(&AppSpec::new(b.app.name.clone())).await.unwrap();
    assert!(repaired.steps.iter().any(|step| matches!(step, Step::CloseToPublic { .. })));
    for target in targets {
        assert_eq!(a.answers(target).await, [NO_RIGHT], "rights alone: {target}");
    }
    assert_eq!(a.answers("template0").await, ["55000"]);
    assert_eq!(a.answers(a.app.database.as_str()).await, [CONNECTED], "its own stays open");
    let status = provisioner.status(None).await.unwrap();
    let walls: Vec<(&str, bool)> = status.server.walls.iter().map(|wall| (wall.name, wall.stands)).collect();
    assert_eq!(walls, [("rights", true), ("pg_hba", false)]);
    assert_eq!(value(&session, "SELECT x FROM kept").await, "42");
}

#[tokio::test]
async fn no_other_role_is_a_way_in() {
    let server = TestServer::start().await;
    let (a, b) = (Tenant::new(&server, &unique("way")).await, Tenant::new(&server, &unique("way")).await);
    let foreign = b.app.roles().map(AsRef::as_ref);
    let own = [a.app.owner.as_str(), a.app.maintenance.as_str()];
    let roles: Vec<&str> =
        foreign.chain(own).chain(["postgres", "shareddb_maint", "pg_read_all_data", "nobody"]).collect();
    for rules in [None, Some(ALL_MAY_TRY)] {
        if let Some(rules) = rules {
            server.set_access_rules(rules).await;
        }
        for database in [a.app.database.as_str(), b.app.database.as_str(), "postgres", "template1"] {
            for role in &roles {
                let config = a.logins[0].clone().with_database(database).with_user(*role);
                let answer = refusal::login(&config).await;
                let expected: &[&str] = if rules.is_some() { &[NO_PASSWORD] } else { &[NO_PASSWORD, REJECTED] };
                assert!(expected.contains(&answer.as_str()), "{role} in {database}: {answer}");
            }
        }
    }
}

/// Somebody who tries to get into a database again and again, on a thread of its own.
struct Burglar {
    tries: Arc<Tries>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Tries {
    /// The answers so far, and whether it is to stop.
    state: Mutex<(Vec<String>, bool)>,
    more: Condvar,
}

impl Burglar {
    fn start(config: ConnectionConfig) -> Self {
        let tries = Arc::new(Tries::default());
        let shared = Arc::clone(&tries);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            loop {
                let answer = runtime.block_on(refusal::login(&config));
                let mut state = shared.state.lock().unwrap();
                state.0.push(answer);
                shared.more.notify_all();
                if state.1 {
                    break;
                }
            }
        });
        Self { tries, thread: Some(thread) }
    }

    fn finish(mut self) -> Vec<String> {
        self.tries.state.lock().unwrap().1 = true;
        self.thread.take().unwrap().join().unwrap();
        self.tries.state.lock().unwrap().0.clone()
    }
}

impl Tries {
    /// Waits until a try that began after this call has been answered.
    fn one_more(&self) {
        let state = self.state.lock().unwrap();
        // The next answer may be to a try that had begun before.
        let enough = state.0.len() + 2;
        let (_state, timeout) =
            self.more.wait_timeout_while(state, Duration::from_secs(30), |state| state.0.len() < enough).unwrap();
        assert!(!timeout.timed_out(), "the burglar has given up");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_into_a_database_that_is_being_made() {
    const DATABASES: usize = 3;
    let server = TestServer::start().await;
    // Only the order of the steps protects it now.
    server.set_access_rules(ALL_MAY_TRY).await;
    let thief = server.app(&unique("thief")).await;
    for _ in 0..DATABASES {
        let name = unique("newborn");
        let database = format!("{}_db", name.as_str().replace('-', "_"));
        let burglar = Burglar::start(thief.clone().with_database(&database));
        burglar.tries.one_more();
        let before = burglar.tries.state.lock().unwrap().0.len();
        let tries = Arc::clone(&burglar.tries);
        let events = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&events);
        let provisioner = Provisioner::new(server.server().await).on_event(move |_| {
            *counted.lock().unwrap() += 1;
            tries.one_more();
        });
        provisioner.create(&AppSpec::new(name)).await.unwrap();
        burglar.tries.one_more();
        let answers = burglar.finish();
        let during = answers.len() - before;
        let events = *events.lock().unwrap();
        assert!(events > 20 && during > events, "{during} tries in a create of {events} events");
        assert!(!answers.iter().any(|answer| answer == CONNECTED), "{answers:?}");
        let mut stages = answers;
        stages.dedup();
        // Not there, there and closed, open to others: in this order, each once.
        assert_eq!(stages, ["3D000", "55000", NO_RIGHT]);
    }
}

#[tokio::test]
async fn a_session_that_is_inside_already_ends_when_the_right_is_taken() {
    let server = TestServer::start().await;
    server.set_access_rules(ALL_MAY_TRY).await;
    let (a, b) = (server.app(&unique("host")).await, server.app(&unique("guest")).await);
    server.sql("postgres", &format!("GRANT CONNECT ON DATABASE {} TO PUBLIC", a.database())).await;
    let inside = b.clone().with_database(a.database()).connect().await.unwrap();
    let at_home = b.connect().await.unwrap();
    let host = a.connect().await.unwrap();

    let provisioner = server.provisioner().await;
    let name: AppName = a.database().trim_end_matches("_db").replace('_', "-").parse().unwrap();
    let report = provisioner.create(&AppSpec::new(name.clone())).await.unwrap();
    assert_eq!(report.outcome, Outcome::Configured);
    let ended = Step::EndSessions { database: Some(a.database().to_owned()), roles: vec![b.user().to_owned()] };
    assert!(report.steps.contains(&ended), "{:?}", report.steps);
    let place = |step: &Step| report.steps.iter().position(|other| other == step).unwrap();
    let access = report.steps.iter().find(|step| matches!(step, Step::SetAccess { .. })).unwrap();
    assert!(place(access) < place(&ended), "first the door, then those inside");

    assert!(refusal::has_ended(&inside).await);
    assert_eq!(value(&at_home, "SELECT 1").await, "1", "its own database is its own");
    assert_eq!(value(&host, "SELECT 1").await, "1");
    assert!(provisioner.plan(&AppSpec::new(name)).await.unwrap().is_empty());
}

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

/// Functions, operators and relations in every place of an app's that a careless search might look at. Each leaves a
/// row behind and tries to make its app a superuser, with the rights of whoever called it.
fn traps(app: &App) -> String {
    let (owner, user, schema) = (&app.owner, app.login(Slot::One), &app.schema);
    let mut sql = format!(
        "CREATE SCHEMA canary;
         CREATE TABLE canary.rows (caller text, what text);
         GRANT USAGE ON SCHEMA canary TO PUBLIC; GRANT INSERT ON canary.rows TO PUBLIC;
         CREATE FUNCTION canary.fire(what text) RETURNS void LANGUAGE plpgsql VOLATILE AS $f$ BEGIN
             IF session_user IN ('{user}', '{owner}') THEN RETURN; END IF;
             INSERT INTO canary.rows VALUES (session_user, what);
             BEGIN EXECUTE 'ALTER ROLE {user} SUPERUSER'; EXCEPTION WHEN OTHERS THEN NULL; END;
             BEGIN EXECUTE 'ALTER ROLE {owner} SUPERUSER'; EXCEPTION WHEN OTHERS THEN NULL; END;
         END $f$;"
    );
    // The admin's own name comes first on a search path that nobody pinned.
    for place in ["postgres", "public", "roles", "shareddb", schema.as_str()] {
        sql += &format!("CREATE SCHEMA IF NOT EXISTS {place}; GRANT USAGE ON SCHEMA {place} TO PUBLIC;");
        let functions = [
            ("lower", "varchar", "text"),
            ("lower", "name", "text"),
            ("format", "text, name", "text"),
            ("current_setting", "varchar", "text"),
            ("pg_get_userbyid", "integer", "text"),
            ("pg_get_userbyid", "bigint", "text"),
            ("shobj_description", "oid, text", "text"),
            ("split_part", "text, varchar, integer", "text"),
            ("has_database_privilege", "text, varchar", "boolean"),
            ("current_database", "", "name"),
            ("pg_database_size", "bigint", "bigint"),
            ("pg_terminate_backend", "bigint", "boolean"),
            ("set_config", "varchar, varchar, boolean", "text"),
            ("pg_advisory_lock", "bigint, integer", "void"),
            ("unnest", "text[]", "text"),
            ("count", "", "bigint"),
            ("to_jsonb", "pg_catalog.pg_auth_members", "jsonb"),
            ("name", "text", "name"),
        ];
        for (name, arguments, result) in functions {
            sql += &format!(
                "CREATE OR REPLACE FUNCTION {place}.{name}({arguments}) RETURNS {result} LANGUAGE plpgsql AS \
                 $f$ BEGIN PERFORM canary.fire('{place}.{name}'); RETURN NULL; END $f$;"
            )
            .replace("RETURN NULL; END $f$", if result == "void" { "END $f$" } else { "RETURN NULL; END $f$" });
        }
        for (name, left, right) in [
            ("=", "name", "varchar"),
            ("=", "name", "name"),
            ("=", "text", "name"),
            ("=", "oid", "integer"),
            ("<>", "name", "name"),
            ("<>", "name", "varchar"),
            ("~~", "name", "varchar"),
            ("||", "text", "varchar"),
            ("->>", "jsonb", "varchar"),
        ] {
            let result = if name == "||" || name == "->>" { "text" } else { "boolean" };
            let function = format!("op_{left}_{right}");
            sql += &format!(
                "CREATE OR REPLACE FUNCTION {place}.{function}_{result}({left}, {right}) RETURNS {result} LANGUAGE plpgsql AS \
                 $f$ BEGIN PERFORM canary.fire('{place}.{name}'); RETURN NULL; END $f$;
                 CREATE OPERATOR {place}.{name} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = {place}.{function}_{result});"
            );
        }
        for relation in
            ["pg_class", "pg_roles", "pg_authid", "pg_database", "pg_namespace", "pg_extension", "pg_shdepend"]
        {
            sql += &format!(
                "CREATE VIEW {place}.{relation} AS SELECT 'x'::text AS rolname, 'x'::text AS nspname, canary.fire('{place}.{relation}')::text AS fired;
                 GRANT SELECT ON {place}.{relation} TO PUBLIC;"
            );
        }
    }
    sql += &format!(
        "CREATE FUNCTION {schema}.trojan(x int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS \
         $f$ BEGIN PERFORM canary.fire('expression'); RETURN x; END $f$;
         CREATE FUNCTION {schema}.fired() RETURNS trigger LANGUAGE plpgsql AS \
         $f$ BEGIN PERFORM canary.fire('trigger'); RETURN NEW; END $f$;
         CREATE DOMAIN {schema}.trapped AS int CHECK ({schema}.trojan(VALUE) IS NOT NULL);
         CREATE TABLE {schema}.trap (id int DEFAULT {schema}.trojan(1) CHECK ({schema}.trojan(id) > 0), d {schema}.trapped,
             g int GENERATED ALWAYS AS ({schema}.trojan(id)) STORED);
         INSERT INTO {schema}.trap SELECT x, x FROM generate_series(1, 100) x;
         CREATE INDEX ON {schema}.trap ({schema}.trojan(id));
         CREATE TRIGGER t BEFORE INSERT OR UPDATE ON {schema}.trap FOR EACH ROW EXECUTE FUNCTION {schema}.fired();
         CREATE MATERIALIZED VIEW {schema}.trapped_view AS SELECT {schema}.trojan(id) FROM {schema}.trap;
         CREATE TABLE {schema}.shareddb_proof_other (x int DEFAULT {schema}.trojan(1));
         ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC;
         ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO PUBLIC;"
    );
    sql
}

#[tokio::test]
async fn nothing_an_app_has_stored_runs_with_the_admins_rights() {
    let server = TestServer::start().await;
    let name = unique("trap");
    let a = Tenant::new(&server, &name).await;
    let app = &a.app;
    let (owner, user, user2) = (&app.owner, app.login(Slot::One), app.login(Slot::Two));
    let session = a.logins[0].connect().await.unwrap();
    session.batch_execute(&traps(app)).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.as_db_error()));
    let fired = "SELECT caller || ' ' || what FROM canary.rows";
    let superusers = "SELECT string_agg(rolname, ' ') FROM pg_roles WHERE rolsuper";

    let provisioner = server.provisioner().await;
    let spec = AppSpec::new(name.clone());
    let database = app.database.as_str();
    // Each is repaired by other statements, in the app's database where there is a choice.
    let drifts = [
        ("postgres", "SELECT 1".to_owned()),
        ("postgres", format!("GRANT ALL ON DATABASE {database} TO PUBLIC; ALTER ROLE {user2} CONNECTION LIMIT 1")),
        ("postgres", format!("ALTER DATABASE {database} SET search_path = postgres, public")),
        ("postgres", format!("ALTER DATABASE {database} SET role = '{owner}'")),
        ("postgres", format!("ALTER DATABASE {database} OWNER TO {owner}")),
        ("postgres", format!("ALTER ROLE {user2} PASSWORD NULL; ALTER ROLE {user} RESET role")),
        (database, format!("ALTER SCHEMA public OWNER TO postgres; ALTER TABLE {}.trap OWNER TO {user}", app.schema)),
        (database, format!("ALTER SCHEMA {} RENAME TO moved; DROP SCHEMA IF EXISTS nothing", app.schema)),
    ];
    for (place, drift) in &drifts {
        // Disturbs as an admin must who cannot pin: by names with a schema, and in search of nothing.
        let disturb = server.admin().with_database(*place).with_option("search_path", "pg_catalog, pg_temp");
        disturb.connect().await.unwrap().simple_query(drift).await.unwrap();
        let plan = provisioner.plan(&spec).await.unwrap();
        assert_eq!(provisioner.status(Some(&name)).await.unwrap().apps[0].drift, plan.steps, "{drift}");
        provisioner.list().await.unwrap();
        provisioner.create(&spec).await.unwrap_or_else(|error| panic!("{drift}: {error}"));
        assert!(provisioner.plan(&spec).await.unwrap().is_empty(), "{drift}");
        provisioner.connection(&name).await.unwrap();
        assert_eq!(server.value("postgres", superusers).await, "postgres", "{drift}");
    }
    let session = provisioner.connection(&name).await.unwrap().connect().await.unwrap();
    assert_eq!(rows(&session, fired).await, Vec::<String>::new());

    // The same with an extension of the admin's, which is a script that runs with the admin's rights.
    let mut with_extension = spec.clone();
    with_extension.extensions = Some(["earthdistance".parse().unwrap()].into());
    provisioner.create(&with_extension).await.unwrap();
    assert_eq!(rows(&session, fired).await, Vec::<String>::new());
    assert_eq!(server.value("postgres", superusers).await, "postgres");
    provisioner.drop(&name, name.as_str()).await.unwrap();
    assert_eq!(server.value("postgres", superusers).await, "postgres");
}

#[tokio::test]
async fn the_traps_do_work() {
    let server = TestServer::start().await;
    let name = unique("trap");
    let config = server.app(&name).await;
    let app = server.provisioner().await.app(&name).await.unwrap();
    config.connect().await.unwrap().batch_execute(&traps(&app)).await.unwrap();
    // What our own sessions never do: an admin's session without a pinned search path, in a tenant's database.
    let careless = server.session(config.database()).await;
    careless.simple_query("SELECT lower('X'::varchar)").await.unwrap();
    let fired = rows(&careless, "SELECT caller || ' ' || what FROM canary.rows").await;
    assert_eq!(fired, ["postgres postgres.lower"]);
    let superuser = format!("SELECT rolsuper FROM pg_roles WHERE rolname = '{}'", app.owner);
    assert_eq!(server.value("postgres", &superuser).await, "t");
}

#[tokio::test]
async fn what_an_app_left_in_the_maintenance_database_gains_no_rights_by_a_drop() {
    let server = TestServer::start().await;
    server.set_access_rules(ALL_MAY_TRY).await;
    let (a, b) = (unique("left"), unique("finder"));
    let (a_config, b_config) = (server.app(&a).await, server.app(&b).await);
    let (owner, guest) = (a_config.database(), b_config.database());
    // Years ago, on a server where everybody could create there.
    server
        .sql(
            "postgres",
            &format!(
                "GRANT CONNECT ON DATABASE postgres TO {owner}, {guest}; GRANT CREATE ON SCHEMA public TO {owner}"
            ),
        )
        .await;
    let session = a_config.clone().with_database("postgres").connect().await.unwrap();
    let planted =
        "CREATE FUNCTION public.gift() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT current_user::text'";
    session.simple_query(planted).await.unwrap();
    drop(session);

    // Refused or done, whatever it made must not work as a superuser now.
    let result = server.provisioner().await.drop(&a, a.as_str()).await;
    let finder = b_config.with_database("postgres").connect().await.unwrap();
    let found = match finder.simple_query("SELECT public.gift()").await {
        Ok(_) => value(&finder, "SELECT public.gift()").await,
        Err(error) => error.code().unwrap().code().to_owned(),
    };
    assert_ne!(found, "postgres", "{result:?}");
    result.unwrap();
}

#[tokio::test]
async fn an_app_at_its_limit_leaves_others_and_the_admin_able_to_connect() {
    let server = TestServer::shared().await;
    let (a, b) = (Tenant::new(server, &unique("full")).await, Tenant::new(server, &unique("full")).await);
    let limit = usize::from(a.app.database_connections());
    let mut held = Vec::new();
    let mut refusals = Vec::new();
    for login in &a.logins {
        loop {
            match login.connect().await {
                Ok(session) => held.push(session),
                Err(error) => break refusals.push(refusal::sqlstate(&error)),
            }
            assert!(held.len() <= limit, "no limit holds");
        }
    }
    // The first login meets its own limit, the second one that of the database.
    assert_eq!(refusals, ["53300", "53300"]);
    assert_eq!(held.len(), limit);
    for login in &b.logins {
        assert_eq!(value(&login.connect().await.unwrap(), "SELECT 1").await, "1");
    }
    assert_eq!(server.value("postgres", "SELECT 1").await, "1");
    assert_eq!(server.value(a.app.database.as_str(), "SELECT 1").await, "1", "the admin gets in there, too");
    let provisioner = server.provisioner().await;
    assert!(provisioner.plan(&AppSpec::new(a.app.name.clone())).await.unwrap().is_empty());
    assert_eq!(password(&provisioner.connection(&b.app.name).await.unwrap()), password(&b.logins[1]));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_slips_in_during_a_repair_is_found_by_the_next_one() {
    let server = TestServer::start().await;
    server.set_access_rules(ALL_MAY_TRY).await;
    let (name, guest) = (unique("late"), server.app(&unique("guest")).await);
    let host = server.app(&name).await;
    server.sql("postgres", &format!("GRANT CONNECT ON DATABASE {} TO PUBLIC", host.database())).await;
    let slipping = guest.clone().with_database(host.database());
    let inside = Arc::new(Mutex::new(None));
    let (slot, runtime) = (Arc::clone(&inside), tokio::runtime::Handle::current());
    let provisioner = server.provisioner().await.on_event(move |event| {
        if matches!(event, Event::Begun(Step::SetAccess { .. })) {
            let (config, runtime) = (slipping.clone(), runtime.clone());
            let session = std::thread::spawn(move || runtime.block_on(config.connect())).join().unwrap();
            *slot.lock().unwrap() = Some(session.unwrap());
        }
    });
    let spec = AppSpec::new(name.clone());
    provisioner.create(&spec).await.unwrap();
    let session = inside.lock().unwrap().take().unwrap();
    let quiet = server.provisioner().await;
    let again = quiet.create(&spec).await.unwrap();
    assert!(refusal::has_ended(&session).await, "{:?}", again.steps);
    assert!(quiet.plan(&spec).await.unwrap().is_empty());
}
