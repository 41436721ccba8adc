//! What all parts of one pool know.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OnceCell};

use super::budget::Budget;
use super::census::Census;
use super::health::Health;
use super::holders::Holders;
use super::link::Link;
use super::meter;
use super::options::PoolOptions;
use super::source::{CredentialSource, Credentials, Reading};

/// The state of one pool.
pub(super) struct Shared {
    pub(super) options: PoolOptions,
    pub(super) source: CredentialSource,
    pub(super) health: Health,
    pub(super) holders: Holders,
    pub(super) census: Census,
    pub(super) budget: OnceCell<Budget>,
    /// Held by whoever tries other credentials.
    pub(super) turning: tokio::sync::Mutex<Turning>,
    /// Told when a connection was taken over from the spares, or given up.
    pub(super) moved: Notify,
    /// Told when somebody has found the credentials to be wrong.
    pub(super) doubted: Notify,
    current: RwLock<Arc<Credentials>>,
    suspicion: AtomicU64,
    ended: AtomicBool,
    spares: Mutex<Vec<Link>>,
    /// Since when there are credentials that do not work.
    unproved: Mutex<Option<Instant>>,
    /// When the server last gave no answer over a connection that seemed to be open.
    silence: Mutex<Option<Instant>>,
}

/// Where looking for other credentials stands.
pub(super) struct Turning {
    /// The stamp of what was read last and is used, or is the same as what is used.
    pub(super) stamp: Option<String>,
    /// Not before this moment are those tried again that were rejected.
    pub(super) not_before: Option<Instant>,
    pub(super) tries: u32,
}

impl Shared {
    pub(super) fn new(source: CredentialSource, options: PoolOptions) -> Self {
        let Reading { config, number, stamp } = source.first();
        let first = Credentials { config, generation: 0, number, since: Instant::now() };
        Self {
            options,
            source,
            health: Health::default(),
            holders: Holders::default(),
            census: Census::default(),
            budget: OnceCell::new(),
            turning: tokio::sync::Mutex::new(Turning { stamp, not_before: None, tries: 0 }),
            moved: Notify::new(),
            doubted: Notify::new(),
            current: RwLock::new(Arc::new(first)),
            suspicion: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            spares: Mutex::new(Vec::new()),
            unproved: Mutex::new(None),
            silence: Mutex::new(None),
        }
    }

    pub(super) fn credentials(&self) -> Arc<Credentials> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Credentials that have been proved are those of all connections from now on.
    pub(super) fn adopt(&self, credentials: Credentials) {
        tracing::info!(
            generation = credentials.generation,
            user = credentials.config.user(),
            "the pool has new credentials"
        );
        meter::generation(credentials.generation);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(credentials);
    }

    /// What each connection has to be cleared of before it is given out.
    pub(super) fn suspicion(&self) -> u64 {
        self.suspicion.load(Ordering::Acquire)
    }

    /// Something has happened to one connection that may have happened to all.
    pub(super) fn suspect(&self) {
        self.suspicion.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.spares().clear();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Connections of the newest generation that stand ready to take the place of older ones.
    pub(super) fn spares(&self) -> MutexGuard<'_, Vec<Link>> {
        lock(&self.spares)
    }

    pub(super) fn take_spare(&self) -> Option<Link> {
        let generation = self.credentials().generation;
        let mut spares = self.spares();
        spares.retain(|link| link.generation == generation && link.is_usable());
        let spare = spares.pop();
        drop(spares);
        if spare.is_some() {
            self.moved.notify_waiters();
        }
        spare
    }

    /// Whether connections that have lived long enough stay: while nobody gets in, what is open is all there is.
    pub(super) fn keeps_the_old(&self) -> bool {
        self.health.trouble().is_some() || self.unproved_for().is_some()
    }

    /// Notes that new credentials do not work, or that there are none such any more.
    pub(super) fn unproved(&self, since: Option<Instant>) {
        let mut unproved = lock(&self.unproved);
        *unproved = since.map(|since| unproved.unwrap_or(since));
    }

    /// For how long there have been credentials that do not work.
    pub(super) fn unproved_for(&self) -> Option<Duration> {
        lock(&self.unproved).map(|since| since.elapsed())
    }

    /// A connection gave no answer: the others that have lain idle until now are given up unasked, since asking each
    /// would take as long again.
    pub(super) fn fell_silent(&self) {
        self.suspect();
        *lock(&self.silence) = Some(Instant::now());
    }

    pub(super) fn is_silent(&self, link: &Link) -> bool {
        lock(&self.silence).is_some_and(|silence| link.rested < silence)
    }
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
