//! Keys of an adopted app's Secret that have names of ours and say something else.

use std::fs;

use shareddb_tests::legacy::{Legacy, OPEN_RULES};
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
