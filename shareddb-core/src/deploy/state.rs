//! How a deployed server is: what `kubectl get pods, services, pvc` would show.

use futures_util::future::try_join3;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::Serialize;

use crate::deploy::look;
use crate::deploy::manifests::SERVICE;
use crate::deploy::rollout::{self, Sight, Stage};
use crate::error::Result;
use crate::kubernetes::Task;
use crate::kubernetes::apply::Objects;
use crate::kubernetes::object::Kind;

/// A deployed server as Kubernetes sees it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ServerState {
    /// Whether there is a Deployment.
    pub deployed: bool,
    /// Whether the pod that is wanted is ready.
    pub available: bool,
    /// What is awaited, or what keeps it from being available.
    pub trouble: Option<String>,
    /// Its pods: one, but for a change.
    pub pods: Vec<PodState>,
    /// Its Service.
    pub service: Option<ServiceState>,
    /// The claim of its volume.
    pub claim: Option<ClaimState>,
    /// The day on which its certificate ends, as `2028-11-25`, where it has one. A deploy in the second half of its life
    /// renews it.
    pub certificate_ends: Option<String>,
}

/// One pod.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PodState {
    /// Its name.
    pub name: String,
    /// `Running`, `Pending`, or why its container waits; `Terminating` while it ends.
    pub phase: String,
    /// Whether it is ready.
    pub ready: bool,
    /// How often its container was started again.
    pub restarts: i32,
    /// The image that it runs.
    pub image: String,
    /// The node that it is on.
    pub node: Option<String>,
    /// When it began, as RFC 3339.
    pub started: Option<String>,
}

/// The Service.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ServiceState {
    /// Its name.
    pub name: String,
    /// Its address in the cluster.
    pub address: String,
    /// Its port.
    pub port: i32,
    /// The ready pods behind it, by address.
    pub endpoints: Vec<String>,
}

/// The claim of the volume.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ClaimState {
    /// Its name.
    pub name: String,
    /// `Bound`, `Pending`, `Lost`.
    pub phase: String,
    /// How large it is, or is to be.
    pub size: String,
    /// Its storage class.
    pub class: Option<String>,
    /// Its volume.
    pub volume: Option<String>,
}

pub(crate) async fn state(objects: &Objects) -> Result<ServerState> {
    let slices_of = format!("kubernetes.io/service-name={SERVICE}");
    let slices = objects.list(Kind::of::<EndpointSlice>(), &slices_of);
    let (sight, service, slices) =
        try_join3(look::sight(objects), objects.read(Kind::of::<Service>(), SERVICE), slices).await?;
    let certificate_ends = if look::record(&sight).is_some_and(|record| record.tls) {
        look::certificate_end(&objects.for_task(Task::Secrets)).await?
    } else {
        None
    };
    let service: Option<Service> = look::typed(service.as_ref())?;
    let slices: Vec<EndpointSlice> = look::all(slices)?;
    let stage = rollout::stage(&sight);
    let Sight { deployment, pods, claim, .. } = sight;
    Ok(ServerState {
        deployed: deployment.is_some(),
        available: stage == Stage::Available,
        trouble: match stage {
            Stage::Available => None,
            _ if deployment.is_none() => None,
            Stage::Coming(what) => Some(format!("awaited: {what}")),
            Stage::Stuck(trouble) => Some(trouble.message),
        },
        pods: pods.iter().map(pod_state).collect(),
        service: service.map(|service| service_state(&service, &slices)),
        claim: claim.map(claim_state),
        certificate_ends: certificate_ends.map(|day| day.to_string()),
    })
}

fn pod_state(pod: &Pod) -> PodState {
    let status = pod.status.as_ref();
    let container = status.and_then(|status| status.container_statuses.as_ref()?.first());
    let waiting = container.and_then(|container| container.state.as_ref()?.waiting.as_ref()?.reason.clone());
    let phase = status.and_then(|status| status.phase.clone()).unwrap_or_else(|| "Unknown".to_owned());
    let spec = pod.spec.as_ref();
    PodState {
        name: pod.metadata.name.clone().unwrap_or_default(),
        phase: match pod.metadata.deletion_timestamp {
            Some(_) => "Terminating".to_owned(),
            None => waiting.unwrap_or(phase),
        },
        ready: container.is_some_and(|container| container.ready),
        restarts: container.map_or(0, |container| container.restart_count),
        image: spec.and_then(|spec| spec.containers.first()?.image.clone()).unwrap_or_default(),
        node: spec.and_then(|spec| spec.node_name.clone()),
        started: status.and_then(|status| status.start_time.as_ref()).map(|time| time.0.to_string()),
    }
}

fn service_state(service: &Service, slices: &[EndpointSlice]) -> ServiceState {
    let spec = service.spec.as_ref();
    let port = spec.and_then(|spec| spec.ports.as_ref()?.first()).map_or(0, |port| port.port);
    let ready = slices
        .iter()
        .flat_map(|slice| &slice.endpoints)
        .filter(|endpoint| endpoint.conditions.as_ref().is_none_or(|conditions| conditions.ready != Some(false)));
    ServiceState {
        name: SERVICE.to_owned(),
        address: spec.and_then(|spec| spec.cluster_ip.clone()).unwrap_or_default(),
        port,
        endpoints: ready.flat_map(|endpoint| endpoint.addresses.iter().cloned()).collect(),
    }
}

fn claim_state(claim: PersistentVolumeClaim) -> ClaimState {
    let (spec, status) = (claim.spec.unwrap_or_default(), claim.status.unwrap_or_default());
    let size = |amounts: Option<&std::collections::BTreeMap<String, _>>| {
        amounts
            .and_then(|amounts| amounts.get("storage"))
            .map(|amount: &k8s_openapi::apimachinery::pkg::api::resource::Quantity| amount.0.clone())
    };
    let asked = size(spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()));
    ClaimState {
        name: claim.metadata.name.unwrap_or_default(),
        phase: status.phase.unwrap_or_else(|| "Pending".to_owned()),
        size: size(status.capacity.as_ref()).or(asked).unwrap_or_default(),
        class: spec.storage_class_name,
        volume: spec.volume_name,
    }
}
