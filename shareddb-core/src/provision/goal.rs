//! What a plan is for.

use crate::app::AppSpec;
use crate::error::Error;
use crate::names::{AppName, EnvironmentName};
use crate::provision::rotation::RotateOptions;

/// What is to become of an app; a fresh plan is made from it before anything is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    Create(AppSpec),
    Drop(AppName),
    UndoAdopt(AppName),
    Rotate(AppName, RotateOptions),
}

impl Goal {
    /// The spec by which the world is observed.
    pub(crate) fn spec(&self) -> AppSpec {
        match self {
            Self::Create(spec) => spec.clone(),
            Self::Drop(name) | Self::UndoAdopt(name) | Self::Rotate(name, _) => AppSpec::new(name.clone()),
        }
    }

    /// The error that cut a run short, and what it may leave behind where that is not obvious.
    pub(crate) fn explain(&self, error: Error, environment: &EnvironmentName) -> Error {
        let Self::Drop(name) = self else { return error };
        let hint = error.hint().map(|hint| format!("{hint}; ")).unwrap_or_default();
        error.with_hint(format!(
            "{hint}the app may be closed by now: drop it again, or, while its database is there, open it with: shareddb create {name} -e {environment}"
        ))
    }
}
