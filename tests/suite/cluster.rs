//! The API server of the suite is a real one, and what the suite does to it works as it says.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::StatusCode;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::{Client, Error};
use shareddb_tests::access::rule;
use shareddb_tests::api_proxy::Fault;
use shareddb_tests::kubeconfig::{Credential, config};
use shareddb_tests::proxy::Loss;
use shareddb_tests::{ApiProxy, Cluster};

async fn client(kubeconfig: &Path) -> Client {
    Client::try_from(config(kubeconfig).await).unwrap()
}

/// Secrets of the client's own namespace.
async fn secrets(kubeconfig: &Path) -> Api<Secret> {
    Api::default_namespaced(client(kubeconfig).await)
}

fn secret(name: &str) -> Secret {
    let mut secret = Secret::default();
    secret.metadata.name = Some(name.to_owned());
    secret
}

async fn create(secrets: &Api<Secret>, name: &str) {
    secrets.create(&PostParams::default(), &secret(name)).await.unwrap();
}

#[track_caller]
fn assert_status<T: std::fmt::Debug>(result: Result<T, Error>, code: u16) {
    match result {
        Err(Error::Api(status)) => assert_eq!(status.code, code, "{status:?}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_api_server_is_of_the_version_that_is_pinned() {
    let version = Cluster::shared().await.client().await.apiserver_version().await.unwrap();
    assert!(version.git_version.starts_with("v1.36."), "{version:?}");
    assert_eq!((version.major.as_str(), version.minor.as_str()), ("1", "36"));
}

#[tokio::test]
async fn a_restricted_identity_can_do_what_its_rules_say_and_no_more() {
    let cluster = Cluster::shared().await;
    let (own, other) = (cluster.namespace("own").await, cluster.namespace("other").await);
    let kubeconfig = cluster.restricted(&own, &[rule(&["secrets"], &["create", "get"])]).await;
    let secrets = secrets(&kubeconfig).await;
    create(&secrets, "mine").await;
    secrets.get("mine").await.unwrap();
    assert_status(secrets.list(&ListParams::default()).await, 403);
    assert_status(secrets.delete("mine", &DeleteParams::default()).await, 403);
    let elsewhere: Api<Secret> = Api::namespaced(client(&kubeconfig).await, &other);
    assert_status(elsewhere.get("mine").await, 403);
}

#[tokio::test]
async fn namespaces_are_separate() {
    let cluster = Cluster::shared().await;
    let (one, two) = (cluster.namespace("separate").await, cluster.namespace("separate").await);
    assert_ne!(one, two);
    let (one, two) = (secrets(&cluster.kubeconfig_in(&one)).await, secrets(&cluster.kubeconfig_in(&two)).await);
    create(&one, "thing").await;
    assert_status(two.get("thing").await, 404);
    create(&two, "thing").await;
}

#[tokio::test]
async fn a_token_counts_until_it_ends() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("tokens").await;
    cluster.service_account(&namespace, "robot", &[rule(&["secrets"], &["list"])]).await;
    let with = async |seconds| {
        let token = cluster.token(&namespace, "robot", seconds).await;
        let kubeconfig = cluster.kubeconfig_of("robot", &namespace, Credential::Token(token));
        secrets(&kubeconfig).await.list(&ListParams::default()).await
    };
    with(600).await.unwrap();
    assert_status(with(-3600).await, 401);
}

#[tokio::test]
async fn nobody_in_particular_may_nothing() {
    let cluster = Cluster::shared().await;
    let kubeconfig = cluster.kubeconfig_of("nobody", "default", Credential::Anonymous);
    assert_status(secrets(&kubeconfig).await.list(&ListParams::default()).await, 403);
}

#[tokio::test]
async fn an_api_server_that_was_stopped_comes_back_with_what_it_had() {
    let cluster = Cluster::start().await;
    let namespace = cluster.namespace("kept").await;
    let secrets = secrets(&cluster.kubeconfig_in(&namespace)).await;
    create(&secrets, "kept").await;
    cluster.stop();
    assert!(!matches!(secrets.get("kept").await, Ok(_) | Err(Error::Api(_))));
    cluster.restart().await;
    secrets.get("kept").await.unwrap();
}

#[tokio::test]
async fn the_proxy_counts_and_loses() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("proxy").await;
    let proxy = ApiProxy::to(cluster).await;
    let (near, far) = (secrets(&proxy.kubeconfig(&namespace)).await, secrets(&cluster.kubeconfig_in(&namespace)).await);

    create(&near, "zero").await;
    near.get("zero").await.unwrap();
    let lines: Vec<String> = proxy.seen().iter().map(ToString::to_string).collect();
    let path = format!("/api/v1/namespaces/{namespace}/secrets");
    assert_eq!(lines, [format!("POST {path}"), format!("GET {path}/zero")]);

    proxy.arm(1, Fault::Lose(Loss::Request));
    create(&near, "one").await;
    assert!(!matches!(near.create(&PostParams::default(), &secret("two")).await, Ok(_) | Err(Error::Api(_))));
    assert_eq!(proxy.disarm(), 1);
    assert_status(far.get("two").await, 404);

    proxy.arm(0, Fault::Lose(Loss::Answer));
    assert!(!matches!(near.create(&PostParams::default(), &secret("two")).await, Ok(_) | Err(Error::Api(_))));
    assert_eq!((proxy.disarm(), proxy.seen().len()), (1, 1));
    far.get("two").await.unwrap();
}

#[tokio::test]
async fn the_proxy_refuses_and_holds_up() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("proxy").await;
    let proxy = ApiProxy::to(cluster).await;
    let near = secrets(&proxy.kubeconfig(&namespace)).await;

    proxy.arm(0, Fault::Answer(StatusCode::INTERNAL_SERVER_ERROR));
    proxy.arm_too(1, Fault::Answer(StatusCode::TOO_MANY_REQUESTS));
    assert_status(near.get("thing").await, 500);
    assert_status(near.get("thing").await, 429);
    assert_status(near.get("thing").await, 404);

    proxy.arm_from(1, Fault::Answer(StatusCode::SERVICE_UNAVAILABLE));
    assert_status(near.get("thing").await, 404);
    assert_status(near.get("thing").await, 503);
    assert_status(near.get("thing").await, 503);
    assert_eq!(proxy.disarm(), 2);

    proxy.arm(0, Fault::Delay(Duration::from_secs(3600)));
    let soon = tokio::time::timeout(Duration::from_millis(200), near.get("thing"));
    assert!(soon.await.is_err(), "it was held up");
    assert_status(near.get("thing").await, 404);
}

#[tokio::test]
async fn the_proxy_lets_a_test_act_between_two_requests() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("proxy").await;
    let proxy = ApiProxy::to(cluster).await;
    let near = secrets(&proxy.kubeconfig(&namespace)).await;
    create(&near, "thing").await;
    let far = secrets(&cluster.kubeconfig_in(&namespace)).await;
    let done = Arc::new(AtomicBool::new(false));

    let (act, mark) = (far.clone(), Arc::clone(&done));
    proxy.arm(
        1,
        Fault::meanwhile(move || {
            let (far, done) = (act.clone(), Arc::clone(&mark));
            async move {
                far.delete("thing", &DeleteParams::default()).await.unwrap();
                done.store(true, Ordering::SeqCst);
            }
        }),
    );
    let found = near.get("thing").await.unwrap();
    assert!(!done.load(Ordering::SeqCst));
    assert_status(near.replace("thing", &PostParams::default(), &found).await, 404);
    assert!(done.load(Ordering::SeqCst));
}

#[tokio::test]
async fn the_proxy_is_who_its_file_says() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("proxy").await;
    let kubeconfig = cluster.restricted(&namespace, &[rule(&["secrets"], &["get"])]).await;
    let proxy = ApiProxy::with(&kubeconfig).await;
    let near = secrets(&proxy.kubeconfig(&namespace)).await;
    assert_status(near.get("thing").await, 404);
    assert_status(near.list(&ListParams::default()).await, 403);
}
