//! A hand-made app that nothing speaks against adopting.

use crate::adoption::Adopt;
use crate::app::AppSpec;
use crate::postgres::facts::RoleFacts;
use crate::postgres::legacy::{Inventory, Legacy};
use crate::provision::observed::Observed;

/// What was asked for, and what was read.
pub(super) struct Case<'a> {
    pub(super) spec: &'a AppSpec,
    pub(super) adopt: &'a Adopt,
    pub(super) observed: &'a Observed,
    pub(super) legacy: &'a Legacy,
    /// The login, as it is.
    pub(super) login: &'a RoleFacts,
    /// What is in the database.
    pub(super) inventory: &'a Inventory,
}
