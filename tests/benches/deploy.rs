//! A server in its namespace: `deploy` of one that is there, and from nothing until it serves, against the way without it,
//! which is `kubectl apply` of the same objects and `kubectl rollout status`. What plays the node starts pods at once, so that
//! this is the price of the objects and of noticing.
//!
//! `cargo bench -p shareddb-tests --bench deploy` prints medians and ratios. `ROUNDS=n` sets how many rounds (9).
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark that cannot run has failed"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hyper::Request;
use serde_json::json;
use shareddb_core::{Deployer, Environment, Environments, ServerSpec};
use shareddb_tests::cluster::programs;
use shareddb_tests::command::{run, shareddb_command};
use shareddb_tests::measure::{line, median, time};
use shareddb_tests::server::{password, temporary_home};
use shareddb_tests::{LiveCluster, TestServer};

/// Longer than a pod takes.
const PATIENCE: Duration = Duration::from_secs(60);

struct Bench {
    live: LiveCluster,
    server: TestServer,
    home: PathBuf,
}

#[tokio::main]
async fn main() {
    let rounds: usize = std::env::var("ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(9);
    let home = temporary_home();
    let bench = Bench { live: LiveCluster::start().await, server: TestServer::in_home(temporary_home()).await, home };
    let [mut library, mut command, mut by_kubectl, mut second, mut second_command, mut kubectl_again] =
        [const { Vec::new() }; 6];
    for _ in 0..rounds {
        // From nothing, by the library.
        let namespace = bench.namespace().await;
        let start = Instant::now();
        let deployer = Deployer::new(&bench.environment(&namespace)).await.expect("a kubeconfig");
        let plan = deployer.deploy(&ServerSpec::default()).await.expect("a deploy");
        deployer.wait(&plan, PATIENCE).await.expect("it serves");
        library.push(start.elapsed());

        // Again, without waiting and as a command that does.
        let start = Instant::now();
        let deployer = Deployer::new(&bench.environment(&namespace)).await.expect("a kubeconfig");
        assert!(deployer.deploy(&ServerSpec::default()).await.expect("a deploy").is_empty());
        second.push(start.elapsed());
        second_command.push(time(|| bench.shareddb(&namespace)));

        let namespace = bench.namespace().await;
        command.push(time(|| bench.shareddb(&namespace)));

        let (namespace, kubeconfig) = (bench.namespace().await, bench.live.cluster().kubeconfig());
        let objects = bench.objects(&namespace);
        let apply = || {
            kubectl(&kubeconfig, &namespace, &["apply", "-f", objects.to_str().expect("a path")]);
            kubectl(&kubeconfig, &namespace, &["rollout", "status", "deployment/postgres", "--timeout=60s"]);
        };
        by_kubectl.push(time(apply));
        kubectl_again.push(time(apply));
    }
    let [library, command, by_kubectl, second, second_command, kubectl_again] =
        [library, command, by_kubectl, second, second_command, kubectl_again].map(median);
    println!("kube-apiserver, controllers, kwok for a node; medians of {rounds} rounds");
    println!("kubectl apply, kubectl rollout status        {}", line(by_kubectl, command));
    println!("shareddb deploy from nothing, with a login   {}", line(command, command));
    println!("the same by the library                      {}", line(library, command));
    println!("both kubectl commands again, unchanged       {}", line(kubectl_again, command));
    println!("shareddb deploy again, with a login          {}", line(second_command, command));
    println!("deploy again by the library, without one     {}", line(second, command));
}

impl Bench {
    /// One with a real server behind its pods, whose password is known.
    async fn namespace(&self) -> String {
        let (cluster, admin) = (self.live.cluster(), self.server.admin());
        let namespace = cluster.namespace("bench").await;
        self.live.forward(&namespace, 5432, admin.port()).await;
        let secret = json!({
            "metadata": {"name": "postgres-admin"},
            "stringData": {"username": admin.user(), "password": password(&admin)},
        });
        let request = Request::post(format!("/api/v1/namespaces/{namespace}/secrets"))
            .header("Content-Type", "application/json")
            .body(secret.to_string().into_bytes())
            .expect("a request");
        cluster.client().await.request_text(request).await.expect("a Secret");
        namespace
    }

    fn environment(&self, namespace: &str) -> Environment {
        let environments = Environments::parse("", |_| None).expect("nothing is wrong with nothing");
        let environment = environments.environment(&"stage".parse().expect("a name")).expect("it needs no file");
        let environment = environment.with_kubeconfig(self.live.cluster().kubeconfig()).expect("it is in a cluster");
        environment.with_namespace(namespace.parse().expect("a name")).expect("it is in a cluster")
    }

    fn command(&self, namespace: &str) -> Command {
        let mut command = shareddb_command(&self.home);
        command.current_dir(&self.home).env("KUBECONFIG", self.live.cluster().kubeconfig());
        command.args(["deploy", "-e", "stage", "-n", namespace]);
        command
    }

    fn shareddb(&self, namespace: &str) {
        run(&mut self.command(namespace)).expect_code(0);
    }

    /// What a deploy would make, as a file.
    fn objects(&self, namespace: &str) -> PathBuf {
        let printed = run(self.command(namespace).arg("--print")).expect_code(0);
        let file = self.home.join(format!("{namespace}.yaml"));
        fs::write(&file, printed.stdout).expect("a disk with room");
        file
    }
}

fn kubectl(kubeconfig: &Path, namespace: &str, args: &[&str]) {
    let status = Command::new(programs().join("kubectl"))
        .args(["-n", namespace])
        .args(args)
        .env("KUBECONFIG", kubeconfig)
        .stdout(Stdio::null())
        .status()
        .expect("kubectl");
    assert!(status.success());
}
