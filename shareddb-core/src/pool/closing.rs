//! The end of a pool.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::Pool;
use crate::error::{Error, Result};

/// How long callers get to see that they were cancelled.
const AFTERMATH: Duration = Duration::from_secs(2);

impl Pool {
    /// Ends the pool: nobody gets a connection any more, also not who has asked for one already; those who have one get
    /// until `patience` is over to give it back; what is running then is cancelled on the server. 20 seconds are a good
    /// patience where a pod gets 30.
    ///
    /// Call it when the program is asked to end, after it has stopped taking work.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] with the code `pool_in_use` when somebody has kept a connection even so. It is closed as soon as
    /// it is given back. A pool that is closed already is not an error.
    pub async fn close(&self, patience: Duration) -> Result<()> {
        let shared = &self.shared;
        let spare = shared.close();
        self.connections.close();
        let idle = self.connections.retain(|_, _| false).removed;
        join_all(spare.chain(idle).map(|link| link.session.close())).await;
        let mut done = timeout(patience, shared.holders.empty()).await.is_ok();
        shared.end();
        if !done {
            let cancelled = shared.holders.cancellers();
            tracing::warn!(count = cancelled.len(), "the pool ends: what is still running is cancelled");
            let cancelling = join_all(cancelled.iter().map(|canceller| canceller.cancel()));
            let _ = timeout(AFTERMATH, cancelling).await;
            done = timeout(AFTERMATH, shared.holders.empty()).await.is_ok();
        }
        if done {
            return Ok(());
        }
        let mut message = format!("the pool is closed, and {} connections are still in use", shared.holders.count());
        if let Some((label, _)) = shared.holders.longest() {
            message.push_str(&format!("; longest by {label}"));
        }
        Err(Error::timeout("pool_in_use", message).with_hint("end what uses them before the pool is closed"))
    }
}
