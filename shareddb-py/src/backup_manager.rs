//! `BackupManager`: backups that are known to restore.

use std::path::PathBuf;
use std::time::Duration;

use jiff::tz::TimeZone;
use pyo3::coroutine::CancelHandle;
use pyo3::exceptions::PyTypeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use shareddb_core::{
    AppName, BackupId, BackupManager as Core, BackupOptions, BackupStore, Choice, Error, Identities, Interrupt,
    Manifest, OtherRoles, Reason, Recipients, RestoreOptions, RestoreReport as CoreReport, Result,
    Verification as CoreVerification, VerifyOptions,
};

use crate::backup::{Backup, Verification, reason};
use crate::backup_event::BackupEvent;
use crate::dialects::chosen;
use crate::follower::Follower;
use crate::listing::listing;
use crate::moments::Moment;
use crate::names::{Names, Paths, name};
use crate::restored::RestoreReport;
use crate::retention::{PrunePlan, Pruned, RetentionPolicy};
use crate::runtime::wait;
use crate::server::Server;
use crate::whole::kind;
use crate::work::{Work, known};

/// Backs up the apps of one server, proves and restores what was backed up.
#[pyclass(module = "shareddb", frozen)]
pub(crate) struct BackupManager {
    server: Py<Server>,
    store: BackupStore,
    on_event: Option<Py<PyAny>>,
    lock_patience: Option<Duration>,
    budget: Option<Duration>,
    binaries: Option<PathBuf>,
}

/// One run: who does it, who follows it, and what ends it early.
struct Run {
    core: Core,
    follower: Follower,
    interrupt: Interrupt,
}

impl BackupManager {
    fn core(&self, py: Python<'_>) -> PyResult<Core> {
        let core = Core::new(self.server.get().core(py)?, self.store.clone());
        let core = self.lock_patience.into_iter().fold(core, Core::with_lock_patience);
        let core = self.budget.into_iter().fold(core, Core::with_budget);
        Ok(self.binaries.iter().fold(core, Core::with_binaries))
    }

    fn run(&self, py: Python<'_>) -> PyResult<Run> {
        let (follower, interrupt) = (Follower::default(), Interrupt::new());
        let mut core = self.core(py)?.with_interrupt(interrupt.clone());
        if let Some(callable) = self.on_event.as_ref().map(|callable| callable.clone_ref(py)) {
            let teller = follower.clone();
            core = core.on_event(move |app, event| {
                let Some(event) = BackupEvent::of(app.as_str(), event) else { return };
                Python::try_attach(|py| teller.tell(py, &callable, (event,)));
            });
        }
        Ok(Run { core, follower, interrupt })
    }

    fn taking(&self, py: Python<'_>, app: &str, options: BackupOptions) -> PyResult<Work<Manifest>> {
        let app: AppName = name(py, app)?;
        let Run { core, follower, interrupt } = self.run(py)?;
        Ok(Work::asked(follower, interrupt, async move { core.backup(&app, &options).await }))
    }

    fn proving(
        &self,
        py: Python<'_>,
        backup: &Chosen,
        quick: bool,
        identity: Option<&Paths>,
    ) -> PyResult<Work<CoreVerification>> {
        let id = known(py, backup.id())?;
        let mut options = VerifyOptions::default();
        options.quick = quick;
        let (files, Run { core, follower, interrupt }) = (files(identity), self.run(py)?);
        Ok(Work::asked(follower, interrupt, async move {
            options.identities = Identities::files(files).await?;
            core.verify(&id, &options).await
        }))
    }

    fn restoring(&self, py: Python<'_>, wishes: RestoreWishes<'_>) -> PyResult<Work<CoreReport>> {
        let app: AppName = name(py, wishes.app)?;
        let mut options = RestoreOptions::default();
        options.backup = match wishes.backup {
            None => Choice::Latest,
            Some(Chosen::At(time)) => Choice::At(time.timestamp(py)?),
            Some(named) => Choice::Id(known(py, named.id())?),
        };
        if let Choice::Id(id) = &options.backup {
            // That of another app lies on another shelf.
            options.shelf = (*id.app() != app).then(|| self.store.shelf(self.server.get().of().name(), id.app()));
        }
        options.other_roles = wishes.other_roles.map(|word| known(py, other_roles(word))).transpose()?;
        options.safety_backup = wishes.safety_backup;
        let (files, confirm) = (files(wishes.identity), wishes.confirm.to_owned());
        let Run { core, follower, interrupt } = self.run(py)?;
        Ok(Work::asked(follower, interrupt, async move {
            options.identities = Identities::files(files).await?;
            core.restore(&app, &options, &confirm).await
        }))
    }
}

/// Python's named arguments of a restore, one for one.
struct RestoreWishes<'a> {
    app: &'a str,
    backup: Option<Chosen>,
    confirm: &'a str,
    safety_backup: bool,
    other_roles: Option<&'a str>,
    identity: Option<&'a Paths>,
}

#[pymethods]
#[allow(clippy::too_many_arguments, reason = "in Python they are named")]
impl BackupManager {
    /// A manager of the backups of `server` in the store at `url`; by default that of the environment. Connects to nothing yet.
    ///
    /// `on_event` is called with each `BackupEvent`; what it raises ends the run. `lock_patience` is how long a run waits while
    /// another one works on the same app, a minute; `budget` how long it may take, an hour. `binaries` is the directory of
    /// `pg_dump` and `pg_restore`; by default they are searched.
    #[new]
    #[pyo3(signature = (server, url=None, *, on_event=None, lock_patience=None, budget=None, binaries=None))]
    fn new(
        py: Python<'_>,
        server: Py<Server>,
        url: Option<&str>,
        on_event: Option<Py<PyAny>>,
        lock_patience: Option<Duration>,
        budget: Option<Duration>,
        binaries: Option<PathBuf>,
    ) -> PyResult<Self> {
        let environment = server.get().of();
        let store = known(py, BackupStore::from_env(environment, url))?;
        let binaries = match binaries {
            Some(binaries) => Some(binaries),
            None => known(py, environment.binaries())?,
        };
        Ok(Self { server, store, on_event, lock_patience, budget, binaries })
    }

    /// The place of the backups.
    #[getter]
    fn url(&self) -> String {
        self.store.to_string()
    }

    /// Take a backup of an app. It exists when this returns, and not before.
    #[pyo3(signature = (app, *, reason="manual", encrypt_to=None, yield_after=None, keep_until=None))]
    fn backup(
        &self,
        py: Python<'_>,
        app: &str,
        reason: &str,
        encrypt_to: Option<Names>,
        yield_after: Option<Duration>,
        keep_until: Option<Moment>,
    ) -> PyResult<Backup> {
        let options = backup_options(py, self::reason(py, reason)?, encrypt_to, yield_after, keep_until)?;
        self.taking(py, app, options)?.wait(py).map(Backup::taken)
    }

    /// Take the backup without which nobody should drop an app. Its logins are closed first and stay closed, so that nothing is
    /// written that the backup has not; they are open again where it could not be taken. Kept for 90 days, unless `keep_until`
    /// says otherwise.
    #[pyo3(signature = (app, *, encrypt_to=None, yield_after=None, keep_until=None))]
    fn last_backup(
        &self,
        py: Python<'_>,
        app: &str,
        encrypt_to: Option<Names>,
        yield_after: Option<Duration>,
        keep_until: Option<Moment>,
    ) -> PyResult<Backup> {
        let options = backup_options(py, Reason::BeforeDrop, encrypt_to, yield_after, keep_until)?;
        let (app, Run { core, follower, interrupt }) = (name(py, app)?, self.run(py)?);
        let taken = Work::asked(follower, interrupt, async move { core.last_backup(&app, &options).await });
        taken.wait(py).map(Backup::taken)
    }

    /// `backup` for a coroutine. Cancelled, it leaves nothing behind.
    #[pyo3(signature = (app, *, reason="manual".to_owned(), encrypt_to=None, yield_after=None, keep_until=None),
           text_signature = "($self, app, *, reason=\"manual\", encrypt_to=None, yield_after=None, keep_until=None)")]
    async fn backup_async(
        &self,
        app: String,
        reason: String,
        encrypt_to: Option<Names>,
        yield_after: Option<Duration>,
        keep_until: Option<Moment>,
        #[pyo3(cancel_handle)] cancel: CancelHandle,
    ) -> PyResult<Backup> {
        let work = Python::attach(|py| {
            let options = backup_options(py, self::reason(py, &reason)?, encrypt_to, yield_after, keep_until)?;
            self.taking(py, &app, options)
        })?;
        work.awaited(cancel).await.map(Backup::taken)
    }

    /// The backups of an app, or of every app one after another; of each the newest first.
    #[pyo3(signature = (app=None))]
    fn list<'py>(&self, py: Python<'py>, app: Option<&str>) -> PyResult<Bound<'py, PyAny>> {
        let app: Option<AppName> = app.map(|app| name(py, app)).transpose()?;
        let environment = self.server.get().of().name();
        let described = wait(py, async {
            let apps = match app {
                Some(app) => vec![app],
                None => self.store.apps(environment).await?,
            };
            let mut described = Vec::new();
            for app in &apps {
                described.extend(self.store.shelf(environment, app).describe().await?);
            }
            Ok(described)
        })?;
        listing(py, "BackupList", described.into_iter().map(Backup::listed))
    }

    /// Prove a backup: load it into a database of its own and compare every row with what was dumped. One that fails is no
    /// error.
    #[pyo3(signature = (backup, *, quick=false, identity=None))]
    #[allow(clippy::needless_pass_by_value, reason = "Python's objects become owned ones")]
    fn verify(&self, py: Python<'_>, backup: Chosen, quick: bool, identity: Option<Paths>) -> PyResult<Verification> {
        self.proving(py, &backup, quick, identity.as_ref())?.wait(py).map(Verification::new)
    }

    /// `verify` for a coroutine. Cancelled, it leaves nothing behind.
    #[pyo3(signature = (backup, *, quick=false, identity=None))]
    async fn verify_async(
        &self,
        backup: Chosen,
        quick: bool,
        identity: Option<Paths>,
        #[pyo3(cancel_handle)] cancel: CancelHandle,
    ) -> PyResult<Verification> {
        let work = Python::attach(|py| self.proving(py, &backup, quick, identity.as_ref()))?;
        work.awaited(cancel).await.map(Verification::new)
    }

    /// Put a backup in the place of an app's database. `confirm` is the app's name again.
    #[pyo3(signature = (app, backup=None, *, confirm, safety_backup=true, other_roles=None, identity=None))]
    #[allow(clippy::needless_pass_by_value, reason = "Python's objects become owned ones")]
    fn restore(
        &self,
        py: Python<'_>,
        app: &str,
        backup: Option<Chosen>,
        confirm: &str,
        safety_backup: bool,
        other_roles: Option<&str>,
        identity: Option<Paths>,
    ) -> PyResult<RestoreReport> {
        let identity = identity.as_ref();
        let wishes = RestoreWishes { app, backup, confirm, safety_backup, other_roles, identity };
        self.restoring(py, wishes)?.wait(py).map(RestoreReport::new)
    }

    /// `restore` for a coroutine. Cancelled, the app's database is as it was.
    #[pyo3(signature = (app, backup=None, *, confirm, safety_backup=true, other_roles=None, identity=None))]
    async fn restore_async(
        &self,
        app: String,
        backup: Option<Chosen>,
        confirm: String,
        safety_backup: bool,
        other_roles: Option<String>,
        identity: Option<Paths>,
        #[pyo3(cancel_handle)] cancel: CancelHandle,
    ) -> PyResult<RestoreReport> {
        let work = Python::attach(|py| {
            let (other_roles, identity) = (other_roles.as_deref(), identity.as_ref());
            let wishes = RestoreWishes { app: &app, backup, confirm: &confirm, safety_backup, other_roles, identity };
            self.restoring(py, wishes)
        })?;
        work.awaited(cancel).await.map(RestoreReport::new)
    }

    /// Take back the last restore. Returns the name by which the restored database is kept. `confirm` is the app's name again.
    #[pyo3(signature = (app, *, confirm))]
    fn undo(&self, py: Python<'_>, app: &str, confirm: String) -> PyResult<String> {
        let app: AppName = name(py, app)?;
        let Run { core, follower, interrupt } = self.run(py)?;
        Work::asked(follower, interrupt, async move { core.undo(&app, &confirm).await }).wait(py)
    }

    /// Decide which backups of an app a policy gives up, and delete nothing. Days, weeks and so on are those of UTC.
    fn plan_prune(&self, py: Python<'_>, app: &str, policy: &RetentionPolicy) -> PyResult<PrunePlan> {
        let shelf = self.store.shelf(self.server.get().of().name(), &name(py, app)?);
        wait(py, shelf.plan_prune(policy.core(), &TimeZone::UTC)).map(PrunePlan::new)
    }

    /// Delete what a plan gives up, and what old runs have left in the store.
    fn prune(&self, py: Python<'_>, app: &str, plan: &PrunePlan) -> PyResult<Pruned> {
        let shelf = self.store.shelf(self.server.get().of().name(), &name(py, app)?);
        wait(py, shelf.prune(plan.core())).map(Pruned::new)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> std::result::Result<(), PyTraverseError> {
        visit.call(&self.server)?;
        self.on_event.iter().try_for_each(|callable| visit.call(callable))
    }

    fn __repr__(&self) -> String {
        format!("<BackupManager of {}, {}>", self.server.get().of().name(), self.store)
    }
}

/// Which backup: itself, its name, or the newest that was there at a time.
enum Chosen {
    Backup(Py<Backup>),
    Named(String),
    At(Moment),
}

impl<'py> FromPyObject<'_, 'py> for Chosen {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(backup) = object.extract() {
            return Ok(Self::Backup(backup));
        }
        if let Ok(name) = object.extract() {
            return Ok(Self::Named(name));
        }
        if object.hasattr("tzinfo")? {
            return object.extract().map(Self::At);
        }
        Err(PyTypeError::new_err(format!("expected a backup, the name of one, or a time, not {}", kind(&object))))
    }
}

impl Chosen {
    /// # Errors
    /// `InvalidInput` for what is no backup's name.
    fn id(&self) -> Result<BackupId> {
        match self {
            Self::Backup(backup) => Ok(backup.get().core_id().clone()),
            Self::Named(text) => text.parse(),
            Self::At(_) => Err(Error::invalid_input("backup_id_invalid", "a time is no backup's name")
                .with_hint("BackupManager.list gives the backups that there are")),
        }
    }
}

fn backup_options(
    py: Python<'_>,
    reason: Reason,
    encrypt_to: Option<Names>,
    yield_after: Option<Duration>,
    keep_until: Option<Moment>,
) -> PyResult<BackupOptions> {
    let mut options = BackupOptions::default();
    options.reason = reason;
    if let Some(keys) = encrypt_to {
        options.recipients = known(py, Recipients::keys(keys.iter()))?;
    }
    options.yield_after = yield_after.unwrap_or(options.yield_after);
    options.keep = keep_until.map(|until| until.timestamp(py)).transpose()?;
    Ok(options)
}

/// The files with the private keys that open encrypted backups.
fn files(identity: Option<&Paths>) -> Vec<PathBuf> {
    identity.map(Paths::all).unwrap_or_default().to_vec()
}

fn other_roles(word: &str) -> Result<OtherRoles> {
    chosen("way with other roles", word, &OtherRoles::ALL, |way| way.as_str())
}
