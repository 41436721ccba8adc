//! `Adopt`: that an app made by hand is to be taken over, and what the caller consents to.

use std::collections::BTreeSet;

use pyo3::prelude::*;
use shareddb_core::Adopt as Core;

use crate::errors::raise;
use crate::names::Names;

/// That an app made by hand is to be taken over, and what the caller consents to.
#[pyclass(module = "shareddb", frozen, eq, from_py_object)]
#[derive(Clone, PartialEq)]
pub(crate) struct Adopt(pub(crate) Core);

#[pymethods]
#[allow(clippy::too_many_arguments, clippy::fn_params_excessive_bools, reason = "in Python they are named")]
impl Adopt {
    /// Each argument answers a finding that would refuse the adoption.
    #[new]
    #[pyo3(signature = (*, demote=false, keep_memberships=false, take_from=None, keep_grants=false,
                        allow_connect=None, close_to_others=false, accept_name_change=false, end_sessions=false,
                        drop_foreign_grants=false))]
    fn new(
        py: Python<'_>,
        demote: bool,
        keep_memberships: bool,
        take_from: Option<Names>,
        keep_grants: bool,
        allow_connect: Option<Names>,
        close_to_others: bool,
        accept_name_change: bool,
        end_sessions: bool,
        drop_foreign_grants: bool,
    ) -> PyResult<Self> {
        let roles =
            |names: Option<Names>| names.map_or(Ok(BTreeSet::new()), Names::roles).map_err(|error| raise(py, &error));
        let mut adopt = Core::default();
        adopt.demote = demote;
        adopt.keep_memberships = keep_memberships;
        adopt.take_from = roles(take_from)?;
        adopt.keep_grants = keep_grants;
        adopt.allow_connect = roles(allow_connect)?;
        adopt.close_to_others = close_to_others;
        adopt.accept_name_change = accept_name_change;
        adopt.end_sessions = end_sessions;
        adopt.drop_foreign_grants = drop_foreign_grants;
        Ok(Self(adopt))
    }

    fn __repr__(&self) -> &'static str {
        "<Adopt>"
    }
}
