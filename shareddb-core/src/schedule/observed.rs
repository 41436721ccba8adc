//! What there is of a schedule, and of others.

use std::collections::BTreeMap;

use serde_json::Value;

use super::manifests::{APP, INSTANCE, MANAGED_BY, Names, RECORD};
use super::spec::{RECORD_VERSION, ScheduleRecord};
use crate::error::{Error, Result};
use crate::kubernetes::object::Object;
use crate::names::AppName;

/// What was read of a namespace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    /// Objects that have the names of this schedule's, by what kubectl calls them.
    pub(crate) objects: BTreeMap<String, Value>,
    /// Every CronJob of every schedule.
    pub(crate) cron_jobs: Vec<Value>,
}

/// Whether an object is of the schedule with these names.
pub(crate) fn is_own(object: &Value, names: &Names) -> bool {
    let label = |name: &str| object["metadata"]["labels"][name].as_str();
    label(MANAGED_BY.0) == Some(MANAGED_BY.1) && label(INSTANCE) == Some(names.backup.as_str())
}

/// Whether it is on its way out: it can still be changed, and is gone a moment later.
pub(crate) fn is_going(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

impl Observed {
    /// The record of a schedule that there is.
    ///
    /// # Errors
    /// `Refused` for one that a newer version has written, or somebody has changed.
    pub(crate) fn record(&self, names: &Names) -> Result<Option<ScheduleRecord>> {
        let label = format!("cronjob/{}", names.backup);
        let Some(text) = self.objects.get(&label).and_then(|job| job["metadata"]["annotations"][RECORD].as_str())
        else {
            return Ok(None);
        };
        let record = serde_json::from_str(text).ok().filter(|record: &ScheduleRecord| record.version <= RECORD_VERSION);
        let unread = || {
            let message = format!("the annotation {RECORD} of {label} is of a newer version, or was changed");
            Error::refused("record_unreadable", message)
                .with_hint("use that version; or end the schedule (--off), and make it again with all its options")
        };
        record.map(Some).ok_or_else(unread)
    }

    /// Refuses what somebody else has made.
    ///
    /// # Errors
    /// `Refused` when an object with such a name is not of this schedule, `Conflict` when one is being deleted.
    pub(crate) fn check(&self, names: &Names, wanted: &[Object]) -> Result<()> {
        let there = || wanted.iter().filter_map(|object| self.objects.get_key_value(&object.label()));
        if let Some((label, _)) = there().find(|(_, object)| is_going(object)) {
            return Err(Error::conflict("object_terminating", format!("{label} is being deleted")).with_hint(format!(
                "once it is gone, run this again: kubectl wait --for=delete {label} --timeout=5m; what holds it up stands in \
                 its metadata.finalizers"
            )));
        }
        match there().find(|(_, object)| !is_own(object, names)) {
            None => Ok(()),
            Some((label, _)) => {
                Err(Error::refused("object_foreign", format!("there is a {label} that shareddb has not made")).with_hint(
                    "delete or rename it; nothing of it was changed. Of an app's schedule everything is called backup-APP or verify-APP",
                ))
            }
        }
    }

    /// Other schedules that take and delete backups of the same apps: `None` is that of all.
    pub(crate) fn others(&self, app: Option<&AppName>) -> Vec<Option<String>> {
        let mut found: Vec<Option<String>> =
            self.cron_jobs.iter().map(|job| job["metadata"]["labels"][APP].as_str().map(str::to_owned)).collect();
        found.sort();
        found.dedup();
        // Two apps do not meet.
        found.retain(|other| match (app, other) {
            (None, other) => other.is_some(),
            (Some(_), other) => other.is_none(),
        });
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::rbac::v1::Role;
    use serde_json::json;

    fn job(app: Option<&str>) -> Value {
        let mut labels = json!({INSTANCE: app.map_or("shareddb-backup".into(), |app| format!("backup-{app}"))});
        labels[MANAGED_BY.0] = MANAGED_BY.1.into();
        if let Some(app) = app {
            labels[APP] = app.into();
        }
        json!({"metadata": {"labels": labels}})
    }

    #[test]
    fn schedules_meet_in_an_app() {
        let observed = Observed {
            cron_jobs: vec![job(None), job(None), job(Some("a")), job(Some("b")), job(Some("b"))],
            ..Observed::default()
        };
        assert_eq!(observed.others(None), [Some("a".to_owned()), Some("b".to_owned())]);
        assert_eq!(observed.others("a".parse().ok().as_ref()), [None]);
    }

    #[test]
    fn what_somebody_else_made_is_refused() {
        let names = Names::of(None);
        let wanted = [Object::of("x", &Role::default())];
        let check = |object: Value| {
            let objects = [("role/x".to_owned(), object), ("role/other".to_owned(), json!({}))].into();
            Observed { objects, ..Observed::default() }.check(&names, &wanted).map_err(|error| error.code())
        };
        assert_eq!(check(job(None)), Ok(()));
        assert_eq!(check(json!({"metadata": {}})), Err("object_foreign"));
        assert_eq!(check(job(Some("a"))), Err("object_foreign"));
        let mut going = job(None);
        going["metadata"]["deletionTimestamp"] = "2026-11-26T12:00:00Z".into();
        assert_eq!(check(going), Err("object_terminating"));
    }

    #[test]
    fn a_record_that_is_not_understood_is_not_written_over() {
        let names = Names::of(None);
        let with = |text: &str| Observed {
            objects: [("cronjob/shareddb-backup".to_owned(), json!({"metadata": {"annotations": {RECORD: text}}}))]
                .into(),
            ..Observed::default()
        };
        let record = ScheduleRecord::usual(None).unwrap();
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(with(&text).record(&names).unwrap(), Some(record));
        assert_eq!(Observed::default().record(&names).unwrap(), None);
        for text in ["", "{}", &text.replace("\"version\":1", "\"version\":2"), &text.replace("0 2", "0 99")] {
            assert_eq!(with(text).record(&names).unwrap_err().code(), "record_unreadable", "{text}");
        }
    }
}
