//! The lock that makes one run at a time decide about an app.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;

use crate::error::{Error, Result};
use crate::names::AppName;
use crate::postgres::session::AdminSession;
use crate::postgres::statements as sql;

/// An app's advisory lock, and at first the one over what all apps share (names, the budget, server-wide rights). It owns
/// the session that holds it: when that ends, so does the lock, and nothing more can be done through it.
pub(crate) struct AppLock {
    session: AdminSession,
    /// Whether the shared one is still held.
    shared: AtomicBool,
}

impl AppLock {
    /// Waits for the lock. The session has to be in the maintenance database: keys of advisory locks are per database.
    ///
    /// # Errors
    /// `Timeout` naming who holds it.
    pub(crate) async fn take(session: AdminSession, app: &AppName, patience: Duration) -> Result<Self> {
        match session.value("take the app's lock", &sql::lock(app.as_str(), patience)).await {
            Ok(_) => Ok(Self { session, shared: AtomicBool::new(true) }),
            Err(error @ Error::Timeout(_)) => {
                let holders = session.value("see who holds the lock", &sql::lock_holders(app.as_str())).await?;
                let holders = holders.unwrap_or_else(|| "somebody who has just finished".to_owned());
                Err(Error::timeout("lock_timeout", format!("app {app} is being worked on by {holders}"))
                    .with_hint("wait for it to end, then run this again")
                    .with_source(error))
            }
            Err(error) => Err(error),
        }
    }

    /// The session that holds the lock.
    pub(crate) fn session(&self) -> &AdminSession {
        &self.session
    }

    /// Lets others decide about their apps; this app's lock stays. That it is done already is no error.
    pub(crate) async fn release_shared(&self) -> Result<()> {
        if !self.shared.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        self.session.value("give back the shared lock", &sql::unlock_shared()).await.map(drop)
    }

    /// Lets the next run go on at once. The end of the session would do it too, but only when the runtime comes to it.
    pub(crate) async fn release(self) {
        // Where this fails, the session has ended and the lock with it.
        let _ = self.session.value("give back the app's lock", sql::UNLOCK_ALL).await;
    }

    /// Proves that the lock is still held, before the step that makes everything count.
    /// Returns the server's time.
    pub(crate) async fn assert_held(&self) -> Result<Timestamp> {
        match self.session.time().await {
            Ok(time) => Ok(time),
            Err(error) => Err(Error::unavailable("lock_lost", "the session that holds the app's lock has ended")
                .with_hint("run it again: it goes on where it stopped")
                .with_source(error)),
        }
    }
}
