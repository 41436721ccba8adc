//! Twenty changes of password under load, in each way that a program has its Secret: nobody is refused.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use secrecy::ExposeSecret as _;
use serde_json::Value;
use shareddb_core::{
    App, AppSpec, ConnectionConfig, CredentialSource, KubernetesStore, Pool, PoolOptions, Provisioner, RotateOptions,
    SecretData, SecretStore as _,
};
use shareddb_tests::access::rule;
use shareddb_tests::callers::Tally;
use shareddb_tests::drivers::python_drivers;
use shareddb_tests::mount::Mount;
use shareddb_tests::server::unique;
use shareddb_tests::watch::eventually;
use shareddb_tests::{Callers, Cluster, TestServer};

use crate::kubernetes_store::store;

const ROTATIONS: usize = 20;
const GRACE: Duration = Duration::from_secs(5);
/// What kubelet takes to bring a new Secret into a mount, and an operator to restart what has the old one in its variables.
const LAG: Duration = Duration::from_secs(2);

/// What each client does beside its queries: the machine is not this test's alone.
const REST: Duration = Duration::from_millis(10);

/// Logins go on all the time: a rotation meets some at each of its moments.
fn options() -> PoolOptions {
    PoolOptions { life: Duration::from_millis(500), ..PoolOptions::default() }
}

/// The app's Secret, and whoever has it.
struct Site {
    store: Arc<KubernetesStore>,
    app: App,
    mount: Mount,
    by_mount: (Pool, Callers),
    by_variables: (Pool, Callers),
    by_watch: (Pool, Callers),
    python: Python,
}

impl Site {
    async fn of(app: App, store: Arc<KubernetesStore>, watched: CredentialSource) -> Self {
        let data = store.load(&app.secret).await.unwrap().unwrap().data;
        let mount = Mount::of_secret(&data);
        let at_work = |source: CredentialSource, callers| {
            let pool = Pool::with_options(source, options()).unwrap();
            let callers = Callers::resting(&pool, callers, REST);
            (pool, callers)
        };
        Self {
            by_mount: at_work(ConnectionConfig::from_directory(mount.path()).unwrap().into(), 17),
            by_variables: at_work(variables(&data).into(), 17),
            by_watch: at_work(watched, 16),
            python: Python::begin(mount.path(), app.name.as_str()),
            store,
            app,
            mount,
        }
    }

    /// Brings a new Secret to those who do not watch it, after a while. Nobody who had the old one is missed.
    async fn deliver(&mut self, totals: &mut Totals) {
        tokio::time::sleep(LAG).await;
        let data = self.store.load(&self.app.secret).await.unwrap().unwrap().data;
        self.mount.replace(&data);
        // As a new version rolls out: the new program serves before the old one ends.
        let pool = Pool::with_options(variables(&data), options()).unwrap();
        let callers = Callers::resting(&pool, 17, REST);
        callers.go_on().await;
        let (pool, callers) = std::mem::replace(&mut self.by_variables, (pool, callers));
        totals.add("variables", callers.end().await);
        pool.close(Duration::from_secs(1)).await.unwrap();
    }

    fn take(&mut self) -> [(&'static str, Tally); 4] {
        [
            ("mount", self.by_mount.1.take()),
            ("variables", self.by_variables.1.take()),
            ("watch", self.by_watch.1.take()),
            ("psycopg_pool", self.python.take()),
        ]
    }

    async fn go_on(&mut self) {
        for callers in [&self.by_mount.1, &self.by_variables.1, &self.by_watch.1] {
            callers.go_on().await;
        }
        self.python.go_on().await;
    }

    /// Returns once nobody is told any more of what has happened to the server.
    async fn recover(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            self.go_on().await;
            let tallies = self.take();
            if tallies.iter().all(|(_, tally)| tally.failures.is_empty()) {
                return;
            }
            assert!(Instant::now() < deadline, "{tallies:?}");
        }
    }
}

/// What all callers were told.
#[derive(Default)]
struct Totals(BTreeMap<&'static str, Tally>);

impl Totals {
    #[track_caller]
    fn add(&mut self, way: &'static str, tally: Tally) {
        assert!(tally.failures.is_empty(), "{way}: {tally:?}");
        self.0.entry(way).or_default().add(tally);
    }
}

/// A program whose variables are the keys of the Secret.
fn variables(data: &SecretData) -> ConnectionConfig {
    ConnectionConfig::from_vars(|name| Some(data.get(name)?.expose_secret().to_owned())).unwrap()
}

/// A program that has no more of us than the service file in its Secret. Each line that it gets asks what its callers have
/// been told since the line before.
const SCRIPT: &str = r"
import json, sys, threading, time
import psycopg_pool

lock, told = threading.Lock(), {'served': 0, 'failures': {}, 'longest': 0.0}

def call(pool):
    while True:
        started, stage, failure = time.monotonic(), 'checkout', None
        took = 0.0
        try:
            with pool.connection() as connection:
                took, stage = time.monotonic() - started, 'query'
                connection.execute('SELECT 1').fetchone()
        except Exception as error:
            failure = f'{stage}: {type(error).__name__}: {error}'
        time.sleep(0.01)
        with lock:
            told['longest'] = max(told['longest'], took)
            if failure:
                told['failures'][failure] = told['failures'].get(failure, 0) + 1
            else:
                told['served'] += 1

with psycopg_pool.ConnectionPool(
    f'service={sys.argv[1]}', min_size=2, max_size=4, max_lifetime=1.0, timeout=10, kwargs={'autocommit': True},
    check=psycopg_pool.ConnectionPool.check_connection,
) as pool:
    for _ in range(8):
        threading.Thread(target=call, args=(pool,), daemon=True).start()
    for line in sys.stdin:
        with lock:
            print(json.dumps(told), flush=True)
            told.update(served=0, failures={}, longest=0.0)
";

struct Python {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    told: Tally,
}

impl Python {
    fn begin(mount: &Path, app: &str) -> Self {
        let mut command = Command::new("python3");
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
            command.env_remove(name);
        }
        command.args(["-c", SCRIPT, app]).env("PYTHONPATH", python_drivers()).env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("PGSERVICEFILE", mount.join("pg_service.conf"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (questions, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, questions, answers, told: Tally::default() }
    }

    fn take(&mut self) -> Tally {
        self.ask();
        std::mem::take(&mut self.told)
    }

    /// Returns once so many more calls have succeeded that each thread has had its turn.
    async fn go_on(&mut self) {
        let (enough, deadline) = (self.told.served + 32, Instant::now() + Duration::from_secs(60));
        while self.told.served <= enough {
            assert!(Instant::now() < deadline, "psycopg_pool serves nobody: {:?}", self.told.failures);
            tokio::time::sleep(Duration::from_millis(10)).await;
            self.ask();
        }
    }

    fn ask(&mut self) {
        writeln!(self.questions).unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let told: Value = serde_json::from_str(&line).unwrap();
        let failures = told["failures"].as_object().unwrap().iter();
        let number = |value: &Value| usize::try_from(value.as_u64().unwrap()).unwrap();
        self.told.add(Tally {
            served: number(&told["served"]),
            failures: failures.map(|(what, count)| (what.clone(), number(count))).collect(),
            longest_checkout: Duration::from_secs_f64(told["longest"].as_f64().unwrap()),
            last_error: None,
        });
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_changes_of_password_fail_nobody() {
    let started = Instant::now();
    let (server, cluster) = (TestServer::start().await, Cluster::shared().await);
    let namespace = cluster.namespace("rotation").await;
    let store = Arc::new(store(&cluster.kubeconfig(), &namespace).await);
    let provisioner = Provisioner::new(server.server_with(server.admin(), store.clone()));
    let mut spec = AppSpec::new(unique("load"));
    spec.connections = Some(60);
    let app = provisioner.create(&spec).await.unwrap().app;
    let account = cluster.restricted(&namespace, &[rule(&["secrets"], &["get", "watch"])]).await;
    let pod = shareddb_core::Cluster::infer().with_kubeconfig(account);
    let pod = pod.namespace(&namespace.parse().unwrap()).await.unwrap();
    let watched = CredentialSource::from_secret(&pod, &app.secret).await.unwrap();
    let mut site = Site::of(app, store, watched).await;
    let mut totals = Totals::default();
    site.go_on().await;

    let mut options = RotateOptions::default();
    options.grace = GRACE;
    for round in 1..=ROTATIONS {
        provisioner.rotate(&spec.name, &options).await.unwrap();
        let over = tokio::time::Instant::now() + GRACE;
        site.deliver(&mut totals).await;
        for (pool, _) in [&site.by_mount, &site.by_watch] {
            eventually("all connections are new", async || {
                let snapshot = pool.snapshot();
                snapshot.generation == round as u64 && snapshot.of_older_credentials == 0
            })
            .await;
        }
        site.go_on().await;
        for (way, tally) in site.take() {
            totals.add(way, tally);
        }
        if round == ROTATIONS / 2 {
            server.local().stop().await.unwrap();
            server.environment().deploy().await.unwrap();
            site.recover().await;
        }
        // Until then a rotation is refused, for the sake of whoever still has the old password.
        tokio::time::sleep_until(over).await;
        let over = async || match provisioner.plan_rotate(&spec.name, &options).await {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.code(), "login_in_use", "{error:?}");
                false
            }
        };
        eventually("the old password has come to its end", over).await;
    }
    for (way, tally) in site.take() {
        totals.add(way, tally);
    }
    for (way, Tally { served, longest_checkout, .. }) in &totals.0 {
        println!("{way}: {served} calls, the longest checkout took {longest_checkout:?}");
        assert!(*served > 100 * ROTATIONS, "{way}: {served} calls");
    }
    println!("{ROTATIONS} rotations took {:?}", started.elapsed());
    // No call has failed, and no login either.
    let refused = format!("password authentication failed for user \"{}", spec.name);
    assert!(!server.log_since(0).contains(&refused), "{}", server.log_since(0));
}
