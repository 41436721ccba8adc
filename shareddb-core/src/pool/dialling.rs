//! Opening a connection: which credentials, and what it means when they are refused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::Instrument as _;

use super::backoff::{about, full_jitter};
use super::budget::Budget;
use super::calls::Calls;
use super::canceller::Canceller;
use super::fault;
use super::link::{Link, takes_writes};
use super::meter;
use super::options::Statements;
use super::shared::{Shared, Turning};
use super::source::{Credentials, Reading};
use super::statement_cache::StatementCache;
use crate::connection::{ConnectionConfig, Session};
use crate::error::{Error, Result};
use crate::postgres::session_name::session_name;

/// Between two tries of credentials that were rejected.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long new credentials may take to prove themselves before a caller uses those that have worked until now.
const HEAD_START: Duration = Duration::from_millis(250);

/// A login that somebody waits for. However it ends, he is told.
struct Login {
    shared: Arc<Shared>,
    number: u64,
    outcome: Option<Result<Box<Link>>>,
}

impl Login {
    fn end(mut self, outcome: Result<Box<Link>>) {
        self.outcome.replace(outcome);
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        self.shared.arrivals.ended(self.number, self.outcome.take());
    }
}

impl Shared {
    /// Logs in for somebody who waits, or for whoever waits by then.
    pub(super) fn begin_login(self: &Arc<Self>, number: u64) {
        let login = Login { shared: Arc::clone(self), number, outcome: None };
        self.beside(async move {
            let outcome = login.shared.connect().await;
            login.end(outcome);
        });
    }

    /// Has something done beside the callers, until the pool ends.
    fn beside(&self, work: impl Future<Output = ()> + Send + 'static) {
        let closing = self.closing.clone();
        tokio::spawn(async move { closing.run_until_cancelled_owned(work).await }.in_current_span());
    }

    /// Opens a connection with the newest credentials that work.
    ///
    /// # Errors
    ///
    /// Those of [`crate::ConnectionConfig::connect`]; `credentials_rejected`, `pool_too_large`.
    pub(super) async fn connect(self: &Arc<Self>) -> Result<Box<Link>> {
        if let Some(error) = self.health.pause() {
            return Err(error);
        }
        let link = self.connect_within_budget().await;
        match &link {
            Ok(_) => self.health.succeeded(),
            Err(error) => self.health.failed(error),
        }
        link
    }

    async fn connect_within_budget(self: &Arc<Self>) -> Result<Box<Link>> {
        let link = self.connect_with_newest().await?;
        if self.options.statements == Statements::Cached && self.budget.get().is_none() {
            match Budget::ask(&link.session, &self.options).await {
                Ok(budget) => {
                    // A server that is too small is asked again: it can be made larger.
                    budget.check(&self.options)?;
                    if self.budget.set(budget).is_ok() {
                        budget.warn(&self.options);
                    }
                }
                // It is advice; who gets no answer to it has a working connection all the same.
                Err(error) => tracing::debug!(%error, "the server does not say how much room it has"),
            }
        }
        Ok(link)
    }

    async fn connect_with_newest(self: &Arc<Self>) -> Result<Box<Link>> {
        // Read before dialling, so that nothing that is opened from here on passes for newer than it is.
        let credentials = self.credentials();
        let mut proof = self.begin_proof(&credentials);
        if let Some(proving) = &mut proof {
            match timeout(HEAD_START, proving).await {
                Ok(Ok(link)) => return Ok(link),
                Ok(Err(_)) => proof = None,
                Err(_) => {}
            }
        }
        let error = match self.dial(&credentials).await {
            Ok(link) => return Ok(link),
            Err(error) => error,
        };
        if let Some(proving) = proof
            && let Ok(link) = proving.await
        {
            return Ok(link);
        }
        if !fault::is_rejection(&error) {
            return Err(error);
        }
        if let Some(link) = self.turn(&credentials, Doubt::Yes).await {
            return Ok(link);
        }
        // Somebody else may have been quicker.
        let newest = self.credentials();
        if newest.generation != credentials.generation {
            return self.dial(&newest).await;
        }
        Err(fault::rejected(error, &self.source.to_string(), credentials.since.elapsed()))
    }

    /// Has other credentials proved beside whoever has come upon them. `None`: there are none, or somebody is at it.
    fn begin_proof(self: &Arc<Self>, used: &Arc<Credentials>) -> Option<oneshot::Receiver<Box<Link>>> {
        if !self.source.rotates() || self.turning.try_lock().ok()?.is_idle(self.source.stamp().as_deref()) {
            return None;
        }
        let (proved, proof) = oneshot::channel();
        let (shared, used) = (Arc::clone(self), Arc::clone(used));
        self.beside(async move {
            if let Some(link) = shared.turn(&used, Doubt::No).await
                && let Err(link) = proved.send(link)
            {
                shared.arrivals.land(link);
            }
        });
        Some(proof)
    }

    /// Looks whether there are other credentials, and has them proved: by the connection that is returned. With it they
    /// are the pool's. `None`: there are no others, or they do not work either.
    pub(super) async fn turn(&self, used: &Credentials, doubt: Doubt) -> Option<Box<Link>> {
        let mut turning = match doubt {
            Doubt::Yes => timeout(self.options.connect, self.turning.lock()).await.ok()?,
            Doubt::No => self.turning.try_lock().ok()?,
        };
        if doubt == Doubt::No && turning.is_idle(self.source.stamp().as_deref()) || self.generation() != used.generation
        {
            return None;
        }
        let reading = match self.read().await {
            Ok(reading) => reading,
            Err(error) => {
                tracing::warn!(%error, "the pool's credentials cannot be read again");
                return None;
            }
        };
        if reading.config.is_same_login(&used.config) {
            *turning = Turning::settled(reading.stamp);
            self.unproved(None);
            return None;
        }
        let Reading { config, number, stamp } = reading;
        if turning.holds_back(&config, Instant::now()) {
            return None;
        }
        let candidate = Credentials { config, number, generation: used.generation + 1, since: Instant::now() };
        let span = tracing::info_span!("pool.rotate", generation = candidate.generation);
        match self.dial(&candidate).instrument(span).await {
            Ok(link) => {
                *turning = Turning::settled(stamp);
                self.unproved(None);
                self.adopt(candidate);
                self.health.succeeded();
                meter::rotated("proved");
                Some(link)
            }
            Err(error) => {
                tracing::warn!(%error, "new credentials are there and do not work; the pool goes on with those it has");
                meter::rotated("failed");
                let pause = full_jitter(FIRST_PAUSE, LONGEST_PAUSE, turning.tries);
                turning.rejects(candidate.config, Instant::now() + pause);
                self.unproved(Some(Instant::now()));
                None
            }
        }
    }

    /// The store of the credentials has no more time for an answer than the server has.
    async fn read(&self) -> Result<Reading> {
        let limit = self.options.connect;
        let reading = timeout(limit, self.source.read()).await;
        reading.unwrap_or_else(|_| Err(Error::timeout("timeout", format!("{}: no answer in {limit:?}", self.source))))
    }

    /// Logs in, once.
    pub(super) async fn dial(&self, credentials: &Credentials) -> Result<Box<Link>> {
        let app = self.options.name.as_deref().or(credentials.config.application_name());
        let app = app.unwrap_or(credentials.config.user());
        let limit =
            credentials.config.own_connect_timeout().map_or(self.options.connect, |own| own.min(self.options.connect));
        let config = credentials
            .config
            .clone()
            .with_application_name(session_name(app, credentials.number.as_deref(), credentials.generation))
            .with_connect_timeout(limit);
        let started = Instant::now();
        let span = tracing::debug_span!("pool.connect", to = %config);
        let session = timeout(limit + Duration::from_secs(1), config.connect().instrument(span)).await;
        let session = session.unwrap_or_else(|_| {
            Err(Error::timeout("timeout", format!("cannot log in to {config}: no answer in {limit:?}")))
        });
        meter::connected(started.elapsed(), session.as_ref().err());
        let session = session?;
        self.found_writes(self.ask_for_writes(&session).await?);
        Ok(Box::new(Link {
            canceller: Arc::new(Canceller::new(&session, &config)),
            session,
            calls: Calls::default(),
            statements: StatementCache::default(),
            generation: credentials.generation,
            due: started + about(self.options.life),
            rested: Instant::now(),
            cleared: self.suspicion(),
            _counted: self.census.count(credentials.generation),
        }))
    }

    async fn ask_for_writes(&self, session: &Session) -> Result<bool> {
        const WHAT: &str = "asking whether a new session takes writes";
        let limit = self.options.recycle;
        timeout(limit, takes_writes(session))
            .await
            .map_err(|_| Error::timeout("timeout", format!("{WHAT}: no answer in {limit:?}")))?
            .map_err(|source| Error::from_query(WHAT, source))
    }
}

/// Whether the credentials in use were just refused.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    Yes,
    No,
}

impl Turning {
    /// What bears this stamp is used, or is the same as what is used.
    pub(super) fn settled(stamp: Option<String>) -> Self {
        Self { stamp, rejected: None, not_before: None, tries: 0 }
    }

    /// Whether these were rejected, and are not to be tried again yet. Others begin anew.
    fn holds_back(&mut self, config: &ConnectionConfig, now: Instant) -> bool {
        if !self.rejected.as_ref().is_some_and(|rejected| rejected.is_same_login(config)) {
            (self.not_before, self.tries) = (None, 0);
        }
        self.not_before.is_some_and(|moment| now < moment)
    }

    fn rejects(&mut self, config: ConnectionConfig, not_before: Instant) {
        (self.rejected, self.not_before) = (Some(config), Some(not_before));
        self.tries += 1;
    }

    /// Whether what the source shows now has been looked at.
    fn is_idle(&self, stamp: Option<&str>) -> bool {
        // Without a stamp every look is a reading, which is left to the keeper.
        stamp.is_none() || self.stamp.as_deref() == stamp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_credentials_do_not_wait_for_bad_ones() {
        let config = |password| ConnectionConfig::from_url(&format!("postgresql://u:{password}@h/d")).unwrap();
        let now = Instant::now();
        let mut turning = Turning::settled(None);
        assert!(!turning.holds_back(&config("bad"), now));
        for tries in 1..4 {
            turning.rejects(config("bad"), now + LONGEST_PAUSE);
            assert!(turning.holds_back(&config("bad"), now) && turning.tries == tries);
            assert!(!turning.holds_back(&config("bad"), now + LONGEST_PAUSE), "they may have become good");
        }
        assert!(!turning.holds_back(&config("good"), now) && turning.tries == 0);
    }
}
