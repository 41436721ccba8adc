//! The same with Secrets in a Kubernetes API server: `create`, `list` of many apps, and the guide's way, which is psql and
//! `kubectl create secret` in a shell's loop.
//!
//! `cargo bench -p shareddb-tests --bench kubernetes` prints medians and ratios. `ROUNDS=n` sets how many rounds (9).
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark that cannot run has failed"
)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use shareddb_core::{KubernetesStore, Provisioner};
use shareddb_tests::TestServer;
use shareddb_tests::cluster::{Cluster, programs};
use shareddb_tests::measure::{again, by_workers, create, guide_statements, line, median, name, script, time};
use shareddb_tests::server::temporary_home;

const LISTED: usize = 200;
const APPS: usize = 100;
const WORKERS: usize = 8;

#[tokio::main]
async fn main() {
    let rounds: usize = std::env::var("ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(9);
    let (cluster, server) = (Cluster::start().await, TestServer::in_home(temporary_home()).await);
    let (namespace, kubeconfig) = (cluster.namespace("bench").await, cluster.kubeconfig());
    let place = shareddb_core::Cluster::infer().with_kubeconfig(&kubeconfig);
    let store = KubernetesStore::new(place.namespace(&namespace.parse().expect("a name")).await.expect("a namespace"));
    let provisioner = Provisioner::new(server.server_with(server.admin(), Arc::new(store)));
    create(&provisioner, &name("warm", 0)).await;

    let [mut guide, mut cold, mut second] = [const { Vec::new() }; 3];
    for round in 0..rounds {
        let app = format!("guide_{round}");
        guide.push(time(|| {
            script(&server, &guide_statements(&app));
            create_secret(&kubeconfig, &namespace, &app);
        }));
        let app = name("cold", round);
        cold.push(create(&provisioner, &app).await);
        second.push(again(&provisioner, &app).await);
    }
    let by_guide = time(|| {
        for round in 0..APPS {
            let app = format!("loop_{round}");
            script(&server, &guide_statements(&app));
            create_secret(&kubeconfig, &namespace, &app);
        }
    });
    let together = by_workers(&provisioner, "shared", APPS, WORKERS).await;
    by_workers(&provisioner, "listed", LISTED.saturating_sub(APPS + rounds + 1), WORKERS).await;
    let mut listed = Vec::new();
    for _ in 0..rounds {
        let start = Instant::now();
        assert!(provisioner.list().await.expect("a list").len() >= LISTED);
        listed.push(start.elapsed());
    }
    let start = Instant::now();
    assert!(provisioner.status(None).await.expect("a status").apps.len() >= LISTED);
    let compared = start.elapsed();

    let [guide, cold, second, listed] = [guide, cold, second, listed].map(median);
    println!("PostgreSQL {}, kube-apiserver, medians of {rounds} rounds", server.endpoint().version);
    println!("the guide: psql, and kubectl create secret   {}", line(guide, cold));
    println!("create, cold, with proof and Secret          {}", line(cold, cold));
    println!("create again, unchanged                      {}", line(second, cold));
    println!("{APPS} apps the guide's way, one by one         {}", line(by_guide, together));
    println!("{APPS} creates by {WORKERS} workers                    {}", line(together, together));
    println!("names and sizes of {LISTED} apps                 {}", line(listed, cold));
    println!("{LISTED} apps compared with their records        {}", line(compared, cold));
}

/// As the guide's script does it.
fn create_secret(kubeconfig: &Path, namespace: &str, app: &str) {
    let status = Command::new(programs().join("kubectl"))
        .args(["create", "secret", "generic", &format!("{}-db-secret", app.replace('_', "-")), "-n", namespace])
        .args(
            ["DB_HOST=localhost", "DB_PORT=5432", "DB_NAME=name", "DB_USER=user", "DB_PASSWORD=benchmark"]
                .map(|pair| format!("--from-literal={pair}")),
        )
        .env("KUBECONFIG", kubeconfig)
        .stdout(Stdio::null())
        .status()
        .expect("kubectl");
    assert!(status.success());
}
