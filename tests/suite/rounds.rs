//! How often a command waits for the server.

use std::sync::Arc;

use shareddb_core::{AppSpec, Outcome, Provisioner};
use shareddb_tests::measure::by_workers;
use shareddb_tests::proxy::Proxy;
use shareddb_tests::server::unique;
use shareddb_tests::{ApiProxy, Cluster, ForeignServer, TestServer};

use crate::kubernetes_store::store;

/// Of a `create` that finds everything as it should be. Logins come on top: one for the admin, one inside the database, and
/// one to try the password where an admin cannot read what is stored.
const MOST: usize = 6;

#[tokio::test]
async fn a_second_create_waits_for_the_server_a_few_times_only() {
    let server = TestServer::shared().await;
    let proxy = Proxy::to(server.admin().port()).await;
    let admin = server.admin().with_port(proxy.port());
    let provisioner = Provisioner::new(server.server_with(admin, Arc::new(server.secrets())));
    let rounds = second_create(&proxy, &provisioner).await;
    println!("{rounds} rounds on a server of ours");
    assert!((1..=MOST).contains(&rounds), "{rounds} rounds");
}

#[tokio::test]
async fn nor_is_it_much_more_on_servers_of_others() {
    let server = ForeignServer::shared(16).await;
    for admin in [server.superuser(), server.plain_admin()] {
        let proxy = Proxy::to(admin.port()).await;
        let provisioner = server.provisioner(admin.with_port(proxy.port()));
        let rounds = second_create(&proxy, &provisioner).await;
        println!("{rounds} rounds on a server of somebody else's");
        assert!((1..=MOST).contains(&rounds), "{rounds} rounds");
    }
}

async fn second_create(proxy: &Proxy, provisioner: &Provisioner) -> usize {
    let spec = AppSpec::new(unique("rounds"));
    provisioner.create(&spec).await.unwrap();
    proxy.watch();
    let report = provisioner.create(&spec).await.unwrap();
    assert_eq!(report.outcome, Outcome::Unchanged, "{:?}", report.steps);
    proxy.rounds()
}

#[tokio::test]
async fn a_list_of_a_hundred_apps_is_as_short_as_one_of_one() {
    const APPS: usize = 100;
    let (cluster, server) = (Cluster::shared().await, TestServer::start().await);
    let namespace = cluster.namespace("hundred").await;
    let (proxy, api) = (Proxy::to(server.admin().port()).await, ApiProxy::to(cluster).await);
    let store = Arc::new(store(&api.kubeconfig(&namespace), &namespace).await);
    let near = Provisioner::new(server.server_with(server.admin().with_port(proxy.port()), store));
    by_workers(&near, "one", 1, 1).await;
    let mut seen = Vec::new();
    for more in [0, APPS - 1] {
        by_workers(&near, "more", more, 8).await;
        api.forget();
        proxy.watch();
        let apps = near.list().await.unwrap().len();
        assert_eq!(apps, 1 + more);
        seen.push((proxy.rounds(), api.seen().len()));
    }
    println!("names and sizes of {APPS} apps: {} rounds, {} API calls", seen[1].0, seen[1].1);
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[1].1, 0, "a list needs no Secret");

    proxy.watch();
    assert_eq!(near.status(None).await.unwrap().apps.len(), APPS);
    let (rounds, calls) = (proxy.rounds(), api.seen().len());
    println!("{APPS} apps compared with their records: {rounds} rounds, {calls} API calls");
    assert_eq!(calls, APPS);
    assert!(rounds <= APPS * MOST, "{rounds} rounds");
}
