//! Any call may fail and any reply be lost: what is there is safe, and the next run comes to the same end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use secrecy::SecretString;
use shareddb_core::{
    AppName, AppSpec, DirectoryStore, Error, Event, Outcome, Provisioner, Result, SecretData, SecretName, SecretStore,
    SecretVersion, Step, StoredSecret,
};
use shareddb_tests::TestServer;
use shareddb_tests::proxy::{Loss, Proxy};
use shareddb_tests::watch::Watch;

fn app_name() -> AppName {
    "fault".parse().unwrap()
}

/// An app that asks for something of each kind.
fn spec() -> AppSpec {
    let mut spec = AppSpec::new(app_name());
    spec.extensions = Some(["pg_trgm".parse().unwrap()].into());
    spec.settings = Some([("work_mem".parse().unwrap(), "7MB".to_owned())].into());
    spec
}

/// A fault is told as what it is: the same call may succeed later.
#[track_caller]
fn assert_retryable(error: &Error, when: &str) {
    assert!(error.is_retryable(), "{when}: {error:?}");
    assert!(!matches!(error, Error::InvalidInput(_)) && !error.code().is_empty(), "{when}: {error:?}");
}

/// What the rounds of one test share: a server, and the catalog with and without the app.
struct Rounds<'a> {
    server: &'a TestServer,
    provisioner: Provisioner,
    watch: Watch<'a>,
    with_app: Vec<String>,
    without: Vec<String>,
}

impl<'a> Rounds<'a> {
    async fn of(server: &'a TestServer, provisioner: Provisioner) -> Self {
        provisioner.create(&AppSpec::new("neighbour".parse().unwrap())).await.unwrap();
        let without = server.catalog().await;
        let app = provisioner.create(&spec()).await.unwrap().app;
        let with_app = server.catalog().await;
        provisioner.drop(&app_name(), app_name().as_str()).await.unwrap();
        Self { server, provisioner, watch: Watch::over(server, app), with_app, without }
    }

    async fn create(&self) -> Result<Outcome> {
        self.provisioner.create(&spec()).await.map(|report| report.outcome)
    }

    async fn drop(&self) -> Result<Outcome> {
        self.provisioner.drop(&app_name(), app_name().as_str()).await.map(|report| report.outcome)
    }

    /// After a create that was disturbed.
    async fn assert_create_converges(&self, when: &str) {
        self.watch.assert_safe(when).await;
        self.watch.settle().await;
        self.create().await.unwrap_or_else(|error| panic!("{when}, again: {error}"));
        assert_eq!(self.server.catalog().await, self.with_app, "{when}");
        self.watch.assert_closed_to_public(when).await;
        self.watch.assert_works(when).await;
        assert_eq!(self.create().await.unwrap(), Outcome::Unchanged, "{when}");
    }

    /// After a drop that was disturbed.
    async fn assert_drop_converges(&self, when: &str) {
        self.watch.assert_safe(when).await;
        match self.drop().await {
            Ok(outcome) => assert_eq!(outcome, Outcome::Dropped, "{when}"),
            Err(error) => assert_eq!(error.code(), "app_not_found", "{when}: {error}"),
        }
        assert_eq!(self.server.catalog().await, self.without, "{when}");
        assert_eq!(self.watch.secret().await, None, "{when}");
    }
}

/// The lock is given back when all is done: of that, nobody needs to know whether it came to pass.
const FAREWELL: usize = 1;

async fn behind_proxy(server: &TestServer) -> (Proxy, Provisioner) {
    let proxy = Proxy::to(server.admin().port()).await;
    let admin = server.admin().with_port(proxy.port());
    let provisioner = Provisioner::new(server.server_with(admin, Arc::new(server.secrets())));
    (proxy, provisioner)
}

#[tokio::test]
async fn a_create_that_loses_any_request_or_answer_is_finished_by_the_next() {
    let server = TestServer::start().await;
    let (proxy, provisioner) = behind_proxy(&server).await;
    let rounds = Rounds::of(&server, provisioner).await;
    for loss in [Loss::Request, Loss::Answer] {
        let mut unnoticed = 0;
        for number in 0.. {
            let when = format!("create without {loss:?} {number}");
            proxy.arm(number, loss);
            let begun = Instant::now();
            let result = rounds.create().await;
            assert!(begun.elapsed() < Duration::from_secs(10), "{when}");
            let struck = proxy.disarm();
            match &result {
                Ok(_) => unnoticed += usize::from(struck),
                Err(error) => assert_retryable(error, &when),
            }
            rounds.assert_create_converges(&when).await;
            rounds.drop().await.unwrap();
            if !struck {
                assert_eq!(unnoticed, FAREWELL, "{when}");
                println!("create: {number} times {loss:?} lost");
                assert!(number > 40, "a create asks more than that");
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_drop_that_loses_any_request_or_answer_is_finished_by_the_next() {
    let server = TestServer::start().await;
    let (proxy, provisioner) = behind_proxy(&server).await;
    let rounds = Rounds::of(&server, provisioner).await;
    for loss in [Loss::Request, Loss::Answer] {
        let mut unnoticed = 0;
        for number in 0.. {
            rounds.create().await.unwrap();
            let when = format!("drop without {loss:?} {number}");
            proxy.arm(number, loss);
            let result = rounds.drop().await;
            let struck = proxy.disarm();
            match &result {
                Ok(_) => unnoticed += usize::from(struck),
                Err(error) => assert_retryable(error, &when),
            }
            rounds.assert_drop_converges(&when).await;
            if !struck {
                assert_eq!(unnoticed, FAREWELL, "{when}");
                println!("drop: {number} times {loss:?} lost");
                assert!(number > 15, "a drop asks more than that");
                break;
            }
        }
    }
}

/// A store in which one call fails: before it does anything, or after it has done it.
#[derive(Debug)]
struct Flaky {
    store: DirectoryStore,
    calls: AtomicUsize,
    /// The number of the call, and whether it is done.
    fault: std::sync::Mutex<Option<(usize, bool)>>,
}

impl Flaky {
    fn new(store: DirectoryStore) -> Arc<Self> {
        Arc::new(Self { store, calls: AtomicUsize::new(0), fault: std::sync::Mutex::new(None) })
    }

    fn arm(&self, number: usize, done: bool) {
        self.calls.store(0, Ordering::Relaxed);
        *self.fault.lock().unwrap() = Some((number, done));
    }

    /// Whether the fault came to pass.
    fn disarm(&self) -> bool {
        let (number, _) = self.fault.lock().unwrap().take().unwrap();
        self.calls.load(Ordering::Relaxed) > number
    }

    async fn call<T>(&self, what: &str, call: impl Future<Output = Result<T>>) -> Result<T> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let fault = self.fault.lock().unwrap().filter(|(at, _)| *at == number);
        if let Some((_, done)) = fault {
            if done {
                call.await?;
            }
            return Err(Error::unavailable("store_unreachable", format!("cannot {what}")));
        }
        call.await
    }
}

#[async_trait]
impl SecretStore for Flaky {
    async fn check(&self, name: &SecretName) -> Result<()> {
        self.call("check", self.store.check(name)).await
    }

    async fn load(&self, name: &SecretName) -> Result<Option<StoredSecret>> {
        self.call("load", self.store.load(name)).await
    }

    async fn create(&self, name: &SecretName, app: &AppName, data: &SecretData) -> Result<SecretVersion> {
        self.call("create", self.store.create(name, app, data)).await
    }

    async fn replace(
        &self,
        name: &SecretName,
        app: &AppName,
        data: &SecretData,
        version: &SecretVersion,
    ) -> Result<SecretVersion> {
        self.call("replace", self.store.replace(name, app, data, version)).await
    }

    async fn delete(&self, name: &SecretName) -> Result<()> {
        self.call("delete", self.store.delete(name)).await
    }

    fn describe(&self, name: &SecretName) -> String {
        self.store.describe(name)
    }
}

#[tokio::test]
async fn every_call_of_the_store_may_fail() {
    let server = TestServer::start().await;
    let store = Flaky::new(server.secrets());
    let provisioner = Provisioner::new(server.server_with(server.admin(), Arc::<Flaky>::clone(&store)));
    let mut rounds = Rounds::of(&server, provisioner).await;
    let mut met = Vec::new();
    for done in [false, true] {
        for number in 0.. {
            let when = format!("create, call {number} fails, done: {done}");
            store.arm(number, done);
            let result = rounds.create().await;
            let struck = store.disarm();
            assert_eq!(result.is_err(), struck, "{when}: {result:?}");
            rounds.assert_create_converges(&when).await;
            let Err(error) = result else { break };
            assert_eq!(error.code(), "store_unreachable", "{when}: {error}");
            met.push(format!("create: {error}"));
            rounds.drop().await.unwrap();
        }
        for number in 0.. {
            let when = format!("repair, call {number} fails, done: {done}");
            rounds.watch.damaged = Some(damage(&rounds).await);
            store.arm(number, done);
            let result = rounds.create().await;
            let struck = store.disarm();
            assert_eq!(result.is_err(), struck, "{when}: {result:?}");
            rounds.assert_create_converges(&when).await;
            let Err(error) = result else { break };
            met.push(format!("repair: {error}"));
        }
        for number in 0.. {
            let when = format!("drop, call {number} fails, done: {done}");
            store.arm(number, done);
            let result = rounds.drop().await;
            let struck = store.disarm();
            assert_eq!(result.is_err(), struck, "{when}: {result:?}");
            rounds.assert_drop_converges(&when).await;
            let Err(error) = result else { break };
            met.push(format!("drop: {error}"));
            rounds.create().await.unwrap();
        }
    }
    println!("store: {} faults: {}", met.len(), met.join(", "));
    for what in ["create: cannot check", "create: cannot load", "create: cannot create", "repair: cannot replace"] {
        assert_eq!(met.iter().filter(|met| *met == what).count(), 2, "{what}: {met:?}");
    }
    assert_eq!(met.iter().filter(|met| *met == "drop: cannot delete").count(), 2, "{met:?}");
}

/// Edits the Secret so that it has to be written again.
async fn damage(rounds: &Rounds<'_>) -> SecretVersion {
    let (store, app) = (rounds.server.secrets(), rounds.watch.app());
    let stored = store.load(&app.secret).await.unwrap().unwrap();
    let edited = [("DB_HOST".to_owned(), SecretString::from("elsewhere"))].into();
    store.replace(&app.secret, &app.name, &edited, &stored.version).await.unwrap()
}

#[tokio::test]
async fn no_server_is_told_at_once() {
    let server = TestServer::start().await;
    // Bound and given back: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let store = Arc::new(server.secrets());
    let provisioner = Provisioner::new(server.server_with(server.admin().with_port(port), store));
    let begun = Instant::now();
    let (spec, name) = (spec(), app_name());
    let errors = [
        provisioner.plan(&spec).await.unwrap_err(),
        provisioner.create(&spec).await.unwrap_err(),
        provisioner.drop(&name, name.as_str()).await.unwrap_err(),
        provisioner.list().await.unwrap_err(),
        provisioner.status(None).await.unwrap_err(),
        provisioner.connection(&name).await.unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_server_that_goes_away_before_any_kind_of_step_is_told_at_once() {
    let server = TestServer::start().await;
    let rounds = Rounds::of(&server, server.provisioner().await).await;
    let moments: [fn(&Step) -> bool; 7] = [
        |step| matches!(step, Step::CreateOwner { .. }),
        |step| matches!(step, Step::CreateDatabase { .. }),
        |step| matches!(step, Step::OpenDatabase { .. }),
        |step| matches!(step, Step::CreateSchema { .. }),
        |step| matches!(step, Step::SetPassword { .. }),
        |step| matches!(step, Step::Prove { .. }),
        |step| matches!(step, Step::PublishSecret { .. }),
    ];
    for moment in moments {
        let pid = server.value("postgres", "SELECT pg_read_file('postmaster.pid')").await;
        let postmaster = Pid::from_raw(pid.lines().next().unwrap().parse().unwrap()).unwrap();
        let provisioner = server.provisioner().await.on_event(move |event| {
            if matches!(event, Event::Begun(step) if moment(step)) {
                end(postmaster);
            }
        });
        let begun = Instant::now();
        let error = provisioner.create(&spec()).await.unwrap_err();
        assert!(matches!(error, Error::Unavailable(_)) && error.is_retryable(), "{error:?}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{error}");
        server.environment().deploy().await.unwrap();
        rounds.assert_create_converges(&error.to_string()).await;
        rounds.drop().await.unwrap();
    }
    println!("server gone: {} moments", moments.len());
}

/// Ends a server at once, sessions and all.
fn end(postmaster: Pid) {
    kill_process(postmaster, Signal::QUIT).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while test_kill_process(postmaster).is_ok() {
        assert!(Instant::now() < deadline, "the server does not end");
        std::thread::yield_now();
    }
}
