//! A new password, and those who take the Secret in Kubernetes.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use shareddb_core::{App, AppSpec, AppStatus, Provisioner, RotateOptions, Workload};
use shareddb_tests::LiveCluster;
use shareddb_tests::access::rule;
use shareddb_tests::command::{Output, run, shareddb_command};
use shareddb_tests::watch::eventually;

use crate::kubernetes::{Ground, settings};

/// An app whose Secret is in a cluster in which pods run.
struct Place {
    ground: Ground,
    provisioner: Provisioner,
    app: App,
}

impl Place {
    async fn new() -> Self {
        let ground = Ground::on(LiveCluster::shared().await.cluster(), "rotate").await;
        let provisioner = ground.provisioner(&ground.cluster.kubeconfig()).await;
        let app = provisioner.create(&AppSpec::new(ground.name.clone())).await.unwrap().app;
        Self { ground, provisioner, app }
    }

    /// A Deployment that has the password in a variable, one that has it in files, and a job of the night.
    async fn populate(&self) {
        let (client, namespace) = (self.ground.cluster.client().await, self.ground.namespace.as_str());
        let secret = self.app.secret.as_str();
        let key = json!({"secretKeyRef": {"name": secret, "key": "DB_PASSWORD"}});
        let variable =
            json!({"containers": [{"name": "web", "image": "any", "env": [{"name": "P", "valueFrom": key}]}]});
        let files = json!({
            "containers": [{"name": "web", "image": "any", "volumeMounts": [{"name": "db", "mountPath": "/etc/db"}]}],
            "volumes": [{"name": "db", "secret": {"secretName": secret}}],
        });
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
        for (name, pod) in [("web", &variable), ("files", &files)] {
            let object = serde_json::from_value(deployment(name, pod)).unwrap();
            deployments.create(&PostParams::default(), &object).await.unwrap();
        }
        let mut nightly = variable;
        nightly["restartPolicy"] = "Never".into();
        let object = json!({
            "metadata": {"name": "report"},
            "spec": {"schedule": "0 3 1 1 *", "jobTemplate": {"spec": {"template": {"spec": nightly}}}},
        });
        let jobs: Api<CronJob> = Api::namespaced(client, namespace);
        jobs.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
        eventually("both Deployments have a pod", async || {
            let status = self.status().await;
            let pods: Vec<usize> = status.workloads.unwrap().iter().map(|workload| workload.pods.len()).collect();
            pods == [1, 1, 0]
        })
        .await;
    }

    async fn status(&self) -> AppStatus {
        self.provisioner.status(Some(&self.app.name)).await.unwrap().apps.remove(0)
    }

    async fn shareddb(&self, arguments: &[&str]) -> Output {
        let mut command = shareddb_command(&settings(&self.ground).await);
        command.current_dir(self.ground.server.home()).env("KUBECONFIG", self.ground.cluster.kubeconfig());
        run(command.args(arguments))
    }
}

fn deployment(name: &str, pod: &Value) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": pod},
        },
    })
}

fn options(grace: u64) -> RotateOptions {
    let mut options = RotateOptions::default();
    options.grace = Duration::from_secs(grace);
    options
}

#[tokio::test]
async fn who_needs_a_restart_is_named_and_restarted_on_request() {
    let place = Place::new().await;
    place.populate().await;
    let (provisioner, name) = (&place.provisioner, &place.app.name);
    // What started in the same second is not older.
    let second = place.status().await.password_since.unwrap();
    eventually("the second is over", async || Timestamp::now().as_second() > second.as_second() + 1).await;

    let restart = format!("kubectl -n {} rollout restart deployment/web", place.ground.namespace);
    let planned = place.shareddb(&["rotate", name.as_str(), "--dry-run"]).await.expect_code(0);
    assert!(planned.stderr.contains(&restart), "{}", planned.stderr);
    let said = place.shareddb(&["rotate", name.as_str(), "--grace", "0s"]).await.expect_code(0);
    let lines: Vec<&str> = said.stdout.lines().map(str::trim).collect();
    assert_eq!(lines[0], format!("app/{name} rotated"));
    let of =
        |word: &str| *lines.iter().find(|line| line.starts_with(word)).unwrap_or_else(|| panic!("{word}: {lines:?}"));
    assert!(of("deployment/web").ends_with(&restart), "{lines:?}");
    assert_eq!(of("deployment/files"), "deployment/files reads it from files, which follow the Secret");
    assert_eq!(of("cronjob/report"), "cronjob/report takes it at its next run");

    let behind = place.shareddb(&["status", name.as_str()]).await.expect_code(0).stdout;
    let of = |word: &str| behind.lines().find(|line| line.contains(word)).unwrap_or_else(|| panic!("{word}: {behind}"));
    assert!(
        of("deployment/web").contains("BEHIND")
            && of("deployment/web").ends_with("1 of them from before this password")
    );
    assert!(!of("deployment/files").contains("BEHIND") && !of("cronjob/report").contains("BEHIND"), "{behind}");

    // As long as the other login works, who has not moved is part of the answer.
    provisioner.rotate(name, &options(3600)).await.unwrap();
    let refused = provisioner.rotate(name, &options(3600)).await.unwrap_err();
    let older = "started before the change of password: deployment/web (1 pod, by variables)";
    assert!(refused.to_string().ends_with(older), "{refused}");

    let mut leaked = RotateOptions::default();
    (leaked.now, leaked.restart) = (true, true);
    let report = provisioner.rotate(name, &leaked).await.unwrap();
    let labels = |workloads: &[Workload]| workloads.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(labels(&report.restarted), ["deployment/web"]);
    assert_eq!(labels(&report.workloads.unwrap()), ["deployment/files", "deployment/web", "cronjob/report"]);
    let since = place.status().await.password_since.unwrap();
    eventually("web has moved", async || {
        let status = place.status().await;
        let web = status.workloads.unwrap().into_iter().find(|workload| workload.name == "web").unwrap();
        web.pods.len() == 1 && web.pods[0].started >= since
    })
    .await;
}

#[tokio::test]
async fn whoever_may_not_look_rotates_all_the_same_and_restarts_nobody() {
    let place = Place::new().await;
    place.populate().await;
    let (ground, name) = (&place.ground, &place.app.name);
    let rules = [rule(&["secrets"], &["get", "create", "update", "delete"])];
    let provisioner = ground.provisioner(&ground.cluster.restricted(&ground.namespace, &rules).await).await;
    let mut restart = options(0);
    restart.restart = true;
    let refused = provisioner.rotate(name, &restart).await.unwrap_err();
    assert_eq!(refused.code(), "workloads_hidden");
    assert!(refused.hint().is_some_and(|hint| hint.contains("shareddb-workloads")), "{refused:?}");
    assert_eq!(provisioner.app(name).await.unwrap().generation, 1, "nothing was begun");

    let report = provisioner.rotate(name, &options(0)).await.unwrap();
    assert!(report.workloads.is_none() && report.app.generation == 2);
    let notice = report.notices.iter().find(|notice| notice.starts_with("which workloads take the Secret"));
    assert!(notice.is_some_and(|notice| notice.contains("shareddb-workloads")), "{:?}", report.notices);
    let status = provisioner.status(Some(name)).await.unwrap().apps.remove(0);
    assert!(status.workloads.is_none() && status.workloads_hidden.is_some() && status.notices.is_empty(), "{status:?}");

    // One that is paused is told of, and hinders nobody.
    let client = ground.cluster.client().await;
    let deployments: Api<Deployment> = Api::namespaced(client, &ground.namespace);
    let pause = Patch::Merge(json!({"spec": {"paused": true}}));
    deployments.patch("web", &PatchParams::default(), &pause).await.unwrap();
    let report = place.provisioner.rotate(name, &restart).await.unwrap();
    assert!(report.restarted.is_empty() && report.old_login_ends.is_some());
    let notice = report.notices.iter().find(|notice| notice.starts_with("deployment/web was not restarted"));
    assert!(notice.is_some_and(|notice| notice.contains("paused")), "{:?}", report.notices);
    assert!(place.provisioner.plan(&AppSpec::new(name.clone())).await.unwrap().is_empty());
}
