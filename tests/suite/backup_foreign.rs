//! Dumps that were made elsewhere, as people write them, and dumps for people.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use shareddb_core::{
    App, AppSpec, BackupManager, BackupOptions, ConnectionConfig, DumpFile, OtherRoles, RestoreOptions, RestoreReport,
    Result,
};
use shareddb_tests::TestServer;
use shareddb_tests::clients::programs;
use shareddb_tests::command::run;
use shareddb_tests::majors::ForeignServer;
use shareddb_tests::server::{password, sql, temporary_home, unique, value};

use crate::backup::filled;
use crate::backup_faults::{assert_tidy, memory};

/// What pg_dump writes about a database, given these arguments.
fn pg_dump(binaries: &Path, config: &ConnectionConfig, args: &[&str]) {
    let mut command = Command::new(binaries.join("pg_dump"));
    command.env_clear().env("PGPASSWORD", password(config)).env("LC_ALL", "C").stdin(Stdio::null());
    command.args(["-h", config.host(), "-p", &config.port().to_string(), "-U", config.user(), "-d", config.database()]);
    run(command.args(args)).expect_code(0);
}

/// What tells whether everything is there.
const FINGERPRINT: &str = "SELECT concat_ws(' ', (SELECT md5(string_agg(p::text, '|' ORDER BY id)) FROM people p), \
     (SELECT count(*) FROM parted), (SELECT string_agg(t::text, ',' ORDER BY t.*::text) FROM \"odd \"\"schema\"\")\".\"Tab (le\" t), \
     (SELECT string_agg(loid::text || encode(data, 'hex'), ',' ORDER BY loid::bigint = 4711, data) FROM pg_largeobject WHERE loid = 4711), \
     (SELECT sum(n) FROM moods), (SELECT last_value FROM loose))";

/// The fingerprint of a database, as the admin sees it; where tables are, the app that made them says.
async fn fingerprint(server: &TestServer, database: &App, maker: &App) -> String {
    let session = server.session(database.database.as_str()).await;
    session.batch_execute(&format!("SET search_path = {}, public", maker.schema)).await.unwrap();
    value(&session, FINGERPRINT).await
}

/// A server's app, and how it logs in.
async fn empty(server: &TestServer, stem: &str) -> (App, ConnectionConfig) {
    let app = server.made(stem).await;
    let config = server.provisioner().await.connection(&app.name).await.unwrap();
    (app, config)
}

async fn restored(manager: &BackupManager, app: &App, file: &Path, options: &RestoreOptions) -> Result<RestoreReport> {
    let file = DumpFile::open(file).await?;
    manager.restore_file(&app.name, &file, options, app.name.as_str()).await
}

fn without_safety() -> RestoreOptions {
    let mut options = RestoreOptions::default();
    options.safety_backup = false;
    options
}

#[tokio::test(flavor = "multi_thread")]
async fn what_pg_dump_writes_is_restored_in_every_form() {
    let server = TestServer::shared().await;
    let source = filled(server, "written").await;
    // As the guide does, by the admin: with owners and rights of roles that are another app's.
    let config = server.admin().with_database(source.database.to_string());
    let expected = fingerprint(server, &source, &source).await;
    let binaries = &server.endpoint().binaries.dir;
    let folder = temporary_home();
    let at = |name: &str| folder.join(name);
    let dump = |name: &str, form: &str| {
        pg_dump(binaries, &config, &[form, "-f", at(name).to_str().unwrap()]);
        at(name)
    };
    let plain = dump("app.sql", "-Fp");
    let text = fs::read(&plain).unwrap();
    let gzip = at("app.sql.gz");
    run(Command::new("gzip").args(["-k", plain.to_str().unwrap()])).expect_code(0);
    let zstd = at("app.sql.zst");
    fs::write(&zstd, zstd::encode_all(text.as_slice(), 3).unwrap()).unwrap();
    let custom = dump("app.dump", "-Fc");
    let packed = at("app.dump.gz");
    run(Command::new("gzip").args(["-k", custom.to_str().unwrap()])).expect_code(0);
    let files = [plain, gzip, zstd, custom, packed, dump("app.tar", "-Ft"), dump("app.dir", "-Fd")];
    let (app, config) = empty(server, "read").await;
    let manager = BackupManager::new(server.server().await, memory());
    for file in &files {
        sql(&config, config.database(), "CREATE TABLE IF NOT EXISTS is_replaced ()").await;
        let mut options = without_safety();
        // Roles of the other app.
        options.other_roles = Some(OtherRoles::Existing);
        let report = restored(&manager, &app, file, &options)
            .await
            .unwrap_or_else(|error| panic!("{}: {error:?}", file.display()));
        assert!(report.manifest.is_none());
        let rows = "SELECT sum(n)::text FROM (SELECT (xpath('/row/c/text()', query_to_xml(format('SELECT count(*) AS c FROM ONLY %s', c.oid::regclass), \
             false, true, '')))[1]::text::int AS n FROM pg_class c JOIN pg_namespace s ON s.oid = relnamespace \
             WHERE relkind = 'r' AND nspname !~ '^(pg_|information_schema)') counts";
        let admin = server.session(app.database.as_str()).await;
        assert_eq!(value(&admin, rows).await, report.rows.to_string(), "{}", file.display());
        assert_eq!(fingerprint(server, &app, &source).await, expected, "{}", file.display());
        let foreign = format!(
            "SELECT count(*) FROM pg_class WHERE relowner <> '{}'::regrole AND oid >= 16384 AND relnamespace <> 'pg_toast'::regnamespace",
            app.owner
        );
        assert_eq!(value(&admin, &foreign).await, "0", "{}", file.display());
        drop(admin);
        let plan = server.provisioner().await.plan(&AppSpec::new(app.name.clone())).await.unwrap();
        assert!(plan.is_empty(), "{}: {plan}", file.display());
    }
    assert_tidy(server, &app, &manager, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_for_people_is_whole_or_not_there() {
    let server = TestServer::shared().await;
    let app = filled(server, "people").await;
    let config = server.provisioner().await.connection(&app.name).await.unwrap();
    let manager = BackupManager::new(server.server().await, memory());
    let folder = temporary_home();
    let expected = fingerprint(server, &app, &app).await;
    for name in ["app.sql", "app.sql.gz", "app.sql.zst"] {
        let path = folder.join(name);
        let written = manager.dump(&app.name, &path, &BackupOptions::default()).await.unwrap();
        assert_eq!((written.rows, written.bytes), (1020, fs::metadata(&path).unwrap().len()), "{name}");
        sql(&config, config.database(), "DROP MATERIALIZED VIEW moods; DELETE FROM parted").await;
        let report = restored(&manager, &app, &path, &without_safety())
            .await
            .unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(report.rows, 1020);
        assert_eq!(fingerprint(server, &app, &app).await, expected, "{name}");
    }
    // One that does not come about leaves the old one, and nothing beside it.
    let path = folder.join("app.sql");
    let before = fs::read(&path).unwrap();
    sql(&server.admin(), app.database.as_str(), "CREATE TABLE public.strange ()").await;
    let error = manager.dump(&app.name, &path, &BackupOptions::default()).await.unwrap_err();
    assert_eq!(error.code(), "objects_of_others");
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 3);
    let error =
        manager.dump(&app.name, Path::new("/no/such/folder/x.sql"), &BackupOptions::default()).await.unwrap_err();
    assert_ne!(error.code(), "internal", "{error}");
    assert_tidy(server, &app, &manager, 0).await;
}

/// A script with an end.
fn script(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join(format!("{}.sql", unique("script")));
    fs::write(&path, format!("{text}\n--\n-- PostgreSQL database dump complete\n--\n")).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_script_runs_nothing_of_its_own() {
    let server = TestServer::shared().await;
    let (app, config) = empty(server, "hostile").await;
    let (other, _) = empty(server, "victim").await;
    sql(&config, config.database(), "CREATE TABLE kept AS SELECT 1 AS i").await;
    let manager = BackupManager::new(server.server().await, memory());
    let folder = temporary_home();
    let proof = folder.join("proof");
    let touch = format!("touch {}", proof.display());
    let refused = [
        format!("\\! {touch}"),
        format!("\\echo `{touch}`"),
        format!("\\restrict abc\n\\unrestrict `{touch}`"),
        format!("SELECT 1; \\unrestrict `{touch}`"),
        format!("SELECT 1 \\g |{touch}"),
        format!("\\o |{touch}\nSELECT 1;"),
        format!("\\copy pg_class to program '{touch}'"),
        format!("COPY (SELECT 1) TO PROGRAM '{touch}';"),
        "COPY pg_authid TO '/tmp/x';".to_owned(),
        "CREATE TABLE t (x text);\nCOPY t (x) FROM stdin;\na\n\\.\n\\! id\n".to_owned(),
        "DO $x$ BEGIN EXECUTE 'SET ROLE postgres'; END $x$;".to_owned(),
        format!("DO $x$ BEGIN EXECUTE 'SET SESSION AUTHORIZATION {}'; END $x$;", other.owner),
        format!("DO $x$ BEGIN EXECUTE 'SET ROLE {}'; END $x$;", other.owner),
        "SELECT pg_read_file('/etc/passwd');".to_owned(),
        "DO $x$ BEGIN EXECUTE 'ALTER ROLE CURRENT_USER SUPERUSER'; END $x$;".to_owned(),
        "CREATE EXTENSION file_fdw;".to_owned(),
        "CREATE TABLE t AS SELECT 1;\nROLLBACK;".to_owned(),
        "SELECT lo_export(lo_from_bytea(0, 'x'), '/tmp/shareddb-proof');".to_owned(),
    ];
    for text in &refused {
        let error = restored(&manager, &app, &script(&folder, text), &without_safety()).await.expect_err(text);
        assert!(
            error.hint().is_some() || error.sqlstate().is_some() || error.code().starts_with("script_"),
            "{text}: {error:?}"
        );
        assert!(!proof.exists(), "{text}");
    }
    let open = script(&folder, "BEGIN;\nCREATE TABLE in_a_transaction AS SELECT 1 AS i;");
    assert_eq!(restored(&manager, &app, &open, &without_safety()).await.unwrap().rows, 1);
    // These are left out, and what is in them does nothing.
    let skipped = format!(
        "\\connect {}\nSET SESSION AUTHORIZATION 'postgres';\nSET ROLE postgres;\nCREATE ROLE thief SUPERUSER;\nALTER DATABASE {} OWNER TO thief;\n\
         DROP DATABASE {};\nCREATE TABLE t (x text DEFAULT '\\! id');\nALTER TABLE t OWNER TO postgres;\nCOPY t (x) FROM stdin;\n\\\\.\n\\\\! id\n\\.\n\
         CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $tag$ SELECT '\\! id'; $tag$;\n",
        other.database, other.database, other.database
    );
    let report = restored(&manager, &app, &script(&folder, &skipped), &without_safety()).await.unwrap();
    assert_eq!((report.tables, report.rows), (1, 2));
    assert_eq!(report.remarks.len(), 3, "{:?}", report.remarks);
    assert_eq!(server.value(app.database.as_str(), "SELECT string_agg(x, '|') FROM t").await, "\\.|\\! id");
    assert_eq!(
        server.value(app.database.as_str(), "SELECT tableowner::text FROM pg_tables WHERE tablename = 't'").await,
        app.owner.as_str()
    );
    assert_eq!(server.value("postgres", "SELECT count(*) FROM pg_roles WHERE rolname = 'thief'").await, "0");
    assert!(!proof.exists());
    assert_tidy(server, &app, &manager, 0).await;
}

/// Each of these runs code when it is loaded.
const TROJANS: &str = "
    CREATE FUNCTION climb() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO climbed SELECT session_user, current_user, current_setting('is_superuser');
        BEGIN EXECUTE 'SET ROLE postgres'; EXECUTE 'CREATE ROLE stolen SUPERUSER'; EXCEPTION WHEN OTHERS THEN NULL; END;
        BEGIN EXECUTE 'SET ROLE NONE'; EXECUTE 'CREATE TABLE stray ()'; EXECUTE 'ALTER ROLE CURRENT_USER SUPERUSER'; EXCEPTION WHEN OTHERS THEN NULL; END;
        BEGIN EXECUTE 'COPY (SELECT 1) TO PROGRAM ''touch /tmp/shareddb-climbed'''; EXCEPTION WHEN OTHERS THEN NULL; END;
        RETURN true; EXCEPTION WHEN OTHERS THEN RETURN true; END $$;
    CREATE FUNCTION climb_of(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM public.climb(); RETURN i; END $$;
    CREATE TABLE climbed (session text, role text, super text);
    CREATE DOMAIN climbing AS int CHECK (public.climb_of(VALUE) IS NOT NULL);
    CREATE TABLE checked (i int CHECK (public.climb_of(i) = i));
    CREATE TABLE made (i int, j int GENERATED ALWAYS AS (public.climb_of(i)) STORED);
    CREATE TABLE of_domain (i climbing);
    CREATE TABLE cut (i int) PARTITION BY LIST (public.climb_of(i));
    CREATE TABLE cut_1 PARTITION OF cut DEFAULT;
    CREATE INDEX ON checked (public.climb_of(i));
    INSERT INTO checked VALUES (1); INSERT INTO made VALUES (2); INSERT INTO of_domain VALUES (3); INSERT INTO cut VALUES (4);
    CREATE FUNCTION on_row() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM public.climb(); RETURN new; END';
    CREATE TRIGGER on_row BEFORE INSERT ON checked FOR EACH ROW EXECUTE FUNCTION public.on_row();
    CREATE MATERIALIZED VIEW seen AS SELECT public.climb_of(5);";

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_archive_gets_nowhere() {
    let server = TestServer::shared().await;
    let (source, config) = empty(server, "trojan").await;
    sql(
        &config,
        config.database(),
        &TROJANS
            .replace("public.", "")
            .replace("CREATE FUNCTION climb()", "SET search_path = public; CREATE FUNCTION climb()")
            .replace("PERFORM climb", "PERFORM public.climb"),
    )
    .await;
    let admin = server.admin().with_database(source.database.to_string());
    let folder = temporary_home();
    let (app, _) = empty(server, "gate").await;
    let manager = BackupManager::new(server.server().await, memory());
    let roles = "SELECT md5(string_agg(r::text, '|' ORDER BY rolname)) FROM (SELECT rolname, rolsuper, rolcreaterole, rolcreatedb, rolreplication, \
         rolbypassrls FROM pg_roles WHERE rolname LIKE ANY (ARRAY['stolen', 'gate%', 'trojan%', 'postgres'])) r";
    let before = server.value("postgres", roles).await;
    for (name, form) in [("a.dump", "-Fc"), ("a.sql", "-Fp")] {
        let path = folder.join(name);
        pg_dump(&server.endpoint().binaries.dir, &admin, &[form, "-f", path.to_str().unwrap()]);
        let mut options = without_safety();
        options.other_roles = Some(OtherRoles::LeaveOut);
        restored(&manager, &app, &path, &options).await.unwrap();
        assert_eq!(server.value("postgres", roles).await, before);
        assert!(!Path::new("/tmp/shareddb-climbed").exists());
        let owners = format!(
            "SELECT count(*) FROM pg_class WHERE relowner <> '{}'::regrole AND oid >= 16384 AND relnamespace = 'public'::regnamespace",
            app.owner
        );
        assert_eq!(server.value(app.database.as_str(), &owners).await, "0");
        let as_whom = "SELECT coalesce(string_agg(DISTINCT super, ','), '') FROM public.climbed";
        assert_ne!(server.value(app.database.as_str(), as_whom).await, "on");
    }
    // As a backup of ours it is not what it was, where it writes while it is loaded: newer servers keep it from that.
    manager.backup(&source.name, &BackupOptions::default()).await.unwrap();
    let done = manager.restore(&source.name, &without_safety(), source.name.as_str()).await;
    assert!(done.as_ref().err().is_none_or(|error| error.code() == "backup_differs"), "{done:?}");
    assert_eq!(server.value("postgres", roles).await, before);
    assert_tidy(server, &source, &manager, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_restored_says_why_before_anything_is_made() {
    let server = TestServer::shared().await;
    let (app, config) = empty(server, "unfit").await;
    sql(&config, config.database(), "CREATE TABLE kept AS SELECT 1 AS i").await;
    let manager = BackupManager::new(server.server().await, memory());
    let folder = temporary_home();
    let code = async |path: &Path, options: &RestoreOptions| {
        let error = restored(&manager, &app, path, options).await.unwrap_err();
        assert!(error.hint().is_some(), "{error}");
        error.code().to_owned()
    };
    let cut = folder.join("cut.sql");
    fs::write(&cut, "CREATE TABLE t (x int);\nCOPY t (x) FROM stdin;\n1\n").unwrap();
    assert_eq!(code(&cut, &without_safety()).await, "script_truncated");
    let role = script(&folder, "CREATE TABLE t (x int);\nGRANT SELECT ON t TO nobody_here;\n");
    assert_eq!(code(&role, &without_safety()).await, "script_roles_missing");
    let extension = script(&folder, "CREATE EXTENSION IF NOT EXISTS pageinspect WITH SCHEMA public;\n");
    assert_eq!(code(&extension, &without_safety()).await, "extension_not_made");
    let unknown = script(&folder, "CREATE EXTENSION no_such_thing;\n");
    assert_eq!(code(&unknown, &without_safety()).await, "extension_missing");
    let all = folder.join("all.sql");
    fs::write(&all, "--\n-- PostgreSQL database cluster dump\n--\n").unwrap();
    assert_eq!(code(&all, &without_safety()).await, "script_cluster");
    let wrong = script(&folder, "CREATE TABLE t (x int);\nINSERT INTO t VALUES ('m4rker');\n");
    let error = restored(&manager, &app, &wrong, &without_safety()).await.unwrap_err();
    assert!(error.to_string().contains("INSERT INTO t VALUES…"), "{error}");
    let kept = format!("SELECT count(*) FROM {}.kept", app.schema);
    assert_eq!(server.value(app.database.as_str(), &kept).await, "1");

    let mut skipping = without_safety();
    skipping.other_roles = Some(OtherRoles::Existing);
    let report = restored(&manager, &app, &role, &skipping).await.unwrap();
    assert!(report.remarks.iter().any(|remark| remark.contains("nobody_here")), "{:?}", report.remarks);
    assert_tidy(server, &app, &manager, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_of_a_newer_pg_dump_are_refused_with_a_way() {
    let (older, newest) = tokio::join!(ForeignServer::shared(16), ForeignServer::shared(18));
    let provisioner = older.provisioner(older.superuser());
    let spec = AppSpec::new(unique("newer"));
    let app = provisioner.create(&spec).await.unwrap().app;
    newest.sql("postgres", "CREATE DATABASE newest").await;
    newest.sql("newest", "CREATE TABLE t AS SELECT 1 AS i").await;
    let source = newest.superuser().with_database("newest");
    let folder = temporary_home();
    let path = folder.join("new.dump");
    pg_dump(&programs(18), &source, &["-Fc", "-f", path.to_str().unwrap()]);
    let manager = BackupManager::new(provisioner.server().clone(), memory()).with_binaries(programs(16));
    let error = restored(&manager, &app, &path, &without_safety()).await.unwrap_err();
    assert_eq!(error.code(), "archive_newer");
    assert!(error.hint().unwrap().contains("pg_restore --file=dump.sql new.dump"), "{error}");
    // That way leads there.
    let plain = folder.join("new.sql");
    pg_dump(&programs(18), &source, &["-Fp", "-f", plain.to_str().unwrap()]);
    let report = restored(&manager, &app, &plain, &without_safety()).await.unwrap();
    assert_eq!((report.tables, report.rows), (1, 1));
}

/// A function that finds its own names by the search path only, used by an index, a check and a generated column.
const UNQUALIFIED: &str = "
    CREATE TABLE words (word text PRIMARY KEY, known boolean);
    CREATE FUNCTION trimmed(t text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT btrim(t)';
    CREATE FUNCTION plain(t text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN lower(trimmed(t)); END';
    CREATE FUNCTION inlined(t text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT plain(t)';
    CREATE TABLE notes (body text CHECK (plain(body) <> ''), short text GENERATED ALWAYS AS (plain(body)) STORED,
        same text GENERATED ALWAYS AS (inlined(body)) STORED);
    CREATE INDEX ON notes (plain(body));
    CREATE TABLE kinds (body text) PARTITION BY LIST (inlined(body));
    CREATE TABLE other_kinds PARTITION OF kinds DEFAULT;
    INSERT INTO notes SELECT ' Note ' || i FROM generate_series(1, 50) i;";

#[tokio::test(flavor = "multi_thread")]
async fn names_that_only_the_search_path_finds_are_found_the_second_time() {
    let server = TestServer::shared().await;
    let (app, config) = empty(server, "unqualified").await;
    sql(&config, config.database(), UNQUALIFIED).await;
    let manager = BackupManager::new(server.server().await, memory());
    let manifest = manager.backup(&app.name, &BackupOptions::default()).await.unwrap();
    let checked = manager.verify(&manifest.id, &shareddb_core::VerifyOptions::default()).await.unwrap();
    assert_eq!((checked.verdict, checked.findings), (shareddb_core::Verdict::Passed, vec![]));
    let report = manager.restore(&app.name, &without_safety(), app.name.as_str()).await.unwrap();
    assert!(report.remarks.iter().any(|remark| remark.contains("search_path")), "{:?}", report.remarks);
    let settings = "SELECT count(*) FROM pg_proc WHERE proconfig IS NOT NULL AND oid >= 16384";
    assert_eq!(server.value(app.database.as_str(), settings).await, "0", "it was for the load only");
    let folder = temporary_home();
    for (name, form) in [("a.dump", "-Fc"), ("a.sql", "-Fp")] {
        let path = folder.join(name);
        let admin = server.admin().with_database(app.database.to_string());
        pg_dump(&server.endpoint().binaries.dir, &admin, &[form, "-f", path.to_str().unwrap()]);
        let report = restored(&manager, &app, &path, &without_safety())
            .await
            .unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert!(report.remarks.iter().any(|remark| remark.contains("search_path")), "{name}: {:?}", report.remarks);
        assert_eq!(report.rows, 50);
        assert_eq!(server.value(app.database.as_str(), settings).await, "0");
    }
    assert_tidy(server, &app, &manager, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn extensions_are_where_the_dump_says() {
    let server = TestServer::shared().await;
    let mut spec = AppSpec::new(unique("extended"));
    spec.extensions = Some(["pg_trgm", "citext"].map(|name| name.parse().unwrap()).into());
    let app = server.provisioner().await.create(&spec).await.unwrap().app;
    let config = server.provisioner().await.connection(&app.name).await.unwrap();
    let fill = "CREATE EXTENSION hstore; CREATE TABLE t (name citext, kept hstore); INSERT INTO t VALUES ('A', 'a=>1'); \
                CREATE INDEX ON t USING gin ((name::text) gin_trgm_ops)";
    sql(&config, config.database(), fill).await;
    let manager = BackupManager::new(server.server().await, memory());
    let folder = temporary_home();
    let admin = server.admin().with_database(app.database.to_string());
    let plain = folder.join("ours.sql");
    manager.dump(&app.name, &plain, &BackupOptions::default()).await.unwrap();
    let [script, archive] = [("admin.sql", "-Fp"), ("admin.dump", "-Fc")].map(|(name, form)| {
        let path = folder.join(name);
        pg_dump(&server.endpoint().binaries.dir, &admin, &[form, "-f", path.to_str().unwrap()]);
        path
    });
    let places = "SELECT string_agg(extname || '=' || extnamespace::regnamespace, ',' ORDER BY extname) FROM pg_extension WHERE extname <> 'plpgsql'";
    let before = server.value(app.database.as_str(), places).await;
    for path in [&plain, &script, &archive] {
        let report = restored(&manager, &app, path, &without_safety())
            .await
            .unwrap_or_else(|error| panic!("{}: {error:?}", path.display()));
        assert_eq!(report.rows, 1);
        assert_eq!(server.value(app.database.as_str(), places).await, before, "{}", path.display());
        let plan = server.provisioner().await.plan(&spec).await.unwrap();
        assert!(plan.is_empty(), "{}: {plan}", path.display());
    }
    // Made elsewhere, where it stands among the app's own tables.
    let elsewhere = ForeignServer::shared(15).await;
    elsewhere.sql("postgres", "CREATE DATABASE extended").await;
    let own = "CREATE SCHEMA own; CREATE EXTENSION citext SCHEMA own; CREATE TABLE own.t (name own.citext); INSERT INTO own.t VALUES ('A')";
    elsewhere.sql("extended", own).await;
    for (name, form) in [("own.sql", "-Fp"), ("own.dump", "-Fc")] {
        let path = folder.join(name);
        pg_dump(&programs(15), &elsewhere.superuser().with_database("extended"), &[form, "-f", path.to_str().unwrap()]);
        let report = restored(&manager, &app, &path, &without_safety())
            .await
            .unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(report.rows, 1, "{name}");
        assert_eq!(
            server.value(app.database.as_str(), "SELECT count(*) FROM own.t WHERE name OPERATOR(own.=) 'a'").await,
            "1"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_is_loaded_as_far_as_an_archive_is() {
    let server = TestServer::shared().await;
    let ((app, _), (other, _)) = tokio::join!(empty(server, "lenient"), empty(server, "another"));
    let manager = BackupManager::new(server.server().await, memory());
    let folder = temporary_home();
    let text = format!(
        "SET default_tablespace = fast;\nSET client_encoding = 'SQL_ASCII';\n\
         CREATE TABLE k (i int);\nCREATE POLICY gone ON k TO nobody_there USING (true);\nCOMMENT ON POLICY gone ON k IS 'x';\n\
         CREATE POLICY theirs ON k TO {owner} USING (true);\nCOMMENT ON POLICY theirs ON k IS 'x';\n\
         GRANT ALL ON k TO {owner};\nCREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION f();\nALTER EVENT TRIGGER e OWNER TO postgres;\n\
         CREATE OPERATOR FAMILY o USING btree;\nCREATE PUBLICATION p FOR ALL TABLES;\nCREATE SERVER s FOREIGN DATA WRAPPER w;\n\
         DROP SCHEMA IF EXISTS public;\nDROP EXTENSION IF EXISTS plpgsql;\n\
         CREATE SCHEMA shareddb_extensions;\nCREATE EXTENSION IF NOT EXISTS hstore WITH SCHEMA shareddb_extensions;\n\
         GRANT USAGE ON SCHEMA shareddb_extensions TO {owner};\nCREATE TABLE h (kept shareddb_extensions.hstore);\n\
         CREATE VIEW procedure AS SELECT 1 AS begin;\nCREATE FUNCTION begin() RETURNS int LANGUAGE sql AS 'SELECT 1';\n",
        owner = other.owner
    );
    let path = script(&folder, &text);
    assert_eq!(restored(&manager, &app, &path, &without_safety()).await.unwrap_err().code(), "script_roles_missing");
    let mut skipping = without_safety();
    skipping.other_roles = Some(OtherRoles::Existing);
    let report = restored(&manager, &app, &path, &skipping).await.unwrap();
    assert_eq!((report.tables, report.rows), (2, 0));
    let inside = server.session(app.database.as_str()).await;
    assert_eq!(value(&inside, "SELECT count(*) FROM pg_policy").await, "0");
    let held = "SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'shareddb_extensions'";
    assert_ne!(value(&inside, held).await, app.owner.as_str());
    let theirs = format!("SELECT has_table_privilege('{}', 'public.k', 'SELECT')", other.owner);
    assert_eq!(value(&inside, &theirs).await, "f");
    drop(inside);
    // Bytes that are no text of the database's encoding.
    let bytes = folder.join("bytes.sql");
    let text = b"SET client_encoding = 'SQL_ASCII';\nCREATE TABLE t (i text);\nCOPY t (i) FROM stdin;\n\xe9\n\\.\n\n-- PostgreSQL database dump complete\n";
    fs::write(&bytes, text).unwrap();
    let error = restored(&manager, &app, &bytes, &without_safety()).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("22021"), "{error:?}");
    // What an app may be called is written and read.
    manager.dump(&app.name, &folder.join("own.sql"), &BackupOptions::default()).await.unwrap();
    restored(&manager, &app, &folder.join("own.sql"), &without_safety()).await.unwrap();
    assert_tidy(server, &app, &manager, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_gives_other_apps_no_rights() {
    let server = TestServer::shared().await;
    let ((app, config), (other, _)) = tokio::join!(empty(server, "giving"), empty(server, "given"));
    let fill =
        "CREATE TABLE t (i int); CREATE POLICY p ON t TO {other} USING (true); GRANT SELECT ON t TO {other}, PUBLIC";
    sql(&config, config.database(), &fill.replace("{other}", other.owner.as_str())).await;
    let path = temporary_home().join("rights.dump");
    let admin = server.admin().with_database(app.database.to_string());
    pg_dump(&server.endpoint().binaries.dir, &admin, &["-Fc", "-f", path.to_str().unwrap()]);
    let manager = BackupManager::new(server.server().await, memory());
    let report = restored(&manager, &app, &path, &without_safety()).await.unwrap();
    let told: Vec<&str> = report.left_out.iter().map(|left| left.what.as_str()).collect();
    assert!(
        told.iter().any(|what| what.starts_with("POLICY")) && told.iter().any(|what| what.starts_with("ACL")),
        "{told:?}"
    );
    let inside = server.session(app.database.as_str()).await;
    assert_eq!(value(&inside, "SELECT count(*) FROM pg_policy").await, "0");
    let acl = "SELECT relacl::text FROM pg_class WHERE relname = 't'";
    let acl = value(&inside, acl).await;
    assert!(!acl.contains(other.owner.as_str()) && acl.contains("=r/"), "{acl}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_that_lacks_a_row_is_not_there() {
    let server = TestServer::shared().await;
    let (app, config) = empty(server, "lacking").await;
    sql(&config, config.database(), "CREATE TABLE t AS SELECT generate_series(101, 110) AS i").await;
    // A program that loses one on the way, and says nothing.
    let (real, folder) = (&server.endpoint().binaries.dir, temporary_home());
    let losing = format!("#!/bin/bash\nset -o pipefail\n'{}/pg_dump' \"$@\" | sed '/^105$/d'\n", real.display());
    fs::write(folder.join("pg_dump"), losing).unwrap();
    fs::set_permissions(folder.join("pg_dump"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink(real.join("pg_restore"), folder.join("pg_restore")).unwrap();
    let manager = BackupManager::new(server.server().await, memory()).with_binaries(&folder);
    let path = folder.join("app.sql");
    let error = manager.dump(&app.name, &path, &BackupOptions::default()).await.unwrap_err();
    assert_eq!(error.code(), "dump_differs", "{error:?}");
    assert!(error.to_string().contains("has 10 rows, and the dump has 9"), "{error}");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
    assert_tidy(server, &app, &manager, 0).await;
}
