//! An app reaches nothing of its neighbours, of the server's own databases, or of whoever administers it.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use shareddb_core::{
    App, AppName, AppSpec, ConnectionConfig, Event, Outcome, Provisioner, SecretStore as _, Slot, Step, WallState,
};
use shareddb_tests::TestServer;
use shareddb_tests::refusal::{self, CONNECTED};
use shareddb_tests::server::{password, unique, value};

/// What many servers have: every role with a password may try every database. Rights alone keep apps apart then.
pub(crate) const ALL_MAY_TRY: &str = "local all postgres peer\nhost all all 127.0.0.1/32 scram-sha-256\n";

/// SQLSTATE of a login that `pg_hba.conf` rejects.
pub(crate) const REJECTED: &str = "28000";
/// SQLSTATE of a password that is wrong, and of a role without one.
pub(crate) const NO_PASSWORD: &str = "28P01";
/// SQLSTATE of a right that is not there.
pub(crate) const NO_RIGHT: &str = "42501";

/// An app with both logins usable.
pub(crate) struct Tenant {
    pub(crate) app: App,
    /// How the two logins get in, first slot first.
    pub(crate) logins: [ConnectionConfig; 2],
}

impl Tenant {
    pub(crate) async fn new(server: &TestServer, name: &AppName) -> Self {
        let first = server.app(name).await;
        let provisioner = server.provisioner().await;
        let app = provisioner.app(name).await.unwrap();
        // A Secret that is lost while its login is in use is made anew for the other one.
        let busy = first.connect().await.unwrap();
        server.secrets().delete(&app.secret).await.unwrap();
        provisioner.create(&AppSpec::new(name.clone())).await.unwrap();
        let second = provisioner.connection(name).await.unwrap();
        drop(busy);
        assert_eq!((first.user(), second.user()), (app.login(Slot::One).as_str(), app.login(Slot::Two).as_str()));
        Self { app, logins: [first, second] }
    }

    /// What both logins and every other role of the app's get from a database: one answer, or the two of them.
    pub(crate) async fn answers(&self, database: &str) -> Vec<String> {
        let mut answers = Vec::new();
        for login in &self.logins {
            answers.push(refusal::login(&login.clone().with_database(database)).await);
        }
        answers.dedup();
        answers
    }
}

#[tokio::test]
async fn each_of_the_two_walls_keeps_an_app_in_by_itself() {
    let server = TestServer::start().await;
    let (a, b) = (Tenant::new(&server, &unique("wall")).await, Tenant::new(&server, &unique("wall")).await);
    let b_database = b.app.database.as_str();
    let targets = [b_database, "postgres", "template1"];
    let session = b.logins[0].connect().await.unwrap();
    session.simple_query("CREATE TABLE kept AS SELECT 42 AS x").await.unwrap();

    for target in targets {
        assert_eq!(a.answers(target).await, [REJECTED], "both walls: {target}");
    }
    assert_eq!(a.answers("template0").await, [REJECTED]);
    assert_eq!(a.answers("no_such_database").await, [REJECTED], "names of databases cannot even be tried out");

    // Rights come back by accident: our pg_hba.conf is the wall that stands.
    let accident = format!(
        "GRANT CONNECT ON DATABASE postgres, template1 TO PUBLIC; GRANT ALL ON DATABASE {b_database} TO PUBLIC"
    );
    server.sql("postgres", &accident).await;
    for target in targets {
        assert_eq!(a.answers(target).await, [REJECTED], "pg_hba alone: {target}");
    }

    // Neither wall: the app does get in, so that the refusals above and below mean something.
    server.set_access_rules(ALL_MAY_TRY).await;
    for target in targets {
        assert_eq!(a.answers(target).await, [CONNECTED], "no wall: {target}");
    }
    let inside = a.logins[0].clone().with_database(b_database).connect().await.unwrap();
    assert_eq!(refusal::statement(&inside, "SELECT * FROM kept").await, "42P01", "the schema is not on its path");
    let table = format!("SELECT * FROM {}.kept", b.app.schema);
    assert_eq!(refusal::statement(&inside, &table).await, NO_RIGHT, "even so, rows stay out of reach");
    drop(inside);

    // Our rights under rules that let all in.
    let provisioner = server.provisioner().await;
    let repaired = provisioner.create(&AppSpec::new(b.app.name.clone())).await.unwrap();
    assert!(repaired.steps.iter().any(|step| matches!(step, Step::CloseToPublic { .. })));
    for target in targets {
        assert_eq!(a.answers(target).await, [NO_RIGHT], "rights alone: {target}");
    }
    assert_eq!(a.answers("template0").await, ["55000"]);
    assert_eq!(a.answers(a.app.database.as_str()).await, [CONNECTED], "its own stays open");
    let status = provisioner.status(None).await.unwrap();
    let walls: Vec<(&str, bool)> =
        status.server.walls.iter().map(|wall| (wall.name, wall.state == WallState::Stands)).collect();
    assert_eq!(walls, [("rights", true), ("pg_hba", false)]);
    assert_eq!(value(&session, "SELECT x FROM kept").await, "42");
}

#[tokio::test]
async fn no_other_role_is_a_way_in() {
    let server = TestServer::start().await;
    let (a, b) = (Tenant::new(&server, &unique("way")).await, Tenant::new(&server, &unique("way")).await);
    let foreign = b.app.roles().map(AsRef::as_ref);
    let own = [a.app.owner.as_str(), a.app.maintenance.as_str()];
    let roles: Vec<&str> =
        foreign.chain(own).chain(["postgres", "shareddb_maint", "pg_read_all_data", "nobody"]).collect();
    for rules in [None, Some(ALL_MAY_TRY)] {
        if let Some(rules) = rules {
            server.set_access_rules(rules).await;
        }
        for database in [a.app.database.as_str(), b.app.database.as_str(), "postgres", "template1"] {
            for role in &roles {
                let config = a.logins[0].clone().with_database(database).with_user(*role);
                let answer = refusal::login(&config).await;
                let expected: &[&str] = if rules.is_some() { &[NO_PASSWORD] } else { &[NO_PASSWORD, REJECTED] };
                assert!(expected.contains(&answer.as_str()), "{role} in {database}: {answer}");
            }
        }
    }
}

/// Somebody who tries to get into a database again and again, on a thread of its own.
struct Burglar {
    tries: Arc<Tries>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Tries {
    /// The answers so far, and whether it is to stop.
    state: Mutex<(Vec<String>, bool)>,
    more: Condvar,
}

impl Burglar {
    fn start(config: ConnectionConfig) -> Self {
        let tries = Arc::new(Tries::default());
        let shared = Arc::clone(&tries);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            loop {
                let answer = runtime.block_on(refusal::login(&config));
                let mut state = shared.state.lock().unwrap();
                state.0.push(answer);
                shared.more.notify_all();
                if state.1 {
                    break;
                }
            }
        });
        Self { tries, thread: Some(thread) }
    }

    fn finish(mut self) -> Vec<String> {
        self.tries.state.lock().unwrap().1 = true;
        self.thread.take().unwrap().join().unwrap();
        self.tries.state.lock().unwrap().0.clone()
    }
}

impl Tries {
    /// Waits until a try that began after this call has been answered.
    fn one_more(&self) {
        let state = self.state.lock().unwrap();
        // The next answer may be to a try that had begun before.
        let enough = state.0.len() + 2;
        let (_state, timeout) =
            self.more.wait_timeout_while(state, Duration::from_secs(30), |state| state.0.len() < enough).unwrap();
        assert!(!timeout.timed_out(), "the burglar has given up");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_into_a_database_that_is_being_made() {
    const DATABASES: usize = 3;
    let server = TestServer::start().await;
    // Only the order of the steps protects it now.
    server.set_access_rules(ALL_MAY_TRY).await;
    let thief = server.app(&unique("thief")).await;
    for _ in 0..DATABASES {
        let name = unique("newborn");
        let database = format!("{}_db", name.as_str().replace('-', "_"));
        let burglar = Burglar::start(thief.clone().with_database(&database));
        burglar.tries.one_more();
        let before = burglar.tries.state.lock().unwrap().0.len();
        let tries = Arc::clone(&burglar.tries);
        let events = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&events);
        let provisioner = Provisioner::new(server.server().await).on_event(move |_| {
            *counted.lock().unwrap() += 1;
            tries.one_more();
        });
        provisioner.create(&AppSpec::new(name)).await.unwrap();
        burglar.tries.one_more();
        let answers = burglar.finish();
        let during = answers.len() - before;
        let events = *events.lock().unwrap();
        assert!(events > 20 && during > events, "{during} tries in a create of {events} events");
        assert!(!answers.iter().any(|answer| answer == CONNECTED), "{answers:?}");
        let mut stages = answers;
        stages.dedup();
        // Not there, there and closed, open to others: in this order, each once.
        assert_eq!(stages, ["3D000", "55000", NO_RIGHT]);
    }
}

#[tokio::test]
async fn a_session_that_is_inside_already_ends_when_the_right_is_taken() {
    let server = TestServer::start().await;
    server.set_access_rules(ALL_MAY_TRY).await;
    let (a, b) = (server.app(&unique("host")).await, server.app(&unique("guest")).await);
    server.sql("postgres", &format!("GRANT CONNECT ON DATABASE {} TO PUBLIC", a.database())).await;
    let inside = b.clone().with_database(a.database()).connect().await.unwrap();
    let at_home = b.connect().await.unwrap();
    let host = a.connect().await.unwrap();

    let provisioner = server.provisioner().await;
    let name: AppName = a.database().trim_end_matches("_db").replace('_', "-").parse().unwrap();
    let report = provisioner.create(&AppSpec::new(name.clone())).await.unwrap();
    assert_eq!(report.outcome, Outcome::Configured);
    let place =
        |is: fn(&Step) -> bool| report.steps.iter().position(is).unwrap_or_else(|| panic!("{:?}", report.steps));
    let access = place(|step| matches!(step, Step::SetAccess { .. }));
    let ended = place(|step| matches!(step, Step::EndStrangers { .. }));
    assert!(access < ended, "first the door, then those inside");

    assert!(refusal::has_ended(&inside).await);
    assert_eq!(value(&at_home, "SELECT 1").await, "1", "its own database is its own");
    assert_eq!(value(&host, "SELECT 1").await, "1");
    assert!(provisioner.plan(&AppSpec::new(name)).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_app_at_its_limit_leaves_others_and_the_admin_able_to_connect() {
    let server = TestServer::shared().await;
    let (a, b) = (Tenant::new(server, &unique("full")).await, Tenant::new(server, &unique("full")).await);
    let limit = usize::from(a.app.database_connections());
    let mut held = Vec::new();
    let mut refusals = Vec::new();
    for login in &a.logins {
        loop {
            match login.connect().await {
                Ok(session) => held.push(session),
                Err(error) => break refusals.push(refusal::sqlstate(&error)),
            }
            assert!(held.len() <= limit, "no limit holds");
        }
    }
    // The first login meets its own limit, the second one that of the database.
    assert_eq!(refusals, ["53300", "53300"]);
    assert_eq!(held.len(), limit);
    for login in &b.logins {
        assert_eq!(value(&login.connect().await.unwrap(), "SELECT 1").await, "1");
    }
    assert_eq!(server.value("postgres", "SELECT 1").await, "1");
    assert_eq!(server.value(a.app.database.as_str(), "SELECT 1").await, "1", "the admin gets in there, too");
    let provisioner = server.provisioner().await;
    assert!(provisioner.plan(&AppSpec::new(a.app.name.clone())).await.unwrap().is_empty());
    assert_eq!(password(&provisioner.connection(&b.app.name).await.unwrap()), password(&b.logins[1]));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_slips_in_during_a_repair_is_found_by_the_next_one() {
    let server = TestServer::start().await;
    server.set_access_rules(ALL_MAY_TRY).await;
    let (name, guest) = (unique("late"), server.app(&unique("guest")).await);
    let host = server.app(&name).await;
    server.sql("postgres", &format!("GRANT CONNECT ON DATABASE {} TO PUBLIC", host.database())).await;
    let slipping = guest.clone().with_database(host.database());
    let inside = Arc::new(Mutex::new(None));
    let (slot, runtime) = (Arc::clone(&inside), tokio::runtime::Handle::current());
    let provisioner = server.provisioner().await.on_event(move |event| {
        if matches!(event, Event::Begun(Step::SetAccess { .. })) {
            let (config, runtime) = (slipping.clone(), runtime.clone());
            let session = std::thread::spawn(move || runtime.block_on(config.connect())).join().unwrap();
            *slot.lock().unwrap() = Some(session.unwrap());
        }
    });
    let spec = AppSpec::new(name.clone());
    provisioner.create(&spec).await.unwrap();
    let session = inside.lock().unwrap().take().unwrap();
    let quiet = server.provisioner().await;
    let again = quiet.create(&spec).await.unwrap();
    assert!(refusal::has_ended(&session).await, "{:?}", again.steps);
    assert!(quiet.plan(&spec).await.unwrap().is_empty());
}
