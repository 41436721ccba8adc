//! A schedule from end to end: a Job of its CronJobs gets its pod, and what that runs, run as its account, leaves backups that
//! restore.

use hyper::{Method, StatusCode};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use shareddb_tests::errand::{Errand, run_pod};
use shareddb_tests::kubeconfig::Credential;
use shareddb_tests::object_server::Fault;
use shareddb_tests::server::temporary_home;
use shareddb_tests::watch::eventually;
use shareddb_tests::{Entrypoint, LiveCluster, ObjectServer, TestServer};

use crate::deployed::{Site, kubectl};
use crate::schedule::IMAGE;

const CREDENTIALS: &str = "backup-store";

/// Puts the variables that lead to a store into the namespace.
async fn credentials(site: &Site<'_>, store: &ObjectServer) {
    let data: serde_json::Map<_, _> = store.settings().into_iter().map(|(name, value)| (name, value.into())).collect();
    let secret: Secret =
        serde_json::from_value(json!({ "metadata": { "name": CREDENTIALS }, "stringData": data })).unwrap();
    site.api::<Secret>().await.create(&PostParams::default(), &secret).await.unwrap();
}

/// A server of the version whose programs this machine has.
async fn deploy() -> String {
    format!("deploy --image postgres:{}-alpine", TestServer::shared().await.endpoint().binaries.major)
}

/// The pod of a Job that somebody makes of a CronJob.
async fn pod(site: &Site<'_>, cron_job: &str, job: &str) -> Pod {
    let kubeconfig = site.live.cluster().kubeconfig_in(&site.namespace);
    kubectl(&kubeconfig, &["create", "job", &format!("--from=cronjob/{cron_job}"), job]).await.expect_code(0);
    let pods: Api<Pod> = site.api().await;
    let of_job = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={job}"));
    eventually("the Job has a pod", async || !pods.list(&of_job).await.unwrap().items.is_empty()).await;
    pods.list(&of_job).await.unwrap().items.remove(0)
}

/// Does what a Job of a CronJob would.
async fn run(site: &Site<'_>, server: &Entrypoint, cron_job: &str, job: &str) -> Vec<Errand> {
    run_pod(site.live.cluster(), &pod(site, cron_job, job).await, server.port()).await
}

#[track_caller]
fn well<const N: usize>(errands: Vec<Errand>, containers: [&str; N]) -> [String; N] {
    assert_eq!(errands.iter().map(|errand| errand.container.as_str()).collect::<Vec<_>>(), containers, "{errands:?}");
    let outputs = errands.into_iter().map(|errand| errand.output.expect_code(0));
    outputs.map(|output| output.stdout).collect::<Vec<_>>().try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_pods_run_backs_up_prunes_and_proves_with_the_rights_that_they_have() {
    let site = Site::new(LiveCluster::shared().await, "stage").await;
    let server = Entrypoint::serve(site.live, &site.namespace).await;
    site.run(&deploy().await).await.expect_code(0);
    for app in ["web", "shop"] {
        site.run(&format!("create {app}")).await.expect_code(0);
        site.in_app(app, "CREATE TABLE kept AS SELECT i FROM generate_series(1, 42) i").await;
    }
    let store = ObjectServer::start().await;
    credentials(&site, &store).await;
    let schedule =
        format!("schedule --all --image {IMAGE} --to {} --credentials-secret {CREDENTIALS} --keep 1", store.url());
    let made = site.run(&schedule).await.expect_code(0);
    assert!(made.stdout.starts_with("cronjob/shareddb-backup created    next run "), "{}", made.stdout);
    assert!(made.stderr.contains("create job --from=cronjob/shareddb-backup shareddb-backup-now"), "{}", made.stderr);

    let [taken, pruned] = well(run(&site, &server, "shareddb-backup", "first").await, ["backup", "prune"]);
    assert_eq!(taken.matches(" created  42 rows  ").count(), 2, "{taken}");
    assert!(pruned.ends_with("0 deleted (0B), 2 kept\n"), "{pruned}");
    let [_, pruned] = well(run(&site, &server, "shareddb-backup", "second").await, ["backup", "prune"]);
    assert!(pruned.contains("\n2 deleted (") && pruned.ends_with(", 2 kept\n"), "{pruned}");
    let [proven] = well(run(&site, &server, "shareddb-verify", "proof").await, ["verify"]);
    assert_eq!(proven.matches(" passed  ").count(), 2, "{proven}");

    // A night without a backup deletes nothing.
    let before = store.files();
    store.breaks(Method::PUT, "", usize::MAX, Fault::Answer(StatusCode::FORBIDDEN, "AccessDenied"));
    let errands = run(&site, &server, "shareddb-backup", "third").await;
    assert!(store.heals() > 0);
    let [Errand { container, output }] = &errands[..] else { panic!("{errands:?}") };
    assert!(container == "backup" && output.code != Some(0), "{errands:?}");
    assert_eq!(store.files(), before);
    assert!(!format!("{errands:?}").contains(store.secret()), "{errands:?}");

    // The account has what the admin has in the server, and of the namespace nothing else.
    let cluster = site.live.cluster();
    let token = cluster.token(&site.namespace, "shareddb-backup", 3600).await;
    let kubeconfig = cluster.kubeconfig_of("shareddb-backup", &site.namespace, Credential::Token(token));
    let refused = site.run_by(&kubeconfig, "env web").await.expect_code(1);
    assert!(refused.stderr.contains("cannot get secrets"), "{}", refused.stderr);

    let status = site.run("status").await.expect_code(0).stdout;
    assert!(status.contains("cronjob/shareddb-backup  0 2 * * *, next run "), "{status}");
    assert!(status.contains("cronjob/shareddb-verify  0 4 * * 0, next run "), "{status}");
    let ended = site.run("schedule --all --off").await.expect_code(0).stdout;
    assert_eq!(ended, "cronjob/shareddb-backup removed\ncronjob/shareddb-verify removed\n");
    let pods: Api<Pod> = site.api().await;
    let of_schedule = ListParams::default().labels("app.kubernetes.io/component=backup");
    eventually("its Jobs and their pods go with it", async || pods.list(&of_schedule).await.unwrap().items.is_empty())
        .await;
    assert!(!site.run("status").await.expect_code(0).stdout.contains("Schedule"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_app_has_a_schedule_of_its_own_that_works_beside_that_of_all() {
    let site = Site::new(LiveCluster::shared().await, "stage").await;
    let server = Entrypoint::serve(site.live, &site.namespace).await;
    site.run(&deploy().await).await.expect_code(0);
    for app in ["web", "shop"] {
        site.run(&format!("create {app}")).await.expect_code(0);
    }
    let store = ObjectServer::start().await;
    credentials(&site, &store).await;
    let options = format!("--image {IMAGE} --to {} --credentials-secret {CREDENTIALS}", store.url());
    let absent = site.run(&format!("schedule nothing {options}")).await.expect_code(4);
    assert!(absent.stderr.contains("error: ") && absent.stderr.contains("nothing"), "{}", absent.stderr);
    assert!(absent.stderr.contains("hint: "), "{}", absent.stderr);

    let made = site.run(&format!("schedule web {options} --cron @hourly --keep 24h,7d --verify-cron never")).await;
    assert!(made.expect_code(0).stdout.starts_with("cronjob/backup-web created    next run "));
    let both = site.run(&format!("schedule --all {options}")).await.expect_code(0);
    assert!(both.stderr.contains("app web has a schedule of its own"), "{}", both.stderr);
    let [taken, _] = well(run(&site, &server, "backup-web", "hourly").await, ["backup", "prune"]);
    assert!(taken.starts_with("backup/web-") && !taken.contains("shop"), "{taken}");
    let [proven] = well(run(&site, &server, "shareddb-verify", "proof").await, ["verify"]);
    assert!(proven.starts_with("backup/web-") && !proven.contains("shop"), "{proven}");

    site.says("schedule --all --off", "cronjob/shareddb-backup removed\ncronjob/shareddb-verify removed\n").await;
    let again = site.run("schedule web").await.expect_code(0).stdout;
    assert!(again.starts_with("cronjob/backup-web unchanged    next run "), "{again}");
    let encrypted = "--encrypt-to age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p --keep all";
    let changed = site.run(&format!("schedule web {encrypted}")).await.expect_code(0).stdout;
    assert!(changed.starts_with("cronjob/backup-web configured    next run "), "{changed}");
    let [taken] = well(run(&site, &server, "backup-web", "sealed").await, ["backup"]);
    assert!(taken.starts_with("backup/web-"), "{taken}");
    assert!(store.files().iter().any(|file| file.ends_with(".age")), "{:?}", store.files());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_without_room_takes_no_restore() {
    let site = Site::new(LiveCluster::shared().await, "stage").await;
    let _server = Entrypoint::serve(site.live, &site.namespace).await;
    site.run(&deploy().await).await.expect_code(0);
    site.run("create web").await.expect_code(0);
    site.in_app("web", "CREATE TABLE kept AS SELECT i FROM generate_series(1, 42) i").await;
    let store = temporary_home();
    let at = |words: &str| format!("{words} {}", store.display());
    site.run(&at("backup web --to")).await.expect_code(0);
    let claims: Api<PersistentVolumeClaim> = site.api().await;
    let holds = async |size: &str| {
        let patch = json!({"status": {"phase": "Bound", "capacity": {"storage": size}}});
        claims.patch_status("postgres-data", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    };
    // The databases that every server has take more than that with the log.
    holds("1Gi").await;
    let restore = at("restore web --confirm web --no-safety-backup --from");
    let refused = site.run(&restore).await.expect_code(5).stderr;
    assert!(refused.contains("MiB are free") && refused.contains("hint: "), "{refused}");
    site.says("psql web -- -Atc select/**/count(*)from/**/kept", "42\n").await;
    holds("20Gi").await;
    site.run(&restore).await.expect_code(0);
}
