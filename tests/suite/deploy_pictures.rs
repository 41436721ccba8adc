//! A server that does not come up: whoever waits for it is told why, soon, and does not wait for ever.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper::{Method, Request};
use k8s_openapi::api::core::v1::{LimitRange, PersistentVolumeClaim, Pod, ResourceQuota};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use shareddb_core::{DeployEvent, Error, Result, ServerSpec};
use shareddb_tests::server::password;
use shareddb_tests::watch::eventually;
use shareddb_tests::{LiveCluster, Picture, TestServer};
use tokio::sync::Notify;

use crate::deploy::{Site, spec};

/// How soon somebody is told of what can be seen. It is meant to be two seconds; machines that do other work are slower.
const SOON: Duration = Duration::from_secs(4);
/// Longer than any of this takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// A namespace with a real server behind the pods that will be there, whose admin's password is known.
async fn live(cluster: &LiveCluster) -> Site<'_> {
    let (site, server) = (Site::of(cluster.cluster()).await, TestServer::shared().await);
    let admin = server.admin();
    cluster.forward(&site.namespace, 5432, admin.port()).await;
    let secret = json!({
        "metadata": {"name": "postgres-admin"},
        "stringData": {"username": admin.user(), "password": password(&admin)},
    });
    site.call(Method::POST, "secret", "", &secret).await;
    site
}

/// What came of waiting, when, and what was told meanwhile.
struct Waited {
    result: Result<String>,
    ended: Instant,
    told: Vec<(Instant, String)>,
}

impl Waited {
    #[track_caller]
    fn error(&self, code: &str, words: &[&str]) -> &Error {
        let error = self.result.as_ref().unwrap_err();
        assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
        let text = format!("{error}\n{}", error.hint().expect("a hint"));
        assert_eq!(error.code(), code, "{text}");
        for word in words {
            assert!(text.contains(word), "{word}: {text}");
        }
        error
    }
}

/// Deploys and waits, and watches from when on something can be seen in the API.
async fn wait(
    site: &Site<'_>,
    spec: &ServerSpec,
    patience: Duration,
    seen: impl AsyncFn() -> bool,
) -> (Waited, Instant) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&told);
    let deployer = site.deployer().await.on_event(move |event| {
        if let DeployEvent::Trouble(text) = event {
            notes.lock().unwrap().push((Instant::now(), text.to_owned()));
        }
    });
    let plan = deployer.deploy(spec).await.unwrap();
    let waiting = async {
        let result = deployer.wait(&plan, patience).await.map(|ready| ready.version);
        (result, Instant::now())
    };
    let watching = async {
        eventually("it can be seen", seen).await;
        Instant::now()
    };
    let ((result, ended), visible) = tokio::join!(waiting, watching);
    let told = told.lock().unwrap().clone();
    (Waited { result, ended, told }, visible)
}

/// The next deploy, after the cause is mended.
async fn comes_up(site: &Site<'_>, spec: &ServerSpec) {
    let deployer = site.deployer().await;
    let plan = deployer.deploy(spec).await.unwrap();
    deployer.wait(&plan, PATIENCE).await.unwrap_or_else(|error| panic!("{error:?}"));
}

async fn pods(site: &Site<'_>) -> Vec<Pod> {
    let pods: Api<Pod> = site.api().await;
    pods.list(&ListParams::default()).await.unwrap().items
}

async fn waits_for(site: &Site<'_>, reason: &str) -> bool {
    pods(site).await.iter().any(|pod| {
        let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        statuses
            .filter_map(|status| status.state.as_ref()?.waiting.as_ref()?.reason.clone())
            .any(|found| found == reason)
    })
}

async fn is_unschedulable(site: &Site<'_>) -> bool {
    pods(site).await.iter().any(|pod| {
        let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.any(|condition| condition.reason.as_deref() == Some("Unschedulable"))
    })
}

async fn is_refused(site: &Site<'_>) -> bool {
    let status = site.read("deployment/postgres").await["status"].clone();
    status["conditions"].as_array().is_some_and(|conditions| {
        conditions.iter().any(|condition| condition["type"] == "ReplicaFailure" && condition["status"] == "True")
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_be_pulled() {
    let cluster = LiveCluster::shared().await;
    let site = live(cluster).await;
    cluster.show(&site.namespace, &Picture::ImagePullBackOff).await;
    let image = spec(|spec| spec.image = "postgres:15.77-alpine".parse().ok());
    let (waited, visible) = wait(&site, &image, PATIENCE, async || waits_for(&site, "ImagePullBackOff").await).await;
    waited.error("image_not_pulled", &["postgres:15.77-alpine", "ImagePullBackOff", "--image", "describe pod"]);
    assert!(waited.ended - visible < SOON, "{:?}", waited.ended - visible);

    let told = site.run("deploy --timeout 8s").await.expect_code(6);
    assert!(told.stderr.contains("postgres:15.77-alpine"), "{}", told.stderr);
    // Another image, and pods that come from now on can be had.
    let settle = site.api::<Pod>().await;
    let old = pods(&site).await[0].metadata.name.clone().unwrap();
    cluster.recover(&site.namespace).await;
    comes_up(&site, &spec(|spec| spec.image = "postgres:15.8-alpine".parse().ok())).await;
    assert!(settle.get_opt(&old).await.unwrap().is_none(), "it is another pod");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_pod_that_hangs_is_not_taken_for_the_new_one() {
    let cluster = LiveCluster::shared().await;
    let site = live(cluster).await;
    cluster.show(&site.namespace, &Picture::ImagePullBackOff).await;
    let image = |image: &str| spec(|spec| spec.image = image.parse().ok());
    for round in 0..4 {
        // What pods show is what they were made with: the old one hangs on, and the new one runs.
        let bad = image(&format!("postgres:15.{}-alpine", 70 + round));
        let (waited, _) = wait(&site, &bad, PATIENCE, async || waits_for(&site, "ImagePullBackOff").await).await;
        waited.error("image_not_pulled", &[&format!("15.{}", 70 + round)]);
        cluster.show_new(&site.namespace, None).await;
        comes_up(&site, &image("postgres:15.8-alpine")).await;
        cluster.show_new(&site.namespace, Some(&Picture::ImagePullBackOff)).await;
    }
}

/// How many pods have a place, those that are about to end too: each of them may have a server on the one volume.
async fn placed(site: &Site<'_>) -> (usize, usize) {
    let pods = pods(site).await;
    let placed = pods.iter().filter(|pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())).count();
    (placed, pods.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pods_are_never_on_the_volume() {
    let cluster = LiveCluster::shared().await;
    let site = live(cluster).await;
    comes_up(&site, &ServerSpec::default()).await;
    let (api, [old]) = (site.api::<Pod>().await, <[Pod; 1]>::try_from(pods(&site).await).unwrap());
    let name = old.metadata.name.unwrap();
    // As a server that takes its time to end.
    let hold = |finalizers: serde_json::Value| Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
    api.patch(&name, &PatchParams::default(), &hold(json!(["test.example/hold"]))).await.unwrap();
    api.delete(&name, &DeleteParams::default()).await.unwrap();
    eventually("its successor waits", async || is_unschedulable(&site).await).await;
    assert_eq!(placed(&site).await, (1, 2));
    // Nor are there several at the wish of somebody.
    site.patch("deployment/postgres", "somebody", &json!({"spec": {"replicas": 3}})).await;
    eventually("all are there", async || placed(&site).await.1 == 4).await;
    assert_eq!(placed(&site).await.0, 1);
    api.patch(&name, &PatchParams::default(), &hold(serde_json::Value::Null)).await.unwrap();
    eventually("one of them has its place", async || placed(&site).await == (1, 3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loop_comes_with_the_last_lines_of_the_log() {
    let cluster = LiveCluster::shared().await;
    let site = live(cluster).await;
    let lines = ["LOG:  starting PostgreSQL", "FATAL:  could not write lock file: No space left on device"];
    cluster.previous_logs(&site.namespace, "postgres", &lines).await;
    let picture = Picture::CrashLoopBackOff { restarts: 4, exit_code: 137, reason: "OOMKilled" };
    cluster.show(&site.namespace, &picture).await;
    let seen = async || waits_for(&site, "CrashLoopBackOff").await;
    let (waited, visible) = wait(&site, &ServerSpec::default(), PATIENCE, seen).await;
    waited.error("crash_loop", &["4 times", "exit code 137", "want of memory", lines[0], lines[1], "--previous"]);
    assert!(waited.ended - visible < SOON, "{:?}", waited.ended - visible);

    let told = site.run("deploy --timeout 8s").await.expect_code(6);
    assert!(told.stderr.contains(lines[1]) && told.stderr.contains(" logs postgres-"), "{}", told.stderr);
    // Mended, and the kubelet tries again later: whoever is quicker than it does not fail.
    let (tell, told) = (Arc::new(Notify::new()), Mutex::new(Vec::new()));
    let heard = Arc::clone(&tell);
    let deployer = site.deployer().await.on_event(move |event| {
        if let DeployEvent::Trouble(text) = event {
            told.lock().unwrap().push(text.to_owned());
            tell.notify_one();
        }
    });
    let plan = deployer.deploy(&ServerSpec::default()).await.unwrap();
    assert!(plan.is_empty());
    let mended = async {
        tokio::time::timeout(PATIENCE, heard.notified()).await.expect("it is told");
        cluster.recover(&site.namespace).await;
    };
    let (result, ()) = tokio::join!(deployer.wait(&plan, PATIENCE), mended);
    result.unwrap_or_else(|error| panic!("{error:?}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_fits_nowhere() {
    let site = live(LiveCluster::shared().await).await;
    let big = spec(|spec| spec.memory = "2Ti".parse().ok());
    let (waited, visible) = wait(&site, &big, Duration::from_secs(5), async || is_unschedulable(&site).await).await;
    waited.error("unschedulable", &["fits on no node", "Insufficient memory", "--memory"]);
    let (at, text) = waited.told.first().expect("it is told before");
    assert!(text.contains("Insufficient memory"), "{text}");
    assert!(*at - visible.min(*at) < SOON, "{:?}", *at - visible.min(*at));
    comes_up(&site, &spec(|spec| spec.memory = "1Gi".parse().ok())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_without_a_volume() {
    let cluster = LiveCluster::shared().await;
    let site = live(cluster).await;
    cluster.leave_unbound(&site.namespace).await;
    let seen = async || is_unschedulable(&site).await;
    let (waited, visible) = wait(&site, &ServerSpec::default(), Duration::from_secs(5), seen).await;
    waited.error("claim_pending", &["claim postgres-data", "get storageclass", "--storage-class"]);
    let (at, text) = waited.told.first().expect("it is told before");
    assert!(text.contains("postgres-data"), "{text}");
    assert!(*at - visible.min(*at) < SOON, "{:?}", *at - visible.min(*at));

    let told = site.run("deploy --timeout 6s").await.expect_code(6);
    assert!(told.stderr.contains("claim postgres-data has no volume yet"), "{}", told.stderr);
    let free = json!({"metadata": {"annotations": {"shareddb.test/unbound": null}}});
    let claims: Api<PersistentVolumeClaim> = site.api().await;
    let merge = Patch::Merge(&free);
    claims.patch("postgres-data", &PatchParams::default(), &merge).await.unwrap();
    comes_up(&site, &ServerSpec::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_is_used_up() {
    let site = live(LiveCluster::shared().await).await;
    let quotas: Api<ResourceQuota> = site.api().await;
    let quota = json!({"metadata": {"name": "small"}, "spec": {"hard": {"requests.memory": "64Mi"}}});
    quotas.create(&PostParams::default(), &serde_json::from_value(quota).unwrap()).await.unwrap();
    eventually("the quota counts", async || {
        quotas.get("small").await.unwrap().status.is_some_and(|status| status.hard.is_some())
    })
    .await;
    let seen = async || is_refused(&site).await;
    let (waited, visible) = wait(&site, &ServerSpec::default(), PATIENCE, seen).await;
    waited.error("quota_exceeded", &["small", "requests.memory", "describe quota"]);
    assert!(waited.ended - visible < SOON, "{:?}", waited.ended - visible);
    site.run("deploy --timeout 8s").await.expect_code(6);
    quotas.delete("small", &DeleteParams::default()).await.unwrap();
    comes_up(&site, &ServerSpec::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_the_namespace_does_not_admit() {
    let site = live(LiveCluster::shared().await).await;
    let limits: Api<LimitRange> = site.api().await;
    let limit =
        json!({"metadata": {"name": "small"}, "spec": {"limits": [{"type": "Container", "max": {"memory": "256Mi"}}]}});
    limits.create(&PostParams::default(), &serde_json::from_value(limit).unwrap()).await.unwrap();
    // The API server hears of it a little later, and asks nobody but its own memory.
    let pods: Api<Pod> = site.api().await;
    let probe = json!({"metadata": {"name": "probe"}, "spec": {"containers": [{
        "name": "probe", "image": "probe", "resources": {"limits": {"memory": "1Gi"}},
    }]}});
    let (probe, dry): (Pod, _) =
        (serde_json::from_value(probe).unwrap(), PostParams { dry_run: true, ..PostParams::default() });
    eventually("the limit counts", async || pods.create(&dry, &probe).await.is_err()).await;
    let seen = async || is_refused(&site).await;
    let (waited, visible) = wait(&site, &ServerSpec::default(), PATIENCE, seen).await;
    waited.error("pod_refused", &["does not admit its pod", "maximum memory usage per Container", "administers"]);
    assert!(waited.ended - visible < SOON, "{:?}", waited.ended - visible);
    comes_up(&site, &spec(|spec| spec.memory = "256Mi".parse().ok())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_of_the_namespace_that_is_stricter_than_any_pod() {
    let site = live(LiveCluster::shared().await).await;
    let client = site.cluster.client().await;
    let (api, name) = ("admissionregistration.k8s.io/v1", format!("{}.shareddb.test", site.namespace));
    let post = async |plural: &str, object: serde_json::Value| {
        let request = Request::post(format!("/apis/{api}/{plural}"))
            .header("Content-Type", "application/json")
            .body(object.to_string().into_bytes())
            .unwrap();
        client.request_text(request).await.unwrap();
    };
    post("validatingadmissionpolicies", json!({
        "apiVersion": api, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
        "spec": {
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": site.namespace}},
                "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
            },
            "validations": [{"expression": "false", "message": "images come from registry.example only"}],
        },
    }))
    .await;
    post(
        "validatingadmissionpolicybindings",
        json!({
            "apiVersion": api, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name},
            "spec": {"policyName": name, "validationActions": ["Deny"]},
        }),
    )
    .await;
    let pods: Api<Pod> = site.api().await;
    let probe: Pod = serde_json::from_value(
        json!({"metadata": {"name": "probe"}, "spec": {"containers": [{"name": "probe", "image": "probe"}]}}),
    )
    .unwrap();
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    eventually("the policy counts", async || pods.create(&dry, &probe).await.is_err()).await;
    let seen = async || is_refused(&site).await;
    let (waited, visible) = wait(&site, &ServerSpec::default(), PATIENCE, seen).await;
    waited.error("pod_refused", &["images come from registry.example only"]);
    assert!(waited.ended - visible < SOON, "{:?}", waited.ended - visible);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_ever() {
    let cluster = LiveCluster::shared().await;
    let site = live(cluster).await;
    cluster.show(&site.namespace, &Picture::NotReady).await;
    let begun = Instant::now();
    let told = site.run("deploy --timeout 6s").await.expect_code(7);
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    assert!(
        told.stderr.contains("PostgreSQL starts") && told.stderr.contains("run the same command again"),
        "{}",
        told.stderr
    );
    cluster.recover(&site.namespace).await;
    // The first that comes to the server puts its walls up as well.
    site.run("deploy").await.expect_code(0);
    let done = site.run("deploy").await.expect_code(0);
    assert_eq!(done.stdout, "server/stage unchanged\n", "{}", done.stderr);
}
