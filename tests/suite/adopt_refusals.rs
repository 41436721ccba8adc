//! What speaks against an adoption is told all at once, and changes nothing.

use shareddb_core::{Adopt, AppSpec, Error, Outcome, RoleName};
use shareddb_tests::TestServer;
use shareddb_tests::legacy::{Legacy, OPEN_RULES};
use shareddb_tests::server::{unique, value};

async fn open_server() -> TestServer {
    let server = TestServer::start().await;
    server.set_access_rules(OPEN_RULES).await;
    server
}

/// The stable words of the findings in an error.
fn codes(error: &Error) -> Vec<String> {
    let word = |cause: &String| cause.strip_prefix('[')?.split_once(']').map(|(word, _)| word.to_owned());
    let words: Vec<String> = error.causes().iter().filter_map(word).collect();
    assert_eq!(error.code(), "adopt_refused", "{error}");
    assert!(error.causes().iter().all(|cause| cause.contains("; cure: ")), "{:?}", error.causes());
    words
}

/// Refused with exactly these findings, and the catalogs are as they were.
async fn assert_refused(server: &TestServer, spec: &AppSpec, expected: &[&str]) -> Error {
    let provisioner = server.provisioner().await;
    let before = server.catalog().await;
    let planned = provisioner.plan(spec).await.unwrap_err();
    let error = provisioner.create(spec).await.unwrap_err();
    assert_eq!(codes(&planned), codes(&error));
    assert_eq!(codes(&error), expected, "{:#?}", error.causes());
    assert_eq!(server.catalog().await, before, "{expected:?}");
    error
}

/// The same for a database that tests cannot look into, either.
async fn assert_unplanned(server: &TestServer, spec: &AppSpec, expected: &[&str]) {
    let error = server.provisioner().await.create(spec).await.unwrap_err();
    assert_eq!(codes(&error), expected, "{:#?}", error.causes());
}

fn allowing(legacy: &Legacy, consent: impl FnOnce(&mut Adopt)) -> AppSpec {
    let mut adopt = Adopt::default();
    consent(&mut adopt);
    let mut spec = legacy.spec();
    spec.adopt = Some(adopt);
    spec
}

fn role(name: &str) -> RoleName {
    RoleName::existing(name).unwrap()
}

#[tokio::test]
async fn everything_that_is_wrong_is_told_in_one_answer_and_each_consent_helps() {
    let server = open_server().await;
    let legacy = Legacy::make(&server, "many").await;
    let Legacy { database, user, .. } = &legacy;
    server
        .sql(
            "postgres",
            &format!(
                "CREATE ROLE many_group; CREATE ROLE many_worker LOGIN; CREATE ROLE many_person LOGIN; \
                 GRANT many_group TO {user}; ALTER ROLE {user} CREATEROLE BYPASSRLS; CREATE DATABASE many_elsewhere; \
                 ",
            )
            .replace("CREATE DATABASE many_elsewhere; ", ""),
        )
        .await;
    server.sql("postgres", "CREATE DATABASE many_elsewhere").await;
    server.sql("postgres", &format!("GRANT CONNECT ON DATABASE many_elsewhere TO {user}")).await;
    server
        .sql(
            database,
            &format!(
                "GRANT ALL ON SCHEMA public TO many_worker; SET ROLE many_worker; CREATE TABLE work (x int); RESET ROLE; \
                 SET ROLE {user}; CREATE TABLE rows (who text); CREATE POLICY own ON rows USING (who = current_user); RESET ROLE; \
                 CREATE SCHEMA {user}"
            ),
        )
        .await;
    let error = assert_refused(
        &server,
        &legacy.spec(),
        &[
            "login_privileged",
            "login_memberships",
            "login_foreign_grants",
            "others_lose_connect",
            "objects_of_others",
            "policies_on_names",
            "schema_of_login",
        ],
    )
    .await;
    assert!(matches!(error, Error::Refused(_)) && error.to_string().contains("7 reasons"), "{error}");
    let told = error.causes().join("\n");
    for word in [
        "CREATEROLE, BYPASSRLS",
        "many_group",
        "many_elsewhere",
        "many_person",
        "table public.work",
        "own on public.rows",
    ] {
        assert!(told.contains(word), "{word}: {told}");
    }
    let consent = |adopt: &mut Adopt| {
        adopt.demote = true;
        adopt.keep_memberships = true;
        adopt.drop_foreign_grants = true;
        adopt.allow_connect = [role("many_person")].into();
        adopt.take_from = [role("many_worker")].into();
        adopt.accept_name_change = true;
        adopt.end_sessions = true;
    };
    let old = legacy.session(&server).await;
    let spec = allowing(&legacy, consent);
    let report = server.provisioner().await.create(&spec).await;
    let report = report.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
    assert_eq!(report.outcome, Outcome::Adopted);
    assert!(shareddb_tests::refusal::has_ended(&old).await, "its schema would have been gone");
    let session = legacy.session(&server).await;
    assert_eq!(value(&session, "SHOW search_path").await, format!("{user}, public"));
    assert_eq!(value(&session, "SELECT tableowner FROM pg_tables WHERE tablename = 'work'").await, *database);
    let facts = "SELECT concat_ws(' ', rolcreaterole, rolbypassrls, pg_has_role(rolname, 'many_group', 'MEMBER')) FROM pg_roles WHERE rolname";
    assert_eq!(server.value("postgres", &format!("{facts} = '{database}'")).await, "f f t");
    let enters = format!("SELECT has_database_privilege('many_person', '{database}', 'CONNECT')");
    assert_eq!(server.value("postgres", &enters).await, "t");
    let elsewhere = format!(
        "SELECT count(*) FROM pg_database d, aclexplode(datacl) a JOIN pg_roles r ON r.oid = a.grantee \
         WHERE datname = 'many_elsewhere' AND rolname IN ('{database}', '{user}')"
    );
    assert_eq!(server.value("postgres", &elsewhere).await, "0");
    let plan = server.provisioner().await.plan(&legacy.spec()).await.unwrap();
    assert!(plan.is_empty(), "{plan}");
}

#[tokio::test]
async fn what_no_consent_helps_against() {
    let server = open_server().await;
    let provisioner = server.provisioner().await;
    // They can all enter each other's databases.
    let closing = |legacy: &Legacy| allowing(legacy, |adopt| adopt.close_to_others = true);

    let spread = Legacy::make(&server, "spread").await;
    server.sql("postgres", "CREATE DATABASE spread_other").await;
    server.sql("postgres", &format!("ALTER DATABASE spread_other OWNER TO {}", spread.user)).await;
    server.sql("postgres", &format!("GRANT pg_read_all_data TO {}", spread.user)).await;
    let error = assert_refused(&server, &closing(&spread), &["login_predefined", "login_shared"]).await;
    assert!(error.causes()[1].contains("spread_other (owner)"), "{:?}", error.causes());

    let closed = Legacy::make(&server, "closed").await;
    server.sql("postgres", &format!("ALTER DATABASE {} ALLOW_CONNECTIONS false", closed.database)).await;
    assert_refused(&server, &closing(&closed), &["database_unfit"]).await;

    let preloading = Legacy::make(&server, "preloading").await;
    server
        .sql("postgres", &format!("ALTER DATABASE {} SET local_preload_libraries = 'none'", preloading.database))
        .await;
    assert_unplanned(&server, &closing(&preloading), &["database_unfit"]).await;
    server.sql("postgres", &format!("DROP DATABASE {}", preloading.database)).await;

    let taken = Legacy::make(&server, "taken").await;
    server.sql("postgres", &format!("CREATE ROLE {}_2; CREATE ROLE {}", taken.user, taken.database)).await;
    let error = assert_refused(&server, &closing(&taken), &["name_taken", "name_taken"]).await;
    assert!(matches!(error, Error::Conflict(_)), "{error:?}");

    let nobody = Legacy::make(&server, "nobody").await;
    let mut spec = closing(&nobody);
    spec.user = Some("no_such_user".parse().unwrap());
    assert_refused(&server, &spec, &["login_missing"]).await;
    spec.database = Some("no_such_db".parse().unwrap());
    assert_eq!(provisioner.plan(&spec).await.unwrap_err().code(), "database_not_found");

    let differs = Legacy::make(&server, "differs").await;
    differs.write_secret(&server, &[]);
    let mut spec = closing(&differs);
    spec.database = Some(nobody.database.parse().unwrap());
    let error = assert_refused(&server, &spec, &["login_shared", "login_foreign_grants", "secret_differs"]).await;
    assert!(matches!(error, Error::Refused(_)) && error.causes()[2].contains(&differs.database), "{error:?}");

    let maintenance = Legacy::make(&server, "maintenance").await;
    maintenance.write_secret(&server, &[("DB_NAME", "postgres"), ("DB_USER", "postgres")]);
    assert_refused(&server, &maintenance.spec(), &["name_unfit", "name_unfit"]).await;

    // Another app's database, login and Secret.
    let app = server.made("neighbour").await;
    let mut spec = AppSpec::new(unique("thief"));
    spec.adopt = Some(Adopt::default());
    (spec.database, spec.user) = (Some(app.database.clone()), Some(app.user.clone()));
    let error = provisioner.plan(&spec).await.unwrap_err();
    assert!(codes(&error).contains(&"database_taken".to_owned()), "{:?}", error.causes());
    let granted = Legacy::make(&server, "granted").await;
    server.sql(&granted.database, &format!("CREATE TABLE t (x int); GRANT SELECT ON t TO {}", app.owner)).await;
    assert_refused(&server, &closing(&granted), &["grants_of_app"]).await;
    assert!(
        provisioner
            .plan(&allowing(&granted, |adopt| (adopt.keep_grants, adopt.close_to_others) = (true, true)))
            .await
            .is_ok()
    );

    // Adopting what is an app already is the plain create.
    let mut spec = AppSpec::new(app.name.clone());
    spec.adopt = Some(Adopt::default());
    assert_eq!(provisioner.create(&spec).await.unwrap().outcome, Outcome::Unchanged);
}

#[tokio::test]
async fn what_is_wrong_inside() {
    let server = open_server().await;
    let triggered = Legacy::make(&server, "triggered").await;
    server
        .sql(
            &triggered.database,
            &format!(
                "SET ROLE {}; CREATE FUNCTION fire() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; RESET ROLE; \
                 CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION public.fire()",
                triggered.user
            ),
        )
        .await;
    // From 17 on the admin's sessions fire none.
    if server.value("postgres", "SELECT current_setting('server_version_num')::int < 170000").await == "t" {
        let error = assert_refused(&server, &triggered.spec(), &["event_trigger"]).await;
        let cure = error.causes()[0].rsplit_once(": ").unwrap().1.to_owned();
        server.sql(&triggered.database, &cure).await;
    }
    let report = server.provisioner().await.create(&triggered.spec()).await;
    report.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
    let body = "SELECT pg_get_userbyid(proowner) FROM pg_proc WHERE proname = 'fire'";
    assert_eq!(server.value(&triggered.database, body).await, "postgres", "its owner could replace what runs");

    let fed = Legacy::make(&server, "fed").await;
    let subscribe = "CREATE SUBSCRIPTION feed CONNECTION 'host=127.0.0.1 port=1 dbname=x' PUBLICATION p \
         WITH (connect = false, slot_name = 'none_such')";
    server.sql(&fed.database, subscribe).await;
    server.sql(&fed.database, "ALTER SUBSCRIPTION feed ENABLE").await;
    assert_refused(&server, &fed.spec(), &["subscription"]).await;
    server.sql(&fed.database, "ALTER SUBSCRIPTION feed DISABLE").await;
    let plan = server.provisioner().await.plan(&fed.spec()).await.unwrap();
    assert!(plan.notices.iter().any(|notice| notice.contains("feed")), "{:?}", plan.notices);

    let ascii = Legacy::make(&server, "ascii").await;
    server.sql("postgres", &format!("DROP DATABASE {}", ascii.database)).await;
    let create = format!("CREATE DATABASE {} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0", ascii.database);
    server.sql("postgres", &create).await;
    server
        .sql(&ascii.database, "DO $$ BEGIN EXECUTE 'CREATE TABLE ' || quote_ident(E'n\\351e') || ' (x int)'; END $$")
        .await;
    let closing = allowing(&ascii, |adopt| adopt.close_to_others = true);
    assert_unplanned(&server, &closing, &["names_unreadable"]).await;
}

#[tokio::test]
async fn a_superuser_login_is_demoted_and_its_code_stays_with_the_admin() {
    let server = open_server().await;
    let legacy = Legacy::make(&server, "super").await;
    server.sql("postgres", &format!("ALTER ROLE {} SUPERUSER", legacy.user)).await;
    let session = legacy.session(&server).await;
    session
        .batch_execute(
            "CREATE TABLE canary (who text); \
             CREATE FUNCTION fire() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.canary VALUES (session_user); END'; \
             CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION fire(); TRUNCATE canary",
        )
        .await
        .unwrap();
    assert_refused(&server, &legacy.spec(), &["login_privileged"]).await;
    let spec = allowing(&legacy, |adopt| adopt.demote = true);
    let report = server.provisioner().await.create(&spec).await;
    report.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
    let facts = "SELECT concat_ws(' ', evtenabled, pg_get_userbyid(evtowner), pg_get_userbyid(proowner), (SELECT count(*) FROM public.canary)) \
         FROM pg_event_trigger e JOIN pg_proc p ON p.oid = evtfoid";
    assert_eq!(server.value(&legacy.database, facts).await, "D postgres postgres 0");
    assert_eq!(value(&session, "SELECT count(*) FROM canary").await, "0", "plain work goes on");
    let super_user = format!("SELECT count(*) FROM pg_roles WHERE rolsuper AND rolname LIKE '{}%'", legacy.user);
    assert_eq!(server.value("postgres", &super_user).await, "0");
}

#[tokio::test]
async fn nothing_of_a_hostile_database_runs_with_the_admins_rights() {
    let server = open_server().await;
    let legacy = Legacy::make(&server, "hostile").await;
    legacy.write_secret(&server, &[]);
    let user = &legacy.user;
    server.sql("postgres", &format!("ALTER DATABASE {} OWNER TO {user}", legacy.database)).await;
    let session = legacy.session(&server).await;
    session
        .batch_execute(&format!(
            "CREATE TABLE canary (what text); GRANT ALL ON canary TO PUBLIC; \
             CREATE FUNCTION fire(text) RETURNS text LANGUAGE plpgsql AS 'BEGIN \
                 IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = session_user) THEN INSERT INTO public.canary VALUES ($1); END IF; RETURN $1; END'; \
             CREATE FUNCTION public.format(text, VARIADIC \"any\") RETURNS text LANGUAGE sql AS 'SELECT public.fire(''format'')'; \
             CREATE FUNCTION public.lower(name) RETURNS text LANGUAGE sql AS 'SELECT public.fire(''lower'')'; \
             CREATE FUNCTION public.pg_get_userbyid(oid) RETURNS name LANGUAGE sql AS 'SELECT public.fire(''user'')::name'; \
             CREATE TABLE pg_class (x int); CREATE VIEW pg_roles AS SELECT public.fire('view') AS rolname; \
             CREATE TABLE victim (id int DEFAULT length(public.fire('default')), g text GENERATED ALWAYS AS ('x') STORED); \
             CREATE SCHEMA postgres; ALTER DATABASE {} SET search_path = public, pg_catalog; \
             ALTER DATABASE {} SET default_transaction_read_only = on; ALTER DATABASE {} SET standard_conforming_strings = off; \
             ALTER DATABASE {} SET role = '{user}'",
            legacy.database, legacy.database, legacy.database, legacy.database
        ).replace("CREATE FUNCTION public.format(text, VARIADIC \"any\") RETURNS text LANGUAGE sql AS 'SELECT public.fire(''format'')'; ", ""))
        .await
        .unwrap_or_else(|error| panic!("{:?}", error.as_db_error()));
    drop(session);
    let report = server.provisioner().await.create(&legacy.spec()).await;
    report.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
    assert_eq!(value(&legacy.session(&server).await, "SELECT count(*) FROM public.canary").await, "0");
    let owner = format!("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = '{}'", legacy.database);
    assert_eq!(server.value("postgres", &owner).await, "postgres");
    assert!(server.provisioner().await.plan(&legacy.spec()).await.unwrap().is_empty());
}
