//! Opening a connection: which credentials, and what it means when they are refused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use tracing::Instrument as _;

use super::backoff::{about, full_jitter};
use super::budget::Budget;
use super::calls::Calls;
use super::canceller::Canceller;
use super::fault;
use super::link::Link;
use super::meter;
use super::options::Statements;
use super::shared::{Shared, Turning};
use super::source::{Credentials, Reading};
use super::statement_cache::StatementCache;
use crate::error::{Error, Result};
use crate::postgres::session_name::session_name;

/// Between two tries of credentials that were rejected.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

impl Shared {
    /// Opens a connection with the newest credentials that work.
    ///
    /// # Errors
    ///
    /// Those of [`crate::ConnectionConfig::connect`]; `credentials_rejected`, `pool_too_large`.
    pub(super) async fn connect(&self) -> Result<Link> {
        if let Some(budget) = self.budget.get() {
            budget.check(&self.options)?;
        }
        if let Some(error) = self.health.pause() {
            return Err(error);
        }
        let link = self.connect_with_newest().await;
        match &link {
            Ok(_) => self.health.succeeded(),
            Err(error) => self.health.failed(error),
        }
        let link = link?;
        if self.options.statements == Statements::Cached {
            let budget = self.budget.get_or_try_init(|| Budget::ask(&link.session, &self.options)).await;
            match budget {
                Ok(budget) => budget.check(&self.options)?,
                // It is advice; who gets no answer to it has a working connection all the same.
                Err(error) => tracing::debug!(%error, "the server does not say how much room it has"),
            }
        }
        Ok(link)
    }

    async fn connect_with_newest(&self) -> Result<Link> {
        // Read before dialling, so that nothing that is opened from here on passes for newer than it is.
        let credentials = self.credentials();
        if self.source.rotates()
            && let Some(link) = self.turn(&credentials, Doubt::No).await
        {
            return Ok(link);
        }
        match self.dial(&credentials).await {
            Err(error) if fault::is_rejection(&error) => {
                if let Some(link) = self.turn(&credentials, Doubt::Yes).await {
                    return Ok(link);
                }
                // Somebody else may have been quicker.
                let newest = self.credentials();
                if newest.generation != credentials.generation {
                    return self.dial(&newest).await;
                }
                self.doubted.notify_waiters();
                Err(fault::rejected(error, &self.source.to_string(), credentials.since.elapsed()))
            }
            other => other,
        }
    }

    /// Looks whether there are other credentials, and has them proved: by the connection that is returned. With it they
    /// are the pool's. `None`: there are no others, or they do not work either.
    pub(super) async fn turn(&self, used: &Credentials, doubt: Doubt) -> Option<Link> {
        if doubt == Doubt::No && self.turning.try_lock().ok()?.is_idle(self.source.stamp().as_deref()) {
            return None;
        }
        let mut turning = self.turning.lock().await;
        if self.credentials().generation != used.generation {
            return None;
        }
        let reading = match self.source.read().await {
            Ok(reading) => reading,
            Err(error) => {
                tracing::warn!(%error, "the pool's credentials cannot be read again");
                return None;
            }
        };
        if reading.config.is_same_login(&used.config) {
            *turning = Turning { stamp: reading.stamp, not_before: None, tries: 0 };
            self.unproved(None);
            return None;
        }
        if turning.not_before.is_some_and(|moment| Instant::now() < moment) {
            return None;
        }
        let Reading { config, number, stamp } = reading;
        let candidate = Credentials { config, number, generation: used.generation + 1, since: Instant::now() };
        let span = tracing::info_span!("pool.rotate", generation = candidate.generation);
        match self.dial(&candidate).instrument(span).await {
            Ok(link) => {
                *turning = Turning { stamp, not_before: None, tries: 0 };
                self.unproved(None);
                self.adopt(candidate);
                meter::rotated("proved");
                Some(link)
            }
            Err(error) => {
                tracing::warn!(%error, "new credentials are there and do not work; the pool goes on with those it has");
                meter::rotated("failed");
                turning.not_before = Some(Instant::now() + full_jitter(FIRST_PAUSE, LONGEST_PAUSE, turning.tries));
                turning.tries += 1;
                self.unproved(Some(Instant::now()));
                None
            }
        }
    }

    /// Logs in, once.
    pub(super) async fn dial(&self, credentials: &Credentials) -> Result<Link> {
        let app = self.options.name.as_deref().or(credentials.config.application_name());
        let app = app.unwrap_or(credentials.config.user());
        let config = credentials
            .config
            .clone()
            .with_application_name(session_name(app, credentials.number.as_deref(), credentials.generation))
            .with_connect_timeout(self.options.connect);
        let started = Instant::now();
        let span = tracing::debug_span!("pool.connect", to = %config);
        let session = timeout(self.options.connect + Duration::from_secs(1), config.connect().instrument(span)).await;
        let session = session.unwrap_or_else(|_| {
            Err(Error::timeout(
                "timeout",
                format!("cannot log in to {config}: no answer in {:?}", self.options.connect),
            ))
        });
        meter::connected(started.elapsed(), session.as_ref().err());
        let session = session?;
        Ok(Link {
            canceller: Arc::new(Canceller::new(&session, &config)),
            session,
            calls: Calls::default(),
            statements: StatementCache::default(),
            generation: credentials.generation,
            born: started,
            life: about(self.options.life),
            rested: Instant::now(),
            cleared: self.suspicion(),
            _counted: self.census.count(credentials.generation),
        })
    }
}

/// Whether the credentials in use were just refused.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    Yes,
    No,
}

impl Turning {
    /// Whether what the source shows now has been looked at.
    fn is_idle(&self, stamp: Option<&str>) -> bool {
        // Without a stamp every look is a reading, which is left to the keeper.
        stamp.is_none() || self.stamp.as_deref() == stamp
    }
}
