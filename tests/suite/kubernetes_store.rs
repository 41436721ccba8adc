//! Secrets in the Kubernetes API: what others wrote stays, one winner, and nothing is taken for what it is not.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams, PostParams};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use shareddb_core::{AppName, Error, KubernetesStore, SecretData, SecretName, SecretStore};
use shareddb_tests::access::rule;
use shareddb_tests::api_proxy::{ApiProxy, Fault};
use shareddb_tests::cluster::Cluster;
use shareddb_tests::command::run;
use shareddb_tests::journal::Journal;
use shareddb_tests::proxy::Loss;
use shareddb_tests::{conformance, kubeconfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

pub(crate) async fn store(kubeconfig: &Path, namespace: &str) -> KubernetesStore {
    let cluster = shareddb_core::Cluster::infer().with_kubeconfig(kubeconfig);
    KubernetesStore::new(cluster.namespace(&namespace.parse().unwrap()).await.unwrap())
}

pub(crate) async fn secrets(cluster: &Cluster, namespace: &str) -> Api<Secret> {
    Api::namespaced(cluster.client().await, namespace)
}

fn names() -> (SecretName, AppName) {
    ("my-app-db-secret".parse().unwrap(), "my-app".parse().unwrap())
}

fn data(pairs: &[(&str, &str)]) -> SecretData {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), SecretString::from(*value))).collect()
}

#[tokio::test]
async fn it_does_what_every_store_does() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("conformance").await;
    conformance::secret_store(&store(&cluster.kubeconfig(), &namespace).await).await;
}

#[tokio::test]
async fn a_new_secret_says_what_it_is() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("new").await;
    let (name, app) = names();
    store(&cluster.kubeconfig(), &namespace).await.create(&name, &app, &data(&[("DB_HOST", "h")])).await.unwrap();
    let found = secrets(cluster, &namespace).await.get(name.as_str()).await.unwrap();
    assert_eq!(found.type_.as_deref(), Some("servicebinding.io/postgresql"));
    let labels = found.metadata.labels.unwrap();
    let label = |key: &str| labels[&format!("app.kubernetes.io/{key}")].as_str();
    let found = ["name", "instance", "component", "part-of", "managed-by"].map(label);
    assert_eq!(found, ["postgresql", "my-app", "database", "my-app", "shareddb"]);
}

#[tokio::test]
async fn what_others_wrote_into_a_secret_stays() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("foreign").await;
    let (api, (name, app)) = (secrets(cluster, &namespace).await, names());
    let foreign: Secret = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {
            "name": name.as_str(),
            "labels": {"app.kubernetes.io/managed-by": "Helm", "team": "blue"},
            "annotations": {"note": "by hand"},
        },
        "stringData": {"DB_HOST": "old", "API_KEY": "theirs"},
        "data": {"keystore.p12": "/wD+"},
    }))
    .unwrap();
    api.create(&PostParams::default(), &foreign).await.unwrap();

    let store = store(&cluster.kubeconfig(), &namespace).await;
    store.check(&name).await.unwrap();
    let found = store.load(&name).await.unwrap().unwrap();
    assert_eq!((found.app, found.data["API_KEY"].expose_secret()), (None, "theirs"));
    assert!(!found.data.contains_key("keystore.p12"), "that is no text");
    store.replace(&name, &app, &data(&[("DB_HOST", "new"), ("DB_PORT", "1")]), &found.version).await.unwrap();

    let now = api.get(name.as_str()).await.unwrap();
    let (labels, annotations) = (now.metadata.labels.unwrap(), now.metadata.annotations.unwrap());
    assert_eq!(now.type_.as_deref(), Some("Opaque"));
    assert_eq!((labels["app.kubernetes.io/managed-by"].as_str(), labels["team"].as_str()), ("Helm", "blue"));
    assert_eq!((annotations["note"].as_str(), annotations["shareddb/app"].as_str()), ("by hand", "my-app"));
    let values = now.data.unwrap();
    let value = |key: &str| values[key].0.as_slice();
    assert_eq!([value("DB_HOST"), value("DB_PORT"), value("API_KEY")], [b"new".as_slice(), b"1", b"theirs"]);
    assert_eq!(value("keystore.p12"), [0xff, 0x00, 0xfe]);
    assert_eq!(store.load(&name).await.unwrap().unwrap().app, Some(app));
}

#[tokio::test]
async fn an_immutable_secret_is_told_before_anything_is_done() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("immutable").await;
    let (api, (name, app)) = (secrets(cluster, &namespace).await, names());
    let mut fixed = Secret { immutable: Some(true), ..Secret::default() };
    fixed.metadata.name = Some(name.to_string());
    fixed.data = Some([("A".to_owned(), ByteString(b"1".to_vec()))].into());
    api.create(&PostParams::default(), &fixed).await.unwrap();
    let store = store(&cluster.kubeconfig(), &namespace).await;
    let version = store.load(&name).await.unwrap().unwrap().version;
    for error in [
        store.check(&name).await.unwrap_err(),
        store.replace(&name, &app, &data(&[("A", "2")]), &version).await.unwrap_err(),
    ] {
        assert_eq!(error.code(), "secret_immutable");
        assert!(matches!(error, Error::Conflict(_)) && error.hint().unwrap().contains("delete it"));
    }
}

#[tokio::test]
async fn a_check_writes_nothing() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("check").await;
    let proxy = ApiProxy::to(cluster).await;
    let (store, (name, app)) = (store(&proxy.kubeconfig(&namespace), &namespace).await, names());
    store.check(&name).await.unwrap();
    assert!(store.load(&name).await.unwrap().is_none());
    let version = store.create(&name, &app, &data(&[("A", "1")])).await.unwrap();
    proxy.forget();
    store.check(&name).await.unwrap();
    assert!(proxy.seen().iter().any(|seen| seen.method == "PUT" && seen.query.contains("dryRun=All")));
    assert_eq!(store.load(&name).await.unwrap().unwrap().version, version);
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_looked_for() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("lost").await;
    let proxy = ApiProxy::to(cluster).await;
    let (store, (name, app)) = (store(&proxy.kubeconfig(&namespace), &namespace).await, names());
    let (one, two) = (data(&[("A", "1")]), data(&[("A", "2")]));

    proxy.arm(0, Fault::Lose(Loss::Answer));
    let version = store.create(&name, &app, &one).await.unwrap();
    assert_eq!((proxy.disarm(), &store.load(&name).await.unwrap().unwrap().version), (1, &version));
    // The first request of a replace reads.
    proxy.arm(1, Fault::Lose(Loss::Answer));
    let version = store.replace(&name, &app, &two, &version).await.unwrap();
    assert_eq!((proxy.disarm(), store.load(&name).await.unwrap().unwrap().version), (1, version.clone()));
    proxy.arm(0, Fault::Lose(Loss::Answer));
    store.delete(&name).await.unwrap();
    assert_eq!(proxy.disarm(), 1);

    proxy.arm(0, Fault::Lose(Loss::Request));
    let error = store.create(&name, &app, &one).await.unwrap_err();
    assert!(error.is_retryable() && error.code() == "api_unreachable", "{error:?}");
    proxy.disarm();
    assert!(store.load(&name).await.unwrap().is_none());
    let version = store.create(&name, &app, &one).await.unwrap();
    proxy.arm(1, Fault::Lose(Loss::Request));
    assert!(store.replace(&name, &app, &two, &version).await.unwrap_err().is_retryable());
    proxy.arm(0, Fault::Lose(Loss::Request));
    assert!(store.delete(&name).await.unwrap_err().is_retryable());
    proxy.disarm();
    assert_eq!(store.load(&name).await.unwrap().unwrap().version, version);
}

#[tokio::test]
async fn another_ones_write_is_not_taken_for_a_lost_one() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("other").await;
    let proxy = ApiProxy::to(cluster).await;
    let (near, far) =
        (store(&proxy.kubeconfig(&namespace), &namespace).await, store(&cluster.kubeconfig(), &namespace).await);
    let (name, app) = names();
    let same = data(&[("A", "1")]);
    // The same words by somebody else, in the instant before ours.
    let meanwhile = {
        let (far, name, app, same) = (far.clone(), name.clone(), app.clone(), same.clone());
        move || {
            let (far, name, app, same) = (far.clone(), name.clone(), app.clone(), same.clone());
            async move { drop(far.create(&name, &app, &same).await.unwrap()) }
        }
    };
    proxy.arm(0, Fault::meanwhile(meanwhile));
    assert_eq!(near.create(&name, &app, &same).await.unwrap_err().code(), "secret_exists");
    proxy.disarm();

    let version = far.load(&name).await.unwrap().unwrap().version;
    let edit = {
        let (far, name, app, version) = (far.clone(), name.clone(), app.clone(), version.clone());
        move || {
            let (far, name, app, version) = (far.clone(), name.clone(), app.clone(), version.clone());
            async move { drop(far.replace(&name, &app, &data(&[("A", "by hand")]), &version).await.unwrap()) }
        }
    };
    proxy.arm(1, Fault::meanwhile(edit));
    let error = near.replace(&name, &app, &data(&[("A", "ours")]), &version).await.unwrap_err();
    assert_eq!((proxy.disarm(), error.code(), error.is_retryable()), (1, "concurrent_change", true));
    assert_eq!(far.load(&name).await.unwrap().unwrap().data["A"].expose_secret(), "by hand");
}

#[tokio::test]
async fn only_a_clear_answer_means_that_there_is_none() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("clear").await;
    let proxy = ApiProxy::to(cluster).await;
    let (store, (name, _)) = (store(&proxy.kubeconfig(&namespace), &namespace).await, names());
    for (status, code) in [
        (404, "api_not_found"),
        (500, "api_unavailable"),
        (401, "api_login_rejected"),
        (403, "api_refused"),
        (429, "api_unavailable"),
        (503, "api_unavailable"),
    ] {
        proxy.arm_from(0, Fault::Answer(StatusCode::from_u16(status).unwrap()));
        let error = store.load(&name).await.unwrap_err();
        assert_eq!(error.code(), code, "{status}: {error:?}");
        let told = format!("{error}");
        assert!(told.contains("get secrets") && told.contains(&namespace) && told.contains("context proxy"), "{told}");
    }
    proxy.disarm();
    assert!(store.load(&name).await.unwrap().is_none());
}

#[tokio::test]
async fn a_missing_right_is_named_with_the_role_that_has_it() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("rights").await;
    let (name, app) = names();
    let all = ["get", "create", "update", "delete"];
    let exact = cluster.restricted(&namespace, &[rule(&["secrets"], &all)]).await;
    let exact = store(&exact, &namespace).await;
    exact.check(&name).await.unwrap();
    let version = exact.create(&name, &app, &data(&[("A", "1")])).await.unwrap();
    exact.check(&name).await.unwrap();
    exact.replace(&name, &app, &data(&[("A", "2")]), &version).await.unwrap();
    let other: SecretName = "absent".parse().unwrap();
    for missing in all {
        let verbs: Vec<&str> = all.into_iter().filter(|verb| *verb != missing).collect();
        let few = cluster.restricted(&namespace, &[rule(&["secrets"], &verbs)]).await;
        let few = store(&few, &namespace).await;
        let version = exact.load(&name).await.unwrap().unwrap().version;
        let results = [
            few.load(&name).await.map(drop),
            few.check(&other).await,
            few.replace(&name, &app, &data(&[("A", "3")]), &version).await.map(drop),
            few.delete(&other).await,
        ];
        let error = match missing {
            "get" => results.into_iter().next().unwrap().unwrap_err(),
            _ => results.into_iter().find_map(Result::err).unwrap(),
        };
        assert!(matches!(error, Error::PermissionDenied(_)), "{missing}: {error:?}");
        let told = error.to_string();
        assert!(told.contains(&format!("cannot {missing} secrets in namespace {namespace}")), "{told}");
        let (rule, role) = error.hint().unwrap().split_once(" is missing: ").unwrap();
        assert!(rule.ends_with(&format!(r#""resources":["secrets"],"verbs":["{missing}"]}}"#)), "{rule}");
        let role: serde_json::Value = serde_json::from_str(role.split_once("-): ").unwrap().1).unwrap();
        assert_eq!(role["rules"][0]["verbs"], json!(all));
        assert_eq!(role["metadata"]["namespace"], namespace.as_str());
    }
}

#[tokio::test]
async fn a_namespace_that_is_not_there_is_named() {
    let cluster = Cluster::shared().await;
    let store = store(&cluster.kubeconfig(), "no-such").await;
    let error = store.check(&names().0).await.unwrap_err();
    assert_eq!(error.code(), "namespace_not_found");
    assert!(error.hint().unwrap().contains("create namespace no-such"));
}

#[tokio::test]
async fn a_token_that_has_ended_is_told() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("token").await;
    cluster.service_account(&namespace, "robot", &[rule(&["secrets"], &["get"])]).await;
    for (seconds, code) in [(600, None), (-120, Some("api_login_rejected"))] {
        let token = cluster.token(&namespace, "robot", seconds).await;
        let path = cluster.kubeconfig_of("robot", &namespace, kubeconfig::Credential::Token(token));
        let loaded = store(&path, &namespace).await.load(&names().0).await;
        assert_eq!(loaded.as_ref().err().map(Error::code), code, "{loaded:?}");
        if let Err(error) = loaded {
            assert!(error.hint().unwrap().contains("log in to the cluster again"));
        }
    }
}

#[tokio::test]
async fn a_context_that_is_not_there_is_named_with_those_that_are() {
    let cluster = Cluster::shared().await;
    let place = shareddb_core::Cluster::infer().with_kubeconfig(cluster.kubeconfig());
    let namespace = "default".parse().unwrap();
    let error = place.clone().with_context("wrong").namespace(&namespace).await.unwrap_err();
    assert_eq!(error.code(), "context_not_found");
    assert!(error.hint().unwrap().contains("admin"), "{error:?}");
    let error = place.with_kubeconfig("/no/such/file").namespace(&namespace).await.unwrap_err();
    assert!(matches!(error, Error::NotFound(_)), "{error:?}");
}

#[tokio::test]
async fn an_api_server_that_is_away_or_slow() {
    let cluster = Cluster::start().await;
    let namespace = cluster.namespace("away").await;
    let store = Arc::new(store(&cluster.kubeconfig(), &namespace).await);
    let (name, app) = names();
    store.create(&name, &app, &data(&[("A", "1")])).await.unwrap();
    cluster.stop();
    let begun = Instant::now();
    let error = store.load(&name).await.unwrap_err();
    assert!(error.code() == "api_unreachable" && error.is_retryable(), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(10));
    cluster.restart().await;
    assert!(store.load(&name).await.unwrap().is_some());

    let proxy = ApiProxy::to(&cluster).await;
    let slow = self::store(&proxy.kubeconfig(&namespace), &namespace).await;
    proxy.arm_from(0, Fault::Delay(Duration::from_secs(2)));
    assert!(slow.load(&name).await.unwrap().is_some());
}

#[tokio::test]
async fn a_secret_that_is_going_is_neither_there_nor_gone() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("going").await;
    let (api, (name, app)) = (secrets(cluster, &namespace).await, names());
    let store = store(&cluster.kubeconfig(), &namespace).await;
    let version = store.create(&name, &app, &data(&[("A", "1")])).await.unwrap();
    let held = Patch::Merge(json!({"metadata": {"finalizers": ["example.com/hold"]}}));
    api.patch(name.as_str(), &PatchParams::default(), &held).await.unwrap();
    for error in [
        store.delete(&name).await.unwrap_err(),
        store.load(&name).await.unwrap_err(),
        store.check(&name).await.unwrap_err(),
        store.replace(&name, &app, &data(&[("A", "2")]), &version).await.unwrap_err(),
    ] {
        assert_eq!(error.code(), "secret_terminating", "{error:?}");
        assert!(error.hint().unwrap().contains("finalizers"));
    }
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    api.patch(name.as_str(), &PatchParams::default(), &free).await.unwrap();
    assert!(store.load(&name).await.unwrap().is_none());
}

#[tokio::test]
async fn a_login_program_that_fails_or_hangs_tells_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = |script: &str| {
        let path = folder.path().join("config");
        let user = json!({"exec": {
            "apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": ["-c", script],
            "env": [{"name": "WORD", "value": "m4rker"}], "interactiveMode": "Never",
        }});
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it's",
            "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "it's", "context": {"cluster": "c", "user": "u"}}],
        });
        std::fs::write(&path, text.to_string()).unwrap();
        shareddb_core::Cluster::infer().with_kubeconfig(path)
    };
    let namespace = "default".parse().unwrap();
    for script in ["echo m4rker; exit 3", "echo m4rker: {", "printf '{\"status\": \"m4rker\"}'"] {
        let error = kubeconfig(script).namespace(&namespace).await.unwrap_err();
        let told = format!("{error} {error:?} {:?} {:?}", error.hint(), error.causes());
        assert!(error.code() == "api_login_failed" && !told.contains("m4rker"), "{script}: {told}");
        assert!(error.hint().unwrap().contains(r"--context 'it'\''s' get"), "{told}");
    }
    let two_lines = r#"printf '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"m4\\nrker"}}'"#;
    let error = kubeconfig(two_lines).namespace(&namespace).await.unwrap_err();
    assert!(matches!(error, Error::InvalidInput(_)), "{error:?}");
}

#[tokio::test]
async fn a_kubeconfig_that_does_not_come_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config");
    run(Command::new("mkfifo").arg(&path)).expect_code(0);
    let cluster = shareddb_core::Cluster::infer().with_kubeconfig(&path);
    let error = cluster.namespace(&"default".parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, Error::Timeout(_)) && error.code() == "kubeconfig_timeout", "{error:?}");
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    // Whoever still reads is let go.
    std::fs::write(&path, "").unwrap();
}

#[tokio::test]
async fn what_is_no_word_of_the_api_is_not_repeated() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("echo").await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config");
    kubeconfig::Kubeconfig {
        context: "echo",
        server: &server,
        authority: None,
        namespace: &namespace,
        credential: kubeconfig::Credential::Anonymous,
    }
    .write(&path);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let body = "<html>m4rker</html>";
            let head =
                format!("HTTP/1.1 502 Bad Gateway\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        }
    });
    let error = store(&path, &namespace).await.load(&names().0).await.unwrap_err();
    let told = format!("{error} {error:?} {:?}", error.causes());
    assert!(told.contains("502") && !told.contains("m4rker"), "{told}");
}

#[tokio::test]
async fn no_log_has_what_a_secret_holds() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("journal").await;
    let proxy = ApiProxy::to(cluster).await;
    let store = store(&proxy.kubeconfig(&namespace), &namespace).await;
    let (name, app) = names();
    let secret = data(&[("DB_PASSWORD", "m4rker-s3cret"), ("DB_HOST", "h")]);
    let encoded = STANDARD.encode("m4rker-s3cret");
    let (journal, _guard) = Journal::begin();
    // A Status that repeats the request, as one of an admission plugin may; something in between that does; the object itself.
    let echoes: [fn(&str) -> String; 4] = [
        |body| {
            json!({"kind": "Status", "status": "Failure", "message": body, "reason": "Invalid", "code": 422})
                .to_string()
        },
        |body| format!("<html>{body}</html>"),
        str::to_owned,
        |body| format!("{body}{{"),
    ];
    for echo in echoes {
        for status in [StatusCode::UNPROCESSABLE_ENTITY, StatusCode::BAD_GATEWAY, StatusCode::OK] {
            proxy.arm_from(0, Fault::Reply(status, echo));
            let _ = store.create(&name, &app, &secret).await;
            assert_eq!(proxy.seen()[0].method, "POST");
        }
    }
    proxy.disarm();
    let version = store.create(&name, &app, &secret).await.unwrap();
    assert!(store.load(&name).await.unwrap().is_some());
    store.replace(&name, &app, &secret, &version).await.unwrap();
    assert!(store.create(&name, &app, &secret).await.is_err());
    store.delete(&name).await.unwrap();
    let text = journal.text();
    assert!(text.contains("DEBUG") && text.contains("requesting"), "the client does log: {text}");
    for word in ["m4rker", encoded.as_str()] {
        assert!(!text.contains(word), "{text}");
    }
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_to_its_end() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("flood").await;
    let proxy = ApiProxy::to(cluster).await;
    let store = store(&proxy.kubeconfig(&namespace), &namespace).await;
    let (name, app) = names();
    for status in [StatusCode::OK, StatusCode::CONFLICT, StatusCode::BAD_GATEWAY] {
        proxy.arm_from(0, Fault::Flood(status));
        for result in [store.load(&name).await.map(drop), store.create(&name, &app, &data(&[])).await.map(drop)] {
            let error = result.unwrap_err();
            assert_eq!((error.code(), error.is_retryable()), ("api_answer_too_long", false), "{error:?}");
            assert!(error.to_string().contains("8 MiB") && error.hint().is_some(), "{error:?}");
        }
    }
    proxy.disarm();
    // Everything that a Secret can hold is read.
    let large = data(&[("DB_PASSWORD", &"x".repeat(1_000_000))]);
    store.create(&name, &app, &large).await.unwrap();
    assert_eq!(store.load(&name).await.unwrap().unwrap().data["DB_PASSWORD"].expose_secret().len(), 1_000_000);
}
