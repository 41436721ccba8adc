//! How often a command waits for the server.

use std::sync::Arc;

use shareddb_core::{AppSpec, Outcome, Provisioner};
use shareddb_tests::proxy::Proxy;
use shareddb_tests::server::unique;
use shareddb_tests::{ForeignServer, TestServer};

/// Of a `create` that finds everything as it should be. Logins come on top: one for the admin, one inside the database, and
/// one to try the password where an admin cannot read what is stored.
const MOST: usize = 6;

#[tokio::test]
async fn a_second_create_waits_for_the_server_a_few_times_only() {
    let server = TestServer::shared().await;
    let proxy = Proxy::to(server.admin().port()).await;
    let admin = server.admin().with_port(proxy.port());
    let provisioner = Provisioner::new(server.server_with(admin, Arc::new(server.environment().secrets())));
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
