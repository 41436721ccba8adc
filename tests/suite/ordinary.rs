//! An ordinary app notices nothing: what programs do with a database of their own works here, and leaves no drift. What
//! does differ is at the end, as the README lists it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use futures_util::{SinkExt as _, TryStreamExt as _};
use secrecy::ExposeSecret as _;
use shareddb_core::{App, AppSpec, ConnectionConfig, SecretStore as _, Session, Slot, Step};
use shareddb_tests::command::run;
use shareddb_tests::refusal::{self, DONE};
use shareddb_tests::server::{rows, unique, value};
use shareddb_tests::{Output, TestServer};

/// An app, a session of it, and what the scenarios ask again and again.
struct Ordinary {
    server: &'static TestServer,
    app: App,
    config: ConnectionConfig,
    session: Session,
}

impl Ordinary {
    async fn new(stem: &str) -> Self {
        let server = TestServer::shared().await;
        let name = unique(stem);
        let config = server.app(&name).await;
        let app = server.provisioner().await.app(&name).await.unwrap();
        let session = config.connect().await.unwrap();
        Self { server, app, config, session }
    }

    /// Statements in one message, as a script of the app has them.
    async fn run(&self, sql: &str) {
        run_in(&self.session, sql).await;
    }

    async fn value(&self, sql: &str) -> String {
        value(&self.session, sql).await
    }

    /// The other login, issued as after the loss of a Secret.
    async fn second_login(&self) -> ConnectionConfig {
        self.server.secrets().delete(&self.app.secret).await.unwrap();
        let provisioner = self.server.provisioner().await;
        provisioner.create(&AppSpec::new(self.app.name.clone())).await.unwrap();
        let config = provisioner.connection(&self.app.name).await.unwrap();
        assert_eq!(config.user(), self.app.login(Slot::Two).as_str());
        config
    }

    /// Everything in the database that has an owner at all has the right one, and `create` would do nothing.
    async fn causes_no_drift(&self) {
        let plan = self.server.provisioner().await.plan(&AppSpec::new(self.app.name.clone())).await.unwrap();
        assert!(plan.is_empty(), "{plan}");
        let owners = "SELECT DISTINCT pg_get_userbyid(refobjid) FROM pg_shdepend WHERE deptype = 'o' AND classid <> 'pg_default_acl'::regclass \
             AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())";
        let admin = self.server.session(self.app.database.as_str()).await;
        assert_eq!(rows(&admin, owners).await, [self.app.owner.as_str()]);
    }

    /// One of PostgreSQL's programs, run as the app, with nothing secret among its arguments.
    fn program(&self, program: &str, args: &[&str]) -> Output {
        program_as(self.server, &self.config, program, args)
    }
}

async fn run_in(session: &Session, sql: &str) {
    session.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}: {:?}", error.as_db_error()));
}

fn program_as(server: &TestServer, config: &ConnectionConfig, program: &str, args: &[&str]) -> Output {
    let environ = config.environ().unwrap();
    let password = config.password().unwrap().expose_secret();
    assert!(!args.iter().any(|argument| argument.contains(password)));
    let mut command = Command::new(server.endpoint().binaries.program(program));
    command.env_clear().envs(environ.iter().map(|(name, value)| (*name, value.expose_secret()))).args(args);
    run(&mut command)
}

#[tokio::test]
async fn migrations() {
    let a = Ordinary::new("migrations").await;
    for _ in 0..2 {
        // What migration tools do at each start.
        a.run("CREATE TABLE IF NOT EXISTS schema_migrations (version text PRIMARY KEY, at timestamptz DEFAULT now())")
            .await;
        a.run("INSERT INTO schema_migrations VALUES ('001') ON CONFLICT DO NOTHING").await;
    }
    let place = "SELECT relnamespace::regnamespace::text FROM pg_class WHERE relname = 'schema_migrations'";
    assert_eq!(a.value(place).await, a.app.schema.as_str(), "unqualified names land in the app's schema");
    let tables = "SELECT table_schema FROM information_schema.tables WHERE table_name = 'schema_migrations'";
    assert_eq!(a.value(tables).await, a.app.schema.as_str());
    a.run(
        "BEGIN; CREATE TABLE customers (id bigserial PRIMARY KEY, name text NOT NULL);
         CREATE TABLE orders (id int GENERATED ALWAYS AS IDENTITY, customer bigint REFERENCES customers ON DELETE CASCADE,
             total numeric CHECK (total >= 0)); COMMIT",
    )
    .await;
    a.run("CREATE TABLE public.also (x int); COMMENT ON TABLE customers IS 'who buys'").await;
    a.run(
        "ALTER TABLE customers ADD COLUMN mail text UNIQUE, ALTER COLUMN name TYPE varchar(200), ADD COLUMN old int;
         ALTER TABLE customers DROP COLUMN old; ALTER TABLE customers RENAME COLUMN mail TO email;
         ALTER TABLE orders RENAME TO purchases; CREATE INDEX ON purchases (customer)",
    )
    .await;
    a.session.simple_query("CREATE INDEX CONCURRENTLY later ON customers (name)").await.unwrap();
    a.session.simple_query("REINDEX TABLE CONCURRENTLY customers").await.unwrap();
    for maintenance in
        ["VACUUM customers", "ANALYZE", "VACUUM (ANALYZE) purchases", "CLUSTER customers USING customers_pkey"]
    {
        a.session.simple_query(maintenance).await.unwrap_or_else(|error| panic!("{maintenance}: {error}"));
    }
    a.run("INSERT INTO customers (name) VALUES ('x'); INSERT INTO purchases (customer, total) VALUES (1, 9.5)").await;
    a.run("TRUNCATE customers RESTART IDENTITY CASCADE; DROP TABLE purchases, public.also; DROP INDEX later").await;

    // Test suites of frameworks do this to begin afresh.
    a.run("DROP SCHEMA public CASCADE; CREATE SCHEMA public; CREATE TABLE public.fresh (x int)").await;
    a.causes_no_drift().await;
    a.run("DROP SCHEMA public CASCADE").await;
    a.causes_no_drift().await;
    let own = format!("DROP SCHEMA {0} CASCADE; CREATE SCHEMA {0}; CREATE TABLE t (x int)", a.app.schema);
    a.run(&own).await;
    a.causes_no_drift().await;
}

#[tokio::test]
async fn objects_of_every_kind() {
    let a = Ordinary::new("kinds").await;
    a.run(
        "CREATE TEMP TABLE scratch (x int) ON COMMIT PRESERVE ROWS; INSERT INTO scratch VALUES (1);
         CREATE TEMP VIEW peek AS SELECT * FROM scratch; CREATE UNLOGGED TABLE cache (k text, v jsonb);
         CREATE SEQUENCE numbers START 100; SELECT nextval('numbers'), setval('numbers', 200);
         CREATE TABLE s (a serial, b int GENERATED BY DEFAULT AS IDENTITY, c int DEFAULT nextval('numbers'));
         INSERT INTO s DEFAULT VALUES; ALTER SEQUENCE numbers OWNED BY s.c",
    )
    .await;
    assert_eq!(a.value("SELECT a || ' ' || b || ' ' || c FROM s").await, "1 1 201");
    a.run(
        "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TYPE pair AS (x int, y text); CREATE TYPE span AS RANGE (subtype = int);
         CREATE DOMAIN email AS text CHECK (VALUE ~ '@'); CREATE COLLATION plain FROM \"C\";
         CREATE TABLE people (id int PRIMARY KEY, m mood, p pair, e email, tags text[], g int GENERATED ALWAYS AS (id * 2) STORED)",
    )
    .await;
    a.session.simple_query("ALTER TYPE mood ADD VALUE 'happy'").await.unwrap();
    a.run("INSERT INTO people VALUES (1, 'happy', (1, 'y'), 'a@b', '{x}')").await;
    a.run(
        "CREATE VIEW names AS SELECT id, e FROM people; CREATE OR REPLACE VIEW names AS SELECT id, e, g FROM people;
         CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM people; CREATE UNIQUE INDEX ON counted (n);
         INSERT INTO people VALUES (2); REFRESH MATERIALIZED VIEW CONCURRENTLY counted",
    )
    .await;
    assert_eq!(a.value("SELECT n FROM counted").await, "2");
    a.run(
        "CREATE TABLE events (at date NOT NULL, what text) PARTITION BY RANGE (at);
         CREATE TABLE events_2024 PARTITION OF events FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
         CREATE TABLE events_rest PARTITION OF events DEFAULT; INSERT INTO events VALUES ('2024-05-05', 'x'), ('2030-01-01', 'y');
         ALTER TABLE events DETACH PARTITION events_rest; CREATE TABLE base (x int); CREATE TABLE derived () INHERITS (base)",
    )
    .await;
    assert_eq!(a.value("SELECT count(*) FROM events").await, "1");
    a.run(
        "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.v := '{\"touched\": true}'; RETURN NEW; END $$;
         CREATE TRIGGER touched BEFORE INSERT ON cache FOR EACH ROW EXECUTE FUNCTION touch();
         CREATE FUNCTION add(x int, y int) RETURNS int LANGUAGE sql IMMUTABLE RETURN x + y;
         CREATE FUNCTION definer() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT current_user::text';
         CREATE AGGREGATE total(int) (SFUNC = add, STYPE = int, INITCOND = '0');
         CREATE OPERATOR <+> (LEFTARG = int, RIGHTARG = int, FUNCTION = add); CREATE CAST (pair AS text) WITH INOUT;
         CREATE RULE silent AS ON DELETE TO base DO INSTEAD NOTHING; CREATE STATISTICS st ON id, m FROM people;
         CREATE TEXT SEARCH CONFIGURATION mine (COPY = simple);
         INSERT INTO cache VALUES ('k'); DO $$ BEGIN FOR i IN 1..3 LOOP INSERT INTO base VALUES (i); END LOOP; END $$",
    )
    .await;
    a.run("CREATE PROCEDURE batch() LANGUAGE plpgsql AS $$ BEGIN INSERT INTO base VALUES (9); COMMIT; INSERT INTO base VALUES (10); ROLLBACK; END $$").await;
    a.session.simple_query("CALL batch()").await.unwrap();
    assert_eq!(a.value("SELECT v->>'touched' FROM cache").await, "true");
    assert_eq!(a.value("SELECT total(x) + (1 <+> 1) FROM base").await, "17");
    assert_eq!(a.value("SELECT definer()").await, a.app.owner.as_str());

    a.run("CREATE SCHEMA reports; CREATE TABLE reports.r (x int); CREATE SCHEMA AUTHORIZATION CURRENT_USER; CREATE TABLE t2 (x int)").await;
    a.run(
        "ALTER TABLE people ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
         CREATE POLICY one ON people USING (id = current_setting('app.id', true)::int); SET app.id = 1",
    )
    .await;
    assert_eq!(a.value("SELECT count(*) FROM people").await, "1", "row security binds the owner when it is forced to");
    a.run("GRANT SELECT ON base TO PUBLIC; REVOKE ALL ON base FROM PUBLIC; ALTER DEFAULT PRIVILEGES IN SCHEMA reports GRANT SELECT ON TABLES TO PUBLIC").await;
    a.run("CREATE PUBLICATION part FOR TABLE base; DROP PUBLICATION part").await;
    a.causes_no_drift().await;
}

#[tokio::test]
async fn trusted_extensions() {
    let a = Ordinary::new("trusted").await;
    for extension in ["pg_trgm", "citext", "hstore", "pgcrypto", "\"uuid-ossp\"", "unaccent", "btree_gin", "ltree"] {
        a.run(&format!("CREATE EXTENSION IF NOT EXISTS {extension}; CREATE EXTENSION IF NOT EXISTS {extension}")).await;
    }
    a.run(
        "CREATE TABLE found (id uuid DEFAULT uuid_generate_v4(), name citext UNIQUE, h hstore, p ltree, n int);
         CREATE INDEX ON found USING gin (name gin_trgm_ops); CREATE INDEX ON found USING gin (n);
         CREATE INDEX ON found USING gist (p); INSERT INTO found (name, h, p, n) VALUES ('Änne', 'a=>1', 'a.b', 1)",
    )
    .await;
    assert_eq!(
        a.value("SELECT unaccent(name::text) FROM found WHERE name = 'ÄNNE' AND p ~ 'a.*' AND h ? 'a'").await,
        "Anne"
    );
    assert_eq!(a.value("SELECT encode(digest('x', 'sha256'), 'hex') LIKE '2d71%'").await, "t");
    a.run("DROP EXTENSION btree_gin CASCADE; COMMENT ON EXTENSION ltree IS 'ours'").await;
    a.causes_no_drift().await;
}

#[tokio::test]
async fn sessions_and_transactions() {
    let a = Ordinary::new("sessions").await;
    a.run("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT x, 'v' FROM generate_series(1, 100) x")
        .await;

    // Settings of a session are the app's own, and what poolers send leaves its role alone.
    a.run("SET work_mem = '5MB'; SET statement_timeout = '30s'; SET TIME ZONE 'UTC'; SET app.tenant = 'x'; SET search_path = public").await;
    for reset in
        ["DISCARD ALL", "RESET ALL", "RESET ROLE", "RESET SESSION AUTHORIZATION", "SET SESSION AUTHORIZATION DEFAULT"]
    {
        a.session.simple_query(reset).await.unwrap_or_else(|error| panic!("{reset}: {error}"));
        assert_eq!(a.value("SELECT current_user").await, a.app.owner.as_str(), "{reset}");
        assert_eq!(a.value("SELECT session_user").await, a.config.user());
    }
    assert_eq!(a.value("SHOW search_path").await, format!("{}, public", a.app.schema));

    // Prepared statements, in the protocol and in SQL; cursors.
    let prepared = a.session.prepare("SELECT v || $1 FROM t WHERE id = $2").await.unwrap();
    for id in 1..10 {
        let row = a.session.query_one(&prepared, &[&"!", &id]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), "v!");
    }
    a.run("PREPARE p (int) AS SELECT v FROM t WHERE id = $1; EXECUTE p(1); DEALLOCATE p").await;
    a.run("BEGIN; DECLARE c CURSOR FOR SELECT * FROM t; FETCH 10 FROM c; MOVE 5 IN c; CLOSE c; COMMIT").await;
    a.run("BEGIN; DECLARE h CURSOR WITH HOLD FOR SELECT * FROM t; COMMIT; FETCH ALL FROM h; CLOSE h").await;

    // Transactions.
    a.run(
        "BEGIN; SAVEPOINT s; INSERT INTO t VALUES (101); ROLLBACK TO s; INSERT INTO t VALUES (102); RELEASE s; COMMIT",
    )
    .await;
    assert_eq!(a.value("SELECT count(*) FROM t WHERE id > 100").await, "1");
    for level in ["READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        a.run(&format!("BEGIN ISOLATION LEVEL {level}; SELECT count(*) FROM t; COMMIT")).await;
    }
    a.run("BEGIN READ ONLY; SELECT 1; COMMIT; BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE; SELECT 1; COMMIT").await;
    let other = a.config.connect().await.unwrap();
    let serial = "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT sum(id) FROM t";
    run_in(&a.session, serial).await;
    run_in(&other, serial).await;
    a.run("UPDATE t SET v = 'a' WHERE id = 1").await;
    run_in(&other, "UPDATE t SET v = 'b' WHERE id = 2").await;
    a.run("COMMIT").await;
    assert_eq!(refusal::statement(&other, "COMMIT").await, "40001");
    a.run("BEGIN; SELECT * FROM t WHERE id = 1 FOR UPDATE").await;
    assert_eq!(refusal::statement(&other, "SELECT * FROM t WHERE id = 1 FOR UPDATE NOWAIT").await, "55P03");
    assert_eq!(rows(&other, "SELECT id FROM t WHERE id < 3 ORDER BY id FOR UPDATE SKIP LOCKED").await, ["2"]);
    a.run("LOCK TABLE t IN SHARE ROW EXCLUSIVE MODE; COMMIT").await;

    // Advisory locks are per database.
    a.run("SELECT pg_advisory_lock(1); SELECT pg_advisory_lock(2, 3)").await;
    assert_eq!(value(&other, "SELECT pg_try_advisory_lock(1)").await, "f");
    a.run("SELECT pg_advisory_unlock_all()").await;
    assert_eq!(value(&other, "SELECT pg_try_advisory_lock(1)").await, "t");

    // Large objects.
    a.run("SELECT lo_from_bytea(4711, '\\x0102'); SELECT lo_put(4711, 2, '\\x03')").await;
    assert_eq!(a.value("SELECT encode(lo_get(4711), 'hex')").await, "010203");
    a.run("BEGIN; SELECT lo_open(lo_create(0), 131072); COMMIT; SELECT lo_unlink(4711)").await;
    a.causes_no_drift().await;
}

#[tokio::test]
async fn copy_and_notifications_over_the_protocol() {
    let a = Ordinary::new("copy").await;
    a.run("CREATE TABLE t (id int, v text)").await;
    let sink = a.session.copy_in::<_, &'static [u8]>("COPY t FROM STDIN (FORMAT csv)").await.unwrap();
    let mut sink = Box::pin(sink);
    for line in ["1,one\n", "2,\"t,wo\"\n", "3,\n"] {
        sink.send(line.as_bytes()).await.unwrap();
    }
    assert_eq!(sink.as_mut().finish().await.unwrap(), 3);
    let chunks: Vec<_> =
        a.session.copy_out("COPY (SELECT * FROM t ORDER BY id) TO STDOUT").await.unwrap().try_collect().await.unwrap();
    let text: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.iter().copied()).collect();
    assert_eq!(String::from_utf8(text).unwrap(), "1\tone\n2\tt,wo\n3\t\\N\n");

    // A listener on a connection of its own, as drivers have it.
    let (config, tls) = a.config.tokio_postgres().unwrap();
    let (listener, mut connection) = config.connect(tls).await.unwrap();
    let (sender, mut heard) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
            if let tokio_postgres::AsyncMessage::Notification(note) = message {
                sender.send(format!("{} {}", note.channel(), note.payload())).unwrap();
            }
        }
    });
    listener.batch_execute("LISTEN jobs").await.unwrap();
    a.run("NOTIFY jobs, 'first'; SELECT pg_notify('jobs', 'second')").await;
    assert_eq!(heard.recv().await.unwrap(), "jobs first");
    assert_eq!(heard.recv().await.unwrap(), "jobs second");
    listener.batch_execute("UNLISTEN *").await.unwrap();
    a.causes_no_drift().await;
}

#[tokio::test]
async fn its_own_dump_goes_into_another_app() {
    let (a, b) = (Ordinary::new("dumped").await, Ordinary::new("loaded").await);
    a.run(
        "CREATE EXTENSION pg_trgm; CREATE TYPE mood AS ENUM ('ok'); CREATE SCHEMA extra;
         CREATE TABLE extra.t (id serial PRIMARY KEY, m mood DEFAULT 'ok', v text);
         INSERT INTO extra.t (v) SELECT 'row ' || x FROM generate_series(1, 1000) x; CREATE INDEX ON extra.t USING gin (v gin_trgm_ops);
         CREATE VIEW public.v AS SELECT count(*) FROM extra.t; SELECT lo_from_bytea(0, '\\x01');
         CREATE FUNCTION public.f() RETURNS int LANGUAGE sql RETURN 1; CREATE TABLE public.secured (x int);
         ALTER TABLE public.secured ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON public.secured USING (true)",
    )
    .await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let archive = path("a.dump");
    a.program("pg_dump", &["-Fc", "-f", &archive]).expect_code(0);
    assert!(fs::metadata(&archive).unwrap().len() > 1000);
    let output = b
        .program("pg_restore", &["--no-owner", "--exit-on-error", "-d", b.app.database.as_str(), &archive])
        .expect_code(0);
    assert_eq!(output.stderr, "");
    assert_eq!(b.value("SELECT sum(id) FROM extra.t").await, "500500");
    assert_eq!(b.value("SELECT * FROM public.v").await, "1000");
    assert_eq!(b.value("SELECT count(*) FROM pg_largeobject_metadata").await, "1");
    b.causes_no_drift().await;

    // Back over itself, with --clean, and in several processes at once.
    let parts = path("parts");
    a.program("pg_dump", &["-Fd", "-j", "2", "-f", &parts]).expect_code(0);
    a.program("pg_restore", &["--clean", "--if-exists", "-j", "2", "-d", a.app.database.as_str(), &parts])
        .expect_code(0);
    assert_eq!(a.value("SELECT sum(id) FROM extra.t").await, "500500");
    a.causes_no_drift().await;

    // As a script, through psql; with its owner named, it is that of the same app.
    let script = path("a.sql");
    a.program("pg_dump", &["--clean", "--if-exists", "-f", &script]).expect_code(0);
    assert!(fs::read_to_string(&script).unwrap().contains(&format!("OWNER TO {}", a.app.owner)));
    psql_file(&a, Path::new(&script)).expect_code(0);
    assert_eq!(a.value("SELECT sum(id) FROM extra.t").await, "500500");
    a.causes_no_drift().await;
    for only in [["-s", "-f"], ["-a", "-f"]] {
        a.program("pg_dump", &[only[0], only[1], &path("x.sql")]).expect_code(0);
    }
}

fn psql_file(app: &Ordinary, script: &Path) -> Output {
    app.program("psql", &["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", script.to_str().unwrap()])
}

#[tokio::test]
async fn scripts_of_psql() {
    let a = Ordinary::new("script").await;
    let folder = tempfile::tempdir().unwrap();
    let (script, data) = (folder.path().join("s.sql"), folder.path().join("d.csv"));
    fs::write(&data, "1,one\n2,two\n").unwrap();
    let text = format!(
        "\\set table things\nBEGIN;\nCREATE TABLE :table (id int, v text);\n\\copy things FROM '{}' (FORMAT csv)\nCOPY things FROM stdin;\n3\tthree\n\\.\nCOMMIT;\n\
         SELECT format('CREATE INDEX ON things (%I)', c) FROM unnest('{{id,v}}'::text[]) c \\gexec\n\\d things\n\\dt\n\\du\n\\l\n\\dn+\n\\df\n\\dx\n\\conninfo\n",
        data.display()
    );
    fs::write(&script, text).unwrap();
    let output = psql_file(&a, &script).expect_code(0);
    assert!(output.stdout.contains(a.app.schema.as_str()), "{}", output.stdout);
    assert_eq!(output.stderr, "");
    assert_eq!(a.value("SELECT sum(id) FROM things").await, "6");
    assert_eq!(a.value("SELECT count(*) FROM pg_indexes WHERE tablename = 'things'").await, "2");
    a.program("vacuumdb", &["--analyze", "-t", "things"]).expect_code(0);
    a.program("reindexdb", &["-S", a.app.schema.as_str()]).expect_code(0);
    a.causes_no_drift().await;
}

#[tokio::test]
async fn what_one_login_makes_the_other_may_alter() {
    let a = Ordinary::new("slots").await;
    let second = a.second_login().await.connect().await.unwrap();
    let both = [&a.session, &second];
    for (maker, changer) in [(both[0], both[1]), (both[1], both[0])] {
        run_in(
            maker,
            "CREATE TABLE t (id serial, v text); CREATE VIEW v AS SELECT * FROM t; CREATE TYPE e AS ENUM ('a'); CREATE SCHEMA s;
             CREATE TABLE s.t (x int); CREATE FUNCTION f() RETURNS int LANGUAGE sql RETURN 1; CREATE SEQUENCE q;
             SELECT lo_from_bytea(99, '\\x01'); CREATE EXTENSION citext; CREATE MATERIALIZED VIEW m AS SELECT 1 AS x;
             ALTER DEFAULT PRIVILEGES IN SCHEMA s GRANT SELECT ON TABLES TO PUBLIC",
        )
        .await;
        run_in(
            changer,
            "INSERT INTO t (v) VALUES ('x'); ALTER TABLE t ADD COLUMN n int; CREATE OR REPLACE VIEW v AS SELECT *, 1 AS one FROM t;
             ALTER TYPE e RENAME VALUE 'a' TO 'b'; CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql RETURN 2; REFRESH MATERIALIZED VIEW m;
             CREATE TABLE s.u (x int); ALTER TABLE s.t ADD COLUMN y int; SELECT nextval('q'); SELECT lo_put(99, 0, '\\x02')",
        )
        .await;
        a.causes_no_drift().await;
        run_in(
            changer,
            "DROP VIEW v; DROP TABLE t; DROP TYPE e; DROP SCHEMA s CASCADE; DROP FUNCTION f(); DROP SEQUENCE q; DROP EXTENSION citext;
             DROP MATERIALIZED VIEW m; SELECT lo_unlink(99)",
        )
        .await;
    }
    // Nothing is left for the owner to own but its schemas.
    a.run("CREATE TABLE t (x int)").await;
    a.causes_no_drift().await;
}

#[tokio::test]
async fn a_login_that_leaves_its_role_goes_on_and_is_mended() {
    let a = Ordinary::new("stray").await;
    a.run("CREATE TABLE before (x int); SET ROLE NONE").await;
    assert_eq!(a.value("SELECT current_user").await, a.config.user());
    a.run(
        "INSERT INTO before VALUES (1); CREATE TABLE stray (id serial, x int); CREATE FUNCTION stray() RETURNS int LANGUAGE sql RETURN 1;
         CREATE SCHEMA strays; CREATE TYPE strays.e AS ENUM ('a'); SELECT lo_from_bytea(0, '\\x01'); CREATE VIEW peek AS SELECT * FROM stray;
         ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
    )
    .await;
    let provisioner = a.server.provisioner().await;
    let spec = AppSpec::new(a.app.name.clone());
    let plan = provisioner.plan(&spec).await.unwrap();
    let mend = Step::ReassignStrays { login: a.app.login(Slot::One).clone(), owner: a.app.owner.clone() };
    assert!(plan.steps.contains(&mend), "{plan}");
    provisioner.create(&spec).await.unwrap();
    a.run("RESET ROLE; ALTER TABLE stray ADD COLUMN y int; DROP SCHEMA strays CASCADE").await;
    a.causes_no_drift().await;
}

/// The README's section "What differs for an app", line by line.
#[tokio::test]
async fn what_differs() {
    let (a, b) = (Ordinary::new("differs").await, Ordinary::new("other").await);
    let (user, user2, owner, database) =
        (a.app.login(Slot::One), a.app.login(Slot::Two), &a.app.owner, &a.app.database);
    a.run("CREATE TABLE t (x int)").await;
    let refused = [
        // Settings: `settings` of the AppSpec instead.
        format!("ALTER DATABASE {database} SET work_mem = '5MB'"),
        format!("ALTER ROLE {user} SET work_mem = '5MB'"),
        "ALTER ROLE SESSION_USER SET work_mem = '5MB'".to_owned(),
        format!("ALTER ROLE {user} IN DATABASE {database} SET work_mem = '5MB'"),
        format!("ALTER DATABASE {database} RENAME TO other"),
        format!("ALTER DATABASE {database} CONNECTION LIMIT 1"),
        format!("DROP DATABASE {database}"),
        format!("COMMENT ON DATABASE {database} IS 'x'"),
        // `REINDEX SCHEMA` instead.
        format!("REINDEX DATABASE {database}"),
        // The login as owner: `--no-owner`, or the owner's name.
        format!("ALTER TABLE t OWNER TO {user}"),
        "ALTER TABLE t OWNER TO SESSION_USER".to_owned(),
        format!("ALTER SCHEMA {} OWNER TO {user}", a.app.schema),
        format!("REASSIGN OWNED BY {owner} TO {user}"),
        format!("CREATE SCHEMA extra AUTHORIZATION {user}"),
        format!("CREATE SCHEMA AUTHORIZATION {user}"),
        format!("SET SESSION AUTHORIZATION {owner}"),
        format!("SET ROLE {user2}"),
        // Roles and databases: a local environment for tests.
        format!("GRANT {owner} TO {user}"),
        format!("GRANT {owner} TO {}", b.app.owner),
        "CREATE DATABASE test_x".to_owned(),
        "CREATE ROLE x".to_owned(),
        format!("ALTER ROLE {user} PASSWORD 'x'"),
        // Untrusted extensions: `extensions` of the AppSpec.
        "CREATE EXTENSION postgres_fdw".to_owned(),
        "CREATE EXTENSION pg_stat_statements".to_owned(),
    ];
    for statement in refused {
        assert_eq!(refusal::statement(&a.session, &statement).await, "42501", "{statement}");
    }
    let without_effect = [
        // The current role is the owner, which nobody logs in as.
        "ALTER ROLE CURRENT_USER SET work_mem = '5MB'".to_owned(),
        format!("ALTER ROLE {owner} SET statement_timeout = '1s'"),
        format!("ALTER ROLE {owner} IN DATABASE {database} SET work_mem = '5MB'"),
        // A warning, and nothing else.
        format!("GRANT CONNECT ON DATABASE {database} TO PUBLIC"),
        format!("REVOKE CONNECT ON DATABASE {database} FROM PUBLIC"),
        // Its own tables; those of the system are passed over, each with a warning.
        "VACUUM".to_owned(),
    ];
    for statement in &without_effect {
        assert_eq!(refusal::statement(&a.session, statement).await, DONE, "{statement}");
    }
    let fresh = a.config.connect().await.unwrap();
    assert_eq!(value(&fresh, "SHOW work_mem").await, a.server.value("postgres", "SHOW work_mem").await);
    assert_eq!(value(&fresh, "SHOW statement_timeout").await, "0");
    a.causes_no_drift().await;

    // With the owner's name these work, and so does what names the current role.
    a.run(&format!("ALTER TABLE t OWNER TO {owner}; ALTER TABLE t OWNER TO CURRENT_USER; CREATE SCHEMA extra AUTHORIZATION {owner}; SET ROLE {owner}")).await;
    // `current_user` is the owner and not DB_USER.
    assert_eq!(
        (a.value("SELECT current_user").await, a.value("SELECT session_user").await),
        (owner.to_string(), user.to_string())
    );
    // Query texts are hidden, even those of the app's own sessions, because they are the login's and the role is not.
    let pid = value(&fresh, "SELECT pg_backend_pid()").await;
    let texts = format!("SELECT query FROM pg_stat_activity WHERE pid = {pid}");
    let hidden = a.value(&texts).await;
    assert_eq!(hidden, "<insufficient privilege>");
    // For the same reason it cannot end them from SQL.
    let cancel = format!("SELECT pg_cancel_backend({pid}), pg_terminate_backend({pid})");
    assert_eq!(refusal::statement(&a.session, &cancel).await, "42501");
    a.run("SET ROLE NONE").await;
    assert_eq!(a.value(&texts).await, "SELECT pg_backend_pid()", "outside its role a login sees its own");
    assert_eq!(refusal::statement(&a.session, &cancel).await, DONE);
    assert!(refusal::has_ended(&fresh).await);
    a.run("RESET ROLE").await;
    // What drivers do to end a query works as ever.
    let (busy, token) = (a.config.connect().await.unwrap(), a.session.cancel_token());
    let lock = "SELECT pg_advisory_lock(77)";
    run_in(&busy, lock).await;
    let (waiting, cancelled) = tokio::join!(a.session.simple_query(lock), async {
        let seen = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 77 AND NOT granted";
        while value(&busy, seen).await != "1" {}
        token.cancel_query(a.session.tls().clone()).await
    });
    cancelled.unwrap();
    assert_eq!(waiting.unwrap_err().code().unwrap().code(), "57014");

    // Names are visible to everybody.
    let names: BTreeSet<String> = rows(&a.session, "SELECT datname FROM pg_database").await.into_iter().collect();
    assert!(names.contains(b.app.database.as_str()));
    // The cure for settings works.
    let mut spec = AppSpec::new(a.app.name.clone());
    spec.settings = Some([("work_mem".parse().unwrap(), "5MB".to_owned())].into());
    a.server.provisioner().await.create(&spec).await.unwrap();
    assert_eq!(value(&a.config.connect().await.unwrap(), "SHOW work_mem").await, "5MB");
}
