//! What an app may have left open when it is adopted, what it may have laid in wait for its admin, and who else is there.

use shareddb_core::{Adopt, AppSpec, ConnectionConfig, Outcome, Proof, Provisioner, Session, Step};
use shareddb_tests::majors::{ForeignServer, MAJORS};
use shareddb_tests::refusal::{self, CONNECTED};
use shareddb_tests::server::value;
use shareddb_tests::watch::create_until_unchanged;

use crate::adopt_majors::{RULES, make};
use crate::isolation::NO_RIGHT;

/// A hand-made app on a server of others, and who adopts it.
struct Hand<'a> {
    server: &'a ForeignServer,
    stem: &'static str,
    provisioner: Provisioner,
}

impl<'a> Hand<'a> {
    async fn made(server: &'a ForeignServer, stem: &'static str) -> Self {
        make(server, stem, "scram-sha-256").await;
        Self { server, stem, provisioner: server.provisioner(server.superuser()) }
    }

    fn database(&self) -> String {
        format!("{}_db", self.stem)
    }

    fn login(&self) -> ConnectionConfig {
        let config = self.server.superuser().with_database(self.database()).with_user(format!("{}_user", self.stem));
        config.with_password("by hand".into()).with_option("statement_timeout", "0")
    }

    async fn session(&self) -> Session {
        self.login().connect().await.unwrap_or_else(|error| panic!("{}: {error}", self.stem))
    }

    /// Runs statements as the login.
    async fn sql(&self, sql: &str) {
        let done = self.session().await.batch_execute(sql).await;
        done.unwrap_or_else(|error| panic!("{sql}: {:?}", error.as_db_error()));
    }

    /// Runs statements as the superuser, whatever is set for all sessions of the database.
    async fn admin_sql(&self, sql: &str) {
        let mut config = self.server.superuser().with_database(self.database());
        for (name, value) in [("role", "none"), ("statement_timeout", "0"), ("default_transaction_read_only", "off")] {
            config = config.with_option(name, value);
        }
        let done = config.connect().await.unwrap().batch_execute(sql).await;
        done.unwrap_or_else(|error| panic!("{sql}: {:?}", error.as_db_error()));
    }

    fn spec(&self, consent: impl FnOnce(&mut Adopt)) -> AppSpec {
        let mut adopt = Adopt::default();
        adopt.close_to_others = true;
        consent(&mut adopt);
        let mut spec = AppSpec::new(self.stem.parse().unwrap());
        spec.adopt = Some(adopt);
        spec
    }

    async fn adopt(&self, consent: impl FnOnce(&mut Adopt)) {
        let report = self.provisioner.create(&self.spec(consent)).await;
        let report = report.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
        assert_eq!(report.outcome, Outcome::Adopted);
    }
}

#[tokio::test]
async fn prepared_transactions_and_replication_slots_are_told_and_outlive_it() {
    for major in [14, 18] {
        let lines = "max_prepared_transactions = 5\nwal_level = logical\n";
        let server = ForeignServer::start_with(major, RULES, lines).await;
        let hand = Hand::made(&server, "kept").await;
        hand.sql("CREATE TABLE mine (x int)").await;
        hand.admin_sql("CREATE TABLE theirs (x int); GRANT ALL ON theirs TO kept_user").await;
        hand.admin_sql("SELECT pg_create_logical_replication_slot('feed', 'pgoutput')").await;
        hand.sql("BEGIN; CREATE TABLE later (x int); INSERT INTO mine VALUES (1); PREPARE TRANSACTION 'in two parts'")
            .await;
        hand.sql("BEGIN; INSERT INTO theirs VALUES (1); PREPARE TRANSACTION 'in the way'").await;

        let plan = hand.provisioner.plan(&hand.spec(|_| {})).await.unwrap();
        let told = plan.notices.join("\n");
        assert!(told.contains("survive this: in the way, in two parts"), "{major}: {told}");
        assert!(told.contains("dropped: feed"), "{major}: {told}");
        let impatient = server.provisioner(server.superuser()).with_lock_patience(std::time::Duration::ZERO);
        let error = impatient.create(&hand.spec(|_| {})).await.unwrap_err();
        assert_eq!(error.code(), "objects_in_use", "{major}: {error}");
        assert!(error.to_string().contains("prepared transaction \"in the way\""), "{major}: {error}");

        // The app's new sessions end both.
        hand.sql("COMMIT PREPARED 'in the way'").await;
        let finished = hand.provisioner.create(&hand.spec(|_| {})).await.unwrap();
        assert_eq!(finished.outcome, Outcome::Configured, "{major}");
        hand.sql("COMMIT PREPARED 'in two parts'").await;
        let session = hand.session().await;
        let rows = "SELECT (SELECT count(*) FROM mine) || ' ' || (SELECT count(*) FROM theirs) || ' ' || \
            (SELECT string_agg(DISTINCT tableowner::text, ' ') FROM pg_tables WHERE schemaname = 'public')";
        assert_eq!(value(&session, rows).await, "1 1 kept_db", "{major}");
        assert_eq!(server.value("postgres", "SELECT slot_name FROM pg_replication_slots").await, "feed", "{major}");
        drop(session);

        // What is prepared keeps the database from being dropped, and could be ended by nobody once it is closed.
        hand.sql("BEGIN; INSERT INTO mine VALUES (2); PREPARE TRANSACTION 'the last'").await;
        let (name, before) = ("kept".parse().unwrap(), server.catalog().await);
        let error = hand.provisioner.drop(&name, "kept").await.unwrap_err();
        assert_eq!(error.code(), "prepared_transactions", "{major}: {error}");
        assert!(error.to_string().contains("the last"), "{major}: {error}");
        assert_eq!(server.catalog().await, before, "{major}: nothing was begun");
        hand.sql("ROLLBACK PREPARED 'the last'").await;
        hand.provisioner.drop(&name, "kept").await.unwrap();
        assert_eq!(server.value("postgres", "SELECT count(*) FROM pg_replication_slots").await, "0", "{major}");
    }
}

/// What a login that owns its database can set on it against whoever enters.
const SETTINGS: [&str; 11] = [
    "role = 'trap_user'",
    "standard_conforming_strings = off",
    "default_transaction_read_only = on",
    "default_transaction_isolation = 'serializable'",
    "client_encoding = 'LATIN1'",
    "search_path = public, pg_catalog",
    "statement_timeout = '1ms'",
    "lock_timeout = '1ms'",
    "idle_in_transaction_session_timeout = '1ms'",
    "row_security = off",
    "check_function_bodies = off",
];

/// Code of the login's, in places where a careless admin would run it.
const TRAPS: &str = r#"
    CREATE TABLE canary (what text); GRANT ALL ON canary TO PUBLIC;
    CREATE FUNCTION fire(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $1';
    CREATE FUNCTION lower(name) RETURNS text LANGUAGE sql AS 'SELECT public.fire(''lower'')';
    CREATE FUNCTION lower(text) RETURNS text LANGUAGE sql AS 'SELECT public.fire(''lower text'')';
    CREATE FUNCTION pg_get_userbyid(oid) RETURNS name LANGUAGE sql AS 'SELECT public.fire(''user'')::name';
    CREATE FUNCTION pg_identify_object(oid, oid, int, OUT type text, OUT schema text, OUT name text, OUT identity text)
        LANGUAGE sql AS 'SELECT public.fire(''identify''), null, null, null';
    CREATE FUNCTION same(text, text) RETURNS bool LANGUAGE sql AS 'SELECT public.fire(''equal'') IS NOT NULL';
    CREATE OPERATOR = (leftarg = text, rightarg = text, function = same);
    CREATE OPERATOR ~ (leftarg = text, rightarg = text, function = same);
    CREATE TABLE pg_class (x int); CREATE TABLE pg_proc (x int); CREATE VIEW pg_roles AS SELECT public.fire('view') AS rolname;
    CREATE SCHEMA postgres; CREATE SCHEMA trap_db;
    CREATE FUNCTION fire_row() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM public.fire(''trigger''); RETURN new; END';
    CREATE FUNCTION fire_event() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM public.fire(''event''); END'"#;

/// The same code within objects of the admin's, which change hands.
const BAIT: &str = r#"
    SET search_path = public;
    CREATE DOMAIN word AS text CHECK (public.fire(VALUE) IS NOT NULL);
    CREATE TABLE prey (id int, said text DEFAULT public.fire('default') CHECK (public.fire('check') IS NOT NULL), noted word,
        made text GENERATED ALWAYS AS (public.fire(said)) STORED);
    CREATE INDEX ON prey (public.fire(said)); CREATE STATISTICS prey_stats ON (public.fire(said)), id FROM prey;
    CREATE TRIGGER watch BEFORE INSERT ON prey FOR EACH ROW EXECUTE FUNCTION public.fire_row();
    ALTER TABLE prey ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON prey USING (public.fire('policy') IS NOT NULL);
    CREATE TABLE parted (said text) PARTITION BY LIST (public.fire(said)); CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN ('x');
    CREATE VIEW seen AS SELECT public.fire('view') AS said; CREATE MATERIALIZED VIEW kept AS SELECT 1 AS x WHERE public.fire('kept') IS NULL;
    CREATE FUNCTION by_default(text DEFAULT public.fire('argument')) RETURNS text SECURITY DEFINER LANGUAGE sql AS 'SELECT $1'"#;

/// From here on it tells when it runs for a superuser. An index or a partition asks for harmless code only when it is made.
const ARMS: &str = r#"
    CREATE OR REPLACE FUNCTION fire(text) RETURNS text VOLATILE LANGUAGE plpgsql AS 'BEGIN
        IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = session_user) THEN INSERT INTO public.canary VALUES ($1); END IF;
        RETURN $1; END'"#;

#[tokio::test]
async fn nothing_that_lies_in_wait_runs_with_the_admins_rights_on_any_major() {
    for major in MAJORS {
        let server = ForeignServer::start(major, RULES).await;
        let hand = Hand::made(&server, "trap").await;
        server.sql("postgres", "ALTER DATABASE trap_db OWNER TO trap_user").await;
        hand.sql(TRAPS).await;
        hand.admin_sql(BAIT).await;
        hand.admin_sql("CREATE EVENT TRIGGER on_end ON ddl_command_end EXECUTE FUNCTION public.fire_event()").await;
        hand.admin_sql("CREATE EVENT TRIGGER on_start ON ddl_command_start EXECUTE FUNCTION public.fire_event()").await;
        if major >= 17 {
            hand.admin_sql("CREATE EVENT TRIGGER on_login ON login EXECUTE FUNCTION public.fire_event()").await;
        }
        let session = hand.session().await;
        session.batch_execute(ARMS).await.unwrap();
        for setting in SETTINGS {
            session.batch_execute(&format!("ALTER DATABASE trap_db SET {setting}")).await.unwrap();
        }
        // Before 17 no session can be kept from event triggers: a superuser switches them off, from where they do not fire.
        if major < 17 {
            let error = hand.provisioner.create(&hand.spec(|_| {})).await.unwrap_err();
            assert_eq!(error.code(), "adopt_refused", "{major}: {error}");
            let causes = error.causes();
            assert!(causes.len() == 2 && causes.iter().all(|cause| cause.starts_with("[event_trigger]")), "{causes:?}");
            for cause in causes {
                hand.admin_sql(cause.rsplit_once(": ").unwrap().1).await;
            }
        }
        hand.adopt(|_| {}).await;
        let fired = "SELECT string_agg(what, ' ') FROM public.canary";
        assert_eq!(value(&session, fired).await, "NULL", "{major}");
        let owners = "SELECT string_agg(DISTINCT relowner::regrole::text, ' ') FROM pg_catalog.pg_class \
            WHERE relname IN ('prey', 'parted', 'parted_1', 'seen', 'kept')";
        assert_eq!(value(&session, owners).await, "trap_db", "{major}");
        assert_eq!(
            server.value("postgres", "SELECT datdba::regrole FROM pg_database WHERE datname = 'trap_db'").await,
            "postgres"
        );
        drop(session);
        create_until_unchanged(&hand.provisioner, &hand.spec(|_| {})).await;
        assert_eq!(value(&hand.session().await, fired).await, "NULL", "{major}, by the next runs");
        // They were armed.
        hand.admin_sql("INSERT INTO public.prey (id, noted) VALUES (1, 'x')").await;
        let fired = value(&hand.session().await, fired).await;
        assert!(["default", "check", "trigger", "x"].iter().all(|word| fired.contains(word)), "{major}: {fired}");
    }
}

#[tokio::test]
async fn who_else_has_rights_keeps_them_and_nobody_else_comes_in() {
    let server = ForeignServer::start(18, RULES).await;
    let hand = Hand::made(&server, "host").await;
    hand.sql("CREATE TABLE orders AS SELECT 1 AS x; CREATE SCHEMA more; CREATE TABLE more.orders AS SELECT 1 AS x")
        .await;
    server
        .sql(
            "postgres",
            "CREATE ROLE readers; CREATE ROLE analyst LOGIN PASSWORD 'by hand' IN ROLE readers; \
             CREATE ROLE report LOGIN PASSWORD 'by hand'; CREATE ROLE passer LOGIN PASSWORD 'by hand'; \
             CREATE ROLE keyed LOGIN PASSWORD 'by hand'; GRANT CONNECT ON DATABASE host_db TO keyed",
        )
        .await;
    hand.sql("GRANT SELECT ON orders TO readers; GRANT USAGE ON SCHEMA more TO report; GRANT SELECT ON more.orders TO report").await;
    let as_role = |role: &str| hand.login().with_user(role);
    let unasked = hand.spec(|adopt| adopt.close_to_others = false);
    let error = hand.provisioner.create(&unasked).await.unwrap_err();
    let told = "no longer will: adm, passer;";
    assert!(error.causes().len() == 1 && error.causes()[0].contains(told), "{:?}", error.causes());

    let plan = hand.provisioner.plan(&hand.spec(|_| {})).await.unwrap();
    for (role, words) in [
        ("readers", "go on entering"),
        ("report", "go on entering"),
        ("keyed", "go on entering"),
        ("passer", "no longer"),
    ] {
        assert!(
            plan.notices.iter().any(|notice| notice.contains(words) && notice.contains(role)),
            "{role}: {:?}",
            plan.notices
        );
    }
    hand.adopt(|_| {}).await;
    for (role, table) in [("analyst", "orders"), ("report", "more.orders")] {
        let session = as_role(role).connect().await.unwrap_or_else(|error| panic!("{role}: {error}"));
        assert!(hand.provisioner.plan(&hand.spec(|_| {})).await.unwrap().is_empty(), "{role} is no stranger");
        assert_eq!(value(&session, &format!("SELECT count(*) FROM {table}")).await, "1", "{role}");
        assert!(session.batch_execute("CREATE TABLE public.mine (x int)").await.is_err(), "{role}");
    }
    assert_eq!(refusal::login(&as_role("keyed")).await, CONNECTED);
    assert_eq!(refusal::login(&as_role("passer")).await, NO_RIGHT);
    assert!(hand.provisioner.plan(&hand.spec(|_| {})).await.unwrap().is_empty());
}

#[tokio::test]
async fn whatever_looks_at_the_roles_name_is_found_on_any_major() {
    for major in MAJORS {
        let server = ForeignServer::start(major, RULES).await;
        let hand = Hand::made(&server, "named").await;
        hand.sql(
            "CREATE TABLE rows (who text DEFAULT CURRENT_ROLE, text text DEFAULT 'current_user'); \
             CREATE POLICY by_user ON rows USING (who = USER); CREATE POLICY by_check ON rows WITH CHECK (who = session_user); \
             CREATE POLICY by_number ON rows USING (who <> text AND current_date > '2020-01-01' AND current_catalog = text); \
             CREATE VIEW own AS SELECT * FROM rows WHERE who = current_user; CREATE VIEW other AS SELECT text FROM rows; \
             CREATE VIEW by_call AS SELECT getpgusername() AS it, \"current_user\"() AS he; \
             CREATE FUNCTION atomic() RETURNS name LANGUAGE sql BEGIN ATOMIC SELECT session_user; END",
        )
        .await;
        let error = hand.provisioner.plan(&hand.spec(|_| {})).await.unwrap_err();
        let causes = error.causes();
        assert!(
            causes.len() == 1 && causes[0].contains("by_check on public.rows, by_user on public.rows;"),
            "{causes:?}"
        );
        let plan = hand.provisioner.plan(&hand.spec(|adopt| adopt.accept_name_change = true)).await.unwrap();
        let told = plan.notices.iter().find(|notice| notice.contains("view public.own")).unwrap();
        assert!(told.contains("default value") && told.contains("rows") && !told.contains("other"), "{told}");
        assert!(!told.contains("text"), "{told}");
        assert!(told.contains("view public.by_call") && told.contains("public.atomic()"), "{told}");
    }
}

#[tokio::test]
async fn an_app_that_was_let_into_another_stays_there_and_is_whole() {
    let server = ForeignServer::start(18, RULES).await;
    let hand = Hand::made(&server, "host").await;
    let neighbour = AppSpec::new("neighbour".parse().unwrap());
    let app = hand.provisioner.create(&neighbour).await.unwrap().app;
    hand.sql(&format!("CREATE TABLE orders AS SELECT 1 AS x; GRANT SELECT ON orders TO {}", app.owner)).await;
    let error = hand.provisioner.plan(&hand.spec(|_| {})).await.unwrap_err();
    assert!(error.causes().len() == 1 && error.causes()[0].starts_with("[grants_of_app]"), "{:?}", error.causes());
    hand.adopt(|adopt| adopt.keep_grants = true).await;

    let guest = hand.provisioner.connection(&neighbour.name).await.unwrap().with_database(hand.database());
    let inside = guest.connect().await.unwrap();
    for spec in [&neighbour, &hand.spec(|_| {})] {
        let plan = hand.provisioner.plan(spec).await.unwrap();
        assert!(plan.is_empty(), "{}: {plan}", spec.name);
    }
    // A repair tries other databases, that one not.
    server.sql("postgres", &format!("ALTER ROLE {} PASSWORD NULL", app.logins[0])).await;
    let repaired = hand.provisioner.create(&neighbour).await.unwrap();
    assert_eq!((repaired.outcome, repaired.proof), (Outcome::Configured, Some(Proof::Complete)));
    assert_eq!(value(&inside, "SELECT count(*) FROM public.orders").await, "1");
    // What nobody agreed to is taken as everywhere.
    server.sql("postgres", "CREATE DATABASE crm").await;
    server.sql("postgres", &format!("GRANT CONNECT ON DATABASE crm TO {}", app.owner)).await;
    let steps = hand.provisioner.create(&neighbour).await.unwrap().steps;
    let taken = |step: &&Step| matches!(step, Step::RevokeAccess { .. });
    assert_eq!(steps.iter().filter(taken).count(), 1, "{steps:?}");
    assert_eq!(value(&inside, "SELECT count(*) FROM public.orders").await, "1", "that session goes on");
    assert!(hand.provisioner.plan(&hand.spec(|_| {})).await.unwrap().is_empty());
    hand.provisioner.drop(&neighbour.name, neighbour.name.as_str()).await.unwrap();
}
