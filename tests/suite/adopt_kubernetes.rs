//! A hand-made app whose Secret is in the Kubernetes API is taken over with it, whatever is lost, refused or killed on the way.

use std::collections::BTreeMap;

use hyper::{Method, StatusCode};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use shareddb_core::{ConnectionConfig, Error, Outcome, Provisioner, SecretStore as _};
use shareddb_tests::api_proxy::{ApiProxy, Fault, Seen};
use shareddb_tests::command::outlives;
use shareddb_tests::legacy::{Legacy, OPEN_RULES};
use shareddb_tests::mount::mounted;
use shareddb_tests::proxy::Loss;
use shareddb_tests::server::value;
use shareddb_tests::watch::create_until_unchanged;

use crate::kubernetes::{self, Ground};
use crate::kubernetes_store::secrets;

/// No text: a key that no variable could hold.
const BINARY: (&str, &[u8]) = ("keystore.p12", &[0xff, 0x00, 0xfe]);

/// A server with open rules beside a namespace, and what is laid there by hand.
struct Field {
    ground: Ground,
    api: Api<Secret>,
}

impl Field {
    async fn new(stem: &str) -> Self {
        let ground = Ground::new(stem).await;
        ground.server.set_access_rules(OPEN_RULES).await;
        let api = secrets(ground.cluster, &ground.namespace).await;
        Self { ground, api }
    }

    /// An app with a table of its login's and one of the admin's.
    async fn make(&self) -> Legacy {
        let server = &self.ground.server;
        let legacy = Legacy::make(server, "hand").await;
        legacy.session(server).await.batch_execute("CREATE TABLE mine AS SELECT 1 AS x").await.unwrap();
        let theirs = format!("CREATE TABLE theirs AS SELECT 1 AS x; GRANT ALL ON theirs TO {}", legacy.user);
        server.sql(&legacy.database, &theirs).await;
        legacy
    }

    /// The same with the guide's Secret, as somebody would write it who has more to say.
    async fn make_with_secret(&self) -> Legacy {
        let legacy = self.make().await;
        let mut keys = legacy.keys(&self.ground.server);
        keys.insert("API_KEY".to_owned(), " theirs\n".to_owned());
        self.lay(&legacy, &keys, &json!({"note": "by hand"})).await;
        legacy
    }

    async fn lay(&self, legacy: &Legacy, keys: &BTreeMap<String, String>, annotations: &serde_json::Value) {
        let labels = json!({"app.kubernetes.io/managed-by": "Helm", "team": "blue"});
        let metadata = json!({"name": secret_of(legacy), "labels": labels, "annotations": annotations});
        let secret = json!({"metadata": metadata, "type": "Opaque", "stringData": keys});
        let mut secret: Secret = serde_json::from_value(secret).unwrap();
        secret.data = Some([(BINARY.0.to_owned(), ByteString(BINARY.1.to_vec()))].into());
        self.api.create(&PostParams::default(), &secret).await.unwrap();
    }

    async fn secret(&self, legacy: &Legacy) -> Secret {
        self.api.get(&secret_of(legacy)).await.unwrap()
    }

    async fn provisioner(&self) -> Provisioner {
        self.ground.provisioner(&self.ground.cluster.kubeconfig()).await
    }

    /// Panics unless the password that people have by hand logs in, and the Secret does.
    async fn assert_works(&self, legacy: &Legacy, when: &str) {
        let counts = "SELECT (SELECT count(*) FROM mine) || ' ' || (SELECT count(*) FROM theirs)";
        assert_eq!(value(&legacy.session(&self.ground.server).await, counts).await, "1 1", "{when}");
        let by_secret = self.by_secret(legacy).await.connect().await;
        let by_secret = by_secret.unwrap_or_else(|error| panic!("{when}: by the Secret: {error}"));
        assert_eq!(value(&by_secret, counts).await, "1 1", "{when}: by the Secret");
    }

    /// As a program in a pod reads it.
    async fn by_secret(&self, legacy: &Legacy) -> ConnectionConfig {
        let stored = self.ground.store.load(&secret_of(legacy).parse().unwrap()).await.unwrap().unwrap();
        ConnectionConfig::from_directory(mounted(&stored.data).path()).unwrap()
    }

    /// What an app comes to, on the server and in the Secret: equal for equal apps.
    async fn state(&self, legacy: &Legacy) -> (Vec<String>, Vec<String>) {
        let secret = self.secret(legacy).await;
        let data =
            secret.data.unwrap().into_iter().map(|(key, value)| format!("{key}={}", String::from_utf8_lossy(&value.0)));
        let mut lines: Vec<String> = data.collect();
        let written = |(key, _): &(String, String)| key != "shareddb/write";
        let notes = secret.metadata.annotations.unwrap().into_iter().filter(written);
        lines.extend(notes.chain(secret.metadata.labels.unwrap()).map(|(key, value)| format!("{key}: {value}")));
        lines.push(secret.type_.unwrap());
        (legacy.state(&self.ground.server).await, lines.iter().map(|line| legacy.nameless(line)).collect())
    }

    /// The next run finishes what the last began, and the app is like any other.
    async fn assert_converges(
        &self,
        provisioner: &Provisioner,
        legacy: &Legacy,
        reference: &(Vec<String>, Vec<String>),
        when: &str,
    ) {
        let finished = provisioner.create(&legacy.spec()).await;
        finished.unwrap_or_else(|error| panic!("{when}, again: {error}: {:?}", error.causes()));
        self.assert_works(legacy, when).await;
        create_until_unchanged(provisioner, &legacy.spec()).await;
        assert_eq!(self.state(legacy).await, *reference, "{when}");
        provisioner.drop(&legacy.name, legacy.name.as_str()).await.unwrap();
    }

    /// What an undisturbed adoption comes to.
    async fn reference(&self) -> (Vec<String>, Vec<String>) {
        let (legacy, provisioner) = (self.make_with_secret().await, self.provisioner().await);
        adopt(&provisioner, &legacy).await;
        create_until_unchanged(&provisioner, &legacy.spec()).await;
        let state = self.state(&legacy).await;
        provisioner.drop(&legacy.name, legacy.name.as_str()).await.unwrap();
        state
    }
}

fn secret_of(legacy: &Legacy) -> String {
    format!("{}-db-secret", legacy.name)
}

async fn adopt(provisioner: &Provisioner, legacy: &Legacy) {
    let report = provisioner.create(&legacy.spec()).await;
    let report = report.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
    assert_eq!(report.outcome, Outcome::Adopted);
}

/// Whether a request changes something.
fn is_write(request: &Seen) -> bool {
    request.method != Method::GET && !request.query.contains("dryRun")
}

#[tokio::test]
async fn a_secret_keeps_all_that_was_its_own_and_gets_the_rest_in_one_write() {
    let field = Field::new("taken").await;
    let proxy = ApiProxy::to(field.ground.cluster).await;
    let near = field.ground.provisioner(&proxy.kubeconfig(&field.ground.namespace)).await;
    let legacy = field.make_with_secret().await;
    let before = field.secret(&legacy).await;
    proxy.forget();
    adopt(&near, &legacy).await;
    let writes: Vec<Seen> = proxy.seen().into_iter().filter(is_write).collect();
    assert!(writes.len() == 1 && writes[0].method == Method::PUT, "{:?}", proxy.seen());

    let now = field.secret(&legacy).await;
    assert_eq!(now.type_.as_deref(), Some("Opaque"));
    let (old, new) = (before.data.unwrap(), now.data.unwrap());
    for (key, bytes) in &old {
        assert_eq!(new[key], *bytes, "{key}");
    }
    let added: Vec<&str> = new.keys().filter(|key| !old.contains_key(*key)).map(String::as_str).collect();
    assert!(added.contains(&"DATABASE_URL") && added.contains(&"type"), "{added:?}");
    assert_eq!(new[BINARY.0].0, BINARY.1);
    let (labels, annotations) = (now.metadata.labels.unwrap(), now.metadata.annotations.unwrap());
    for (key, value) in before.metadata.labels.unwrap() {
        assert_eq!(labels[&key], value, "{key}");
    }
    assert_eq!((&*annotations["note"], &*annotations["shareddb/app"]), ("by hand", legacy.name.as_str()));
    field.assert_works(&legacy, "adopted").await;
    create_until_unchanged(&near, &legacy.spec()).await;

    // With the app goes the Secret.
    near.drop(&legacy.name, legacy.name.as_str()).await.unwrap();
    assert!(field.api.get_opt(&secret_of(&legacy)).await.unwrap().is_none());
}

#[tokio::test]
async fn any_call_may_be_lost_or_refused() {
    let field = Field::new("lost").await;
    let reference = field.reference().await;
    let proxy = ApiProxy::to(field.ground.cluster).await;
    let near = field.ground.provisioner(&proxy.kubeconfig(&field.ground.namespace)).await;
    let refused = Fault::Answer(StatusCode::INTERNAL_SERVER_ERROR);
    let mut met = 0;
    for fault in [Fault::Lose(Loss::Request), Fault::Lose(Loss::Answer), refused] {
        for number in 0.. {
            let when = format!("{fault:?} at call {number}");
            let legacy = field.make_with_secret().await;
            proxy.arm(number, fault.clone());
            let result = near.create(&legacy.spec()).await;
            let struck = proxy.disarm() > 0;
            if let Err(error) = &result {
                assert!(struck && error.is_retryable(), "{when}: {error:?}");
            }
            met += usize::from(struck);
            field.assert_works(&legacy, &when).await;
            field.assert_converges(&near, &legacy, &reference, &when).await;
            if !struck {
                break;
            }
        }
    }
    println!("adoption with Kubernetes: {met} calls lost or refused");
    assert!(met >= 3 * 5, "read, a dry run of two, read again, write: {met}");
}

#[tokio::test]
async fn killed_at_any_event_the_next_run_finishes() {
    let field = Field::new("killed").await;
    let reference = field.reference().await;
    let (home, provisioner) = (kubernetes::settings(&field.ground).await, field.provisioner().await);
    for event in 0.. {
        let when = format!("killed at event {event}");
        let legacy = field.make_with_secret().await;
        let done = outlives(&mut kubernetes::mortal_at(&field.ground, &home), &legacy.name, "adopt", event);
        field.assert_works(&legacy, &when).await;
        field.assert_converges(&provisioner, &legacy, &reference, &when).await;
        if done {
            println!("adoption with Kubernetes: {event} crash points");
            assert!(event > 30, "every step has two events: {event}");
            break;
        }
    }
}

#[tokio::test]
async fn what_somebody_writes_into_the_secret_meanwhile_is_never_lost() {
    let field = Field::new("between").await;
    let proxy = ApiProxy::to(field.ground.cluster).await;
    let near = field.ground.provisioner(&proxy.kubeconfig(&field.ground.namespace)).await;
    let mut conflicts = 0;
    for number in 0.. {
        let when = format!("edited before call {number}");
        let legacy = field.make_with_secret().await;
        let (api, name) = (field.api.clone(), secret_of(&legacy));
        let edit = move || {
            let (api, name) = (api.clone(), name.clone());
            async move {
                let edit = json!({"metadata": {"labels": {"team": "red"}}, "stringData": {"API_KEY": "edited"}});
                drop(api.patch(&name, &PatchParams::default(), &Patch::Merge(edit)).await.unwrap());
            }
        };
        proxy.arm(number, Fault::meanwhile(edit));
        let result = near.create(&legacy.spec()).await;
        let struck = proxy.disarm() > 0;
        if let Err(error) = &result {
            assert_eq!(error.code(), "concurrent_change", "{when}: {error:?}");
            conflicts += 1;
        }
        field.assert_works(&legacy, &when).await;
        create_until_unchanged(&near, &legacy.spec()).await;
        field.assert_works(&legacy, &when).await;
        let secret = field.secret(&legacy).await;
        if struck {
            assert_eq!(secret.data.unwrap()["API_KEY"].0, b"edited", "{when}");
            assert_eq!(secret.metadata.labels.unwrap()["team"], "red", "{when}");
        }
        near.drop(&legacy.name, legacy.name.as_str()).await.unwrap();
        if !struck {
            assert!(conflicts >= 2, "between reading and writing there is more than one call: {conflicts} of {number}");
            break;
        }
    }
}

#[tokio::test]
async fn secrets_that_are_stale_absent_in_another_form_or_somebody_elses() {
    let field = Field::new("kinds").await;
    let (server, provisioner) = (&field.ground.server, field.provisioner().await);
    let release = async |legacy: &Legacy| {
        create_until_unchanged(&provisioner, &legacy.spec()).await;
        provisioner.drop(&legacy.name, legacy.name.as_str()).await.unwrap();
    };

    let stale = field.make().await;
    let mut keys = stale.keys(server);
    keys.insert("DB_PASSWORD".to_owned(), "forgotten".to_owned());
    field.lay(&stale, &keys, &json!({})).await;
    adopt(&provisioner, &stale).await;
    field.assert_works(&stale, "stale").await;
    assert_eq!(field.by_secret(&stale).await.user(), format!("{}_2", stale.user));
    assert_eq!(field.secret(&stale).await.data.unwrap()[BINARY.0].0, BINARY.1);
    release(&stale).await;

    let absent = field.make().await;
    adopt(&provisioner, &absent).await;
    field.assert_works(&absent, "absent").await;
    assert_eq!(field.by_secret(&absent).await.user(), format!("{}_2", absent.user));
    assert_eq!(field.secret(&absent).await.type_.as_deref(), Some("servicebinding.io/postgresql"));
    release(&absent).await;

    let url_only = field.make().await;
    let (admin, password) = (server.admin(), url_only.password.replace(' ', "%20"));
    let place = format!("{}:{}/{}", admin.host(), admin.port(), url_only.database);
    let url = format!("postgres://{}:{password}@{place}?sslmode=disable", url_only.user);
    field.lay(&url_only, &[("DATABASE_URL".to_owned(), url.clone())].into(), &json!({})).await;
    adopt(&provisioner, &url_only).await;
    field.assert_works(&url_only, "only a URL").await;
    let data = field.secret(&url_only).await.data.unwrap();
    assert_eq!((&*data["DATABASE_URL"].0, &*data["DB_USER"].0), (url.as_bytes(), url_only.user.as_bytes()));
    release(&url_only).await;

    let foreign = field.make().await;
    field.lay(&foreign, &foreign.keys(server), &json!({"shareddb/app": "another"})).await;
    let (before, catalog) = (field.secret(&foreign).await, server.catalog().await);
    // Nothing of it counts, its names neither.
    let error = provisioner.create(&foreign.spec()).await.unwrap_err();
    assert!(matches!(error, Error::Conflict(_)) && error.causes()[0].starts_with("[secret_taken]"), "{error:?}");
    assert_eq!((field.secret(&foreign).await, server.catalog().await), (before, catalog));
}
