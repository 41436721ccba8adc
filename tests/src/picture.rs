//! What the pods of a namespace show instead of going well.
//!
//! A policy of the API server copies the order from the namespace to every pod (and volume claim) that is made in it, so
//! that it counts from the first moment on; kwok's stages follow it.

use std::fs;
use std::path::{Path, PathBuf};

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

/// The annotation of pods that says what they show.
pub(crate) const PICTURE: &str = "shareddb.test/picture";

/// The annotation of volume claims for which nobody makes a volume.
pub(crate) const UNBOUND: &str = "shareddb.test/unbound";

/// What every container of a pod shows.
#[derive(Clone, Debug)]
pub enum Picture {
    /// The image cannot be had.
    ImagePullBackOff,
    /// The container ends again and again.
    CrashLoopBackOff {
        /// How often it was started again.
        restarts: u32,
        /// What it ended with the last time.
        exit_code: i32,
        /// What the kubelet makes of that: `Error`, `OOMKilled`.
        reason: &'static str,
    },
    /// The container runs, and its probe fails.
    NotReady,
}

impl Picture {
    /// As [`SHOWING`] reads it. An `IMAGE` in it is the container's.
    pub(crate) fn order(&self) -> Value {
        let waiting = |reason: &str, message: &str| json!({ "waiting": { "reason": reason, "message": message } });
        let (phase, restarts, state, last) = match self {
            Self::ImagePullBackOff => {
                ("Pending", 0, waiting("ImagePullBackOff", r#"Back-off pulling image "IMAGE""#), json!({}))
            }
            Self::CrashLoopBackOff { restarts, exit_code, reason } => {
                let state = waiting("CrashLoopBackOff", "back-off 5m0s restarting failed container");
                let ended = json!({
                    "exitCode": exit_code, "reason": reason, "startedAt": now(), "finishedAt": now(),
                });
                ("Running", *restarts, state, json!({ "terminated": ended }))
            }
            Self::NotReady => ("Running", 0, json!({ "running": { "startedAt": now() } }), json!({})),
        };
        let started = matches!(self, Self::NotReady);
        json!({
            "phase": phase,
            "since": now(),
            "container": {
                "ready": false, "started": started, "restartCount": restarts, "state": state, "lastState": last,
            },
        })
    }
}

/// In whole seconds, as the API server keeps it.
fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The status of a pod that is annotated with a [`PICTURE`].
const SHOWING: &str = r#"{{ $picture := index .metadata.annotations "shareddb.test/picture" | fromJson }}
phase: {{ $picture.phase }}
startTime: {{ $picture.since | Quote }}
{{ if not .status.podIP }}
{{ $addresses := PodIPsWith .spec.nodeName false .metadata.uid .metadata.name .metadata.namespace }}
hostIP: {{ NodeIPWith .spec.nodeName | Quote }}
podIP: {{ index $addresses 0 | Quote }}
podIPs: [{ ip: {{ index $addresses 0 | Quote }} }]
{{ end }}
conditions:
- { type: Initialized, status: "True", lastTransitionTime: {{ $picture.since | Quote }} }
{{ range list "Ready" "ContainersReady" }}
- { type: {{ . }}, status: "False", reason: ContainersNotReady, lastTransitionTime: {{ $picture.since | Quote }} }
{{ end }}
containerStatuses:
{{ range .spec.containers }}
- {{ merge (dict "name" .name "image" .image "imageID" "") $picture.container | toJson | replace "IMAGE" .image }}
{{ end }}"#;

/// The status of a pod that has shown a picture, and does no more.
const RECOVERED: &str = r#"{{ $root := . }}
{{ $running := dict "running" (dict "startedAt" Now) }}
phase: Running
conditions:
{{ range list "Ready" "ContainersReady" }}
- { type: {{ . }}, status: "True", reason: null, lastTransitionTime: {{ Now | Quote }} }
{{ end }}
containerStatuses:
{{ range $index, $container := .spec.containers }}
{{ $status := index $root.status.containerStatuses $index }}
- {{ set (set (set $status "ready" true) "started" true) "state" $running | toJson }}
{{ end }}"#;

/// Files with everything that kwok does to nodes, pods and volumes: what its module has, but for pods that show a picture
/// and claims that stay unbound. The files that differ are in `home`.
pub(crate) fn stages(module: &Path, home: &Path) -> Vec<PathBuf> {
    let write = |name: &str, stage: &Value| {
        let path = home.join(format!("{name}.json"));
        fs::write(&path, stage.to_string()).expect("the home is ours");
        path
    };
    let as_they_are = [
        "node/fast/node-initialize",
        "node/heartbeat/node-heartbeat",
        "pod/fast/pod-delete",
        "volume/fast/pv-bind",
        "volume/fast/pv-delete",
        "volume/fast/pvc-delete",
    ];
    let mut files: Vec<PathBuf> = as_they_are.iter().map(|name| module.join(format!("{name}.yaml"))).collect();
    let mut ready = unless(&module.join("pod/fast/pod-ready.yaml"), PICTURE);
    add_condition(&mut ready, json!({ "key": ".status.podIP", "operator": "DoesNotExist" }));
    files.push(write("pod-ready", &ready));
    files.push(write("pod-complete", &unless(&module.join("pod/fast/pod-complete.yaml"), PICTURE)));
    files.push(write("pvc-provision", &unless(&module.join("volume/fast/pvc-provision.yaml"), UNBOUND)));
    let shows = json!({ "key": annotation(PICTURE), "operator": "Exists" });
    files.push(write("pod-shows", &pod_stage("pod-shows", &[shows], SHOWING)));
    let has_shown = [
        json!({ "key": annotation(PICTURE), "operator": "DoesNotExist" }),
        json!({ "key": ".status.podIP", "operator": "Exists" }),
        json!({ "key": ".status.phase", "operator": "In", "values": ["Pending", "Running"] }),
        json!({ "key": READY, "operator": "NotIn", "values": ["True"] }),
    ];
    files.push(write("pod-recovers", &pod_stage("pod-recovers", &has_shown, RECOVERED)));
    files
}

/// Whether a pod is ready.
const READY: &str = r#".status.conditions.[] | select( .type == "Ready" ) | .status"#;

/// What happens to a pod of which all this is true and that is not being deleted.
fn pod_stage(name: &str, conditions: &[Value], status: &str) -> Value {
    let mut stage = json!({
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": { "name": name },
        "spec": {
            "resourceRef": { "apiGroup": "v1", "kind": "Pod" },
            "selector": { "matchExpressions": [
                { "key": ".metadata.deletionTimestamp", "operator": "DoesNotExist" },
            ] },
            "next": { "statusTemplate": status },
        },
    });
    conditions.iter().for_each(|condition| add_condition(&mut stage, condition.clone()));
    stage
}

/// The stage of a file, for objects without an annotation.
fn unless(file: &Path, name: &str) -> Value {
    let mut stage = parse(file);
    add_condition(&mut stage, json!({ "key": annotation(name), "operator": "DoesNotExist" }));
    stage
}

fn annotation(name: &str) -> String {
    format!(".metadata.annotations[\"{name}\"]")
}

fn add_condition(stage: &mut Value, condition: Value) {
    let conditions = stage["spec"]["selector"]["matchExpressions"].as_array_mut().expect("a stage has conditions");
    conditions.push(condition);
}

/// The object of a YAML file of kwok's module.
pub(crate) fn parse(file: &Path) -> Value {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The policies that copy an annotation from a namespace to new objects in it, and what puts each into force.
pub(crate) fn policies() -> Vec<(&'static str, Value)> {
    let copies = [("pods", PICTURE), ("persistentvolumeclaims", UNBOUND)];
    copies.iter().flat_map(|(resource, annotation)| policy(resource, annotation)).collect()
}

fn policy(resource: &str, annotation: &str) -> [(&'static str, Value); 2] {
    let api = "admissionregistration.k8s.io/v1";
    let name = format!("{resource}.shareddb.test");
    let (ordered, set) = ("namespaceObject.metadata.annotations", "Object{metadata: Object.metadata{annotations: ");
    let expression = format!(
        "has({ordered}) && '{annotation}' in {ordered} ? {set}{{'{annotation}': {ordered}['{annotation}']}}}}}} : Object{{}}"
    );
    let policy = json!({
        "apiVersion": api,
        "kind": "MutatingAdmissionPolicy",
        "metadata": { "name": name },
        "spec": {
            "matchConstraints": { "resourceRules": [
                { "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": [resource] },
            ] },
            "failurePolicy": "Fail",
            "reinvocationPolicy": "Never",
            "mutations": [{ "patchType": "ApplyConfiguration", "applyConfiguration": { "expression": expression } }],
        },
    });
    let binding = json!({
        "apiVersion": api,
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": { "name": name },
        "spec": { "policyName": name },
    });
    [
        ("/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies", policy),
        ("/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings", binding),
    ]
}
