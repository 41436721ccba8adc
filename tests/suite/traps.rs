//! Nothing that an app stores runs with the admin's rights.

use shareddb_core::{App, AppSpec, Slot};
use shareddb_tests::TestServer;
use shareddb_tests::server::{rows, unique, value};

use crate::isolation::{ALL_MAY_TRY, Tenant};

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
