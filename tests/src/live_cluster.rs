//! A cluster in which pods run, as far as can be seen through its API: the real controllers and the real scheduler, and
//! kwok in the place of a kubelet. What stands behind a pod is what the test puts there.

use std::fs;
use std::sync::atomic::{AtomicU16, Ordering};

use hyper::Request;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use shareddb_core::ConnectionConfig;
use tokio::sync::OnceCell;

use crate::cluster::{Cluster, programs};
use crate::daemon::Daemon;
use crate::kubelet::Kubelet;
use crate::kwok::{self, KINDS, Kind, apply};
use crate::majors::Account;
use crate::picture::{self, PICTURE, Picture, UNBOUND};
use crate::server::password;
use crate::watch::eventually;

/// The only node.
const NODE: &str = "node";

/// A program that nobody has.
const ABSENT: &str = "shareddb-absent";

/// A [`Cluster`] and what makes its pods run. Everything ends with it.
#[derive(Debug)]
pub struct LiveCluster {
    port: u16,
    _kwok: Daemon,
    _scheduler: Daemon,
    _controllers: Daemon,
    cluster: Cluster,
}

static SHARED: OnceCell<LiveCluster> = OnceCell::const_new();

impl LiveCluster {
    /// The one for tests that disturb nobody: each uses namespaces of its own.
    pub async fn shared() -> &'static Self {
        SHARED.get_or_init(Self::start).await
    }

    /// One for a test that disturbs others: by a cordon, or by an end of the API server.
    pub async fn start() -> Self {
        let cluster = Cluster::start().await;
        let controllers = start_controllers(&cluster);
        let scheduler = start_scheduler(&cluster);
        let client = cluster.client().await;
        define(&client).await;
        let (kwok, port) = kwok::start(&cluster).await;
        let live = Self { port, _kwok: kwok, _scheduler: scheduler, _controllers: controllers, cluster };
        live.add_node(&client).await;
        live
    }

    /// The API server, the namespaces in it, and who may what.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Has every pod of a namespace answer on a port as a port of this machine does. Ordered again, it answers as another.
    pub async fn forward(&self, namespace: &str, port: u16, local: u16) {
        // A port of the order's own, which fails in its own way, tells that it is in force. Nobody else asks for it.
        static ORDER: AtomicU16 = AtomicU16::new(60_000);
        let order = ORDER.fetch_add(1, Ordering::Relaxed);
        let forwards = json!([
            { "ports": [port], "target": { "address": "127.0.0.1", "port": local } },
            { "ports": [order], "command": [ABSENT] },
        ]);
        self.order(kwok::FORWARD, &format!("{namespace}.{port}"), namespace, json!({ "forwards": forwards })).await;
        let kubelet = self.kubelet().await;
        eventually("the port is forwarded", async || {
            kubelet.refusal(namespace, order).await.is_some_and(|refusal| refusal.contains(ABSENT))
        })
        .await;
    }

    /// Has commands in every pod of a namespace run on this machine, with these variables in their environment, as the
    /// account that servers run as. They are found by this process's `PATH`.
    pub async fn exec(&self, namespace: &str, environment: &[(&str, &str)]) {
        let variables: Vec<Value> =
            environment.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        let mut local = json!({ "envs": variables, "workDir": "/" });
        // Whoever finds kwok's port can have it run something.
        if let Account(Some((user, group))) = Account::of_servers() {
            local["securityContext"] = json!({ "runAsUser": user, "runAsGroup": group });
        }
        self.order(kwok::EXEC, namespace, namespace, json!({ "execs": [{ "local": local }] })).await;
        let kubelet = self.kubelet().await;
        eventually("commands run", async || {
            let found = kubelet.environment(namespace).await.unwrap_or_default();
            environment.iter().all(|(name, value)| found.contains(&format!("{name}={value}\n")))
        })
        .await;
    }

    /// Puts a PostgreSQL server behind every pod of a namespace: it answers on port 5432, and commands like `psql` find it,
    /// with the password that this connection has.
    pub async fn postgres(&self, namespace: &str, server: &ConnectionConfig) {
        self.forward(namespace, 5432, server.port()).await;
        let (port, password) = (server.port().to_string(), password(server));
        let environment = [("PGHOST", server.host()), ("PGPORT", port.as_str()), ("PGPASSWORD", password.as_str())];
        self.exec(namespace, &environment).await;
    }

    /// What a container of every pod of a namespace has written in its present run.
    pub async fn logs(&self, namespace: &str, container: &str, lines: &[&str]) {
        self.write_log(namespace, container, "previous=false", lines).await;
    }

    /// What it had written in the run before.
    pub async fn previous_logs(&self, namespace: &str, container: &str, lines: &[&str]) {
        self.write_log(namespace, container, "previous=true", lines).await;
    }

    /// Has every pod of a namespace show something, those that come later too.
    pub async fn show(&self, namespace: &str, picture: &Picture) {
        let order = self.show_new(namespace, Some(picture)).await;
        self.annotate_pods(namespace, order.as_deref()).await;
    }

    /// Has those pods of a namespace that come later show something, or run. Gives the order.
    pub async fn show_new(&self, namespace: &str, picture: Option<&Picture>) -> Option<String> {
        let order = picture.map(|picture| picture.order().to_string());
        self.annotate(namespace, PICTURE, order.as_deref()).await;
        self.settle(namespace, "pods", &small_pod(), PICTURE, order.as_deref()).await;
        order
    }

    /// Has every pod of a namespace run again, those that come later too.
    pub async fn recover(&self, namespace: &str) {
        self.show_new(namespace, None).await;
        self.annotate_pods(namespace, None).await;
    }

    /// Has nobody make volumes for the claims that will be made in a namespace. Pods that use them wait.
    pub async fn leave_unbound(&self, namespace: &str) {
        self.annotate(namespace, UNBOUND, Some("")).await;
        self.settle(namespace, "persistentvolumeclaims", &small_claim(), UNBOUND, Some("")).await;
    }

    /// Lets no new pod on the node: each stays Pending, and the scheduler says why. For a cluster of the test's own.
    pub async fn cordon(&self) {
        let nodes: Api<Node> = Api::all(self.cluster.client().await);
        nodes.cordon(NODE).await.expect("the node is there");
    }

    /// Lets pods on the node again.
    pub async fn uncordon(&self) {
        let nodes: Api<Node> = Api::all(self.cluster.client().await);
        nodes.uncordon(NODE).await.expect("the node is there");
    }

    async fn kubelet(&self) -> Kubelet {
        Kubelet::of(&self.cluster, self.port).await
    }

    async fn order(&self, kind: Kind, name: &str, namespace: &str, spec: Value) {
        kind.order(&self.cluster.client().await, name, namespace, spec).await;
    }

    async fn write_log(&self, namespace: &str, container: &str, run: &str, lines: &[&str]) {
        let folder = self.cluster.home().join("logs").join(namespace).join(container);
        fs::create_dir_all(&folder).expect("the home is ours");
        let [current, previous] = ["previous=false", "previous=true"].map(|run| folder.join(run));
        for file in [&current, &previous] {
            fs::OpenOptions::new().create(true).append(true).open(file).expect("the home is ours");
        }
        // As a container runtime writes it.
        let line = |line: &&str| format!("2026-01-02T03:04:05.000000000Z stdout F {line}\n");
        fs::write(folder.join(run), lines.iter().map(line).collect::<String>()).expect("the home is ours");
        let logs = json!([{ "containers": [container], "logsFile": current, "previousLogsFile": previous }]);
        self.order(kwok::LOGS, &format!("{namespace}.{container}"), namespace, json!({ "logs": logs })).await;
        let expected: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let kubelet = self.kubelet().await;
        eventually("the log can be read", async || {
            kubelet.log(namespace, container, run).await.as_ref() == Some(&expected)
        })
        .await;
    }

    async fn annotate(&self, namespace: &str, annotation: &str, value: Option<&str>) {
        let namespaces: Api<Namespace> = Api::all(self.cluster.client().await);
        namespaces.patch(namespace, &PatchParams::default(), &annotated(annotation, value)).await.expect("it is there");
    }

    async fn annotate_pods(&self, namespace: &str, order: Option<&str>) {
        let pods: Api<Pod> = Api::namespaced(self.cluster.client().await, namespace);
        for pod in pods.list(&ListParams::default()).await.expect("they can be listed") {
            match pods.patch(&pod.name_any(), &PatchParams::default(), &annotated(PICTURE, order)).await {
                // It has gone meanwhile.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                result => drop(result.unwrap_or_else(|error| panic!("{error}"))),
            }
        }
    }

    /// Waits until new objects get the annotation that their namespace has.
    async fn settle(&self, namespace: &str, resource: &str, sample: &Value, annotation: &str, value: Option<&str>) {
        let client = self.cluster.client().await;
        eventually("the order counts for new objects", async || {
            let request = Request::post(format!("/api/v1/namespaces/{namespace}/{resource}?dryRun=All"))
                .header("Content-Type", "application/json")
                .body(sample.to_string().into_bytes())
                .expect("a request");
            let made: Value = client.request(request).await.unwrap_or_else(|error| panic!("{error}"));
            made["metadata"]["annotations"][annotation].as_str() == value
        })
        .await;
    }

    /// The node, big enough for all tests and too small for a pod that wants a terabyte of memory.
    async fn add_node(&self, client: &Client) {
        let size = json!({ "cpu": "256", "memory": "512Gi", "pods": "2000" });
        let node = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": NODE,
                "annotations": { "kwok.x-k8s.io/node": "fake" },
                "labels": { "kubernetes.io/hostname": NODE, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64" },
            },
            "status": { "capacity": size, "allocatable": size },
        });
        let nodes: Api<Node> = Api::all(client.clone());
        let node = serde_json::from_value(node).expect("a node");
        nodes.create(&PostParams::default(), &node).await.unwrap_or_else(|error| panic!("{error}"));
        eventually("the node takes pods", async || {
            let node = nodes.get(NODE).await.expect("it was made");
            let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
            let is_ready = conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
            is_ready && node.spec.and_then(|spec| spec.taints).is_none_or(|taints| taints.is_empty())
        })
        .await;
    }
}

fn annotated(annotation: &str, value: Option<&str>) -> Patch<Value> {
    Patch::Merge(json!({ "metadata": { "annotations": { annotation: value } } }))
}

/// One that is admitted everywhere.
fn small_pod() -> Value {
    let security = json!({
        "allowPrivilegeEscalation": false,
        "capabilities": { "drop": ["ALL"] },
        "runAsNonRoot": true,
        "seccompProfile": { "type": "RuntimeDefault" },
    });
    let container = json!({ "name": "any", "image": "any", "securityContext": security });
    json!({ "metadata": { "generateName": "any-" }, "spec": { "containers": [container] } })
}

fn small_claim() -> Value {
    let spec = json!({ "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Mi" } } });
    json!({ "metadata": { "generateName": "any-" }, "spec": spec })
}

/// What is in every such cluster before there is a node: kinds, policies, a class of volumes.
async fn define(client: &Client) {
    let module = programs().join("kustomize");
    for kind in KINDS {
        let definition = picture::parse(&module.join(format!("crd/bases/kwok.x-k8s.io_{}.yaml", kind.plural)));
        apply(client, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition).await;
    }
    for (collection, policy) in picture::policies() {
        apply(client, collection, &policy).await;
    }
    let class = picture::parse(&module.join("stage/volume/fast/storage-class.yaml"));
    apply(client, "/apis/storage.k8s.io/v1/storageclasses", &class).await;
    for kind in KINDS {
        eventually("kwok's kinds are served", async || {
            let request = Request::get(kind.collection()).body(Vec::new()).expect("a path");
            client.request_text(request).await.is_ok()
        })
        .await;
    }
}

fn start_controllers(cluster: &Cluster) -> Daemon {
    let mut args = as_admin(cluster);
    args.push(format!("--root-ca-file={}", cluster.home().join("authority.crt").display()));
    // A machine that stands still for a while has not lost its node.
    args.push("--node-monitor-grace-period=1h".to_owned());
    Daemon::start(cluster.home(), &programs().join("kube-controller-manager"), &args)
}

fn start_scheduler(cluster: &Cluster) -> Daemon {
    Daemon::start(cluster.home(), &programs().join("kube-scheduler"), &as_admin(cluster))
}

/// The options that both have. Neither listens.
fn as_admin(cluster: &Cluster) -> Vec<String> {
    let kubeconfig = format!("--kubeconfig={}", cluster.kubeconfig().display());
    vec![kubeconfig, "--leader-elect=false".to_owned(), "--secure-port=0".to_owned(), "--kube-api-qps=200".to_owned()]
}
