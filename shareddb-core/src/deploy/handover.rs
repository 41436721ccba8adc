//! How a Deployment of somebody else changes hands: by who owns its fields.

use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};

use crate::kubernetes::apply::MANAGER;
use crate::kubernetes::object::Object;

/// Who fills in a Deployment's status, and what goes with it.
const CONTROLLER: &str = "kube-controller-manager";

/// What makes every field of the Deployment ours, so that those which we do not want go, and a later change of somebody else is
/// a conflict. Strategy and its parameters change in one: the API refuses the parameters of another strategy.
pub(crate) fn patch(deployment: &Value) -> Value {
    let entries = deployment["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let (theirs, kept): (Vec<Value>, Vec<Value>) = entries.into_iter().partition(is_of_a_person);
    let mut fields = json!({});
    for entry in &theirs {
        merge(&mut fields, &entry["fieldsV1"]);
    }
    let ours = json!({
        "manager": MANAGER,
        "operation": "Apply",
        "apiVersion": "apps/v1",
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    });
    let managed: Vec<Value> = kept.into_iter().filter(|entry| !is_ours(entry)).chain([ours]).collect();
    json!({
        "metadata": {
            "resourceVersion": deployment["metadata"]["resourceVersion"],
            "managedFields": managed,
        },
        "spec": { "strategy": { "type": "Recreate", "rollingUpdate": null } },
    })
}

/// What a dry run asks in the place of the handover and the apply after it, of which it could not do the second without the
/// first. Lists come out whole as they are to be, without what others had in them.
pub(crate) fn rehearsal(wanted: &Object, before: &Value) -> Value {
    let mut patch = wanted.content.clone();
    patch["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"].clone();
    patch["spec"]["strategy"]["rollingUpdate"] = Value::Null;
    patch
}

fn is_ours(entry: &Value) -> bool {
    entry["manager"] == MANAGER && entry["operation"] == "Apply"
}

/// Whether an entry is about what somebody wants, and not about what a controller reports.
fn is_of_a_person(entry: &Value) -> bool {
    entry.get("subresource").is_none() && entry["manager"] != CONTROLLER
}

fn merge(into: &mut Value, from: &Value) {
    let (Some(into), Some(from)) = (into.as_object_mut(), from.as_object()) else { return };
    for (key, value) in from {
        merge(into.entry(key.clone()).or_insert_with(|| json!({})), value);
    }
}

/// Who has written a Deployment, but for us.
pub(crate) fn managers(deployment: &Deployment) -> Vec<String> {
    let entries = deployment.metadata.managed_fields.iter().flatten();
    let people = entries.filter(|entry| entry.subresource.is_none() && entry.manager.as_deref() != Some(CONTROLLER));
    let mut names: Vec<String> =
        people.filter_map(|entry| entry.manager.clone()).filter(|name| name != MANAGER).collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_changes_hands() {
        let mut value = json!({"metadata": {}, "spec": {"selector": {}, "template": {}}});
        value["metadata"]["managedFields"] = json!([
            {"manager": "kubectl-client-side-apply", "operation": "Update", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
            {"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {"f:spec": {"f:paused": {}}}},
            {"manager": CONTROLLER, "operation": "Update", "subresource": "status", "fieldsV1": {"f:status": {}}},
        ]);
        let managed = patch(&value)["metadata"]["managedFields"].clone();
        assert_eq!(managed.as_array().unwrap().len(), 2);
        assert_eq!(managed[0]["manager"], CONTROLLER);
        assert_eq!(managed[1]["fieldsV1"], json!({"f:spec": {"f:replicas": {}, "f:paused": {}}}));
        assert_eq!(managers(&serde_json::from_value(value).unwrap()), ["kubectl-client-side-apply", "kubectl-edit"]);
    }
}
