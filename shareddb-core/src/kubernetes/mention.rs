//! Where a pod's description names a Secret.

use k8s_openapi::api::core::v1::{Container, PodSpec, Volume};

use crate::secrets::Delivery;

/// One way in which a Secret's values get into a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mention<'a> {
    /// The container that takes them. `None`: a volume that no container mounts.
    pub(super) container: Option<&'a str>,
    pub(super) delivery: Delivery,
}

/// Every way in which the values of this Secret get into such a pod. The Secrets for pulling images do not get into one.
pub(super) fn mentions<'a>(spec: &'a PodSpec, secret: &str) -> Vec<Mention<'a>> {
    let volumes: Vec<&str> = spec
        .volumes
        .iter()
        .flatten()
        .filter(|volume| holds(volume, secret))
        .map(|volume| volume.name.as_str())
        .collect();
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let mut found: Vec<Mention<'a>> = containers
        .flat_map(|container| {
            let name = Some(container.name.as_str());
            deliveries(container, secret, &volumes).map(move |delivery| Mention { container: name, delivery })
        })
        .collect();
    if found.is_empty() && !volumes.is_empty() {
        found.push(Mention { container: None, delivery: Delivery::Mounted });
    }
    found
}

fn deliveries(container: &Container, secret: &str, volumes: &[&str]) -> impl Iterator<Item = Delivery> {
    let mounts = container.volume_mounts.iter().flatten().filter(|mount| volumes.contains(&mount.name.as_str()));
    let files: Vec<Delivery> = mounts
        .map(|mount| {
            // An empty path is none.
            let part = [&mount.sub_path, &mount.sub_path_expr].into_iter().flatten().any(|path| !path.is_empty());
            if part { Delivery::SubPath } else { Delivery::Mounted }
        })
        .collect();
    takes_variables(container, secret).then_some(Delivery::Environment).into_iter().chain(files)
}

fn takes_variables(container: &Container, secret: &str) -> bool {
    let mut some = container.env.iter().flatten();
    let mut all = container.env_from.iter().flatten();
    some.any(|variable| {
        let key = variable.value_from.as_ref().and_then(|source| source.secret_key_ref.as_ref());
        key.is_some_and(|key| key.name == secret)
    }) || all.any(|source| source.secret_ref.as_ref().is_some_and(|named| named.name == secret))
}

fn holds(volume: &Volume, secret: &str) -> bool {
    let whole = volume.secret.iter().filter_map(|source| source.secret_name.as_deref());
    let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    let parts = sources.filter_map(|source| source.secret.as_ref()).map(|part| part.name.as_str());
    whole.chain(parts).any(|name| name == secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const SECRET: &str = "shop-db-secret";

    fn found(spec: Value) -> Vec<(Option<String>, Delivery)> {
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        let mentions = mentions(&spec, SECRET);
        mentions.iter().map(|mention| (mention.container.map(str::to_owned), mention.delivery)).collect()
    }

    fn by(container: &str, delivery: Delivery) -> (Option<String>, Delivery) {
        (Some(container.to_owned()), delivery)
    }

    fn key(secret: &str) -> Value {
        json!([{"name": "DB_PASSWORD", "valueFrom": {"secretKeyRef": {"name": secret, "key": "DB_PASSWORD"}}}])
    }

    /// A container `web` with these mounts of the volume `db`, which is this.
    fn mounted(volume: &Value, mounts: &[Value]) -> Value {
        let mounts: Vec<Value> = mounts
            .iter()
            .map(|more| {
                let mut mount = json!({"name": "db", "mountPath": "/etc/db"});
                mount.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                mount
            })
            .collect();
        let mut volume = volume.clone();
        volume["name"] = "db".into();
        json!({"containers": [{"name": "web", "volumeMounts": mounts}], "volumes": [volume]})
    }

    #[test]
    fn variables_come_one_by_one_or_all_at_once() {
        let one = json!({"containers": [{"name": "web", "env": key(SECRET)}]});
        assert_eq!(found(one), [by("web", Delivery::Environment)]);
        let all =
            json!({"containers": [{"name": "web", "envFrom": [{"prefix": "A_", "secretRef": {"name": SECRET}}]}]});
        assert_eq!(found(all), [by("web", Delivery::Environment)]);
    }

    #[test]
    fn containers_that_run_first_count_too() {
        let first =
            json!({"containers": [{"name": "web"}], "initContainers": [{"name": "migrate", "env": key(SECRET)}]});
        assert_eq!(found(first), [by("migrate", Delivery::Environment)]);
    }

    #[test]
    fn files_follow_unless_they_are_mounted_one_by_one() {
        let whole = json!({"secret": {"secretName": SECRET}});
        let projected = json!({"projected": {"sources": [{"configMap": {"name": "a"}}, {"secret": {"name": SECRET}}]}});
        for volume in [whole, projected] {
            assert_eq!(found(mounted(&volume, &[json!({})])), [by("web", Delivery::Mounted)]);
            assert_eq!(found(mounted(&volume, &[json!({"subPath": ""})])), [by("web", Delivery::Mounted)]);
            assert_eq!(found(mounted(&volume, &[json!({"subPath": "DB_PASSWORD"})])), [by("web", Delivery::SubPath)]);
            assert_eq!(found(mounted(&volume, &[json!({"subPathExpr": "$(KEY)"})])), [by("web", Delivery::SubPath)]);
            let both = found(mounted(&volume, &[json!({}), json!({"subPath": "uri"})]));
            assert_eq!(both, [by("web", Delivery::Mounted), by("web", Delivery::SubPath)]);
            assert_eq!(found(mounted(&volume, &[])), [(None, Delivery::Mounted)]);
        }
    }

    #[test]
    fn what_names_another_secret_or_none_of_its_values_is_no_mention() {
        let others = json!({
            "imagePullSecrets": [{"name": SECRET}],
            "serviceAccountName": SECRET,
            "containers": [{
                "name": SECRET,
                "env": key("other"),
                "envFrom": [{"secretRef": {"name": "other"}}, {"configMapRef": {"name": SECRET}}],
                "volumeMounts": [{"name": SECRET, "mountPath": "/a"}, {"name": "map", "mountPath": "/b"}],
            }],
            "volumes": [
                {"name": SECRET, "secret": {"secretName": "other"}},
                {"name": "map", "configMap": {"name": SECRET}},
                {"name": "claim", "persistentVolumeClaim": {"claimName": SECRET}},
            ],
        });
        assert_eq!(found(others), []);
    }
}
