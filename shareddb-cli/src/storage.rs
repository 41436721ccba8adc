//! Whoever works on the backups of a server.

use std::sync::Arc;

use shareddb_core::{AppName, BackupManager, BackupStore, Environment, Interrupt, Provisioner, Result};

use crate::context::{Careful, Context};
use crate::progress::Progress;

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
        let (interrupt, told) = (Interrupt::new(), Arc::clone(&progress));
        let manager = BackupManager::new(provisioner.server().clone(), store)
            .with_interrupt(interrupt.clone())
            .on_event(move |app, event| told.event(app, event));
        let manager = environment.binaries()?.into_iter().fold(manager, BackupManager::with_binaries);
        let manager = context.limit.into_iter().fold(manager, |manager, _| manager.with_budget(context.left()));
        Ok(Self { manager, progress, _careful: context.careful(interrupt) })
    }

    /// Does something about an app, and takes away the bar.
    pub(crate) async fn on<T>(&self, app: &AppName, work: impl Future<Output = Result<T>>) -> Result<T> {
        let done = work.await;
        self.progress.done(app, done.is_ok());
        done
    }
}
