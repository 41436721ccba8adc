//! The objects of a schedule, in the order in which they are applied: what a later one needs is there before it.
//!
//! Each schedule has objects of its own, so that one goes without asking who else needs what it had.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{
    CronJob, CronJobSpec, JobSpec, JobTemplateSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{ConfigMap, PodSpec, PodTemplateSpec, ServiceAccount};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::cron::Cron;
use super::pod::{FILE, backup_pod, verify_pod};
use super::spec::{ScheduleRecord, Site};
use crate::environment::ADMIN_SECRET;
use crate::error::Result;
use crate::kubernetes::object::{Kind, Object};
use crate::names::AppName;

/// Where a CronJob keeps the record of its schedule.
pub(crate) const RECORD: &str = "shareddb/schedule";
/// Whose schedule it is, on everything that belongs to one app's.
pub(crate) const APP: &str = "shareddb/app";
/// Who made it, in Kubernetes' own label, and the schedule that it belongs to.
pub(crate) const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "shareddb");
pub(crate) const INSTANCE: &str = "app.kubernetes.io/instance";
/// By which all schedules are found.
pub(crate) const SELECTOR: &str = "app.kubernetes.io/component=backup,app.kubernetes.io/managed-by=shareddb";

const RBAC: &str = "rbac.authorization.k8s.io";
/// A control plane may be away for so long, and the run is made up for. Kubernetes gives up on a schedule of which it has missed a
/// hundred runs in that time, which cannot be with an hour.
const LATE_SECONDS: i64 = 3600;
/// A run that hangs would keep every later one from beginning. A big environment takes an hour for each app.
const LONGEST_SECONDS: i64 = 12 * 3600;
/// What has a cause that passes is tried once more.
const RETRIES: i32 = 1;
/// As `verify` ends when a backup does not restore: another try would say the same.
const DOES_NOT_RESTORE: i32 = 3;

/// What the objects of a schedule are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) backup: String,
    pub(crate) verify: String,
}

impl Names {
    /// Of an app's, or of that of all. A CronJob's name has 52 letters at most, and an app's has 40.
    pub(crate) fn of(app: Option<&AppName>) -> Self {
        match app {
            Some(app) => Self { backup: format!("backup-{app}"), verify: format!("verify-{app}") },
            None => Self { backup: "shareddb-backup".to_owned(), verify: "shareddb-verify".to_owned() },
        }
    }

    /// Every object that a schedule of these names may have, in the order in which they are applied.
    pub(crate) fn objects(&self) -> [(Kind, &str); 6] {
        let own = self.backup.as_str();
        [
            (Kind::of::<ServiceAccount>(), own),
            (Kind::of::<Role>(), own),
            (Kind::of::<RoleBinding>(), own),
            (Kind::of::<ConfigMap>(), own),
            (Kind::of::<CronJob>(), own),
            (Kind::of::<CronJob>(), &self.verify),
        ]
    }
}

/// Every object of this schedule.
pub(crate) fn manifests(record: &ScheduleRecord, site: &Site) -> Result<Vec<Object>> {
    let names = Names::of(record.app.as_ref());
    let scribe = Scribe { record, site, names: &names };
    let own = names.backup.as_str();
    let mut objects = vec![
        Object::of(own, &scribe.service_account()),
        Object::of(own, &scribe.role()),
        Object::of(own, &scribe.role_binding()),
        Object::of(own, &scribe.configuration()),
        Object::of(own, &scribe.cron_job(own, &record.cron, backup_pod(record, site, own), None)),
    ];
    if let Some(cron) = record.proving()? {
        let policy = Some(scribe.final_verdict());
        let job = scribe.cron_job(&names.verify, &cron, verify_pod(record, site, own), policy);
        objects.push(Object::of(&names.verify, &job));
    }
    Ok(objects)
}

/// The record of a schedule, as it is kept.
pub(crate) fn recorded(record: &ScheduleRecord) -> String {
    // A struct of names and numbers.
    serde_json::to_string(record).unwrap_or_default()
}

struct Scribe<'a> {
    record: &'a ScheduleRecord,
    site: &'a Site,
    names: &'a Names,
}

impl Scribe<'_> {
    /// Without `app: postgres`, by which the Service would take the pods for servers.
    fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = text_map([
            ("app.kubernetes.io/name", "shareddb"),
            (INSTANCE, &self.names.backup),
            ("app.kubernetes.io/component", "backup"),
            ("app.kubernetes.io/part-of", "shareddb"),
            MANAGED_BY,
        ]);
        labels.extend(self.record.app.iter().map(|app| (APP.to_owned(), app.to_string())));
        labels
    }

    fn metadata(&self, name: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(self.site.namespace.to_string()),
            labels: Some(self.labels()),
            ..ObjectMeta::default()
        }
    }

    fn own(&self) -> ObjectMeta {
        self.metadata(&self.names.backup)
    }

    fn service_account(&self) -> ServiceAccount {
        ServiceAccount { metadata: self.own(), ..ServiceAccount::default() }
    }

    /// Whoever has the admin's password has the server, and so the pod has no more than that: the Secrets of apps are not among
    /// what it reads, and the server it reaches by its Service.
    fn role(&self) -> Role {
        let rule = PolicyRule {
            api_groups: Some(vec![String::new()]),
            resources: Some(vec!["secrets".to_owned()]),
            resource_names: Some(vec![ADMIN_SECRET.to_owned()]),
            verbs: vec!["get".to_owned()],
            non_resource_urls: None,
        };
        Role { metadata: self.own(), rules: Some(vec![rule]) }
    }

    fn role_binding(&self) -> RoleBinding {
        let name = self.names.backup.clone();
        let subject = Subject {
            api_group: None,
            kind: "ServiceAccount".to_owned(),
            name: name.clone(),
            namespace: Some(self.site.namespace.to_string()),
        };
        RoleBinding {
            metadata: self.own(),
            role_ref: RoleRef { api_group: RBAC.to_owned(), kind: "Role".to_owned(), name },
            subjects: Some(vec![subject]),
        }
    }

    fn configuration(&self) -> ConfigMap {
        let data = BTreeMap::from([(FILE.to_owned(), settings(self.site))]);
        ConfigMap { metadata: self.own(), data: Some(data), ..ConfigMap::default() }
    }

    fn cron_job(&self, name: &str, cron: &Cron, pod: PodSpec, policy: Option<PodFailurePolicy>) -> CronJob {
        let labelled = || ObjectMeta { labels: Some(self.labels()), ..ObjectMeta::default() };
        let job = JobSpec {
            backoff_limit: Some(RETRIES),
            active_deadline_seconds: Some(LONGEST_SECONDS),
            pod_failure_policy: policy,
            template: PodTemplateSpec { metadata: Some(labelled()), spec: Some(pod) },
            ..JobSpec::default()
        };
        let spec = CronJobSpec {
            schedule: cron.to_string(),
            time_zone: Some("Etc/UTC".to_owned()),
            concurrency_policy: Some("Forbid".to_owned()),
            starting_deadline_seconds: Some(LATE_SECONDS),
            successful_jobs_history_limit: Some(3),
            failed_jobs_history_limit: Some(3),
            job_template: JobTemplateSpec { metadata: Some(labelled()), spec: Some(job) },
            ..CronJobSpec::default()
        };
        let annotations = Some(text_map([(RECORD, recorded(self.record).as_str())]));
        CronJob { metadata: ObjectMeta { annotations, ..self.metadata(name) }, spec: Some(spec), ..CronJob::default() }
    }

    fn final_verdict(&self) -> PodFailurePolicy {
        let on_exit_codes = PodFailurePolicyOnExitCodesRequirement {
            container_name: None,
            operator: "In".to_owned(),
            values: vec![DOES_NOT_RESTORE],
        };
        let rule = PodFailurePolicyRule {
            action: "FailJob".to_owned(),
            on_exit_codes: Some(on_exit_codes),
            on_pod_conditions: None,
        };
        PodFailurePolicy { rules: vec![rule] }
    }
}

/// The file that the pod reads: which environment, and where its backups go.
fn settings(site: &Site) -> String {
    let Site { environment, namespace, cluster_domain, store, .. } = site;
    // Of these, the store alone may hold what has to be escaped, and a text of JSON is one of TOML.
    let store = serde_json::Value::from(store.as_str());
    format!(
        "# As `shareddb schedule` was told. The password of the admin is in secret/{ADMIN_SECRET}.\n\
         default = \"{environment}\"\n\n\
         [env.{environment}]\n\
         namespace = \"{namespace}\"\n\
         cluster_domain = \"{cluster_domain}\"\n\
         backups = {store}\n"
    )
}

fn text_map<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Environments;

    fn site(store: &str) -> Site {
        Site {
            environment: "stage".parse().unwrap(),
            namespace: "7-seas".parse().unwrap(),
            cluster_domain: "k8s.example".into(),
            store: store.into(),
            image: "registry.example/shareddb:1".into(),
        }
    }

    #[test]
    fn the_pod_reads_of_the_environment_what_the_caller_does() {
        let store = "s3://bucket/it's \\ \"quoted\"";
        let file = Environments::parse(&settings(&site(store)), |_| None).unwrap();
        assert_eq!(file.chosen().unwrap().as_str(), "stage");
        let environment = file.environment(&"stage".parse().unwrap()).unwrap();
        assert_eq!(environment.backups().unwrap(), store);
        assert_eq!(environment.namespace_name().unwrap().as_str(), "7-seas");
        assert_eq!(environment.cluster_domain().unwrap(), "k8s.example");
    }

    #[test]
    fn the_names_of_the_longest_app_are_short_enough_and_no_other_schedule_has_them() {
        let longest = Names::of(Some(&"a".repeat(40).parse().unwrap()));
        assert!(longest.backup.len() <= 52 && longest.verify.len() <= 52);
        let all = Names::of(None);
        for app in ["backup", "verify", "all", "x"] {
            let names = Names::of(Some(&app.parse().unwrap()));
            assert!(names.backup != all.backup && names.verify != all.verify && names.backup != names.verify);
        }
    }

    #[test]
    fn what_is_wanted_is_among_what_may_be_there() {
        for app in [None, "web".parse().ok()] {
            let record = ScheduleRecord::usual(app.clone()).unwrap();
            let wanted: Vec<String> = manifests(&record, &site("s3://b")).unwrap().iter().map(Object::label).collect();
            let names = Names::of(app.as_ref());
            assert_eq!(wanted, names.objects().map(|(kind, name)| kind.label(name)));
        }
    }
}
