//! What the way through the Kubernetes API costs: a login, and a large COPY, directly, through our tunnel, and through
//! `kubectl port-forward`.
//!
//! `cargo bench -p shareddb-tests --bench tunnel` prints medians and ratios. `ROUNDS=n` sets how many rounds (7), `MEGABYTES=n`
//! how much is copied (200).
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark that cannot run has failed"
)]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, PostParams};
use serde_json::json;
use shareddb_core::Tunnel;
use shareddb_tests::cluster::programs;
use shareddb_tests::measure::median;
use shareddb_tests::server::temporary_home;
use shareddb_tests::watch::eventually;
use shareddb_tests::{LiveCluster, TestServer};

const SERVICE: &str = "postgres-service";

#[tokio::main]
async fn main() {
    let number = |name: &str, or: usize| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(or);
    let (rounds, megabytes) = (number("ROUNDS", 7), number("MEGABYTES", 200));
    let (live, server) = (LiveCluster::start().await, TestServer::in_home(temporary_home()).await);
    let namespace = live.cluster().namespace("bench").await;
    live.forward(&namespace, 5432, server.endpoint().port).await;
    run_pod(&live, &namespace).await;

    let place = shareddb_core::Cluster::infer().with_kubeconfig(live.cluster().kubeconfig());
    let place = place.namespace(&namespace.parse().expect("a name")).await.expect("a namespace");
    let tunnel = Tunnel::open(&place, SERVICE, 5432).await.expect("a tunnel");
    let mut kubectl = Forwarder::start(&live, &namespace);
    let direct = server.admin().clone();
    let at = |port: u16| direct.clone().with_hostaddr("127.0.0.1".parse().expect("an address")).with_port(port);
    let ways = [direct.clone(), at(tunnel.address().port()), at(kubectl.port)];

    let [mut logins, mut copies] = [[const { Vec::new() }; 3], [const { Vec::new() }; 3]];
    for _ in 0..rounds {
        for (way, (logins, copies)) in ways.iter().zip(logins.iter_mut().zip(&mut copies)) {
            let start = Instant::now();
            let session = way.connect().await.expect("a login");
            logins.push(start.elapsed());
            copies.push(copy(&session, megabytes).await);
        }
    }
    kubectl.child.kill().expect("it is our child");
    kubectl.child.wait().expect("it is our child");

    let ([logins, copies], names) =
        ([logins.map(median), copies.map(median)], ["direct", "tunnel", "kubectl port-forward"]);
    println!("PostgreSQL {}, medians of {rounds} rounds", server.endpoint().version);
    for ((name, login), copy) in names.iter().zip(logins).zip(copies) {
        let ratio = |one: Duration, all: [Duration; 3]| one.as_secs_f64() / all[1].as_secs_f64();
        let rate = megabytes as f64 / copy.as_secs_f64();
        println!(
            "{name:<22} login {:7.1} ms  {:5.2} of the tunnel's   COPY of {megabytes} MB {rate:7.0} MB/s  {:5.2} of its time",
            login.as_secs_f64() * 1000.0,
            ratio(login, logins),
            ratio(copy, copies)
        );
    }
}

/// Reads so much from the server.
async fn copy(session: &shareddb_core::Session, megabytes: usize) -> Duration {
    let start = Instant::now();
    let statement = format!("COPY (SELECT repeat('x', 1048575) FROM generate_series(1, {megabytes})) TO STDOUT");
    let mut stream = std::pin::pin!(session.copy_out(&statement).await.expect("a copy"));
    let mut bytes = 0;
    while let Some(part) = stream.try_next().await.expect("a copy") {
        bytes += part.len();
    }
    assert_eq!(bytes, megabytes << 20);
    start.elapsed()
}

/// One pod, and the Service before it.
async fn run_pod(live: &LiveCluster, namespace: &str) {
    let client = live.cluster().client().await;
    let meta = |name: &str| json!({"name": name, "labels": {"app": "postgres"}});
    let service =
        json!({"metadata": meta(SERVICE), "spec": {"selector": {"app": "postgres"}, "ports": [{"port": 5432}]}});
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    services.create(&PostParams::default(), &serde_json::from_value(service).unwrap()).await.expect("a Service");
    let pod = json!({"metadata": meta("postgres"), "spec": {"containers": [{"name": "postgres", "image": "postgres:15-alpine"}]}});
    let pods: Api<Pod> = Api::namespaced(client, namespace);
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.expect("a pod");
    eventually("the pod is ready", async || {
        let pod = pods.get("postgres").await.expect("a pod");
        let conditions = pod.status.and_then(|status| status.conditions).unwrap_or_default();
        conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    })
    .await;
}

struct Forwarder {
    child: Child,
    port: u16,
}

impl Forwarder {
    /// kubectl says on which port it listens, once it does.
    fn start(live: &LiveCluster, namespace: &str) -> Self {
        let mut child = Command::new(programs().join("kubectl"))
            .args(["port-forward", &format!("service/{SERVICE}"), ":5432", "-n", namespace])
            .env("KUBECONFIG", live.cluster().kubeconfig())
            .stdout(Stdio::piped())
            .spawn()
            .expect("kubectl");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("it is piped")).read_line(&mut line).expect("a line");
        let port =
            line.split(" -> ").next().and_then(|text| text.rsplit(':').next()).and_then(|port| port.parse().ok());
        Self { child, port: port.unwrap_or_else(|| panic!("{line}")) }
    }
}
