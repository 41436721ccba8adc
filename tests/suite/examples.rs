//! The examples do what their first line says, also when they are run twice.

use std::process::Command;

use shareddb_tests::command::{program, run};
use shareddb_tests::{Cluster, Output, TestServer};

fn example(name: &str, argument: &str) -> Output {
    run(Command::new(program(&format!("examples/{name}"))).arg(argument)).expect_code(0)
}

#[tokio::test]
async fn each_example_runs() {
    let server = TestServer::start().await;
    let local = server.local().home().path().to_str().unwrap().to_owned();
    let create = || example("create_app", &local);
    assert!(create().stdout.contains("orders created"));
    assert!(create().stdout.contains("orders unchanged"));
    let secret = format!("{local}/secrets/orders-db-secret");
    assert!(example("connect_app", &secret).stdout.contains("working as orders_db"));
    assert!(example("pool_app", &secret).stdout.contains("10 visits; the pool is ready"));
    assert!(example("pool_app", &secret).stdout.contains("20 visits; the pool is ready"));
    assert!(example("plan_then_apply", &local).stdout.contains("has changed since the plan was made"));
    assert!(example("follow_events", &local).stdout.contains("invoices created"));
    assert!(example("follow_events", &local).stdout.contains("invoices unchanged"));
}

#[tokio::test]
async fn a_deploy_can_be_looked_at_first() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("preview").await;
    let mut command = Command::new(program("examples/deploy_preview"));
    command.env("KUBECONFIG", cluster.kubeconfig());
    assert!(run(&mut command).expect_code(0).stdout.contains("\"Deployment\" \"postgres\"\n"));
    let asked = run(command.arg(namespace)).expect_code(0);
    assert!(asked.stdout.contains("+ deployment/postgres\n"), "{asked:?}");
    assert!(asked.stdout.contains("would do that"), "{asked:?}");
}
