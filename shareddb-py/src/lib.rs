//! The Python module `shareddb`: the façades of `shareddb-core` in Python's words. It decides nothing.

mod adopt;
mod app;
mod connection;
mod environment;
mod errors;
mod plan;
mod provisioner;
mod runtime;

/// Databases for many small applications on one shared PostgreSQL server.
#[pyo3::pymodule]
mod shareddb {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::adopt::Adopt;
    #[pymodule_export]
    use crate::app::{App, AppSummary};
    #[pymodule_export]
    use crate::connection::ConnectionConfig;
    #[pymodule_export]
    use crate::environment::{Environment, LocalEndpoint, Server};
    #[pymodule_export]
    use crate::plan::{Plan, Report};
    #[pymodule_export]
    use crate::provisioner::Provisioner;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        crate::errors::add_to(module)
    }
}
