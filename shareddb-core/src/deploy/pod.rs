//! The pod of the server.
//!
//! What it has to be follows from the image's entrypoint: as its user `postgres` it makes the data directory if that is
//! empty (reading the admin's password from a file, and starting a server of its own on the socket meanwhile), and then
//! becomes the server.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, ExecAction, KeyToPath,
    Lifecycle, LifecycleHandler, PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec, Probe,
    ResourceRequirements, SeccompProfile, SecretVolumeSource, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::deploy::configuration::{FOLDER, SOCKET_FOLDER, TLS_FOLDER, shared_memory};
use crate::deploy::manifests::{ADMIN_SECRET, CERTIFICATE_SECRET, CONFIGURATION, DEPLOYMENT};
use crate::deploy::spec::ServerRecord;
use crate::kubernetes::quantity::{Cores, Size};

/// PostgreSQL's port.
pub(crate) const PORT: i32 = 5432;
/// Where the admin's password is mounted.
const PASSWORD_FOLDER: &str = "/etc/postgresql-admin";
/// Owner and group may read. A file of the kubelet belongs to root, and to the pod's group by `fsGroup`; PostgreSQL takes a key
/// of root's that its group may read, and no more.
const READABLE: i32 = 0o440;
/// A checkpoint of everything in memory, and the last messages.
const SHUTDOWN_SECONDS: i64 = 120;

const DATA: &str = "data";

/// How the server is started, and by which variables its entrypoint makes a data directory.
pub(crate) struct Start {
    pub(crate) args: Vec<String>,
    pub(crate) variables: Vec<(&'static str, String)>,
}

impl Start {
    /// As this server wants it.
    pub(crate) fn of(record: &ServerRecord) -> Self {
        let data =
            record.adopted.as_ref().map_or_else(|| record.image.data_directory(), |old| old.data_directory.clone());
        let mut variables = vec![
            ("PGDATA", data),
            ("POSTGRES_USER", record.admin().to_owned()),
            ("POSTGRES_DB", "postgres".to_owned()),
            // The home of whoever runs psql in the pod cannot be written.
            ("PSQL_HISTORY", "/tmp/.psql_history".to_owned()),
            // Its access rules would trust everybody who comes from loopback. They do not count, as `hba_file` names
            // ours; and they would be of no harm.
            ("POSTGRES_INITDB_ARGS", "--data-checksums --auth-local=peer --auth-host=scram-sha-256".to_owned()),
        ];
        if begins_with_nothing(record) {
            variables.insert(1, ("POSTGRES_PASSWORD_FILE", format!("{PASSWORD_FOLDER}/password")));
        }
        let args = vec!["postgres".to_owned(), "-c".to_owned(), format!("config_file={FOLDER}/postgresql.conf")];
        Self { args, variables }
    }
}

/// Whether an empty volume is where the server begins. The entrypoint asks for a password only there, and ends without one: a
/// server that was taken over has data, and where these are not found it is not to become another one, without any.
fn begins_with_nothing(record: &ServerRecord) -> bool {
    record.adopted.is_none()
}

pub(crate) fn pod_spec(record: &ServerRecord, claim: &str) -> PodSpec {
    let user = record.adopted.as_ref().and_then(|adopted| adopted.user).unwrap_or_else(|| record.image.user());
    let data = record.adopted.as_ref().map_or(DATA, |adopted| &adopted.volume);
    let memory = |name: &str, size: Size| empty(name, Some("Memory"), size);
    let mut volumes = vec![
        Volume {
            name: data.to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim.to_owned(),
                read_only: None,
            }),
            ..Volume::default()
        },
        Volume {
            name: "configuration".to_owned(),
            config_map: Some(ConfigMapVolumeSource {
                name: CONFIGURATION.to_owned(),
                default_mode: Some(READABLE),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        },
        empty("socket", None, Size::mebibytes(16)),
        empty("temporary", None, Size::mebibytes(1 << 10)),
        memory("shared-memory", shared_memory(record)),
    ];
    if begins_with_nothing(record) {
        volumes.insert(2, secret("admin", ADMIN_SECRET, &["password"]));
    }
    if record.tls {
        volumes.push(secret("certificate", CERTIFICATE_SECRET, &["tls.crt", "tls.key"]));
    }
    PodSpec {
        automount_service_account_token: Some(false),
        service_account_name: Some(DEPLOYMENT.to_owned()),
        // Variables of every Service in the namespace, some of which libpq would take for its own.
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(SHUTDOWN_SECONDS),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(user),
            run_as_group: Some(user),
            fs_group: Some(user),
            // Otherwise each start would go through all files, and open the data directory to the group.
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
            ..PodSecurityContext::default()
        }),
        containers: vec![container(record, data)],
        volumes: Some(volumes),
        ..PodSpec::default()
    }
}

fn container(record: &ServerRecord, data: &str) -> Container {
    let adopted = record.adopted.as_ref();
    let Start { args, variables } = Start::of(record);
    let mut mounts = vec![
        VolumeMount {
            name: data.to_owned(),
            mount_path: adopted.map_or_else(|| record.image.mount().to_owned(), |adopted| adopted.mount.clone()),
            sub_path: adopted.and_then(|adopted| adopted.sub_path.clone()),
            ..VolumeMount::default()
        },
        read_only("configuration", FOLDER),
        mount("socket", SOCKET_FOLDER),
        mount("temporary", "/tmp"),
        mount("shared-memory", "/dev/shm"),
    ];
    if begins_with_nothing(record) {
        mounts.insert(2, read_only("admin", PASSWORD_FOLDER));
    }
    if record.tls {
        mounts.push(read_only("certificate", TLS_FOLDER));
    }
    let variable =
        |(name, value): (&str, String)| EnvVar { name: name.to_owned(), value: Some(value), value_from: None };
    Container {
        name: adopted.map_or(DEPLOYMENT, |adopted| &adopted.container).to_owned(),
        image: Some(record.image.to_string()),
        args: Some(args),
        env: Some(variables.into_iter().map(variable).collect()),
        ports: Some(vec![ContainerPort {
            container_port: PORT,
            name: Some("postgresql".to_owned()),
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        resources: Some(resources(record.memory, record.cpu)),
        // Nothing ends a server that recovers, or that an app keeps busy: when it has ended, its container has as well.
        // Over TCP, as the entrypoint's own server has nothing but the socket; nobody has to log in for an answer.
        readiness_probe: Some(Probe {
            exec: Some(command(&["pg_isready", "--quiet", "--host=127.0.0.1", "--port=5432"])),
            period_seconds: Some(5),
            timeout_seconds: Some(5),
            failure_threshold: Some(3),
            ..Probe::default()
        }),
        // The image's stop signal means the same: end now, and not when every client has gone.
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                exec: Some(command(&["sh", "-c", "kill -INT 1"])),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        security_context: Some(confined()),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

/// What a container may use at most; half of that is reserved.
pub(crate) fn resources(memory: Size, cpu: Cores) -> ResourceRequirements {
    let amounts = |memory: String, cpu: String| {
        Some(BTreeMap::from([("memory".to_owned(), Quantity(memory)), ("cpu".to_owned(), Quantity(cpu))]))
    };
    ResourceRequirements {
        requests: amounts(memory.part(2).to_string(), cpu.half().to_string()),
        limits: amounts(memory.to_string(), cpu.to_string()),
        ..ResourceRequirements::default()
    }
}

/// What a container of ours may not do.
pub(crate) fn confined() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        ..SecurityContext::default()
    }
}

fn command(words: &[&str]) -> ExecAction {
    ExecAction { command: Some(words.iter().map(ToString::to_string).collect()) }
}

fn secret(name: &str, secret: &str, keys: &[&str]) -> Volume {
    let item = |key: &&str| KeyToPath { key: (*key).to_owned(), path: (*key).to_owned(), mode: None };
    Volume {
        name: name.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.to_owned()),
            default_mode: Some(READABLE),
            items: Some(keys.iter().map(item).collect()),
            optional: None,
        }),
        ..Volume::default()
    }
}

fn empty(name: &str, medium: Option<&str>, limit: Size) -> Volume {
    Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: medium.map(str::to_owned),
            size_limit: Some(Quantity(limit.to_string())),
        }),
        ..Volume::default()
    }
}

fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount { name: name.to_owned(), mount_path: path.to_owned(), ..VolumeMount::default() }
}

fn read_only(name: &str, path: &str) -> VolumeMount {
    VolumeMount { read_only: Some(true), ..mount(name, path) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::deploy::spec::Heritage;

    #[test]
    fn a_server_that_was_taken_over_is_given_nothing_to_begin_anew_with() {
        let ours = ServerRecord::guide().unwrap();
        let adopted = Heritage {
            claim: "mine".into(),
            container: "db".into(),
            volume: "data".into(),
            mount: "/var/lib/postgresql/data".into(),
            sub_path: None,
            data_directory: "/var/lib/postgresql/data".into(),
            selector: BTreeMap::new(),
            labels: BTreeMap::new(),
            user: None,
            admin: "root".into(),
            keeps_size: true,
            placement: BTreeMap::new(),
            open: true,
        };
        let theirs = ServerRecord { adopted: Some(adopted), ..ours.clone() };
        let text = |record: &ServerRecord| serde_json::to_string(&pod_spec(record, "claim")).unwrap();
        assert!(text(&ours).contains("POSTGRES_PASSWORD_FILE") && text(&ours).contains(PASSWORD_FOLDER));
        assert!(!text(&theirs).contains("PASSWORD") && !text(&theirs).contains(PASSWORD_FOLDER));
    }
}
