//! What takes a Secret: who runs with its values, how they got there, and since when.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

/// What kind of thing takes a Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum WorkloadKind {
    /// A Deployment.
    Deployment,
    /// A StatefulSet.
    StatefulSet,
    /// A DaemonSet.
    DaemonSet,
    /// A CronJob, with the runs that it has begun. Each run takes the values that are in the Secret when it begins; one that
    /// goes on cannot be restarted.
    CronJob,
    /// A Job of no CronJob. It cannot be restarted.
    Job,
    /// A pod of none of those: one that somebody made, or that belongs to something of a kind that is not known here. It
    /// cannot be restarted.
    Pod,
}

/// How the values of a Secret get to where they are used. The greater one needs a restart more, so that the greatest counts
/// where there are several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Delivery {
    /// As files, which follow the Secret within a minute or two. Whether they are read again is up to the program.
    Mounted,
    /// As one file that was put in place when the pod started and never follows.
    SubPath,
    /// As variables, which a process keeps as they were when its container started.
    Environment,
}

/// Something that runs, or is to run, with the values of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Workload {
    /// What it is.
    pub kind: WorkloadKind,
    /// Its name.
    pub name: String,
    /// How it takes the values, by its template and by the pods that it has.
    pub delivery: Delivery,
    /// Whether it asks Stakater's Reloader, by an annotation, to restart it when this Secret changes. Whether that program
    /// runs in the cluster is not known.
    pub reloaded: bool,
    /// Its pods that have the values, or will have them once they start. Those that are over are left out; those that are
    /// about to end are not.
    pub pods: Vec<WorkloadPod>,
}

/// A pod that has the values of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct WorkloadPod {
    /// Its name.
    pub name: String,
    /// Since when it may have the values that it has: the start of the container that has them as variables, else of the pod;
    /// of one that no node has taken yet, when it was made. To the second, by the clock of the node.
    pub started: Timestamp,
}

impl WorkloadKind {
    /// As kubectl writes it: `statefulset`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::StatefulSet => "statefulset",
            Self::DaemonSet => "daemonset",
            Self::CronJob => "cronjob",
            Self::Job => "job",
            Self::Pod => "pod",
        }
    }

    /// Whether one of this kind can be restarted: whether it replaces its pods when its template changes.
    pub const fn can_restart(self) -> bool {
        matches!(self, Self::Deployment | Self::StatefulSet | Self::DaemonSet)
    }
}

impl fmt::Display for WorkloadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Delivery {
    /// Whether new values only get there by a restart.
    pub const fn needs_restart(self) -> bool {
        matches!(self, Self::SubPath | Self::Environment)
    }
}

impl Workload {
    /// One without pods, which nobody else restarts.
    pub fn new(kind: WorkloadKind, name: impl Into<String>, delivery: Delivery) -> Self {
        Self { kind, name: name.into(), delivery, reloaded: false, pods: Vec::new() }
    }
}

impl WorkloadPod {
    /// A pod that has its values since then.
    pub fn new(name: impl Into<String>, started: Timestamp) -> Self {
        Self { name: name.into(), started }
    }
}

/// As kubectl names it: `deployment/shop`.
impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_one_that_needs_a_restart_most_is_the_greatest() {
        let by_need = [Delivery::Mounted, Delivery::SubPath, Delivery::Environment];
        assert!(by_need.is_sorted());
        assert_eq!(by_need.map(Delivery::needs_restart), [false, true, true]);
    }

    #[test]
    fn it_is_named_and_written_as_kubectl_does() {
        let mut workload = Workload::new(WorkloadKind::StatefulSet, "queue", Delivery::SubPath);
        workload.pods.push(WorkloadPod::new("queue-0", "2026-11-26T12:00:00Z".parse().unwrap()));
        assert_eq!(workload.to_string(), "statefulset/queue");
        let written = json!({
            "kind": "statefulset",
            "name": "queue",
            "delivery": "subPath",
            "reloaded": false,
            "pods": [{"name": "queue-0", "started": "2026-11-26T12:00:00Z"}],
        });
        assert_eq!(serde_json::to_value(&workload).unwrap(), written);
    }

    #[test]
    fn what_is_written_of_a_kind_is_its_word() {
        use WorkloadKind::{CronJob, DaemonSet, Deployment, Job, Pod, StatefulSet};
        for kind in [Deployment, StatefulSet, DaemonSet, CronJob, Job, Pod] {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }
}
