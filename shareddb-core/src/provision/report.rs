//! What a run has done.

use jiff::Timestamp;
use serde::Serialize;

use crate::app::{App, Slot};
use crate::provision::execute::Done;
use crate::provision::gap::Gap;
use crate::provision::goal::Goal;
use crate::provision::plan::Plan;
use crate::provision::proof::Proof;
use crate::provision::step::Step;
use crate::secrets::Workload;

/// What became of an app, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Outcome {
    /// It is new.
    Created,
    /// It was there, and something was changed.
    Configured,
    /// It was there and as it should be; nothing was written.
    Unchanged,
    /// It is gone.
    Dropped,
    /// It was made by hand, and was taken over.
    Adopted,
    /// It is as it was before it was adopted, and recorded no more.
    Released,
    /// Its Secret has a new password.
    Rotated,
}

impl Outcome {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
            Self::Dropped => "dropped",
            Self::Adopted => "adopted",
            Self::Released => "released",
            Self::Rotated => "rotated",
        }
    }
}

/// What a run has done.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Report {
    /// The app, as it is now.
    pub app: App,
    /// What became of it.
    pub outcome: Outcome,
    /// The steps that were done.
    pub steps: Vec<Step>,
    /// What the trial login found; none was needed when nothing changed.
    pub proof: Option<Proof>,
    /// Until when the login works that the Secret named before, by the server's clock; where a rotation has given it an end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_login_ends: Option<Timestamp>,
    /// The login that the Secret names now, where there is one.
    pub in_use: Option<Slot>,
    /// What takes its Secret, as it was before; `None` where it cannot be told, and where nobody asks: only a rotation does.
    pub workloads: Option<Vec<Workload>>,
    /// Those of them that were restarted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub restarted: Vec<Workload>,
    /// What a person should know.
    pub notices: Vec<String>,
    /// What ought to be different and is not for the admin to change, or not without being told to.
    pub gaps: Vec<Gap>,
}

impl Report {
    pub(crate) fn new(plan: Plan, done: Done) -> Self {
        let outcome = match plan.goal {
            Goal::Drop(_) => Outcome::Dropped,
            Goal::UndoAdopt(_) => Outcome::Released,
            Goal::Rotate(..) => Outcome::Rotated,
            Goal::Create(_) if !plan.exists && plan.app.adopted.is_some() => Outcome::Adopted,
            Goal::Create(_) if plan.steps.is_empty() => Outcome::Unchanged,
            Goal::Create(_) if plan.exists => Outcome::Configured,
            Goal::Create(_) => Outcome::Created,
        };
        let Done { proof, old_login_ends, restarted, notices } = done;
        let mut app = plan.app;
        for step in &plan.steps {
            if let Step::EndRotation { closed, .. } = step {
                app.closed = *closed;
            }
        }
        let notices = plan.notices.into_iter().chain(notices).collect();
        Self {
            app,
            outcome,
            steps: plan.steps,
            proof,
            old_login_ends,
            in_use: plan.in_use,
            workloads: plan.workloads,
            restarted,
            notices,
            gaps: plan.gaps,
        }
    }
}
