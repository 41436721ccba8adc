//! What is an adopted app's own: keys of its Secret that have names of ours, and settings that may hold a secret.

use std::fs;

use shareddb_tests::legacy::{Legacy, OPEN_RULES};
use shareddb_tests::server::value;
use shareddb_tests::{Output, TestServer, shareddb};

#[tokio::test]
async fn keys_that_an_adopted_app_keeps_are_no_damage() {
    let server = TestServer::start().await;
    server.set_access_rules(OPEN_RULES).await;
    let legacy = Legacy::make(&server, "kept").await;
    let elsewhere = "postgresql://somebody:else@elsewhere.example/reports";
    let own = [("type", "something"), ("host", "elsewhere.example"), ("DATABASE_URL", elsewhere), ("password", "else")];
    legacy.write_secret(&server, &own);
    server.provisioner().await.create(&legacy.spec()).await.unwrap();
    let env = |more: &[&str]| -> Output {
        let args = [&["env", legacy.name.as_str()], more].concat();
        shareddb(server.home(), &args)
    };

    let printed = env(&[]).expect_code(0).stdout;
    assert!(printed.contains(&format!("DB_USER={}\n", legacy.user)) && printed.contains(elsewhere), "{printed}");
    for (key, value) in own {
        assert_eq!(env(&["--key", key]).expect_code(0).stdout, format!("{value}\n"));
    }
    let url = env(&["--format", "url"]).expect_code(0).stdout;
    assert!(url.starts_with(&format!("postgresql://{}:", legacy.user)), "its login is the one of DB_USER: {url}");
    let session = server.provisioner().await.connection(&legacy.name).await.unwrap().connect().await.unwrap();
    drop(session);

    // What is damaged is told from what is kept, as long as there is a server to ask.
    let spoil = |key: &str, value: &str| fs::write(legacy.folder(&server).join(key), value).unwrap();
    for (key, good) in [("provider", "shareddb"), ("DB_NAME", &legacy.database)] {
        spoil(key, "spoilt");
        let damaged = env(&[]).expect_code(1);
        assert!(damaged.stderr.contains("is damaged") && damaged.stderr.contains("create"), "{}", damaged.stderr);
        spoil(key, good);
        env(&[]).expect_code(0);
    }
    shareddb(server.home(), &["deploy", "--stop"]).expect_code(0);
    let unknown = env(&[]).expect_code(1);
    assert!(unknown.stderr.contains("keys of its own") && unknown.stderr.contains("not run"), "{}", unknown.stderr);
}

#[tokio::test]
async fn values_of_settings_that_are_anybodys_are_not_shown() {
    let server = TestServer::start().await;
    server.set_access_rules(OPEN_RULES).await;
    let legacy = Legacy::make(&server, "dotted").await;
    legacy.write_secret(&server, &[]);
    let (user, database) = (&legacy.user, &legacy.database);
    let settings = format!(
        "ALTER ROLE {user} SET my_app.token = 'm4rker-one'; ALTER DATABASE {database} SET my_app.key = 'm4rker-two'; \
         ALTER ROLE {user} IN DATABASE {database} SET work_mem = '5MB'"
    );
    server.sql("postgres", &settings).await;
    let app = legacy.name.as_str();
    let create = ["create", app, "--adopt"];
    let mut shown = String::new();
    for args in [
        [create.as_slice(), &["--dry-run"]].concat(),
        [create.as_slice(), &["--dry-run", "-o", "json"]].concat(),
        [create.as_slice(), &["-v", "-o", "json"]].concat(),
        vec!["create", app, "--set", "my_app.token=m4rker-three", "--set", "work_mem=6MB", "--dry-run", "-o", "json"],
        vec!["create", app, "--set", "my_app.token=m4rker-three", "--set", "work_mem=6MB", "-v"],
        vec!["status", app, "-o", "json"],
        vec!["list", "-o", "yaml"],
    ] {
        let Output { stdout, stderr, .. } = shareddb(server.home(), &args).expect_code(0);
        assert!(!format!("{stdout}{stderr}").contains("m4rker"), "{args:?}: {stdout}{stderr}");
        shown += &(stdout + &stderr);
    }
    for there in ["my_app.token = …", "my_app.key", "work_mem = 5MB", "work_mem = 6MB", "6MB"] {
        assert!(shown.contains(there), "{there}: {shown}");
    }
    let session = server.provisioner().await.connection(&legacy.name).await.unwrap().connect().await.unwrap();
    assert_eq!(value(&session, "SHOW my_app.token").await, "m4rker-three");
}
