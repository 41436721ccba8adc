//! What differs between two states of an object, field by field.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::kubernetes::field_path::may_hold_a_password;

/// One field that changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldChange {
    /// Where it is: `spec.template.spec.containers[postgres].image`.
    pub path: String,
    /// What it was; `None` when it is new. Values of Secrets and of variables do not show.
    pub before: Option<String>,
    /// What it becomes; `None` when it goes.
    pub after: Option<String>,
}

/// What the server itself writes at each change.
const KEPT_BY_SERVER: [&str; 5] = ["managedFields", "resourceVersion", "generation", "uid", "creationTimestamp"];
/// What tells the items of a list apart, where they have it.
const KEYS: [&str; 4] = ["name", "mountPath", "containerPort", "port"];
const HIDDEN: &str = "…";

/// What changes from one state to the next. `secret`: values under `data` are not shown.
pub(crate) fn changes(before: &Value, after: &Value, secret: bool) -> Vec<FieldChange> {
    let mut found = Vec::new();
    compare(String::new(), &stripped(before), &stripped(after), &mut found);
    if secret {
        for change in
            found.iter_mut().filter(|change| change.path.starts_with("data") || change.path.starts_with("stringData"))
        {
            change.before = change.before.as_ref().map(|_| HIDDEN.to_owned());
            change.after = change.after.as_ref().map(|_| HIDDEN.to_owned());
        }
    }
    // What comes is ours, and has none.
    for change in found.iter_mut().filter(|change| may_hold_a_password(&change.path)) {
        change.before = change.before.as_ref().map(|_| HIDDEN.to_owned());
    }
    found
}

/// Without what changes by itself.
fn stripped(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
        if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
            KEPT_BY_SERVER.iter().for_each(|field| drop(metadata.remove(*field)));
        }
    }
    object
}

fn compare(path: String, before: &Value, after: &Value, found: &mut Vec<FieldChange>) {
    match (before, after) {
        _ if before == after => {}
        (Value::Object(before), Value::Object(after)) => compare_maps(&path, before, after, found),
        (Value::Array(before), Value::Array(after)) => match (keyed(before), keyed(after)) {
            (Some(before), Some(after)) => compare_maps(&path, &before, &after, found),
            _ => found.push(change(path, Some(&Value::from(before.clone())), Some(&Value::from(after.clone())))),
        },
        (Value::String(before), Value::String(after)) if before.contains('\n') || after.contains('\n') => {
            compare_lines(&path, before, after, found);
        }
        _ => found.push(change(path, Some(before), Some(after))),
    }
}

fn compare_maps(path: &str, before: &Map<String, Value>, after: &Map<String, Value>, found: &mut Vec<FieldChange>) {
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for key in keys {
        // An item of a list brings its brackets along.
        let path = match path {
            "" => key.clone(),
            _ if key.starts_with('[') => format!("{path}{key}"),
            _ => format!("{path}.{key}"),
        };
        match (before.get(key), after.get(key)) {
            (Some(before), Some(after)) => compare(path, before, after, found),
            (before, after) => found.push(change(path, before, after)),
        }
    }
}

/// A list by what tells its items apart.
fn keyed(items: &[Value]) -> Option<Map<String, Value>> {
    let key = KEYS.iter().find(|key| items.iter().all(|item| item.get(**key).is_some()))?;
    let named: Map<String, Value> =
        items.iter().map(|item| (format!("[{}]", plain(&item[*key])), item.clone())).collect();
    (named.len() == items.len()).then_some(named)
}

/// Lines that only one text has. Where a line moves, nothing is said.
fn compare_lines(path: &str, before: &str, after: &str, found: &mut Vec<FieldChange>) {
    let setting = |line: &str| line.split_once('=').map_or_else(|| line.to_owned(), |(name, _)| name.trim().to_owned());
    let only = |text: &str, other: &str| -> Vec<String> {
        let other: BTreeSet<&str> = other.lines().collect();
        text.lines().filter(|line| !other.contains(line) && !line.starts_with('#')).map(str::to_owned).collect()
    };
    let (mut gone, come) = (only(before, after), only(after, before));
    let value = |line: &str| line.split_once('=').map_or_else(|| line.to_owned(), |(_, value)| value.trim().to_owned());
    for line in come {
        let old = gone.iter().position(|old| setting(old) == setting(&line)).map(|at| gone.remove(at));
        let path = format!("{path}: {}", setting(&line));
        found.push(FieldChange { path, before: old.as_deref().map(value), after: Some(value(&line)) });
    }
    for line in gone {
        found.push(FieldChange {
            path: format!("{path}: {}", setting(&line)),
            before: Some(value(&line)),
            after: None,
        });
    }
}

fn change(path: String, before: Option<&Value>, after: Option<&Value>) -> FieldChange {
    FieldChange { path, before: before.map(plain), after: after.map(plain) }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

impl std::fmt::Display for FieldChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => write!(f, "{}: {before} → {after}", self.path),
            (None, Some(after)) => write!(f, "{}: + {after}", self.path),
            (Some(before), None) => write!(f, "{}: − {before}", self.path),
            (None, None) => write!(f, "{}", self.path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(before: &Value, after: &Value) -> Vec<String> {
        changes(before, after, false).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_the_server_writes_by_itself_is_no_change() {
        let before =
            json!({"metadata": {"name": "a", "resourceVersion": "1", "managedFields": []}, "status": {"x": 1}});
        let after = json!({"metadata": {"name": "a", "resourceVersion": "2", "generation": 3}, "spec": {}});
        assert_eq!(shown(&before, &after), ["spec: + {}"]);
        assert!(shown(&before, &before).is_empty());
    }

    #[test]
    fn items_are_known_by_their_names() {
        let with = |image: &str, extra: Value| {
            let mut containers = vec![json!({"name": "postgres", "image": image})];
            containers.extend(extra.as_object().map(|_| extra.clone()));
            json!({"spec": {"containers": containers, "args": ["a"]}})
        };
        assert_eq!(
            shown(&with("a", Value::Null), &with("b", json!({"name": "side"}))),
            ["spec.containers[postgres].image: a → b", "spec.containers[side]: + {\"name\":\"side\"}"]
        );
        let args = |list: Value| json!({"args": list});
        assert_eq!(shown(&args(json!(["a"])), &args(json!(["b"]))), ["args: [\"a\"] → [\"b\"]"]);
    }

    #[test]
    fn settings_change_line_by_line() {
        let before = json!({"data": {"c": "# x\na = 1\nb = 2\nc = 3\n"}});
        let after = json!({"data": {"c": "# y\na = 1\nb = 4\nd = 5\n"}});
        assert_eq!(shown(&before, &after), ["data.c: b: 2 → 4", "data.c: d: + 5", "data.c: c: − 3"]);
    }

    #[test]
    fn what_people_wrote_into_a_container_does_not_show() {
        let with = |content: Value| json!({"spec": {"containers": [content]}});
        let before =
            with(json!({"name": "db", "image": "a", "args": ["MARK"], "env": [{"name": "P", "value": "MARK"}],
            "readinessProbe": {"exec": {"command": ["MARK"]}}, "resources": {"limits": {"memory": "8Gi"}}}));
        let after = with(json!({"name": "db", "image": "b", "resources": {"limits": {"memory": "1Gi"}}}));
        let text = shown(&before, &after).join("\n");
        assert!(!text.contains("MARK"), "{text}");
        for word in ["image: a → b", "8Gi → 1Gi", "args", "readinessProbe"] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }

    #[test]
    fn values_of_a_secret_do_not_show() {
        let before = json!({"data": {"a": "MARK"}});
        let after = json!({"data": {"a": "OTHER", "b": "NEW"}});
        let text = format!("{:?}", changes(&before, &after, true));
        assert!(text.contains("data.a") && text.contains("data.b"), "{text}");
        for value in ["MARK", "OTHER", "NEW"] {
            assert!(!text.contains(value), "{text}");
        }
        let whole = format!("{:?}", changes(&json!({}), &after, true));
        assert!(!whole.contains("NEW"), "{whole}");
    }
}
