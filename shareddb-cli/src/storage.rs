//! From the environment and its flags to a store of backups, and to whoever works on it.

use std::sync::Arc;

use shareddb_core::{
    AppName, BackupManager, BackupStore, Environment, Identities, Interrupt, LocalHome, Provisioner, Result,
};

use crate::args::Keys;
use crate::context::{Careful, Context};
use crate::progress::Progress;

/// The variables by which the vendors' programs get their credentials.
const VENDORS: [&str; 3] = ["AWS_", "AZURE_", "GOOGLE_"];

/// The store of an environment, or the one that a flag names.
///
/// # Errors
/// `InvalidInput` when neither says where it is, or what is said is no place.
pub(crate) fn store(environment: &Environment, flag: Option<&str>) -> Result<BackupStore> {
    let environment =
        flag.into_iter().try_fold(environment.clone(), |environment, place| environment.with_backups(place))?;
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    BackupStore::of(&environment, variables.filter(|(name, _)| VENDORS.iter().any(|vendor| name.starts_with(vendor))))
}

/// What opens encrypted backups.
///
/// # Errors
/// When a file cannot be read, or holds something else.
pub(crate) fn identities(keys: &Keys) -> Result<Identities> {
    let mut text = String::new();
    for path in &keys.identity {
        let read = std::fs::read_to_string(path);
        text +=
            &read.map_err(|error| shareddb_core::Error::from_io(format!("cannot read {}", path.display()), error))?;
        text.push('\n');
    }
    Identities::keys(&text)
}

/// Who takes, checks and restores backups, and whoever is told of it.
pub(crate) struct Work<'a> {
    pub(crate) manager: BackupManager,
    pub(crate) progress: Arc<Progress>,
    _careful: Careful<'a>,
}

impl<'a> Work<'a> {
    /// Begins work on a server's apps, which from now on is asked to end and not cut off.
    ///
    /// # Errors
    /// `InvalidInput` when it cannot be told where programs are looked for.
    pub(crate) fn begin(
        context: &'a Context,
        environment: &Environment,
        provisioner: &Provisioner,
        store: BackupStore,
        progress: Arc<Progress>,
    ) -> Result<Self> {
        let home = match environment.local_server() {
            Some(local) => local.home().clone(),
            None => LocalHome::from_env()?,
        };
        let (interrupt, told) = (Interrupt::new(), Arc::clone(&progress));
        let manager = BackupManager::new(provisioner.server().clone(), store)
            .with_interrupt(interrupt.clone())
            .on_event(move |app, event| told.event(app, event));
        let manager = home.binaries_override().into_iter().fold(manager, BackupManager::with_binaries);
        let manager = context.limit.into_iter().fold(manager, |manager, _| manager.with_budget(context.left()));
        Ok(Self { manager, progress, _careful: context.careful(interrupt) })
    }

    /// Does something about an app, and takes away the bar.
    pub(crate) async fn on<T>(&self, app: &AppName, work: impl Future<Output = Result<T>>) -> Result<T> {
        let done = work.await;
        self.progress.done(app);
        done
    }
}
