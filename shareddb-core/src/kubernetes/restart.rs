//! A restart of a workload, as `kubectl rollout restart` does it.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use serde_json::{Value, json};

use super::apply::{Mode, Objects};
use super::object::Kind;
use crate::error::{Error, Result, shell_word};
use crate::secrets::{Workload, WorkloadKind};

/// What kubectl writes into a template, so that its pods are no longer as they are to be.
const RESTARTED: &str = "kubectl.kubernetes.io/restartedAt";

/// Has all pods of a workload replaced, in the way that it says; does not wait for it. Nothing else of it is touched.
pub(crate) async fn restart(objects: &Objects, workload: &Workload) -> Result<()> {
    let kind = match workload.kind {
        WorkloadKind::Deployment => Kind::of::<Deployment>(),
        WorkloadKind::StatefulSet => Kind::of::<StatefulSet>(),
        WorkloadKind::DaemonSet => Kind::of::<DaemonSet>(),
        WorkloadKind::CronJob | WorkloadKind::Job | WorkloadKind::Pod => return Err(unsupported(workload)),
    };
    let namespace = objects.namespace();
    let Some(found) = objects.read(kind, &workload.name).await? else {
        let message = format!("there is no {workload} in namespace {namespace} (context {})", objects.context());
        return Err(Error::not_found("workload_not_found", message));
    };
    let kubectl = format!("kubectl --context {} -n {namespace}", shell_word(objects.context()));
    if let Some(obstacle) = obstacle(workload, &found, &kubectl) {
        return Err(obstacle);
    }
    objects.merge(kind, &workload.name, &patch(Timestamp::now()), Mode::Real).await.map(drop)
}

/// kubectl writes whole seconds; finer, two restarts in one second are two.
fn patch(now: Timestamp) -> Value {
    json!({"spec": {"template": {"metadata": {"annotations": {RESTARTED: format!("{now:.3}")}}}}})
}

/// Why nothing would come of it. kubectl refuses the first and says nothing of the second, of which nothing comes all the same.
fn obstacle(workload: &Workload, found: &Value, kubectl: &str) -> Option<Error> {
    let spec = &found["spec"];
    if spec["paused"] == true {
        return Some(
            Error::conflict("workload_paused", format!("{workload} is paused: its pods are not replaced")).with_hint(
                format!(
                    "nothing of it was changed; let it go on, and run this again: {kubectl} rollout resume {workload}"
                ),
            ),
        );
    }
    if spec["updateStrategy"]["type"] == "OnDelete" {
        let message =
            format!("{workload} replaces a pod only when somebody deletes it (its update strategy is OnDelete)");
        let labels = spec["selector"]["matchLabels"].as_object().into_iter().flatten();
        let selector: Vec<String> =
            labels.filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?))).collect();
        return Some(Error::conflict("workload_on_delete", message).with_hint(format!(
            "nothing of it was changed; delete its pods one after the other; they are: {kubectl} get pods -l {}",
            selector.join(",")
        )));
    }
    None
}

fn unsupported(workload: &Workload) -> Error {
    let hint = match workload.kind {
        WorkloadKind::CronJob => "its next run takes the values that are in the Secret then",
        _ => "whoever made it has to make it again",
    };
    Error::invalid_input("restart_unsupported", format!("{workload} cannot be restarted")).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::Delivery;

    #[test]
    fn only_the_time_is_sent() {
        let expected = json!({"spec": {"template": {"metadata": {"annotations": {
            "kubectl.kubernetes.io/restartedAt": "2026-11-26T12:00:00.250Z",
        }}}}});
        assert_eq!(patch("2026-11-26T12:00:00.25Z".parse().unwrap()), expected);
    }

    #[test]
    fn what_would_come_to_nothing_is_told_with_the_cure() {
        let cure = |kind, spec: Value| {
            let workload = Workload::new(kind, "shop", Delivery::Environment);
            let obstacle = obstacle(&workload, &json!({"spec": spec}), "kubectl");
            obstacle.map(|error| (error.code(), error.hint().unwrap().split_once(": ").unwrap().1.to_owned()))
        };
        let resume = "kubectl rollout resume deployment/shop".to_owned();
        assert_eq!(cure(WorkloadKind::Deployment, json!({"paused": true})), Some(("workload_paused", resume)));
        assert_eq!(cure(WorkloadKind::Deployment, json!({"strategy": {"type": "Recreate"}})), None);
        let pods = "kubectl get pods -l app=shop,tier=web".to_owned();
        let selector = json!({"matchLabels": {"app": "shop", "tier": "web"}});
        let on_delete = json!({"updateStrategy": {"type": "OnDelete"}, "selector": selector});
        for kind in [WorkloadKind::StatefulSet, WorkloadKind::DaemonSet] {
            assert_eq!(cure(kind, on_delete.clone()), Some(("workload_on_delete", pods.clone())));
            assert_eq!(cure(kind, json!({"updateStrategy": {"type": "RollingUpdate"}})), None);
        }
    }
}
