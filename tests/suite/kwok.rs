//! A cluster in which pods run shows what a real one would, and a real server is behind its pods.

use std::process::Command;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStatus, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};
use shareddb_core::ConnectionConfig;
use shareddb_tests::cluster::programs;
use shareddb_tests::command::{Output, run};
use shareddb_tests::server::{password, value};
use shareddb_tests::watch::eventually;
use shareddb_tests::{ForeignServer, LiveCluster, Picture, TestServer};
use tokio::net::TcpListener;

/// One namespace of a cluster, as a rule of the shared one.
struct Place<'a> {
    live: &'a LiveCluster,
    namespace: String,
}

impl<'a> Place<'a> {
    async fn new() -> Self {
        Self::of(LiveCluster::shared().await).await
    }

    async fn of(live: &'a LiveCluster) -> Self {
        Self { live, namespace: live.cluster().namespace("live").await }
    }

    async fn all<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.live.cluster().client().await, &self.namespace)
    }

    /// A Deployment with one pod, whose container asks for this much memory and mounts the claim `data` if told so.
    async fn deploy(&self, memory: &str, volumes: Value) {
        let container = json!({
            "name": "postgres", "image": "postgres:18", "resources": { "requests": { "memory": memory } },
        });
        let deployment = json!({
            "metadata": { "name": "postgres" },
            "spec": {
                "strategy": { "type": "Recreate" },
                "selector": { "matchLabels": { "app": "postgres" } },
                "template": {
                    "metadata": { "labels": { "app": "postgres" } },
                    "spec": { "containers": [container], "volumes": volumes },
                },
            },
        });
        let deployments: Api<Deployment> = self.all().await;
        deployments.create(&PostParams::default(), &serde_json::from_value(deployment).unwrap()).await.unwrap();
    }

    /// The same, and it runs.
    async fn running() -> Self {
        let place = Self::new().await;
        place.deploy("64Mi", json!([])).await;
        place.available().await;
        place
    }

    /// Waits until the Deployment says that it is available.
    async fn available(&self) {
        let deployments: Api<Deployment> = self.all().await;
        eventually("the Deployment becomes available", async || {
            let status = deployments.get("postgres").await.unwrap().status.unwrap_or_default();
            let conditions = status.conditions.unwrap_or_default();
            conditions.iter().any(|condition| condition.type_ == "Available" && condition.status == "True")
        })
        .await;
    }

    /// Waits for a pod of which this holds.
    async fn pod(&self, what: &str, holds: impl Fn(&Pod) -> bool) -> Pod {
        let pods: Api<Pod> = self.all().await;
        let find = async || pods.list(&ListParams::default().labels("app=postgres")).await.unwrap().items;
        eventually(what, async || find().await.iter().any(&holds)).await;
        find().await.into_iter().find(|pod| holds(pod)).unwrap_or_else(|| panic!("it stays so: {what}"))
    }

    /// Waits for a pod that is shown as waiting for this reason.
    async fn waiting(&self, reason: &str) -> (Pod, ContainerStatus) {
        let pod = self
            .pod(reason, |pod| {
                let waits = |status: &ContainerStatus| status.state.as_ref()?.waiting.as_ref()?.reason.clone();
                container(pod).and_then(|status| waits(&status)).as_deref() == Some(reason)
            })
            .await;
        let status = container(&pod).unwrap();
        (pod, status)
    }

    fn kubectl(&self, args: &[&str]) -> Output {
        let kubeconfig = self.live.cluster().kubeconfig_in(&self.namespace);
        run(Command::new(programs().join("kubectl")).arg("--kubeconfig").arg(kubeconfig).args(args))
    }

    /// One query through a port-forward to the running pod.
    async fn query(&self, admin: &ConnectionConfig, sql: &str) -> String {
        let pods: Api<Pod> = self.all().await;
        let name = self.pod("a pod runs", is_running).await.name_any();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let bridge = async {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut forwarder = pods.portforward(&name, &[5432]).await.unwrap();
            let mut far = forwarder.take_stream(5432).unwrap();
            tokio::io::copy_bidirectional(&mut near, &mut far).await.unwrap();
        };
        let through =
            ConnectionConfig::new("127.0.0.1", port, "postgres", admin.user()).with_password(password(admin).into());
        let ask = async {
            let session = through.connect().await.unwrap();
            value(&session, sql).await
        };
        tokio::join!(ask, bridge).0
    }
}

fn is_running(pod: &Pod) -> bool {
    phase(pod) == Some("Running") && container(pod).is_some_and(|status| status.ready)
}

fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

fn container(pod: &Pod) -> Option<ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first().cloned()
}

/// What the scheduler says of a pod that it cannot place.
fn unschedulable(pod: &Pod) -> Option<&str> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let refusal = conditions.iter().find(|condition| condition.reason.as_deref() == Some("Unschedulable"))?;
    refusal.message.as_deref()
}

#[tokio::test]
async fn two_namespaces_have_two_servers_behind_their_ports() {
    let (one, two) = tokio::join!(Place::running(), Place::running());
    let (old, new) = tokio::join!(ForeignServer::shared(14), ForeignServer::shared(18));
    let (old, new) = (old.superuser(), new.superuser());
    tokio::join!(one.live.postgres(&one.namespace, &old), two.live.postgres(&two.namespace, &new));
    let version = "SHOW server_version_num";
    let (first, second) = tokio::join!(one.query(&old, version), two.query(&new, version));
    assert_eq!((&first[..2], &second[..2]), ("14", "18"));
    one.live.postgres(&one.namespace, &new).await;
    assert_eq!(one.query(&new, version).await, second, "the namespace has moved to the other server");
}

#[tokio::test]
async fn a_port_that_nobody_forwards_tells_so() {
    let place = Place::running().await;
    let pods: Api<Pod> = place.all().await;
    let name = place.pod("a pod runs", is_running).await.name_any();
    let refusal = async || {
        let mut forwarder = pods.portforward(&name, &[5432]).await.unwrap();
        let refused = forwarder.take_error(5432).unwrap();
        refused.await.unwrap()
    };
    assert!(refusal().await.contains("no forward found for port 5432"));
    // A port that was free a moment ago, and whose listener is gone.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    place.live.forward(&place.namespace, 5432, closed).await;
    let refused = refusal().await;
    assert!(refused.contains("connection refused"), "{refused}");
}

#[tokio::test]
async fn kubectl_runs_psql_in_the_pod_of_its_namespace() {
    let place = Place::running().await;
    let server = TestServer::shared().await;
    place.live.postgres(&place.namespace, &server.admin()).await;
    let admin = server.admin().user().to_owned();
    let psql = ["exec", "deployment/postgres", "--", "psql", "-U", &admin, "-d", "postgres", "-Atc"];
    let query = "SELECT current_setting('port'), current_user";
    let output = place.kubectl(&[&psql[..], &[query]].concat()).expect_code(0);
    assert_eq!(output.stdout, format!("{}|{admin}\n", server.admin().port()));
    let output = place.kubectl(&[&psql[..], &["SELECT nothing"]].concat());
    assert_eq!(output.code, Some(1), "psql's own code: {output:?}");
    assert!(output.stderr.contains("column \"nothing\" does not exist"), "{output:?}");
}

#[tokio::test]
async fn kubectl_reads_what_the_container_has_written() {
    let place = Place::running().await;
    place.live.logs(&place.namespace, "postgres", &["LOG:  starting", "LOG:  ready"]).await;
    place.live.previous_logs(&place.namespace, "postgres", &["FATAL:  no space"]).await;
    let logs = |more: &[&str]| place.kubectl(&[&["logs", "deployment/postgres"], more].concat()).expect_code(0).stdout;
    assert_eq!(logs(&[]), "LOG:  starting\nLOG:  ready\n");
    assert_eq!(logs(&["--tail=1"]), "LOG:  ready\n");
    place.live.logs(&place.namespace, "postgres", &["LOG:  later"]).await;
    assert_eq!(logs(&[]), "LOG:  later\n");
    // The API server answers for the run before only if there was one.
    let crash = Picture::CrashLoopBackOff { restarts: 3, exit_code: 1, reason: "Error" };
    place.live.show(&place.namespace, &crash).await;
    place.waiting("CrashLoopBackOff").await;
    assert_eq!(logs(&["--previous"]), "FATAL:  no space\n");
}

#[tokio::test]
async fn a_pod_that_is_deleted_is_replaced_and_its_service_follows() {
    let place = Place::new().await;
    let service = json!({
        "metadata": { "name": "postgres" },
        "spec": { "selector": { "app": "postgres" }, "ports": [{ "port": 5432 }] },
    });
    let services: Api<Service> = place.all().await;
    services.create(&PostParams::default(), &serde_json::from_value(service).unwrap()).await.unwrap();
    place.deploy("64Mi", json!([])).await;
    let first = place.pod("a pod runs", is_running).await;
    let slices: Api<EndpointSlice> = place.all().await;
    let follows = async |pod: &Pod| {
        let address = pod.status.as_ref().unwrap().pod_ip.clone().unwrap();
        eventually("the Service leads to the pod", async || {
            let slices =
                slices.list(&ListParams::default().labels("kubernetes.io/service-name=postgres")).await.unwrap();
            let mut endpoints = slices.items.iter().flat_map(|slice| &slice.endpoints);
            endpoints.any(|endpoint| {
                endpoint.addresses == [address.as_str()]
                    && endpoint.conditions.as_ref().is_some_and(|conditions| conditions.ready == Some(true))
            })
        })
        .await;
    };
    follows(&first).await;
    let pods: Api<Pod> = place.all().await;
    pods.delete(&first.name_any(), &DeleteParams::default()).await.unwrap();
    let second = place.pod("another pod runs", |pod| is_running(pod) && pod.uid() != first.uid()).await;
    follows(&second).await;
    place.available().await;
}

fn claim() -> PersistentVolumeClaim {
    let spec = json!({ "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } });
    serde_json::from_value(json!({ "metadata": { "name": "data" }, "spec": spec })).unwrap()
}

fn with_claim() -> Value {
    json!([{ "name": "data", "persistentVolumeClaim": { "claimName": "data" } }])
}

#[tokio::test]
async fn a_claim_gets_its_volume_and_loses_it() {
    let place = Place::new().await;
    let claims: Api<PersistentVolumeClaim> = place.all().await;
    claims.create(&PostParams::default(), &claim()).await.unwrap();
    place.deploy("64Mi", with_claim()).await;
    place.available().await;
    let bound = claims.get("data").await.unwrap();
    assert_eq!(bound.status.unwrap().phase.as_deref(), Some("Bound"));
    let deployments: Api<Deployment> = place.all().await;
    deployments.delete("postgres", &DeleteParams::background()).await.unwrap();
    claims.delete("data", &DeleteParams::default()).await.unwrap();
    eventually("the claim goes", async || claims.get_opt("data").await.unwrap().is_none()).await;
}

#[tokio::test]
async fn a_claim_for_which_nobody_makes_a_volume_waits_and_so_does_its_pod() {
    let place = Place::new().await;
    place.live.leave_unbound(&place.namespace).await;
    let claims: Api<PersistentVolumeClaim> = place.all().await;
    claims.create(&PostParams::default(), &claim()).await.unwrap();
    place.deploy("64Mi", with_claim()).await;
    let pod = place.pod("the pod waits", |pod| unschedulable(pod).is_some()).await;
    assert!(unschedulable(&pod).unwrap().contains("unbound immediate PersistentVolumeClaims"), "{pod:?}");
    assert_eq!(claims.get("data").await.unwrap().status.unwrap().phase.as_deref(), Some("Pending"));
}

#[tokio::test]
async fn an_image_that_cannot_be_had_is_shown_from_the_first_moment_and_until_it_can() {
    let place = Place::new().await;
    place.live.show(&place.namespace, &Picture::ImagePullBackOff).await;
    place.deploy("64Mi", json!([])).await;
    let (pod, status) = place.waiting("ImagePullBackOff").await;
    assert_eq!(phase(&pod), Some("Pending"));
    let message = status.state.unwrap().waiting.unwrap().message;
    assert_eq!(message.as_deref(), Some("Back-off pulling image \"postgres:18\""));
    place.live.recover(&place.namespace).await;
    let after = place.pod("the pod runs", is_running).await;
    assert_eq!(after.uid(), pod.uid(), "it is the same pod");
}

#[tokio::test]
async fn a_crash_loop_is_shown_by_pods_that_ran_and_ends() {
    let place = Place::running().await;
    let before = place.pod("a pod runs", is_running).await;
    let picture = Picture::CrashLoopBackOff { restarts: 7, exit_code: 137, reason: "OOMKilled" };
    place.live.show(&place.namespace, &picture).await;
    let (pod, status) = place.waiting("CrashLoopBackOff").await;
    assert_eq!((pod.uid(), status.restart_count, status.ready), (before.uid(), 7, false));
    let ended = status.last_state.unwrap().terminated.unwrap();
    assert_eq!((ended.exit_code, ended.reason.as_deref()), (137, Some("OOMKilled")));
    let deployments: Api<Deployment> = place.all().await;
    eventually("the Deployment is not available", async || {
        let status = deployments.get("postgres").await.unwrap().status.unwrap();
        status.available_replicas.unwrap_or(0) == 0
    })
    .await;
    place.live.recover(&place.namespace).await;
    place.available().await;
    let after = place.pod("the pod runs", is_running).await;
    assert_eq!((after.uid(), container(&after).unwrap().restart_count), (before.uid(), 7), "it is the same pod");
}

#[tokio::test]
async fn a_pod_whose_probe_fails_runs_and_is_not_ready() {
    let place = Place::new().await;
    place.live.show(&place.namespace, &Picture::NotReady).await;
    place.deploy("64Mi", json!([])).await;
    let pod = place.pod("it runs", |pod| phase(pod) == Some("Running")).await;
    let status = container(&pod).unwrap();
    assert!(!status.ready && status.state.unwrap().running.is_some());
}

#[tokio::test]
async fn a_pod_that_is_too_big_is_refused_by_the_scheduler() {
    let place = Place::new().await;
    place.deploy("1Ti", json!([])).await;
    let pod = place.pod("the pod waits", |pod| unschedulable(pod).is_some()).await;
    assert!(unschedulable(&pod).unwrap().contains("1 Insufficient memory"), "{pod:?}");
}

#[tokio::test]
async fn a_cordon_keeps_new_pods_away_until_it_is_lifted() {
    let live = LiveCluster::start().await;
    let place = Place::of(&live).await;
    live.cordon().await;
    place.deploy("64Mi", json!([])).await;
    let pod = place.pod("the pod waits", |pod| unschedulable(pod).is_some()).await;
    assert!(unschedulable(&pod).unwrap().contains("1 node(s) were unschedulable"), "{pod:?}");
    live.uncordon().await;
    place.available().await;
}
