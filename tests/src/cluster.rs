//! A Kubernetes API server of the suite's own, on an etcd of its own. Nothing in it runs pods.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use hyper::Request;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, PostParams};
use kube::{Client, Config};
use tokio::sync::OnceCell;

use crate::certificates::{Authority, Identity};
use crate::command;
use crate::daemon::Daemon;
use crate::kubeconfig::{self, Credential, Kubeconfig};
use crate::reaper::Reaper;
use crate::server::{temporary_home, unique};
use crate::token::{ISSUER, TokenKey};

/// Much longer than a start takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// How often a start is tried again because another program was quicker to take the port.
const PORTS: usize = 5;

/// Whoever may run in a home, in the order in which they end. Only a [`crate::LiveCluster`] has the first three.
const DAEMONS: [&str; 5] =
    ["kwok.pid", "kube-scheduler.pid", "kube-controller-manager.pid", "kube-apiserver.pid", "etcd.pid"];

/// An API server with RBAC, its home, and whoever ends it.
#[derive(Debug)]
pub struct Cluster {
    home: PathBuf,
    port: u16,
    authority: Authority,
    tokens: TokenKey,
    api_server: Mutex<Daemon>,
    _etcd: Daemon,
    _reaper: Reaper,
}

static SHARED: OnceCell<Cluster> = OnceCell::const_new();

impl Cluster {
    /// The one for tests that disturb nobody: each uses namespaces of its own.
    pub async fn shared() -> &'static Self {
        SHARED.get_or_init(Self::start).await
    }

    /// One for a test that disturbs others.
    pub async fn start() -> Self {
        let home = temporary_home();
        let reaper = Reaper::over(&home, &DAEMONS);
        let (authority, tokens) = (Authority::new("shareddb tests"), TokenKey::new());
        write_keys(&home, &authority, &tokens);
        let etcd = start_etcd(&home);
        let port = free_port();
        let api_server = Mutex::new(start_api_server(&home, port));
        let mut cluster = Self { home, port, authority, tokens, api_server, _etcd: etcd, _reaper: reaper };
        cluster.write_kubeconfig();
        for _ in 0..PORTS {
            match cluster.ready().await {
                Ok(()) => return cluster,
                Err(log) => assert!(log.contains("address already in use"), "kube-apiserver has ended:\n{log}"),
            }
            cluster.move_to(free_port());
        }
        panic!("no port stayed free");
    }

    /// Ends the API server as a power cut would. Its port then refuses connections; what it had confirmed is kept.
    pub fn stop(&self) {
        self.api_server.lock().expect("nobody panics with it").kill();
    }

    /// Brings the API server back where it was, ended before or not, and waits until it is ready.
    pub async fn restart(&self) {
        self.stop();
        *self.api_server.lock().expect("nobody panics with it") = start_api_server(&self.home, self.port);
        if let Err(log) = self.ready().await {
            panic!("kube-apiserver has ended:\n{log}");
        }
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Who vouches for it, as PEM.
    pub fn certificate(&self) -> String {
        self.authority.certificate()
    }

    /// The file of the admin, who may do everything; its one context is `admin`, in namespace `default`.
    pub fn kubeconfig(&self) -> PathBuf {
        self.home.join("admin.kubeconfig")
    }

    /// A file of the admin whose context, `admin`, is in this namespace.
    pub fn kubeconfig_in(&self, namespace: &str) -> PathBuf {
        let admin = self.authority.client("admin", Some("system:masters"));
        self.kubeconfig_of("admin", namespace, Credential::Certificate(admin))
    }

    /// A file with one context, in this namespace.
    pub fn kubeconfig_of(&self, context: &str, namespace: &str, credential: Credential) -> PathBuf {
        let path = self.home.join(format!("{}.kubeconfig", unique("client")));
        let (server, authority) = (self.url(), self.authority.certificate());
        Kubeconfig { context, server: &server, authority: Some(&authority), namespace, credential }.write(&path);
        path
    }

    /// The admin's settings of a connection, without retries.
    pub async fn config(&self) -> Config {
        kubeconfig::config(&self.kubeconfig()).await
    }

    /// A client of the admin. Each belongs to the runtime that it was made on, and so to one test.
    pub async fn client(&self) -> Client {
        Client::try_from(self.config().await).expect("the settings are whole")
    }

    /// A namespace of a name that no other test has.
    pub async fn namespace(&self, stem: &str) -> String {
        let name = unique(stem).to_string();
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.clone());
        let namespaces: Api<Namespace> = Api::all(self.client().await);
        namespaces.create(&PostParams::default(), &namespace).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        name
    }

    /// Everything that the API server has written.
    pub fn log(&self) -> String {
        self.api_server.lock().expect("nobody panics with it").log()
    }

    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    pub(crate) fn tokens(&self) -> &TokenKey {
        &self.tokens
    }

    fn write_kubeconfig(&self) {
        fs::rename(self.kubeconfig_in("default"), self.kubeconfig()).expect("the home is ours");
    }

    fn move_to(&mut self, port: u16) {
        self.stop();
        self.port = port;
        self.write_kubeconfig();
        *self.api_server.get_mut().expect("nobody panics with it") = start_api_server(&self.home, port);
    }

    /// Waits until every start-up hook is done, or gives the log of a server that has ended before.
    async fn ready(&self) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        let client = self.client().await;
        loop {
            let request = Request::get("/readyz").body(Vec::new()).expect("a path");
            let Err(error) = client.request_text(request).await else { return Ok(()) };
            if self.api_server.lock().expect("nobody panics with it").has_ended() {
                return Err(self.log());
            }
            assert!(Instant::now() < deadline, "kube-apiserver is not ready: {error}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// What the programs find in their home: certificates, keys.
fn write_keys(home: &Path, authority: &Authority, tokens: &TokenKey) {
    let write = |name: &str, content: &str| {
        let path = home.join(name);
        fs::write(&path, content).expect("the home is ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
    };
    let write_identity = |name: &str, identity: &Identity| {
        write(&format!("{name}.crt"), &identity.certificate);
        write(&format!("{name}.key"), &identity.key);
    };
    write("authority.crt", &authority.certificate());
    write_identity("server", &authority.server(&["localhost", "kubernetes.default.svc"]));
    write_identity("kubelet-client", &authority.client("kube-apiserver", Some("system:masters")));
    write("tokens.key", &tokens.private());
    write("tokens.pub", &tokens.public());
}

/// It listens on a socket in the home, so that no port can be taken by another.
fn start_etcd(home: &Path) -> Daemon {
    let args = [
        format!("--data-dir={}", home.join("etcd").display()),
        format!("--listen-client-urls={}", etcd_url(home)),
        // Has to be there, and nobody asks for it.
        "--advertise-client-urls=http://127.0.0.1:0".to_owned(),
        "--listen-peer-urls=http://127.0.0.1:0".to_owned(),
        "--unsafe-no-fsync".to_owned(),
        "--log-level=error".to_owned(),
    ];
    Daemon::start(home, &programs().join("etcd"), &args)
}

fn etcd_url(home: &Path) -> String {
    format!("unix://{}", home.join("etcd.sock").display())
}

fn start_api_server(home: &Path, port: u16) -> Daemon {
    let file = |option: &str, name: &str| format!("--{option}={}", home.join(name).display());
    let args = [
        format!("--etcd-servers={}", etcd_url(home)),
        format!("--secure-port={port}"),
        "--bind-address=127.0.0.1".to_owned(),
        // Loopback is refused here, and without a network there is no other: an address that is nobody's.
        "--advertise-address=192.0.2.1".to_owned(),
        file("cert-dir", "certificates"),
        file("client-ca-file", "authority.crt"),
        file("tls-cert-file", "server.crt"),
        file("tls-private-key-file", "server.key"),
        file("kubelet-client-certificate", "kubelet-client.crt"),
        file("kubelet-client-key", "kubelet-client.key"),
        file("service-account-key-file", "tokens.pub"),
        file("service-account-signing-key-file", "tokens.key"),
        format!("--service-account-issuer={ISSUER}"),
        "--service-cluster-ip-range=10.0.0.0/16".to_owned(),
        "--authorization-mode=RBAC".to_owned(),
        // Nobody makes the account `default` in each namespace, which pods would have to wait for.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
    ];
    Daemon::start(home, &programs().join("kube-apiserver"), &args)
}

/// The folder with every program of a cluster, and with what kwok is told to do.
pub fn programs() -> PathBuf {
    let find = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ci/kubernetes.sh");
    let found = command::run(std::process::Command::new(find).arg("find"));
    assert_eq!(found.code, Some(0), "no programs of a cluster: run .ci/kubernetes.sh\n{}", found.stderr);
    PathBuf::from(found.stdout.trim_end())
}

/// A port that nobody listens on, below those that the system hands out by itself: nobody gets it by chance.
pub(crate) fn free_port() -> u16 {
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    // Test runs side by side begin at different places.
    let begin = 20_000 + u16::try_from(std::process::id() % 10_000).expect("a remainder");
    (begin..30_000).chain(20_000..begin).find(is_free).expect("a free port")
}
