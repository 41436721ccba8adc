//! A deployed server with TLS: nobody gets in without it, and whoever is told of its authority checks its name.

use k8s_openapi::api::core::v1::Secret;
use shareddb_core::{ConnectionConfig, RootCertificate, SslMode};
use shareddb_tests::mount::mounted;
use shareddb_tests::refusal::{self, CONNECTED};
use shareddb_tests::server::value;
use shareddb_tests::{Entrypoint, LiveCluster};

use crate::deployed::Site;
use crate::isolation::REJECTED;

fn text(secret: &Secret, key: &str) -> String {
    let data = secret.data.as_ref().unwrap();
    String::from_utf8(data.get(key).unwrap_or_else(|| panic!("there is no {key}")).0.clone()).unwrap()
}

/// An app's Secret leads to an encrypted session with a server whose name is checked.
async fn assert_encrypted(site: &Site<'_>, server: &Entrypoint, name: &str) {
    let secret = site.secret(&format!("{name}-db-secret")).await;
    assert_eq!(text(&secret, "DB_SSLMODE"), "verify-full");
    let authority = text(&secret, "ca.crt");
    assert_eq!(authority, text(&site.secret("postgres-ca").await, "tls.crt"));
    let data = secret.data.unwrap().into_iter();
    let data = data.map(|(key, value)| (key, String::from_utf8(value.0).unwrap().into())).collect();
    let folder = mounted(&data);
    let app = ConnectionConfig::from_directory(folder.path()).unwrap();
    assert_eq!(app.host(), format!("postgres-service.{}.svc.cluster.local", site.namespace));
    let app = app.with_hostaddr("127.0.0.1".parse().unwrap()).with_port(server.port());
    let session = app.connect().await.unwrap();
    // Of whom a session is, its login can see, and the role that it works as cannot.
    session.batch_execute("SET ROLE NONE").await.unwrap();
    let encrypted = "SELECT ssl::text || ' ' || version FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert!(value(&session, encrypted).await.starts_with("true TLSv1."));

    let password = text(&site.secret(&format!("{name}-db-secret")).await, "DB_PASSWORD");
    let other_name = ConnectionConfig::new("127.0.0.1", server.port(), app.database(), app.user())
        .with_password(password.as_str().into())
        .with_tls(SslMode::VerifyFull, Some(RootCertificate::pem(authority.as_str())));
    assert_ne!(refusal::login(&other_name).await, CONNECTED, "another name than the certificate's");
    let plain = app.with_tls(SslMode::Disable, None);
    assert_eq!(refusal::login(&plain).await, REJECTED, "without TLS");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_encrypted_and_the_name_is_checked() {
    let site = Site::new(LiveCluster::shared().await, "stage").await;
    let server = Entrypoint::serve(site.live, &site.namespace).await;
    let output = site.run("deploy --tls=on").await;
    assert_eq!(output.code, Some(0), "{}\n{}", output.stderr, server.log());
    site.says("create web", "app/web created\n").await;
    assert_encrypted(&site, &server, "web").await;
    let before = [site.secret("postgres-tls").await, site.secret("postgres-ca").await];
    site.says("deploy", &site.server("unchanged")).await;
    site.says("deploy --tls=on", &site.server("unchanged")).await;
    let after = [site.secret("postgres-tls").await, site.secret("postgres-ca").await];
    assert!(before == after, "certificates were made again");
    site.says("create web", "app/web unchanged\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_comes_later() {
    let site = Site::new(LiveCluster::shared().await, "production").await;
    let server = Entrypoint::serve(site.live, &site.namespace).await;
    site.run("deploy").await.expect_code(0);
    site.run("create web").await.expect_code(0);
    assert_eq!(refusal::login(&site.app("web", &server).await).await, CONNECTED);
    site.says("deploy --tls=on", &site.server("configured")).await;
    let repaired = site.run("create web").await.expect_code(0);
    assert_ne!(repaired.stdout, "app/web unchanged\n");
    assert_encrypted(&site, &server, "web").await;
    site.says("create web", "app/web unchanged\n").await;
    // It stays on unless said otherwise.
    site.says("deploy", &site.server("unchanged")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_knows_the_authority() {
    let site = Site::new(LiveCluster::shared().await, "stage").await;
    let _server = Entrypoint::serve(site.live, &site.namespace).await;
    site.run("deploy --tls=on").await.expect_code(0);
    site.run("create web").await.expect_code(0);
    assert_eq!(site.in_app("web", "SELECT 1").await, "1");
    assert_eq!(site.query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").await, "t");
    assert_eq!(
        site.query("SELECT count(*) FROM pg_hba_file_rules WHERE type = 'host' AND auth_method <> 'reject'").await,
        "0"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_goes_again() {
    let site = Site::new(LiveCluster::shared().await, "stage").await;
    let server = Entrypoint::serve(site.live, &site.namespace).await;
    site.run("deploy --tls=on").await.expect_code(0);
    site.run("create web").await.expect_code(0);
    site.says("deploy --tls=off", &site.server("configured")).await;
    let repaired = site.run("create web").await.expect_code(0);
    let login = refusal::login(&site.app("web", &server).await).await;
    assert_eq!(login, CONNECTED, "{}{}", repaired.stdout, repaired.stderr);
}
