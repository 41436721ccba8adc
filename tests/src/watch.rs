//! What holds at every moment, whatever was interrupted, and ways to wait.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use shareddb_core::{App, AppSpec, ConnectionConfig, Event, Outcome, Provisioner, SecretStore, SecretVersion};

use crate::TestServer;
use crate::mount::mounted;
use crate::server::value;

/// Longer than anything here takes, crash recovery included.
const PATIENCE: Duration = Duration::from_secs(60);

/// One app under observation.
#[derive(Debug)]
pub struct Watch<'a> {
    server: &'a TestServer,
    app: App,
    store: Arc<dyn SecretStore>,
    /// Where the Secret is already as in a pod.
    folder: Option<PathBuf>,
    /// The state in which the test itself has damaged the Secret.
    pub damaged: Option<SecretVersion>,
}

impl<'a> Watch<'a> {
    /// Over an app that need not exist.
    pub fn over(server: &'a TestServer, app: App) -> Self {
        let folder = server.local().home().secrets_dir().join(app.secret.as_str());
        Self { folder: Some(folder), ..Self::with_store(server, app, Arc::new(server.secrets())) }
    }

    /// Over an app whose Secret is elsewhere than beside the server.
    pub fn with_store(server: &'a TestServer, app: App, store: Arc<dyn SecretStore>) -> Self {
        Self { server, app, store, folder: None, damaged: None }
    }

    /// The app.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Panics unless a Secret that exists works, and the database lets in nobody while PUBLIC has rights on it.
    pub async fn assert_safe(&self, when: &str) {
        self.assert_closed_to_public(when).await;
        if let Some(version) = self.secret().await
            && self.damaged.as_ref() != Some(&version)
            && !self.is_going().await
        {
            self.assert_works(when).await;
        }
    }

    /// Panics if the database accepts connections and PUBLIC has any right on it.
    pub async fn assert_closed_to_public(&self, when: &str) {
        let rights = format!(
            "SELECT count(*) FROM pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba))) a \
             WHERE datname = '{}' AND datallowconn AND a.grantee = 0",
            self.app.database
        );
        assert_eq!(self.server.value("postgres", &rights).await, "0", "{when}: open, and PUBLIC has rights");
    }

    /// Panics unless the Secret, read as an app reads it, logs in and works as the owner.
    pub async fn assert_works(&self, when: &str) {
        let loaded = self.store.load(&self.app.secret).await.expect("the store can be read");
        let pod = mounted(&loaded.unwrap_or_else(|| panic!("{when}: there is no Secret")).data);
        let folder = self.folder.as_deref().unwrap_or(pod.path());
        let config =
            ConnectionConfig::from_directory(folder).unwrap_or_else(|error| panic!("{when}: the Secret: {error}"));
        assert_eq!(config.database(), self.app.database.as_str(), "{when}");
        let session = config.connect().await.unwrap_or_else(|error| panic!("{when}: a Secret exists, and {error}"));
        assert_eq!(value(&session, "SELECT current_user").await, self.app.owner.as_str(), "{when}");
    }

    /// The state of the Secret, if there is one.
    pub async fn secret(&self) -> Option<SecretVersion> {
        self.store.load(&self.app.secret).await.expect("the store can be read").map(|secret| secret.version)
    }

    /// Whether the record says that a drop has begun.
    async fn is_going(&self) -> bool {
        let sql = format!(
            "SELECT count(*) FROM pg_roles WHERE rolname = '{}' \
             AND shobj_description(oid, 'pg_authid') LIKE '%\"progress\":\"dropping\"%'",
            self.app.owner
        );
        self.server.value("postgres", &sql).await == "1"
    }

    /// Waits until sessions of the app that have ended are counted no more: a login in use is not issued anew.
    pub async fn settle(&self) {
        let [one, two] = &self.app.logins;
        let sessions = format!("SELECT count(*) FROM pg_stat_activity WHERE usename IN ('{one}', '{two}')");
        eventually("the app's sessions end", async || self.server.value("postgres", &sessions).await == "0").await;
    }
}

/// Asks again and again, and panics when the answer has not become yes in time.
pub async fn eventually(what: &str, ask: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !ask().await {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until nothing is left to do for an app, and does nothing for it: what waits are sessions that have ended and are
/// still counted.
pub async fn nothing_left(provisioner: &Provisioner, spec: &AppSpec) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let plan = provisioner.plan(spec).await.expect("a plan");
        if plan.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "this is left to do:\n{plan}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The same, where something may be left that only such sessions were in the way of.
pub async fn create_until_unchanged(provisioner: &Provisioner, spec: &AppSpec) {
    let done = async || provisioner.create(spec).await.expect("a report").outcome == Outcome::Unchanged;
    eventually("nothing is left to do", done).await;
}

/// Waits until the server lets the admin in, as after a crash.
pub async fn back(server: &TestServer) {
    let admin = server.admin();
    eventually("the server is back", async || {
        let Ok(session) = admin.connect().await else { return false };
        session.simple_query("SELECT 1").await.is_ok()
    })
    .await;
}

/// A place in a run where it waits until it is told to go on.
#[derive(Debug)]
pub struct Gate {
    arrived: Mutex<Receiver<()>>,
    go_on: Sender<()>,
}

impl Gate {
    /// The gate, and the listener that stops at the first event for which `here` says so. The runtime has to have more
    /// threads than one.
    pub fn at(
        here: impl Fn(Event<'_>) -> bool + Send + Sync + 'static,
    ) -> (Self, impl Fn(Event<'_>) + Send + Sync + 'static) {
        let (arrive, arrived) = channel();
        let (go_on, wait) = channel::<()>();
        let once = Mutex::new(Some((arrive, wait)));
        let listener = move |event: Event<'_>| {
            if !here(event) {
                return;
            }
            let Some((arrive, wait)) = once.lock().expect("no panic before").take() else { return };
            arrive.send(()).expect("somebody waits at the gate");
            tokio::task::block_in_place(|| wait.recv_timeout(PATIENCE)).expect("somebody opens the gate");
        };
        (Self { arrived: Mutex::new(arrived), go_on }, listener)
    }

    /// Waits until the run is there.
    pub fn wait(&self) {
        let arrived = self.arrived.lock().expect("no panic before");
        tokio::task::block_in_place(|| arrived.recv_timeout(PATIENCE)).expect("the run comes to the gate");
    }

    /// Lets the run go on.
    pub fn open(&self) {
        self.go_on.send(()).expect("the run waits");
    }
}
