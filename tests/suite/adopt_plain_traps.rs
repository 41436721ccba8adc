//! What an app, or a server, may have laid in wait for an admin who is no superuser and adopts.

use shareddb_core::{Outcome, Slot};
use shareddb_tests::majors::ForeignServer;
use shareddb_tests::server::{statement, value};

use crate::adopt_plain::ByHand;

#[tokio::test]
async fn a_trigger_at_each_login_never_runs_with_the_admins_rights() {
    let by_hand = ByHand::make(17).await;
    let server = &by_hand.server;
    let code = "BEGIN IF current_user = 'adm' THEN CREATE ROLE trapped; END IF; END";
    by_hand
        .session()
        .await
        .batch_execute(&format!(
            "CREATE FUNCTION public.entered() RETURNS event_trigger LANGUAGE plpgsql AS $x${code}$x$"
        ))
        .await
        .unwrap_or_else(|error| panic!("{:?}", error.as_db_error()));
    server.sql("hand_db", "CREATE EVENT TRIGGER entered ON login EXECUTE FUNCTION public.entered()").await;
    let provisioner = server.provisioner(server.plain_admin());
    let error = provisioner.plan(&by_hand.spec()).await.unwrap_err();
    assert!(error.causes().iter().any(|cause| cause.starts_with("[login_trigger]")), "{:?}", error.causes());
    server.sql("hand_db", "ALTER EVENT TRIGGER entered DISABLE").await;
    drop(by_hand.session().await);
    provisioner.plan(&by_hand.spec()).await.unwrap_err();

    // The function of one that is off must not be the app's, and in an app of ours nobody goes in, either.
    server.sql("hand_db", "DROP EVENT TRIGGER entered; DROP FUNCTION public.entered()").await;
    provisioner.create(&by_hand.spec()).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
    server.sql("hand_db", &format!("SET ROLE hand_db; CREATE FUNCTION public.entered() RETURNS event_trigger LANGUAGE plpgsql AS $x${code}$x$; RESET ROLE; CREATE EVENT TRIGGER entered ON login EXECUTE FUNCTION public.entered()")).await;
    assert_eq!(provisioner.create(&by_hand.spec()).await.unwrap_err().code(), "login_trigger");
    let status = provisioner.status(None).await.unwrap();
    assert_eq!(status.apps[0].problem.as_ref().unwrap().code, "login_trigger");
    provisioner.undo_adopt(&by_hand.spec().name).await.unwrap_err();
    assert_eq!(server.value("postgres", "SELECT count(*) FROM pg_roles WHERE rolname = 'trapped'").await, "0");
    server.sql("hand_db", "ALTER EVENT TRIGGER entered DISABLE").await;
    drop(by_hand.session().await);
    provisioner.create(&by_hand.spec()).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.hint()));
}

#[tokio::test]
async fn the_password_by_hand_goes_on_when_the_secret_is_lost() {
    let by_hand = ByHand::make(18).await;
    let server = &by_hand.server;
    let provisioner = server.provisioner(server.plain_admin());
    let before = by_hand.session().await;
    let app = provisioner.create(&by_hand.spec()).await.unwrap().app;
    let mut before = Some(before);
    for sessions in ["some", "none"] {
        std::fs::remove_dir_all(server.secrets_folder().join("hand-db-secret")).unwrap();
        let report = provisioner.create(&by_hand.spec()).await.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(report.outcome, Outcome::Configured);
        let config = provisioner.connection(&app.name).await.unwrap();
        assert_eq!(config.user(), app.login(Slot::Two).as_str(), "{sessions}");
        drop(by_hand.session().await);
        if let Some(before) = before.take() {
            assert_eq!(value(&before, "SELECT current_user").await, "hand_db");
        }
        by_hand.settle().await;
    }
    // What somebody puts back does not make the second login one that nobody has.
    by_hand.write_password("by hand");
    assert_eq!(provisioner.undo_adopt(&app.name).await.unwrap_err().code(), "undo_too_late");
}

#[tokio::test]
async fn a_server_that_asks_for_no_password_proves_none() {
    let by_hand = ByHand::on(
        ForeignServer::start(18, "host all postgres,adm 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n")
            .await,
    )
    .await;
    by_hand.write_password("not this one");
    let provisioner = by_hand.server.provisioner(by_hand.server.plain_admin());
    let before = by_hand.server.catalog().await;
    let error = provisioner.create(&by_hand.spec()).await.unwrap_err();
    assert_eq!(error.code(), "password_not_asked", "{error}: {:?}", error.causes());
    assert_eq!(by_hand.server.catalog().await, before);
}

#[tokio::test]
async fn the_schema_of_extensions_stays_the_admins() {
    let by_hand = ByHand::make(17).await;
    let server = &by_hand.server;
    server.sql("hand_db", "CREATE TABLE sealed (x int)").await;
    let provisioner = server.provisioner(server.plain_admin());
    let mut spec = by_hand.spec();
    spec.extensions = Some(["pgcrypto".parse().unwrap()].into());
    provisioner.create(&spec).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
    provisioner.create(&by_hand.spec()).await.unwrap();
    let owner = "SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'shareddb_extensions'";
    assert_eq!(server.value("hand_db", owner).await, "adm");
    spec.extensions = Some(["pgcrypto".parse().unwrap(), "pg_trgm".parse().unwrap()].into());
    provisioner.create(&spec).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.hint()));
    assert_eq!(server.value("hand_db", owner).await, "adm");
    // One that is there from before is no more the app's.
    by_hand.settle().await;
    provisioner.undo_adopt(&spec.name).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
    provisioner.create(&by_hand.spec()).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
    assert_eq!(server.value("hand_db", owner).await, "adm");
}

#[tokio::test]
async fn settings_that_only_a_superuser_stores_are_told() {
    let by_hand = ByHand::make(18).await;
    let server = &by_hand.server;
    let own =
        "ALTER ROLE hand_user SET app.tenant = 'seven'; ALTER ROLE hand_user SET log_min_duration_statement = '7s'";
    server.sql("postgres", own).await;
    let provisioner = server.provisioner(server.plain_admin());
    let report =
        provisioner.create(&by_hand.spec()).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
    assert!(report.gaps.iter().any(|gap| gap.statement.contains("app\".\"tenant")), "{:#?}", report.gaps);
    provisioner.undo_adopt(&by_hand.spec().name).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
    let kept = "SELECT array_to_string(setconfig, ' ') FROM pg_db_role_setting WHERE setrole = 'hand_user'::regrole";
    assert_eq!(server.value("postgres", kept).await, "app.tenant=seven log_min_duration_statement=7s");
    let report = provisioner.create(&by_hand.spec()).await.unwrap();
    by_hand.close(&report.gaps).await;
    provisioner.create(&by_hand.spec()).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
    assert_eq!(value(&by_hand.session().await, "SHOW app.tenant").await, "seven");

    let mut spec = shareddb_core::AppSpec::new("made".parse().unwrap());
    spec.settings = Some([("my.own".parse().unwrap(), "x".to_owned())].into());
    let error = provisioner.create(&spec).await.unwrap_err();
    assert_eq!(error.code(), "setting_forbidden", "{error}");
    server.sql("postgres", &statement(&error)).await;
    provisioner.create(&spec).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.hint()));
}

#[tokio::test]
async fn an_app_that_may_not_create_in_its_own_schema_waits_for_a_superuser() {
    let by_hand = ByHand::make(16).await;
    let server = &by_hand.server;
    by_hand.as_admin("hand_db", "CREATE SCHEMA shut; CREATE TABLE shut.t (x int)").await;
    server.sql("hand_db", "ALTER SCHEMA shut OWNER TO hand_user; REVOKE CREATE ON SCHEMA shut FROM hand_user").await;
    let provisioner = server.provisioner(server.plain_admin());
    let report =
        provisioner.create(&by_hand.spec()).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
    assert!(report.gaps.iter().any(|gap| gap.statement.contains("ALTER TABLE shut.t OWNER")), "{:#?}", report.gaps);
    by_hand.close(&report.gaps).await;
    let owner = "SELECT tableowner FROM pg_tables WHERE tablename = 't'";
    assert_eq!(server.value("hand_db", owner).await, "hand_db");
}

/// Tables come and go while an inventory is taken.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_dropped_meanwhile_is_no_matter() {
    let by_hand = ByHand::make(17).await;
    let busy = by_hand.session().await;
    let working = tokio::spawn(async move {
        for number in 0..600 {
            let sql = format!(
                "CREATE TABLE t{number} (x int); CREATE VIEW v{number} AS SELECT current_user; CREATE TYPE y{number} AS ENUM ('a')"
            );
            busy.batch_execute(&sql).await.unwrap();
            busy.batch_execute(&format!("DROP TABLE t{number}; DROP VIEW v{number}; DROP TYPE y{number}"))
                .await
                .unwrap();
        }
    });
    let provisioner = by_hand.server.provisioner(by_hand.server.plain_admin());
    while !working.is_finished() {
        provisioner.plan(&by_hand.spec()).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
    }
    working.await.unwrap();
}
