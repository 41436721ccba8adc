//! Whoever answers in a server's place is not told the password.

use std::fs;
use std::sync::Arc;

use shareddb_core::{AppSpec, ConnectionConfig, Error, Provisioner, RootCertificate, Session, SslMode};
use shareddb_tests::certificates::Authority;
use shareddb_tests::command::{run, shareddb_command};
use shareddb_tests::impostor::{CLEAR_PASSWORD, REMARK};
use shareddb_tests::server::{password, temporary_home, unique, value};
use shareddb_tests::watch::eventually;
use shareddb_tests::{Impostor, TestServer};

const CODE: &str = "password_asked_in_clear";

/// What a login fails with when somebody asks for the password in clear text.
#[track_caller]
fn expect_refusal(error: &Error) {
    assert_eq!(error.code(), CODE, "{error:?}");
    assert!(matches!(error, Error::PermissionDenied(_)) && !error.is_retryable(), "{error:?}");
    let hint = error.hint().unwrap();
    assert!(hint.contains("sslmode=verify-full") && hint.contains("scram-sha-256"), "{hint}");
}

#[track_caller]
fn expect_unheard(heard: &[u8], config: &ConnectionConfig) {
    let contains = |text: &str| heard.windows(text.len()).any(|bytes| bytes == text.as_bytes());
    assert!(contains(config.user()), "it did log in");
    assert!(!contains(&password(config)), "it was told the password");
    // After the greeting there is nothing: no message with a piece of it, and no message at all.
    assert_eq!(heard.last_chunk(), Some(&[0, 0]), "{heard:?}");
}

#[tokio::test]
async fn no_impostor_is_told_a_password() {
    let server = TestServer::shared().await;
    let name = unique("impostor");
    let own = server.app(&name).await;
    for answer in [CLEAR_PASSWORD.to_vec(), [REMARK, CLEAR_PASSWORD].concat()] {
        let mut impostor = Impostor::answering(answer).await;
        let admin = server.admin().with_port(impostor.port());
        let provisioner = Provisioner::new(server.server_with(admin.clone(), Arc::new(server.secrets())));

        expect_refusal(&provisioner.create(&AppSpec::new(unique("impostor"))).await.unwrap_err());
        expect_unheard(&impostor.heard().await, &admin);
        let app = own.clone().with_port(impostor.port());
        expect_refusal(&app.connect().await.unwrap_err());
        expect_unheard(&impostor.heard().await, &app);

        // With settings of the driver, as an app's own pool would take them.
        let (config, tls) = app.tokio_postgres().unwrap();
        assert!(config.connect(tls).await.is_err());
        expect_unheard(&impostor.heard().await, &app);

        // One who says that there is no TLS gets no further than that.
        let encrypted = app.clone().with_tls(SslMode::Require, None);
        assert_eq!(encrypted.connect().await.unwrap_err().code(), "tls_failed");
        assert!(!impostor.heard().await.ends_with(&[0, 0]), "it was greeted");
    }
}

#[tokio::test]
async fn the_command_says_what_to_do() {
    let mut impostor = Impostor::answering(CLEAR_PASSWORD.to_vec()).await;
    let home = temporary_home();
    fs::write(
        home.join("config.toml"),
        format!(
            "[env.shop]\nadmin_url = 'postgresql://me@127.0.0.1:{}/postgres'\nadmin_password_env = 'WORD'\n",
            impostor.port()
        ),
    )
    .unwrap();
    // psql's own library tells a password to whoever asks, before 16.
    for words in [&["list"] as &[&str], &["psql", "--admin"]] {
        let mut command = shareddb_command(&home);
        command.args(words).args(["-e", "shop"]).env("WORD", "m4rker-s3cret");
        let refused = tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap();
        let heard = impostor.heard().await;
        assert!(!String::from_utf8_lossy(&heard).contains("m4rker"), "{words:?}: it was told the password");
        let told = refused.expect_code(1).stderr;
        assert!(told.contains("in clear text") && told.contains("verify-full"), "{words:?}: {told}");
        assert!(!told.contains("m4rker"), "{words:?}: {told}");
    }
}

#[tokio::test]
async fn a_server_is_told_a_password_in_clear_only_where_it_has_shown_who_it_is() {
    let server = TestServer::start().await;
    let app = server.app(&unique("clear")).await;
    let authority = Authority::new("impostor test");
    server.encrypt(&authority).await;
    let clear =
        "local all postgres peer\nhost all postgres 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 password\n";
    server.set_access_rules(clear).await;

    expect_refusal(&app.connect().await.unwrap_err());
    expect_refusal(&app.clone().with_tls(SslMode::Require, None).connect().await.unwrap_err());
    let root = || Some(RootCertificate::pem(authority.certificate()));
    for mode in [SslMode::VerifyCa, SslMode::VerifyFull] {
        let session = app.clone().with_tls(mode, root()).connect().await.unwrap();
        assert!(is_encrypted(&server, &session).await, "{mode}");
    }

    // A question that does not give the password away is answered everywhere, and a session without TLS can be cancelled.
    server.set_access_rules(&clear.replace(" password", " md5")).await;
    app.clone().with_tls(SslMode::Require, None).connect().await.unwrap();
    let session = app.connect().await.unwrap();
    assert!(!is_encrypted(&server, &session).await);
    let (token, tls) = (session.cancel_token(), session.tls().clone());
    let (slept, _) = tokio::join!(session.simple_query("SELECT pg_sleep(60)"), async {
        let running = "SELECT count(*) FROM pg_stat_activity WHERE query ~ '^SELECT pg_sleep'";
        eventually("the query runs", async || server.value("postgres", running).await != "0").await;
        token.cancel_query(tls).await.unwrap();
    });
    assert_eq!(slept.unwrap_err().code().unwrap().code(), "57014");
}

async fn is_encrypted(server: &TestServer, session: &Session) -> bool {
    let process = value(session, "SELECT pg_backend_pid()").await;
    server.value("postgres", &format!("SELECT ssl FROM pg_stat_ssl WHERE pid = {process}")).await == "t"
}
