//! A server that people have made with a manifest of their own is taken over: its data and its logins stay.

use std::path::{Path, PathBuf};

use hyper::StatusCode;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::json;
use shareddb_core::ConnectionConfig;
use shareddb_tests::api_proxy::{ApiProxy, Fault};
use shareddb_tests::command::Output;
use shareddb_tests::refusal::{self, CONNECTED};
use shareddb_tests::server::{session, sql, value};
use shareddb_tests::watch::eventually;
use shareddb_tests::{Entrypoint, LiveCluster};

use crate::deployed::{Site, kubectl};
use crate::isolation::REJECTED;

/// A manifest, and what is in it.
struct Manifest {
    name: &'static str,
    /// How it is laid into the cluster.
    with: &'static [&'static str],
    claim: &'static str,
    admin: &'static str,
    image: &'static str,
    data: &'static str,
}

const PLAIN: Manifest = Manifest {
    name: "postgres-plain.yaml",
    with: &["apply"],
    claim: "postgres-pvc",
    admin: "postgres",
    image: "postgres:15-alpine",
    data: "/var/lib/postgresql/data",
};

const CAREFUL: Manifest = Manifest {
    name: "postgres-careful.yaml",
    with: &["create"],
    claim: "postgres-data",
    admin: "root",
    image: "postgres:15-alpine",
    data: "/var/lib/postgresql/data/pgdata",
};

const SETS: Manifest = Manifest {
    name: "postgres-sets.yaml",
    with: &["apply", "--server-side"],
    claim: "db-volume",
    admin: "postgres",
    image: "postgres:15",
    data: "/var/lib/postgresql/data",
};

const PASSWORD: &str = "by-hand";

/// A server made from a manifest, with two apps made by hand.
struct Found {
    site: Site<'static>,
    server: Entrypoint,
    manifest: Manifest,
}

impl Found {
    async fn new(manifest: Manifest) -> Self {
        let site = Site::new(LiveCluster::shared().await, "stage").await;
        let server = Entrypoint::serve(site.live, &site.namespace).await;
        let found = Self { site, server, manifest };
        found.lay().await.expect_code(0);
        let admin = found.admin();
        eventually("the server is there", async || refusal::login(&admin).await == CONNECTED).await;
        for app in ["shop", "blog"] {
            sql(&admin, "postgres", &format!("CREATE DATABASE {app}_db")).await;
            sql(&admin, "postgres", &format!("CREATE USER {app}_user WITH PASSWORD '{PASSWORD}'")).await;
            sql(&admin, "postgres", &format!("GRANT ALL PRIVILEGES ON DATABASE {app}_db TO {app}_user")).await;
            sql(&admin, &format!("{app}_db"), &format!("GRANT ALL ON SCHEMA public TO {app}_user")).await;
            let made = session(&found.app(app), &format!("{app}_db")).await;
            made.batch_execute("CREATE TABLE kept AS SELECT 42 AS x").await.unwrap();
        }
        let host = format!("postgres-service.{}.svc.cluster.local", found.site.namespace);
        let secret: Secret = serde_json::from_value(json!({
            "metadata": { "name": "shop-db-secret" },
            "stringData": {
                "DB_HOST": host, "DB_PORT": "5432", "DB_NAME": "shop_db", "DB_USER": "shop_user", "DB_PASSWORD": PASSWORD,
            },
        }))
        .unwrap();
        let secrets: Api<Secret> = found.site.api().await;
        secrets.create(&PostParams::default(), &secret).await.unwrap();
        found
    }

    /// kubectl, with the manifest.
    async fn lay(&self) -> Output {
        let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(self.manifest.name);
        let kubeconfig = self.site.live.cluster().kubeconfig_in(&self.site.namespace);
        kubectl(&kubeconfig, &[self.manifest.with, &["-f", path.to_str().unwrap()]].concat()).await
    }

    fn admin(&self) -> ConnectionConfig {
        ConnectionConfig::new("127.0.0.1", self.server.port(), "postgres", self.manifest.admin)
            .with_password(PASSWORD.into())
    }

    fn app(&self, name: &str) -> ConnectionConfig {
        self.admin().with_database(format!("{name}_db")).with_user(format!("{name}_user"))
    }

    /// Programs that were told by hand how to log in find what they had.
    async fn assert_works(&self, app: &str, when: &str) {
        let login = self.app(app).connect().await.unwrap_or_else(|error| panic!("{when}: {error}"));
        assert_eq!(value(&login, "TABLE kept").await, "42", "{when}");
    }

    async fn deploy(&self, options: &str) -> Output {
        let output = self.site.run(&format!("deploy {options}")).await;
        assert_eq!(output.code, Some(0), "{options}: {}\n{}\n{}", output.stdout, output.stderr, self.server.log());
        output
    }

    async fn assert_unchanged(&self, when: &str) {
        let output = self.deploy("").await;
        assert_eq!(output.stdout, self.site.server("unchanged"), "{when}\n{}", output.stderr);
    }
}

async fn is_taken_over(manifest: Manifest) {
    let found = Found::new(manifest).await;
    let (site, manifest) = (&found.site, &found.manifest);
    let before = site.deployment().await;

    let refused = site.run("deploy").await.expect_code(5);
    assert!(refused.stderr.contains(&format!("with claim {}", manifest.claim)), "{}", refused.stderr);
    assert!(refused.stderr.contains("--adopt"), "{}", refused.stderr);
    let preview = found.deploy("--adopt --dry-run").await;
    assert!(preview.stdout.contains("~ deployment/postgres"), "{}", preview.stdout);
    assert!(!preview.stdout.contains(PASSWORD) && !preview.stderr.contains(PASSWORD), "{preview:?}");
    assert_eq!(site.deployment().await.metadata.resource_version, before.metadata.resource_version);
    found.assert_works("shop", "after the preview").await;

    let taken = found.deploy("--adopt").await;
    assert_eq!(taken.stdout, site.server("configured"), "{}", taken.stderr);
    let spec = site.deployment().await.spec.unwrap().template.spec.unwrap();
    let container = &spec.containers[0];
    assert_eq!(container.image.as_deref(), Some(manifest.image));
    let claims: Vec<String> = spec
        .volumes
        .iter()
        .flatten()
        .filter_map(|volume| volume.persistent_volume_claim.clone())
        .map(|claim| claim.claim_name)
        .collect();
    assert_eq!(claims, [manifest.claim]);
    let data = container.env.iter().flatten().find(|variable| variable.name == "PGDATA").unwrap();
    assert_eq!(data.value.as_deref(), Some(manifest.data));
    for app in ["shop", "blog"] {
        found.assert_works(app, "after it was taken over").await;
    }
    assert_eq!(found.site.query("SELECT current_user").await, manifest.admin);
    found.assert_unchanged("after it was taken over").await;

    // An app of its own, one that is adopted, and one that is not.
    site.says("create new", "app/new created\n").await;
    site.run("create shop --adopt --yes").await.expect_code(0);
    found.assert_works("shop", "after it was adopted").await;
    found.assert_works("blog", "after another was adopted").await;

    found.deploy("--secure-server").await;
    found.assert_works("shop", "behind the walls").await;
    assert_eq!(refusal::login(&found.app("shop").with_database("blog_db")).await, REJECTED);
    assert_eq!(refusal::login(&found.app("blog")).await, REJECTED, "it was not adopted");
    site.says("psql new -- -Atc select(1)", "1\n").await;
    found.assert_unchanged("behind the walls").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_manifest_is_taken_over() {
    is_taken_over(PLAIN).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_careful_manifest_is_taken_over() {
    is_taken_over(CAREFUL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_with_sets_of_variables_is_taken_over() {
    is_taken_over(SETS).await;
}

/// Whether every field that somebody wanted is shareddb's.
fn is_handed_over(deployment: &Deployment) -> bool {
    let mut entries = deployment.metadata.managed_fields.iter().flatten().filter(|entry| entry.subresource.is_none());
    entries.all(|entry| matches!(entry.manager.as_deref(), Some("shareddb" | "kube-controller-manager")))
}

fn is_recorded(deployment: &Deployment) -> bool {
    deployment.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key("shareddb/server"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_that_ends_halfway_is_finished_by_the_next() {
    let found = Found::new(PLAIN).await;
    let proxy = ApiProxy::to(found.site.live.cluster()).await;
    let file = proxy.kubeconfig(&found.site.namespace);
    let mut ends = 0;
    // Every field is ours, and what they are to be has not been said yet.
    while !is_handed_over(&found.site.deployment().await) {
        // What comes before the first write, and then one write.
        proxy.disarm();
        proxy.forget();
        found.site.run_by(&file, "deploy --adopt --dry-run").await.expect_code(0);
        proxy.arm_from(proxy.seen().len() + 1, Fault::Answer(StatusCode::FORBIDDEN));
        let ended = found.site.run_by(&file, "deploy --adopt").await;
        assert_ne!(ended.code, Some(0), "{ended:?}");
        found.assert_works("shop", &ended.stderr).await;
        ends += 1;
        assert!(ends < 30, "no end: {ended:?}");
    }
    proxy.disarm();
    assert!(ends > 5 && !is_recorded(&found.site.deployment().await), "{ends}");
    found.deploy("--adopt").await;
    for app in ["shop", "blog"] {
        found.assert_works(app, "at last").await;
    }
    found.assert_unchanged("at last").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_taken_over_and_lost_its_data_is_not_begun_anew() {
    let found = Found::new(PLAIN).await;
    found.deploy("--adopt").await;
    found.assert_works("shop", "after it was taken over").await;
    let data = found.server.data(PLAIN.claim, "");
    std::fs::rename(&data, data.with_extension("elsewhere")).unwrap();
    let pods: Api<Pod> = found.site.api().await;
    pods.delete(&found.site.pod().await, &DeleteParams::default()).await.unwrap();
    let said = "superuser password is not specified";
    eventually("the server does not start", async || found.server.log().contains(said)).await;
    assert!(!data.join("PG_VERSION").exists());
}
