//! kwok's own server, asked as the API server asks a kubelet. It takes orders by watching, and this tells whether it has
//! taken them. It does not care whether a pod exists.

use hyper::Request;
use kube::Client;
use kube::api::AttachParams;
use kube::core::kubelet_debug::KubeletDebugParams;
use tokio::io::AsyncReadExt as _;

use crate::cluster::Cluster;

/// The server of the only node.
pub(crate) struct Kubelet(Client);

impl Kubelet {
    /// The one that listens on this port.
    pub(crate) async fn of(cluster: &Cluster, port: u16) -> Self {
        let mut config = cluster.config().await;
        config.cluster_url = format!("https://127.0.0.1:{port}").parse().expect("a URL");
        Self(Client::try_from(config).expect("the settings are whole"))
    }

    /// Whether it answers.
    pub(crate) async fn is_up(&self) -> bool {
        self.text("/healthz").await.is_some()
    }

    /// Why it does not forward this port of any pod.
    pub(crate) async fn refusal(&self, namespace: &str, port: u16) -> Option<String> {
        let mut forwarder = self.0.kubelet_node_portforward(&any_pod(namespace), &[port]).await.ok()?;
        forwarder.take_error(port).expect("it was not taken before").await
    }

    /// What the environment of a command in any pod is, if commands are run.
    pub(crate) async fn environment(&self, namespace: &str) -> Option<String> {
        let params = AttachParams::default().stdin(false).stdout(true).stderr(false);
        let mut process = self.0.kubelet_node_exec(&any_pod(namespace), "any", ["env"], &params).await.ok()?;
        let mut environment = String::new();
        process.stdout().expect("it is attached").read_to_string(&mut environment).await.ok()?;
        Some(environment)
    }

    /// What a container of any pod has written, if something is said of it.
    pub(crate) async fn log(&self, namespace: &str, container: &str, run: &str) -> Option<String> {
        self.text(&format!("/containerLogs/{namespace}/any/{container}?{run}")).await
    }

    async fn text(&self, path: &str) -> Option<String> {
        let request = Request::get(path).body(Vec::new()).expect("a path");
        self.0.request_text(request).await.ok()
    }
}

fn any_pod(namespace: &str) -> KubeletDebugParams<'_> {
    KubeletDebugParams { name: "any", namespace, pod_uid: None }
}
