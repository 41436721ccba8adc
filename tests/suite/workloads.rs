//! Who takes a Secret of a namespace, how and since when; and their restart.

use std::collections::BTreeMap;
use std::fmt::Debug;

use futures_util::future::try_join_all;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use k8s_openapi::serde::Serialize;
use k8s_openapi::serde::de::DeserializeOwned;
use kube::ResourceExt as _;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use shareddb_core::{Delivery, Error, KubernetesStore, SecretName, SecretStore, Workload, WorkloadKind};
use shareddb_tests::access::rule;
use shareddb_tests::watch::eventually;
use shareddb_tests::{ApiProxy, Cluster, LiveCluster, TestServer};

use crate::deployed::kubectl;
use crate::kubernetes_store::store;

const SECRET: &str = "shop-db-secret";
const RESTARTED: &str = "kubectl.kubernetes.io/restartedAt";

fn name() -> SecretName {
    SECRET.parse().unwrap()
}

/// A namespace of a cluster, and those who live in it.
struct Place<'a> {
    cluster: &'a Cluster,
    namespace: String,
    store: KubernetesStore,
}

impl<'a> Place<'a> {
    /// One in which pods run.
    async fn live() -> Place<'static> {
        Place::of(LiveCluster::shared().await.cluster()).await
    }

    async fn of(cluster: &'a Cluster) -> Self {
        let namespace = cluster.namespace("workloads").await;
        let store = store(&cluster.kubeconfig(), &namespace).await;
        Self { cluster, namespace, store }
    }

    async fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.cluster.client().await, &self.namespace)
    }

    async fn make<K>(&self, object: Value) -> K
    where
        K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug,
        K: DeserializeOwned + Serialize,
    {
        self.api::<K>().await.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
    }

    async fn workloads(&self) -> Vec<Workload> {
        self.store.workloads(&name()).await.unwrap().unwrap()
    }

    async fn workload(&self, label: &str) -> Workload {
        let all = self.workloads().await;
        all.into_iter()
            .find(|workload| workload.to_string() == label)
            .unwrap_or_else(|| panic!("{label} is not told of"))
    }

    /// Waits until everybody who takes the Secret has so many pods.
    async fn settled(&self, expected: &[(&str, usize)]) -> Vec<Workload> {
        let found = async || self.workloads().await;
        eventually("all pods are told of", async || {
            let told: Vec<(String, usize)> =
                found().await.iter().map(|workload| (workload.to_string(), workload.pods.len())).collect();
            told.iter().map(|(label, pods)| (label.as_str(), *pods)).eq(expected.iter().copied())
        })
        .await;
        found().await
    }

    /// The store as it is for somebody with these rights.
    async fn by(&self, rules: &[PolicyRule]) -> KubernetesStore {
        store(&self.cluster.restricted(&self.namespace, rules).await, &self.namespace).await
    }
}

/// What makes pods of such a description.
fn made(name: &str, pod: &Value) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": pod},
        },
    })
}

fn variable() -> Value {
    let from = json!({"secretKeyRef": {"name": SECRET, "key": "DB_PASSWORD"}});
    json!({"containers": [{"name": "web", "image": "any", "env": [{"name": "PASSWORD", "valueFrom": from}]}]})
}

fn variables(secret: &str) -> Value {
    json!({"containers": [{"name": "web", "image": "any", "envFrom": [{"secretRef": {"name": secret}}]}]})
}

fn mounted(source: &Value, more: &Value) -> Value {
    let (mut volume, mut mount) = (source.clone(), json!({"name": "db", "mountPath": "/etc/db"}));
    volume["name"] = "db".into();
    mount.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"containers": [{"name": "web", "image": "any", "volumeMounts": [mount]}], "volumes": [volume]})
}

/// The same, and no node takes it: a run that ends at once would be over.
fn waiting(mut pod: Value) -> Value {
    pod["nodeSelector"] = json!({"nobody": "has"});
    pod["restartPolicy"] = "Never".into();
    pod
}

/// Somebody of every kind, in every way, and one who takes something else.
async fn populated() -> Place<'static> {
    let place = Place::live().await;
    let found = json!({"reloader.stakater.com/match": "true"});
    place.make::<Secret>(json!({"metadata": {"name": SECRET, "annotations": found}, "data": {}})).await;
    let volume = json!({"secret": {"secretName": SECRET}});
    let mut twice = made("shop", &variable());
    twice["spec"]["replicas"] = 2.into();
    place.make::<Deployment>(twice).await;
    let mut reloaded = made("files", &mounted(&volume, &json!({})));
    reloaded["metadata"]["annotations"] = json!({"reloader.stakater.com/search": "true"});
    place.make::<Deployment>(reloaded).await;
    place.make::<Deployment>(made("one-file", &mounted(&volume, &json!({"subPath": "DB_PASSWORD"})))).await;
    place.make::<Deployment>(made("stranger", &variables("stranger-db-secret"))).await;
    let mut queue = made("queue", &variables(SECRET));
    queue["spec"]["serviceName"] = "queue".into();
    place.make::<StatefulSet>(queue).await;
    let projected = json!({"projected": {"sources": [{"secret": {"name": SECRET}}]}});
    place.make::<DaemonSet>(made("agent", &mounted(&projected, &json!({})))).await;
    let run = json!({"spec": {"template": {"spec": waiting(variables(SECRET))}}});
    let spec = json!({"schedule": "@yearly", "suspend": true, "jobTemplate": run});
    let report: CronJob = place.make(json!({"metadata": {"name": "report"}, "spec": spec})).await;
    let owner = json!([{
        "apiVersion": "batch/v1", "kind": "CronJob", "name": "report", "uid": report.uid(), "controller": true,
    }]);
    for (name, owners) in [("report-29402640", &owner), ("report-now", &owner), ("import", &Value::Null)] {
        let metadata = json!({"name": name, "ownerReferences": owners});
        place.make::<Job>(json!({"metadata": metadata, "spec": run["spec"]})).await;
    }
    place.make::<Pod>(json!({"metadata": {"name": "bare"}, "spec": variable()})).await;
    place
}

const EVERYBODY: [(&str, usize); 8] = [
    ("deployment/files", 1),
    ("deployment/one-file", 1),
    ("deployment/shop", 2),
    ("statefulset/queue", 1),
    ("daemonset/agent", 1),
    ("cronjob/report", 2),
    ("job/import", 1),
    ("pod/bare", 1),
];

#[tokio::test]
async fn everybody_who_takes_a_secret_is_told_of_with_how_and_since_when() {
    let before = Timestamp::now() - SignedDuration::from_secs(1);
    let place = populated().await;
    let found = place.settled(&EVERYBODY).await;
    let how: Vec<Delivery> = found.iter().map(|workload| workload.delivery).collect();
    let variables = Delivery::Environment;
    let expected = [
        Delivery::Mounted,
        Delivery::SubPath,
        variables,
        variables,
        Delivery::Mounted,
        variables,
        variables,
        variables,
    ];
    assert_eq!(how, expected);
    let reloaded: Vec<String> = found.iter().filter(|one| one.reloaded).map(ToString::to_string).collect();
    assert_eq!(reloaded, ["deployment/files"]);
    for pod in found.iter().flat_map(|workload| &workload.pods) {
        assert!(pod.started > before && pod.started <= Timestamp::now(), "{pod:?}");
    }
    assert_eq!(found[3].pods[0].name, "queue-0");
    // What is over has the values no more.
    let pods: Api<Pod> = place.api().await;
    let done = json!({"status": {"phase": "Succeeded"}});
    pods.patch_status("bare", &kube::api::PatchParams::default(), &kube::api::Patch::Merge(done)).await.unwrap();
    place.settled(&EVERYBODY[..7]).await;
    let nobody: SecretName = "nobody-db-secret".parse().unwrap();
    assert_eq!(place.store.workloads(&nobody).await.unwrap(), Some(Vec::new()));
}

/// Waits until nothing that starts now has started in the same second as these pods.
async fn a_second_later(workload: &Workload) {
    let last = workload.pods.iter().map(|pod| pod.started).max().unwrap();
    eventually("the second is over", async || Timestamp::now() > last + SignedDuration::from_secs(1)).await;
}

#[tokio::test]
async fn a_restart_replaces_every_pod_and_touches_one_annotation() {
    let place = populated().await;
    place.settled(&EVERYBODY).await;
    for label in ["deployment/shop", "statefulset/queue", "daemonset/agent"] {
        let old = place.workload(label).await;
        a_second_later(&old).await;
        let before = content(&place, &old).await;
        let asked = Timestamp::now();
        place.store.restart(&old).await.unwrap();
        eventually("all pods are new", async || {
            let new = place.workload(label).await;
            let is_new = |started: Timestamp, name: &str| {
                old.pods.iter().all(|old| started > old.started && (name == "queue-0" || old.name != name))
            };
            new.pods.len() == old.pods.len() && new.pods.iter().all(|pod| is_new(pod.started, &pod.name))
        })
        .await;
        let mut after = content(&place, &old).await;
        let annotations = after["template"]["metadata"]["annotations"].take();
        let moment: Timestamp = annotations[RESTARTED].as_str().unwrap().parse().unwrap();
        assert!(moment.duration_since(asked).abs() < SignedDuration::from_secs(60), "{moment}");
        assert_eq!(annotations.as_object().unwrap().len(), 1, "{annotations}");
        after["template"]["metadata"].as_object_mut().unwrap().remove("annotations");
        assert_eq!(after, before, "{label}");
        let kubeconfig = place.cluster.kubeconfig_in(&place.namespace);
        kubectl(&kubeconfig, &["rollout", "status", label, "--timeout=60s"]).await.expect_code(0);
    }
    let owners = place.api::<Deployment>().await.get("shop").await.unwrap().metadata.managed_fields.unwrap();
    let owner = owners.iter().find(|owner| format!("{:?}", owner.fields_v1).contains(RESTARTED)).unwrap();
    assert_eq!(owner.manager.as_deref(), Some("shareddb"));
}

/// What is wanted of something that makes pods.
async fn content(place: &Place<'_>, workload: &Workload) -> Value {
    let name = &workload.name;
    match workload.kind {
        WorkloadKind::Deployment => json!(place.api::<Deployment>().await.get(name).await.unwrap().spec),
        WorkloadKind::StatefulSet => json!(place.api::<StatefulSet>().await.get(name).await.unwrap().spec),
        _ => json!(place.api::<DaemonSet>().await.get(name).await.unwrap().spec),
    }
}

#[tokio::test]
async fn it_does_to_a_deployment_what_kubectl_does() {
    let place = Place::of(Cluster::shared().await).await;
    let mut seen = Vec::new();
    let kubeconfig = place.cluster.kubeconfig_in(&place.namespace);
    for name in ["ours", "theirs"] {
        place.make::<Deployment>(made(name, &variable())).await;
        match name {
            "ours" => place.store.restart(&place.workload("deployment/ours").await).await.unwrap(),
            _ => drop(kubectl(&kubeconfig, &["rollout", "restart", "deployment/theirs"]).await.expect_code(0)),
        }
        let mut spec = json!(place.api::<Deployment>().await.get(name).await.unwrap().spec);
        assert!(spec["template"]["metadata"]["annotations"][RESTARTED].is_string(), "{spec}");
        spec["template"]["metadata"]["annotations"][RESTARTED] = "then".into();
        seen.push(spec.to_string().replace(name, "NAME"));
    }
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test]
async fn a_restart_that_would_come_to_nothing_is_refused() {
    let place = Place::of(Cluster::shared().await).await;
    let mut paused = made("paused", &variable());
    paused["spec"]["paused"] = true.into();
    place.make::<Deployment>(paused).await;
    let mut by_hand = made("by-hand", &variable());
    by_hand["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
    place.make::<DaemonSet>(by_hand.clone()).await;
    by_hand["spec"]["serviceName"] = "by-hand".into();
    place.make::<StatefulSet>(by_hand).await;
    let run = json!({"spec": {"template": {"spec": waiting(variable())}}});
    let spec = json!({"schedule": "@yearly", "jobTemplate": run});
    place.make::<CronJob>(json!({"metadata": {"name": "report"}, "spec": spec})).await;
    place.make::<Pod>(json!({"metadata": {"name": "bare"}, "spec": variable()})).await;
    let kubeconfig = place.cluster.kubeconfig_in(&place.namespace);
    let refused = kubectl(&kubeconfig, &["rollout", "restart", "deployment/paused"]).await.expect_code(1);
    assert!(refused.stderr.contains("can't restart paused deployment"), "{}", refused.stderr);
    let codes: BTreeMap<&str, &str> = [
        ("deployment/paused", "workload_paused"),
        ("statefulset/by-hand", "workload_on_delete"),
        ("daemonset/by-hand", "workload_on_delete"),
        ("cronjob/report", "restart_unsupported"),
        ("pod/bare", "restart_unsupported"),
    ]
    .into();
    let found = place.workloads().await;
    assert_eq!(found.len(), codes.len(), "{found:?}");
    for workload in &found {
        let error = place.store.restart(workload).await.unwrap_err();
        assert_eq!(Some(&error.code()), codes.get(workload.to_string().as_str()), "{workload}: {error:?}");
        assert!(error.hint().is_some(), "{error:?}");
    }
    for workload in &found[..3] {
        let spec = content(&place, workload).await;
        assert!(spec["template"]["metadata"]["annotations"].is_null(), "{workload}: nothing was changed");
    }
    let gone = Workload::new(WorkloadKind::Deployment, "gone", Delivery::Environment);
    let error = place.store.restart(&gone).await.unwrap_err();
    assert!(matches!(error, Error::NotFound(_)) && error.to_string().contains("no deployment/gone"), "{error:?}");
}

/// The rules of the Role that an error asks for.
fn asked_for(error: &Error) -> Vec<PolicyRule> {
    assert!(matches!(error, Error::PermissionDenied(_)), "{error:?}");
    let (_, role) = error.hint().unwrap().split_once("(kubectl apply -f -): ").unwrap();
    let role: Role = serde_json::from_str(role).unwrap();
    assert_eq!(role.metadata.name.as_deref(), Some("shareddb-workloads"));
    role.rules.unwrap()
}

#[tokio::test]
async fn the_role_is_enough_and_what_is_missing_of_it_is_named() {
    let place = Place::of(Cluster::shared().await).await;
    place.make::<Deployment>(made("shop", &variable())).await;
    let reads = rule(&["secrets"], &["get"]);
    let nobody = place.by(std::slice::from_ref(&reads)).await;
    let rules = asked_for(&nobody.workloads(&name()).await.unwrap_err());
    let enough = place.by(&[&rules[..], std::slice::from_ref(&reads)].concat()).await;
    let found = enough.workloads(&name()).await.unwrap().unwrap();
    assert_eq!(found, place.workloads().await);
    enough.restart(&found[0]).await.unwrap();
    let (mut named, mut done_without) = (0, 0);
    for (index, rule) in rules.iter().enumerate() {
        for resource in rule.resources.as_ref().unwrap() {
            for verb in &rule.verbs {
                let is_tried = verb == "list" || resource == "deployments";
                let mut fewer = rules.clone();
                fewer[index].resources.as_mut().unwrap().retain(|other| other != resource);
                let verbs: Vec<String> = rule.verbs.iter().filter(|other| *other != verb).cloned().collect();
                fewer.push(PolicyRule { resources: Some(vec![resource.clone()]), verbs, ..rule.clone() });
                fewer.retain(|rule| !rule.resources.as_ref().unwrap().is_empty() && !rule.verbs.is_empty());
                fewer.push(reads.clone());
                let fewer = place.by(&fewer).await;
                let listed = fewer.workloads(&name()).await;
                let result = match &listed {
                    Ok(_) => fewer.restart(&found[0]).await,
                    Err(_) => listed.map(drop),
                };
                match result {
                    // Whose a run is can be told by its name.
                    Ok(()) => {
                        assert!(resource == "jobs" || !is_tried, "nobody asks to {verb} {resource}");
                        done_without += 1;
                    }
                    Err(error) => {
                        let missing = format!(r#""resources":["{resource}"],"verbs":["{verb}"]}} is missing"#);
                        assert!(error.hint().unwrap().contains(&missing), "{missing}: {error:?}");
                        assert_eq!(asked_for(&error), rules);
                        named += 1;
                    }
                }
            }
        }
    }
    assert_eq!((named, done_without), (7, 5));
}

#[tokio::test]
async fn many_are_read_page_by_page() {
    let place = Place::of(Cluster::shared().await).await;
    let proxy = ApiProxy::to(place.cluster).await;
    let pods: Api<Pod> = place.api().await;
    let all: Vec<Pod> = (0..250)
        .map(|number| {
            let pod = json!({"metadata": {"name": format!("bare-{number:03}")}, "spec": variable()});
            serde_json::from_value(pod).unwrap()
        })
        .collect();
    let params = PostParams::default();
    for some in all.chunks(25) {
        try_join_all(some.iter().map(|pod| pods.create(&params, pod))).await.unwrap();
    }
    let by_pages = store(&proxy.kubeconfig(&place.namespace), &place.namespace).await;
    let found = by_pages.workloads(&name()).await.unwrap().unwrap();
    let labels: Vec<String> = found.iter().map(ToString::to_string).collect();
    let expected: Vec<String> = (0..250).map(|number| format!("pod/bare-{number:03}")).collect();
    assert_eq!(labels, expected);
    let seen = proxy.seen();
    let pages: Vec<bool> = seen
        .iter()
        .filter(|seen| seen.path.ends_with("/pods"))
        .map(|seen| {
            assert!(seen.query.contains("limit=100"), "{}", seen.query);
            seen.query.contains("continue=")
        })
        .collect();
    assert_eq!(pages, [false, true, true]);
}

#[tokio::test]
async fn of_a_folder_nobody_can_tell() {
    let store = TestServer::shared().await.secrets();
    assert_eq!(store.workloads(&name()).await.unwrap(), None);
    let workload = Workload::new(WorkloadKind::Deployment, "shop", Delivery::Environment);
    assert_eq!(store.restart(&workload).await.unwrap_err().code(), "restart_unsupported");
}
