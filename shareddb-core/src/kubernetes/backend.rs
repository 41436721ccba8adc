//! Which pod stands behind a Service.

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// How a Service finds its pods, and which of their ports it means.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Aim {
    /// As the API takes it: `app=postgres,tier=db`.
    pub(super) selector: String,
    port: IntOrString,
}

/// A port of a pod that is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Backend {
    pub(super) pod: String,
    pub(super) port: u16,
}

/// Of this many pods it is told why they do not serve.
const TOLD: usize = 3;

impl Aim {
    /// What a port of a Service leads to; the reason when that is not to be known.
    pub(super) fn of(service: &Service, port: u16) -> Result<Self, String> {
        let spec = service.spec.clone().unwrap_or_default();
        let selector = spec.selector.unwrap_or_default();
        if selector.is_empty() {
            return Err("it selects no pods".to_owned());
        }
        let ports = spec.ports.unwrap_or_default();
        let Some(found) = ports.iter().find(|found| found.port == i32::from(port)) else {
            let known = ports.iter().map(|port| port.port.to_string()).collect::<Vec<_>>().join(", ");
            return Err(format!("it has no port {port}, only {known}"));
        };
        let port = found.target_port.clone().unwrap_or(IntOrString::Int(found.port));
        let selector = selector.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
        Ok(Self { selector, port })
    }

    /// The youngest of the pods that are ready; else, for people, what there is instead.
    pub(super) fn choose(&self, pods: &[Pod]) -> Result<Backend, String> {
        let mut ready: Vec<&Pod> = pods.iter().filter(|pod| is_ready(pod)).collect();
        ready.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
        match ready.last() {
            Some(pod) => {
                let name = pod.metadata.name.clone().unwrap_or_default();
                let port = self.port_of(pod).ok_or_else(|| format!("pod/{name} has no port {:?}", self.named()))?;
                Ok(Backend { pod: name, port })
            }
            None if pods.is_empty() => Err(format!("there is no pod with the labels {}", self.selector)),
            None => Err(pods.iter().take(TOLD).map(picture).collect::<Vec<_>>().join(", ")),
        }
    }

    fn named(&self) -> &str {
        match &self.port {
            IntOrString::String(name) => name,
            IntOrString::Int(_) => "",
        }
    }

    fn port_of(&self, pod: &Pod) -> Option<u16> {
        let number = match &self.port {
            IntOrString::Int(number) => *number,
            IntOrString::String(name) => {
                let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
                let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
                ports.find(|port| port.name.as_ref() == Some(name))?.container_port
            }
        };
        u16::try_from(number).ok().filter(|port| *port != 0)
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let is_true = |kind| conditions.clone().any(|condition| condition.type_ == kind && condition.status == "True");
    pod.metadata.deletion_timestamp.is_none() && is_true("Ready")
}

/// One pod that does not serve, and what it waits for.
fn picture(pod: &Pod) -> String {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    if pod.metadata.deletion_timestamp.is_some() {
        return format!("pod/{name} is being deleted");
    }
    let status = pod.status.clone().unwrap_or_default();
    let phase = status.phase.as_deref().unwrap_or("Unknown");
    let waits =
        |state: &Option<k8s_openapi::api::core::v1::ContainerState>| state.as_ref()?.waiting.as_ref()?.reason.clone();
    let statuses = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let waiting = statuses.filter_map(|container| waits(&container.state)).next();
    let unscheduled = || {
        let mut conditions = status.conditions.iter().flatten();
        let found = conditions.find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
        found.reason.clone()
    };
    match (waiting.or_else(unscheduled).or_else(|| status.reason.clone()), phase) {
        (Some(reason), _) => format!("pod/{name} is {phase} ({reason})"),
        (None, "Running") => format!("pod/{name} is Running, but not ready"),
        (None, _) => format!("pod/{name} is {phase}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(spec: &Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "s"}, "spec": spec})).unwrap()
    }

    fn pod(name: &str, born: u32, status: &Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name, "creationTimestamp": format!("2026-01-02T03:04:{born:02}Z")},
            "spec": {"containers": [{"name": "c", "ports": [{"name": "sql", "containerPort": 5433}]}]},
            "status": status,
        }))
        .unwrap()
    }

    fn ready() -> Value {
        json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]})
    }

    fn aim(target: &Value) -> Aim {
        let port = json!({"port": 5432, "targetPort": target});
        Aim::of(&service(&json!({"selector": {"app": "postgres", "tier": "db"}, "ports": [port]})), 5432).unwrap()
    }

    #[test]
    fn a_service_leads_to_a_port_by_number_or_name() {
        assert_eq!(aim(&json!(7000)).selector, "app=postgres,tier=db");
        let pods = [pod("old", 1, &ready()), pod("young", 3, &ready()), pod("middle", 2, &ready())];
        assert_eq!(aim(&json!(7000)).choose(&pods), Ok(Backend { pod: "young".into(), port: 7000 }));
        assert_eq!(aim(&json!("sql")).choose(&pods), Ok(Backend { pod: "young".into(), port: 5433 }));
        assert_eq!(aim(&Value::Null).choose(&pods), Ok(Backend { pod: "young".into(), port: 5432 }));
        assert_eq!(aim(&json!("other")).choose(&pods).unwrap_err(), "pod/young has no port \"other\"");
    }

    #[test]
    fn a_service_that_leads_nowhere_says_why() {
        let reason = |spec: &Value| Aim::of(&service(spec), 5432).unwrap_err();
        assert_eq!(reason(&json!({"ports": [{"port": 5432}]})), "it selects no pods");
        let elsewhere = json!({"selector": {"a": "b"}, "ports": [{"port": 80}, {"port": 81}]});
        assert_eq!(reason(&elsewhere), "it has no port 5432, only 80, 81");
    }

    #[test]
    fn pods_that_do_not_serve_are_told() {
        let told = |pods: &[Pod]| aim(&json!(1)).choose(pods).unwrap_err();
        assert_eq!(told(&[]), "there is no pod with the labels app=postgres,tier=db");
        let mut going = pod("going", 1, &ready());
        going.metadata.deletion_timestamp = going.metadata.creation_timestamp.clone();
        assert_eq!(told(&[going]), "pod/going is being deleted");
        assert_eq!(told(&[pod("p", 1, &json!({"phase": "Running"}))]), "pod/p is Running, but not ready");
        assert_eq!(told(&[pod("p", 1, &json!({"phase": "Pending"}))]), "pod/p is Pending");
        let container = json!({"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ImagePullBackOff"}}});
        let pulling = json!({"phase": "Pending", "containerStatuses": [container]});
        assert_eq!(told(&[pod("p", 1, &pulling)]), "pod/p is Pending (ImagePullBackOff)");
        let condition = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable"});
        let homeless = json!({"phase": "Pending", "conditions": [condition]});
        assert_eq!(told(&[pod("p", 1, &homeless)]), "pod/p is Pending (Unschedulable)");
        assert_eq!(told(&[pod("p", 1, &json!({"phase": "Failed", "reason": "Evicted"}))]), "pod/p is Failed (Evicted)");
        let pods = ["a", "b", "c", "d"].map(|name| pod(name, 1, &json!({"phase": "Pending"})));
        assert_eq!(told(&pods), "pod/a is Pending, pod/b is Pending, pod/c is Pending");
    }
}
