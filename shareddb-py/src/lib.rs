//! The compiled half of the Python package `shareddb`: the façades of `shareddb-core` in Python's words. It decides nothing.

mod adopt;
mod app;
mod backup;
mod backup_event;
mod backup_manager;
mod changes;
mod connection;
mod dialects;
mod environment;
mod errors;
mod explanation;
mod follower;
mod listing;
mod local;
mod log;
mod moments;
mod names;
mod plan;
mod provisioner;
mod psql;
mod restored;
mod retention;
mod runtime;
mod server;
mod spec;
mod status;
mod throw_away;
mod whole;
mod work;
mod workload;

/// The compiled half of `shareddb`.
#[pyo3::pymodule]
mod _shareddb {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::adopt::Adopt;
    #[pymodule_export]
    use crate::app::{App, AppSummary};
    #[pymodule_export]
    use crate::backup::{Backup, Verification};
    #[pymodule_export]
    use crate::backup_event::BackupEvent;
    #[pymodule_export]
    use crate::backup_manager::BackupManager;
    #[pymodule_export]
    use crate::connection::ConnectionConfig;
    #[pymodule_export]
    use crate::environment::Environment;
    #[pymodule_export]
    use crate::explanation::{ExplainedField, Explanation};
    #[pymodule_export]
    use crate::local::LocalEndpoint;
    #[pymodule_export]
    use crate::plan::{Plan, Report};
    #[pymodule_export]
    use crate::provisioner::Provisioner;
    #[pymodule_export]
    use crate::psql::PsqlCommand;
    #[pymodule_export]
    use crate::restored::RestoreReport;
    #[pymodule_export]
    use crate::retention::{Judged, PrunePlan, Pruned, RetentionPolicy};
    #[pymodule_export]
    use crate::server::Server;
    #[pymodule_export]
    use crate::status::{AppStatus, LoginStatus, ServerStatus, Status, Wall};
    #[pymodule_export]
    use crate::workload::Workload;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::log::begin();
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
