//! Servers that somebody else made, and admins who may not do everything: nothing is taken unasked, what is missing is told.

use shareddb_core::{AppSpec, Closer, Gap, Outcome, Proof, Step, WallState};
use shareddb_tests::ForeignServer;
use shareddb_tests::majors::{ALL_MAY_TRY, OWN_ONLY, PLAIN_ADMIN};
use shareddb_tests::refusal::{self, CONNECTED};
use shareddb_tests::server::{statement, unique, value};

use crate::isolation::{NO_RIGHT, REJECTED};

fn spec() -> AppSpec {
    AppSpec::new(unique("guest"))
}

fn secure(spec: &AppSpec) -> AppSpec {
    let mut spec = spec.clone();
    spec.secure_server = true;
    spec
}

/// The one gap that speaks of something.
#[track_caller]
fn gap<'a>(gaps: &'a [Gap], words: &str) -> &'a Gap {
    let found: Vec<&Gap> = gaps.iter().filter(|gap| gap.to_string().contains(words)).collect();
    assert_eq!(found.len(), 1, "{words}: {gaps:#?}");
    found[0]
}

#[tokio::test]
async fn a_missing_wall_is_told_and_closed_only_with_consent() {
    let server = ForeignServer::start(17, ALL_MAY_TRY).await;
    server.sql("postgres", "CREATE ROLE clerk LOGIN; CREATE ROLE watch LOGIN; CREATE ROLE pool NOLOGIN").await;
    server
        .sql("postgres", "CREATE ROLE member LOGIN IN ROLE pool; GRANT CONNECT ON DATABASE postgres TO watch, pool")
        .await;
    server.sql("postgres", "CREATE DATABASE crm OWNER clerk").await;
    let provisioner = server.provisioner(server.superuser());
    let spec = spec();
    let report = provisioner.create(&spec).await.unwrap();
    assert_eq!(report.proof, Some(Proof::Complete));
    assert!(!report.steps.iter().any(|step| matches!(step, Step::CloseToPublic { .. })));
    assert!(report.steps.contains(&Step::CreateMaintenanceGroup), "that takes nothing from anybody");
    let open = vec!["postgres".to_owned(), "template1".to_owned()];
    assert!(report.steps.iter().any(|step| matches!(step, Step::Prove { open: told, .. } if *told == open)));
    assert_eq!(report.gaps.len(), 3, "{:#?}", report.gaps);
    let wall = gap(&report.gaps, "database postgres");
    assert_eq!((wall.closer, wall.server), (Closer::Consent, true));
    assert_eq!(wall.statement, "REVOKE ALL ON DATABASE \"postgres\" FROM PUBLIC");
    assert!(wall.what.contains("clerk") && !["watch", "member"].iter().any(|name| wall.what.contains(name)), "{wall}");
    gap(&report.gaps, "database template1");
    let others = gap(&report.gaps, "crm");
    assert_eq!(
        (others.closer, others.statement.as_str()),
        (Closer::Superuser, "REVOKE ALL ON DATABASE \"crm\" FROM PUBLIC")
    );

    // Told again by whatever looks.
    let again = provisioner.create(&spec).await.unwrap();
    assert_eq!((again.outcome, &again.gaps), (Outcome::Unchanged, &report.gaps));
    let status = provisioner.status(None).await.unwrap();
    let rights = &status.server.walls[0];
    assert!(
        rights.state == WallState::Missing && rights.gaps == report.gaps && rights.detail.contains(&wall.statement),
        "{rights:#?}"
    );
    assert!(status.apps[0].gaps.is_empty() && status.apps[0].drift.is_empty());
    let app = provisioner.connection(&spec.name).await.unwrap();
    assert_eq!(refusal::login(&app.clone().with_database("postgres")).await, CONNECTED, "so it is");

    let plan = provisioner.plan(&secure(&spec)).await.unwrap();
    let losers: Vec<&String> = plan.notices.iter().filter(|notice| notice.contains("lose access")).collect();
    assert!(
        losers[0].contains("clerk") && losers[0].contains("GRANT CONNECT ON DATABASE \"postgres\" TO"),
        "{losers:?}"
    );
    let report = provisioner.apply(&plan).await.unwrap();
    assert_eq!(report.outcome, Outcome::Configured);
    assert_eq!(report.gaps.len(), 1, "only the database of others is left: {:#?}", report.gaps);
    for database in ["postgres", "template1"] {
        assert_eq!(refusal::login(&app.clone().with_database(database)).await, NO_RIGHT);
    }
    let may = "SELECT string_agg(rolname, ' ' ORDER BY rolname) FROM pg_roles WHERE rolcanlogin AND NOT rolsuper \
        AND has_database_privilege(oid, 'postgres', 'CONNECT')";
    assert_eq!(server.value("postgres", may).await, "member watch");
    server.sql("postgres", &others.statement).await;
    let report = provisioner.create(&spec).await.unwrap();
    assert_eq!((report.outcome, report.gaps.len()), (Outcome::Unchanged, 0));
    assert_eq!(provisioner.status(None).await.unwrap().server.walls[0].state, WallState::Stands);
}

#[tokio::test]
async fn access_rules_are_a_wall_of_their_own() {
    let server = ForeignServer::start(16, OWN_ONLY).await;
    let provisioner = server.provisioner(server.superuser());
    let (one, two) = (spec(), spec());
    provisioner.create(&one).await.unwrap();
    provisioner.create(&two).await.unwrap();
    let app = provisioner.connection(&one.name).await.unwrap();
    let neighbour = provisioner.app(&two.name).await.unwrap().database;
    for database in ["postgres", "template1", neighbour.as_str()] {
        assert_eq!(refusal::login(&app.clone().with_database(database)).await, REJECTED, "{database}");
    }
    let walls = provisioner.status(None).await.unwrap().server.walls;
    assert_eq!([walls[0].state, walls[1].state], [WallState::Missing, WallState::Stands], "{walls:#?}");
}

#[tokio::test]
async fn an_admin_who_can_do_too_little_is_told_what_is_missing() {
    let server = ForeignServer::start(18, ALL_MAY_TRY).await;
    for (has, missing) in [("", "CREATEDB and CREATEROLE"), ("CREATEROLE", "CREATEDB"), ("CREATEDB", "CREATEROLE")] {
        server.sql("postgres", &format!("DROP ROLE IF EXISTS weak; CREATE ROLE weak LOGIN PASSWORD 'w' {has}")).await;
        let weak = server.superuser().with_user("weak").with_password("w".into());
        let provisioner = server.provisioner(weak);
        let spec = spec();
        let error = provisioner.create(&spec).await.unwrap_err();
        assert_eq!(error.code(), "admin_unfit");
        assert!(error.to_string().ends_with(missing), "{error}");
        server.sql("postgres", &statement(&error)).await;
        provisioner.create(&spec).await.unwrap();
        provisioner.drop(&spec.name, spec.name.as_str()).await.unwrap();
    }
    // Before 16 there is no such admin.
    let server = ForeignServer::shared(15).await;
    let almost = unique("almost").to_string().replace('-', "_");
    server.sql("postgres", &format!("CREATE ROLE {almost} LOGIN CREATEDB CREATEROLE PASSWORD 'w'")).await;
    let provisioner = server.provisioner(server.superuser().with_user(almost.as_str()).with_password("w".into()));
    let error = provisioner.create(&spec()).await.unwrap_err();
    assert_eq!(error.code(), "admin_unfit");
    assert!(error.to_string().contains("15") && error.hint().unwrap().contains("16"), "{error}");
}

#[tokio::test]
async fn a_limit_on_temporary_files_waits_for_a_superuser() {
    let server = ForeignServer::start(16, ALL_MAY_TRY).await;
    let provisioner = server.provisioner(server.plain_admin());
    let spec = spec();
    let report = provisioner.create(&spec).await.unwrap();
    let limit = gap(&report.gaps, "temp_file_limit");
    assert_eq!(limit.statement, format!("GRANT SET ON PARAMETER \"temp_file_limit\" TO \"{PLAIN_ADMIN}\""));
    assert!(!report.steps.iter().any(|step| step.to_string().contains("temp_file_limit")), "it is not counted as done");
    let status = provisioner.status(Some(&spec.name)).await.unwrap();
    assert_eq!(gap(&status.apps[0].gaps, "temp_file_limit"), limit);
    server.sql("postgres", &limit.statement).await;
    let report = provisioner.create(&spec).await.unwrap();
    assert_eq!(report.outcome, Outcome::Configured);
    let session = provisioner.connection(&spec.name).await.unwrap().connect().await.unwrap();
    assert_eq!(value(&session, "SHOW temp_file_limit").await, "1GB");

    // A setting of the app's that only superusers set is refused before anything is written, until it is allowed.
    let mut logged = spec.clone();
    logged.settings = Some([("log_min_duration_statement".parse().unwrap(), "1s".to_owned())].into());
    let error = provisioner.create(&logged).await.unwrap_err();
    assert_eq!(error.code(), "setting_forbidden");
    server.sql("postgres", &statement(&error)).await;
    provisioner.create(&logged).await.unwrap();
}

#[tokio::test]
async fn access_rules_that_the_admin_may_not_read_are_no_wall() {
    let server = ForeignServer::start(18, OWN_ONLY).await;
    let provisioner = server.provisioner(server.plain_admin());
    let wall = async || provisioner.status(None).await.unwrap().server.walls.remove(1);
    let unseen = wall().await;
    assert_eq!(unseen.state, WallState::Unknown, "{unseen:?}");
    server.sql("postgres", &unseen.gaps[0].statement).await;
    let seen = wall().await;
    assert_eq!(seen.state, WallState::Stands, "{seen:?}");
}

#[tokio::test]
async fn extensions_that_only_a_superuser_makes_are_left_to_one() {
    let server = ForeignServer::start(17, ALL_MAY_TRY).await;
    let provisioner = server.provisioner(server.plain_admin());
    let mut spec = spec();
    let name = spec.name.clone();
    let with = |list: &[&str]| Some(list.iter().map(|name| name.parse().unwrap()).collect());
    // From nothing: it would take a database that there is none of yet.
    spec.extensions = with(&["pageinspect"]);
    let error = provisioner.create(&spec).await.unwrap_err();
    assert_eq!(error.code(), "extension_forbidden");
    assert!(error.hint().unwrap().contains("create the app without it first"), "{:?}", error.hint());
    let early = statement(&error);
    assert_eq!(provisioner.app(&name).await.unwrap_err().code(), "app_not_found");

    spec.extensions = with(&["pg_trgm"]);
    provisioner.create(&spec).await.unwrap();
    spec.extensions = with(&["pg_trgm", "pageinspect"]);
    let error = provisioner.create(&spec).await.unwrap_err();
    let app = provisioner.app(&name).await.unwrap();
    server.sql(app.database.as_str(), &statement(&error)).await;
    provisioner.create(&spec).await.unwrap();
    let session = provisioner.connection(&name).await.unwrap().connect().await.unwrap();

    // A schema that the app makes while the superuser reads gets nothing.
    let mut late = AppSpec::new(unique("late"));
    provisioner.create(&late).await.unwrap();
    let app = provisioner.app(&late.name).await.unwrap();
    late.extensions = with(&["pageinspect"]);
    let told = statement(&provisioner.create(&late).await.unwrap_err());
    let tenant = provisioner.connection(&late.name).await.unwrap().connect().await.unwrap();
    tenant.simple_query("CREATE SCHEMA shareddb_extensions").await.unwrap();
    let superuser = server.session(app.database.as_str()).await;
    for text in [early, told] {
        let failure = superuser.simple_query(&text).await.unwrap_err();
        assert_eq!(failure.code().map(|code| code.code()), Some("42P06"), "{text}: {failure}");
        superuser.simple_query("ROLLBACK").await.unwrap();
    }
    let made = "SELECT count(*) FROM pg_extension WHERE extname = 'pageinspect'";
    assert_eq!(server.value(app.database.as_str(), made).await, "0");

    session.simple_query("CREATE TABLE t (x text); CREATE INDEX ON t USING gin (x gin_trgm_ops)").await.unwrap();
    assert!(provisioner.plan(&spec).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_app_of_another_admin_is_handed_over_by_a_superuser() {
    let server = ForeignServer::start(16, ALL_MAY_TRY).await;
    let (old, new) = (server.provisioner(server.superuser()), server.provisioner(server.plain_admin()));
    let spec = spec();
    old.create(&spec).await.unwrap();
    let app = old.app(&spec.name).await.unwrap();
    let status = new.status(None).await.unwrap();
    assert_eq!(status.apps[0].problem.as_ref().unwrap().code, "out_of_reach");
    for goal in ["roles", "database"] {
        let error = new.create(&spec).await.unwrap_err();
        assert_eq!(error.code(), "out_of_reach", "{goal}: {error}");
        assert_eq!(new.drop(&spec.name, spec.name.as_str()).await.unwrap_err().code(), "out_of_reach", "{goal}");
        server.sql("postgres", &statement(&error)).await;
    }
    let report = new.create(&spec).await.unwrap();
    for gap in report.gaps.iter().filter(|gap| !gap.server) {
        server.sql("postgres", &gap.statement).await;
    }
    let report = new.create(&spec).await.unwrap();
    assert!(report.gaps.iter().all(|gap| gap.server), "{:#?}", report.gaps);
    assert!(new.plan(&spec).await.unwrap().is_empty());
    let session = new.connection(&spec.name).await.unwrap().connect().await.unwrap();
    assert_eq!(value(&session, "SELECT current_user").await, app.owner.as_str());

    // And back: what the plain admin has granted goes before the right to grant it.
    let report = old.create(&spec).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
    assert_eq!(report.outcome, Outcome::Configured);
    assert!(old.plan(&spec).await.unwrap().is_empty());
    assert_eq!(value(&session, "SELECT current_user").await, app.owner.as_str());
    let grants = format!("SELECT count(*) FROM pg_auth_members WHERE member = '{PLAIN_ADMIN}'::regrole");
    assert_eq!(server.value("postgres", &grants).await, "0");
    drop(session);
    old.drop(&spec.name, spec.name.as_str()).await.unwrap();
}

#[tokio::test]
async fn rights_elsewhere_stop_a_drop_before_the_data_go() {
    let server = ForeignServer::start(18, ALL_MAY_TRY).await;
    server.sql("postgres", "CREATE DATABASE crm").await;
    server.sql("crm", "CREATE TABLE public.customers (id int)").await;
    let provisioner = server.provisioner(server.plain_admin());
    let spec = spec();
    provisioner.create(&spec).await.unwrap();
    let app = provisioner.app(&spec.name).await.unwrap();
    let grant = format!("GRANT SELECT ON public.customers TO {0}; GRANT CONNECT ON DATABASE crm TO {0}", app.logins[0]);
    server.sql("crm", &grant).await;
    let gaps = provisioner.create(&spec).await.unwrap().gaps;
    assert!(gap(&gaps, "rights of").statement.contains("REVOKE ALL ON DATABASE \"crm\""));
    let error = provisioner.drop(&spec.name, spec.name.as_str()).await.unwrap_err();
    assert_eq!(error.code(), "out_of_reach");
    provisioner.connection(&spec.name).await.unwrap().connect().await.unwrap();
    server.sql("crm", &statement(&error)).await;
    provisioner.drop(&spec.name, spec.name.as_str()).await.unwrap();
    assert!(provisioner.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn grants_of_third_roles_are_taken_in_their_name() {
    let server = ForeignServer::shared(18).await;
    let provisioner = server.provisioner(server.superuser());
    let spec = spec();
    provisioner.create(&spec).await.unwrap();
    let app = provisioner.app(&spec.name).await.unwrap();
    let third = unique("third").to_string().replace('-', "_");
    let (owner, login) = (&app.owner, &app.logins[0]);
    server
        .sql(
            "postgres",
            &format!("CREATE ROLE {third}; CREATE ROLE {third}_friend; GRANT {owner} TO {third} WITH ADMIN OPTION"),
        )
        .await;
    let by_third =
        format!("SET ROLE {third}; GRANT {owner} TO {third}_friend; GRANT {owner} TO {login} WITH ADMIN OPTION");
    server.sql("postgres", &by_third).await;
    let grants = format!("SELECT count(*) FROM pg_auth_members WHERE roleid = '{owner}'::regrole");
    assert_eq!(server.value("postgres", &grants).await, "6");
    let report = provisioner.create(&spec).await.unwrap();
    let revoked = report.steps.iter().filter(|step| matches!(step, Step::RevokeMembership { grantor: Some(_), .. }));
    assert!(revoked.count() >= 2, "{:#?}", report.steps);
    provisioner.create(&spec).await.unwrap();
    assert_eq!(server.value("postgres", &grants).await, "3", "the two logins and the maintenance login");
    assert!(provisioner.plan(&spec).await.unwrap().is_empty());
}

#[tokio::test]
async fn sessions_of_others_are_ended_by_who_may() {
    let server = ForeignServer::start(16, ALL_MAY_TRY).await;
    let provisioner = server.provisioner(server.plain_admin());
    let spec = spec();
    provisioner.create(&spec).await.unwrap();
    let app = provisioner.app(&spec.name).await.unwrap();
    server.sql("postgres", "CREATE ROLE guest LOGIN PASSWORD 'g'").await;
    let enter = async || {
        server.sql("postgres", &format!("GRANT CONNECT ON DATABASE {} TO PUBLIC", app.database)).await;
        let guest = server.superuser().with_user("guest").with_password("g".into());
        guest.with_database(app.database.as_str()).connect().await.unwrap()
    };
    let inside = enter().await;
    let report = provisioner.create(&spec).await.unwrap();
    let stranger = gap(&report.gaps, "sessions of others");
    assert!(!inside.is_closed(), "not counted as done: {:#?}", report.steps);
    server.sql("postgres", &stranger.statement).await;
    assert!(refusal::has_ended(&inside).await);

    server.sql("postgres", &format!("GRANT pg_signal_backend TO {PLAIN_ADMIN}")).await;
    let inside = enter().await;
    let report = provisioner.create(&spec).await.unwrap();
    assert!(refusal::has_ended(&inside).await, "{:#?}", report.steps);
    assert!(report.gaps.iter().all(|gap| !gap.to_string().contains("sessions of others")));
}

#[tokio::test]
async fn what_only_a_superuser_takes_from_the_roles_stops_a_drop_before_the_data_go() {
    let server = ForeignServer::start(17, ALL_MAY_TRY).await;
    server.sql("postgres", "CREATE TABLE public.orders (id int); CREATE ROLE pool; CREATE ROLE friend").await;
    server.sql("postgres", "CREATE DATABASE drawer").await;
    let provisioner = server.provisioner(server.plain_admin());
    let hindrances = [
        "GRANT SELECT ON public.orders TO {login}",
        "CREATE TABLE public.own (id int); ALTER TABLE public.own OWNER TO {login}",
        "ALTER DEFAULT PRIVILEGES FOR ROLE {login} GRANT SELECT ON TABLES TO PUBLIC",
        "GRANT SET ON PARAMETER log_statement TO {login}",
        "GRANT CREATE ON TABLESPACE pg_default TO {owner}",
        "ALTER DATABASE drawer OWNER TO {owner}",
        "GRANT pool TO {login} WITH ADMIN OPTION; SET ROLE {login}; GRANT pool TO friend",
        "GRANT {owner} TO {login} WITH ADMIN OPTION; SET ROLE {login}; GRANT {owner} TO friend",
    ];
    for hindrance in hindrances {
        let spec = spec();
        provisioner.create(&spec).await.unwrap();
        let app = provisioner.app(&spec.name).await.unwrap();
        let sql = hindrance.replace("{login}", app.logins[0].as_str()).replace("{owner}", app.owner.as_str());
        server.sql("postgres", &sql).await;
        let error = provisioner.drop(&spec.name, spec.name.as_str()).await.unwrap_err();
        assert_eq!(error.code(), "out_of_reach", "{sql}: {error}");
        provisioner.connection(&spec.name).await.unwrap().connect().await.unwrap();
        server.sql("postgres", &statement(&error)).await;
        let dropped = provisioner.drop(&spec.name, spec.name.as_str()).await;
        dropped.unwrap_or_else(|error| panic!("{sql}: {error}: {:?} {:?}", error.causes(), error.hint()));
    }
    assert!(provisioner.list().await.unwrap().is_empty());
    assert_eq!(server.value("postgres", "SELECT count(*) FROM pg_database WHERE datname = 'drawer'").await, "1");

    // What a drop takes along hinders none.
    let spec = spec();
    provisioner.create(&spec).await.unwrap();
    let app = provisioner.app(&spec.name).await.unwrap();
    let member = format!("GRANT pool TO {}; GRANT {} TO friend", app.logins[1], app.owner);
    server.sql("postgres", &member).await;
    let session = provisioner.connection(&spec.name).await.unwrap().connect().await.unwrap();
    session.simple_query("CREATE TABLE t (x int); GRANT SELECT ON t TO friend").await.unwrap();
    provisioner.drop(&spec.name, spec.name.as_str()).await.unwrap();
}

#[tokio::test]
async fn sessions_that_end_by_themselves_hinder_no_drop() {
    let server = ForeignServer::start(16, ALL_MAY_TRY).await;
    for admin in [server.superuser(), server.plain_admin()] {
        let provisioner = server.provisioner(admin);
        for _ in 0..4 {
            let spec = spec();
            provisioner.create(&spec).await.unwrap();
            let config = provisioner.connection(&spec.name).await.unwrap();
            // Each leaves as soon as it has come, until it is let in no more.
            let leave_at_once = |_| {
                let config = config.clone();
                tokio::spawn(async move {
                    loop {
                        match config.connect().await {
                            Ok(session) => drop(session),
                            Err(error) if error.code() == "connection_limit_reached" => {}
                            Err(_) => break,
                        }
                    }
                })
            };
            let restless: Vec<_> = (0..6).map(leave_at_once).collect();
            let dropped = provisioner.drop(&spec.name, spec.name.as_str()).await;
            for task in &restless {
                task.abort();
            }
            dropped.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
        }
    }
}

#[tokio::test]
async fn what_a_third_role_gave_to_public_is_taken_in_its_name() {
    let server = ForeignServer::start(15, ALL_MAY_TRY).await;
    server.sql("postgres", "CREATE ROLE third").await;
    server.sql("postgres", "CREATE DATABASE crm").await;
    for database in ["postgres", "crm"] {
        let give = format!(
            "GRANT CONNECT ON DATABASE {database} TO third WITH GRANT OPTION; SET ROLE third; \
             GRANT CONNECT ON DATABASE {database} TO PUBLIC"
        );
        server.sql("postgres", &give).await;
    }
    let provisioner = server.provisioner(server.superuser());
    let spec = spec();
    let gaps = provisioner.create(&spec).await.unwrap().gaps;
    server.sql("postgres", &gap(&gaps, "database template1").statement).await;
    server.sql("postgres", &gap(&gaps, "crm").statement).await;
    let report = provisioner.create(&secure(&spec)).await.unwrap();
    assert_eq!(report.outcome, Outcome::Configured);
    assert!(report.gaps.is_empty(), "{:#?}", report.gaps);
    assert!(provisioner.plan(&secure(&spec)).await.unwrap().is_empty());
    let left =
        "SELECT count(*) FROM pg_database d, aclexplode(datacl) a WHERE a.grantee = 0 AND d.datname <> 'template0'";
    assert_eq!(server.value("postgres", left).await, "0");
    let kept = "SELECT has_database_privilege('third', 'postgres', 'CONNECT')::text";
    assert_eq!(server.value("postgres", kept).await, "true", "it keeps its own");

    // The owner cannot take what others gave.
    let server = ForeignServer::start(16, ALL_MAY_TRY).await;
    let give = "CREATE ROLE third; ALTER DATABASE postgres OWNER TO adm; SET ROLE adm; \
        GRANT CONNECT ON DATABASE postgres TO third WITH GRANT OPTION; SET ROLE third; \
        GRANT CONNECT ON DATABASE postgres TO PUBLIC";
    server.sql("postgres", give).await;
    let provisioner = server.provisioner(server.plain_admin());
    let gaps = provisioner.create(&secure(&spec)).await.unwrap().gaps;
    let wall = gap(&gaps, "database postgres");
    assert_eq!(wall.closer, Closer::Superuser, "{wall}");
    server.sql("postgres", &wall.statement).await;
    let gaps = provisioner.create(&secure(&spec)).await.unwrap().gaps;
    assert!(!gaps.iter().any(|gap| gap.to_string().contains("database postgres")), "{gaps:#?}");
}

#[tokio::test]
async fn a_right_that_stays_makes_no_step_for_ever() {
    let server = ForeignServer::start(16, ALL_MAY_TRY).await;
    server.sql("postgres", "CREATE ROLE clerk").await;
    server.sql("postgres", "CREATE DATABASE crm OWNER clerk").await;
    let provisioner = server.provisioner(server.plain_admin());
    let spec = spec();
    provisioner.create(&spec).await.unwrap();
    let login = provisioner.app(&spec.name).await.unwrap().logins[0].clone();
    server.sql("postgres", &format!("SET ROLE clerk; GRANT CONNECT ON DATABASE crm TO {login}")).await;
    for _ in 0..2 {
        let report = provisioner.create(&spec).await.unwrap();
        assert_eq!(report.outcome, Outcome::Unchanged, "{:#?}", report.steps);
        gap(&report.gaps, "rights of");
    }
}

#[tokio::test]
async fn who_loses_temporary_tables_only_is_told_too() {
    let server = ForeignServer::start(17, ALL_MAY_TRY).await;
    server.sql("postgres", "CREATE ROLE watch LOGIN; GRANT CONNECT ON DATABASE postgres TO watch").await;
    let provisioner = server.provisioner(server.superuser());
    let of_watch = async || {
        let notices = provisioner.plan(&secure(&spec())).await.unwrap().notices;
        notices.into_iter().find(|notice| notice.contains("watch") && notice.contains("database postgres"))
    };
    let notice = of_watch().await.unwrap();
    let (_, back) = notice.rsplit_once(": ").unwrap();
    assert_eq!(back, "GRANT TEMPORARY ON DATABASE \"postgres\" TO \"watch\"");
    server.sql("postgres", back).await;
    assert_eq!(of_watch().await, None);
}

#[tokio::test]
async fn a_login_that_is_a_superuser_is_made_what_it_should_be() {
    let server = ForeignServer::shared(17).await;
    let provisioner = server.provisioner(server.plain_admin());
    let spec = spec();
    provisioner.create(&spec).await.unwrap();
    let login = provisioner.app(&spec.name).await.unwrap().logins[0].clone();
    server.sql("postgres", &format!("ALTER ROLE {login} SUPERUSER")).await;
    let error = provisioner.create(&spec).await.unwrap_err();
    assert_eq!(error.code(), "out_of_reach");
    server.sql("postgres", &statement(&error)).await;
    assert!(provisioner.plan(&spec).await.unwrap().is_empty());
    provisioner.connection(&spec.name).await.unwrap().connect().await.unwrap();
}

#[tokio::test]
async fn no_name_splits_a_line() {
    let server = ForeignServer::start(18, ALL_MAY_TRY).await;
    server.sql("postgres", "CREATE DATABASE \"two\nlines\\\"").await;
    let provisioner = server.provisioner(server.superuser());
    let spec = spec();
    let gaps = provisioner.create(&spec).await.unwrap().gaps;
    let split = gap(&gaps, "lines");
    assert!(!split.to_string().contains('\n'), "{split}");
    server.sql("postgres", &split.statement).await;
    let gaps = provisioner.create(&spec).await.unwrap().gaps;
    assert!(!gaps.iter().any(|gap| gap.to_string().contains("lines")), "{gaps:#?}");
}
