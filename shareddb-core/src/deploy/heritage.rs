//! A Deployment that somebody else made: what stays of it when it is taken over.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, PodSpec, VolumeMount};
use serde_json::Value;

use crate::deploy::handover;
use crate::deploy::image::Image;
use crate::deploy::manifests::DEPLOYMENT;
use crate::deploy::spec::{ADMIN, Heritage};
use crate::deploy::variables::{Source, expanded, sources};
use crate::deploy::words;
use crate::error::{Error, Result};
use crate::kubernetes::quantity::{Cores, Size};

/// Everything that an image of PostgreSQL declares as a volume lies here.
const VOLUMES: &str = "/var/lib/postgresql";
/// The volume that images before 18 declare.
const OWN_VOLUME: &str = "/var/lib/postgresql/data";
/// What is left where a server cannot be taken over.
const MOVE: &str =
    "move its apps with a dump each, or make it one whose data are on a claim at /var/lib/postgresql/data";

/// What was found in a Deployment of somebody else.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) heritage: Heritage,
    /// `None` when its reference says no version.
    pub(crate) image: Option<Image>,
    /// The reference as it stands there.
    pub(crate) reference: String,
    pub(crate) size: Usage,
    /// Where the name of the admin may stand, the first that is there; so too its password, and where the data are.
    pub(crate) user: Vec<Source>,
    pub(crate) password: Vec<Source>,
    pub(crate) data: Vec<Source>,
    /// Who has written it.
    pub(crate) managers: Vec<String>,
}

/// How large it was, as far as it says so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) memory: Option<Size>,
    pub(crate) cpu: Option<Cores>,
    pub(crate) connections: Option<u16>,
}

/// The claims that a Deployment's pods use.
pub(crate) fn claims(deployment: &Deployment) -> Vec<&str> {
    let volumes = pod(deployment).and_then(|pod| pod.volumes.as_ref()).into_iter().flatten();
    volumes.filter_map(|volume| Some(volume.persistent_volume_claim.as_ref()?.claim_name.as_str())).collect()
}

/// Looks for what stays.
///
/// # Errors
/// `Refused` when it is not clear where its data are.
pub(crate) fn found(deployment: &Deployment) -> Result<Found> {
    check_controller(deployment)?;
    let pod = pod(deployment).ok_or_else(|| unclear("it has no pods", MOVE))?;
    let [container] = pod.containers.as_slice() else {
        return Err(unclear("its pods have more than one container", MOVE));
    };
    check_variables(container)?;
    let mounts = container.volume_mounts.iter().flatten();
    let mounts: Vec<&VolumeMount> = mounts.filter(|mount| within(&mount.mount_path, VOLUMES)).collect();
    let [mount] = mounts.as_slice() else {
        return Err(unclear("it is not one volume that it has at /var/lib/postgresql", MOVE));
    };
    let volume = pod.volumes.iter().flatten().find(|volume| volume.name == mount.name);
    let Some(claim) = volume.and_then(|volume| volume.persistent_volume_claim.as_ref()) else {
        return Err(unclear("its data are not on a claim, and go with the pod or the node", MOVE));
    };
    if claims(deployment).len() > 1 {
        return Err(unclear("it has more than one claim", MOVE));
    }
    if mount.sub_path_expr.is_some() {
        return Err(unclear("where its data are depends on variables of the pod", MOVE));
    }
    let selector = deployment.spec.as_ref().map(|spec| spec.selector.clone()).unwrap_or_default();
    let Some(labels_selected) =
        selector.match_labels.filter(|labels| !labels.is_empty() && selector.match_expressions.is_none())
    else {
        return Err(unclear("it selects its pods by more than plain labels", MOVE));
    };
    let image: Option<Image> = container.image.as_deref().and_then(|image| image.parse().ok());
    // What the image says where nobody says anything.
    let data_directory = match &image {
        Some(image) if image.major() >= 18 => image.data_directory(),
        _ => format!("{VOLUMES}/data"),
    };
    let labels = deployment.spec.as_ref().and_then(|spec| spec.template.metadata.clone()).and_then(|meta| meta.labels);
    let heritage = Heritage {
        claim: claim.claim_name.clone(),
        container: container.name.clone(),
        volume: mount.name.clone(),
        mount: mount.mount_path.clone(),
        sub_path: mount.sub_path.clone(),
        data_directory,
        selector: labels_selected,
        labels: labels.unwrap_or_default(),
        user: user(pod, container),
        admin: ADMIN.to_owned(),
        keeps_size: true,
        placement: placement(pod),
        open: true,
    };
    let limit = |what: &str| Some(container.resources.as_ref()?.limits.as_ref()?.get(what)?.0.as_str());
    let size = Usage {
        memory: limit("memory").and_then(|text| text.parse().ok()),
        cpu: limit("cpu").and_then(|text| text.parse().ok()),
        connections: words::connections(container)?,
    };
    let (user, data) = (sources(container, "POSTGRES_USER")?, sources(container, "PGDATA")?);
    let mut password = sources(container, "POSTGRES_PASSWORD")?;
    password.retain(|source| *source != Source::Literal(String::new()));
    let reference = container.image.clone().unwrap_or_default();
    Ok(Found { heritage, image, reference, size, user, data, password, managers: handover::managers(deployment) })
}

impl Found {
    /// The same, with what its variables come to.
    ///
    /// # Errors
    /// As [`found`].
    pub(crate) fn with(mut self, user: Option<String>, data: Option<String>) -> Result<Self> {
        let given = |text: &String| !text.is_empty();
        let heritage = &mut self.heritage;
        heritage.admin = user.filter(given).unwrap_or_else(|| ADMIN.to_owned());
        if let Some(data) = data.filter(given) {
            heritage.data_directory = data;
        }
        if !within(&heritage.data_directory, &heritage.mount) {
            return Err(unclear("its data directory is not on its claim", MOVE));
        }
        // Images before 18 declare a volume at that place: the runtime lays an empty one over what the claim has there.
        let own_volume = self.image.as_ref().is_none_or(|image| image.major() < 18);
        if own_volume && within(&heritage.data_directory, OWN_VOLUME) && !within(&heritage.mount, OWN_VOLUME) {
            return Err(unclear(
                "its claim is mounted above /var/lib/postgresql/data, where the image has a volume of its own that goes with the pod: \
                 its data are there",
                MOVE,
            ));
        }
        Ok(self)
    }
}

/// A server that is not taken over, and the way out.
pub(crate) fn unclear(reason: &str, way_out: &str) -> Error {
    let message = format!("deployment/{DEPLOYMENT} cannot be taken over: {reason}");
    Error::refused("adopt_unclear", message).with_hint(way_out)
}

/// Whoever controls it would write it again, as it was.
fn check_controller(deployment: &Deployment) -> Result<()> {
    let mut owners = deployment.metadata.owner_references.iter().flatten();
    let Some(owner) = owners.find(|owner| owner.controller == Some(true)) else { return Ok(()) };
    let controller = format!("{}/{}", owner.kind.to_ascii_lowercase(), owner.name);
    Err(unclear(
        &format!("it belongs to {controller}, whose controller writes it again"),
        &format!("have whoever runs that controller make it let go of the Deployment, and run this again; or {MOVE}"),
    ))
}

/// Variables of the image's entrypoint by which the server would be another one, and that are not read here.
fn check_variables(container: &Container) -> Result<()> {
    let given = |name: &str| container.env.iter().flatten().find(|variable| variable.name == name);
    if given("POSTGRES_USER_FILE").is_some() {
        return Err(unclear(
            "the name of its admin stands in a file (POSTGRES_USER_FILE), which is not read here",
            "give it POSTGRES_USER in the place of that, let its pod come up so, and run this again",
        ));
    }
    let Some(wal) = given("POSTGRES_INITDB_WALDIR") else { return Ok(()) };
    let place = expanded("its variable POSTGRES_INITDB_WALDIR", wal.value.as_deref().unwrap_or_default())?;
    let mut mounts = container.volume_mounts.iter().flatten();
    // Beside the data it stays with them.
    let stays = mounts.any(|mount| within(&mount.mount_path, VOLUMES) && within(&place, &mount.mount_path));
    if place.is_empty() && wal.value_from.is_none() || stays {
        return Ok(());
    }
    Err(unclear("its log of changes may be elsewhere than its data (POSTGRES_INITDB_WALDIR)", MOVE))
}

fn pod(deployment: &Deployment) -> Option<&PodSpec> {
    deployment.spec.as_ref()?.template.spec.as_ref()
}

/// Whoever the files on the claim belong to, where that is not the image's own user.
fn user(pod: &PodSpec, container: &Container) -> Option<i64> {
    let own = container.security_context.as_ref().and_then(|context| context.run_as_user);
    own.or_else(|| pod.security_context.as_ref()?.run_as_user).filter(|user| *user != 0)
}

/// Whether a path is in a folder; one that leads out of it again is in none.
fn within(path: &str, folder: &str) -> bool {
    let folder = folder.trim_end_matches('/');
    let leads_out = path.split('/').any(|part| part == "..");
    !leads_out && path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Where the pod may run and how its image is had: as before.
fn placement(pod: &PodSpec) -> BTreeMap<String, Value> {
    const KEPT: [&str; 8] = [
        "affinity",
        "imagePullSecrets",
        "nodeSelector",
        "priorityClassName",
        "runtimeClassName",
        "schedulerName",
        "tolerations",
        "topologySpreadConstraints",
    ];
    let pod = serde_json::to_value(pod).unwrap_or_default();
    // The API writes down the name of the scheduler that everybody has.
    let kept = KEPT.iter().filter_map(|field| Some(((*field).to_owned(), pod.get(field)?.clone())));
    kept.filter(|(_, value)| value != "default-scheduler").collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// As people write it.
    fn deployment() -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "postgres", "namespace": "stage"},
            "spec": {
                "selector": {"matchLabels": {"app": "postgres"}},
                "template": {
                    "metadata": {"labels": {"app": "postgres", "tier": "db"}},
                    "spec": {
                        "containers": [{
                            "name": "db", "image": "postgres:15-alpine",
                            "env": [
                                {"name": "POSTGRES_USER", "value": "root"},
                                {"name": "POSTGRES_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "pg", "key": "pw"}}}
                            ],
                            "volumeMounts": [{"name": "storage", "mountPath": "/var/lib/postgresql/data"}]
                        }],
                        "volumes": [{"name": "storage", "persistentVolumeClaim": {"claimName": "pg-claim"}}]
                    }
                }
            }
        })
    }

    fn found_in(value: Value) -> Result<Found> {
        found(&serde_json::from_value(value).unwrap())
    }

    #[test]
    fn claim_image_and_data_directory_stay() {
        let found = found_in(deployment()).unwrap();
        let heritage = &found.heritage;
        assert_eq!((heritage.claim.as_str(), heritage.container.as_str()), ("pg-claim", "db"));
        assert_eq!(heritage.data_directory, "/var/lib/postgresql/data");
        assert_eq!(heritage.labels["tier"], "db");
        assert_eq!(found.image.unwrap().as_str(), "postgres:15-alpine");
        assert_eq!(found.user, [Source::Literal("root".into())]);
        assert_eq!(found.password, [Source::Secret { name: "pg".into(), key: "pw".into() }]);
    }

    #[test]
    fn a_data_directory_of_its_own_stays() {
        let mut value = deployment();
        let container = &mut value["spec"]["template"]["spec"]["containers"][0];
        container["env"].as_array_mut().unwrap().push(json!({"name": "PGDATA", "value": "/var/lib/postgresql/data/x"}));
        container["volumeMounts"][0]["subPath"] = "sub".into();
        let found = found_in(value).unwrap();
        assert_eq!(found.data, [Source::Literal("/var/lib/postgresql/data/x".into())]);
        let heritage = found.with(Some("root".into()), Some("/var/lib/postgresql/data/x".into())).unwrap().heritage;
        assert_eq!((heritage.admin.as_str(), heritage.data_directory.as_str()), ("root", "/var/lib/postgresql/data/x"));
        assert_eq!(heritage.sub_path.as_deref(), Some("sub"));
    }

    #[test]
    fn its_size_and_its_place_stay() {
        let mut value = deployment();
        let pod = &mut value["spec"]["template"]["spec"];
        pod["tolerations"] = json!([{"key": "db", "operator": "Exists"}]);
        pod["schedulerName"] = "default-scheduler".into();
        pod["containers"][0]["resources"] = json!({"limits": {"memory": "4Gi"}});
        pod["containers"][0]["args"] = json!(["-c", "max_connections=300", "-c", "shared_buffers=1GB"]);
        let found = found_in(value).unwrap();
        assert_eq!(found.size.memory, "4Gi".parse().ok());
        assert_eq!((found.size.cpu, found.size.connections), (None, Some(300)));
        assert_eq!(found.heritage.placement.into_keys().collect::<Vec<_>>(), ["tolerations"]);
    }

    #[test]
    fn variables_of_a_whole_set_are_found() {
        let mut value = deployment();
        let container = &mut value["spec"]["template"]["spec"]["containers"][0];
        container["env"] = json!([]);
        container["envFrom"] = json!([{"secretRef": {"name": "all"}}]);
        let found = found_in(value).unwrap();
        assert_eq!(found.password, [Source::Secret { name: "all".into(), key: "POSTGRES_PASSWORD".into() }]);
    }

    #[test]
    fn what_is_not_clear_is_refused() {
        let pod = "/spec/template/spec";
        let change = |path: &str, to: Value| {
            let mut value = deployment();
            *value.pointer_mut(&format!("{pod}{path}")).unwrap() = to;
            found_in(value).unwrap_err().to_string()
        };
        assert!(change("/volumes/0", json!({"name": "storage", "emptyDir": {}})).contains("not on a claim"));
        for elsewhere in ["/bitnami", "/var/lib/postgresql-wal"] {
            let said = change("/containers/0/volumeMounts/0/mountPath", json!(elsewhere));
            assert!(said.contains("at /var/lib/postgresql"), "{said}");
        }
        let wal = json!({"name": "wal", "persistentVolumeClaim": {"claimName": "wal"}});
        let data = json!({"name": "storage", "persistentVolumeClaim": {"claimName": "pg-claim"}});
        assert!(change("/volumes", json!([data, wal])).contains("more than one claim"));
        let mut two = deployment().pointer(&format!("{pod}/containers")).unwrap().clone();
        two.as_array_mut().unwrap().push(json!({"name": "exporter"}));
        assert!(change("/containers", two).contains("more than one container"));
        let mut value = deployment();
        let above = json!([{"name": "storage", "mountPath": "/var/lib/postgresql"}]);
        *value.pointer_mut(&format!("{pod}/containers/0/volumeMounts")).unwrap() = above;
        let error = found_in(value.clone()).unwrap().with(None, None).unwrap_err();
        assert!(error.to_string().contains("volume of its own"), "{error}");
        assert!(found_in(value).unwrap().with(None, Some("/var/lib/postgresql/mine".into())).is_ok());
        let mut value = deployment();
        value["spec"]["selector"]["matchExpressions"] = json!([{"key": "a", "operator": "Exists"}]);
        assert!(found_in(value).unwrap_err().to_string().contains("plain labels"));
        for elsewhere in ["/var/lib/postgresql/database", "/var/lib/postgresql/data/../x", "pgdata"] {
            let error = found_in(deployment()).unwrap().with(None, Some(elsewhere.into())).unwrap_err();
            assert!(error.to_string().contains("not on its claim"), "{error}");
        }
        let said = change("/containers/0/volumeMounts/0/mountPath", json!("/var/lib/postgresql/../x"));
        assert!(said.contains("at /var/lib/postgresql"), "{said}");
    }

    #[test]
    fn variables_that_make_another_server_are_not_passed_over() {
        let with = |variable: Value| {
            let mut value = deployment();
            value["spec"]["template"]["spec"]["containers"][0]["env"].as_array_mut().unwrap().push(variable);
            found_in(value)
        };
        let refused = |variable: Value| with(variable).unwrap_err().to_string();
        assert!(refused(json!({"name": "POSTGRES_USER_FILE", "value": "/run/user"})).contains("POSTGRES_USER_FILE"));
        assert!(refused(json!({"name": "PGDATA", "value": "$(BASE)/x"})).contains("$(…)"));
        assert!(refused(json!({"name": "POSTGRES_PASSWORD", "value": "a$(B)"})).contains("$(…)"));
        let wal = |place: &str| with(json!({"name": "POSTGRES_INITDB_WALDIR", "value": place}));
        assert!(wal("/wal").unwrap_err().to_string().contains("POSTGRES_INITDB_WALDIR"));
        assert!(wal("/var/lib/postgresql/data/wal").is_ok());
        assert!(with(json!({"name": "POSTGRES_DB_FILE", "value": "/run/db"})).is_ok());
        let nothing = with(json!({"name": "POSTGRES_PASSWORD", "value": ""})).unwrap();
        assert_eq!(nothing.password, [], "which is no password");
    }

    #[test]
    fn what_a_controller_writes_is_left_to_it() {
        let mut value = deployment();
        let owner =
            json!({"apiVersion": "db.example/v1", "kind": "Postgres", "name": "main", "uid": "u", "controller": true});
        value["metadata"]["ownerReferences"] = json!([owner]);
        let error = found_in(value.clone()).unwrap_err();
        assert_eq!(error.code(), "adopt_unclear");
        assert!(error.to_string().contains("postgres/main"), "{error}");
        assert!(error.hint().unwrap().contains("let go"), "{error:?}");
        value["metadata"]["ownerReferences"][0]["controller"] = false.into();
        assert!(found_in(value).is_ok());
    }
}
