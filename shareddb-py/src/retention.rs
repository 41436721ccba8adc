//! `RetentionPolicy`, `PrunePlan` and `Pruned`: which backups stay, and which went.

use std::time::SystemTime;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyList, PyString};
use shareddb_core::{
    Judged as CoreJudged, PrunePlan as CorePlan, Pruned as CorePruned, Quota as CoreQuota, RetentionPolicy as Core,
};

use crate::listing::html;
use crate::moments::moment;

/// How many backups stay, by each rule: a number, `"all"`, or `None`. A backup stays if any rule keeps it.
#[pyclass(module = "shareddb", frozen, eq)]
#[derive(PartialEq)]
pub(crate) struct RetentionPolicy(Core);

impl RetentionPolicy {
    pub(crate) fn core(&self) -> &Core {
        &self.0
    }
}

#[pymethods]
impl RetentionPolicy {
    /// `last`: so many of the newest. The others: the newest of each hour, day, week (Monday to Sunday), month or year, for so
    /// many that have one.
    #[new]
    #[pyo3(signature = (*, last=None, hourly=None, daily=None, weekly=None, monthly=None, yearly=None))]
    fn new(
        last: Option<Quota>,
        hourly: Option<Quota>,
        daily: Option<Quota>,
        weekly: Option<Quota>,
        monthly: Option<Quota>,
        yearly: Option<Quota>,
    ) -> Self {
        let quota = |quota: Option<Quota>| quota.map_or(CoreQuota::None, |quota| quota.0);
        Self(Core {
            last: quota(last),
            hourly: quota(hourly),
            daily: quota(daily),
            weekly: quota(weekly),
            monthly: quota(monthly),
            yearly: quota(yearly),
        })
    }

    fn __repr__(&self) -> String {
        let Core { last, hourly, daily, weekly, monthly, yearly } = self.0;
        let rules = [
            ("last", last),
            ("hourly", hourly),
            ("daily", daily),
            ("weekly", weekly),
            ("monthly", monthly),
            ("yearly", yearly),
        ];
        let said = rules.into_iter().filter_map(|(name, quota)| match quota {
            CoreQuota::None => None,
            CoreQuota::Of(count) => Some(format!("{name}={count}")),
            CoreQuota::All => Some(format!("{name}='all'")),
        });
        format!("RetentionPolicy({})", said.collect::<Vec<_>>().join(", "))
    }
}

/// A number, or `"all"`.
struct Quota(CoreQuota);

impl<'py> FromPyObject<'_, 'py> for Quota {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(word) = object.cast::<PyString>() {
            return match word.to_string().as_str() {
                "all" => Ok(Self(CoreQuota::All)),
                _ => Err(PyValueError::new_err("the one word for a number of backups is \"all\"")),
            };
        }
        let count = object.extract().map_err(|_| PyTypeError::new_err("expected a number of backups, or \"all\""))?;
        Ok(Self(CoreQuota::Of(count)))
    }
}

/// What a prune will do: iterates over all backups, the newest first. Falsy when every one of them stays.
#[pyclass(module = "shareddb", frozen, eq)]
#[derive(PartialEq)]
pub(crate) struct PrunePlan(CorePlan);

impl PrunePlan {
    pub(crate) fn new(plan: CorePlan) -> Self {
        Self(plan)
    }

    pub(crate) fn core(&self) -> &CorePlan {
        &self.0
    }
}

#[pymethods]
impl PrunePlan {
    /// Every backup, the newest first, with what is decided about it.
    #[getter]
    fn backups(&self) -> Vec<Judged> {
        self.0.backups.iter().cloned().map(Judged).collect()
    }

    /// Those that go, the oldest first.
    #[getter]
    fn doomed(&self) -> Vec<String> {
        self.0.doomed().map(|backup| backup.id.to_string()).collect()
    }

    /// How many bytes their dumps take.
    #[getter]
    fn freed(&self) -> u64 {
        self.0.freed()
    }

    fn __len__(&self) -> usize {
        self.0.backups.len()
    }

    fn __bool__(&self) -> bool {
        self.0.doomed().next().is_some()
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        PyList::new(py, self.backups())?.try_iter()
    }

    fn __str__(&self) -> String {
        self.0.backups.iter().cloned().map(|judged| Judged(judged).line()).collect::<Vec<_>>().join("\n")
    }

    fn __repr__(&self) -> String {
        let doomed = self.0.doomed().count();
        format!("<PrunePlan, {doomed} to delete, {} to keep>", self.0.backups.len() - doomed)
    }

    fn _repr_html_(slf: &Bound<'_, Self>) -> PyResult<String> {
        html(slf.as_any())
    }
}

/// What is decided about a backup.
#[pyclass(module = "shareddb", frozen)]
pub(crate) struct Judged(CoreJudged);

impl Judged {
    fn line(&self) -> String {
        if self.0.stays() {
            return format!("  {} stays: {}", self.0.backup.id, self.reasons().join(", "));
        }
        format!("- {}", self.0.backup.id)
    }
}

#[pymethods]
impl Judged {
    /// The backup's name.
    #[getter]
    fn id(&self) -> String {
        self.0.backup.id.to_string()
    }

    /// When it was taken.
    #[getter]
    fn taken_at(&self) -> SystemTime {
        moment(self.0.backup.id.taken_at())
    }

    /// The size of its dump.
    #[getter]
    fn bytes(&self) -> u64 {
        self.0.backup.bytes
    }

    /// Whether it stays.
    #[getter]
    fn stays(&self) -> bool {
        self.0.stays()
    }

    /// Why it stays; none: it goes.
    #[getter]
    fn reasons(&self) -> Vec<String> {
        self.0.reasons.iter().map(ToString::to_string).collect()
    }

    fn __repr__(&self) -> String {
        format!("<Judged {}>", self.line().trim_start())
    }
}

/// What a prune has done.
#[pyclass(module = "shareddb", frozen)]
pub(crate) struct Pruned(CorePruned);

impl Pruned {
    pub(crate) fn new(pruned: CorePruned) -> Self {
        Self(pruned)
    }
}

#[pymethods]
impl Pruned {
    /// Backups that are gone.
    #[getter]
    fn deleted(&self) -> Vec<String> {
        self.0.deleted.iter().map(ToString::to_string).collect()
    }

    /// How many bytes their dumps took.
    #[getter]
    fn bytes(&self) -> u64 {
        self.0.bytes
    }

    /// Backups that somebody has begun to hold since the plan was made, and stay.
    #[getter]
    fn spared(&self) -> Vec<String> {
        self.0.spared.iter().map(ToString::to_string).collect()
    }

    /// Backups that the store does not let go, with what it says.
    #[getter]
    fn retained(&self) -> Vec<(String, String)> {
        self.0.retained.iter().map(|(id, why)| (id.to_string(), why.clone())).collect()
    }

    /// Objects of no backup that are gone.
    #[getter]
    fn orphans(&self) -> Vec<String> {
        self.0.orphans.clone()
    }

    fn _repr_html_(slf: &Bound<'_, Self>) -> PyResult<String> {
        html(slf.as_any())
    }

    fn __repr__(&self) -> String {
        format!("<Pruned, {} deleted>", self.0.deleted.len())
    }
}
