//! The way to the server from outside the cluster, through the Kubernetes API.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use shareddb_core::{ConnectionConfig, Namespace, Session, Tunnel};
use shareddb_tests::command::{Output, run, shareddb_command};
use shareddb_tests::server::{password, temporary_home, unique, value};
use shareddb_tests::watch::eventually;
use shareddb_tests::{Cluster, LiveCluster, Picture, TestServer, WebProxy};
use tokio::net::TcpStream;

const SERVICE: &str = "postgres-service";

/// A namespace with the guide's Deployment and Service, and a real server behind them.
pub(crate) struct Site<'a> {
    live: &'a LiveCluster,
    server: &'static TestServer,
    pub(crate) namespace: String,
    pub(crate) home: PathBuf,
}

impl<'a> Site<'a> {
    pub(crate) async fn new(live: &'a LiveCluster) -> Self {
        let site = Self::without_service(live).await;
        let service = json!({"metadata": {"name": SERVICE}, "spec": {
            "selector": {"app": "postgres"}, "ports": [{"port": 5432, "targetPort": "sql"}],
        }});
        let service: Service = serde_json::from_value(service).unwrap();
        site.api().await.create(&PostParams::default(), &service).await.unwrap();
        site
    }

    async fn without_service(live: &'a LiveCluster) -> Self {
        let (server, namespace) = (TestServer::shared().await, live.cluster().namespace("tunnel").await);
        let site = Self { live, server, namespace, home: temporary_home() };
        let admin = server.admin();
        live.forward(&site.namespace, 5432, admin.port()).await;
        let secret: Secret = serde_json::from_value(json!({
            "metadata": {"name": "postgres-admin"},
            "stringData": {"username": admin.user(), "password": password(&admin)},
        }))
        .unwrap();
        site.api().await.create(&PostParams::default(), &secret).await.unwrap();
        let labels = json!({"app": "postgres"});
        let container = json!({"name": "postgres", "image": "postgres:15-alpine", "ports": [{"name": "sql", "containerPort": 5432}]});
        let deployment: Deployment = serde_json::from_value(json!({
            "metadata": {"name": "postgres"},
            "spec": {
                "replicas": 1, "strategy": {"type": "Recreate"}, "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            },
        }))
        .unwrap();
        site.api().await.create(&PostParams::default(), &deployment).await.unwrap();
        site.pod().await;
        site
    }

    async fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.live.cluster().client().await, &self.namespace)
    }

    /// The name of the one pod, once it is ready.
    async fn pod(&self) -> String {
        let pods: Api<Pod> = self.api().await;
        let found = async || {
            let pods = pods.list(&ListParams::default()).await.unwrap().items;
            let is_ready = |pod: &Pod| {
                let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
                conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
            };
            pods.iter().find(|pod| is_ready(pod) && pod.metadata.deletion_timestamp.is_none()).map(Pod::name_any)
        };
        eventually("a pod is ready", async || found().await.is_some()).await;
        found().await.unwrap()
    }

    async fn scale(&self, replicas: u32) {
        let deployments: Api<Deployment> = self.api().await;
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        deployments.patch("postgres", &PatchParams::default(), &patch).await.unwrap();
    }

    fn command(&self, line: &str, kubeconfig: &Path) -> Command {
        let mut command = shareddb_command(&self.home);
        command.current_dir(&self.home).env("KUBECONFIG", kubeconfig);
        command.args(["-e", "production", "-n", &self.namespace]).args(line.split_whitespace());
        command
    }

    async fn run(&self, line: &str) -> Output {
        self.run_as(line, &self.live.cluster().kubeconfig()).await
    }

    async fn run_as(&self, line: &str, kubeconfig: &Path) -> Output {
        let mut command = self.command(line, kubeconfig);
        tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap()
    }

    async fn reach(&self) -> Namespace {
        reach(self.live.cluster(), &self.namespace).await
    }

    async fn tunnel(&self) -> Tunnel {
        Tunnel::open(&self.reach().await, SERVICE, 5432).await.unwrap()
    }

    /// The admin's login by way of a tunnel.
    fn admin(&self, tunnel: &Tunnel) -> ConnectionConfig {
        let (admin, address) = (self.server.admin(), tunnel.address());
        admin.with_hostaddr(address.ip()).with_port(address.port()).with_connect_timeout(Duration::from_secs(20))
    }
}

async fn reach(cluster: &Cluster, namespace: &str) -> Namespace {
    let cluster = shareddb_core::Cluster::infer().with_kubeconfig(cluster.kubeconfig());
    cluster.namespace(&namespace.parse().unwrap()).await.unwrap()
}

async fn works(session: &Session) -> bool {
    session.query_one("SELECT 1", &[]).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_reach_the_server_through_the_api() {
    let site = Site::new(LiveCluster::shared().await).await;
    let app = unique("far");
    let made = site.run(&format!("create {app}")).await.expect_code(0);
    assert_eq!(made.stdout, format!("app/{app} created\n"));
    let host = format!("postgres-service.{}.svc.cluster.local", site.namespace);
    let place = format!("namespace {} · {host}:5432 by way of a tunnel\n", site.namespace);
    assert!(
        made.stderr.starts_with("env production · context admin · ") && made.stderr.contains(&place),
        "{}",
        made.stderr
    );
    let again = site.run(&format!("create {app} --tunnel")).await.expect_code(0);
    assert_eq!(again.stdout, format!("app/{app} unchanged\n"));
    let user = site.run(&format!("psql {app} -- -Atc select(session_user)")).await.expect_code(0);
    assert_eq!(user.stdout, format!("{}_user\n", app.as_str().replace('-', "_")));
    let admin = site.run("psql --admin --tunnel -- -Atc select(current_user)").await.expect_code(0);
    assert_eq!(admin.stdout, format!("{}\n", site.server.admin().user()));
    assert!(site.run("list --tunnel").await.expect_code(0).stdout.contains(app.as_str()));
    site.run(&format!("status {app}")).await.expect_code(0);
    // What is kept says where the server is in the cluster.
    for line in [format!("env {app} --key DB_HOST"), "env --admin --key PGHOST".to_owned()] {
        assert_eq!(site.run(&line).await.expect_code(0).stdout, format!("{host}\n"), "{line}");
    }
    let settings = site.run("env --admin --tunnel").await.expect_code(0).stdout;
    assert!(settings.contains("5432") && !settings.contains("127.0.0.1"), "{settings}");
    site.run(&format!("drop {app} --no-backup --confirm {app}")).await.expect_code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_means_nothing_where_there_is_no_service() {
    let home = temporary_home();
    fs::write(
        home.join("config.toml"),
        "[env.shop]\nadmin_url = 'postgresql://a@db.example/postgres'\nnamespace = 'shop'\n",
    )
    .unwrap();
    for env in ["local", "shop"] {
        let refused =
            run(shareddb_command(&home).current_dir(&home).args(["list", "--tunnel", "-e", env])).expect_code(2);
        assert!(refused.stderr.contains("a tunnel means nothing"), "{}", refused.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_run_side_by_side_and_end_with_the_tunnel() {
    let site = Site::new(LiveCluster::shared().await).await;
    let tunnel = site.tunnel().await;
    let config = site.admin(&tunnel);
    let sessions = futures_util::future::join_all((0..4).map(|_| config.connect())).await;
    let sessions: Vec<Session> = sessions.into_iter().map(Result::unwrap).collect();
    let big = "SELECT repeat('0123456789abcdef', 500000)";
    let answers = futures_util::future::join_all(sessions.iter().map(|session| session.query_one(big, &[]))).await;
    for answer in answers {
        assert_eq!(answer.unwrap().get::<_, &str>(0).len(), 8_000_000);
    }
    let address = tunnel.address();
    assert!(tunnel.take_trouble().is_none());
    drop(tunnel);
    for session in &sessions {
        eventually("the session has ended", async || session.is_closed()).await;
    }
    eventually("nobody listens", async || TcpStream::connect(address).await.is_err()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_by_itself_leaves_nothing() {
    let site = Site::new(LiveCluster::shared().await).await;
    let tunnel = site.tunnel().await;
    let name = unique("gone").to_string();
    let config = site.admin(&tunnel).with_application_name(&name);
    let count = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}'");
    let session = config.connect().await.unwrap();
    assert_eq!(site.server.value("postgres", &count).await, "1");
    drop(session);
    eventually("the server knows that it has ended", async || site.server.value("postgres", &count).await == "0").await;
    // The server's last words arrive, and are no trouble of the way.
    let refused = config.with_password("wrong".into()).connect().await.unwrap_err();
    assert_eq!(refused.code(), "password_rejected", "{refused}");
    assert!(tunnel.take_trouble().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_replaced() {
    let site = Site::new(LiveCluster::shared().await).await;
    let tunnel = site.tunnel().await;
    let config = site.admin(&tunnel);
    let before = config.connect().await.unwrap();
    assert!(works(&before).await);
    let (pods, old) = (site.api::<Pod>().await, site.pod().await);
    pods.delete(&old, &DeleteParams::default()).await.unwrap();
    // At once: it waits for the pod that comes.
    let after = config.connect().await.unwrap();
    assert!(works(&after).await);
    assert_ne!(site.pod().await, old);
    let (again, trouble) = (config.connect().await.unwrap(), tunnel.take_trouble());
    assert!(works(&again).await && trouble.is_none(), "{trouble:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_way_is_told() {
    let bare = Site::without_service(LiveCluster::shared().await).await;
    let missing = bare.run("list").await.expect_code(4);
    assert!(missing.stderr.contains("there is no service/postgres-service in namespace"), "{}", missing.stderr);
    assert!(missing.stderr.contains("shareddb deploy -e production"), "{}", missing.stderr);

    let site = Site::new(LiveCluster::shared().await).await;
    let tunnel = site.tunnel().await;
    site.live.show(&site.namespace, &Picture::ImagePullBackOff).await;
    let pending = async || site.run("list").await.stderr;
    eventually("the picture is told", async || pending().await.contains("(ImagePullBackOff)")).await;
    let pulling = site.run("list").await.expect_code(6);
    assert!(pulling.stderr.contains("kubectl --context admin describe pods"), "{}", pulling.stderr);
    // An open tunnel waits, and then it knows as much.
    let begun = Instant::now();
    let late = site.admin(&tunnel).connect().await.unwrap_err();
    assert!(late.is_retryable() && begun.elapsed() < Duration::from_secs(19), "{late} after {:?}", begun.elapsed());
    let trouble = tunnel.take_trouble().unwrap();
    assert_eq!(trouble.code(), "pod_not_ready", "{trouble}");
    assert!(trouble.to_string().contains("(ImagePullBackOff)"), "{trouble}");
    site.live.recover(&site.namespace).await;
    site.pod().await;
    assert!(works(&site.admin(&tunnel).connect().await.unwrap()).await);

    site.scale(0).await;
    let pods = site.api::<Pod>().await;
    eventually("the pod has gone", async || pods.list(&ListParams::default()).await.unwrap().items.is_empty()).await;
    let none = site.run("list").await.expect_code(6);
    assert!(none.stderr.contains("there is no pod with the labels app=postgres"), "{}", none.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_behind_its_pod() {
    let site = Site::new(LiveCluster::shared().await).await;
    let tunnel = site.tunnel().await;
    // Nobody listens there.
    site.live.forward(&site.namespace, 5432, 1).await;
    let refused = site.run("list").await.expect_code(6);
    assert!(refused.stderr.contains("because: the tunnel to port 5432 of pod/postgres-"), "{}", refused.stderr);
    assert!(refused.stderr.contains("connection refused"), "{}", refused.stderr);
    site.admin(&tunnel).connect().await.unwrap_err();
    let trouble = tunnel.take_trouble().unwrap();
    assert_eq!(trouble.code(), "tunnel_cut");
    // Found out by the login before psql's own.
    let psql = site.run("psql --admin -- -c select").await.expect_code(6);
    assert!(psql.stderr.contains("because: the tunnel to port"), "{}", psql.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_ends_and_comes_back() {
    let live = LiveCluster::start().await;
    let site = Site::new(&live).await;
    let tunnel = site.tunnel().await;
    let config = site.admin(&tunnel);
    let session = config.connect().await.unwrap();
    live.cluster().stop();
    eventually("the session has ended", async || session.is_closed()).await;
    let trouble = tunnel.take_trouble().unwrap();
    assert_eq!(trouble.code(), "tunnel_cut", "{trouble}");
    let away = config.connect().await.unwrap_err();
    assert!(away.is_retryable(), "{away}");
    let trouble = tunnel.take_trouble().unwrap();
    assert_eq!(trouble.code(), "api_unreachable", "{trouble}");
    live.cluster().restart().await;
    assert!(works(&config.connect().await.unwrap()).await);
    assert_eq!(value(&config.connect().await.unwrap(), "SELECT 1").await, "1");
}

/// The rules that are documented for apps, from outside the cluster.
fn documented() -> Vec<PolicyRule> {
    let roles = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/roles.yaml")).unwrap();
    let roles = roles.split("\n---\n").map(|text| serde_saphyr::from_str::<Role>(text).unwrap());
    let is_ours = |role: &Role| matches!(role.metadata.name.as_deref(), Some("shareddb-secrets" | "shareddb-tunnel"));
    roles.filter(is_ours).flat_map(|role| role.rules.unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_role_is_enough_and_no_rule_is_too_much() {
    let site = Site::new(LiveCluster::shared().await).await;
    let (cluster, app) = (site.live.cluster(), unique("few"));
    let enough = cluster.restricted(&site.namespace, &documented()).await;
    site.run_as(&format!("create {app}"), &enough).await.expect_code(0);
    for (index, rule) in documented().iter().enumerate() {
        let resource = rule.resources.as_ref().unwrap()[0].as_str();
        for verb in rule.verbs.iter().filter(|verb| resource != "secrets" || *verb == "get") {
            let mut rules = documented();
            rules[index].verbs.retain(|other| other != verb);
            rules.retain(|rule| !rule.verbs.is_empty());
            let fewer = cluster.restricted(&site.namespace, &rules).await;
            let refused = site.run_as("list", &fewer).await;
            assert_eq!(refused.code, Some(1), "{resource} {verb}: {}", refused.stderr);
            let rule = format!(r#"{{"apiGroups":[""],"resources":["{resource}"],"verbs":["{verb}"]}} is missing"#);
            assert!(refused.stderr.contains(&rule), "{resource} {verb}: {}", refused.stderr);
            assert!(refused.stderr.contains(r#""kind":"Role""#), "{}", refused.stderr);
        }
    }
    site.run(&format!("drop {app} --no-backup --confirm {app}")).await.expect_code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_proxy_carries_it_too() {
    let site = Site::new(LiveCluster::shared().await).await;
    let proxy = WebProxy::start(None).await;
    let mut command = site.command("list", &site.live.cluster().kubeconfig());
    // Another name of the same place, so that it is no exception.
    command
        .env("HTTPS_PROXY", format!("http://localhost:{}", proxy.port()))
        .env_remove("NO_PROXY")
        .env_remove("no_proxy");
    tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap().expect_code(0);
    assert!(proxy.take_requests().iter().all(|line| line.starts_with("CONNECT 127.0.0.1:")));
}
