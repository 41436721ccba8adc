//! How schedules are.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::CronJob;
use serde::Serialize;
use serde_json::Value;

use super::cron::Cron;
use super::manifests::{APP, SELECTOR};
use crate::error::Result;
use crate::kubernetes::apply::Objects;
use crate::kubernetes::object::Kind;

/// A CronJob of a schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ScheduleState {
    /// As kubectl names it: `cronjob/shareddb-backup`.
    pub name: String,
    /// Whose backups; `None`: those of all.
    pub app: Option<String>,
    /// When it runs, as text of cron.
    pub cron: String,
    /// When it runs next. `None` while it is suspended.
    pub next: Option<Timestamp>,
    /// Whether a run is going on.
    pub running: bool,
    /// When it last began.
    pub last_run: Option<Timestamp>,
    /// When a run last ended well.
    pub last_success: Option<Timestamp>,
}

impl ScheduleState {
    /// Whether the last run has failed.
    pub fn is_behind(&self) -> bool {
        !self.running && self.last_run.is_some_and(|run| self.last_success.is_none_or(|success| success < run))
    }
}

pub(crate) async fn state(objects: &Objects) -> Result<Vec<ScheduleState>> {
    let kind = Kind::of::<CronJob>();
    let mut found: Vec<ScheduleState> =
        objects.list(kind, SELECTOR).await?.iter().map(|job| read(kind, job, Timestamp::now())).collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn read(kind: Kind, job: &Value, now: Timestamp) -> ScheduleState {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let moment = |field: &str| job["status"][field].as_str().and_then(|text| text.parse().ok());
    let cron = text(&job["spec"]["schedule"]);
    let next = cron.parse::<Cron>().ok().and_then(|cron| cron.next(now));
    ScheduleState {
        name: kind.label(&text(&job["metadata"]["name"])),
        app: job["metadata"]["labels"][APP].as_str().map(str::to_owned),
        next: next.filter(|_| job["spec"]["suspend"] != true),
        cron,
        running: job["status"]["active"].as_array().is_some_and(|active| !active.is_empty()),
        last_run: moment("lastScheduleTime"),
        last_success: moment("lastSuccessfulTime"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_run_without_an_end_that_is_well_is_behind() {
        let state = |status: Value, suspend: bool| {
            let labels = json!({APP: "web"});
            let job = json!({
                "metadata": {"name": "backup-web", "labels": labels},
                "spec": {"schedule": "0 2 * * *", "suspend": suspend},
                "status": status,
            });
            read(Kind::of::<CronJob>(), &job, "2026-11-26T12:00:00Z".parse().unwrap())
        };
        let new = state(json!({}), false);
        assert_eq!(
            (new.name.as_str(), new.app.as_deref(), new.is_behind()),
            ("cronjob/backup-web", Some("web"), false)
        );
        assert_eq!(new.next.unwrap().to_string(), "2026-11-27T02:00:00Z");
        assert_eq!(state(json!({}), true).next, None);
        let (at_two, later) = ("2026-11-26T02:00:00Z", "2026-11-26T02:03:00Z");
        assert!(state(json!({"lastScheduleTime": at_two}), false).is_behind());
        assert!(!state(json!({"lastScheduleTime": at_two, "active": [{"name": "x"}]}), false).is_behind());
        assert!(!state(json!({"lastScheduleTime": at_two, "lastSuccessfulTime": later}), false).is_behind());
        assert!(state(json!({"lastScheduleTime": later, "lastSuccessfulTime": at_two}), false).is_behind());
    }
}
