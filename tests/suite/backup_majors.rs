//! Every kind of object makes the round trip on every major that has client programs here, whoever administers.

use std::collections::BTreeMap;

use shareddb_core::{
    AppSpec, BackupManager, BackupOptions, ConnectionConfig, Manifest, RestoreOptions, Verdict, VerifyOptions,
};
use shareddb_tests::majors::{ALL_MAY_TRY, ForeignServer, PLAIN_ADMIN};
use shareddb_tests::server::{session, sql, unique, value};
use shareddb_tests::{TestServer, clients};

use crate::backup::EVERYTHING;
use crate::backup_faults::memory;

/// What the logins of both slots have made for themselves, having left the owner's role.
const STRAYS: &str = "CREATE TABLE stray_{n} AS SELECT generate_series(1, {n}0) AS i; CREATE INDEX ON stray_{n} (i); \
     CREATE SEQUENCE stray_seq_{n}; SELECT nextval('stray_seq_{n}'); CREATE FUNCTION stray_of_{n}() RETURNS int LANGUAGE sql AS 'SELECT {n}'; \
     SELECT lo_from_bytea(0, 'of slot {n}')";

/// Rows and digests by table.
fn rows(manifest: &Manifest) -> BTreeMap<String, (u64, String)> {
    let table = |table: &shareddb_core::TableFacts| {
        (format!("{}.{}", table.schema, table.name), (table.rows, table.digest.to_string()))
    };
    manifest.tables.iter().map(table).collect()
}

/// What is told by the manifests of two databases that hold the same.
fn assert_same(major: u32, one: &Manifest, two: &Manifest) {
    assert_eq!(rows(one), rows(two), "{major}");
    assert_eq!(one.schema_digest, two.schema_digest, "{major}");
    assert_eq!(one.large_objects, two.large_objects, "{major}");
    assert_eq!(one.extensions, two.extensions, "{major}");
    assert_eq!((&one.roles, &one.settings), (&two.roles, &two.settings), "{major}");
    let stood = |manifest: &Manifest| -> Vec<(String, i64)> {
        manifest.sequences.iter().map(|sequence| (sequence.name.clone(), sequence.after)).collect()
    };
    assert_eq!(stood(one), stood(two), "{major}");
}

async fn round_trip(server: &ForeignServer, major: u32, admin: ConnectionConfig) {
    let is_plain = admin.user() == PLAIN_ADMIN;
    let provisioner = server.provisioner(admin);
    let spec = AppSpec::new(unique("trip"));
    provisioner.create(&spec).await.unwrap();
    let app = provisioner.app(&spec.name).await.unwrap();
    let config = provisioner.connection(&app.name).await.unwrap();
    sql(&config, config.database(), EVERYTHING).await;
    for (slot, login) in app.logins.iter().enumerate() {
        let strays = STRAYS.replace("{n}", &(slot + 1).to_string());
        let path = format!("SET search_path = {}", app.schema);
        server.sql(config.database(), &format!("SET SESSION AUTHORIZATION {login}; {path}; {strays}")).await;
    }
    let manager = BackupManager::new(provisioner.server().clone(), memory()).with_binaries(clients::programs(major));

    if is_plain {
        // Nothing is dumped that would lack the rows that policies hide.
        let error = manager.backup(&app.name, &BackupOptions::default()).await.unwrap_err();
        assert_eq!(error.code(), "row_security_forced", "{error}");
        assert!(error.to_string().contains("secret_rows"), "{error}");
        assert!(error.hint().unwrap().contains(&format!("ALTER ROLE {PLAIN_ADMIN} BYPASSRLS")), "{error:?}");
        assert!(manager.shelf(&app.name).list().await.unwrap().is_empty());
        server.sql("postgres", &format!("ALTER ROLE {PLAIN_ADMIN} BYPASSRLS")).await;
    }
    let taken = manager.backup(&app.name, &BackupOptions::default()).await.unwrap_or_else(|error| panic!("{error:?}"));
    assert!(taken.server.version.starts_with(&major.to_string()), "{}", taken.server.version);
    let strays: Vec<u64> =
        taken.tables.iter().filter(|table| table.name.starts_with("stray")).map(|table| table.rows).collect();
    assert_eq!((strays, taken.large_objects), (vec![10, 20], 4), "{major}");
    let checked = manager.verify(&taken.id, &VerifyOptions::default()).await.unwrap();
    assert_eq!((checked.verdict, checked.findings), (Verdict::Passed, vec![]), "{major}");

    sql(&config, config.database(), "DROP TABLE people CASCADE; DELETE FROM secret_rows; SELECT lo_unlink(4711)").await;
    // Somebody is in the database when another takes its place.
    let visitor = session(&config, config.database()).await;
    let mut options = RestoreOptions::default();
    options.safety_backup = false;
    manager.restore(&app.name, &options, app.name.as_str()).await.unwrap_or_else(|error| panic!("{major}: {error:?}"));
    assert!(visitor.simple_query("SELECT 1").await.is_err(), "{major}: its session has ended");
    let again = manager.backup(&app.name, &BackupOptions::default()).await.unwrap();
    assert_same(major, &taken, &again);

    let restored = session(&config, config.database()).await;
    assert_eq!(value(&restored, "SELECT count(*)::text FROM secret_rows").await, "50", "{major}: policies hold");
    assert_eq!(value(&restored, "SELECT convert_from(lo_get(4711), 'UTF8')").await, "large", "{major}");
    assert_eq!(value(&restored, "SELECT count(*)::text FROM people WHERE double(age) = 84").await, "1", "{major}");
    drop(restored);
    let plan = provisioner.plan(&spec).await.unwrap();
    assert!(plan.is_empty(), "{major}: {plan}");
}

async fn by_superuser(major: u32) {
    let server = ForeignServer::shared(major).await;
    round_trip(server, major, server.superuser()).await;
}

async fn by_plain_admin(major: u32) {
    let server = ForeignServer::start(major, ALL_MAY_TRY).await;
    server.sql("postgres", &format!("GRANT SET ON PARAMETER temp_file_limit TO {PLAIN_ADMIN}")).await;
    round_trip(&server, major, server.plain_admin()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_makes_the_round_trip_on_the_machines_own() {
    by_superuser(u32::from(TestServer::shared().await.endpoint().binaries.major)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_makes_the_round_trip_on_16() {
    by_superuser(16).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_makes_the_round_trip_on_17() {
    by_superuser(17).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_makes_the_round_trip_on_18() {
    by_superuser(18).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_makes_the_round_trip_of_a_plain_admin_on_16() {
    by_plain_admin(16).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_makes_the_round_trip_of_a_plain_admin_on_18() {
    by_plain_admin(18).await;
}
