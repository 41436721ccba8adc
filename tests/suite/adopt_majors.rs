//! Hand-made apps are taken over on servers of every major that somebody else made.

use shareddb_core::{Adopt, AppSpec, Outcome, SecretStore as _, Slot, Step};
use shareddb_tests::legacy::{filled_by_admin, filled_by_login};
use shareddb_tests::majors::{ForeignServer, MAJORS};
use shareddb_tests::server::{rows, value};

/// Passwords in either form may come.
pub(crate) const RULES: &str = "host all all 127.0.0.1/32 md5\n";

pub(crate) async fn make(server: &ForeignServer, stem: &str, encryption: &str) {
    for statement in [
        format!("CREATE DATABASE {stem}_db"),
        format!("SET password_encryption = '{encryption}'; CREATE USER {stem}_user PASSWORD 'by hand'"),
        format!("GRANT ALL PRIVILEGES ON DATABASE {stem}_db TO {stem}_user"),
    ] {
        server.sql("postgres", &statement).await;
    }
    server.sql(&format!("{stem}_db"), &format!("GRANT ALL ON SCHEMA public TO {stem}_user")).await;
}

#[tokio::test]
async fn on_every_major_everything_changes_hands_and_comes_back() {
    for major in MAJORS {
        let server = ForeignServer::start(major, RULES).await;
        make(&server, "hand", "scram-sha-256").await;
        make(&server, "old", "md5").await;
        let login = |stem: &str| {
            let config = server.superuser().with_database(format!("{stem}_db")).with_user(format!("{stem}_user"));
            config.with_password("by hand".into())
        };
        login("hand").connect().await.unwrap().batch_execute(filled_by_login()).await.unwrap();
        let fill = filled_by_admin("hand_user");
        let fill =
            if major < 15 { fill.replace(" CREATE PUBLICATION whole FOR TABLES IN SCHEMA archive;", "") } else { fill };
        server.sql("hand_db", &fill).await;

        let provisioner = server.provisioner(server.superuser());
        let spec = |stem: &str| {
            let mut adopt = Adopt::default();
            adopt.close_to_others = true;
            let mut spec = AppSpec::new(stem.parse().unwrap());
            spec.adopt = Some(adopt);
            spec
        };
        for stem in ["hand", "old"] {
            let when = format!("{stem} on {major}");
            let working = login(stem).connect().await.unwrap();
            working.batch_execute("BEGIN; CREATE TABLE open_when_adopted (x int)").await.unwrap();
            // The Secret that every pod has by hand is none that is here.
            let report = provisioner.create(&spec(stem)).await;
            let report = report.unwrap_or_else(|error| panic!("{when}: {error}: {:?}", error.causes()));
            assert_eq!(report.outcome, Outcome::Adopted, "{when}");
            working.batch_execute("COMMIT").await.unwrap_or_else(|error| panic!("{when}: {error}"));
            drop(working);
            let session = login(stem).connect().await.unwrap_or_else(|error| panic!("{when}: {error}"));
            assert_eq!(value(&session, "SELECT current_user").await, format!("{stem}_db"), "{when}");
            let owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'open_when_adopted'";
            assert_eq!(value(&session, owner).await, format!("{stem}_db"), "{when}");
            drop(session);
            // Sessions that have just ended are counted for a moment longer.
            let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{stem}_db'");
            shareddb_tests::watch::eventually("the sessions are gone", async || {
                server.value("postgres", &gone).await == "0"
            })
            .await;
            let left = provisioner.create(&spec(stem)).await.unwrap_or_else(|error| panic!("{when}: {error}"));
            let limit =
                |step: &Step| matches!(step, Step::LimitDatabase { .. } | Step::MarkOwner { .. } | Step::Prove { .. });
            assert!(left.steps.iter().all(limit), "{when}: {:#?}", left.steps);
            let plan = provisioner.plan(&spec(stem)).await.unwrap();
            assert!(plan.is_empty(), "{when}: {plan}");
        }
        let inside = server.session("hand_db").await;
        let left = rows(&inside, LEFT).await;
        let whole = if major < 15 { Vec::new() } else { vec!["publication whole".to_owned()] };
        assert_eq!(left, whole, "{major}: what is still a superuser's");

        let app = provisioner.app(&"hand".parse().unwrap()).await.unwrap();
        assert_eq!(provisioner.undo_adopt(&app.name).await.unwrap_err().code(), "undo_too_late", "{major}");
        // As if nobody had ever had the second login.
        server.sql("postgres", &format!("ALTER ROLE {} PASSWORD NULL", app.login(Slot::Two))).await;
        let released = provisioner.undo_adopt(&app.name).await;
        let released = released.unwrap_or_else(|error| panic!("{major}: {error}: {:?}", error.causes()));
        assert_eq!(released.outcome, Outcome::Released, "{major}");
        let session = login("hand").connect().await.unwrap();
        assert_eq!(
            value(&session, "SELECT current_user || ' ' || count(*) FROM orders").await,
            "hand_user 50",
            "{major}"
        );
        drop(session);
        server.secrets().delete(&app.secret).await.unwrap();
        provisioner.create(&spec("hand")).await.unwrap_or_else(|error| panic!("{major}, again: {error}"));
        println!("{major}: taken over, given back, taken over");
    }
}

/// What superusers own that belongs to no extension; constructors of ranges belong to the first one for ever.
const LEFT: &str = "
    SELECT 'relation ' || oid::regclass FROM pg_class c WHERE oid >= 16384 AND relowner = 10 AND relkind IN ('r','p','f','v','m','S')
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
    UNION ALL SELECT 'type ' || oid::regtype FROM pg_type t WHERE oid >= 16384 AND typowner = 10 AND typrelid = 0
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = t.oid AND d.deptype = 'e')
       AND NOT EXISTS (SELECT FROM pg_depend d JOIN pg_type e ON e.oid = d.refobjid WHERE e.typarray = t.oid AND d.objid = t.oid
             AND EXISTS (SELECT FROM pg_depend x WHERE x.objid = e.oid AND x.deptype = 'e'))
    UNION ALL SELECT 'function ' || oid::regprocedure FROM pg_proc p WHERE oid >= 16384 AND proowner = 10
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype IN ('e', 'i'))
    UNION ALL SELECT 'schema ' || nspname FROM pg_namespace WHERE oid >= 16384 AND nspowner = 10
    UNION ALL SELECT 'publication ' || pubname FROM pg_publication WHERE pubowner = 10
    UNION ALL SELECT 'statistics ' || stxname FROM pg_statistic_ext WHERE stxowner = 10
    UNION ALL SELECT 'large object ' || oid FROM pg_largeobject_metadata WHERE lomowner = 10
    ORDER BY 1";
