//! Where an application's settings come from: a Secret that is asked for, variables and folders, and what is told of them.

use secrecy::ExposeSecret as _;
use shareddb_core::{ConnectionConfig, Error, Rotation, SecretData, SecretStore};
use shareddb_tests::command::{run, shareddb_command};
use shareddb_tests::server::{password, unique, value};
use shareddb_tests::{Cluster, TestServer};

use crate::kubernetes_store::store;

#[tokio::test]
async fn a_secret_is_asked_for_where_it_is_kept() {
    let server = TestServer::shared().await;
    let app = server.made("asked").await;
    let config = ConnectionConfig::from_secret(&server.secrets(), &app.secret).await.unwrap();
    let session = config.connect().await.unwrap();
    assert_eq!(value(&session, "SELECT session_user").await, config.user());

    // The same in the Kubernetes API, where it changes.
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("asked").await;
    let store = store(&cluster.kubeconfig(), &namespace).await;
    let absent = ConnectionConfig::from_secret(&store, &app.secret).await.unwrap_err();
    assert!(matches!(absent, Error::NotFound(_)) && absent.hint().is_some(), "{absent:?}");
    let mut data = server.secrets().load(&app.secret).await.unwrap().unwrap().data;
    let first = store.create(&app.secret, &app.name, &data).await.unwrap();
    let read = ConnectionConfig::from_secret(&store, &app.secret).await.unwrap();
    assert_eq!(read.url().unwrap().expose_secret(), config.url().unwrap().expose_secret());
    assert!(read.explain().fields.iter().all(|field| field.rotation == Rotation::AtOnce || field.source == "default"));
    for key in ["DB_PASSWORD", "password"] {
        data.insert(key.to_owned(), "m4rker-new".into());
    }
    let second = store.replace(&app.secret, &app.name, &data, &first).await.unwrap();
    let read = ConnectionConfig::from_secret(&store, &app.secret).await.unwrap();
    assert_eq!(password(&read), "m4rker-new");
    data.insert("password".to_owned(), "m4rker-other".into());
    store.replace(&app.secret, &app.name, &data, &second).await.unwrap();
    let torn = ConnectionConfig::from_secret(&store, &app.secret).await.unwrap_err();
    assert!(torn.to_string().contains("DB_PASSWORD and password differ"), "{torn}");
    assert!(!format!("{torn:?}").contains("m4rker"));
}

#[tokio::test]
async fn the_command_explains_what_a_process_would_do() {
    let server = TestServer::shared().await;
    let name = unique("explained");
    let config = server.app(&name).await;
    let mounted = server.local().home().secrets_dir().join(format!("{name}-db-secret"));
    let data: SecretData =
        server.secrets().load(&format!("{name}-db-secret").parse().unwrap()).await.unwrap().unwrap().data;
    let url = data["DATABASE_URL"].expose_secret();
    let stale = config.clone().with_password("m4rker-stale".into()).url().unwrap();
    let explain = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = shareddb_command(server.home());
        run(command.arg("explain").args(arguments).envs(variables.iter().copied()))
    };
    let folder = mounted.to_str().unwrap();

    let both = [("SHAREDDB_SECRET_DIR", folder), ("DATABASE_URL", stale.expose_secret())];
    let table = explain(&[], &both).expect_code(0).stdout;
    let line = |name: &str| table.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{table}"));
    assert!(line("user").contains("DATABASE_URL (same)"), "{table}");
    assert!(line("password").contains("DATABASE_URL (differs)") && line("password").contains("delayed"), "{table}");
    assert!(!table.contains(&password(&config)) && !table.contains("m4rker"), "{table}");

    // Two pods with the same password have the same fingerprint, wherever they have it from.
    let fingerprint = |output: &str| {
        let document: serde_json::Value = serde_json::from_str(output).unwrap();
        let fields = document["fields"].as_array().unwrap().clone();
        fields.into_iter().find(|field| field["name"] == "password").unwrap()["value"].clone()
    };
    let from_folder = explain(&["--directory", folder, "-o", "json"], &[]).expect_code(0).stdout;
    let from_url = explain(&["-o", "json"], &[("DATABASE_URL", url)]).expect_code(0).stdout;
    let from_stale = explain(&["-o", "json"], &[("DATABASE_URL", stale.expose_secret())]).expect_code(0).stdout;
    assert_eq!(fingerprint(&from_folder), fingerprint(&from_url));
    assert_ne!(fingerprint(&from_stale), fingerprint(&from_url));

    let elsewhere =
        explain(&[], &[both[0], ("DATABASE_URL", "postgresql://me:m4rker@db.example/other")]).expect_code(2);
    assert!(
        elsewhere.stderr.contains("SHAREDDB_SECRET_DIR and DATABASE_URL name different databases"),
        "{}",
        elsewhere.stderr
    );
    assert!(!elsewhere.stderr.contains("m4rker"));
    explain(&[], &[]).expect_code(2);
}

#[tokio::test]
async fn a_refused_login_names_the_user_and_never_the_password() {
    let server = TestServer::shared().await;
    let config = server.app(&unique("refused")).await.with_password("m4rker-wrong".into());
    let error = config.connect().await.unwrap_err();
    assert_eq!(error.code(), "password_rejected");
    assert!(error.to_string().contains(config.user()), "{error}");
    let nowhere = config.clone().with_database("m4rker_is_no_database").connect().await.unwrap_err();
    for text in [format!("{error} {error:?} {:?}", error.hint()), format!("{nowhere} {nowhere:?} {:?}", nowhere.hint())]
    {
        assert!(!text.contains("m4rker-wrong"), "{text}");
    }
    let session = server.admin().connect().await.unwrap();
    let shown = format!("{session:?} {:?} {:?}", session.tls(), server.admin());
    assert!(!shown.contains(&password(&server.admin())), "{shown}");
}
