//! `shareddb deploy` from end to end: its objects start a real server, as a kubelet and the image's entrypoint would, and
//! every command works on that.

use std::path::{Path, PathBuf};
use std::process::Command;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use shareddb_core::ConnectionConfig;
use shareddb_tests::command::{Output, run, shareddb_command};
use shareddb_tests::majors::MAJORS;
use shareddb_tests::mount::mounted;
use shareddb_tests::refusal::{self, CONNECTED};
use shareddb_tests::server::{temporary_home, value};
use shareddb_tests::watch::eventually;
use shareddb_tests::{Entrypoint, LiveCluster};

use crate::isolation::{NO_PASSWORD, REJECTED};

/// A namespace for a server that `shareddb deploy` makes, and somebody who runs the command.
pub(crate) struct Site<'a> {
    pub(crate) live: &'a LiveCluster,
    pub(crate) namespace: String,
    env: &'static str,
    home: PathBuf,
}

impl<'a> Site<'a> {
    pub(crate) async fn new(live: &'a LiveCluster, env: &'static str) -> Self {
        Self::of(live, env, live.cluster().namespace("deployed").await)
    }

    /// In a namespace that exists.
    pub(crate) fn of(live: &'a LiveCluster, env: &'static str, namespace: String) -> Self {
        Self { live, namespace, env, home: temporary_home() }
    }

    pub(crate) async fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.live.cluster().client().await, &self.namespace)
    }

    /// `shareddb WORDS…` in this environment and namespace.
    pub(crate) async fn run(&self, line: &str) -> Output {
        self.run_by(&self.live.cluster().kubeconfig(), line).await
    }

    /// The same for somebody who reaches the cluster by this file.
    pub(crate) async fn run_by(&self, kubeconfig: &Path, line: &str) -> Output {
        let mut command = self.command();
        command.args(line.split_whitespace()).env("KUBECONFIG", kubeconfig);
        tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap()
    }

    /// The same, which succeeds and says this.
    pub(crate) async fn says(&self, line: &str, expected: &str) {
        let output = self.run(line).await.expect_code(0);
        assert_eq!(output.stdout, expected, "{line}\n{}", output.stderr);
    }

    /// The server's own word for what has become of it.
    pub(crate) fn server(&self, outcome: &str) -> String {
        format!("server/{} {outcome}\n", self.env)
    }

    /// How an app logs in that is given its Secret, at the server's port on this machine.
    pub(crate) async fn app(&self, name: &str, server: &Entrypoint) -> ConnectionConfig {
        let data = self.secret(&format!("{name}-db-secret")).await.data.unwrap();
        let data = data.into_iter().map(|(key, value)| (key, String::from_utf8(value.0).unwrap().into())).collect();
        let config = ConnectionConfig::from_directory(mounted(&data).path()).unwrap();
        config.with_hostaddr("127.0.0.1".parse().unwrap()).with_port(server.port())
    }

    pub(crate) async fn secret(&self, name: &str) -> Secret {
        self.api::<Secret>().await.get(name).await.unwrap()
    }

    pub(crate) async fn deployment(&self) -> Deployment {
        self.api::<Deployment>().await.get("postgres").await.unwrap()
    }

    /// The one pod that is not on its way out.
    pub(crate) async fn pod(&self) -> String {
        let pods: Api<Pod> = self.api().await;
        let living = async || {
            let pods = pods.list(&ListParams::default().labels("app=postgres")).await.unwrap().items;
            pods.iter().find(|pod| pod.metadata.deletion_timestamp.is_none()).map(Pod::name_any)
        };
        eventually("there is a pod", async || living().await.is_some()).await;
        living().await.unwrap()
    }

    /// Waits until a pod other than this one is ready.
    pub(crate) async fn replaced(&self, before: &str) {
        let pods: Api<Pod> = self.api().await;
        let is_ready = |pod: &Pod| {
            let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
            conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
        };
        eventually("another pod is ready", async || {
            let pods = pods.list(&ListParams::default().labels("app=postgres")).await.unwrap().items;
            pods.iter().all(|pod| pod.name_any() != before) && pods.iter().any(is_ready)
        })
        .await;
    }

    /// One query of the admin, by way of the tunnel.
    pub(crate) async fn query(&self, sql: &str) -> String {
        self.psql("--admin", sql).await
    }

    /// One statement of an app.
    pub(crate) async fn in_app(&self, app: &str, sql: &str) -> String {
        self.psql(app, sql).await
    }

    async fn psql(&self, who: &str, sql: &str) -> String {
        let mut command = self.command();
        command.args(["psql", who, "--", "-Atc", sql]);
        let output = tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap();
        output.expect_code(0).stdout.trim_end().to_owned()
    }

    fn command(&self) -> Command {
        let mut command = shareddb_command(&self.home);
        command.current_dir(&self.home).env("KUBECONFIG", self.live.cluster().kubeconfig());
        command.args(["-e", self.env, "-n", &self.namespace]);
        command
    }
}

/// A session over the socket as this user of the database, by this machine's account of servers, without a password.
async fn over_the_socket(site: &Site<'_>, user: &str) -> Output {
    let kubeconfig = site.live.cluster().kubeconfig_in(&site.namespace);
    kubectl(
        &kubeconfig,
        &[
            "exec",
            "deployment/postgres",
            "--",
            "psql",
            "-w",
            "-U",
            user,
            "-d",
            "postgres",
            "-Atc",
            "SELECT current_user",
        ],
    )
    .await
}

pub(crate) async fn kubectl(kubeconfig: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(shareddb_tests::cluster::programs().join("kubectl"));
    command.arg("--kubeconfig").arg(kubeconfig).args(args);
    tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn stage_and_production_are_deployed_side_by_side() {
    let live = LiveCluster::shared().await;
    let (stage, production) = tokio::join!(Site::new(live, "stage"), Site::new(live, "production"));
    let _servers =
        tokio::join!(Entrypoint::serve(live, &stage.namespace), Entrypoint::serve(live, &production.namespace));
    let (first, second) = tokio::join!(stage.run("deploy"), production.run("deploy"));
    for (site, output) in [(&stage, first), (&production, second)] {
        assert_eq!(output.expect_code(0).stdout, site.server("created"));
        site.says("deploy", &site.server("unchanged")).await;
        site.says("create web", "app/web created\n").await;
        site.says("create web", "app/web unchanged\n").await;
        site.says("psql web -- -Atc select(current_user)", "web_db\n").await;
        let host = format!("postgres-service.{}.svc.cluster.local\n", site.namespace);
        site.says("env web --key DB_HOST", &host).await;
        assert!(site.run("list").await.expect_code(0).stdout.contains("web"));
        site.run("status web").await.expect_code(0);
    }
    stage.run("drop web --no-backup --confirm web").await.expect_code(0);
    stage.run("psql web -- -c select").await.expect_code(4);
    production.says("psql web -- -Atc select(1)", "1\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_in_without_a_password_and_no_app_into_another() {
    let site = Site::new(LiveCluster::shared().await, "stage").await;
    let server = Entrypoint::serve(site.live, &site.namespace).await;
    site.run("deploy").await.expect_code(0);
    for app in ["one", "two"] {
        site.run(&format!("create {app}")).await.expect_code(0);
    }
    let app = site.app("one", &server).await;
    assert_eq!(refusal::login(&app).await, CONNECTED);
    for database in ["two_db", "postgres", "template1", "nothing"] {
        assert_eq!(refusal::login(&app.clone().with_database(database)).await, REJECTED, "{database}");
    }
    // From loopback, where the image trusts everybody unless it is told otherwise.
    for user in ["postgres", "one_user"] {
        let stranger = app.clone().with_user(user).with_password("guessed".into());
        let stranger = if user == "postgres" { stranger.with_database("postgres") } else { stranger };
        assert_eq!(refusal::login(&stranger).await, NO_PASSWORD, "{user}");
        let bare = ConnectionConfig::new("127.0.0.1", server.port(), stranger.database(), user);
        assert_ne!(refusal::login(&bare).await, CONNECTED, "{user}");
    }
    assert_eq!(site.query("SELECT count(*) FROM pg_hba_file_rules WHERE auth_method = 'trust'").await, "0");
    assert_eq!(site.query("SELECT count(*) FROM pg_hba_file_rules WHERE error IS NOT NULL").await, "0");
    // Those two were told otherwise by whoever started the server here.
    let faults =
        "SELECT count(*) FROM pg_file_settings WHERE error IS NOT NULL AND name NOT IN ('port', 'listen_addresses')";
    assert_eq!(site.query(faults).await, "0");
    assert_eq!(site.query("SHOW data_checksums").await, "on");
    // In the pod, the account of the server is the admin, and nobody else.
    assert_eq!(over_the_socket(&site, "postgres").await.expect_code(0).stdout, "postgres\n");
    assert_ne!(over_the_socket(&site, "one_user").await.code, Some(0));
    let status = site.run("status -o json").await.expect_code(0).stdout;
    let status: Value = serde_json::from_str(&status).unwrap();
    let walls = status
        .pointer("/data/server/walls")
        .or_else(|| status.pointer("/server/walls"))
        .unwrap_or_else(|| panic!("{status}"));
    for wall in walls.as_array().unwrap() {
        assert_eq!(wall["state"], "stands", "{wall}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_major_starts_with_an_empty_volume_and_again_with_its_own() {
    let live = LiveCluster::shared().await;
    for major in MAJORS {
        let site = Site::new(live, "stage").await;
        let server = Entrypoint::serve(live, &site.namespace).await;
        let deploy = format!("deploy --image postgres:{major}-alpine");
        let output = site.run(&deploy).await;
        assert_eq!(output.code, Some(0), "{major}: {}\n{}", output.stderr, server.log());
        site.run("create web").await.expect_code(0);
        let before = site.pod().await;
        site.api::<Pod>().await.delete(&before, &DeleteParams::default()).await.unwrap();
        site.replaced(&before).await;
        site.says("deploy", &site.server("unchanged")).await;
        assert_eq!(site.query("SHOW server_version_num").await[..2], major.to_string());
        assert_eq!(
            value(&site.app("web", &server).await.connect().await.unwrap(), "SELECT current_user").await,
            "web_db"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_data_outlive_pods_and_the_deployment() {
    let site = Site::new(LiveCluster::shared().await, "stage").await;
    let server = Entrypoint::serve(site.live, &site.namespace).await;
    site.run("deploy").await.expect_code(0);
    site.run("create web").await.expect_code(0);
    let app = site.app("web", &server).await;
    let session = app.connect().await.unwrap();
    session.batch_execute("CREATE TABLE kept AS SELECT 42 AS x").await.unwrap();
    let before = site.pod().await;
    site.api::<Pod>().await.delete(&before, &DeleteParams::default()).await.unwrap();
    eventually("the session ends with its pod", async || session.is_closed()).await;
    site.replaced(&before).await;
    assert_eq!(site.in_app("web", "TABLE kept").await, "42");

    site.api::<Deployment>().await.delete("postgres", &DeleteParams::background()).await.unwrap();
    site.says("deploy", &site.server("created")).await;
    assert_eq!(site.in_app("web", "TABLE kept").await, "42");

    // A password that is not the data's.
    let wrong = Patch::Merge(json!({ "stringData": { "password": "not it" } }));
    let secrets: Api<Secret> = site.api().await;
    let right = site.secret("postgres-admin").await.data.unwrap()["password"].clone();
    secrets.patch("postgres-admin", &PatchParams::default(), &wrong).await.unwrap();
    let refused = site.run("deploy").await.expect_code(1);
    assert!(refused.stderr.contains("the password in secret/postgres-admin is not its admin's"), "{}", refused.stderr);
    assert!(refused.stderr.contains(" exec -it deployment/postgres -- psql"), "{}", refused.stderr);
    secrets
        .patch("postgres-admin", &PatchParams::default(), &Patch::Merge(json!({ "data": { "password": right } })))
        .await
        .unwrap();
    site.says("deploy", &site.server("unchanged")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_enforces_the_restricted_standard_admits_the_pod() {
    let site = Site::new(LiveCluster::shared().await, "stage").await;
    let namespaces: Api<Namespace> = Api::all(site.live.cluster().client().await);
    let labels =
        json!({ "pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted" });
    let patch = Patch::Merge(json!({ "metadata": { "labels": labels } }));
    namespaces.patch(&site.namespace, &PatchParams::default(), &patch).await.unwrap();
    // It does refuse a pod that asks for more.
    let careless =
        json!({ "metadata": { "name": "careless" }, "spec": { "containers": [{ "name": "any", "image": "any" }] } });
    let refused =
        site.api::<Pod>().await.create(&PostParams::default(), &serde_json::from_value(careless).unwrap()).await;
    assert!(refused.unwrap_err().to_string().contains("violates PodSecurity"));
    let _server = Entrypoint::serve(site.live, &site.namespace).await;
    site.says("deploy --tls=on", &site.server("created")).await;
    site.says("create web", "app/web created\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_comes_back_and_everything_goes_on() {
    let live = LiveCluster::start().await;
    let site = Site::new(&live, "stage").await;
    let server = Entrypoint::serve(&live, &site.namespace).await;
    site.run("deploy").await.expect_code(0);
    site.run("create web").await.expect_code(0);
    let session = site.app("web", &server).await.connect().await.unwrap();
    live.cluster().stop();
    let away = site.run("deploy --timeout 20s").await.expect_code(6);
    assert!(away.stderr.contains("error: "), "{}", away.stderr);
    assert_eq!(value(&session, "SELECT 1").await, "1", "apps do not notice");
    live.cluster().restart().await;
    site.says("deploy", &site.server("unchanged")).await;
    site.says("create web", "app/web unchanged\n").await;
}
