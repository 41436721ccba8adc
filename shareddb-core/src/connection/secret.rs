//! A Secret as a source, asked for where it is kept.

use super::keys::{self, CERTIFICATE, Values};
use super::provenance::Rotation;
use super::{ConnectionConfig, RootCertificate};
use crate::error::{Error, Result};
use crate::names::SecretName;
use crate::secrets::SecretStore;
use secrecy::ExposeSecret as _;

impl ConnectionConfig {
    /// Reads a Secret from its store: with `KubernetesStore` from the Kubernetes API, which is the only source that has a
    /// new password at once, and for which a pod's account needs the right to `get` this one Secret.
    ///
    /// No other source leads here; it has to be asked for. Keys are those of [`Self::from_directory`]. The root certificate
    /// is in no file then, so only connections from here can use it.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when there is no such Secret, [`Error::InvalidInput`] with every fault in it, and those of the store.
    ///
    /// ```
    /// # async fn example() -> shareddb_core::Result<()> {
    /// use shareddb_core::{ConnectionConfig, DirectoryStore};
    ///
    /// let store = DirectoryStore::new("/var/lib/shareddb/local/secrets");
    /// let config = ConnectionConfig::from_secret(&store, &"myapp-db-secret".parse()?).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn from_secret(store: &dyn SecretStore, name: &SecretName) -> Result<Self> {
        let Some(stored) = store.load(name).await? else {
            return Err(Error::not_found("secret_missing", format!("there is no secret/{name}"))
                .with_hint("`shareddb create APP` makes it; `shareddb list` shows the apps"));
        };
        let value = |key: &str| stored.data.get(key).map(|value| value.expose_secret().as_bytes());
        Self::from_keys(&format!("secret/{name}"), value)
    }

    /// Reads the keys of a Secret that was asked for; `place` is what errors and explanations call it.
    pub(crate) fn from_keys<'a>(place: &str, key: impl Fn(&str) -> Option<&'a [u8]>) -> Result<Self> {
        let values: Values = keys::all().filter_map(|name| Some((name, key(name)?.to_owned()))).collect();
        let certificate = values.get(CERTIFICATE).map(|pem| RootCertificate::pem(pem.clone()));
        let read = keys::read(&values, certificate, Rotation::AtOnce);
        let mut config = read.map_err(|shortfall| shortfall.into_error(place))?;
        config.provenance = config.provenance.within(place);
        Ok(config)
    }
}
