//! A Secret in the Kubernetes API, as the place that credentials come from.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use secrecy::ExposeSecret as _;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::source::Reading;
use crate::connection::ConnectionConfig;
use crate::error::{Error, Result};
use crate::kubernetes::Namespace;
use crate::names::SecretName;
use crate::secrets::{KubernetesStore, SecretStore as _, SecretVersion};

/// How often it is read where it may not be watched.
const READ_AGAIN: Duration = Duration::from_secs(10);
/// The key that numbers the credentials, where their writer numbers them.
const GENERATION_KEY: &str = "generation";

/// Clones watch together.
#[derive(Clone)]
pub(super) struct WatchedSecret(Arc<Watched>);

struct Watched {
    store: KubernetesStore,
    name: SecretName,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// The newest version that is known of.
    version: Option<SecretVersion>,
    /// Ends the watch.
    watch: Option<AbortHandle>,
}

impl WatchedSecret {
    pub(super) fn new(namespace: &Namespace, name: &SecretName) -> Self {
        Self(Arc::new(Watched {
            store: KubernetesStore::new(namespace.clone()),
            name: name.clone(),
            state: Mutex::default(),
            changed: Notify::new(),
        }))
    }

    /// The newest version that is known of.
    pub(super) fn stamp(&self) -> Option<String> {
        self.0.state().version.as_ref().map(|version| version.as_str().to_owned())
    }

    pub(super) async fn read(&self) -> Result<Reading> {
        let watched = &self.0;
        let what = watched.store.describe(&watched.name);
        let stored = watched.store.load(&watched.name).await?;
        let stored = stored.ok_or_else(|| Error::not_found("secret_not_found", format!("there is no {what}")))?;
        let key = |name: &str| Some(stored.data.get(name)?.expose_secret().as_bytes());
        let config = ConnectionConfig::from_keys(&what, key)?;
        let number = stored.data.get(GENERATION_KEY).map(|number| number.expose_secret().trim().to_owned());
        let number = number.filter(|number| number.len() <= 20 && number.bytes().all(|byte| byte.is_ascii_digit()));
        let stamp = Some(stored.version.as_str().to_owned());
        watched.state().version = Some(stored.version);
        Ok(Reading { config, number, stamp })
    }

    /// Returns when there may be another version. The first caller starts the watch, which ends with the last clone; when
    /// it has ended with its runtime, the next one starts it anew.
    pub(super) async fn changed(&self) {
        let changed = self.0.changed.notified();
        {
            let mut state = self.0.state();
            if state.watch.as_ref().is_none_or(AbortHandle::is_finished) {
                let watch = watch(self.0.store.clone(), self.0.name.clone(), Arc::downgrade(&self.0));
                state.watch = Some(tokio::spawn(watch).abort_handle());
            }
        }
        changed.await;
    }
}

/// Holds no more of the state than it needs, so that it ends with the last one who has that.
async fn watch(store: KubernetesStore, name: SecretName, watched: Weak<Watched>) {
    loop {
        let Some(version) = watched.upgrade().map(|watched| watched.state().version.clone()) else { return };
        let moved = match &version {
            Some(version) => store.moved(&name, version).await,
            None => Ok(true),
        };
        match moved {
            Ok(false) => continue,
            Ok(true) => {}
            Err(error) => {
                tracing::debug!(%error, "the Secret of the pool cannot be watched and is read now and then");
                tokio::time::sleep(READ_AGAIN).await;
            }
        }
        let loaded = store.load(&name).await;
        let Some(watched) = watched.upgrade() else { return };
        match loaded {
            Ok(Some(stored)) if Some(&stored.version) != version.as_ref() => {
                watched.state().version = Some(stored.version);
                watched.changed.notify_waiters();
                continue;
            }
            Ok(Some(_)) => continue,
            // It may be made anew, which no watch from an older version on tells.
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "the Secret of the pool cannot be read"),
        }
        drop(watched);
        tokio::time::sleep(READ_AGAIN).await;
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(watch) = self.state().watch.take() {
            watch.abort();
        }
    }
}

impl Watched {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for WatchedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.store.describe(&self.0.name))
    }
}
