//! `Workload`: something that runs with the values of an app's Secret.

use pyo3::prelude::*;
use shareddb_core::{Delivery, Workload as Core};

/// Something that runs, or is to run, with the values of an app's Secret.
#[pyclass(module = "shareddb", frozen)]
pub(crate) struct Workload(Core);

/// All of them.
pub(crate) fn workloads(workloads: &[Core]) -> Vec<Workload> {
    workloads.iter().cloned().map(Workload).collect()
}

#[pymethods]
impl Workload {
    /// What it is, as kubectl writes it: `deployment`, `statefulset`, `daemonset`, `cronjob`, `job` or `pod`.
    #[getter]
    fn kind(&self) -> &'static str {
        self.0.kind.as_str()
    }

    /// Its name.
    #[getter]
    fn name(&self) -> &str {
        &self.0.name
    }

    /// How it takes the values: `files`, which follow the Secret, one `file` that does not, or `variables`.
    #[getter]
    fn delivery(&self) -> &'static str {
        match self.0.delivery {
            Delivery::Mounted => "files",
            Delivery::SubPath => "file",
            _ => "variables",
        }
    }

    /// Whether new values only get there by a restart.
    #[getter]
    fn needs_restart(&self) -> bool {
        self.0.delivery.needs_restart()
    }

    /// Whether it asks Stakater's Reloader to restart it when the Secret changes.
    #[getter]
    fn reloaded(&self) -> bool {
        self.0.reloaded
    }

    /// The names of its pods that have the values, or will have them once they start.
    #[getter]
    fn pods(&self) -> Vec<String> {
        self.0.pods.iter().map(|pod| pod.name.clone()).collect()
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        format!("<Workload {}>", self.0)
    }
}
