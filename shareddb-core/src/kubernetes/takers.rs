//! Who in a namespace takes a Secret, from what there is of each kind.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::mention::{Mention, mentions};
use super::reloader::{Annotations, reloads};
use crate::secrets::{Delivery, Workload, WorkloadKind, WorkloadPod};

/// What a Deployment writes on its pods, and appends to the names of its ReplicaSets.
const HASH: &str = "pod-template-hash";

/// What there is in a namespace. It shows nowhere: a template may hold passwords.
#[derive(Default)]
pub(crate) struct Inhabitants {
    pub(super) deployments: Vec<Deployment>,
    pub(super) stateful_sets: Vec<StatefulSet>,
    pub(super) daemon_sets: Vec<DaemonSet>,
    pub(super) cron_jobs: Vec<CronJob>,
    /// `None` where they may not be read.
    pub(super) jobs: Option<Vec<Job>>,
    pub(super) pods: Vec<Pod>,
}

/// A Secret, as far as it matters who takes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken<'a> {
    pub(crate) name: &'a str,
    pub(crate) annotations: &'a Annotations,
}

/// What makes pods.
struct Maker<'a> {
    kind: WorkloadKind,
    metadata: &'a ObjectMeta,
    template: Option<&'a PodTemplateSpec>,
}

/// Who takes the Secret, by their templates and by the pods that there are, in the order of kinds and names.
pub(crate) fn takers(there: &Inhabitants, secret: Taken<'_>) -> Vec<Workload> {
    let makers = there.makers();
    let mut found: BTreeMap<(WorkloadKind, &str), Workload> = BTreeMap::new();
    for (key, maker) in &makers {
        let spec = maker.template.and_then(|template| template.spec.as_ref());
        let delivery = spec.and_then(|spec| strongest(&mentions(spec, secret.name)));
        if let Some(delivery) = delivery {
            found.insert(*key, maker.workload(delivery, secret));
        }
    }
    for pod in there.pods.iter().filter(|pod| !is_over(pod)) {
        let Some(spec) = &pod.spec else { continue };
        let mentions = mentions(spec, secret.name);
        let (Some(delivery), Some(started)) = (strongest(&mentions), started(pod, &mentions)) else { continue };
        let key = there.owner(pod, &makers);
        // Its template may have named the Secret only before.
        let workload = found.entry(key).or_insert_with(|| match makers.get(&key) {
            Some(maker) => maker.workload(delivery, secret),
            None => Workload::new(key.0, key.1, delivery),
        });
        workload.delivery = workload.delivery.max(delivery);
        workload.pods.push(WorkloadPod::new(name(&pod.metadata), started));
    }
    found.into_values().collect()
}

impl Inhabitants {
    fn makers(&self) -> BTreeMap<(WorkloadKind, &str), Maker<'_>> {
        let deployments = self.deployments.iter().map(|one| Maker {
            kind: WorkloadKind::Deployment,
            metadata: &one.metadata,
            template: one.spec.as_ref().map(|spec| &spec.template),
        });
        let stateful_sets = self.stateful_sets.iter().map(|one| Maker {
            kind: WorkloadKind::StatefulSet,
            metadata: &one.metadata,
            template: one.spec.as_ref().map(|spec| &spec.template),
        });
        let daemon_sets = self.daemon_sets.iter().map(|one| Maker {
            kind: WorkloadKind::DaemonSet,
            metadata: &one.metadata,
            template: one.spec.as_ref().map(|spec| &spec.template),
        });
        let cron_jobs = self.cron_jobs.iter().map(|one| Maker {
            kind: WorkloadKind::CronJob,
            metadata: &one.metadata,
            template: one.spec.as_ref().and_then(|spec| spec.job_template.spec.as_ref()).map(|job| &job.template),
        });
        // Those of a CronJob are runs of it, and one that has ended takes nothing any more.
        let own = self.jobs.iter().flatten().filter(|job| cron_job_of(job).is_none() && !has_ended(job));
        let jobs = own.map(|one| Maker {
            kind: WorkloadKind::Job,
            metadata: &one.metadata,
            template: one.spec.as_ref().map(|spec| &spec.template),
        });
        let all = deployments.chain(stateful_sets).chain(daemon_sets).chain(cron_jobs).chain(jobs);
        all.map(|maker| ((maker.kind, name(maker.metadata)), maker)).collect()
    }

    /// Whose a pod is; its own where it is nobody's that is known here.
    fn owner<'a>(
        &'a self,
        pod: &'a Pod,
        makers: &BTreeMap<(WorkloadKind, &'a str), Maker<'a>>,
    ) -> (WorkloadKind, &'a str) {
        let own = (WorkloadKind::Pod, name(&pod.metadata));
        let Some(owner) = controller(&pod.metadata) else { return own };
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        match (group, owner.kind.as_str()) {
            ("apps", "StatefulSet") => (WorkloadKind::StatefulSet, &owner.name),
            ("apps", "DaemonSet") => (WorkloadKind::DaemonSet, &owner.name),
            ("apps", "ReplicaSet") => {
                let hash = pod.metadata.labels.as_ref().and_then(|labels| labels.get(HASH));
                let deployment = hash.and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-'));
                // Other controllers have ReplicaSets too.
                let known = deployment.map(|name| (WorkloadKind::Deployment, name));
                known.filter(|key| makers.contains_key(key)).unwrap_or(own)
            }
            ("batch", "Job") => self.job(&owner.name, makers),
            _ => own,
        }
    }

    /// A Job, or the CronJob of which it is a run.
    fn job<'a>(
        &'a self,
        job: &'a str,
        makers: &BTreeMap<(WorkloadKind, &'a str), Maker<'a>>,
    ) -> (WorkloadKind, &'a str) {
        let read = self.jobs.iter().flatten().find(|read| name(&read.metadata) == job);
        let cron_job = match read {
            Some(read) => cron_job_of(read),
            // A CronJob names its runs after the minute in which they were to begin.
            None => job
                .rsplit_once('-')
                .filter(|(name, minute)| {
                    let is_minute = !minute.is_empty() && minute.bytes().all(|byte| byte.is_ascii_digit());
                    is_minute && makers.contains_key(&(WorkloadKind::CronJob, *name))
                })
                .map(|(name, _)| name),
        };
        cron_job.map_or((WorkloadKind::Job, job), |name| (WorkloadKind::CronJob, name))
    }
}

impl Maker<'_> {
    fn workload(&self, delivery: Delivery, secret: Taken<'_>) -> Workload {
        let template = self.template.and_then(|template| template.metadata.as_ref());
        let of_template = template.map_or(&None, |metadata| &metadata.annotations);
        let reloaded = reloads(&self.metadata.annotations, of_template, secret.name, secret.annotations);
        Workload { reloaded, ..Workload::new(self.kind, name(self.metadata), delivery) }
    }
}

fn strongest(mentions: &[Mention<'_>]) -> Option<Delivery> {
    mentions.iter().map(|mention| mention.delivery).max()
}

/// Since when a pod may have the values that it has. A container that is started anew gets its variables anew, but not what
/// was mounted file by file.
fn started(pod: &Pod, mentions: &[Mention<'_>]) -> Option<Timestamp> {
    let status = pod.status.as_ref();
    let made = pod.metadata.creation_timestamp.as_ref();
    let start = status.and_then(|status| status.start_time.as_ref()).or(made).map(|time| time.0)?;
    let fixed = mentions.iter().filter(|mention| mention.delivery.needs_restart());
    let moments = fixed.map(|mention| match (mention.delivery, mention.container) {
        (Delivery::Environment, Some(container)) => running_since(pod, container).unwrap_or(start),
        _ => start,
    });
    Some(moments.min().unwrap_or(start))
}

fn running_since(pod: &Pod, container: &str) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let state = all.filter(|status| status.name == container).find_map(|status| status.state.as_ref())?;
    state.running.as_ref()?.started_at.as_ref().map(|time| time.0)
}

fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn has_ended(job: &Job) -> bool {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|found| matches!(found.type_.as_str(), "Complete" | "Failed") && found.status == "True")
}

fn cron_job_of(job: &Job) -> Option<&str> {
    let owner = controller(&job.metadata)?;
    let is_cron_job = owner.kind == "CronJob" && owner.api_version.starts_with("batch/");
    is_cron_job.then_some(owner.name.as_str())
}

fn controller(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

fn name(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    const SECRET: &str = "shop-db-secret";
    const NOON: &str = "2026-11-26T12:00:00Z";

    fn typed<K: DeserializeOwned>(value: Value) -> K {
        serde_json::from_value(value).unwrap()
    }

    /// A description of a pod whose container `web` takes its variables from this Secret.
    fn taking(secret: &str) -> Value {
        json!({"containers": [{"name": "web", "envFrom": [{"secretRef": {"name": secret}}]}]})
    }

    fn mounting() -> Value {
        json!({
            "containers": [{"name": "web", "volumeMounts": [{"name": "db", "mountPath": "/etc/db"}]}],
            "volumes": [{"name": "db", "secret": {"secretName": SECRET}}],
        })
    }

    fn made<K: DeserializeOwned>(name: &str, spec: &Value) -> K {
        let template = json!({"metadata": {}, "spec": spec});
        let selector = json!({"matchLabels": {"app": name}});
        typed(json!({
            "metadata": {"name": name},
            "spec": {"selector": selector, "serviceName": name, "template": template},
        }))
    }

    fn cron_job(name: &str) -> CronJob {
        let job = json!({"spec": {"template": {"spec": taking(SECRET)}}});
        typed(json!({"metadata": {"name": name}, "spec": {"schedule": "@daily", "jobTemplate": job}}))
    }

    /// A pod that was made at noon, for this owner: its API version, kind and name.
    fn pod(name: &str, owner: Option<[&str; 3]>, spec: &Value) -> Pod {
        let owners = owner.map(|[version, kind, name]| {
            json!([{"apiVersion": version, "kind": kind, "name": name, "uid": "1", "controller": true}])
        });
        typed(json!({
            "metadata": {"name": name, "creationTimestamp": NOON, "ownerReferences": owners},
            "spec": spec,
        }))
    }

    fn with_hash(mut pod: Pod, hash: &str) -> Pod {
        pod.metadata.labels = Some([(HASH.to_owned(), hash.to_owned())].into());
        pod
    }

    fn with_status(mut pod: Pod, status: Value) -> Pod {
        pod.status = Some(typed(status));
        pod
    }

    /// Everybody, with how it takes the Secret and the names of its pods.
    fn told(there: &Inhabitants) -> Vec<String> {
        let found = takers(there, Taken { name: SECRET, annotations: &None });
        let told = |workload: &Workload| {
            let pods: Vec<&str> = workload.pods.iter().map(|pod| pod.name.as_str()).collect();
            format!("{workload} {:?} {}", workload.delivery, pods.join(" ")).trim_end().to_owned()
        };
        found.iter().map(told).collect()
    }

    fn since(pod: Pod) -> String {
        let found = takers(
            &Inhabitants { pods: vec![pod], ..Inhabitants::default() },
            Taken { name: SECRET, annotations: &None },
        );
        found[0].pods[0].started.to_string()
    }

    #[test]
    fn templates_are_told_of_without_pods_too() {
        let there = Inhabitants {
            deployments: vec![made("shop", &taking(SECRET)), made("other", &taking("other-db-secret"))],
            stateful_sets: vec![made("queue", &mounting())],
            daemon_sets: vec![made("agent", &taking(SECRET))],
            cron_jobs: vec![cron_job("report")],
            ..Inhabitants::default()
        };
        let expected = [
            "deployment/shop Environment",
            "statefulset/queue Mounted",
            "daemonset/agent Environment",
            "cronjob/report Environment",
        ];
        assert_eq!(told(&there), expected);
    }

    #[test]
    fn pods_belong_to_what_made_them() {
        let spec = taking(SECRET);
        let there = Inhabitants {
            deployments: vec![made("shop", &spec), made("shop-2", &spec)],
            stateful_sets: vec![made("queue", &spec)],
            daemon_sets: vec![made("agent", &spec)],
            pods: vec![
                with_hash(pod("shop-5f-a", Some(["apps/v1", "ReplicaSet", "shop-5f"]), &spec), "5f"),
                with_hash(pod("shop-2-5f-a", Some(["apps/v1", "ReplicaSet", "shop-2-5f"]), &spec), "5f"),
                pod("queue-0", Some(["apps/v1", "StatefulSet", "queue"]), &spec),
                pod("agent-a", Some(["apps/v1", "DaemonSet", "agent"]), &spec),
            ],
            ..Inhabitants::default()
        };
        let expected = [
            "deployment/shop Environment shop-5f-a",
            "deployment/shop-2 Environment shop-2-5f-a",
            "statefulset/queue Environment queue-0",
            "daemonset/agent Environment agent-a",
        ];
        assert_eq!(told(&there), expected);
    }

    #[test]
    fn pods_of_nobody_known_are_not_lost() {
        let spec = taking(SECRET);
        let there = Inhabitants {
            deployments: vec![made("shop", &taking("other"))],
            pods: vec![
                pod("bare", None, &spec),
                with_hash(pod("lone-5f-a", Some(["apps/v1", "ReplicaSet", "lone-5f"]), &spec), "5f"),
                pod("canary-5f-a", Some(["apps/v1", "ReplicaSet", "shop-5f"]), &spec),
                pod("foreign-0", Some(["apps.kruise.io/v1beta1", "StatefulSet", "shop"]), &spec),
            ],
            ..Inhabitants::default()
        };
        let expected =
            ["bare", "canary-5f-a", "foreign-0", "lone-5f-a"].map(|name| format!("pod/{name} Environment {name}"));
        assert_eq!(told(&there), expected);
    }

    #[test]
    fn runs_of_a_cron_job_are_its_own_with_the_right_to_read_jobs_and_without() {
        let owner =
            json!([{"apiVersion": "batch/v1", "kind": "CronJob", "name": "report", "uid": "1", "controller": true}]);
        let template = json!({"spec": taking(SECRET)});
        let job = |name: &str, owners: Value, status: Value| -> Job {
            let metadata = json!({"name": name, "ownerReferences": owners});
            typed(json!({"metadata": metadata, "spec": {"template": template}, "status": status}))
        };
        let run = |job: &str| pod(&format!("{job}-a"), Some(["batch/v1", "Job", job]), &taking(SECRET));
        let ended = json!({"conditions": [{"type": "Complete", "status": "True"}]});
        let mut there = Inhabitants {
            cron_jobs: vec![cron_job("report")],
            jobs: Some(vec![
                job("report-29402640", owner.clone(), json!({})),
                job("by-hand", owner, json!({})),
                job("import-2026", Value::Null, json!({})),
                job("waiting", Value::Null, json!({})),
                job("over", Value::Null, ended),
            ]),
            pods: ["report-29402640", "by-hand", "import-2026"].into_iter().map(run).collect(),
            ..Inhabitants::default()
        };
        let expected = [
            "cronjob/report Environment report-29402640-a by-hand-a",
            "job/import-2026 Environment import-2026-a",
            "job/waiting Environment",
        ];
        assert_eq!(told(&there), expected);
        there.jobs = None;
        let expected = [
            "cronjob/report Environment report-29402640-a",
            "job/by-hand Environment by-hand-a",
            "job/import-2026 Environment import-2026-a",
        ];
        assert_eq!(told(&there), expected);
    }

    #[test]
    fn a_pod_counts_as_it_is_whatever_its_template_says_by_now() {
        let owner = Some(["apps/v1", "StatefulSet", "queue"]);
        let there = Inhabitants {
            stateful_sets: vec![made("queue", &mounting())],
            pods: vec![
                pod("queue-0", owner, &taking(SECRET)),
                pod("queue-1", owner, &mounting()),
                pod("queue-2", owner, &taking("other")),
            ],
            ..Inhabitants::default()
        };
        assert_eq!(told(&there), ["statefulset/queue Environment queue-0 queue-1"]);
        let moved_away = Inhabitants { stateful_sets: vec![made("queue", &taking("other"))], ..there };
        assert_eq!(told(&moved_away), ["statefulset/queue Environment queue-0 queue-1"]);
    }

    #[test]
    fn a_pod_that_is_over_has_nothing_and_one_that_ends_still_has() {
        let bare = |name: &str, phase: &str| with_status(pod(name, None, &taking(SECRET)), json!({"phase": phase}));
        let mut ending = bare("ending", "Running");
        ending.metadata.deletion_timestamp = Some(typed(json!(NOON)));
        let pods = vec![bare("done", "Succeeded"), ending, bare("failed", "Failed"), bare("waits", "Pending")];
        let there = Inhabitants { pods, ..Inhabitants::default() };
        assert_eq!(told(&there), ["pod/ending Environment ending", "pod/waits Environment waits"]);
    }

    #[test]
    fn variables_are_as_old_as_their_container_and_single_files_as_the_pod() {
        let running = |at: &str| {
            json!({"name": "web", "ready": true, "image": "", "imageID": "", "restartCount": 1,
            "state": {"running": {"startedAt": at}}})
        };
        let status = |container: Value| json!({"startTime": "2026-11-26T12:00:01Z", "containerStatuses": [container]});
        let takes = pod("a", None, &taking(SECRET));
        assert_eq!(since(takes.clone()), NOON, "no node has taken it");
        let restarted = status(running("2026-11-26T15:00:00Z"));
        assert_eq!(since(with_status(takes.clone(), restarted.clone())), "2026-11-26T15:00:00Z");
        let mut waits = restarted.clone();
        waits["containerStatuses"][0]["state"] = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        assert_eq!(since(with_status(takes, waits)), "2026-11-26T12:00:01Z");
        assert_eq!(since(with_status(pod("a", None, &mounting()), restarted.clone())), "2026-11-26T12:00:01Z");
        let mut both = mounting();
        both["containers"][0]["envFrom"] = json!([{"secretRef": {"name": SECRET}}]);
        assert_eq!(since(with_status(pod("a", None, &both), restarted.clone())), "2026-11-26T15:00:00Z");
        both["containers"][0]["volumeMounts"][0]["subPath"] = "uri".into();
        assert_eq!(since(with_status(pod("a", None, &both), restarted)), "2026-11-26T12:00:01Z");
    }

    #[test]
    fn who_restarts_by_itself_is_told_by_its_annotations() {
        let mut there = Inhabitants { deployments: vec![made("shop", &taking(SECRET))], ..Inhabitants::default() };
        let reloaded = |there: &Inhabitants| takers(there, Taken { name: SECRET, annotations: &None })[0].reloaded;
        assert!(!reloaded(&there));
        let asks: Annotations = Some([("reloader.stakater.com/auto".to_owned(), "true".to_owned())].into());
        there.deployments[0].spec.as_mut().unwrap().template.metadata.as_mut().unwrap().annotations = asks;
        assert!(reloaded(&there));
    }
}
