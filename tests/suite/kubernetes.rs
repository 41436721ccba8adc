//! Apps whose Secrets are in the Kubernetes API: any call may fail, any run be killed, and others are at work.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use futures_util::future::join_all;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use shareddb_core::{
    AppName, AppSpec, Error, Event, KubernetesStore, Outcome, Provisioner, Result, SecretStore as _, Server, Step,
};
use shareddb_tests::TestServer;
use shareddb_tests::access::rule;
use shareddb_tests::api_proxy::{ApiProxy, Fault};
use shareddb_tests::cluster::Cluster;
use shareddb_tests::command::{mortal, outlives};
use shareddb_tests::proxy::Loss;
use shareddb_tests::server::unique;
use shareddb_tests::watch::{Gate, Watch};

use crate::kubernetes_store::{secrets, store};

/// What its file and its marks call the environment.
const SHOP: &str = "shop";

/// A server, a namespace, and an app's name.
pub(crate) struct Ground {
    pub(crate) cluster: &'static Cluster,
    pub(crate) server: TestServer,
    pub(crate) namespace: String,
    pub(crate) store: KubernetesStore,
    pub(crate) name: AppName,
}

impl Ground {
    pub(crate) async fn new(stem: &str) -> Self {
        Self::on(Cluster::shared().await, stem).await
    }

    pub(crate) async fn on(cluster: &'static Cluster, stem: &str) -> Self {
        let (server, namespace) = (TestServer::start().await, cluster.namespace(stem).await);
        let store = store(&cluster.kubeconfig(), &namespace).await;
        Self { cluster, server, namespace, store, name: unique(stem) }
    }

    pub(crate) async fn provisioner(&self, kubeconfig: &Path) -> Provisioner {
        let store = Arc::new(store(kubeconfig, &self.namespace).await);
        Provisioner::new(Server::new(SHOP.parse().unwrap(), self.server.admin(), store))
    }

    fn spec(&self) -> AppSpec {
        AppSpec::new(self.name.clone())
    }

    async fn create(&self, provisioner: &Provisioner) -> Result<Outcome> {
        provisioner.create(&self.spec()).await.map(|report| report.outcome)
    }

    /// The app as it is, and the catalog with and without it.
    async fn watch(&self, provisioner: &Provisioner) -> (Watch<'_>, Vec<String>, Vec<String>) {
        let app = provisioner.create(&self.spec()).await.unwrap().app;
        let with = self.server.catalog().await;
        provisioner.drop(&self.name, self.name.as_str()).await.unwrap();
        let without = self.server.catalog().await;
        (Watch::with_store(&self.server, app, Arc::new(self.store.clone())), with, without)
    }

    /// After a run that was disturbed: safe as it is, and whole after the next.
    async fn assert_converges(&self, watch: &Watch<'_>, provisioner: &Provisioner, with: &[String], when: &str) {
        watch.assert_safe(when).await;
        watch.settle().await;
        self.create(provisioner).await.unwrap_or_else(|error| panic!("{when}, again: {error}"));
        assert_eq!(self.server.catalog().await, with, "{when}");
        watch.assert_works(when).await;
        watch.settle().await;
        assert_eq!(self.create(provisioner).await.unwrap(), Outcome::Unchanged, "{when}");
    }

    async fn damage(&self, host: &str) {
        let patch = json!({"stringData": {"DB_HOST": host}});
        let api = secrets(self.cluster, &self.namespace).await;
        api.patch(&format!("{}-db-secret", self.name), &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }
}

#[tokio::test]
async fn every_call_of_the_api_may_be_lost() {
    let ground = Ground::new("lost").await;
    let proxy = ApiProxy::to(ground.cluster).await;
    let near = ground.provisioner(&proxy.kubeconfig(&ground.namespace)).await;
    let (watch, with, without) = ground.watch(&near).await;
    let mut met = 0;
    for loss in [Loss::Request, Loss::Answer] {
        for verb in ["create", "repair", "drop"] {
            for number in 0.. {
                let when = format!("{verb} without {loss:?} {number}");
                match verb {
                    "create" => {}
                    "repair" => {
                        ground.create(&near).await.unwrap();
                        ground.damage("elsewhere").await;
                    }
                    _ => drop(ground.create(&near).await.unwrap()),
                }
                proxy.arm(number, Fault::Lose(loss));
                let result = match verb {
                    "drop" => near.drop(&ground.name, ground.name.as_str()).await.map(|report| report.outcome),
                    _ => ground.create(&near).await,
                };
                let struck = proxy.disarm() > 0;
                if let Err(error) = &result {
                    assert!(struck && error.is_retryable(), "{when}: {error:?}");
                }
                met += usize::from(struck);
                if verb != "drop" && !(verb == "repair" && result.is_err()) {
                    ground.assert_converges(&watch, &near, &with, &when).await;
                } else if verb == "repair" {
                    ground.create(&near).await.unwrap_or_else(|error| panic!("{when}, again: {error}"));
                    watch.assert_works(&when).await;
                }
                match near.drop(&ground.name, ground.name.as_str()).await {
                    Ok(_) => {}
                    Err(error) => assert_eq!(error.code(), "app_not_found", "{when}: {error:?}"),
                }
                assert_eq!(ground.server.catalog().await, without, "{when}");
                assert!(watch.secret().await.is_none(), "{when}");
                if !struck {
                    break;
                }
            }
        }
    }
    println!("Kubernetes: {met} calls lost");
    assert!(met >= 2 * (3 + 4 + 1), "a create asks three times, a repair five, a drop once: {met}");
}

#[tokio::test]
async fn killed_at_any_event_the_next_run_comes_to_the_same_end() {
    let ground = Ground::new("killed").await;
    let home = settings(&ground).await;
    let provisioner = ground.provisioner(&ground.cluster.kubeconfig()).await;
    let (watch, with, without) = ground.watch(&provisioner).await;
    for verb in ["create", "drop"] {
        for event in 0.. {
            let when = format!("{verb} killed at event {event}");
            if verb == "drop" {
                ground.create(&provisioner).await.unwrap();
            }
            let done = outlives(&mut mortal_at(&ground, &home), &ground.name, verb, event);
            watch.assert_safe(&when).await;
            if verb == "create" {
                ground.assert_converges(&watch, &provisioner, &with, &when).await;
            }
            match provisioner.drop(&ground.name, ground.name.as_str()).await {
                Ok(_) => {}
                Err(error) => assert_eq!(error.code(), "app_not_found", "{when}: {error:?}"),
            }
            assert_eq!(ground.server.catalog().await, without, "{when}");
            assert!(watch.secret().await.is_none(), "{when}");
            if done {
                println!("Kubernetes: {verb}: {event} crash points");
                assert!(event > 15, "every step has two events");
                break;
            }
        }
    }
}

/// A home whose file names the ground's server and namespace as the environment to use.
pub(crate) async fn settings(ground: &Ground) -> PathBuf {
    let admin = ground.server.admin();
    let (home, local) = (ground.server.home().to_owned(), ground.server.local().home());
    let text = format!(
        "default = '{SHOP}'\n[env.{SHOP}]\nadmin_url = 'postgresql://{}@{}:{}/postgres'\nadmin_password_file = '{}'\n\
         namespace = '{}'\n",
        admin.user(),
        admin.host(),
        admin.port(),
        local.password_file().display(),
        ground.namespace
    );
    std::fs::write(home.join("config.toml"), text).unwrap();
    home
}

/// The program that kills itself, with the ground's cluster within reach.
pub(crate) fn mortal_at(ground: &Ground, home: &Path) -> Command {
    let mut command = mortal(home);
    command.env("KUBECONFIG", ground.cluster.kubeconfig());
    command
}

/// For how long the API server is away.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Absence {
    /// It comes back before the call is passed on.
    Short,
    /// It comes back when the create has ended.
    Long,
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_away_at_any_call_delays_a_create_or_ends_it_and_the_next_goes_on() {
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start().await));
    let ground = Ground::on(cluster, "restarted").await;
    let proxy = ApiProxy::to(cluster).await;
    let near = ground.provisioner(&proxy.kubeconfig(&ground.namespace)).await;
    let (watch, with, without) = ground.watch(&near).await;
    for absence in [Absence::Short, Absence::Long] {
        for number in 0.. {
            let when = format!("{absence:?} absence at call {number}");
            let leave = move || async move {
                match absence {
                    Absence::Short => cluster.restart().await,
                    Absence::Long => cluster.stop(),
                }
            };
            proxy.arm(number, Fault::meanwhile(leave));
            let result = ground.create(&near).await;
            let struck = proxy.disarm() > 0;
            if let Err(error) = &result {
                assert!(struck && error.is_retryable() && error.code() == "api_unreachable", "{when}: {error:?}");
                watch.assert_closed_to_public(&when).await;
            }
            if absence == Absence::Long && struck {
                assert!(result.is_err(), "{when}");
                // Whether the Secret could be written is asked before anything is begun.
                assert_eq!(ground.server.catalog().await == without, number < 3, "{when}");
                cluster.restart().await;
            }
            ground.assert_converges(&watch, &near, &with, &when).await;
            near.drop(&ground.name, ground.name.as_str()).await.unwrap();
            println!("{when}: {}", if result.is_ok() { "succeeds" } else { "is told" });
            if !struck {
                assert_eq!(number, 4, "a create reads, reads and tries a write without effect, and writes");
                break;
            }
        }
    }
    // On a connection that is open since before, without a proxy that makes one of its own.
    let (gate, listener) = Gate::at(|event| matches!(event, Event::Begun(Step::PublishSecret { .. })));
    let (direct, spec) = (ground.provisioner(&cluster.kubeconfig()).await.on_event(listener), ground.spec());
    let run = tokio::spawn(async move { direct.create(&spec).await });
    gate.wait();
    cluster.restart().await;
    gate.open();
    if let Err(error) = run.await.unwrap() {
        assert!(error.is_retryable() && error.code() == "api_unreachable", "{error:?}");
    }
    ground.assert_converges(&watch, &near, &with, "an open connection").await;
    // Nobody drops a static, and this one is large.
    cluster.stop();
}

#[tokio::test]
async fn two_machines_make_the_same_app() {
    let ground = Ground::new("two").await;
    let [one, two] = [
        ground.provisioner(&ground.cluster.kubeconfig()).await,
        ground.provisioner(&ground.cluster.kubeconfig()).await,
    ];
    let mut outcomes: Vec<&str> = join_all([ground.create(&one), ground.create(&two)])
        .await
        .into_iter()
        .map(|result| result.unwrap().as_str())
        .collect();
    outcomes.sort_unstable();
    assert_eq!(outcomes, ["created", "unchanged"]);
}

#[tokio::test]
async fn two_servers_want_the_same_secret() {
    let ground = Ground::new("rivals").await;
    let rival = TestServer::start().await;
    let far = Provisioner::new(rival.server_with(rival.admin(), Arc::new(ground.store.clone())));
    let near = ground.provisioner(&ground.cluster.kubeconfig()).await;
    let results = join_all([ground.create(&near), ground.create(&far)]).await;
    let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 1));
    let error = lost.into_iter().next().unwrap().unwrap_err();
    assert!(matches!(error, Error::Conflict(_)), "{error:?}");
    // Whoever won: the Secret works.
    let winner = if ground.create(&near).await.is_ok_and(|outcome| outcome == Outcome::Unchanged) {
        &ground.server
    } else {
        &rival
    };
    let app = near.app(&ground.name).await.unwrap();
    Watch::with_store(winner, app, Arc::new(ground.store.clone())).assert_works("after a race").await;
}

#[tokio::test]
async fn nothing_begins_without_the_right_to_end_it() {
    let ground = Ground::new("rights").await;
    let before = ground.server.catalog().await;
    let few = ground.cluster.restricted(&ground.namespace, &[rule(&["secrets"], &["get"])]).await;
    let error = ground.create(&ground.provisioner(&few).await).await.unwrap_err();
    assert_eq!(error.code(), "api_forbidden");
    assert!(error.to_string().contains("cannot create secrets in namespace"), "{error}");
    let nowhere = store(&ground.cluster.kubeconfig(), "no-such").await;
    let nowhere = Provisioner::new(ground.server.server_with(ground.server.admin(), Arc::new(nowhere)));
    assert_eq!(ground.create(&nowhere).await.unwrap_err().code(), "namespace_not_found");
    assert_eq!(ground.server.catalog().await, before, "something was begun");

    let exact = &[rule(&["secrets"], &["get", "create", "update", "delete"])];
    let exact = ground.provisioner(&ground.cluster.restricted(&ground.namespace, exact).await).await;
    assert_eq!(ground.create(&exact).await.unwrap(), Outcome::Created);
    ground.damage("elsewhere").await;
    assert_eq!(ground.create(&exact).await.unwrap(), Outcome::Configured);
    exact.drop(&ground.name, ground.name.as_str()).await.unwrap();
}

#[tokio::test]
async fn a_secret_of_somebody_else_is_left_alone() {
    let ground = Ground::new("theirs").await;
    let (api, before) = (secrets(ground.cluster, &ground.namespace).await, ground.server.catalog().await);
    let mut theirs = Secret::default();
    theirs.metadata.name = Some(format!("{}-db-secret", ground.name));
    let made = api.create(&PostParams::default(), &theirs).await.unwrap();
    let provisioner = ground.provisioner(&ground.cluster.kubeconfig()).await;
    let error = ground.create(&provisioner).await.unwrap_err();
    assert!(matches!(error, Error::Conflict(_)), "{error:?}");
    assert_eq!(ground.server.catalog().await, before);
    let now = api.get(&theirs.metadata.name.unwrap()).await.unwrap();
    assert_eq!(now.metadata.resource_version, made.metadata.resource_version);
}

#[tokio::test]
async fn a_secret_edited_between_our_reading_and_our_writing_is_a_conflict_and_mended_by_the_next() {
    let ground = Ground::new("between").await;
    let proxy = ApiProxy::to(ground.cluster).await;
    let near = ground.provisioner(&proxy.kubeconfig(&ground.namespace)).await;
    let app = near.create(&ground.spec()).await.unwrap().app;
    ground.damage("elsewhere").await;
    // Read, dry run of two, read again for the write: before the last one somebody edits it.
    let api = secrets(ground.cluster, &ground.namespace).await;
    let secret = app.secret.to_string();
    proxy.arm(
        3,
        Fault::meanwhile(move || {
            let (api, secret) = (api.clone(), secret.clone());
            async move {
                let patch = Patch::Merge(json!({"stringData": {"DB_HOST": "by-hand", "EXTRA": "1"}}));
                drop(api.patch(&secret, &PatchParams::default(), &patch).await.unwrap());
            }
        }),
    );
    let error = ground.create(&near).await.unwrap_err();
    assert_eq!((proxy.disarm(), error.code()), (1, "concurrent_change"), "{error:?}");
    let watch = Watch::with_store(&ground.server, app, Arc::new(ground.store.clone()));
    watch.settle().await;
    assert_eq!(ground.create(&near).await.unwrap(), Outcome::Configured);
    watch.assert_works("after an edit").await;
    let kept = ground.store.load(&watch.app().secret).await.unwrap().unwrap();
    assert!(kept.data.contains_key("EXTRA"), "a key of somebody else's");
}

#[tokio::test]
async fn a_second_create_asks_the_api_once() {
    let ground = Ground::new("count").await;
    let proxy = ApiProxy::to(ground.cluster).await;
    let near = ground.provisioner(&proxy.kubeconfig(&ground.namespace)).await;
    ground.create(&near).await.unwrap();
    println!("create: {} API calls", proxy.seen().len());
    assert!(proxy.seen().len() <= 4, "{:?}", proxy.seen());
    proxy.forget();
    assert_eq!(ground.create(&near).await.unwrap(), Outcome::Unchanged);
    println!("second create: {} API calls", proxy.seen().len());
    assert_eq!(proxy.seen().len(), 1, "{:?}", proxy.seen());
}

#[tokio::test]
async fn two_servers_with_one_place_of_secrets_do_not_take_each_others() {
    let ground = Ground::new("shared").await;
    let rival = TestServer::start().await;
    let far = Provisioner::new(rival.server_with(rival.admin(), Arc::new(ground.store.clone())));
    let near = ground.provisioner(&ground.cluster.kubeconfig()).await;
    let app = near.create(&ground.spec()).await.unwrap().app;
    let before = rival.catalog().await;
    let error = ground.create(&far).await.unwrap_err();
    assert_eq!(error.code(), "secret_elsewhere", "{error:?}");
    assert_eq!(rival.catalog().await, before, "something was begun");
    let watch = Watch::with_store(&ground.server, app, Arc::new(ground.store.clone()));
    watch.assert_works("after the other server's create").await;
    assert_eq!(ground.create(&near).await.unwrap(), Outcome::Unchanged);

    // An app that is there and has lost its Secret to the other server's: that one's stays when it is dropped.
    let other = Provisioner::new(rival.server_with(rival.admin(), Arc::new(rival.secrets())));
    ground.create(&other).await.unwrap();
    assert_eq!(ground.create(&far).await.unwrap_err().code(), "secret_elsewhere");
    let dropped = far.drop(&ground.name, ground.name.as_str()).await.unwrap();
    assert!(dropped.notices.iter().any(|notice| notice.contains("stays")), "{:?}", dropped.notices);
    watch.assert_works("after the other server's drop").await;
}
