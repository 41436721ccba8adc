//! A pool that follows a Secret in the Kubernetes API.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shareddb_core::{
    AppName, ConnectionConfig, CredentialSource, KubernetesStore, Pool, PoolOptions, SecretData, SecretName,
    SecretStore as _,
};
use shareddb_tests::access::rule;
use shareddb_tests::server::{password, unique};
use shareddb_tests::watch::eventually;
use shareddb_tests::{Cluster, TestServer};

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
