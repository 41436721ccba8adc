//! An admin who is no superuser is killed at any moment, and the next run comes to the same end.

use std::path::{Path, PathBuf};

use shareddb_core::{App, AppName, AppSpec, ConnectionConfig, Outcome, Provisioner, SecretStore as _};
use shareddb_tests::ForeignServer;
use shareddb_tests::command::{mortal, outlives};
use shareddb_tests::majors::{ALL_MAY_TRY, PLAIN_ADMIN};
use shareddb_tests::mount::mounted;
use shareddb_tests::server::value;

/// A server of others with an app of its own, seen by a plain admin.
struct Rounds {
    server: ForeignServer,
    home: PathBuf,
    provisioner: Provisioner,
    app: App,
    with: Vec<String>,
    without: Vec<String>,
}

impl Rounds {
    async fn on(major: u32) -> Self {
        let server = ForeignServer::start(major, ALL_MAY_TRY).await;
        server.sql("postgres", &format!("GRANT SET ON PARAMETER temp_file_limit TO {PLAIN_ADMIN}")).await;
        let home = server.home_of(&server.plain_admin());
        let provisioner = server.provisioner(server.plain_admin());
        // What stays when an app goes is there already.
        let neighbour = AppSpec::new("neighbour".parse().unwrap());
        provisioner.create(&neighbour).await.unwrap();
        let without = server.catalog().await;
        let app = provisioner.create(&AppSpec::new(name())).await.unwrap().app;
        let with = server.catalog().await;
        Self { server, home, provisioner, app, with, without }
    }

    /// A Secret that exists works, until a drop has begun, and nobody comes in by PUBLIC's right.
    async fn assert_safe(&self, when: &str) {
        let open = format!(
            "SELECT count(*) FROM pg_database d, aclexplode(coalesce(datacl, acldefault('d', datdba))) a \
             WHERE datname = '{}' AND datallowconn AND a.grantee = 0",
            self.app.database
        );
        assert_eq!(self.server.value("postgres", &open).await, "0", "{when}: open to PUBLIC");
        let going = format!(
            "SELECT count(*) FROM pg_roles WHERE rolname = '{}' \
             AND shobj_description(oid, 'pg_authid') LIKE '%\"progress\":\"dropping\"%'",
            self.app.owner
        );
        let secret = self.server.secrets().load(&self.app.secret).await.unwrap();
        if let Some(secret) = secret
            && self.server.value("postgres", &going).await == "0"
        {
            self.assert_works(mounted(&secret.data).path(), when).await;
        }
    }

    async fn assert_works(&self, folder: &Path, when: &str) {
        let config = ConnectionConfig::from_directory(folder).unwrap_or_else(|error| panic!("{when}: {error}"));
        let session = config.connect().await.unwrap_or_else(|error| panic!("{when}: a Secret exists, and {error}"));
        assert_eq!(value(&session, "SELECT current_user").await, self.app.owner.as_str(), "{when}");
    }

    async fn assert_create_finishes(&self, when: &str) {
        self.settle().await;
        let spec = AppSpec::new(name());
        self.provisioner.create(&spec).await.unwrap_or_else(|error| panic!("{when}: {error}: {:?}", error.hint()));
        assert_eq!(self.server.catalog().await, self.with, "{when}");
        let secret = self.server.secrets().load(&self.app.secret).await.unwrap().unwrap();
        self.assert_works(mounted(&secret.data).path(), when).await;
        assert_eq!(self.provisioner.create(&spec).await.unwrap().outcome, Outcome::Unchanged, "{when}");
    }

    async fn assert_drop_finishes(&self, when: &str) {
        match self.provisioner.drop(&name(), name().as_str()).await {
            Ok(_) => {}
            Err(error) => assert_eq!(error.code(), "app_not_found", "{when}: {error}: {:?}", error.hint()),
        }
        assert_eq!(self.server.catalog().await, self.without, "{when}");
        assert!(self.server.secrets().load(&self.app.secret).await.unwrap().is_none(), "{when}");
    }

    /// Waits until sessions of the app that have ended are counted no more: a login in use is not issued anew.
    async fn settle(&self) {
        let [one, two] = &self.app.logins;
        let sessions = format!("SELECT count(*) FROM pg_stat_activity WHERE usename IN ('{one}', '{two}')");
        let ended = async || self.server.value("postgres", &sessions).await == "0";
        shareddb_tests::watch::eventually("the app's sessions end", ended).await;
    }
}

fn name() -> AppName {
    "crash".parse().unwrap()
}

async fn killed_at_any_event(major: u32) {
    let rounds = Rounds::on(major).await;
    for verb in ["create", "drop"] {
        for event in 0.. {
            let when = format!("{major}: {verb} killed at event {event}");
            if verb == "create" {
                rounds.assert_drop_finishes(&when).await;
            } else {
                rounds.assert_create_finishes(&when).await;
            }
            let done = outlives(&mut mortal(&rounds.home), &name(), verb, event);
            rounds.assert_safe(&when).await;
            if verb == "create" {
                rounds.assert_create_finishes(&when).await;
            } else {
                rounds.assert_drop_finishes(&when).await;
            }
            if done {
                println!("{major}, plain admin: {verb}: {event} crash points");
                assert!(event > 15, "every step has two events");
                break;
            }
        }
    }
}

#[tokio::test]
async fn an_admin_without_superuser_is_killed_at_any_event_on_16() {
    killed_at_any_event(16).await;
}

#[tokio::test]
async fn an_admin_without_superuser_is_killed_at_any_event_on_17() {
    killed_at_any_event(17).await;
}

#[tokio::test]
async fn an_admin_without_superuser_is_killed_at_any_event_on_18() {
    killed_at_any_event(18).await;
}
