//! Names change hands, and what matters are the objects: whoever may rename things gets nothing that was not looked at, and
//! nothing that was taken runs with more rights than its caller's.

use shareddb_core::{Adoption, Event, ObjectKind, Provisioner, Step};
use shareddb_tests::TestServer;
use shareddb_tests::legacy::{Legacy, OPEN_RULES};
use shareddb_tests::server::value;
use shareddb_tests::watch::Gate;

/// Owners and rights of everything called `audit`, in any schema.
const AUDITS: &str = "SELECT string_agg(n.nspname || ' ' || pg_get_userbyid(proowner), ', ' ORDER BY n.nspname) \
    FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE proname = 'audit'";

fn handing_over(event: Event<'_>, kind: ObjectKind) -> bool {
    matches!(event, Event::Begun(Step::Adopt(Adoption::Take { object, .. })) if object.kind == kind)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_stands_for_another_object_by_now_hands_nothing_over() {
    let server = TestServer::start().await;
    server.set_access_rules(OPEN_RULES).await;
    let legacy = Legacy::make(&server, "swap").await;
    legacy.write_secret(&server, &[]);
    // The admin's own function in the app's schema is to be the app's, and the one in `guarded` is not.
    let function = "audit() RETURNS int LANGUAGE sql AS 'SELECT 1'";
    server
        .sql(&legacy.database, &format!("CREATE SCHEMA a; CREATE FUNCTION a.{function}; CREATE TABLE a.first (x int)"))
        .await;
    server.sql(&legacy.database, &format!("CREATE EXTENSION hstore; CREATE SCHEMA guarded; CREATE FUNCTION guarded.{function}; ALTER EXTENSION hstore ADD FUNCTION guarded.audit()")).await;
    let (gate, listener) = Gate::at(|event| handing_over(event, ObjectKind::Table));
    let (provisioner, spec) = (server.provisioner().await.on_event(listener), legacy.spec());
    let run = tokio::spawn(async move { provisioner.create(&spec).await });
    gate.wait();
    // By now the app owns the schemas.
    let app = legacy.session(&server).await;
    app.batch_execute("ALTER SCHEMA a RENAME TO a0; ALTER SCHEMA guarded RENAME TO a; CREATE TABLE a.first (x int)")
        .await
        .unwrap();
    gate.open();
    let error = run.await.unwrap().unwrap_err();
    assert_eq!(error.code(), "objects_replaced", "{error}: {:?}", error.causes());
    let looked = server.value(&legacy.database, AUDITS).await;
    assert_eq!(looked, "a postgres, a0 postgres");

    let provisioner = server.provisioner().await;
    provisioner.create(&legacy.spec()).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
    assert_eq!(server.value(&legacy.database, AUDITS).await, format!("a postgres, a0 {}", legacy.database));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_is_put_in_the_place_of_one_that_is_taken_stays_the_apps() {
    let server = TestServer::start().await;
    server.set_access_rules(OPEN_RULES).await;
    let legacy = Legacy::make(&server, "taken").await;
    legacy.write_secret(&server, &[]);
    give_internal(&server, &legacy, "raw").await;
    let provisioner = server.provisioner().await;
    let plan = provisioner.plan(&legacy.spec()).await.unwrap();
    let app = legacy.session(&server).await;
    app.batch_execute(
        "ALTER FUNCTION raw(int) RENAME TO old_raw; \
         CREATE FUNCTION raw(int) RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",
    )
    .await
    .unwrap();
    assert_eq!(provisioner.apply(&plan).await.unwrap_err().code(), "plan_stale");

    // Between the look and the deed, too: the login's row is locked meanwhile.
    app.batch_execute(&format!("BEGIN; ALTER ROLE {} PASSWORD '{}'", legacy.user, legacy.password)).await.unwrap();
    let (gate, listener) = Gate::at(|event| matches!(event, Event::Begun(Step::Adopt(Adoption::CloseLogin { .. }))));
    let (waiting, spec): (Provisioner, _) = (server.provisioner().await.on_event(listener), legacy.spec());
    let run = tokio::spawn(async move { waiting.create(&spec).await });
    gate.wait();
    let other = legacy.session(&server).await;
    other
        .batch_execute("ALTER FUNCTION old_raw(int) RENAME TO kept; ALTER FUNCTION raw(int) RENAME TO old_raw")
        .await
        .unwrap();
    app.batch_execute("ROLLBACK").await.unwrap();
    gate.open();
    let error = run.await.unwrap().unwrap_err();
    assert_eq!(error.code(), "objects_replaced", "{error}: {:?}", error.causes());
    let definers = "SELECT count(*) FROM pg_proc WHERE prosecdef AND proowner = 10";
    assert_eq!(server.value(&legacy.database, definers).await, "0");
}

#[tokio::test]
async fn code_that_is_taken_runs_with_its_callers_rights() {
    let server = TestServer::start().await;
    server.set_access_rules(OPEN_RULES).await;
    let legacy = Legacy::make(&server, "code").await;
    legacy.write_secret(&server, &[]);
    give_internal(&server, &legacy, "raw").await;
    let app = legacy.session(&server).await;
    app.batch_execute("ALTER FUNCTION raw(int) SECURITY DEFINER").await.unwrap();
    drop(app);
    let provisioner = server.provisioner().await;
    provisioner.create(&legacy.spec()).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
    let taken = "SELECT pg_get_userbyid(proowner) || ' ' || prosecdef FROM pg_proc WHERE proname = 'raw'";
    assert_eq!(server.value(&legacy.database, taken).await, "postgres false");
    assert_eq!(value(&legacy.session(&server).await, "SELECT raw(-3)").await, "3");
}

/// A function that only a superuser can make, given away, as a restore does it.
async fn give_internal(server: &TestServer, legacy: &Legacy, name: &str) {
    let make = format!(
        "CREATE FUNCTION public.{name}(int) RETURNS int LANGUAGE internal AS 'int4abs'; \
         ALTER FUNCTION public.{name}(int) OWNER TO {}",
        legacy.user
    );
    server.sql(&legacy.database, &make).await;
}
