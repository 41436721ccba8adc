//! Where a pool's credentials come from, and come from again.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::connection::ConnectionConfig;
use crate::error::{Error, Result};
use crate::file;

/// The symbolic link whose replacement swaps all keys of a mounted Secret at once.
const VERSION_LINK: &str = "..data";
/// The key that numbers the credentials of a Secret, where its writer numbers them.
const GENERATION_KEY: &str = "generation";
/// A Secret changes about once a month.
const ATTEMPTS: usize = 100;

/// Where a pool's credentials come from: one config for ever, or a place that is looked at again.
///
/// A config that was read from a mounted Secret (`SHAREDDB_SECRET_DIR`, a service binding,
/// [`ConnectionConfig::from_directory`]) remembers the directory, so that a pool made from it follows each rotation. Once
/// its host, port, database, user, password or encryption was set by hand it is fixed, as one from variables or a URL is.
#[derive(Clone)]
pub struct CredentialSource {
    kind: Kind,
    /// The first config; what of it does not belong to the login is kept.
    config: ConnectionConfig,
    /// Where it was read from a Secret: its number, and the version that it is.
    number: Option<String>,
    stamp: Option<String>,
}

#[derive(Clone)]
enum Kind {
    Fixed,
    Directory(PathBuf),
    #[cfg(feature = "kubernetes")]
    Secret(super::secret::WatchedSecret),
}

/// One version of the credentials, as it was read.
pub(super) struct Reading {
    pub(super) config: ConnectionConfig,
    /// The writer's own number for it.
    pub(super) number: Option<String>,
    /// What will differ once there is another one.
    pub(super) stamp: Option<String>,
}

/// The credentials that new connections are opened with.
pub(super) struct Credentials {
    pub(super) config: ConnectionConfig,
    /// Counted by the pool.
    pub(super) generation: u64,
    pub(super) number: Option<String>,
    pub(super) since: Instant,
}

impl From<ConnectionConfig> for CredentialSource {
    fn from(config: ConnectionConfig) -> Self {
        let kind = config.source_directory().map_or(Kind::Fixed, |directory| Kind::Directory(directory.to_owned()));
        Self { kind, config, number: None, stamp: None }
    }
}

impl CredentialSource {
    /// A Secret in the Kubernetes API. It is watched, so that a pool follows a rotation at once and not with kubelet's delay of
    /// a minute. The pod's account needs the rights to `get` and `watch` this one Secret; without the latter it is read every
    /// ten seconds.
    ///
    /// # Errors
    ///
    /// [`crate::Error::NotFound`] when there is none, [`crate::Error::InvalidInput`] when its keys are no connection, and those
    /// of the API.
    #[cfg(feature = "kubernetes")]
    pub async fn from_secret(namespace: &crate::Namespace, name: &crate::SecretName) -> Result<Self> {
        let secret = super::secret::WatchedSecret::new(namespace, name);
        let Reading { config, number, stamp } = secret.read().await?;
        Ok(Self { kind: Kind::Secret(secret), config, number, stamp })
    }

    /// Whether there can ever be others.
    pub(super) fn rotates(&self) -> bool {
        !matches!(self.kind, Kind::Fixed)
    }

    /// What the pool begins with.
    pub(super) fn first(&self) -> Reading {
        let number = match &self.kind {
            Kind::Directory(directory) => number_in(directory),
            _ => self.number.clone(),
        };
        Reading { config: self.config.clone(), number, stamp: self.stamp.clone() }
    }

    /// What tells one version from the next without reading it; `None`: it has to be read.
    pub(super) fn stamp(&self) -> Option<String> {
        match &self.kind {
            Kind::Fixed => Some(String::new()),
            Kind::Directory(directory) => stamp_of(directory),
            #[cfg(feature = "kubernetes")]
            Kind::Secret(secret) => secret.stamp(),
        }
    }

    /// Reads all of it, from one version.
    ///
    /// # Errors
    ///
    /// Those of [`ConnectionConfig::from_directory`] and of the Kubernetes API.
    pub(super) async fn read(&self) -> Result<Reading> {
        let mut reading = match &self.kind {
            Kind::Fixed => self.first(),
            Kind::Directory(directory) => {
                let directory = directory.clone();
                file::blocking(move || read_directory(&directory)).await?
            }
            #[cfg(feature = "kubernetes")]
            Kind::Secret(secret) => secret.read().await?,
        };
        reading.config = reading.config.with_manners_of(&self.config);
        Ok(reading)
    }

    /// Returns when there may be others, if the source tells so by itself.
    pub(super) async fn changed(&self) {
        match &self.kind {
            #[cfg(feature = "kubernetes")]
            Kind::Secret(secret) => secret.changed().await,
            _ => std::future::pending().await,
        }
    }
}

impl fmt::Display for CredentialSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Fixed => f.write_str("fixed settings"),
            Kind::Directory(directory) => write!(f, "the directory {}", directory.display()),
            #[cfg(feature = "kubernetes")]
            Kind::Secret(secret) => write!(f, "{secret}"),
        }
    }
}

impl fmt::Debug for CredentialSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialSource").field("from", &format_args!("{self}")).field("config", &self.config).finish()
    }
}

fn read_directory(directory: &Path) -> Result<Reading> {
    for _ in 0..ATTEMPTS {
        let stamp = stamp_of(directory);
        let (config, number) = (ConnectionConfig::from_directory(directory)?, number_in(directory));
        if stamp_of(directory) == stamp {
            return Ok(Reading { config, number, stamp });
        }
    }
    Err(Error::unavailable("directory_unstable", format!("{} changes faster than it can be read", directory.display())))
}

fn stamp_of(directory: &Path) -> Option<String> {
    Some(fs::read_link(directory.join(VERSION_LINK)).ok()?.to_string_lossy().into_owned())
}

fn number_in(directory: &Path) -> Option<String> {
    let versions = directory.join(VERSION_LINK);
    let base = if versions.exists() { versions } else { directory.to_owned() };
    let text = file::read_text(&base.join(GENERATION_KEY)).ok()?;
    let number = text.trim();
    (!number.is_empty() && number.len() <= 20 && number.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| number.to_owned())
}
