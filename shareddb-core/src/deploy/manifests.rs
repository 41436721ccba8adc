//! The objects of a server, in the order in which they are applied: what a later one needs is there before it.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy};
use k8s_openapi::api::core::v1::{
    ConfigMap, PersistentVolumeClaim, PersistentVolumeClaimSpec, PodTemplateSpec, Secret, Service, ServiceAccount,
    ServicePort, ServiceSpec, VolumeResourceRequirements,
};
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use crate::deploy::certificates::Certificates;
use crate::deploy::configuration::{pg_hba_conf, pg_ident_conf, postgresql_conf};
use crate::deploy::pod::{PORT, pod_spec};
use crate::deploy::spec::ServerRecord;
pub(crate) use crate::environment::{ADMIN_SECRET, SERVICE};
use crate::environment::{AUTHORITY_KEY, PROVIDER, PROVIDER_KEY};
use crate::kubernetes::object::Object;
use crate::names::NamespaceName;

/// The guide's names.
pub(crate) const DEPLOYMENT: &str = "postgres";
pub(crate) const CLAIM: &str = "postgres-data";
pub(crate) const CONFIGURATION: &str = "postgres-config";
pub(crate) const CERTIFICATE_SECRET: &str = "postgres-tls";
pub(crate) const AUTHORITY_SECRET: &str = "postgres-ca";
/// Where the Deployment, its settings and its claim keep the record of the server.
pub(crate) const RECORD: &str = "shareddb/server";
/// On a pod: what it was started with, so that a change of it starts a new one.
const STARTED_WITH: &str = "shareddb/started-with";
/// Who it is, in Kubernetes' own label.
pub(crate) const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";

/// Every object of this server but its admin's password, which is made once. `certificates` are those of a server with TLS.
pub(crate) fn manifests(
    record: &ServerRecord,
    namespace: &NamespaceName,
    certificates: Option<&Certificates>,
) -> Vec<Object> {
    let scribe = Scribe { record, namespace };
    let configuration = scribe.configuration();
    let started_with = fingerprint(&configuration, certificates);
    let mut objects = vec![
        Object::of(DEPLOYMENT, &scribe.service_account()),
        Object::of(ADMIN_SECRET, &scribe.admin_secret(certificates)),
        Object::of(CONFIGURATION, &configuration),
    ];
    if let Some(certificates) = certificates {
        objects.push(Object::of(CERTIFICATE_SECRET, &scribe.certificate_secret(certificates)));
    }
    objects.push(Object::of(scribe.claim_name(), &scribe.claim()));
    objects.push(Object::of(SERVICE, &scribe.service()));
    objects.push(Object::of(DEPLOYMENT, &scribe.network_policy()));
    objects.push(Object::of(DEPLOYMENT, &scribe.disruption_budget()));
    let mut deployment = Object::of(DEPLOYMENT, &scribe.deployment(started_with));
    for (field, value) in record.adopted.iter().flat_map(|adopted| &adopted.placement) {
        deployment.content["spec"]["template"]["spec"][field] = value.clone();
    }
    keep_apart(&mut deployment.content, &selector(record));
    objects.push(deployment);
    objects
}

/// No pod of the server is placed while another one is there, wherever: two servers on one volume would destroy it, and neither
/// notices the other, since each is the first process of its pod. `Recreate` is about changes of the Deployment only: a pod that is
/// deleted or evicted, and ends slowly, has a successor at once. Every node has the label that is named here.
fn keep_apart(deployment: &mut Value, selector: &BTreeMap<String, String>) {
    const EVERYWHERE: &str = "kubernetes.io/os";
    let term = json!({"labelSelector": {"matchLabels": selector}, "topologyKey": EVERYWHERE});
    let rules = &mut deployment["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"];
    let required = &mut rules["requiredDuringSchedulingIgnoredDuringExecution"];
    match required.as_array_mut() {
        Some(terms) if terms.contains(&term) => {}
        Some(terms) => terms.push(term),
        None => *required = json!([term]),
    }
}

/// By which labels the Deployment knows its pods.
pub(crate) fn selector(record: &ServerRecord) -> BTreeMap<String, String> {
    match &record.adopted {
        Some(adopted) => adopted.selector.clone(),
        None => text_map([("app", DEPLOYMENT)]),
    }
}

/// The record of an object, as it is kept there.
pub(crate) fn recorded(record: &ServerRecord) -> String {
    // A struct of names and numbers.
    serde_json::to_string(record).unwrap_or_default()
}

struct Scribe<'a> {
    record: &'a ServerRecord,
    namespace: &'a NamespaceName,
}

impl Scribe<'_> {
    fn metadata(&self, name: &str) -> ObjectMeta {
        let mut labels = text_map([
            ("app", DEPLOYMENT),
            ("app.kubernetes.io/name", "postgresql"),
            ("app.kubernetes.io/instance", DEPLOYMENT),
            ("app.kubernetes.io/component", "database"),
            ("app.kubernetes.io/part-of", "shareddb"),
            ("app.kubernetes.io/managed-by", "shareddb"),
        ]);
        // A Deployment must bear the labels that it selects by, and so may everything else.
        labels.extend(selector(self.record));
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(self.namespace.to_string()),
            labels: Some(labels),
            ..ObjectMeta::default()
        }
    }

    fn with_record(&self, name: &str) -> ObjectMeta {
        let annotations = Some(text_map([(RECORD, recorded(self.record).as_str())]));
        ObjectMeta { annotations, ..self.metadata(name) }
    }

    /// A superuser of the database can run programs in the pod; the API is none of their business.
    fn service_account(&self) -> ServiceAccount {
        ServiceAccount {
            metadata: self.metadata(DEPLOYMENT),
            automount_service_account_token: Some(false),
            ..ServiceAccount::default()
        }
    }

    /// What is not secret in it: whose server it is, and who vouches for it.
    fn admin_secret(&self, certificates: Option<&Certificates>) -> Secret {
        let mut data = BTreeMap::new();
        if self.record.is_ours() {
            data.insert(PROVIDER_KEY.to_owned(), ByteString(PROVIDER.as_bytes().to_vec()));
        }
        if let Some(certificates) = certificates {
            data.insert(AUTHORITY_KEY.to_owned(), ByteString(certificates.authority.clone().into_bytes()));
        }
        Secret { metadata: self.metadata(ADMIN_SECRET), data: Some(data), ..Secret::default() }
    }

    fn certificate_secret(&self, certificates: &Certificates) -> Secret {
        let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
        let data = BTreeMap::from([
            ("tls.crt".to_owned(), bytes(&certificates.certificate)),
            ("tls.key".to_owned(), bytes(certificates.key())),
            ("ca.crt".to_owned(), bytes(&certificates.authority)),
        ]);
        let type_ = Some("kubernetes.io/tls".to_owned());
        Secret { metadata: self.metadata(CERTIFICATE_SECRET), data: Some(data), type_, ..Secret::default() }
    }

    fn configuration(&self) -> ConfigMap {
        let data = BTreeMap::from([
            ("postgresql.conf".to_owned(), postgresql_conf(self.record)),
            ("pg_hba.conf".to_owned(), pg_hba_conf(self.record)),
            ("pg_ident.conf".to_owned(), pg_ident_conf(self.record)),
        ]);
        ConfigMap { metadata: self.with_record(CONFIGURATION), data: Some(data), ..ConfigMap::default() }
    }

    fn claim_name(&self) -> &str {
        self.record.adopted.as_ref().map_or(CLAIM, |adopted| &adopted.claim)
    }

    fn claim(&self) -> PersistentVolumeClaim {
        let metadata = self.with_record(self.claim_name());
        let mut spec = PersistentVolumeClaimSpec::default();
        if self.record.adopted.as_ref().is_none_or(|adopted| !adopted.keeps_size) {
            let requests = Some(BTreeMap::from([("storage".to_owned(), Quantity(self.record.storage.to_string()))]));
            spec.resources = Some(VolumeResourceRequirements { requests, ..VolumeResourceRequirements::default() });
        }
        // What somebody else has decided of it cannot be decided again.
        if self.record.adopted.is_none() {
            spec.access_modes = Some(vec![self.record.access_mode.as_str().to_owned()]);
            spec.storage_class_name.clone_from(&self.record.storage_class);
        }
        PersistentVolumeClaim { metadata, spec: Some(spec), ..PersistentVolumeClaim::default() }
    }

    fn service(&self) -> Service {
        let port = ServicePort {
            name: Some("postgresql".to_owned()),
            port: PORT,
            protocol: Some("TCP".to_owned()),
            target_port: Some(IntOrString::Int(PORT)),
            ..ServicePort::default()
        };
        let spec = ServiceSpec {
            ports: Some(vec![port]),
            selector: Some(selector(self.record)),
            type_: Some("ClusterIP".to_owned()),
            ..ServiceSpec::default()
        };
        Service { metadata: self.metadata(SERVICE), spec: Some(spec), ..Service::default() }
    }

    /// In from the pods of the namespace and of those that are allowed; out to nowhere. A forwarded port does not come over
    /// the network.
    fn network_policy(&self) -> NetworkPolicy {
        let own = NetworkPolicyPeer { pod_selector: Some(LabelSelector::default()), ..NetworkPolicyPeer::default() };
        let others: Vec<String> = self.record.allow_namespaces.iter().map(ToString::to_string).collect();
        let others = (!others.is_empty()).then(|| NetworkPolicyPeer {
            namespace_selector: Some(LabelSelector {
                match_expressions: Some(vec![LabelSelectorRequirement {
                    key: NAMESPACE_LABEL.to_owned(),
                    operator: "In".to_owned(),
                    values: Some(others),
                }]),
                match_labels: None,
            }),
            ..NetworkPolicyPeer::default()
        });
        let port = NetworkPolicyPort {
            port: Some(IntOrString::Int(PORT)),
            protocol: Some("TCP".to_owned()),
            ..NetworkPolicyPort::default()
        };
        let ingress =
            NetworkPolicyIngressRule { from: Some([own].into_iter().chain(others).collect()), ports: Some(vec![port]) };
        let spec = NetworkPolicySpec {
            pod_selector: Some(self.pods()),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: Some(vec![ingress]),
            egress: None,
        };
        NetworkPolicy { metadata: self.metadata(DEPLOYMENT), spec: Some(spec) }
    }

    /// Nobody drains the node of the one server without noticing it.
    fn disruption_budget(&self) -> PodDisruptionBudget {
        let spec = PodDisruptionBudgetSpec {
            min_available: Some(IntOrString::Int(1)),
            selector: Some(self.pods()),
            ..PodDisruptionBudgetSpec::default()
        };
        PodDisruptionBudget { metadata: self.metadata(DEPLOYMENT), spec: Some(spec), ..PodDisruptionBudget::default() }
    }

    /// The old pod has to be gone before there is a new one.
    fn deployment(&self, started_with: String) -> Deployment {
        let mut labels = self.record.adopted.as_ref().map(|adopted| adopted.labels.clone()).unwrap_or_default();
        labels.extend(self.metadata(DEPLOYMENT).labels.unwrap_or_default());
        let metadata = ObjectMeta {
            labels: Some(labels),
            annotations: Some(BTreeMap::from([(STARTED_WITH.to_owned(), started_with)])),
            ..ObjectMeta::default()
        };
        let spec = DeploymentSpec {
            replicas: Some(1),
            revision_history_limit: Some(3),
            selector: self.pods(),
            strategy: Some(DeploymentStrategy { type_: Some("Recreate".to_owned()), rolling_update: None }),
            template: PodTemplateSpec {
                metadata: Some(metadata),
                spec: Some(pod_spec(self.record, self.claim_name())),
            },
            ..DeploymentSpec::default()
        };
        Deployment { metadata: self.with_record(DEPLOYMENT), spec: Some(spec), ..Deployment::default() }
    }

    fn pods(&self) -> LabelSelector {
        LabelSelector { match_labels: Some(selector(self.record)), match_expressions: None }
    }
}

/// Tells one configuration and certificate from another (FNV-1a; nothing hangs on its being hard to invert).
fn fingerprint(configuration: &ConfigMap, certificates: Option<&Certificates>) -> String {
    let texts = configuration.data.iter().flat_map(BTreeMap::values).map(String::as_str);
    let texts = texts.chain(certificates.map(|certificates| certificates.certificate.as_str()));
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", texts.flat_map(str::bytes).fold(0xcbf2_9ce4_8422_2325, step))
}

fn text_map<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Labels as the API takes them in a selector.
pub(crate) fn labels_of(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// What is secret in the Secret of the admin: made once. What is not secret in it is applied.
pub(crate) fn admin_secret_made(record: &ServerRecord, namespace: &NamespaceName, password: &str) -> Secret {
    let data = BTreeMap::from([
        ("username".to_owned(), ByteString(record.admin().as_bytes().to_vec())),
        ("password".to_owned(), ByteString(password.as_bytes().to_vec())),
    ]);
    Secret { data: Some(data), ..bare_secret(ADMIN_SECRET, namespace, "Opaque") }
}

/// The Secret of the authority, still empty.
pub(crate) fn authority_secret(namespace: &NamespaceName) -> Secret {
    let mut secret = bare_secret(AUTHORITY_SECRET, namespace, "kubernetes.io/tls");
    secret.metadata.labels = Some(text_map([("app", DEPLOYMENT), ("app.kubernetes.io/managed-by", "shareddb")]));
    secret
}

/// Labels are applied later, where they can be changed later.
fn bare_secret(name: &str, namespace: &NamespaceName, type_: &str) -> Secret {
    let metadata =
        ObjectMeta { name: Some(name.to_owned()), namespace: Some(namespace.to_string()), ..ObjectMeta::default() };
    Secret { metadata, type_: Some(type_.to_owned()), ..Secret::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_keep_away_from_each_other_beside_what_others_want() {
        let own = selector(&ServerRecord::guide().unwrap());
        let path = "/spec/template/spec/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution";
        let mut plain = json!({"spec": {"template": {"spec": {}}}});
        keep_apart(&mut plain, &own);
        let term = plain.pointer(path).unwrap()[0].clone();
        assert_eq!(term["labelSelector"]["matchLabels"], json!({"app": "postgres"}));
        let theirs = json!({"labelSelector": {}, "topologyKey": "zone"});
        let affinity = json!({"nodeAffinity": {"a": 1}, "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [theirs]
        }});
        let mut foreign = json!({"spec": {"template": {"spec": {"affinity": affinity}}}});
        for _ in 0..2 {
            keep_apart(&mut foreign, &own);
            assert_eq!(foreign.pointer(path).unwrap(), &json!([theirs, term]));
        }
        assert_eq!(foreign.pointer("/spec/template/spec/affinity/nodeAffinity").unwrap(), &json!({"a": 1}));
    }
}
