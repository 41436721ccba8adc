//! What making, changing or ending a schedule would change.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use crate::change::Change;
use crate::deploy::ObjectChange;
use crate::kubernetes::object::{Kind, Object};
use crate::names::EnvironmentName;

/// What would change, object by object, in order.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SchedulePlan {
    /// The environment.
    pub environment: EnvironmentName,
    /// The CronJobs that there are afterwards, or would be.
    pub runs: Vec<Run>,
    /// Every object of the schedule, those that stay as they are too.
    pub objects: Vec<ObjectChange>,
    /// What a person should know.
    pub notices: Vec<String>,
    /// One for each object.
    #[serde(skip)]
    pub(crate) actions: Vec<What>,
}

/// A CronJob, and when it runs next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// As kubectl names it: `cronjob/shareddb-backup`.
    pub name: String,
    /// What is made of it; `None` when it stays as it is.
    pub op: Option<Change>,
    /// When it runs next. `None` when it does not: it goes, or somebody has suspended it.
    pub next: Option<Timestamp>,
}

/// What is sent for one line.
#[derive(Clone)]
pub(crate) enum What {
    Apply(Object),
    Delete {
        kind: Kind,
        name: String,
        uid: String,
    },
    /// It is not ours, and stays.
    Nothing,
}

impl SchedulePlan {
    /// Whether nothing would change.
    pub fn is_empty(&self) -> bool {
        self.objects.iter().all(|object| object.op.is_none())
    }

    /// The changes among the objects.
    pub fn changes(&self) -> impl Iterator<Item = &ObjectChange> {
        self.objects.iter().filter(|object| object.op.is_some())
    }

    /// What there is to do.
    pub(crate) fn pending(&self) -> impl Iterator<Item = (&What, &ObjectChange)> {
        self.actions.iter().zip(&self.objects).filter(|(_, object)| object.op.is_some())
    }
}

impl fmt::Debug for SchedulePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SchedulePlan")
            .field("environment", &self.environment)
            .field("objects", &self.objects)
            .finish_non_exhaustive()
    }
}
