//! Backups under another app's name, and in another environment.

use shareddb_core::{
    App, AppSpec, BackupManager, BackupOptions, ConnectionConfig, Error, OtherRoles, RestoreOptions, Verdict,
    VerifyOptions,
};
use shareddb_tests::TestServer;
use shareddb_tests::server::{session, sql, unique, value};

use crate::backup::{filled, folder_store};
use crate::backup_faults::{assert_tidy, memory};

/// What names roles: the owner, both logins, and a third one.
const NAMED: &str = "
    CREATE TABLE doors (id int, who text);
    INSERT INTO doors SELECT i, 'who' FROM generate_series(1, 5) i;
    ALTER TABLE doors ENABLE ROW LEVEL SECURITY;
    CREATE POLICY everybody ON doors USING (true);
    CREATE POLICY logins ON doors FOR INSERT TO {login}, {second} WITH CHECK (who <> '{login}');
    CREATE POLICY thirds ON doors TO {third} USING (true);
    COMMENT ON POLICY logins ON doors IS 'for those who log in';
    COMMENT ON POLICY thirds ON doors IS 'for others';
    GRANT SELECT ON doors TO {login};
    GRANT SELECT, UPDATE (who) ON doors TO {third};
    ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {schema} GRANT SELECT ON TABLES TO {login};
    ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {schema} GRANT INSERT ON TABLES TO {third};
    CREATE FUNCTION says() RETURNS text LANGUAGE sql AS 'SELECT ''{schema}.doors''';
    CREATE FUNCTION closed() RETURNS int LANGUAGE sql AS 'SELECT 1';
    REVOKE ALL ON FUNCTION closed() FROM PUBLIC;
    GRANT EXECUTE ON FUNCTION closed() TO {login}, {third};
    REVOKE DELETE ON doors FROM {owner};";

async fn named(server: &TestServer, stem: &str, third: &App) -> App {
    let app = server.made(stem).await;
    let text = NAMED
        .replace("{login}", app.logins[0].as_str())
        .replace("{second}", app.logins[1].as_str())
        .replace("{third}", third.owner.as_str())
        .replace("{owner}", app.owner.as_str())
        .replace("{schema}", app.schema.as_str());
    sql(&server.provisioner().await.connection(&app.name).await.unwrap(), app.database.as_str(), &text).await;
    app
}

fn from(manager: &BackupManager, source: &App) -> RestoreOptions {
    let mut options = RestoreOptions::default();
    options.shelf = Some(manager.shelf(&source.name));
    options
}

/// Roles that something in a database depends on, but for the admin.
async fn depended_on(server: &TestServer, app: &App) -> String {
    let sql = format!(
        "SELECT string_agg(DISTINCT r.rolname, ',') FROM pg_shdepend s JOIN pg_roles r ON r.oid = s.refobjid \
         WHERE dbid = (SELECT oid FROM pg_database WHERE datname = '{}') AND refclassid = 'pg_authid'::regclass AND NOT rolsuper",
        app.database
    );
    server.value("postgres", &sql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_restored_as_another_app_and_names_nobody_of_the_first() {
    let server = TestServer::shared().await;
    let (third, other) = (server.made("third").await, server.made("copy").await);
    let source = named(server, "original", &third).await;
    let manager = BackupManager::new(server.server().await, memory());
    let manifest = manager.backup(&source.name, &BackupOptions::default()).await.unwrap();
    let options = from(&manager, &source);
    let report = manager.restore(&other.name, &options, other.name.as_str()).await.unwrap();
    assert_eq!(report.manifest.as_ref().unwrap().id, manifest.id);
    assert_eq!(report.safety.as_ref().unwrap().app, other.name, "what was there is backed up as its own");
    let left: Vec<String> =
        report.left_out.iter().filter(|left| !left.why.is_there()).map(|left| left.what.clone()).collect();
    assert!(left.iter().any(|what| what.contains("doors thirds")), "{left:?}");
    assert!(report.remarks.iter().any(|remark| remark.contains("says()")), "{:?}", report.remarks);
    let expected = format!("{},{}", other.owner, other.logins[0]);
    let mut roles: Vec<String> = depended_on(server, &other).await.split(',').map(str::to_owned).collect();
    roles.retain(|role| *role != other.logins[1].as_str());
    assert_eq!(roles.join(","), expected);

    // The app works with it, under its own names and walls.
    let config = server.provisioner().await.connection(&other.name).await.unwrap();
    let inside = session(&config, config.database()).await;
    assert_eq!(value(&inside, "SELECT count(*)::text FROM doors").await, "5");
    assert_eq!(
        value(&inside, "SELECT schemaname::text FROM pg_tables WHERE tablename = 'doors'").await,
        other.schema.as_str()
    );
    let rights = "SELECT string_agg(concat_ws(' ', polname, (SELECT string_agg(r::regrole::text, '+' ORDER BY r::regrole::text) FROM unnest(polroles) r \
         WHERE r <> 0), obj_description(oid, 'pg_policy')), '; ' ORDER BY polname) FROM pg_policy";
    let policies = format!("everybody; logins {}+{} for those who log in", other.logins[0], other.logins[1]);
    assert_eq!(value(&inside, rights).await, policies);
    let acl = format!(
        "SELECT has_table_privilege('{}', 'doors', 'DELETE')::text || has_table_privilege('{}', 'doors', 'SELECT')::text",
        other.owner, other.logins[0]
    );
    assert_eq!(value(&inside, &acl).await, "falsetrue");
    let closed = format!(
        "SELECT has_function_privilege('{}', 'closed()', 'EXECUTE')::text || has_function_privilege('public', 'closed()', 'EXECUTE')::text",
        other.logins[0]
    );
    assert_eq!(value(&inside, &closed).await, "truefalse");
    sql(&config, config.database(), "CREATE TABLE later ()").await;
    let later = format!("SELECT has_table_privilege('{}', 'later', 'SELECT')::text", other.logins[0]);
    assert_eq!(value(&inside, &later).await, "true");
    drop(inside);
    assert!(server.provisioner().await.plan(&AppSpec::new(other.name.clone())).await.unwrap().is_empty());
    // The first one can go.
    let dropped = server.provisioner().await.drop(&source.name, source.name.as_str()).await.unwrap();
    assert_eq!(dropped.outcome, shareddb_core::Outcome::Dropped);
    manager.undo(&other.name, other.name.as_str()).await.unwrap();
    assert_tidy(server, &other, &manager, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_object_comes_along_under_another_name() {
    let server = TestServer::shared().await;
    let source = filled(server, "kinds").await;
    let other = server.made("kinds-copy").await;
    let manager = BackupManager::new(server.server().await, memory());
    manager.backup(&source.name, &BackupOptions::default()).await.unwrap();
    let mut options = from(&manager, &source);
    options.safety_backup = false;
    manager.restore(&other.name, &options, other.name.as_str()).await.unwrap();
    let config = server.provisioner().await.connection(&other.name).await.unwrap();
    let inside = session(&config, config.database()).await;
    assert_eq!(value(&inside, "SELECT count(*)::text FROM parted").await, "400");
    assert_eq!(value(&inside, "SELECT nextval('people_id_seq')::text").await, "501");
    // And back, as a backup of its own.
    drop(inside);
    let manifest = manager.backup(&other.name, &BackupOptions::default()).await.unwrap();
    let checked = manager.verify(&manifest.id, &VerifyOptions::default()).await.unwrap();
    assert_eq!((checked.verdict, checked.findings), (Verdict::Passed, vec![]));
    assert_tidy(server, &other, &manager, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_one_environment_is_proven_and_restored_in_another() {
    let (production, stage) = tokio::join!(TestServer::start(), TestServer::start());
    let name = unique("moved");
    let made = async |server: &TestServer| -> ConnectionConfig { server.app(&name).await };
    let (here, there) = (made(&production).await, made(&stage).await);
    sql(&here, here.database(), "CREATE TABLE t AS SELECT generate_series(1, 7) AS i; CREATE TABLE shared ()").await;
    production.sql("postgres", "CREATE ROLE readers NOLOGIN").await;
    sql(&here, here.database(), "GRANT SELECT ON t TO readers").await;
    let store = folder_store();
    let first = BackupManager::new(production.server().await, store.clone());
    let manifest = first.backup(&name, &BackupOptions::default()).await.unwrap();
    let second = BackupManager::new(stage.server().await, memory());
    let mut proving = VerifyOptions::default();
    proving.shelf = Some(first.shelf(&name));
    // A role that is missing there says nothing about the backup.
    let checked = second.verify(&manifest.id, &proving).await.unwrap();
    assert_eq!((checked.verdict, checked.findings), (Verdict::Passed, vec![]));
    assert!(
        first.shelf(&name).inventory().await.unwrap().backups[0].verified().is_some(),
        "it is known where the backup is"
    );
    let mut options = RestoreOptions::default();
    options.shelf = Some(first.shelf(&name));
    let error = second.restore(&name, &options, name.as_str()).await.unwrap_err();
    assert!(matches!(error, Error::Refused(_)) && error.code() == "role_missing", "{error:?}");
    options.other_roles = Some(OtherRoles::Existing);
    second.restore(&name, &options, name.as_str()).await.unwrap();
    assert_eq!(value(&session(&there, there.database()).await, "SELECT count(*)::text FROM t").await, "7");
    let app = stage.provisioner().await.app(&name).await.unwrap();
    assert_tidy(&stage, &app, &second, 1).await;
}
