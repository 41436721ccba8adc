//! Hand-made apps are taken over by an admin who is no superuser: what is a superuser's is told, and never counted as done.

use shareddb_core::{
    Adopt, AppSpec, ConnectionConfig, Error, Gap, Outcome, Proof, Provisioner, Report, Session, Slot, Step,
};
use shareddb_tests::ForeignServer;
use shareddb_tests::command::{mortal, outlives};
use shareddb_tests::legacy::{filled_by_admin, filled_by_login, write_keys};
use shareddb_tests::majors::{ALL_MAY_TRY, PLAIN_ADMIN};
use shareddb_tests::server::{rows, session, sql, value};
use shareddb_tests::watch::eventually;

/// An app that the plain admin made with the guide's statements.
pub(crate) struct ByHand {
    pub(crate) server: ForeignServer,
    stem: &'static str,
}

impl ByHand {
    pub(crate) async fn make(major: u32) -> Self {
        Self::on(ForeignServer::start(major, ALL_MAY_TRY).await).await
    }

    pub(crate) async fn on(server: ForeignServer) -> Self {
        let made = Self { server, stem: "hand" };
        made.make_app().await;
        made
    }

    async fn make_app(&self) {
        for statement in [
            "CREATE DATABASE hand_db",
            "CREATE USER hand_user PASSWORD 'by hand'",
            "GRANT ALL PRIVILEGES ON DATABASE hand_db TO hand_user",
        ] {
            self.as_admin("postgres", statement).await;
        }
        self.as_admin("hand_db", "GRANT ALL ON SCHEMA public TO hand_user").await;
        self.write_password("by hand");
    }

    pub(crate) async fn as_admin(&self, database: &str, statements: &str) {
        sql(&self.server.plain_admin(), database, statements).await;
    }

    pub(crate) fn write_password(&self, password: &str) {
        let config = self.config();
        let port = config.port().to_string();
        let keys = [("DB_HOST", "127.0.0.1"), ("DB_PORT", &port), ("DB_NAME", "hand_db"), ("DB_USER", "hand_user")];
        let folder = self.server.secrets_folder().join("hand-db-secret");
        write_keys(&folder, &[keys.as_slice(), &[("DB_PASSWORD", password)]].concat());
    }

    fn write_key(&self, key: &str, value: &str) {
        std::fs::write(self.server.secrets_folder().join("hand-db-secret").join(key), value).unwrap();
    }

    /// How its programs log in.
    pub(crate) fn config(&self) -> ConnectionConfig {
        let config = self.server.superuser().with_database("hand_db").with_user("hand_user");
        config.with_password("by hand".into())
    }

    pub(crate) async fn session(&self) -> Session {
        self.config().connect().await.unwrap_or_else(|error| panic!("{error}"))
    }

    pub(crate) fn spec(&self) -> AppSpec {
        let mut spec = AppSpec::new(self.stem.parse().unwrap());
        let mut adopt = Adopt::default();
        adopt.close_to_others = true;
        spec.adopt = Some(adopt);
        spec
    }

    /// Does what gaps say, as a superuser would who copies them.
    pub(crate) async fn close(&self, gaps: &[Gap]) {
        for gap in gaps.iter().filter(|gap| !gap.server) {
            let database = gap.database.as_ref().map_or("postgres", |name| name.as_str());
            self.server.sql(database, &gap.statement).await;
        }
    }

    /// What others than the app's roles own in its database, extensions and what is in them aside.
    async fn of_others(&self) -> Vec<String> {
        rows(&session(&self.server.superuser(), "hand_db").await, OF_OTHERS).await
    }

    pub(crate) async fn settle(&self) {
        let gone = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'hand_db'";
        eventually("the sessions are gone", async || self.server.value("postgres", gone).await == "0").await;
    }
}

const OF_OTHERS: &str = "SELECT what || ' ' || o::regrole FROM (
    SELECT oid, 'schema ' || nspname AS what, nspowner AS o FROM pg_namespace
    UNION ALL SELECT oid, 'relation ' || oid::regclass, relowner FROM pg_class WHERE relkind IN ('r','p','f','v','m','S')
    UNION ALL SELECT oid, 'type ' || oid::regtype, typowner FROM pg_type WHERE typtype IN ('e', 'd', 'r')
    UNION ALL SELECT oid, 'function ' || oid::regprocedure, proowner FROM pg_proc
    UNION ALL SELECT oid, 'publication ' || pubname, pubowner FROM pg_publication
    UNION ALL SELECT oid, 'statistics ' || stxname, stxowner FROM pg_statistic_ext
    UNION ALL SELECT oid, 'large object ' || oid, lomowner FROM pg_largeobject_metadata) owned
    WHERE oid >= 16384 AND o <> 'hand_db'::regrole
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = owned.oid AND d.deptype IN ('e', 'i')) ORDER BY 1";

/// What a superuser has made for the app.
const BY_SUPERUSER: &str = "CREATE SCHEMA \"Old stock\"; CREATE TABLE \"Old stock\".items (id serial PRIMARY KEY, v text);
    INSERT INTO \"Old stock\".items (v) VALUES ('kept');
    CREATE VIEW item_names AS SELECT v FROM \"Old stock\".items;
    CREATE FUNCTION fixed() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1';
    CREATE TABLE guarded_too (id int, owner_id int); ALTER TABLE guarded_too ENABLE ROW LEVEL SECURITY;
    GRANT USAGE, CREATE ON SCHEMA \"Old stock\" TO hand_user, adm; GRANT ALL ON ALL TABLES IN SCHEMA \"Old stock\", public TO hand_user;
    ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO hand_user";

async fn changes_hands(major: u32) {
    let by_hand = ByHand::make(major).await;
    fill(&by_hand).await;
    let provisioner = by_hand.server.provisioner(by_hand.server.plain_admin());
    is_told(&by_hand, &provisioner).await;
    let gaps = is_told_again(&by_hand, &provisioner).await;
    is_closed(&by_hand, &provisioner, &gaps).await;
    println!("{major}: taken over by {PLAIN_ADMIN}");
}

/// Objects of the app's login, of the plain admin and of a superuser.
async fn fill(by_hand: &ByHand) {
    let of_admin = filled_by_admin("hand_user").replace(" CREATE PUBLICATION whole FOR TABLES IN SCHEMA archive;", "");
    by_hand.as_admin("hand_db", &of_admin).await;
    by_hand.session().await.batch_execute(filled_by_login()).await.unwrap();
    by_hand.server.sql("hand_db", BY_SUPERUSER).await;
    by_hand.as_admin("hand_db", "CREATE TABLE \"Old stock\".of_admin (id int)").await;
}

/// The app is taken over while it works, and what only a superuser can hand over is told and stays as it is.
async fn is_told(by_hand: &ByHand, provisioner: &Provisioner) {
    let working = by_hand.session().await;
    working.batch_execute("BEGIN; CREATE TABLE open_when_adopted (x int)").await.unwrap();
    let planned =
        provisioner.plan(&by_hand.spec()).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
    let report = provisioner.apply(&planned).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
    assert_eq!((report.outcome, report.proof), (Outcome::Adopted, Some(Proof::Complete)));
    working.batch_execute("COMMIT; INSERT INTO orders (word) VALUES ('while it went on')").await.unwrap();
    drop(working);
    let told: Vec<&Gap> = report.gaps.iter().filter(|gap| gap.what.contains("may not hand over")).collect();
    assert_eq!(told.len(), 1, "{:#?}", report.gaps);
    assert!(told[0].statement.contains("ALTER DEFAULT PRIVILEGES FOR ROLE \"postgres\""), "{}", told[0].statement);
    assert!(told[0].statement.contains("ALTER SCHEMA \"Old stock\" OWNER TO \"hand_db\""), "{}", told[0].statement);
    let expected = [
        "function fixed() postgres",
        "relation \"Old stock\".items postgres",
        "relation \"Old stock\".items_id_seq postgres",
        "relation \"Old stock\".of_admin adm",
        "relation guarded_too postgres",
        "relation item_names postgres",
        "schema Old stock postgres",
    ];
    assert_eq!(by_hand.of_others().await, expected);
}

/// What is left is not counted as done and is no drift: each run tells it again, and the app works meanwhile. Returns it.
async fn is_told_again(by_hand: &ByHand, provisioner: &Provisioner) -> Vec<Gap> {
    by_hand.settle().await;
    // What the sessions from before the adoption were in the way of.
    let second = provisioner.create(&by_hand.spec()).await.unwrap();
    assert!(
        matches!(&*second.steps, [Step::MarkOwner { .. }, Step::LimitDatabase { .. }, Step::Prove { .. }]),
        "{:#?}",
        second.steps
    );
    let of_app = |report: &Report| report.gaps.iter().filter(|gap| !gap.server).cloned().collect::<Vec<_>>();
    let gaps = of_app(&second);
    for _ in 0..2 {
        let report = provisioner.create(&by_hand.spec()).await.unwrap();
        assert_eq!((report.outcome, report.steps.len()), (Outcome::Unchanged, 0), "{:#?}", report.steps);
        assert_eq!(of_app(&report), gaps);
    }
    let status = provisioner.status(None).await.unwrap();
    assert!(status.apps[0].drift.is_empty() && status.apps[0].gaps == gaps, "{status:#?}");
    let sees = "SELECT current_user || ' ' || (SELECT count(*) FROM orders) || ' ' || (SELECT v FROM item_names)";
    assert_eq!(value(&by_hand.session().await, sees).await, "hand_db 51 kept");
    gaps
}

/// Once a superuser has run what was told, the app is like any other.
async fn is_closed(by_hand: &ByHand, provisioner: &Provisioner, gaps: &[Gap]) {
    by_hand.settle().await;
    by_hand.close(gaps).await;
    assert_eq!(by_hand.of_others().await, Vec::<String>::new());
    let forced = "SELECT relforcerowsecurity FROM pg_class WHERE oid = 'guarded_too'::regclass";
    assert_eq!(by_hand.server.value("hand_db", forced).await, "t");
    let last = provisioner.create(&by_hand.spec()).await.unwrap();
    assert!(last.gaps.iter().all(|gap| gap.server), "{:#?}", last.gaps);
    assert_eq!(provisioner.create(&by_hand.spec()).await.unwrap().outcome, Outcome::Unchanged);
    // A superuser finds nothing to do, either, but what no other admin sets.
    let superuser = by_hand.server.provisioner(by_hand.server.superuser());
    let plan = superuser.plan(&by_hand.spec()).await.unwrap();
    assert!(plan.steps.iter().all(|step| !step.to_string().contains("owned by hand_db")), "{plan}");
}

async fn comes_back(major: u32) {
    let by_hand = ByHand::make(major).await;
    let server = &by_hand.server;
    by_hand.session().await.batch_execute(filled_by_login()).await.unwrap();
    by_hand.as_admin("postgres", "ALTER ROLE hand_user CREATEDB CONNECTION LIMIT 7 VALID UNTIL '2099-01-01'").await;
    by_hand.as_admin("postgres", "ALTER ROLE hand_user SET work_mem = '8MB'").await;
    by_hand.as_admin("postgres", "ALTER DATABASE hand_db SET datestyle = 'German'").await;
    // Nothing of the schema has to come back where it was the login's all along.
    if major == 17 {
        server.sql("hand_db", "ALTER SCHEMA public OWNER TO hand_user").await;
    }
    by_hand.settle().await;
    let before = server.catalog().await;
    let provisioner = server.provisioner(server.plain_admin());
    let spec = by_hand.spec();
    provisioner.create(&spec).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
    if major == 18 {
        by_hand.as_admin("postgres", "DROP ROLE hand_maint").await;
    }
    let session = by_hand.session().await;
    session.batch_execute("CREATE TABLE meanwhile AS SELECT 1 AS x").await.unwrap();
    assert_eq!(value(&session, "SHOW work_mem").await, "8MB");
    drop(session);
    let report =
        provisioner.undo_adopt(&spec.name).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
    assert_eq!(report.outcome, Outcome::Released);
    // But for what the app made since, and what the server has for all apps.
    let known = |line: &String| !line.contains("meanwhile") && !line.contains("shareddb_maint");
    let after: Vec<String> = server.catalog().await.into_iter().filter(known).collect();
    assert_eq!(after, before);
    let session = by_hand.session().await;
    assert_eq!(value(&session, "SELECT current_user || ' ' || (SELECT x FROM meanwhile)").await, "hand_user 1");
    drop(session);
    provisioner.create(&spec).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
}

async fn refused(by_hand: &ByHand, spec: &AppSpec) -> Error {
    let before = by_hand.server.catalog().await;
    let provisioner = by_hand.server.provisioner(by_hand.server.plain_admin());
    let error = provisioner.create(spec).await.unwrap_err();
    assert_eq!(error.code(), "adopt_refused", "{error}");
    assert_eq!(by_hand.server.catalog().await, before);
    error
}

/// The statement in a finding's cure.
#[track_caller]
fn cure(error: &Error, code: &str) -> String {
    let causes = error.causes();
    let found = causes.iter().find(|cause| cause.starts_with(&format!("[{code}]")));
    let found = found.unwrap_or_else(|| panic!("{code}: {causes:#?}"));
    found.split_once(": ").and_then(|_| found.rsplit_once("superuser: ")).expect("a statement").1.to_owned()
}

async fn is_told_what_it_lacks(major: u32) {
    let by_hand = ByHand::make(major).await;
    let server = &by_hand.server;
    by_hand.session().await.batch_execute(filled_by_login()).await.unwrap();
    // As if a superuser had made everything, and more.
    server.sql("postgres", "ALTER DATABASE hand_db OWNER TO postgres; REVOKE hand_user FROM adm").await;
    server.sql("postgres", "ALTER ROLE hand_user REPLICATION CREATEDB NOINHERIT CONNECTION LIMIT 7").await;
    let fun =
        "CREATE FUNCTION raw(int) RETURNS int LANGUAGE internal AS 'int4abs'; ALTER FUNCTION raw OWNER TO hand_user";
    server.sql("hand_db", fun).await;
    by_hand.write_password("not this one");
    let mut spec = by_hand.spec();
    spec.adopt.as_mut().unwrap().demote = true;

    let error = refused(&by_hand, &spec).await;
    assert_eq!(error.causes().len(), 4, "{:#?}", error.causes());
    assert!(error.causes().iter().any(|cause| cause.starts_with("[password_unproven]")));
    server.sql("postgres", &cure(&error, "database_out_of_reach")).await;
    by_hand.write_password("by hand");
    let error = refused(&by_hand, &spec).await;
    let out_of_reach: Vec<String> =
        error.causes().into_iter().filter(|cause| cause.starts_with("[login_out_of_reach]")).collect();
    assert_eq!(out_of_reach.len(), 2, "{:#?}", error.causes());
    for cause in &out_of_reach {
        server.sql("postgres", cause.rsplit_once("superuser: ").unwrap().1).await;
    }
    let rest = "SELECT concat_ws(' ', rolcreatedb, rolinherit, rolconnlimit, rolreplication) FROM pg_roles WHERE rolname = 'hand_user'";
    assert_eq!(server.value("postgres", rest).await, "t f 7 f", "no more is taken than what was told");
    let error = refused(&by_hand, &spec).await;
    let causes = error.causes();
    assert_eq!(causes.len(), 1, "{causes:#?}");
    let (_, statement) = causes[0].rsplit_once("in database hand_db: ").unwrap();
    server.sql("hand_db", statement).await;
    let provisioner = server.provisioner(server.plain_admin());
    let report = provisioner.create(&spec).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
    assert_eq!(report.outcome, Outcome::Adopted);

    // What it could not give back, it does not begin to.
    server.sql("postgres", "ALTER ROLE hand_user_2 PASSWORD 'issued'").await;
    let app = provisioner.app(&spec.name).await.unwrap();
    let second = by_hand.config().with_user(app.login(Slot::Two).as_str()).with_password("issued".into());
    let session = second.connect().await.unwrap();
    assert_eq!(provisioner.undo_adopt(&spec.name).await.unwrap_err().code(), "undo_too_late");
    drop(session);
    by_hand.settle().await;
    by_hand.write_key("DB_USER", app.login(Slot::Two).as_str());
    assert_eq!(provisioner.undo_adopt(&spec.name).await.unwrap_err().code(), "undo_too_late");
    by_hand.write_key("DB_USER", app.login(Slot::One).as_str());
    by_hand.write_password("not this one");
    let error = provisioner.undo_adopt(&spec.name).await.unwrap_err();
    assert_eq!(error.code(), "out_of_reach", "{error}");
}

/// A table of the app's, and what the admin and a superuser made for it.
async fn fill_a_little(by_hand: &ByHand) {
    by_hand.session().await.batch_execute("CREATE TABLE mine AS SELECT 1 AS x").await.unwrap();
    let grant = "GRANT ALL ON ALL TABLES IN SCHEMA public TO hand_user";
    let made = "CREATE SCHEMA more; CREATE TABLE more.theirs (x int); CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'";
    by_hand
        .as_admin("hand_db", &format!("{made}; CREATE TABLE theirs AS SELECT 1 AS x; GRANT ALL ON theirs TO hand_user"))
        .await;
    by_hand
        .server
        .sql("hand_db", &format!("CREATE TABLE sealed AS SELECT 1 AS x; GRANT ALL ON sealed TO hand_user; {grant}"))
        .await;
}

async fn assert_works(by_hand: &ByHand, when: &str) {
    let sum = "SELECT (SELECT x FROM mine) + (SELECT x FROM theirs) + (SELECT x FROM sealed)";
    assert_eq!(value(&by_hand.session().await, sum).await, "3", "{when}");
    let secret = ConnectionConfig::from_directory(&by_hand.server.secrets_folder().join("hand-db-secret")).unwrap();
    let session = secret.connect().await.unwrap_or_else(|error| panic!("{when}: {error}"));
    assert_eq!(value(&session, sum).await, "3", "{when}: by the Secret");
}

async fn killed_at_any_event(major: u32) {
    let by_hand = ByHand::make(major).await;
    let server = &by_hand.server;
    let home = server.home_of(&server.plain_admin());
    let provisioner = server.provisioner(server.plain_admin());
    let name = by_hand.spec().name;
    let mut reference = Vec::new();
    for event in 0.. {
        let when = format!("{major}: adoption killed at event {event}");
        fill_a_little(&by_hand).await;
        let done = outlives(&mut mortal(&home), &name, "adopt", event);
        assert_works(&by_hand, &when).await;
        by_hand.settle().await;
        let finished = provisioner.create(&by_hand.spec()).await;
        finished.unwrap_or_else(|error| panic!("{when}: {error}: {:?}", error.causes()));
        assert_works(&by_hand, &when).await;
        assert_eq!(by_hand.of_others().await, ["relation sealed postgres"], "{when}");
        by_hand.settle().await;
        provisioner.create(&by_hand.spec()).await.unwrap();
        let catalog = server.catalog().await;
        if reference.is_empty() {
            reference.clone_from(&catalog);
        }
        assert_eq!(catalog, reference, "{when}");
        provisioner
            .drop(&name, name.as_str())
            .await
            .unwrap_or_else(|error| panic!("{when}: {error}: {:?}", error.hint()));
        if done {
            println!("{major}: adoption by a plain admin: {event} crash points");
            assert!(event > 50, "every step has two events: {event}");
            break;
        }
        by_hand.make_app().await;
    }
}

macro_rules! majors {
    ($($name:ident: $major:literal),*) => {$(
        mod $name {
            #[tokio::test]
            async fn what_it_made_changes_hands_and_the_rest_is_told() {
                super::changes_hands($major).await;
            }

            #[tokio::test]
            async fn it_gives_back_what_it_took() {
                super::comes_back($major).await;
            }

            #[tokio::test]
            async fn it_is_told_what_it_lacks() {
                super::is_told_what_it_lacks($major).await;
            }

            #[tokio::test]
            async fn it_is_killed_at_any_event() {
                super::killed_at_any_event($major).await;
            }
        }
    )*};
}

majors!(pg16: 16, pg17: 17, pg18: 18);
