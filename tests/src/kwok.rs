//! kwok, which plays the node, and what it takes orders by.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use hyper::Request;
use kube::Client;
use serde_json::{Value, json};

use crate::cluster::{Cluster, free_port, programs};
use crate::daemon::Daemon;
use crate::kubelet::Kubelet;
use crate::picture;

/// Much longer than a start takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// How often kwok is started again because another program was quicker to take its port.
const PORTS: usize = 5;

/// A kind of orders.
pub(crate) struct Kind {
    name: &'static str,
    pub(crate) plural: &'static str,
}

pub(crate) const FORWARD: Kind = Kind { name: "ClusterPortForward", plural: "clusterportforwards" };
pub(crate) const EXEC: Kind = Kind { name: "ClusterExec", plural: "clusterexecs" };
pub(crate) const LOGS: Kind = Kind { name: "ClusterLogs", plural: "clusterlogs" };

/// All that are in use.
pub(crate) const KINDS: [Kind; 3] = [FORWARD, EXEC, LOGS];

impl Kind {
    /// Where its orders are.
    pub(crate) fn collection(&self) -> String {
        format!("/apis/kwok.x-k8s.io/v1alpha1/{}", self.plural)
    }

    /// Orders something for all pods of a namespace. It is in force a little later.
    pub(crate) async fn order(&self, client: &Client, name: &str, namespace: &str, mut spec: Value) {
        spec["selector"] = json!({ "matchNamespaces": [namespace] });
        let order = json!({
            "apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": self.name, "metadata": { "name": name }, "spec": spec,
        });
        apply(client, &self.collection(), &order).await;
    }
}

/// Makes an object of a collection as it shall be, or anew.
pub(crate) async fn apply(client: &Client, collection: &str, object: &Value) {
    let name = object["metadata"]["name"].as_str().expect("it has a name");
    let request = Request::patch(format!("{collection}/{name}?fieldManager=shareddb-tests&force=true"))
        .header("Content-Type", "application/apply-patch+yaml")
        .body(object.to_string().into_bytes())
        .expect("a request");
    client.request_text(request).await.unwrap_or_else(|error| panic!("{collection}/{name}: {error}"));
}

/// kwok, and the port that it listens on.
pub(crate) async fn start(cluster: &Cluster) -> (Daemon, u16) {
    let stages = picture::stages(&programs().join("kustomize/stage"), cluster.home());
    for _ in 0..PORTS {
        let port = free_port();
        let mut kwok = Daemon::start(cluster.home(), &programs().join("kwok"), &arguments(cluster, &stages, port));
        if answers(&mut kwok, &Kubelet::of(cluster, port).await).await {
            return (kwok, port);
        }
        assert!(kwok.log().contains("address already in use"), "kwok has ended:\n{}", kwok.log());
    }
    panic!("no port stayed free");
}

/// Waits until kwok is up, or has ended before.
async fn answers(kwok: &mut Daemon, kubelet: &Kubelet) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !kubelet.is_up().await {
        if kwok.has_ended() {
            return false;
        }
        assert!(Instant::now() < deadline, "kwok does not answer:\n{}", kwok.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    true
}

fn arguments(cluster: &Cluster, stages: &[PathBuf], port: u16) -> Vec<String> {
    let file = |option: &str, name: &str| format!("--{option}={}", cluster.home().join(name).display());
    let kinds: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
    let mut args = vec![
        format!("--kubeconfig={}", cluster.kubeconfig().display()),
        "--manage-all-nodes".to_owned(),
        "--cidr=10.244.0.0/16".to_owned(),
        "--node-ip=127.0.0.1".to_owned(),
        format!("--node-port={port}"),
        format!("--server-address=127.0.0.1:{port}"),
        file("tls-cert-file", "server.crt"),
        file("tls-private-key-file", "server.key"),
        format!("--enable-crds={}", kinds.join(",")),
    ];
    args.extend(stages.iter().map(|stage| format!("--config={}", stage.display())));
    args
}
