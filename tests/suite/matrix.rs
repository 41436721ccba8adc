//! The main jobs on every major, as a superuser and, from 16 on, as an admin who is none.

use secrecy::ExposeSecret as _;
use shareddb_core::{AppSpec, ConnectionConfig, Error, Gap, Outcome, Proof, Provisioner, Slot, WallState};
use shareddb_tests::ForeignServer;
use shareddb_tests::majors::{ALL_MAY_TRY, PLAIN_ADMIN};
use shareddb_tests::refusal;
use shareddb_tests::server::{statement, unique, value};

use crate::drift::{drifts, fill};
use crate::isolation::NO_RIGHT;

/// Who administers.
#[derive(Clone, Copy, PartialEq)]
enum Admin {
    Superuser,
    /// `LOGIN CREATEDB CREATEROLE`.
    Plain,
}

impl Admin {
    fn of(self, server: &ForeignServer) -> ConnectionConfig {
        match self {
            Self::Superuser => server.superuser(),
            Self::Plain => server.plain_admin(),
        }
    }

    /// A server of the test's own, on which the admin may do all that it can ever be allowed to.
    async fn on_own_server(self, major: u32) -> (ForeignServer, Provisioner) {
        let server = ForeignServer::start(major, ALL_MAY_TRY).await;
        if self == Self::Plain {
            server.sql("postgres", &format!("GRANT SET ON PARAMETER temp_file_limit TO {PLAIN_ADMIN}")).await;
        }
        let provisioner = server.provisioner(self.of(&server));
        (server, provisioner)
    }
}

async fn create(major: u32, admin: Admin) {
    let server = ForeignServer::shared(major).await;
    let provisioner = server.provisioner(admin.of(server));
    let spec = AppSpec::new(unique("made"));
    let report = provisioner.create(&spec).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.hint()));
    assert_eq!((report.outcome, report.proof), (Outcome::Created, Some(Proof::Complete)));

    let app = provisioner.app(&spec.name).await.unwrap();
    let config = provisioner.connection(&spec.name).await.unwrap();
    let session = config.connect().await.unwrap();
    assert_eq!(value(&session, "SELECT current_user").await, app.owner.as_str());
    session.simple_query("CREATE TABLE t AS SELECT 42 AS x").await.unwrap();
    let owner = "SELECT schemaname || ' ' || tableowner FROM pg_tables WHERE tablename = 't'";
    assert_eq!(value(&session, owner).await, format!("{} {}", app.schema, app.owner));

    let again = provisioner.create(&spec).await.unwrap();
    assert_eq!((again.outcome, again.steps, again.proof), (Outcome::Unchanged, Vec::new(), None));
    assert!(provisioner.plan(&spec).await.unwrap().is_empty());
    let password = config.password().unwrap().expose_secret().to_owned();
    assert!(!format!("{:?}", report.steps).contains(&password));
}

/// What an admin who is no superuser cannot mend: it is told, with the statement that does it.
const BEYOND_PLAIN: [&str; 13] = [
    "right on a database of nobody's",
    "right on another app's database",
    "right on another database by the grant of a third role",
    "owner changed to the app",
    "owner changed to a stranger",
    "login in a foreign group",
    "login with ADMIN on its group",
    "stranger in the owner role",
    "stranger in a login",
    "owner made a superuser",
    "maintenance login left open",
    "schema of somebody else",
    "public of somebody else",
];

async fn drift(major: u32, admin: Admin) {
    let (server, provisioner) = admin.on_own_server(major).await;
    server.sql("postgres", "CREATE ROLE drift_stranger").await;
    server.sql("postgres", "CREATE DATABASE drift_other").await;
    server.sql("postgres", "REVOKE ALL ON DATABASE drift_other FROM PUBLIC").await;
    server.sql("postgres", "GRANT CONNECT ON DATABASE drift_other TO drift_stranger WITH GRANT OPTION").await;
    let spec = AppSpec::new(unique("drift"));
    provisioner.create(&spec).await.unwrap();
    let app = provisioner.app(&spec.name).await.unwrap();
    let reference = server.catalog().await;
    // Whether the server is closed to PUBLIC is nothing that a create changes unasked.
    for drift in drifts().into_iter().filter(|drift| !drift.what.starts_with("PUBLIC back")) {
        let what = drift.what;
        let database = if drift.inside { app.database.as_str() } else { "postgres" };
        let by_admin = if what == "login out of its group" && admin == Admin::Plain { " GRANTED BY adm" } else { "" };
        server.sql(database, &(fill(drift.sql, &app) + by_admin)).await;

        let told = mend(&server, &provisioner, &spec).await;
        let beyond = admin == Admin::Plain && BEYOND_PLAIN.contains(&what);
        assert_eq!(!told.is_empty(), beyond, "{what}: {told:?}");
        if what == "objects of a login" {
            server.sql(app.database.as_str(), "DROP TABLE public.stray").await;
        }
        assert_eq!(server.catalog().await, reference, "{what}: {told:?}");
        let session = provisioner.connection(&spec.name).await.unwrap().connect().await;
        let session = session.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(value(&session, "SELECT current_user").await, app.owner.as_str(), "{what}");
    }
}

/// Runs `create` and whatever statement it leaves to a superuser, until nothing is left to do. Returns those statements.
async fn mend(server: &ForeignServer, provisioner: &Provisioner, spec: &AppSpec) -> Vec<String> {
    let mut told = Vec::new();
    for _ in 0..4 {
        let gaps = match provisioner.create(spec).await {
            Ok(report) => of_app(report.gaps),
            Err(error) => vec![("postgres".to_owned(), by_superuser(&error))],
        };
        if gaps.is_empty() {
            let plan = provisioner.plan(spec).await.unwrap();
            assert!(plan.is_empty() && of_app(plan.gaps.clone()).is_empty(), "{plan}");
            return told;
        }
        for (database, statement) in gaps {
            server.sql(&database, &statement).await;
            told.push(statement);
        }
    }
    panic!("what a superuser did is not enough: {told:#?}");
}

fn of_app(gaps: Vec<Gap>) -> Vec<(String, String)> {
    let own = gaps.into_iter().filter(|gap| !gap.server);
    own.map(|gap| (gap.database.map_or("postgres".to_owned(), |name| name.to_string()), gap.statement)).collect()
}

fn by_superuser(error: &Error) -> String {
    assert_eq!(error.code(), "out_of_reach", "{error}: {:?}", error.hint());
    statement(error)
}

async fn isolation(major: u32, admin: Admin) {
    let (server, provisioner) = admin.on_own_server(major).await;
    let (one, two) = (AppSpec::new(unique("wall")), AppSpec::new(unique("wall")));
    provisioner.create(&one).await.unwrap();
    provisioner.create(&two).await.unwrap();
    let (a, b) = (provisioner.app(&one.name).await.unwrap(), provisioner.app(&two.name).await.unwrap());
    let config = provisioner.connection(&one.name).await.unwrap();
    let into = |database: &str| config.clone().with_database(database);
    assert_eq!(refusal::login(&into(b.database.as_str())).await, NO_RIGHT);
    assert_eq!(refusal::login(&into(a.database.as_str())).await, refusal::CONNECTED);
    for database in ["postgres", "template1"] {
        assert_eq!(refusal::login(&into(database)).await, refusal::CONNECTED, "it is open to everybody");
    }

    let mut secure = one.clone();
    secure.secure_server = true;
    let report = provisioner.create(&secure).await.unwrap();
    for gap in report.gaps {
        assert!(admin == Admin::Plain && gap.server, "{gap}");
        server.sql("postgres", &gap.statement).await;
    }
    for database in ["postgres", "template1", b.database.as_str()] {
        assert_eq!(refusal::login(&into(database)).await, NO_RIGHT, "{database}");
    }
    // The admin has not locked itself out, and the trial login now tries those databases, too.
    let login = a.login(Slot::One);
    server.sql("postgres", &format!("ALTER ROLE {login} PASSWORD NULL")).await;
    let report = provisioner.create(&one).await.unwrap();
    assert_eq!(report.proof, Some(Proof::Complete));
    assert!(report.gaps.is_empty(), "{:?}", report.gaps);
    let walls = provisioner.status(None).await.unwrap().server.walls;
    let rules = if admin == Admin::Superuser { WallState::Missing } else { WallState::Unknown };
    assert_eq!([walls[0].state, walls[1].state], [WallState::Stands, rules], "{walls:?}");
}

async fn dropping(major: u32, admin: Admin) {
    let server = ForeignServer::shared(major).await;
    let provisioner = server.provisioner(admin.of(server));
    let mut spec = AppSpec::new(unique("gone"));
    spec.extensions = Some(["pg_trgm".parse().unwrap()].into());
    provisioner.create(&spec).await.unwrap();
    let app = provisioner.app(&spec.name).await.unwrap();
    let config = provisioner.connection(&spec.name).await.unwrap();
    let session = config.connect().await.unwrap();
    session.simple_query("CREATE TABLE t (x text); CREATE INDEX ON t USING gin (x gin_trgm_ops)").await.unwrap();

    provisioner
        .drop(&spec.name, spec.name.as_str())
        .await
        .unwrap_or_else(|error| panic!("{error}: {:?}", error.hint()));
    assert!(refusal::has_ended(&session).await);
    assert!(config.connect().await.is_err());
    let names = [app.database.as_str(), app.user.as_str(), app.maintenance.as_str()];
    let left: Vec<String> =
        server.catalog().await.into_iter().filter(|line| names.iter().any(|name| line.contains(name))).collect();
    assert!(left.is_empty(), "{left:#?}");
    assert_eq!(provisioner.drop(&spec.name, spec.name.as_str()).await.unwrap_err().code(), "app_not_found");
}

macro_rules! jobs {
    ($name:ident, $major:literal, $admin:ident) => {
        mod $name {
            use super::Admin;

            #[tokio::test]
            async fn create() {
                super::create($major, Admin::$admin).await;
            }

            #[tokio::test]
            async fn drift() {
                super::drift($major, Admin::$admin).await;
            }

            #[tokio::test]
            async fn isolation() {
                super::isolation($major, Admin::$admin).await;
            }

            #[tokio::test]
            async fn dropping() {
                super::dropping($major, Admin::$admin).await;
            }
        }
    };
}

jobs!(pg14, 14, Superuser);
jobs!(pg15, 15, Superuser);
jobs!(pg16, 16, Superuser);
jobs!(pg17, 17, Superuser);
jobs!(pg18, 18, Superuser);
jobs!(pg16_adm, 16, Plain);
jobs!(pg17_adm, 17, Plain);
jobs!(pg18_adm, 18, Plain);
