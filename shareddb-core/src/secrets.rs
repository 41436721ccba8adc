//! Where an app's credentials are kept: the Secret.
//!
//! The provisioner calls a [`SecretStore`]; each kind of place implements it once. The methods are few and
//! their preconditions are part of the contract, so that one winner comes out of every race.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use secrecy::SecretString;

use crate::error::{Error, Result};
use crate::names::{AppName, SecretName};

mod access;
mod directory;
mod disk;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod layout;
mod workload;
mod writer;

pub use directory::DirectoryStore;
#[cfg(feature = "kubernetes")]
pub use kubernetes::KubernetesStore;
pub use workload::{Delivery, Workload, WorkloadKind, WorkloadPod};

/// The keys and values of a Secret. Values never show in `Debug`.
pub type SecretData = BTreeMap<String, SecretString>;

/// Which state of a Secret was read; a store compares it and nobody else looks inside.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretVersion(String);

impl SecretVersion {
    /// Wraps what the store uses to tell one state from another.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// What was wrapped.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretVersion({:?})", self.0)
    }
}

/// A Secret as it was read.
#[derive(Clone, Debug)]
pub struct StoredSecret {
    /// Every key, ours and others'.
    pub data: SecretData,
    /// The state that was read.
    pub version: SecretVersion,
    /// The app it was made for, or `None` when it is not ours.
    pub app: Option<AppName>,
}

/// A place that keeps Secrets.
///
/// Implemented by the directory store here and by the Kubernetes API; called by the provisioner, which holds the
/// app's lock but shares the place with other programs, hence the versions.
#[async_trait]
pub trait SecretStore: fmt::Debug + Send + Sync {
    /// Whether a write of this Secret would be accepted, without writing it.
    ///
    /// # Errors
    /// `PermissionDenied` with the missing right, `Conflict` when something else is in the place, or `Unavailable`.
    /// That the Secret exists already is not an error.
    async fn check(&self, name: &SecretName) -> Result<()>;

    /// Reads a Secret: all of one state, never parts of two.
    ///
    /// # Errors
    /// Anything but a clear "there is none", which is `Ok(None)`: a Secret that cannot be read is not a lost one.
    async fn load(&self, name: &SecretName) -> Result<Option<StoredSecret>>;

    /// Writes a Secret that does not exist yet, for `app`. Of several at once exactly one succeeds.
    ///
    /// # Errors
    /// `Conflict` when it exists; it is never overwritten. `InvalidInput` when a key or a value cannot be kept.
    async fn create(&self, name: &SecretName, app: &AppName, data: &SecretData) -> Result<SecretVersion>;

    /// Replaces all our keys in one write, and marks the Secret as belonging to `app`. Keys that are not in `data` stay.
    ///
    /// # Errors
    /// `Conflict` when the Secret is no longer as it was at `version` or is gone; nothing was written then.
    /// `InvalidInput` as for [`create`](Self::create).
    async fn replace(
        &self,
        name: &SecretName,
        app: &AppName,
        data: &SecretData,
        version: &SecretVersion,
    ) -> Result<SecretVersion>;

    /// Deletes a Secret, whosever it is. That there is none is not an error.
    ///
    /// # Errors
    /// What kept it from being deleted; it is whole then, or gone, but never in parts.
    async fn delete(&self, name: &SecretName) -> Result<()>;

    /// Who takes the Secret, whether it exists or not: what runs with its values, or will. In the order of kinds and names.
    /// `None`: that cannot be told of this place, as of a folder, which anybody may read.
    ///
    /// # Errors
    /// `PermissionDenied` with the missing right, or `Unavailable`. That nobody takes it is not an error.
    async fn workloads(&self, name: &SecretName) -> Result<Option<Vec<Workload>>> {
        let _ = name;
        Ok(None)
    }

    /// Has all pods of a workload replaced, in the way in which it replaces them; does not wait for that.
    ///
    /// # Errors
    /// `InvalidInput` (`restart_unsupported`) where there are no restarts, or not of this kind; `NotFound` when it has gone;
    /// `Conflict` when nothing would come of it: it is paused (`workload_paused`), or waits for its pods to be deleted
    /// (`workload_on_delete`). Then nothing was changed. `Unavailable` and `Timeout` leave open whether it was.
    async fn restart(&self, workload: &Workload) -> Result<()> {
        Err(Error::invalid_input("restart_unsupported", format!("{workload} cannot be restarted from here")))
    }

    /// Where the Secret is, for people: `secret/myapp-db-secret in …`.
    fn describe(&self, name: &SecretName) -> String;
}
