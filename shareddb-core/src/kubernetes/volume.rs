//! The volume of a server that is a Deployment, as far as its claim tells.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde::de::DeserializeOwned;

use super::apply::Objects;
use super::object::Kind;
use super::quantity::Size;

/// The volume that a Deployment has its data on.
#[derive(Clone, Debug)]
pub(crate) struct Volume {
    objects: Objects,
    deployment: &'static str,
}

impl Volume {
    pub(crate) fn of(objects: Objects, deployment: &'static str) -> Self {
        Self { objects, deployment }
    }

    /// How large it is; `None` where there is no Deployment, where it has not one claim, or where that may not be read.
    pub(crate) async fn bytes(&self) -> Option<u64> {
        let deployment: Deployment = self.read(Kind::of::<Deployment>(), self.deployment).await?;
        let volumes = deployment.spec?.template.spec?.volumes.unwrap_or_default();
        let mut claims = volumes.into_iter().filter_map(|volume| volume.persistent_volume_claim);
        let (claim, None) = (claims.next()?, claims.next()) else { return None };
        let claim: PersistentVolumeClaim = self.read(Kind::of::<PersistentVolumeClaim>(), &claim.claim_name).await?;
        let size: Size = claim.status?.capacity?.get("storage")?.0.parse().ok()?;
        Some(size.bytes())
    }

    async fn read<T: DeserializeOwned>(&self, kind: Kind, name: &str) -> Option<T> {
        match self.objects.read(kind, name).await {
            Ok(found) => serde_json::from_value(found?).ok(),
            Err(error) => {
                tracing::debug!(%error, "the size of the server's volume is not known");
                None
            }
        }
    }
}
