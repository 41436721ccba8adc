//! `Plan`: what would be done; `Report`: what was.

use std::time::SystemTime;

use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyList};
use shareddb_core::{Plan as Core, Proof, Report as CoreReport, Slot, Step};

use crate::app::App;
use crate::listing::html;
use crate::moments::moment;
use crate::workload::{Workload, workloads};

/// What would be done for one app, in order: iterates over lines of text. Falsy when there is nothing to do.
///
/// It holds no secret.
#[pyclass(module = "shareddb", frozen, eq)]
#[derive(PartialEq)]
pub(crate) struct Plan(Core);

impl Plan {
    pub(crate) fn new(plan: Core) -> Self {
        Self(plan)
    }

    pub(crate) fn core(&self) -> &Core {
        &self.0
    }
}

#[pymethods]
impl Plan {
    /// The app as it will be.
    #[getter]
    fn app(&self) -> App {
        App::new(self.0.app.clone())
    }

    /// Whether the app is recorded already.
    #[getter]
    fn exists(&self) -> bool {
        self.0.exists
    }

    /// The changes, in order.
    #[getter]
    fn steps(&self) -> Vec<String> {
        lines(&self.0.steps)
    }

    /// What takes its Secret; `None` where it cannot be told, and where nobody asks: only a rotation does.
    #[getter]
    fn workloads(&self) -> Option<Vec<Workload>> {
        self.0.workloads.as_deref().map(workloads)
    }

    /// What a person should know although nothing will be done about it.
    #[getter]
    fn notices(&self) -> Vec<String> {
        self.0.notices.clone()
    }

    /// What ought to be different and is not for the admin to change, each with the statement that changes it.
    #[getter]
    fn gaps(&self) -> Vec<String> {
        self.0.gaps.iter().map(ToString::to_string).collect()
    }

    fn __len__(&self) -> usize {
        self.0.steps.len()
    }

    fn __bool__(&self) -> bool {
        !self.0.is_empty()
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        PyList::new(py, self.steps())?.try_iter()
    }

    fn __str__(&self) -> String {
        // `print` ends the last line.
        self.0.to_string().trim_end_matches('\n').to_owned()
    }

    fn _repr_html_(slf: &Bound<'_, Self>) -> PyResult<String> {
        html(slf.as_any())
    }

    fn __repr__(&self) -> String {
        format!("<Plan for {}, {} steps>", self.0.app.name, self.0.steps.len())
    }
}

/// What a run has done.
#[pyclass(module = "shareddb", frozen)]
pub(crate) struct Report(CoreReport);

impl Report {
    pub(crate) fn new(report: CoreReport) -> Self {
        Self(report)
    }
}

#[pymethods]
impl Report {
    /// The app, as it is now.
    #[getter]
    fn app(&self) -> App {
        App::new(self.0.app.clone())
    }

    /// What became of it: `created`, `configured`, `unchanged`, `dropped`, `adopted`, `released` or `rotated`.
    #[getter]
    fn outcome(&self) -> &'static str {
        self.0.outcome.as_str()
    }

    /// The steps that were done.
    #[getter]
    fn steps(&self) -> Vec<String> {
        lines(&self.0.steps)
    }

    /// What the trial login found, `complete` or `incomplete`; `None` when there was none.
    #[getter]
    fn proof(&self) -> Option<&'static str> {
        self.0.proof.map(Proof::as_str)
    }

    /// Until when the login works that the Secret named before, by the server's clock; where a rotation has given it an end.
    #[getter]
    fn old_login_ends(&self) -> Option<SystemTime> {
        self.0.old_login_ends.map(moment)
    }

    /// Which login the Secret names now, 1 or 2, where there is one.
    #[getter]
    fn in_use(&self) -> Option<u8> {
        self.0.in_use.map(number)
    }

    /// What takes its Secret, as it was before; `None` where it cannot be told, and where nobody asks: only a rotation does.
    #[getter]
    fn workloads(&self) -> Option<Vec<Workload>> {
        self.0.workloads.as_deref().map(workloads)
    }

    /// Those of them that were restarted.
    #[getter]
    fn restarted(&self) -> Vec<Workload> {
        workloads(&self.0.restarted)
    }

    /// What a person should know.
    #[getter]
    fn notices(&self) -> Vec<String> {
        self.0.notices.clone()
    }

    /// What ought to be different and is not for the admin to change, each with the statement that changes it.
    #[getter]
    fn gaps(&self) -> Vec<String> {
        self.0.gaps.iter().map(ToString::to_string).collect()
    }

    fn __str__(&self) -> String {
        let notices = self.0.notices.iter().map(|notice| format!("\nnote: {notice}"));
        let gaps = self.0.gaps.iter().map(|gap| format!("\nnote: {gap}"));
        let said: String = notices.chain(gaps).collect();
        format!("{} {}{said}", self.0.app.name, self.0.outcome.as_str())
    }

    fn _repr_html_(slf: &Bound<'_, Self>) -> PyResult<String> {
        html(slf.as_any())
    }

    fn __repr__(&self) -> String {
        format!("<Report {} {}>", self.0.app.name, self.0.outcome.as_str())
    }
}

pub(crate) fn lines(steps: &[Step]) -> Vec<String> {
    steps.iter().map(line).collect()
}

pub(crate) fn line(step: &Step) -> String {
    format!("{} {step}", step.change().symbol())
}

/// A login as people count.
pub(crate) fn number(slot: Slot) -> u8 {
    if slot == Slot::One { 1 } else { 2 }
}
