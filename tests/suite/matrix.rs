//! The main jobs on every major.

use shareddb_core::AppSpec;
use shareddb_tests::ForeignServer;
use shareddb_tests::majors::MAJORS;
use shareddb_tests::server::unique;

#[tokio::test]
async fn smoke() {
    for major in MAJORS {
        let server = ForeignServer::shared(major).await;
        println!("{}", server.value("postgres", "SELECT version()").await);
        let name = unique("m");
        let provisioner = server.provisioner(server.superuser());
        let report = provisioner.create(&AppSpec::new(name.clone())).await.unwrap();
        println!("{:?}", report.notices);
        println!("{}", provisioner.plan(&AppSpec::new(name)).await.unwrap());
    }
}
