//! What there is of a server in its namespace.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use crate::deploy::certificates::Pair;
use crate::deploy::heritage::Found;
use crate::deploy::manifests::RECORD;
use crate::deploy::spec::ServerRecord;
use crate::kubernetes::apply::MANAGER;
use crate::kubernetes::quantity::Size;

/// What was read, before anything is decided.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    pub(crate) deployment: Option<Deployment>,
    pub(crate) claim: Option<PersistentVolumeClaim>,
    pub(crate) configuration: Option<ConfigMap>,
    /// Who owns pods that a new server's Service would lead to; nobody has looked where there is a server.
    pub(crate) strangers: Vec<String>,
    /// What a Deployment of somebody else says, where it is to be taken over.
    pub(crate) found: Option<Found>,
    pub(crate) admin: AdminSecret,
    /// The certificate of the authority that apps were given so far.
    pub(crate) trusted: Option<String>,
    pub(crate) authority: Option<Pair>,
    pub(crate) certificate: Option<Pair>,
    /// Every object that may be applied, as it is; by the name that kubectl has for it.
    pub(crate) objects: BTreeMap<String, Value>,
}

/// The Secret with the admin's password, or what is left of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum AdminSecret {
    #[default]
    Absent,
    /// There is one, which lacks the password.
    Incomplete,
    Complete {
        /// Whose password it is, if it says so.
        user: Option<String>,
    },
}

impl Observed {
    /// The record of the server, where one was kept: with the Deployment; where there is none, with the claim or the settings.
    pub(crate) fn record(&self) -> Option<&String> {
        let (claim, settings) = (self.claim.as_ref(), self.configuration.as_ref());
        let places = match &self.deployment {
            // One without is somebody else's, whatever a deploy that was ended halfway has written beside it.
            Some(deployment) => [Some(&deployment.metadata), None],
            None => [claim.map(|claim| &claim.metadata), settings.map(|settings| &settings.metadata)],
        };
        places.into_iter().flatten().find_map(|metadata| metadata.annotations.as_ref()?.get(RECORD))
    }

    /// The record that the Deployment itself bears.
    pub(crate) fn standing(&self) -> Option<&String> {
        self.deployment.as_ref()?.metadata.annotations.as_ref()?.get(RECORD)
    }

    /// Whether the server was applied by another program, such as kubectl with what was printed, and has never run: then it
    /// has no data, and no password of it is lost.
    pub(crate) fn is_untouched(&self) -> bool {
        let (Some(deployment), Some(claim), None) = (&self.deployment, &self.claim, &self.found) else { return false };
        !is_ours(&deployment.metadata) && !is_ours(&claim.metadata) && has_never_run(deployment)
    }
}

/// Whether we have ever written it.
fn is_ours(metadata: &ObjectMeta) -> bool {
    metadata.managed_fields.iter().flatten().any(|entry| entry.manager.as_deref() == Some(MANAGER))
}

/// As far as the Deployment tells: it is as it was made, and its pod was never ready.
fn has_never_run(deployment: &Deployment) -> bool {
    let revision =
        deployment.metadata.annotations.as_ref().and_then(|notes| notes.get("deployment.kubernetes.io/revision"));
    let conditions = deployment.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut ran = conditions.map(|condition| match condition.type_.as_str() {
        "Available" => condition.status == "True",
        "Progressing" => condition.reason.as_deref() == Some("NewReplicaSetAvailable"),
        _ => false,
    });
    revision.is_none_or(|revision| revision == "1") && !ran.any(|ran| ran)
}

/// A record as it was kept; `None` when it is of a form that is not known here.
pub(crate) fn read_record(text: &str) -> Option<ServerRecord> {
    serde_json::from_str(text).ok()
}

/// How much a claim asks for.
pub(crate) fn asked(claim: &PersistentVolumeClaim) -> Option<Size> {
    claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage")?.0.parse().ok()
}
