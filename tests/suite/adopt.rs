//! An app that was made by hand is taken over in place, while it works.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use shareddb_core::{Adoption, AppSpec, Outcome, Proof, SecretStore as _, Step};
use shareddb_tests::legacy::{Legacy, OPEN_RULES, filled_by_admin, filled_by_login};
use shareddb_tests::refusal;
use shareddb_tests::server::{rows, value};
use shareddb_tests::watch::nothing_left;
use shareddb_tests::{TestServer, shareddb};

async fn open_server() -> TestServer {
    let server = TestServer::start().await;
    server.set_access_rules(OPEN_RULES).await;
    server
}

/// One of the guide's apps with objects of its login and of the admin, and a reporting role.
async fn filled(server: &TestServer, stem: &str) -> Legacy {
    let legacy = Legacy::make(server, stem).await;
    legacy.session(server).await.batch_execute(filled_by_login()).await.unwrap();
    server.sql(&legacy.database, &filled_by_admin(&legacy.user)).await;
    legacy
}

async fn reporting(server: &TestServer, legacy: &Legacy) -> String {
    let role = format!("{}_report", legacy.user);
    server.sql("postgres", &format!("CREATE ROLE {role} LOGIN PASSWORD 'r'")).await;
    server.sql(&legacy.database, &format!("GRANT SELECT ON orders, customers TO {role}")).await;
    role
}

#[tokio::test]
async fn the_guides_app_is_taken_over_with_everything() {
    let server = open_server().await;
    let legacy = filled(&server, "taken").await;
    let report = reporting(&server, &legacy).await;
    legacy.write_secret(&server, &[("EXTRA", "mine"), ("type", "something")]);
    let verifier = format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{}'", legacy.user);
    let stored = server.value("postgres", &verifier).await;
    let before = server.catalog().await;
    let (provisioner, spec) = (server.provisioner().await, legacy.spec());

    let plan = provisioner.plan(&spec).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
    assert_eq!(server.catalog().await, before, "a plan changes nothing");
    let takes = |step: &&Step| matches!(step, Step::Adopt(Adoption::Take { .. }));
    assert!(plan.steps.iter().filter(takes).count() > 12, "{plan}");
    assert!(plan.notices.iter().any(|notice| notice.contains("look()")), "{:?}", plan.notices);
    assert!(plan.notices.iter().any(|notice| notice.contains(&report)), "{:?}", plan.notices);

    let json = serde_json::to_value(&plan).unwrap();
    let steps = json["steps"].as_array().unwrap();
    let first = steps.iter().find(|step| step["step"] == "adopt").unwrap();
    assert_eq!(first["change"], "close-login", "it locks the login: {json}");
    assert!(steps.iter().any(|step| step["part"]["step"] == "create-login"), "{json}");

    let adopted = provisioner.create(&spec).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
    assert_eq!((adopted.outcome, adopted.proof), (Outcome::Adopted, Some(Proof::Complete)));
    assert_eq!(adopted.steps, plan.steps);
    let app = adopted.app;
    assert_eq!((app.owner.as_str(), app.login(shareddb_core::Slot::One).as_str()), (&*legacy.database, &*legacy.user));

    // Password, Secret, rights, data, search path.
    assert_eq!(server.value("postgres", &verifier).await, stored);
    for (key, expected) in [("DB_USER", &*legacy.user), ("DB_PASSWORD", &*legacy.password), ("EXTRA", "mine")] {
        assert_eq!(legacy.key(&server, key), expected, "{key}");
    }
    assert_eq!((&*legacy.key(&server, "type"), &*legacy.key(&server, "DB_SCHEMA")), ("something", "public"));
    assert!(legacy.key(&server, "DATABASE_URL").starts_with("postgresql://"));
    let session = legacy.session(&server).await;
    assert_eq!(value(&session, "SHOW search_path").await, "public");
    assert_eq!(value(&session, "SELECT current_user").await, legacy.database);
    let counts = "SELECT (SELECT count(*) FROM orders) || ' ' || (SELECT count(*) FROM archive.old) || ' ' || look() || ' ' \
         || (SELECT count(*) FROM notes) || ' ' || (SELECT count(*) FROM guarded) || ' ' || (SELECT count(*) FROM customer_names)";
    assert_eq!(value(&session, counts).await, "50 2 1 1 1 1", "row security shows what it showed");
    session.batch_execute("CREATE TABLE IF NOT EXISTS schema_migrations (version text)").await.unwrap();
    assert_eq!(value(&session, "SELECT count(*) FROM pg_class WHERE relname = 'schema_migrations'").await, "1");
    session
        .batch_execute("ALTER TABLE customers ADD COLUMN more text; REFRESH MATERIALIZED VIEW totals")
        .await
        .unwrap();

    // Every object is the owner's but what an admin keeps.
    let stays: Vec<String> = legacy
        .owners(&server)
        .await
        .into_iter()
        .filter(|line| !line.ends_with(&format!(" {}", legacy.database)))
        .collect();
    assert!(
        stays.iter().all(|line| {
            ["extension hstore postgres", "extension plpgsql postgres", "publication whole postgres"].contains(&line.as_str())
                // Constructors of a range belong to the server's first superuser for ever.
                || line.starts_with("function public.span(") || line.starts_with("function public.span_multirange(")
        }),
        "{stays:#?}"
    );
    assert_eq!(legacy.dependencies(&server, &legacy.user).await, "0");
    // The reporting role goes on, and nobody else gets in.
    let theirs = server.admin().with_database(&legacy.database).with_user(&report).with_password("r".into());
    assert_eq!(value(&theirs.connect().await.unwrap(), "SELECT count(*) FROM orders").await, "50");
    let rights = format!(
        "SELECT count(*) FROM pg_database, aclexplode(datacl) WHERE datname = '{}' AND grantee = 0",
        legacy.database
    );
    assert_eq!(server.value("postgres", &rights).await, "0");

    for spec in [&spec, &AppSpec::new(legacy.name.clone())] {
        drop(session.simple_query("SELECT 1").await);
        let again = provisioner.plan(spec).await.unwrap();
        assert!(again.is_empty(), "{again}");
    }
    assert_eq!(provisioner.create(&spec).await.unwrap().outcome, Outcome::Unchanged);
    let store = server.secrets();
    let secret = store.load(&app.secret).await.unwrap().unwrap();
    assert_eq!(secret.app, Some(legacy.name.clone()));
    // As any app from here on.
    provisioner.drop(&legacy.name, legacy.name.as_str()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_who_uses_the_app_notices() {
    let server = Arc::new(open_server().await);
    let legacy = filled(&server, "busy").await;
    legacy.write_secret(&server, &[]);
    let (stop, logins) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let looping = tokio::spawn({
        let (config, stop, logins) = (legacy.config(&server), Arc::clone(&stop), Arc::clone(&logins));
        async move {
            while !stop.load(Ordering::Relaxed) {
                let session = config.connect().await.unwrap_or_else(|error| panic!("a login failed: {error}"));
                session.batch_execute("INSERT INTO orders (word) VALUES ('loop')").await.unwrap();
                assert_eq!(value(&session, "SELECT count(*) FROM customers").await, "1");
                logins.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let old = legacy.session(&server).await;
    let prepared = old.prepare("SELECT count(*)::int4 FROM customers WHERE id > $1").await.unwrap();
    old.batch_execute(
        "LISTEN news; CREATE TEMP TABLE mine (x int); SELECT pg_advisory_lock(7); BEGIN; INSERT INTO orders (word) VALUES ('open'); \
         DECLARE rows CURSOR FOR SELECT id FROM orders; FETCH 3 FROM rows",
    )
    .await
    .unwrap();
    while logins.load(Ordering::Relaxed) < 5 {
        tokio::task::yield_now().await;
    }
    let (provisioner, spec) = (server.provisioner().await, legacy.spec());
    provisioner.create(&spec).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));

    let count: i32 = old.query_one(&prepared, &[&0]).await.unwrap().get(0);
    assert_eq!(count, 1);
    old.batch_execute("FETCH 3 FROM rows; CREATE TABLE made_later (x int); INSERT INTO mine VALUES (1); COMMIT")
        .await
        .unwrap();
    old.batch_execute("SELECT pg_advisory_unlock(7); INSERT INTO orders (word) VALUES ('after')").await.unwrap();
    old.batch_execute("DISCARD ALL").await.unwrap();
    let seen = logins.load(Ordering::Relaxed);
    while logins.load(Ordering::Relaxed) < seen + 5 {
        tokio::task::yield_now().await;
    }
    stop.store(true, Ordering::Relaxed);
    looping.await.unwrap();
    let owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'made_later'";
    assert_eq!(server.value(&legacy.database, owner).await, legacy.database, "what old sessions make is the owner's");
    let status = provisioner.status(Some(&legacy.name)).await.unwrap();
    assert!(status.apps[0].notices.iter().any(|notice| notice.contains("before it was adopted")), "{status:?}");
    assert!(provisioner.plan(&spec).await.unwrap().is_empty());
    println!("{} logins", logins.load(Ordering::Relaxed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_in_use_is_waited_for_and_then_named_and_the_next_run_goes_on() {
    let server = open_server().await;
    let legacy = filled(&server, "held").await;
    legacy.write_secret(&server, &[]);
    let reader = legacy.session(&server).await;
    reader.batch_execute("BEGIN; SELECT * FROM customers").await.unwrap();
    let impatient = server.provisioner().await.with_lock_patience(Duration::from_millis(400));
    let error = impatient.create(&legacy.spec()).await.unwrap_err();
    assert_eq!(error.code(), "objects_in_use", "{error}");
    assert!(
        error.to_string().contains("table public.customers") && error.to_string().contains(&legacy.database),
        "{error}"
    );
    // The app works, with what has changed hands and with what has not.
    let fresh = legacy.session(&server).await;
    for table in ["orders", "customers", "archive.old", "customer_names", "recent", "guarded"] {
        let rows = value(&fresh, &format!("SELECT count(*) FROM {table}")).await;
        assert_ne!(rows, "0", "{table}");
    }
    let status = impatient.status(Some(&legacy.name)).await.unwrap();
    let left = &status.apps[0].drift;
    assert!(left.iter().any(|step| step.to_string().contains("public.customers")), "{left:?}");

    let patient = server.provisioner().await;
    let plain = AppSpec::new(legacy.name.clone());
    let (report, ()) = tokio::join!(patient.create(&plain), async {
        shareddb_tests::watch::eventually("the run waits for the table", async || {
            let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'";
            server.value("postgres", waiting).await != "0"
        })
        .await;
        reader.batch_execute("COMMIT").await.unwrap();
    });
    assert_eq!(report.unwrap_or_else(|error| panic!("{error}")).outcome, Outcome::Configured);
    assert!(patient.plan(&legacy.spec()).await.unwrap().is_empty());
    assert_eq!(legacy.key(&server, "DB_PASSWORD"), legacy.password);
    assert!(legacy.key(&server, "DATABASE_URL").contains(&legacy.database));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_table_that_cannot_be_had_makes_nobody_wait_for_long() {
    let server = Arc::new(open_server().await);
    let legacy = filled(&server, "brief").await;
    legacy.write_secret(&server, &[]);
    let reader = legacy.session(&server).await;
    reader.batch_execute("BEGIN; SELECT * FROM customers").await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let looping = tokio::spawn({
        let (session, stop) = (legacy.session(&server).await, Arc::clone(&stop));
        async move {
            let (mut count, mut longest) = (0, Duration::ZERO);
            while !stop.load(Ordering::Relaxed) {
                let begun = std::time::Instant::now();
                session.batch_execute("SELECT count(*) FROM customers").await.unwrap();
                (count, longest) = (count + 1, longest.max(begun.elapsed()));
            }
            (count, longest)
        }
    });
    let impatient = server.provisioner().await.with_lock_patience(Duration::from_secs(2));
    assert_eq!(impatient.create(&legacy.spec()).await.unwrap_err().code(), "objects_in_use");
    stop.store(true, Ordering::Relaxed);
    let (count, longest) = looping.await.unwrap();
    println!("{count} statements, the longest {longest:?}");
    // A tenth of a second by itself; the rest is for a machine that does other things.
    assert!(longest < Duration::from_millis(900), "{longest:?}");
    reader.batch_execute("COMMIT").await.unwrap();
    impatient.create(&legacy.spec()).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
}

#[tokio::test]
async fn extensions_are_made_and_any_encoding_is_read() {
    let server = open_server().await;
    let provisioner = server.provisioner().await;
    let legacy = Legacy::make(&server, "latin").await;
    server.sql("postgres", &format!("DROP DATABASE {}", legacy.database)).await;
    let create = format!("CREATE DATABASE {} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0", legacy.database);
    server.sql("postgres", &create).await;
    server.sql(&legacy.database, "CREATE TABLE \"größe\" (x int)").await;
    legacy.write_secret(&server, &[]);
    let mut spec = legacy.spec();
    spec.extensions = Some(["pg_trgm".parse().unwrap(), "plpgsql".parse().unwrap()].into());
    let report = provisioner.create(&spec).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
    assert_eq!((report.outcome, report.proof), (Outcome::Adopted, Some(Proof::Complete)));
    let owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'größe'";
    assert_eq!(server.value(&legacy.database, owner).await, legacy.database);
    assert_eq!(value(&legacy.session(&server).await, "SELECT similarity('a', 'a')").await, "1");
    assert!(provisioner.plan(&legacy.spec()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_record_that_only_the_databases_owner_wrote_is_none_of_an_adoption() {
    let server = open_server().await;
    let provisioner = server.provisioner().await;
    let honest = Legacy::make(&server, "honest").await;
    let app = provisioner.create(&honest.spec()).await;
    let app = app.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes())).app;
    let forger = Legacy::make(&server, "forger").await;
    server.sql("postgres", &format!("ALTER DATABASE {} OWNER TO {}", forger.database, forger.user)).await;
    let mark = app.mark().to_string();
    let forged = mark
        .replace(honest.name.as_str(), forger.name.as_str())
        .replace(&honest.name.as_str().replace('-', "_"), &forger.name.as_str().replace('-', "_"))
        .replace("NOSUPERUSER", "SUPERUSER");
    assert!(forged.contains("\"SUPERUSER\""), "{forged}");
    let session = forger.session(&server).await;
    session.batch_execute(&format!("COMMENT ON DATABASE {} IS '{forged}'", forger.database)).await.unwrap();
    assert_eq!(provisioner.undo_adopt(&forger.name).await.unwrap_err().code(), "app_not_found");
    assert_eq!(provisioner.create(&forger.spec()).await.unwrap_err().code(), "adopt_refused");
    assert_eq!(provisioner.create(&AppSpec::new(forger.name.clone())).await.unwrap_err().code(), "name_taken");
}

#[tokio::test]
async fn secrets_of_every_kind() {
    let server = open_server().await;
    let provisioner = server.provisioner().await;
    let adopt = async |legacy: &Legacy| {
        let report = provisioner.create(&legacy.spec()).await;
        report.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
        // The old password goes on in every case.
        legacy.session(&server).await;
        let folder = legacy.folder(&server);
        let config = shareddb_core::ConnectionConfig::from_directory(&folder).unwrap();
        assert_eq!(value(&config.connect().await.unwrap(), "SELECT current_user").await, legacy.database);
        assert!(provisioner.plan(&legacy.spec()).await.unwrap().is_empty());
        config
    };

    let url_only = Legacy::make(&server, "url").await;
    let admin = server.admin();
    let place = format!("{}:{}/{}", admin.host(), admin.port(), url_only.database);
    let url =
        format!("postgres://{}:{}@{place}?sslmode=disable\n", url_only.user, url_only.password.replace(' ', "%20"));
    url_only.write_keys(&server, &[("DATABASE_URL", &url)]);
    adopt(&url_only).await;
    assert_eq!(url_only.key(&server, "DATABASE_URL"), url, "what agrees keeps its bytes");
    assert_eq!(url_only.key(&server, "DB_USER"), url_only.user);

    let absent = Legacy::make(&server, "absent").await;
    let config = adopt(&absent).await;
    assert_eq!(config.user(), format!("{}_2", absent.user), "pods have the old password by hand");

    let stale = Legacy::make(&server, "stale").await;
    stale.write_secret(&server, &[]);
    server.sql("postgres", &format!("ALTER ROLE {} PASSWORD '{}'", stale.user, stale.password)).await;
    let mut other = stale.clone();
    other.password = "forgotten".to_owned();
    other.write_secret(&server, &[]);
    let config = adopt(&stale).await;
    assert_eq!(config.user(), format!("{}_2", stale.user));

    let newline = Legacy::make(&server, "newline").await;
    newline.write_secret(&server, &[("DB_PASSWORD", &format!("{}\n", newline.password))]);
    assert_eq!(adopt(&newline).await.user(), newline.user);
}

#[tokio::test]
async fn a_password_stored_as_md5_goes_on() {
    let server = TestServer::start().await;
    server.set_access_rules("local all postgres peer\nhost all all 127.0.0.1/32 md5\n").await;
    let legacy = Legacy::make(&server, "md5").await;
    let set = format!("SET password_encryption = 'md5'; ALTER ROLE {} PASSWORD '{}'", legacy.user, legacy.password);
    server.sql("postgres", &set).await;
    legacy.write_secret(&server, &[("POSTGRES_PASSWORD", &legacy.password)]);
    let stored = format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{}'", legacy.user);
    let before = server.value("postgres", &stored).await;
    assert!(before.starts_with("md5"));
    let provisioner = server.provisioner().await;
    let position = server.log_position();
    let report = provisioner.create(&legacy.spec()).await;
    let report = report.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
    assert!(report.notices.iter().any(|notice| notice.contains("MD5")), "{:?}", report.notices);
    assert!(report.notices.iter().any(|notice| notice.contains("POSTGRES_PASSWORD")), "{:?}", report.notices);
    assert_eq!(server.value("postgres", &stored).await, before);
    legacy.session(&server).await;
    assert!(provisioner.plan(&legacy.spec()).await.unwrap().is_empty());
    let log = server.log_since(position);
    assert!(log.contains("RENAME") || !log.is_empty());
    assert!(!log.contains(&before) && !log.contains(&legacy.password), "no stored password in the log");
}

#[tokio::test]
async fn names_settings_and_limits_stay_what_they_were() {
    let server = open_server().await;
    let provisioner = server.provisioner().await;
    let mut odd = Legacy::make(&server, "odd").await;
    let (database, user) = ("Odd App", "odd-\"user");
    server.sql("postgres", &format!("ALTER DATABASE {} RENAME TO \"{database}\"", odd.database)).await;
    server.sql("postgres", &format!("ALTER ROLE {} RENAME TO \"odd-\"\"user\"", odd.user)).await;
    (odd.database, odd.user) = (database.to_owned(), user.to_owned());
    server
        .sql(
            "postgres",
            "ALTER ROLE \"odd-\"\"user\" CONNECTION LIMIT 17 VALID UNTIL '2099-01-01'; \
             ALTER ROLE \"odd-\"\"user\" SET statement_timeout = '7s'; ALTER DATABASE \"Odd App\" SET TimeZone = 'Asia/Tokyo'; \
             ALTER DATABASE \"Odd App\" SET work_mem = '3MB'; ALTER ROLE \"odd-\"\"user\" IN DATABASE \"Odd App\" SET work_mem = '5MB'; \
             ALTER ROLE \"odd-\"\"user\" SET temp_tablespaces = pg_default, pg_default; \
             ALTER ROLE \"odd-\"\"user\" SET search_path = later, \"$user\", \"Own\", public",
        )
        .await;
    server
        .sql(
            database,
            "CREATE SCHEMA \"Own\"; GRANT ALL ON SCHEMA \"Own\" TO \"odd-\"\"user\"; CREATE TABLE \"Own\".t (x int)",
        )
        .await;
    odd.write_secret(&server, &[]);
    let app = provisioner.create(&odd.spec()).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes())).app;
    assert_eq!((app.connections, app.schema.as_str()), (17, "Own"));
    let session = odd.session(&server).await;
    let shown = async |name: &str| value(&session, &format!("SHOW {name}")).await;
    assert_eq!(shown("statement_timeout").await, "7s");
    assert_eq!((shown("timezone").await.as_str(), shown("work_mem").await.as_str()), ("Asia/Tokyo", "5MB"));
    assert_eq!(shown("search_path").await, "later, \"Own\", public");
    assert_eq!(shown("temp_tablespaces").await, "pg_default, pg_default");
    session.batch_execute("CREATE TABLE made (x int)").await.unwrap();
    assert_eq!(value(&session, "SELECT 'made'::regclass::oid = '\"Own\".made'::regclass::oid").await, "t");
    drop(session);
    nothing_left(&provisioner, &odd.spec()).await;

    // The commonest hand-made form: one name for both. Rules that ask for a membership let both logins in.
    let mut same = Legacy::make(&server, "same").await;
    let name = same.name.as_str().replace('-', "_");
    server.sql("postgres", &format!("ALTER DATABASE {} RENAME TO {name}", same.database)).await;
    server.sql("postgres", &format!("ALTER ROLE {} RENAME TO {name}", same.user)).await;
    server.sql("postgres", &format!("ALTER ROLE {name} PASSWORD '{}'", same.password)).await;
    (same.database, same.user) = (name.clone(), name.clone());
    same.write_secret(&server, &[]);
    let app =
        provisioner.create(&same.spec()).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes())).app;
    assert_eq!(app.owner.as_str(), format!("{name}_owner"));
    server.sql("postgres", &format!("ALTER ROLE {name}_2 PASSWORD 'two'")).await;
    let home_rules = "local all postgres peer\nhost all postgres 127.0.0.1/32 scram-sha-256\nhost samerole all 127.0.0.1/32 scram-sha-256\n";
    server.set_access_rules(home_rules).await;
    assert_eq!(refusal::login(&same.config(&server)).await, refusal::CONNECTED);
    let two = same.config(&server).with_user(format!("{name}_2")).with_password("two".into());
    assert_eq!(value(&two.connect().await.unwrap(), "SELECT current_user").await, app.owner.as_str());
    assert_ne!(refusal::login(&odd.config(&server).with_database(&name)).await, refusal::CONNECTED);
    assert_eq!(
        rows(&server.session("postgres").await, &format!("SELECT 1 FROM pg_roles WHERE rolname = '{name}_owner'"))
            .await
            .len(),
        1
    );
    server.sql("postgres", &format!("ALTER ROLE {name}_2 PASSWORD NULL")).await;
    assert!(provisioner.plan(&same.spec()).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_command_shows_what_it_would_do_and_does_it() {
    let server = open_server().await;
    let legacy = filled(&server, "typed").await;
    let other = format!("{}_other", legacy.user);
    server.sql("postgres", &format!("CREATE ROLE {other} LOGIN")).await;
    let name = legacy.name.as_str();
    let refused = shareddb(server.home(), &["create", name, "--adopt"]).expect_code(5);
    assert!(
        refused.stderr.contains("because: [others_lose_connect]") && refused.stderr.contains(&other),
        "{refused:?}"
    );
    let plain = shareddb(server.home(), &["create", name]).expect_code(5);
    assert!(plain.stderr.contains("--adopt"), "{plain:?}");
    let dry = shareddb(server.home(), &["create", name, "--adopt", "--yes", "--dry-run", "--exit-code"]).expect_code(3);
    assert!(dry.stdout.contains(&format!("becomes role/{}", legacy.database)), "{dry:?}");
    let done = shareddb(server.home(), &["create", name, "--adopt", "--allow-connect", &other]).expect_code(0);
    assert_eq!(done.stdout, format!("app/{name} adopted\n"), "{done:?}");
    let again = shareddb(server.home(), &["create", name, "--adopt"]).expect_code(0);
    assert_eq!(again.stdout, format!("app/{name} unchanged\n"));
    // The Secret was made for the second login.
    let settings = shareddb(server.home(), &["env", name]).expect_code(0);
    assert!(settings.stdout.contains("DB_PASSWORD=") && settings.stdout.contains("DB_SCHEMA="), "{}", settings.stdout);
    let undo = shareddb(server.home(), &["create", name, "--undo-adopt"]).expect_code(5);
    assert!(undo.stderr.contains("has been issued"), "{undo:?}");
}
