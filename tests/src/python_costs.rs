//! What the Python package costs: a call beside the same call of the library, and apps made in several ways.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use shareddb_core::{ConnectionConfig, Environment, LocalHome, Provisioner};

use crate::command::{program, run};
use crate::drivers::python_tools;
use crate::measure::{create, median, name};
use crate::python::{package, python, source};
use crate::server::{password, temporary_home};
use crate::{Cluster, TestServer};

const URL: &str = "postgresql://me:s3cret@db.example:5432/my_app_db?sslmode=require&application_name=worker";
/// What is measured on both sides, in the order in which it is told.
const CALLS: [&str; 3] = ["ConnectionConfig.from_url", "environment.stored_connection", "provisioner.app"];
const TIMES: [usize; 3] = [20, 10, 1];

/// How much is done: as many apps in each way, as many rounds of calls.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Apps, each made once by each way.
    pub apps: usize,
    /// Rounds of calls, one of the library's and one of Python's.
    pub rounds: usize,
}

/// Measures on a server and a cluster of its own; a line for each thing.
pub async fn measure(extent: Extent) -> Vec<String> {
    let (cluster, server) = (Cluster::start().await, TestServer::in_home(temporary_home()).await);
    let namespace = cluster.namespace("bench").await;
    let admin = server.admin();
    let secret: Secret = serde_json::from_value(json!({
        "metadata": {"name": "postgres-admin"},
        "stringData": {"username": admin.user(), "password": password(&admin)},
    }))
    .unwrap();
    let secrets: Api<Secret> = Api::namespaced(cluster.client().await, &namespace);
    secrets.create(&PostParams::default(), &secret).await.unwrap();
    let file = server.home().join("shareddb.toml");
    let text = format!("[env.bench]\nnamespace = '{namespace}'\nhostaddr = '127.0.0.1:{}'\n", admin.port());
    fs::write(&file, text).unwrap();

    let (modules, tools) = (package(), python_tools());
    let script = |verb: &str| {
        let mut script = python(&[modules.path(), &tools]);
        script.arg(source().join("benches/measure.py")).arg(verb);
        script.env("KUBECONFIG", cluster.kubeconfig());
        script
    };
    let mut lines = calls(&server, extent.rounds, || script("calls")).await;
    lines.extend(told(&mut script("imports")));
    let mut creates = script("creates");
    creates.args(["--apps", &extent.apps.to_string(), "--namespace", &namespace, "--admin"]);
    creates.arg(server.endpoint().password_file.as_path()).arg("--file").arg(&file);
    creates.args(["--port", &admin.port().to_string()]).arg("--command").arg(program("shareddb"));
    lines.extend(told(&mut creates));
    lines
}

/// Calls of the library and of Python, in turn, on one server.
async fn calls(server: &TestServer, rounds: usize, script: impl Fn() -> Command) -> Vec<String> {
    let provisioner = server.provisioner().await;
    create(&provisioner, &name("measured", 0)).await;
    let mut both = CALLS.map(|_| [Vec::new(), Vec::new()]);
    for _ in 0..rounds {
        let ours = library(server.home(), &provisioner).await;
        let output = run(script().args(["--home"]).arg(server.home().join("local"))).expect_code(0);
        let theirs: Value = serde_json::from_str(&output.stdout).unwrap();
        for ((call, [rust, python]), took) in CALLS.iter().zip(&mut both).zip(ours) {
            rust.push(took);
            python.push(Duration::from_secs_f64(theirs[call].as_f64().unwrap()));
        }
    }
    let line = |(call, sides): (&&str, [Vec<Duration>; 2])| {
        let [rust, python] = sides.map(|times| median(times).as_secs_f64() * 1e6);
        format!("{call:<32} {rust:9.1} µs in Rust, {python:9.1} µs in Python: {:+.1} µs", python - rust)
    };
    CALLS.iter().zip(both).map(line).collect()
}

/// The same that the script does, with the library alone.
async fn library(home: &Path, provisioner: &Provisioner) -> [Duration; 3] {
    let environment = Environment::local(LocalHome::at(home.join("local"))).unwrap();
    let app = name("measured", 0);
    let [mut parsed, mut stored, mut asked] = [const { Vec::new() }; 3];
    for _ in 0..20 * TIMES[0] {
        let start = Instant::now();
        black_box(ConnectionConfig::from_url(black_box(URL)).unwrap());
        parsed.push(start.elapsed());
    }
    for _ in 0..20 * TIMES[1] {
        let start = Instant::now();
        black_box(environment.stored_connection(&app).await.unwrap());
        stored.push(start.elapsed());
    }
    for _ in 0..20 * TIMES[2] {
        let start = Instant::now();
        black_box(provisioner.app(&app).await.unwrap());
        asked.push(start.elapsed());
    }
    [parsed, stored, asked].map(median)
}

fn told(script: &mut Command) -> Vec<String> {
    run(script).expect_code(0).stdout.lines().map(str::to_owned).collect()
}
