//! A pool that follows a Secret in the Kubernetes API.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shareddb_core::{
    AppName, ConnectionConfig, CredentialSource, KubernetesStore, Pool, PoolOptions, SecretData, SecretName,
    SecretStore as _,
};
use shareddb_tests::access::rule;
use shareddb_tests::api_proxy::Fault;
use shareddb_tests::server::{password, unique};
use shareddb_tests::watch::eventually;
use shareddb_tests::{ApiProxy, Cluster, TestServer};

fn data(config: &ConnectionConfig) -> SecretData {
    [
        ("DB_HOST", config.host().to_owned()),
        ("DB_PORT", config.port().to_string()),
        ("DB_NAME", config.database().to_owned()),
        ("DB_USER", config.user().to_owned()),
        ("DB_PASSWORD", password(config)),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.into()))
    .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_the_secret_is_followed_at_once() {
    let (server, cluster) = (TestServer::shared().await, Cluster::shared().await);
    let config = server.app(&unique("secret")).await;
    let namespace = cluster.namespace("watched").await;
    let admin = shareddb_core::Cluster::infer().with_kubeconfig(cluster.kubeconfig());
    let store = Arc::new(KubernetesStore::new(admin.namespace(&namespace.parse().unwrap()).await.unwrap()));
    let (name, app): (SecretName, AppName) = ("orders-db-secret".parse().unwrap(), "orders".parse().unwrap());
    let mut version = store.create(&name, &app, &data(&config)).await.unwrap();

    // A pod's account that may do what the documentation says, and no more.
    let account = cluster.restricted(&namespace, &[rule(&["secrets"], &["get", "watch"])]).await;
    let pod = shareddb_core::Cluster::infer().with_kubeconfig(account);
    let pod = pod.namespace(&namespace.parse().unwrap()).await.unwrap();
    let source = CredentialSource::from_secret(&pod, &name).await.unwrap();
    let pool =
        Pool::with_options(source, PoolOptions { life: Duration::from_millis(300), ..PoolOptions::default() }).unwrap();
    pool.get().await.unwrap().query("SELECT 1", &[]).await.unwrap();
    for round in 1..=3_u64 {
        let next = config.clone().with_password(format!("next-{round}").into());
        server.sql("postgres", &format!("ALTER ROLE {} PASSWORD 'next-{round}'", config.user())).await;
        version = store.replace(&name, &app, &data(&next), &version).await.unwrap();
        let started = Instant::now();
        eventually("it is followed", async || pool.snapshot().generation == round).await;
        println!("followed after {:?}", started.elapsed());
        pool.get().await.unwrap().query("SELECT 1", &[]).await.unwrap();
    }
    assert!(!format!("{pool:?}").contains("next-3"));
}

/// A login, and the name of its Secret in a namespace of its own.
async fn stored(stem: &str) -> (ConnectionConfig, String, SecretName, KubernetesStore) {
    let (server, cluster) = (TestServer::shared().await, Cluster::shared().await);
    let config = server.app(&unique("secret")).await;
    let namespace = cluster.namespace(stem).await;
    let admin = shareddb_core::Cluster::infer().with_kubeconfig(cluster.kubeconfig());
    let store = KubernetesStore::new(admin.namespace(&namespace.parse().unwrap()).await.unwrap());
    let name: SecretName = "orders-db-secret".parse().unwrap();
    store.create(&name, &"orders".parse().unwrap(), &data(&config)).await.unwrap();
    (config, namespace, name, store)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_is_silent_holds_up_nobody() {
    let (config, namespace, name, _) = stored("silent").await;
    let proxy = ApiProxy::to(Cluster::shared().await).await;
    let pod = shareddb_core::Cluster::infer().with_kubeconfig(proxy.kubeconfig(&namespace));
    let pod = pod.namespace(&namespace.parse().unwrap()).await.unwrap();
    let source = CredentialSource::from_secret(&pod, &name).await.unwrap();
    proxy.arm_from(0, Fault::Delay(Duration::from_secs(60)));
    let pool = Pool::new(source).unwrap();
    let started = Instant::now();
    let all = futures_util::future::join_all((0..4).map(|_| pool.get())).await;
    assert!(all.iter().all(Result::is_ok) && started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    // Nor is anybody told late that the password has changed.
    let server = TestServer::shared().await;
    server.sql("postgres", &format!("ALTER ROLE {} PASSWORD 'next'", config.user())).await;
    drop(all);
    let options = PoolOptions { connect: Duration::from_secs(1), ..PoolOptions::default() };
    proxy.disarm();
    let source = CredentialSource::from_secret(&pod, &name).await.unwrap();
    proxy.arm_from(0, Fault::Delay(Duration::from_secs(60)));
    let late = Pool::with_options(source, options).unwrap();
    let started = Instant::now();
    assert_eq!(late.get().await.unwrap_err().code(), "credentials_rejected");
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
}

#[test]
fn the_watch_goes_on_when_the_runtime_that_began_it_has_ended() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (first, second) = (runtime(), runtime());
    let (config, namespace, name, store) = second.block_on(stored("watch"));
    let pool = second.block_on(async {
        let pod = shareddb_core::Cluster::infer().with_kubeconfig(Cluster::shared().await.kubeconfig());
        let pod = pod.namespace(&namespace.parse().unwrap()).await.unwrap();
        Pool::new(CredentialSource::from_secret(&pod, &name).await.unwrap()).unwrap()
    });
    first.block_on(async { drop(pool.get().await.unwrap()) });
    drop(first);
    second.block_on(async {
        drop(pool.get().await.unwrap());
        let server = TestServer::shared().await;
        server.sql("postgres", &format!("ALTER ROLE {} PASSWORD 'next'", config.user())).await;
        let next = data(&config.clone().with_password("next".into()));
        let version = store.load(&name).await.unwrap().unwrap().version;
        store.replace(&name, &"orders".parse().unwrap(), &next, &version).await.unwrap();
        eventually("it is followed", async || pool.snapshot().generation == 1).await;
    });
}
