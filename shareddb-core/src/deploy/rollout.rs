//! How far a server has come, and what keeps it.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStatus, Event, PersistentVolumeClaim, Pod};

use crate::deploy::manifests::DEPLOYMENT;

/// What can be seen of a server that is about to start.
#[derive(Debug, Default)]
pub(crate) struct Sight {
    pub(crate) deployment: Option<Deployment>,
    pub(crate) pods: Vec<Pod>,
    pub(crate) claim: Option<PersistentVolumeClaim>,
    /// What happened to the claim.
    pub(crate) claim_events: Vec<Event>,
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The pod that is wanted runs and is ready.
    Available,
    /// Nothing speaks against it yet; what is awaited.
    Coming(String),
    /// It does not get on.
    Stuck(Trouble),
}

/// What keeps a server from starting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) hint: String,
    /// Whether waiting is in vain. What others do by themselves (a node that comes, a volume that is made) is not.
    pub(crate) lasting: bool,
    /// Whose log says more.
    pub(crate) log: Option<Log>,
}

/// The log of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Log {
    pub(crate) pod: String,
    pub(crate) container: String,
    /// That of the container before this one.
    pub(crate) previous: bool,
}

/// Reasons of waiting that do not pass.
const IMAGE_REASONS: [&str; 4] = ["ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"];
const CREATION_REASONS: [&str; 4] =
    ["CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PostStartHookError"];
const CRASH: &str = "CrashLoopBackOff";

/// Judges.
pub(crate) fn stage(sight: &Sight) -> Stage {
    let Some(deployment) = &sight.deployment else { return Stage::Coming("its Deployment".to_owned()) };
    if is_available(deployment, &sight.pods) {
        return Stage::Available;
    }
    if let Some(trouble) = paused(deployment) {
        return Stage::Stuck(trouble);
    }
    // What is to be seen is about an older Deployment.
    if !is_observed(deployment) {
        return Stage::Coming("the cluster to take notice of the Deployment".to_owned());
    }
    if let Some(trouble) = not_made(deployment) {
        return Stage::Stuck(trouble);
    }
    let Some(pod) = newest(&sight.pods) else {
        let old = sight.pods.first().and_then(|pod| pod.metadata.name.as_deref());
        return Stage::Coming(old.map_or_else(|| "its pod".to_owned(), |old| format!("the end of the old pod {old}")));
    };
    let is_old = deployment.status.as_ref().is_none_or(|status| status.updated_replicas.unwrap_or(0) == 0);
    match trouble_of(pod, sight) {
        Some(_) if is_old => {
            Stage::Coming(format!("the end of the old pod {}", pod.metadata.name.as_deref().unwrap_or_default()))
        }
        Some(trouble) => Stage::Stuck(trouble),
        None => Stage::Coming(progress(pod)),
    }
}

/// The container that is awaited.
pub(crate) fn awaited(sight: &Sight) -> Option<Log> {
    let pod = newest(&sight.pods)?;
    let container = pod.spec.as_ref()?.containers.first()?;
    Some(Log { pod: pod.metadata.name.clone()?, container: container.name.clone(), previous: false })
}

fn newest(pods: &[Pod]) -> Option<&Pod> {
    let lasting = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    lasting.max_by_key(|pod| pod.metadata.creation_timestamp.clone())
}

/// When something happened last, as far as it says so.
pub(crate) fn moment(event: &Event) -> Option<impl Ord + use<>> {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
    let event_time = event.event_time.as_ref().map(|time| time.0);
    let made = event.metadata.creation_timestamp.as_ref().map(|time| time.0);
    series.or(event.last_timestamp.as_ref().map(|time| time.0)).or(event_time).or(made)
}

/// Whether the pod that is wanted now, and no other, is ready.
fn is_available(deployment: &Deployment, pods: &[Pod]) -> bool {
    let Some(status) = &deployment.status else { return false };
    let ready =
        status.updated_replicas == Some(1) && status.available_replicas == Some(1) && status.replicas == Some(1);
    is_observed(deployment) && ready && pods.iter().all(|pod| pod.metadata.deletion_timestamp.is_none())
}

/// Whether the status is about the Deployment as it is.
fn is_observed(deployment: &Deployment) -> bool {
    deployment.status.as_ref().is_some_and(|status| status.observed_generation >= deployment.metadata.generation)
}

/// Nothing is started as long as somebody holds it.
fn paused(deployment: &Deployment) -> Option<Trouble> {
    deployment.spec.as_ref()?.paused?.then(|| Trouble {
        code: "deployment_paused",
        message: format!("Deployment {DEPLOYMENT} is paused: somebody keeps it from starting pods"),
        hint: format!("kubectl rollout resume deployment/{DEPLOYMENT}"),
        lasting: true,
        log: None,
    })
}

/// The API refuses the pod: a quota, or a policy of the namespace.
fn not_made(deployment: &Deployment) -> Option<Trouble> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    let failure =
        conditions.iter().find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True")?;
    let said = failure.message.clone().unwrap_or_default();
    let (code, why) = match said.contains("exceeded quota") {
        true => ("quota_exceeded", "the quota of the namespace is used up"),
        false => ("pod_refused", "the cluster does not admit its pod"),
    };
    Some(Trouble {
        code,
        message: format!("{why}: {said}"),
        hint: match code {
            "quota_exceeded" => {
                "kubectl describe quota; ask for less (--memory, --cpu, --storage), or have it raised".to_owned()
            }
            _ => {
                "whoever administers the namespace decides that; kubectl describe replicaset -l app=postgres".to_owned()
            }
        },
        lasting: true,
        log: None,
    })
}

fn trouble_of(pod: &Pod, sight: &Sight) -> Option<Trouble> {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let status = pod.status.as_ref()?;
    let unscheduled = status.conditions.iter().flatten().find(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.reason.as_deref() == Some("Unschedulable")
    });
    if let Some(condition) = unscheduled {
        return Some(unschedulable(&name, condition.message.as_deref().unwrap_or_default(), sight));
    }
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let kept = containers.into_iter().find_map(|container| container_trouble(&name, container));
    kept.or_else(|| {
        (status.phase.as_deref() == Some("Failed")).then(|| Trouble {
            code: "pod_failed",
            message: format!(
                "pod {name} has failed: {}",
                [&status.reason, &status.message].into_iter().flatten().cloned().collect::<Vec<_>>().join(", ")
            ),
            hint: describe(&name),
            lasting: false,
            log: None,
        })
    })
}

fn container_trouble(pod: &str, container: &ContainerStatus) -> Option<Trouble> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    let said = waiting.message.as_deref().unwrap_or_default();
    let image = &container.image;
    let trouble = |code, message: String, hint: String, log| Some(Trouble { code, message, hint, lasting: true, log });
    if IMAGE_REASONS.contains(&reason) {
        return trouble(
            "image_not_pulled",
            format!("pod {pod}: image {image} cannot be pulled ({reason}): {said}"),
            format!("is its name right, and may the node pull it? another one: --image; more: {}", describe(pod)),
            None,
        );
    }
    if CREATION_REASONS.contains(&reason) {
        return trouble(
            "container_not_started",
            format!("pod {pod}: its container does not start ({reason}): {said}"),
            describe(pod),
            None,
        );
    }
    if reason == CRASH {
        let last = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
        let code =
            last.map(|last| format!(", last with exit code {}{}", last.exit_code, memory(last.reason.as_deref())));
        return trouble(
            "crash_loop",
            format!(
                "pod {pod}: PostgreSQL ends as soon as it is started: {} times{}",
                container.restart_count,
                code.unwrap_or_default()
            ),
            format!("the whole log: kubectl logs {pod} --previous"),
            Some(Log { pod: pod.to_owned(), container: container.name.clone(), previous: true }),
        );
    }
    None
}

fn memory(reason: Option<&str>) -> &'static str {
    if reason == Some("OOMKilled") { " for want of memory (--memory gives it more)" } else { "" }
}

fn unschedulable(pod: &str, said: &str, sight: &Sight) -> Trouble {
    if let Some(claim) = &sight.claim
        && claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Pending")
        && (said.contains("PersistentVolumeClaim") || said.contains("persistentvolumeclaim"))
    {
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        let newest = sight.claim_events.iter().max_by_key(|event| moment(event));
        let why = newest.and_then(|event| event.message.as_deref()).unwrap_or(said);
        return Trouble {
            code: "claim_pending",
            message: format!("claim {name} has no volume yet: {why}"),
            hint: format!("kubectl get storageclass; kubectl describe pvc {name}; another class: --storage-class"),
            lasting: false,
            log: None,
        };
    }
    let ending = sight.pods.iter().find(|pod| pod.metadata.deletion_timestamp.is_some());
    if let Some(old) = ending.filter(|_| said.contains("anti-affinity")) {
        return held_up(pod, old);
    }
    Trouble {
        code: "unschedulable",
        message: format!("pod {pod} fits on no node: {said}"),
        hint: format!("ask for less (--memory, --cpu), or add a node; more: {}", describe(pod)),
        lasting: false,
        log: None,
    }
}

/// No pod of the server is placed while another one is there.
fn held_up(pod: &str, old: &Pod) -> Trouble {
    let name = old.metadata.name.as_deref().unwrap_or_default();
    let grace = u64::try_from(old.metadata.deletion_grace_period_seconds.unwrap_or(0)).unwrap_or(0);
    // The moment that is written there is the one at which it should have ended.
    let asked = old.metadata.deletion_timestamp.as_ref();
    let asked = asked.and_then(|time| time.0.checked_sub(Duration::from_secs(grace)).ok());
    let since = asked.map(|time| format!("terminating since {time}; ")).unwrap_or_default();
    Trouble {
        code: "pod_ending",
        message: format!("pod {pod} waits for the end of pod {name} ({since}is its node unreachable?)"),
        hint: format!(
            "{}; only if its node is gone for good and cannot come back: kubectl delete pod {name} --force --grace-period=0. Two servers on \
             one volume destroy it",
            describe(name)
        ),
        lasting: false,
        log: None,
    }
}

/// What is awaited of a pod with which nothing is wrong.
fn progress(pod: &Pod) -> String {
    let name = pod.metadata.name.as_deref().unwrap_or(DEPLOYMENT);
    let status = pod.status.as_ref();
    let container = status.and_then(|status| status.container_statuses.as_ref()?.first());
    let waiting = container.and_then(|container| container.state.as_ref()?.waiting.as_ref()?.reason.clone());
    let running =
        container.is_some_and(|container| container.state.as_ref().is_some_and(|state| state.running.is_some()));
    match (waiting, running) {
        (Some(reason), _) => format!("pod {name}: {reason}"),
        (None, true) => format!("pod {name}: PostgreSQL starts"),
        (None, false) => {
            format!("pod {name}: {}", status.and_then(|status| status.phase.as_deref()).unwrap_or("Pending"))
        }
    }
}

fn describe(pod: &str) -> String {
    format!("kubectl describe pod {pod}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn deployment(status: &Value) -> Option<Deployment> {
        serde_json::from_value(json!({
            "metadata": {"name": "postgres", "generation": 2},
            "spec": {"selector": {}, "template": {}}, "status": status
        }))
        .unwrap()
    }

    fn pod(status: &Value) -> Vec<Pod> {
        vec![serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).unwrap()]
    }

    fn waiting(reason: &str) -> Vec<Pod> {
        pod(&json!({"phase": "Pending", "containerStatuses": [{
            "name": "postgres", "image": "postgres:15-alpine", "imageID": "", "ready": false, "restartCount": 3,
            "state": {"waiting": {"reason": reason, "message": "said"}},
            "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}}
        }]}))
    }

    fn trouble(sight: &Sight) -> Trouble {
        match stage(sight) {
            Stage::Stuck(trouble) => trouble,
            other => panic!("{other:?}"),
        }
    }

    fn coming(pods: Vec<Pod>) -> Sight {
        Sight {
            deployment: deployment(&json!({"observedGeneration": 2, "updatedReplicas": 1})),
            pods,
            ..Sight::default()
        }
    }

    #[test]
    fn available_is_the_pod_that_is_wanted_now() {
        let status = |generation: i64| json!({"observedGeneration": generation, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1});
        let sight = |generation| Sight { deployment: deployment(&status(generation)), ..Sight::default() };
        assert_eq!(stage(&sight(2)), Stage::Available);
        assert!(matches!(stage(&sight(1)), Stage::Coming(_)), "the status is about an older Deployment");
    }

    #[test]
    fn a_deployment_that_somebody_holds_is_not_waited_for() {
        let mut held = deployment(&json!({"observedGeneration": 2}));
        held.as_mut().unwrap().spec.as_mut().unwrap().paused = Some(true);
        let trouble = trouble(&Sight { deployment: held, ..coming(waiting("ContainerCreating")) });
        assert_eq!((trouble.code, trouble.lasting), ("deployment_paused", true));
    }

    #[test]
    fn an_old_pod_is_not_taken_for_the_new_one() {
        let of =
            |status: Value| stage(&Sight { deployment: deployment(&status), ..coming(waiting("ImagePullBackOff")) });
        assert!(matches!(of(json!({"observedGeneration": 1, "updatedReplicas": 1})), Stage::Coming(_)));
        assert_eq!(of(json!({"observedGeneration": 2})), Stage::Coming("the end of the old pod p".into()));
    }

    #[test]
    fn each_picture_has_its_word() {
        for (reason, code) in [
            ("ImagePullBackOff", "image_not_pulled"),
            ("InvalidImageName", "image_not_pulled"),
            ("CreateContainerConfigError", "container_not_started"),
            ("CrashLoopBackOff", "crash_loop"),
        ] {
            let trouble = trouble(&coming(waiting(reason)));
            assert_eq!((trouble.code, trouble.lasting), (code, true), "{trouble:?}");
            assert_eq!(trouble.log.is_some(), code == "crash_loop");
        }
        assert_eq!(stage(&coming(waiting("ContainerCreating"))), Stage::Coming("pod p: ContainerCreating".into()));
    }

    #[test]
    fn a_pod_without_a_node_may_wait_for_its_volume() {
        let pods = |said: &str| {
            pod(&json!({"phase": "Pending", "conditions": [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said}
            ]}))
        };
        let plain = trouble(&coming(pods("0/1 nodes are available: 1 Insufficient memory.")));
        assert_eq!((plain.code, plain.lasting), ("unschedulable", false));
        let claim = json!({"metadata": {"name": "postgres-data"}, "status": {"phase": "Pending"}});
        let events = json!([{"metadata": {}, "involvedObject": {}, "message": "no class fast", "lastTimestamp": "2026-01-01T00:00:00Z"}]);
        let sight = Sight {
            claim: serde_json::from_value(claim).unwrap(),
            claim_events: serde_json::from_value(events).unwrap(),
            ..coming(pods("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."))
        };
        let pending = trouble(&sight);
        assert_eq!(pending.code, "claim_pending");
        assert!(pending.message.contains("no class fast"), "{}", pending.message);
    }

    #[test]
    fn a_pod_that_waits_for_another_to_end_says_so() {
        let said = "0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules.";
        let pods = |second: Value| -> Vec<Pod> {
            let condition =
                json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said});
            let new = json!({"metadata": {"name": "new"}, "status": {"phase": "Pending", "conditions": [condition]}});
            [new, second].map(|pod| serde_json::from_value(pod).unwrap()).into()
        };
        let ending = json!({"metadata": {
            "name": "old", "deletionTimestamp": "2026-01-02T03:06:05Z", "deletionGracePeriodSeconds": 120
        }});
        let held = trouble(&coming(pods(ending)));
        assert_eq!((held.code, held.lasting), ("pod_ending", false));
        assert_eq!(
            held.message,
            "pod new waits for the end of pod old (terminating since 2026-01-02T03:04:05Z; is its node unreachable?)"
        );
        assert!(held.hint.starts_with("kubectl describe pod old") && held.hint.contains("--force"), "{}", held.hint);
        // Another pod that stays is no reason to wait.
        let stays = json!({"metadata": {"name": "old", "creationTimestamp": "2020-01-02T03:06:05Z"}});
        let mut pods = pods(stays);
        pods.pop();
        assert_eq!(trouble(&coming(pods)).code, "unschedulable");
    }

    #[test]
    fn a_pod_that_is_not_admitted_is_told_by_the_deployment() {
        let refused = |said: &str| {
            let status = json!({"observedGeneration": 2, "conditions": [{"type": "ReplicaFailure", "status": "True", "message": said}]});
            trouble(&Sight { deployment: deployment(&status), ..Sight::default() }).code
        };
        assert_eq!(refused("pods \"p\" is forbidden: exceeded quota: q"), "quota_exceeded");
        assert_eq!(refused("pods \"p\" is forbidden: violates PodSecurity"), "pod_refused");
    }
}
