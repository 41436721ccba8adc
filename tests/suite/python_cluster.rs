//! An environment in Kubernetes, from Python.

use shareddb_tests::LiveCluster;
use shareddb_tests::command::run;
use shareddb_tests::drivers::python_tools;
use shareddb_tests::python::{package, python, source};

use crate::tunnel::Site;

#[tokio::test(flavor = "multi_thread")]
async fn apps_in_a_cluster_from_python() {
    let live = LiveCluster::shared().await;
    let site = Site::new(live).await;
    let modules = package();
    let mut tests = python(&[modules.path(), &python_tools()]);
    tests.current_dir(source()).env("HOME", &site.home);
    tests.env("KUBECONFIG", live.cluster().kubeconfig()).env("SHAREDDB_TEST_NAMESPACE", &site.namespace);
    tests.args(["-m", "pytest", "-q", "-rs", "tests/on_a_cluster.py"]);
    let output = tokio::task::spawn_blocking(move || run(&mut tests)).await.unwrap().expect_code(0);
    assert!(output.stdout.contains(" passed") && !output.stdout.contains("skipped"), "{}", output.stdout);
}
