//! What a plan is for.

use crate::app::AppSpec;
use crate::names::AppName;

/// What is to become of an app; a fresh plan is made from it before anything is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    Create(AppSpec),
    Drop(AppName),
}

impl Goal {
    /// The spec by which the world is observed.
    pub(crate) fn spec(&self) -> AppSpec {
        match self {
            Self::Create(spec) => spec.clone(),
            Self::Drop(name) => AppSpec::new(name.clone()),
        }
    }
}
