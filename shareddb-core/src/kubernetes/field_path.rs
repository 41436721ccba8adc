//! The path of a field, as the API server names one that is in dispute: `.spec.containers[name="db"].image`.

use serde_json::Value;

/// The value of a field. `None` when there is none there, or the path is not understood.
pub(crate) fn value<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    let rest = match path.as_bytes().first() {
        None => return Some(object),
        Some(b'.') => &path[1..],
        Some(b'[') => return item(object, &path[1..]),
        Some(_) => return None,
    };
    // A key may have dots of its own: the longest that there is.
    let fits = |key: &&String| {
        rest.strip_prefix(key.as_str()).is_some_and(|after| after.is_empty() || after.starts_with(['.', '[']))
    };
    let key = object.as_object()?.keys().filter(fits).max_by_key(|key| key.len())?;
    value(&object[key], &rest[key.len()..])
}

/// That of an item of a list, by the fields that tell it apart: `port=5432,protocol="TCP"].targetPort`.
fn item<'a>(list: &'a Value, path: &str) -> Option<&'a Value> {
    let (keys, rest) = path.split_once(']')?;
    let keys: Vec<(&str, &str)> = keys.split(',').map(|key| key.split_once('=')).collect::<Option<_>>()?;
    let is = |value: &Value, wanted: &str| serde_json::to_string(value).is_ok_and(|text| text == wanted);
    let is_meant = |item: &&Value| keys.iter().all(|(name, wanted)| is(&item[*name], wanted));
    value(list.as_array()?.iter().find(is_meant)?, rest)
}

/// People write passwords into variables, arguments and probes of containers, and kubectl keeps a copy of what they wrote.
pub(crate) fn may_hold_a_password(path: &str) -> bool {
    const HARMLESS: [&str; 6] = ["image", "imagePullPolicy", "ports", "resources", "securityContext", "volumeMounts"];
    let within = path.split_once("ontainers").map(|(_, rest)| rest);
    let harmless = |rest: &str| {
        let field = rest.split_once("].").map_or("", |(_, field)| field);
        HARMLESS
            .iter()
            .any(|name| field.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '['])))
    };
    path.ends_with("last-applied-configuration") || within.is_some_and(|rest| !harmless(rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_field_is_found_by_its_path() {
        let object = json!({
            "metadata": {"annotations": {"team": "shop", "team.example/x": "y"}},
            "data": {"pg_hba.conf": "rules"},
            "spec": {
                "replicas": 0,
                "containers": [{"name": "side", "image": "a"}, {"name": "db", "image": "b"}],
                "ports": [{"port": 5432, "protocol": "TCP", "targetPort": 1}],
            },
        });
        let found = |path: &str| value(&object, path).map(ToString::to_string);
        assert_eq!(found(".spec.replicas").unwrap(), "0");
        assert_eq!(found(".data.pg_hba.conf").unwrap(), "\"rules\"");
        assert_eq!(found(".metadata.annotations.team.example/x").unwrap(), "\"y\"");
        assert_eq!(found(".spec.containers[name=\"db\"].image").unwrap(), "\"b\"");
        assert_eq!(found(".spec.ports[port=5432,protocol=\"TCP\"].targetPort").unwrap(), "1");
        for path in
            [".spec.paused", ".spec.containers[name=\"x\"].image", ".spec.containers[0]", "spec", ".spec.replicas.x"]
        {
            assert_eq!(found(path), None, "{path}");
        }
    }
}
