//! What a deploy does not do, and how it says so: nothing is changed, and whoever reads it knows what to do.

use std::collections::BTreeMap;

use hyper::Method;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use shareddb_core::{Error, ServerSpec};
use shareddb_tests::Cluster;
use shareddb_tests::server::unique;

use crate::deploy::{Site, deployer, spec};

/// It is refused by a plan and by a deploy in the same words, with a hint, and every object is as it was.
async fn refusal(site: &Site<'_>, spec: &ServerSpec) -> Error {
    let before = site.versions().await;
    let deployer = site.deployer().await;
    let planned = deployer.plan(spec).await.unwrap_err();
    let error = deployer.deploy(spec).await.unwrap_err();
    assert_eq!(planned.to_string(), error.to_string());
    assert!(error.hint().is_some(), "{error}");
    assert_eq!(site.versions().await, before, "{error}");
    error
}

#[track_caller]
fn assert_refused(error: &Error, code: &str, words: &[&str]) {
    assert!(matches!(error, Error::Refused(_)), "{error:?}");
    assert_told(error, code, words);
}

/// Message and hint hold these words.
#[track_caller]
fn assert_told(error: &Error, code: &str, words: &[&str]) {
    assert_eq!(error.code(), code, "{error}");
    let text = format!("{error}\n{}", error.hint().unwrap_or_default());
    for word in words {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[tokio::test]
async fn what_would_lose_data_is_refused() {
    let site = Site::deployed().await;
    let refused = async |edit: fn(&mut ServerSpec), code: &str, words: &[&str]| {
        assert_refused(&refusal(&site, &spec(edit)).await, code, words);
    };
    refused(
        |spec| spec.image = "postgres:16-alpine".parse().ok(),
        "major_fixed",
        &["PostgreSQL 15", "second environment"],
    )
    .await;
    refused(|spec| spec.image = "postgres:15".parse().ok(), "flavour_fixed", &["sort text differently"]).await;
    refused(|spec| spec.storage = "5Gi".parse().ok(), "storage_shrinks", &["10Gi", "5Gi"]).await;
    refused(|spec| spec.storage_class = Some("fast".into()), "claim_fixed", &["storage class", "fast"]).await;
    refused(
        |spec| spec.access_mode = Some(shareddb_core::AccessMode::ReadWriteOncePod),
        "claim_fixed",
        &["access mode"],
    )
    .await;

    site.call(Method::DELETE, "secret/postgres-admin", "", &Value::Null).await;
    refused(|_| {}, "admin_secret_missing", &["postgres-admin", "create secret"]).await;
    let secret = json!({"metadata": {"name": "postgres-admin"}, "stringData": {"username": "postgres"}});
    site.call(Method::POST, "secret", "", &secret).await;
    refused(|_| {}, "admin_secret_missing", &["no password in"]).await;
    site.patch("secret/postgres-admin", "somebody", &json!({"stringData": {"password": "known"}})).await;
    assert!(!site.deployer().await.deploy(&ServerSpec::default()).await.unwrap().is_empty());

    // The claim goes, though its pod may still have it.
    site.patch(
        "persistentvolumeclaim/postgres-data",
        "somebody",
        &json!({"metadata": {"finalizers": ["test.example/hold"]}}),
    )
    .await;
    site.call(Method::DELETE, "persistentvolumeclaim/postgres-data", "", &Value::Null).await;
    refused(|_| {}, "claim_terminating", &["being deleted", "back the data up"]).await;
    site.patch("persistentvolumeclaim/postgres-data", "somebody", &json!({"metadata": {"finalizers": null}})).await;
    refused(|_| {}, "claim_lost", &["data are lost", " delete "]).await;
}

#[tokio::test]
async fn a_namespace_is_made_when_that_is_asked_for() {
    let (cluster, namespace) = (Cluster::shared().await, unique("absent").to_string());
    let site = Site { namespace, ..Site::of(cluster).await };
    let error = site.deployer().await.deploy(&ServerSpec::default()).await.unwrap_err();
    assert!(matches!(error, Error::NotFound(_)), "{error:?}");
    assert_told(&error, "namespace_not_found", &["--create-namespace", "-n"]);
    let told = site.run("deploy").await.expect_code(4);
    assert!(told.stderr.contains(&site.namespace), "{}", told.stderr);

    let make = spec(|spec| spec.create_namespace = true);
    let plan = site.deployer().await.plan(&make).await.unwrap();
    assert_eq!(plan.changes().next().unwrap().object, format!("namespace/{}", site.namespace));
    assert!(site.objects().await.is_empty());
    let shown = site.run("deploy --create-namespace --dry-run").await.expect_code(0);
    assert!(shown.stdout.starts_with(&format!("  + namespace/{}\n", site.namespace)), "{}", shown.stdout);
    site.deployer().await.deploy(&make).await.unwrap();
    assert_eq!(site.objects().await.len(), crate::deploy::SERVER.len());
    assert!(site.deployer().await.deploy(&make).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_somebody_else_made_is_left_alone() {
    let site = Site::new().await;
    let claim = json!({"metadata": {"name": "postgres-data"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
    }});
    site.call(Method::POST, "persistentvolumeclaim", "", &claim).await;
    let error = refusal(&site, &ServerSpec::default()).await;
    assert_refused(&error, "claim_foreign", &["postgres-data", "delete pvc", "--adopt"]);

    let site = Site::new().await;
    let labels = json!({"app": "database"});
    let deployment = json!({"metadata": {"name": "postgres"}, "spec": {
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "db", "image": "postgres:15"}]}},
    }});
    site.call(Method::POST, "deployment", "", &deployment).await;
    let error = refusal(&site, &ServerSpec::default()).await;
    assert_refused(&error, "deployment_foreign", &["deployment/postgres", "no claim", "--adopt --dry-run"]);
}

#[tokio::test]
async fn a_field_of_somebody_else_is_a_conflict_that_names_him() {
    let site = Site::deployed().await;
    site.patch("deployment/postgres", "kubectl-scale", &json!({"spec": {"replicas": 0}})).await;
    let error = refusal(&site, &spec(|spec| spec.connections = Some(200))).await;
    assert!(matches!(error, Error::Conflict(_)), "{error:?}");
    assert_told(&error, "field_owned", &["deployment/postgres", ".spec.replicas", "kubectl-scale", "is 0, to be 1"]);
    assert!(!error.hint().unwrap().contains("dry run"), "{error:?}");
    let told = site.run("deploy").await.expect_code(5);
    assert!(told.stderr.contains("kubectl-scale") && told.stderr.contains(".spec.replicas"), "{}", told.stderr);
    site.patch("deployment/postgres", "kubectl-scale", &json!({"spec": {"replicas": 1}})).await;
    assert!(
        site.deployer().await.deploy(&ServerSpec::default()).await.unwrap().is_empty(),
        "the same value is no conflict"
    );

    let image = json!([{"name": "postgres", "image": "postgres:15.3-alpine"}]);
    let edit = json!({"spec": {"template": {"spec": {"containers": image}}}});
    let request = hyper::Request::patch(format!(
        "/apis/apps/v1/namespaces/{}/deployments/postgres?fieldManager=kubectl-edit",
        site.namespace
    ))
    .header("Content-Type", "application/strategic-merge-patch+json")
    .body(edit.to_string().into_bytes())
    .unwrap();
    site.cluster.client().await.request_text(request).await.unwrap();
    let error = refusal(&site, &ServerSpec::default()).await;
    assert_told(
        &error,
        "field_owned",
        &["image", "kubectl-edit", "is \"postgres:15.3-alpine\", to be \"postgres:15-alpine\""],
    );
    // What it would not change in any case is nobody's business.
    site.patch("deployment/postgres", "kubectl-annotate", &json!({"metadata": {"annotations": {"team": "shop"}}}))
        .await;
    let found = spec(|spec| spec.image = "postgres:15.3-alpine".parse().ok());
    site.deployer().await.deploy(&found).await.unwrap();
    assert_eq!(site.read("deployment/postgres").await["metadata"]["annotations"]["team"], "shop");
}

#[tokio::test]
async fn what_cannot_change_is_explained() {
    let site = Site::deployed().await;
    site.patch("configmap/postgres-config", "somebody", &json!({"immutable": true})).await;
    let error = refusal(&site, &spec(|spec| spec.connections = Some(200))).await;
    assert_refused(&error, "field_fixed", &["configmap/postgres-config", "immutable"]);

    let site = Site::deployed().await;
    let secret = json!({"metadata": {"name": "postgres-tls"}, "type": "Opaque", "data": {}});
    site.call(Method::POST, "secret", "", &secret).await;
    let error = refusal(&site, &spec(|spec| spec.tls = Some(true))).await;
    assert_told(&error, "field_owned", &["secret/postgres-tls", ".type"]);
}

#[tokio::test]
async fn another_authority_is_not_taken_for_that_of_the_apps() {
    let (site, other) = (Site::new().await, Site::new().await);
    let tls = spec(|spec| spec.tls = Some(true));
    for site in [&site, &other] {
        site.deployer().await.deploy(&tls).await.unwrap();
    }
    let taken = json!({"data": other.read("secret/postgres-ca").await["data"]});
    site.patch("secret/postgres-ca", "somebody", &taken).await;
    let error = refusal(&site, &ServerSpec::default()).await;
    assert_refused(&error, "authority_other", &["postgres-ca", "delete secret postgres-tls", "shareddb create"]);

    // Whoever wants it so is told what follows.
    site.call(Method::DELETE, "secret/postgres-tls", "", &Value::Null).await;
    let told = "another authority vouches for the server";
    let plan = site.deployer().await.deploy(&ServerSpec::default()).await.unwrap();
    assert!(plan.notices.iter().any(|notice| notice.contains(told)), "{:?}", plan.notices);
    let plan = site.deployer().await.plan(&ServerSpec::default()).await.unwrap();
    assert!(plan.is_empty() && !plan.notices.iter().any(|notice| notice.contains(told)), "{:?}", plan.notices);

    // So too where it is broken, by what the hint says.
    site.patch("secret/postgres-ca", "somebody", &json!({"stringData": {"tls.key": "no key"}})).await;
    let error = site.deployer().await.deploy(&ServerSpec::default()).await.unwrap_err();
    assert_told(&error, "authority_damaged", &[" delete secret postgres-ca postgres-tls"]);
    for secret in ["secret/postgres-ca", "secret/postgres-tls"] {
        site.call(Method::DELETE, secret, "", &Value::Null).await;
    }
    let plan = site.deployer().await.deploy(&ServerSpec::default()).await.unwrap();
    assert!(plan.notices.iter().any(|notice| notice.contains(told)), "{:?}", plan.notices);
}

/// A class of volumes that nobody makes.
async fn storage_class(cluster: &Cluster, grows: Option<bool>) -> String {
    let name = unique("class").to_string();
    let classes: Api<StorageClass> = Api::all(cluster.client().await);
    let class = json!({"metadata": {"name": name}, "provisioner": "test.example/none", "allowVolumeExpansion": grows});
    classes.create(&PostParams::default(), &serde_json::from_value(class).unwrap()).await.unwrap();
    name
}

#[tokio::test]
async fn a_volume_grows_where_its_class_lets_it() {
    let cluster = Cluster::shared().await;
    let bound =
        json!({"status": {"phase": "Bound", "capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"]}});
    let site_of = async |grows| {
        let (site, class) = (Site::of(cluster).await, storage_class(cluster, grows).await);
        site.deployer().await.deploy(&spec(|spec| spec.storage_class = Some(class.clone()))).await.unwrap();
        (site, class)
    };
    let more = spec(|spec| spec.storage = "20Gi".parse().ok());

    let (site, _) = site_of(Some(true)).await;
    let error = refusal(&site, &more).await;
    assert_refused(&error, "storage_fixed", &["postgres-data", "10Gi", "20Gi", "no volume yet"]);
    site.patch("persistentvolumeclaim/postgres-data/status", "somebody", &bound).await;
    site.deployer().await.deploy(&more).await.unwrap();
    let claim = site.read("persistentvolumeclaim/postgres-data").await;
    assert_eq!(claim["spec"]["resources"]["requests"]["storage"], "20Gi");
    assert!(site.deployer().await.deploy(&ServerSpec::default()).await.unwrap().is_empty(), "it is kept");
    assert_refused(
        &refusal(&site, &spec(|spec| spec.storage = "10Gi".parse().ok())).await,
        "storage_shrinks",
        &["20Gi"],
    );

    for grows in [Some(false), None] {
        let (site, _) = site_of(grows).await;
        site.patch("persistentvolumeclaim/postgres-data/status", "somebody", &bound).await;
        let error = refusal(&site, &more).await;
        assert_refused(&error, "storage_fixed", &["postgres-data", "storage class", "allowVolumeExpansion"]);
        // Everything else can be had all the same.
        site.deployer().await.deploy(&spec(|spec| spec.memory = "1Gi".parse().ok())).await.unwrap();
    }

    // Who has made it larger by hand has decided for both.
    let (site, _) = site_of(Some(true)).await;
    site.patch("persistentvolumeclaim/postgres-data/status", "somebody", &bound).await;
    let larger = json!({"spec": {"resources": {"requests": {"storage": "30Gi"}}}});
    site.patch("persistentvolumeclaim/postgres-data", "kubectl-edit", &larger).await;
    site.deployer().await.deploy(&ServerSpec::default()).await.unwrap();
    assert!(site.deployer().await.deploy(&ServerSpec::default()).await.unwrap().is_empty());
    let claim = site.read("persistentvolumeclaim/postgres-data").await;
    assert_eq!(claim["spec"]["resources"]["requests"]["storage"], "30Gi");
}

#[tokio::test]
async fn a_quota_on_volumes_is_told_before_anything_is_made() {
    let site = Site::new().await;
    let hard = json!({"requests.storage": "5Gi"});
    let quota = json!({"metadata": {"name": "small"}, "spec": {"hard": hard}});
    site.call(Method::POST, "resourcequota", "", &quota).await;
    // Nobody counts here; whoever does would have written this.
    let counted = json!({"status": {"hard": hard, "used": {"requests.storage": "0"}}});
    site.patch("resourcequota/small/status", "somebody", &counted).await;
    let error = refusal(&site, &ServerSpec::default()).await;
    assert_refused(&error, "quota_exceeded", &["postgres-data", "small", "requests.storage", "describe quota"]);
    assert!(site.objects().await.is_empty());
    site.deployer().await.deploy(&spec(|spec| spec.storage = "4Gi".parse().ok())).await.unwrap();
}

#[tokio::test]
async fn an_object_that_is_about_to_go_is_waited_for() {
    let site = Site::deployed().await;
    for object in ["deployment/postgres", "service/postgres-service", "secret/postgres-admin"] {
        let hold = json!({"metadata": {"finalizers": ["test.example/hold"]}});
        site.patch(object, "somebody", &hold).await;
        site.call(Method::DELETE, object, "", &Value::Null).await;
        let error = refusal(&site, &spec(|spec| spec.memory = "1Gi".parse().ok())).await;
        assert!(matches!(error, Error::Conflict(_)), "{error:?}");
        assert_told(&error, "object_terminating", &[object, "being deleted", "wait --for=delete"]);
        site.patch(object, "somebody", &json!({"metadata": {"finalizers": null}})).await;
        if object == "secret/postgres-admin" {
            break;
        }
        site.deployer().await.deploy(&ServerSpec::default()).await.unwrap();
    }
    let before: BTreeMap<String, String> = site.versions().await;
    assert!(!before.contains_key("secret/postgres-admin"));

    // The same of all of them together.
    let (namespace, client) = (&site.namespace, site.cluster.client().await);
    let request = hyper::Request::delete(format!("/api/v1/namespaces/{namespace}")).body(Vec::new()).unwrap();
    client.request_text(request).await.unwrap();
    let error = deployer(&site.cluster.kubeconfig(), namespace).await.deploy(&ServerSpec::default()).await.unwrap_err();
    assert!(error.hint().is_some(), "{error}");
}
