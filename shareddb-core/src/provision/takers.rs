//! Who takes an app's Secret, and what a new password means to each. Pure.

use crate::error::{Error, Result};
use crate::provision::status::Problem;
use crate::secrets::{Delivery, Workload};

/// The workloads that take an app's Secret, as far as that can be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Takers {
    /// Nobody has looked, or the place of the Secret has none.
    #[default]
    Unknown,
    /// These, and no others.
    Known(Vec<Workload>),
    /// Something hinders looking.
    Hidden(Problem),
}

impl Takers {
    pub(crate) fn known(&self) -> Option<&[Workload]> {
        match self {
            Self::Known(workloads) => Some(workloads),
            Self::Unknown | Self::Hidden(_) => None,
        }
    }

    /// What a person should know.
    pub(crate) fn notice(&self) -> Option<String> {
        let Self::Hidden(problem) = self else { return None };
        let hint = problem.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        Some(format!("which workloads take the Secret could not be seen: {}{hint}", problem.message))
    }

    /// Those that are to be restarted, without their pods, which change. A controller that watches the Secret restarts its
    /// own.
    ///
    /// # Errors
    /// `InvalidInput` where there are no workloads, `PermissionDenied` where they cannot be seen.
    pub(crate) fn to_restart(&self) -> Result<Vec<Workload>> {
        match self {
            Self::Known(workloads) => {
                let concerned =
                    workloads.iter().filter(|workload| stays_behind(workload) && workload.kind.can_restart());
                Ok(concerned.map(|own| Workload::new(own.kind, own.name.clone(), own.delivery)).collect())
            }
            Self::Unknown => Err(Error::invalid_input(
                "restart_unsupported",
                "there are no workloads to restart where this Secret is",
            )
            .with_hint("leave --restart out, and restart what takes the password from its variables")),
            Self::Hidden(problem) => {
                let message = format!("which workloads are to be restarted could not be seen: {}", problem.message);
                let error = Error::permission_denied("workloads_hidden", message);
                Err(match &problem.hint {
                    Some(hint) => error.with_hint(hint.clone()),
                    None => error,
                })
            }
        }
    }
}

/// Whether a workload only gets a new password by a restart that nobody else sees to.
fn stays_behind(workload: &Workload) -> bool {
    workload.delivery.needs_restart() && !workload.reloaded
}

/// The pods that have had their values since before this password, and do not get it without a restart.
pub(crate) fn behind(workloads: &[Workload], since: Option<jiff::Timestamp>) -> impl Iterator<Item = String> {
    let Some(since) = since else { return Vec::new().into_iter() };
    let behind = |workload: &Workload| {
        let pods = workload.pods.iter().filter(|pod| pod.started < since).count();
        let how = if workload.delivery == Delivery::Environment { "variables" } else { "a file that does not follow" };
        let pods = match pods {
            0 => return None,
            1 => "1 pod".to_owned(),
            pods => format!("{pods} pods"),
        };
        Some(format!("{workload} ({pods}, by {how})"))
    };
    let concerned = workloads.iter().filter(|workload| workload.delivery.needs_restart());
    concerned.filter_map(behind).collect::<Vec<_>>().into_iter()
}
