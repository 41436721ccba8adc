//! The objects of a schedule: what is made of them, what is said before, what goes with it and what is left alone.

use std::collections::BTreeMap;
use std::fs;

use hyper::Request;
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use shareddb_core::Cron;
use shareddb_tests::command::{program, run, shareddb_command};
use shareddb_tests::server::temporary_home;

use crate::deploy::Site;

pub(crate) const IMAGE: &str = "registry.example/shareddb:0.1";
/// What `schedule --print` has to print.
const PRINTED: &str = include_str!("../fixtures/schedule.yaml");
/// What a schedule of all apps consists of, in order.
pub(crate) const SCHEDULE: [&str; 6] = [
    "serviceaccount/shareddb-backup",
    "role/shareddb-backup",
    "rolebinding/shareddb-backup",
    "configmap/shareddb-backup",
    "cronjob/shareddb-backup",
    "cronjob/shareddb-verify",
];
/// All that a schedule has to be told the first time.
pub(crate) const TOLD: &str = "--image registry.example/shareddb:0.1 --to s3://bucket/stage";

/// The kinds of these, as kubectl names one and as the API names all.
const KINDS: [(&str, &str, &str); 5] = [
    ("serviceaccount", "api/v1", "serviceaccounts"),
    ("role", "apis/rbac.authorization.k8s.io/v1", "roles"),
    ("rolebinding", "apis/rbac.authorization.k8s.io/v1", "rolebindings"),
    ("configmap", "api/v1", "configmaps"),
    ("cronjob", "apis/batch/v1", "cronjobs"),
];

/// At which version each object is that a schedule may consist of, whoever made it.
pub(crate) async fn versions(site: &Site<'_>) -> BTreeMap<String, String> {
    let (client, mut found) = (site.cluster.client().await, BTreeMap::new());
    for (kind, group, plural) in KINDS {
        let path = format!("/{group}/namespaces/{}/{plural}", site.namespace);
        let answer = client.request_text(Request::get(path).body(Vec::new()).unwrap()).await.unwrap();
        let list: Value = serde_json::from_str(&answer).unwrap();
        for object in list["items"].as_array().unwrap() {
            let text = |field: &str| object["metadata"][field].as_str().unwrap().to_owned();
            // Those of the test's own users, and what controllers put everywhere.
            if !text("name").starts_with("role-") && text("name") != "kube-root-ca.crt" {
                found.insert(format!("{kind}/{}", text("name")), text("resourceVersion"));
            }
        }
    }
    found
}

fn labels(found: &BTreeMap<String, String>) -> Vec<&str> {
    let mut labels: Vec<&str> = SCHEDULE.into_iter().filter(|label| found.contains_key(*label)).collect();
    labels.extend(found.keys().map(String::as_str).filter(|label| !SCHEDULE.contains(label)));
    labels
}

#[tokio::test]
async fn a_second_run_changes_nothing_and_a_dry_run_says_what_would_be() {
    let site = Site::new().await;
    let schedule = format!("schedule --all {TOLD}");
    let shown = site.run(&format!("{schedule} --dry-run --exit-code")).await.expect_code(3).stdout;
    let lines: String = SCHEDULE.iter().map(|object| format!("  + {object}\n")).collect();
    assert_eq!(shown, format!("{lines}6 to add, 0 to change, 0 as they are. Nothing was changed (dry run).\n"));
    assert!(versions(&site).await.is_empty());

    let made = site.run(&schedule).await.expect_code(0);
    let next = |cron: &str| {
        let next = cron.parse::<Cron>().unwrap().next(jiff::Timestamp::now()).unwrap();
        next.strftime("%Y-%m-%d %H:%M UTC").to_string()
    };
    let said = |outcome: &str| {
        let (backup, verify) = (next("0 2 * * *"), next("0 4 * * 0"));
        format!(
            "cronjob/shareddb-backup {outcome}    next run {backup}\ncronjob/shareddb-verify {outcome}    next run {verify}\n"
        )
    };
    assert_eq!(made.stdout, said("created"));
    let before = versions(&site).await;
    assert_eq!(labels(&before), SCHEDULE);
    // What is left out stays as it is scheduled.
    for again in ["schedule --all", &schedule] {
        assert_eq!(site.run(again).await.expect_code(0).stdout, said("unchanged"));
        site.run(&format!("{again} --dry-run --exit-code")).await.expect_code(0);
    }
    assert_eq!(versions(&site).await, before);
    let json: Value = serde_json::from_str(&site.run("schedule --all -o json").await.expect_code(0).stdout).unwrap();
    assert_eq!((&json["kind"], &json["items"][0]["outcome"]), (&json!("ScheduleList"), &json!("unchanged")));
    assert_eq!(json["changes"], json!([]));

    let shown = site.run("schedule --all --cron @hourly --keep 24h --dry-run").await.expect_code(0).stdout;
    assert!(shown.contains("      spec.schedule: 0 2 * * * → @hourly\n"), "{shown}");
    assert!(shown.contains("  = role/shareddb-backup\n"), "{shown}");
    let changed = site.run("schedule --all --verify-cron never --image other.example/shareddb:2").await.expect_code(0);
    assert!(changed.stdout.starts_with("cronjob/shareddb-backup configured    next run "), "{}", changed.stdout);
    assert!(changed.stdout.ends_with("cronjob/shareddb-verify removed\n"), "{}", changed.stdout);
    let job =
        site.api::<CronJob>().await.get("shareddb-backup").await.unwrap().spec.unwrap().job_template.spec.unwrap();
    let pod = job.template.spec.unwrap();
    assert_eq!(pod.containers[0].image.as_deref(), Some("other.example/shareddb:2"));
    assert_eq!(site.run("schedule --all --dry-run").await.expect_code(0).stdout.matches("  = ").count(), 5);
}

#[tokio::test]
async fn what_is_printed_is_applied_by_kubectl_and_is_what_a_schedule_makes() {
    let site = Site::new().await;
    let options = "schedule --all --image registry.example/shareddb:0.1 --to s3://acme-backups/stage --credentials-secret \
                   backup-store --print";
    let mut command = shareddb_command(&site.home);
    // Nobody is asked for it: there is no cluster.
    command
        .env("KUBECONFIG", "/nowhere")
        .current_dir(&site.home)
        .args(["-e", "stage"])
        .args(options.split_whitespace());
    let printed = run(&mut command).expect_code(0).stdout;
    assert_eq!(printed, PRINTED);
    let list: Value =
        serde_json::from_str(&site.run(&format!("{options} -o json")).await.expect_code(0).stdout).unwrap();
    assert_eq!((&list["kind"], list["items"].as_array().unwrap().len()), (&json!("List"), SCHEDULE.len()));

    let printed = site.run(options).await.expect_code(0).stdout;
    assert_eq!(
        printed,
        PRINTED
            .replace("namespace: stage\n", &format!("namespace: {}\n", site.namespace))
            .replace("namespace = \"stage\"", &format!("namespace = \"{}\"", site.namespace),)
    );
    let applied = site.kubectl(&["apply", "--server-side", "-f", "-"], &printed).expect_code(0);
    assert_eq!(applied.stdout.lines().count(), SCHEDULE.len(), "{}", applied.stdout);
    secret(&site, "backup-store", &["AWS_ACCESS_KEY_ID"]).await;
    let before = versions(&site).await;
    let same = site.run(&options.replace("--print", "--dry-run --exit-code")).await.expect_code(0);
    assert!(same.stdout.starts_with(&format!("  = {}\n", SCHEDULE[0])), "{}", same.stdout);
    let outcome = site.run(&options.replace("--print", "")).await.expect_code(0).stdout;
    assert!(outcome.starts_with("cronjob/shareddb-backup unchanged "), "{outcome}");
    assert_eq!(versions(&site).await, before);
    let again = site.kubectl(&["apply", "--server-side", "-f", "-"], &printed).expect_code(0);
    assert_eq!(again.stderr, "", "it is applied again without a conflict");
}

/// A Secret with these keys.
async fn secret(site: &Site<'_>, name: &str, keys: &[&str]) {
    let data: BTreeMap<&str, &str> = keys.iter().map(|key| (*key, "value")).collect();
    let secret: Secret = serde_json::from_value(json!({ "metadata": { "name": name }, "stringData": data })).unwrap();
    site.api::<Secret>().await.create(&PostParams::default(), &secret).await.unwrap();
}

#[tokio::test]
async fn its_pods_are_admitted_where_restricted_pod_security_is_enforced() {
    let site = Site::new().await;
    let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let request = Request::patch(format!("/api/v1/namespaces/{}", site.namespace))
        .header("Content-Type", "application/merge-patch+json")
        .body(labels.to_string().into_bytes())
        .unwrap();
    site.cluster.client().await.request_text(request).await.unwrap();
    site.run(&format!("schedule --all {TOLD}")).await.expect_code(0);
    let (jobs, pods) = (site.api::<CronJob>().await, site.api::<Pod>().await);
    for name in ["shareddb-backup", "shareddb-verify"] {
        let template = jobs.get(name).await.unwrap().spec.unwrap().job_template.spec.unwrap().template;
        let mut pod = Pod { metadata: template.metadata.unwrap(), spec: template.spec, ..Pod::default() };
        pod.metadata.name = Some(name.to_owned());
        // The Service would take it for a server.
        assert!(!pod.metadata.labels.as_ref().unwrap().contains_key("app"));
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        pods.create(&dry, &pod).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        // The policy does look.
        pod.spec.as_mut().unwrap().host_network = Some(true);
        assert!(pods.create(&dry, &pod).await.unwrap_err().to_string().contains("violates PodSecurity"));
    }
}

#[tokio::test]
async fn the_end_of_a_schedule_takes_what_it_made_and_no_more() {
    let site = Site::deployed().await;
    let before = versions(&site).await;
    let none = site.run("schedule --all --off").await.expect_code(0);
    assert!(none.stdout.is_empty() && none.stderr.contains("there is no such schedule"), "{none:?}");
    site.run(&format!("schedule --all {TOLD}")).await.expect_code(0);
    let all = versions(&site).await;
    let shown = site.run("schedule --all --off --dry-run --exit-code").await.expect_code(3).stdout;
    let lines: String = SCHEDULE.iter().rev().map(|object| format!("  - {object}\n")).collect();
    assert!(shown.starts_with(&lines), "{shown}");
    assert!(
        shown.ends_with("0 to add, 0 to change, 6 to remove, 0 as they are. Nothing was changed (dry run).\n"),
        "{shown}"
    );
    assert_eq!(versions(&site).await, all);

    // One of them is somebody else's by now.
    let maps: Api<ConfigMap> = site.api().await;
    let taken = Patch::Merge(json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "somebody"}}}));
    maps.patch("shareddb-backup", &PatchParams::default(), &taken).await.unwrap();
    let ended = site.run("schedule --all --off").await.expect_code(0);
    assert_eq!(ended.stdout, "cronjob/shareddb-backup removed\ncronjob/shareddb-verify removed\n");
    assert!(ended.stderr.contains("configmap/shareddb-backup was not made by shareddb, and stays"), "{}", ended.stderr);
    let mut after = versions(&site).await;
    assert!(after.remove("configmap/shareddb-backup").is_some());
    assert_eq!(after, before);
    site.run("schedule --all --off").await.expect_code(0);
    assert!(site.run(&format!("schedule --all {TOLD}")).await.expect_code(5).stderr.contains("has not made"));
}

#[tokio::test]
async fn what_somebody_changed_is_not_written_over() {
    let site = Site::new().await;
    site.run(&format!("schedule --all {TOLD}")).await.expect_code(0);
    let jobs: Api<CronJob> = site.api().await;
    let by = |manager: &str| PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
    let suspend = |on: bool| Patch::Merge(json!({"spec": {"suspend": on}}));
    jobs.patch("shareddb-backup", &by("somebody"), &suspend(true)).await.unwrap();
    let told = site.run("schedule --all").await.expect_code(0);
    assert!(told.stdout.starts_with("cronjob/shareddb-backup unchanged\n"), "{}", told.stdout);
    assert!(told.stderr.contains("cronjob/shareddb-backup is suspended"), "{}", told.stderr);
    jobs.patch("shareddb-backup", &by("somebody"), &suspend(false)).await.unwrap();

    let other = Patch::Merge(json!({"spec": {"schedule": "5 5 * * *"}}));
    jobs.patch("shareddb-backup", &by("somebody"), &other).await.unwrap();
    let refused = site.run("schedule --all").await.expect_code(5);
    assert!(refused.stderr.contains(".spec.schedule belongs to somebody"), "{}", refused.stderr);
    assert_eq!(jobs.get("shareddb-backup").await.unwrap().spec.unwrap().schedule, "5 5 * * *");
    let newer = Patch::Merge(json!({"metadata": {"annotations": {"shareddb/schedule": "{\"version\":2}"}}}));
    jobs.patch("shareddb-backup", &by("shareddb"), &newer).await.unwrap();
    let refused = site.run("schedule --all").await.expect_code(5);
    assert!(refused.stderr.contains("of a newer version, or was changed"), "{}", refused.stderr);
}

#[tokio::test]
async fn what_could_not_work_is_refused_with_its_cure() {
    let site = Site::new().await;
    secret(&site, "empty", &["PASSWORD"]).await;
    for (line, code, expected, cure) in [
        ("--to s3://b", 2, "in which image", "--image REGISTRY/shareddb:TAG, or backup_image"),
        ("--image i", 2, "where the backups of environment stage are", "backups = \"s3://"),
        ("--image i --to /srv/backups", 2, "a pod's folder is gone with the pod", "--to s3://BUCKET/FOLDER"),
        ("--image i --to memory://", 2, "gone when the command ends", "s3://BUCKET/FOLDER"),
        ("--image I! --to s3://b", 2, "is no image", "REGISTRY/shareddb:TAG"),
        ("--image i --to s3://b --cron daily", 2, "\"daily\" is no text of cron", "0 2 * * *"),
        ("--image i --to s3://b --verify-cron @reboot", 2, "is no text of cron", "0 2 * * *"),
        ("--image i --to s3://b --keep none", 2, "does not say which backups stay", "7d,4w,6m"),
        ("--image i --to s3://b --encrypt-to age1", 2, "age", "age"),
        ("--image i --to s3://b --credentials-secret gone", 4, "there is no secret/gone", "create secret generic gone"),
        ("--image i --to s3://b --credentials-secret empty", 2, "secret/empty has no key AWS_", "it has PASSWORD"),
        ("--image i --to gs://b --credentials-secret empty", 2, "secret/empty has no key GOOGLE_", "it has PASSWORD"),
        ("--image i --to s3://b --memory 1Mi", 2, "too little", "--memory"),
        ("--image i --to s3://b -n nowhere", 4, "nowhere", "shareddb deploy --create-namespace -e stage -n nowhere"),
    ] {
        let mut words: Vec<&str> = vec!["schedule", "--all"];
        words.extend(line.split_whitespace());
        let mut command = shareddb_command(&site.home);
        command.current_dir(&site.home).env("KUBECONFIG", site.cluster.kubeconfig()).args(["-e", "stage"]);
        if !words.contains(&"-n") {
            command.args(["-n", &site.namespace]);
        }
        let refused = run(command.args(&words)).expect_code(code);
        let hint = refused.stderr.split_once("\nhint: ").map_or("", |(_, hint)| hint);
        assert!(refused.stderr.contains(expected) && hint.contains(cure), "{line}: {}", refused.stderr);
    }
    assert!(versions(&site).await.is_empty());
}

#[tokio::test]
async fn the_file_of_environments_says_where_and_in_which_image() {
    let site = Site::new().await;
    let file = "[env.stage]\nbackups = \"s3://acme/stage\"\nbackup_image = \"own.example/shareddb:3\"\n";
    fs::write(site.home.join("shareddb.toml"), file).unwrap();
    site.run("schedule --all").await.expect_code(0);
    let pod = async || {
        let job = site.api::<CronJob>().await.get("shareddb-backup").await.unwrap().spec.unwrap().job_template;
        let image = job.spec.unwrap().template.spec.unwrap().containers[0].image.clone().unwrap();
        let map = site.api::<ConfigMap>().await.get("shareddb-backup").await.unwrap().data.unwrap();
        (image, map["shareddb.toml"].clone())
    };
    let (image, settings) = pod().await;
    assert!(image == "own.example/shareddb:3" && settings.contains("backups = \"s3://acme/stage\""), "{settings}");
    // What it says later counts as well.
    fs::write(site.home.join("shareddb.toml"), file.replace("s3://acme", "gs://acme")).unwrap();
    let changed = site.run("schedule --all").await.expect_code(0).stdout;
    assert!(changed.starts_with("cronjob/shareddb-backup configured    next run "), "{changed}");
    assert!(pod().await.1.contains("backups = \"gs://acme/stage\""));
}

#[tokio::test]
async fn where_there_is_no_cluster_cron_does_the_same() {
    let home = temporary_home();
    let refused = |line: &str| {
        let mut command = shareddb_command(&home);
        run(command.current_dir(&home).args(line.split_whitespace())).expect_code(2).stderr
    };
    let all = refused("schedule --all");
    assert!(all.contains("the server of environment local is in none\nhint: "), "{all}");
    let lines = "\n       0 2 * * * shareddb backup --all --reason schedule -e local && shareddb prune --all --keep-daily 7 --keep-weekly 4 --keep-monthly 6 \
                 -e local\n       0 4 * * 0 shareddb verify --all -e local\n";
    assert!(all.ends_with(lines), "{all}");
    let folder = program("shareddb").parent().unwrap().display().to_string();
    let variables = format!("\n       PATH={folder}:/usr/bin:/bin\n       SHAREDDB_HOME={}\n", home.display());
    assert!(all.contains(&variables), "{all}");
    fs::write(home.join("shareddb.toml"), "[env.shop]\nadmin_url = 'postgresql://a@h/d'\nstore = 'dir:s'\n").unwrap();
    let one = refused("schedule web -e shop --cron @daily --keep all --verify-cron never --to s3://b/100%25/it's");
    assert!(
        one.ends_with(
            "\n       @daily shareddb backup web --reason schedule -e shop --to 's3://b/100\\%25/it'\\''s'\n"
        ),
        "{one}"
    );
}

/// What is told here is what the cluster does: it takes every text that passes here.
#[tokio::test]
async fn every_time_that_is_taken_here_the_api_server_takes_too() {
    let site = Site::new().await;
    site.run(&format!("schedule --all {TOLD}")).await.expect_code(0);
    let jobs: Api<CronJob> = site.api().await;
    let offer = async |cron: &str| {
        let patch = Patch::Merge(json!({"spec": {"schedule": cron}}));
        jobs.patch("shareddb-backup", &PatchParams { dry_run: true, ..PatchParams::default() }, &patch).await
    };
    let texts = [
        "* * * * *",
        "*/5 * * * *",
        "0 2 * * *",
        "59 23 31 12 6",
        "0-30/10 8-18 1,15 JAN-MAR MON-FRI",
        "0 0 * feb sun,WED",
        "1-5,7,9-59/3 0 * * 0-6",
        "@yearly",
        "@monthly",
        "@weekly",
        "@daily",
        "@hourly",
        "0 0 29 2 *",
    ];
    for text in texts {
        let cron: Cron = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        offer(cron.as_str()).await.unwrap_or_else(|error| panic!("{text}: {error}"));
    }
    for text in ["0 2 * * 7", "0 2 L * *", "60 * * * *", "0 0 2 * * *", "*/0 * * * *", "5-1 * * * *"] {
        assert!(text.parse::<Cron>().is_err() && offer(text).await.is_err(), "{text}");
    }
}
