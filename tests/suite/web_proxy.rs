//! An API server that is reached by way of a web proxy, and a kubeconfig that does not come.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use shareddb_core::SecretStore as _;
use shareddb_tests::command::{Output, run, shareddb_command};
use shareddb_tests::server::temporary_home;
use shareddb_tests::{Cluster, WebProxy};

use crate::kubernetes_store::store;

/// A cluster's kubeconfig that names a proxy.
fn behind(cluster: &Cluster, proxy: &str) -> PathBuf {
    let mut text: Value = serde_json::from_slice(&fs::read(cluster.kubeconfig()).unwrap()).unwrap();
    text["clusters"][0]["cluster"]["proxy-url"] = proxy.into();
    let path = temporary_home().join("config");
    fs::write(&path, text.to_string()).unwrap();
    path
}

/// `shareddb env` of an app that is not there, which asks the API for a Secret.
async fn ask(kubeconfig: &Path, namespace: &str, variables: &[(&str, &str)]) -> Output {
    let mut command = asking(kubeconfig, namespace);
    command.envs(variables.iter().copied());
    tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap()
}

fn asking(kubeconfig: &Path, namespace: &str) -> Command {
    let mut command = shareddb_command(&temporary_home());
    for name in ["HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "KUBECONFIG"] {
        command.env_remove(name);
    }
    command.args(["env", "no-such-app", "-e", "production", "-n", namespace]).arg("--kubeconfig").arg(kubeconfig);
    command
}

#[tokio::test]
async fn a_proxy_of_the_kubeconfig_carries_every_request() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("proxied").await;
    // me:p@ss
    let proxy = WebProxy::start(Some("proxy-authorization: Basic bWU6cEBzcw==")).await;
    let place = format!("127.0.0.1:{}", proxy.port());
    let store_by = |url: String| {
        let namespace = namespace.clone();
        async move { store(&behind(cluster, &url), &namespace).await }
    };
    let name = "my-app-db-secret".parse().unwrap();
    let known = store_by(format!("http://me:p%40ss@{place}")).await;
    known.create(&name, &"my-app".parse().unwrap(), &[].into()).await.unwrap();
    assert!(known.load(&name).await.unwrap().is_some());
    let requests = proxy.take_requests();
    assert!(!requests.is_empty() && requests.iter().all(|line| line.starts_with("CONNECT 127.0.0.1:")), "{requests:?}");

    let error = store_by(format!("http://me:m4rker@{place}")).await.load(&name).await.unwrap_err();
    assert_eq!(error.code(), "api_unreachable");
    let told = format!("{error} {error:?} {:?} {:?}", error.hint(), error.causes());
    assert!(!told.contains("m4rker"), "{told}");
    let namespace = namespace.parse().unwrap();
    let socks = shareddb_core::Cluster::infer().with_kubeconfig(behind(cluster, "socks5://me:m4rker@127.0.0.1:1"));
    let error = socks.namespace(&namespace).await.unwrap_err();
    assert_eq!(error.code(), "proxy_unsupported");
    assert!(!format!("{error} {error:?} {:?}", error.hint()).contains("m4rker"));
}

#[tokio::test]
async fn a_proxy_of_the_environment_has_its_exceptions() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("excepted").await;
    let proxy = WebProxy::start(None).await;
    // Another name of the same place, so that what is excepted is the API server and not the proxy.
    let url = format!("http://localhost:{}", proxy.port());
    for (exceptions, carried) in [("", true), ("10.0.0.0/8,.example", true), ("127.0.0.0/8", false), ("*", false)] {
        let variables = [("HTTPS_PROXY", url.as_str()), ("NO_PROXY", exceptions)];
        let answer = ask(&cluster.kubeconfig(), &namespace, &variables).await.expect_code(4);
        assert!(answer.stderr.contains("no secret/no-such-app-db-secret"), "{}", answer.stderr);
        assert_eq!(!proxy.take_requests().is_empty(), carried, "{exceptions}");
    }
}

#[test]
fn a_kubeconfig_that_does_not_come_is_not_waited_for_longer_than_asked() {
    let path = temporary_home().join("config");
    run(Command::new("mkfifo").arg(&path)).expect_code(0);
    let begun = Instant::now();
    let late = run(asking(&path, "any").args(["--timeout", "1s"])).expect_code(7);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert!(late.stderr.contains("not done after 1s"), "{}", late.stderr);
}
