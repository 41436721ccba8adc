//! Reading what there is in a namespace that may take a Secret.

use futures_util::future::{try_join, try_join5};

use super::apply::Objects;
use super::takers::Inhabitants;
use crate::error::{Error, Result};

impl Inhabitants {
    /// Reads all of them. Jobs that may not be read are done without: whose the pods of most are can be told by their names.
    pub(crate) async fn read(objects: &Objects) -> Result<Self> {
        let jobs = async {
            match objects.all().await {
                Ok(jobs) => Ok(Some(jobs)),
                Err(Error::PermissionDenied(_)) => Ok(None),
                Err(error) => Err(error),
            }
        };
        let rest = try_join5(objects.all(), objects.all(), objects.all(), objects.all(), objects.all());
        let (jobs, (deployments, stateful_sets, daemon_sets, cron_jobs, pods)) = try_join(jobs, rest).await?;
        Ok(Self { deployments, stateful_sets, daemon_sets, cron_jobs, jobs, pods })
    }
}
