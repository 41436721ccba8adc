//! The pods of a schedule.
//!
//! `backup` is an init container and `prune` the container: Kubernetes itself runs the second after the first, and not at all
//! where that has failed. So nothing is deleted in a night without a backup, no shell stands in between, each has its own log and
//! exit code, and both are the commands that a person would type.

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, Container, EmptyDirVolumeSource, EnvFromSource, EnvVar, PodSecurityContext, PodSpec,
    SeccompProfile, SecretEnvSource, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::spec::{ScheduleRecord, Site};
use crate::deploy::Size;
use crate::deploy::pod::{confined, resources};

/// The file with the environment, where commands look for it: in the working directory.
pub(crate) const FILE: &str = "shareddb.toml";
const FOLDER: &str = "/etc/shareddb";
/// No account of the image's: every image will do.
const USER: i64 = 65532;
/// What runs is asked to end, takes back what it has begun, and closes what it has opened.
const SHUTDOWN_SECONDS: i64 = 60;
/// Lists of what an archive has; a dump never touches a disk.
const TEMPORARY: Size = Size::mebibytes(256);

/// The command that takes backups.
pub(crate) fn backup_words(record: &ScheduleRecord) -> Vec<String> {
    let keys = record.encrypt_to.iter().flat_map(|key| ["--encrypt-to".to_owned(), key.clone()]);
    words("backup", record).chain(["--reason".to_owned(), "schedule".to_owned()]).chain(keys).collect()
}

/// The command that deletes what is not to stay, if anything is ever deleted.
pub(crate) fn prune_words(record: &ScheduleRecord) -> Option<Vec<String>> {
    Some(words("prune", record).chain(record.keep.options()?).collect())
}

/// The command that proves backups.
pub(crate) fn verify_words(record: &ScheduleRecord) -> Vec<String> {
    words("verify", record).collect()
}

fn words(command: &str, record: &ScheduleRecord) -> impl Iterator<Item = String> {
    let whose = record.app.as_ref().map_or_else(|| "--all".to_owned(), ToString::to_string);
    [command.to_owned(), whose].into_iter()
}

/// `account`: what its account and its settings are called.
pub(crate) fn backup_pod(record: &ScheduleRecord, site: &Site, account: &str) -> PodSpec {
    let backup = container("backup", backup_words(record), record, site);
    match prune_words(record) {
        Some(prune) => {
            let prune = container("prune", prune, record, site);
            PodSpec { init_containers: Some(vec![backup]), ..pod(prune, account) }
        }
        None => pod(backup, account),
    }
}

pub(crate) fn verify_pod(record: &ScheduleRecord, site: &Site, account: &str) -> PodSpec {
    pod(container("verify", verify_words(record), record, site), account)
}

fn pod(container: Container, account: &str) -> PodSpec {
    let settings = Volume {
        name: "settings".to_owned(),
        config_map: Some(ConfigMapVolumeSource { name: account.to_owned(), ..ConfigMapVolumeSource::default() }),
        ..Volume::default()
    };
    let limit = Some(Quantity(TEMPORARY.to_string()));
    let temporary = Volume {
        name: "temporary".to_owned(),
        empty_dir: Some(EmptyDirVolumeSource { medium: None, size_limit: limit }),
        ..Volume::default()
    };
    PodSpec {
        service_account_name: Some(account.to_owned()),
        // Whatever the account's default is: the admin's password is read with its token.
        automount_service_account_token: Some(true),
        // Variables of every Service in the namespace, some of which other programs would take for their own.
        enable_service_links: Some(false),
        restart_policy: Some("Never".to_owned()),
        termination_grace_period_seconds: Some(SHUTDOWN_SECONDS),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
            ..PodSecurityContext::default()
        }),
        containers: vec![container],
        volumes: Some(vec![settings, temporary]),
        ..PodSpec::default()
    }
}

fn container(name: &str, args: Vec<String>, record: &ScheduleRecord, site: &Site) -> Container {
    let variable =
        |(name, value): (&str, &str)| EnvVar { name: name.to_owned(), value: Some(value.to_owned()), value_from: None };
    let credentials = record.credentials.as_ref().map(|secret| {
        let secret_ref = Some(SecretEnvSource { name: secret.to_string(), optional: None });
        vec![EnvFromSource { secret_ref, ..EnvFromSource::default() }]
    });
    let mount = |name: &str, path: &str, read_only: Option<bool>| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only,
        ..VolumeMount::default()
    };
    Container {
        name: name.to_owned(),
        image: Some(site.image.clone()),
        command: Some(vec!["shareddb".to_owned()]),
        args: Some(args),
        working_dir: Some(FOLDER.to_owned()),
        env_from: credentials,
        // The account has no home, and the image can be read only.
        env: Some([("HOME", "/tmp"), ("SHAREDDB_HOME", "/tmp/shareddb")].map(variable).into()),
        resources: Some(resources(record.memory, record.cpu)),
        security_context: Some(confined()),
        volume_mounts: Some(vec![mount("settings", FOLDER, Some(true)), mount("temporary", "/tmp", None)]),
        ..Container::default()
    }
}
