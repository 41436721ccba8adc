//! `Provisioner`: giving an application its database, and taking it away.

use std::collections::BTreeMap;
use std::str::FromStr;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyString;
use shareddb_core::{AppSpec, DatabaseName, Error, LoginName, Provisioner as Core, Result, RoleName};

use crate::adopt::Adopt;
use crate::app::{App, AppSummary};
use crate::connection::ConnectionConfig;
use crate::environment::Server;
use crate::errors::raise;
use crate::plan::{Plan, Report};
use crate::runtime::wait;

/// Provisions the apps of one server. Everything can be done again: what is as it should be is left alone.
#[pyclass(module = "shareddb", frozen)]
pub(crate) struct Provisioner(Core);

#[pymethods]
#[allow(clippy::too_many_arguments, reason = "in Python they are named")]
impl Provisioner {
    /// A provisioner for `server`. Connects to nothing yet.
    #[new]
    fn new(server: &Server) -> Self {
        Self(Core::new(server.core().clone()))
    }

    /// Decide what `create` would do, and do nothing.
    #[pyo3(signature = (app, *, database=None, user=None, connections=None, search_path=None, extensions=None,
                        settings=None, allow_overcommit=false, secure_server=false, adopt=None))]
    fn plan(
        &self,
        py: Python<'_>,
        app: &str,
        database: Option<&str>,
        user: Option<&str>,
        connections: Option<i64>,
        search_path: Option<Names>,
        extensions: Option<Names>,
        settings: Option<BTreeMap<String, String>>,
        allow_overcommit: bool,
        secure_server: bool,
        adopt: Option<Adopt>,
    ) -> PyResult<Plan> {
        let flags = (allow_overcommit, secure_server);
        let spec = spec(app, database, user, connections, search_path, extensions, settings, flags, adopt)
            .map_err(|error| raise(py, &error))?;
        wait(py, self.0.plan(&spec)).map(Plan::new)
    }

    /// Make an app what the arguments say; one left out means "as recorded, else the default".
    #[pyo3(signature = (app, *, database=None, user=None, connections=None, search_path=None, extensions=None,
                        settings=None, allow_overcommit=false, secure_server=false, adopt=None))]
    fn create(
        &self,
        py: Python<'_>,
        app: &str,
        database: Option<&str>,
        user: Option<&str>,
        connections: Option<i64>,
        search_path: Option<Names>,
        extensions: Option<Names>,
        settings: Option<BTreeMap<String, String>>,
        allow_overcommit: bool,
        secure_server: bool,
        adopt: Option<Adopt>,
    ) -> PyResult<Report> {
        let flags = (allow_overcommit, secure_server);
        let spec = spec(app, database, user, connections, search_path, extensions, settings, flags, adopt)
            .map_err(|error| raise(py, &error))?;
        wait(py, self.0.create(&spec)).map(Report::new)
    }

    /// Decide what `drop` would do, and do nothing.
    fn plan_drop(&self, py: Python<'_>, app: &str) -> PyResult<Plan> {
        let app = name(py, app)?;
        wait(py, self.0.plan_drop(&app)).map(Plan::new)
    }

    /// Carry out a plan, if it is still what would be decided now.
    fn apply(&self, py: Python<'_>, plan: &Plan) -> PyResult<Report> {
        wait(py, self.0.apply(plan.core())).map(Report::new)
    }

    /// Remove an app with its data. `confirm` is the app's name again.
    #[pyo3(signature = (app, *, confirm))]
    fn drop(&self, py: Python<'_>, app: &str, confirm: &str) -> PyResult<Report> {
        let app = name(py, app)?;
        wait(py, self.0.drop(&app, confirm)).map(Report::new)
    }

    /// Decide what `undo_adopt` would do, and do nothing.
    fn plan_undo_adopt(&self, py: Python<'_>, app: &str) -> PyResult<Plan> {
        let app = name(py, app)?;
        wait(py, self.0.plan_undo_adopt(&app)).map(Plan::new)
    }

    /// Give an adopted app back as it was, as long as its second login was never issued.
    fn undo_adopt(&self, py: Python<'_>, app: &str) -> PyResult<Report> {
        let app = name(py, app)?;
        wait(py, self.0.undo_adopt(&app)).map(Report::new)
    }

    /// Every app of the server, by name.
    fn list(&self, py: Python<'_>) -> PyResult<Vec<AppSummary>> {
        let apps = wait(py, self.0.list())?;
        Ok(apps.into_iter().map(AppSummary::new).collect())
    }

    /// An app as it is recorded.
    fn app(&self, py: Python<'_>, app: &str) -> PyResult<App> {
        let app = name(py, app)?;
        wait(py, self.0.app(&app)).map(App::new)
    }

    /// How an app logs in, as its Secret says.
    fn connection(&self, py: Python<'_>, app: &str) -> PyResult<ConnectionConfig> {
        let app = name(py, app)?;
        wait(py, self.0.connection(&app)).map(ConnectionConfig::new)
    }
}

fn name<T: FromStr<Err = Error>>(py: Python<'_>, text: &str) -> PyResult<T> {
    text.parse().map_err(|error| raise(py, &error))
}

#[allow(clippy::too_many_arguments, reason = "Python's named arguments, one for one")]
fn spec(
    app: &str,
    database: Option<&str>,
    user: Option<&str>,
    connections: Option<i64>,
    search_path: Option<Names>,
    extensions: Option<Names>,
    settings: Option<BTreeMap<String, String>>,
    (allow_overcommit, secure_server): (bool, bool),
    adopt: Option<Adopt>,
) -> Result<AppSpec> {
    let mut spec = AppSpec::new(app.parse()?);
    // What exists may have any name.
    let exists = adopt.is_some();
    spec.database =
        database.map(|name| if exists { DatabaseName::existing(name) } else { name.parse() }).transpose()?;
    spec.user = user.map(|name| if exists { LoginName::existing(name) } else { name.parse() }).transpose()?;
    spec.adopt = adopt.map(|adopt| adopt.0);
    spec.connections = connections.map(narrowed).transpose()?;
    spec.search_path = search_path.map(Names::parsed).transpose()?;
    spec.extensions = extensions.map(Names::parsed).transpose()?;
    spec.settings = settings
        .map(|settings| settings.into_iter().map(|(name, value)| Ok((name.parse()?, value))).collect::<Result<_>>())
        .transpose()?;
    spec.allow_overcommit = allow_overcommit;
    spec.secure_server = secure_server;
    Ok(spec)
}

/// Core judges what fits its type; the rest is told apart by nothing but its size.
fn narrowed(connections: i64) -> Result<u16> {
    u16::try_from(connections).map_err(|_| {
        Error::invalid_input("connections_invalid", format!("{connections} connections per login are not possible"))
    })
}

/// Several names: any iterable of `str` that is not itself one.
pub(crate) struct Names(Vec<String>);

impl Names {
    /// Names of roles that exist, which may be any.
    pub(crate) fn roles<C: FromIterator<RoleName>>(self) -> Result<C> {
        self.0.iter().map(|name| RoleName::existing(name)).collect()
    }

    fn parsed<T: FromStr<Err = Error>, C: FromIterator<T>>(self) -> Result<C> {
        self.0.iter().map(|name| name.parse()).collect()
    }
}

impl<'py> FromPyObject<'_, 'py> for Names {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if object.is_instance_of::<PyString>() {
            return Err(PyTypeError::new_err("expected several names, not one string: put it into a list"));
        }
        object.try_iter()?.map(|name| name?.extract()).collect::<PyResult<_>>().map(Self)
    }
}
