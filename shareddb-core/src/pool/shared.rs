//! What all parts of one pool know.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::arrivals::Arrivals;
use super::budget::Budget;
use super::census::Census;
use super::health::Health;
use super::holders::Holders;
use super::link::Link;
use super::meter;
use super::options::PoolOptions;
use super::source::{CredentialSource, Credentials, Reading};
use super::waiters::Waiters;
use crate::connection::ConnectionConfig;

/// The state of one pool.
pub(super) struct Shared {
    pub(super) options: PoolOptions,
    pub(super) source: CredentialSource,
    pub(super) health: Health,
    pub(super) holders: Holders,
    pub(super) waiters: Waiters,
    pub(super) census: Census,
    pub(super) arrivals: Arrivals<Box<Link>>,
    pub(super) budget: OnceLock<Budget>,
    /// Held by whoever tries other credentials.
    pub(super) turning: tokio::sync::Mutex<Turning>,
    /// Told when a connection of older credentials was asked for and there was no new one yet.
    pub(super) moved: Arc<Notify>,
    current: RwLock<Arc<Credentials>>,
    /// Theirs, for those who want nothing else of them; a moment later than they are.
    generation: AtomicU64,
    suspicion: AtomicU64,
    /// Whether the newest session takes writes.
    writes: AtomicBool,
    /// Over for what is done beside the callers: the pool is closed, or gone.
    pub(super) closing: CancellationToken,
    /// Over for those, too, who still have a connection.
    ended: AtomicBool,
    /// Since when there are credentials that do not work.
    unproved: Mutex<Option<Instant>>,
    /// When the server last gave no answer over a connection that seemed to be open.
    silence: Mutex<Option<Instant>>,
}

/// Where looking for other credentials stands.
pub(super) struct Turning {
    /// The stamp of what was read last and is used, or is the same as what is used.
    pub(super) stamp: Option<String>,
    /// Those that were rejected last.
    pub(super) rejected: Option<ConnectionConfig>,
    /// Not before this moment are they tried again.
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
            waiters: Waiters::default(),
            census: Census::default(),
            arrivals: Arrivals::default(),
            budget: OnceLock::new(),
            turning: tokio::sync::Mutex::new(Turning::settled(stamp)),
            moved: Arc::default(),
            generation: AtomicU64::new(first.generation),
            current: RwLock::new(Arc::new(first)),
            suspicion: AtomicU64::new(0),
            writes: AtomicBool::new(true),
            closing: CancellationToken::new(),
            ended: AtomicBool::new(false),
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
        let generation = credentials.generation;
        meter::generation(generation);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(credentials);
        self.generation.store(generation, Ordering::Release);
    }

    /// Of the credentials that are those of new connections.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// What each connection has to be cleared of before it is given out.
    pub(super) fn suspicion(&self) -> u64 {
        self.suspicion.load(Ordering::Acquire)
    }

    /// Something has happened to one connection that may have happened to all.
    pub(super) fn suspect(&self) {
        self.suspicion.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether the newest session takes writes. Then those that do not are of no more use; otherwise they are what there
    /// is to be had.
    pub(super) fn writes(&self) -> bool {
        self.writes.load(Ordering::Acquire)
    }

    /// Notes whether a new session takes writes.
    pub(super) fn found_writes(&self, writes: bool) {
        if !self.writes.swap(writes, Ordering::AcqRel) && writes {
            self.suspect();
        }
    }

    /// Nothing is opened any more, and what was to be opened is given up. What was in reserve.
    pub(super) fn close(&self) -> impl Iterator<Item = Box<Link>> + use<> {
        self.closing.cancel();
        self.arrivals.close().into_iter()
    }

    /// Those who still have a connection do nothing more with it.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Why a connection is not to be given out, as far as that can be told without asking the server.
    pub(super) fn unfit(&self, link: &Link) -> Option<&'static str> {
        if !link.is_usable() {
            Some("closed")
        } else if self.is_silent(link) {
            Some("silent")
        } else if link.is_old() && !self.keeps_the_old() {
            Some("life")
        } else {
            None
        }
    }

    pub(super) fn is_fit_spare(&self, link: &Link) -> bool {
        link.generation == self.generation() && self.unfit(link).is_none()
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

    fn is_silent(&self, link: &Link) -> bool {
        // One that was cleared of what there is to suspect has answered since.
        link.cleared != self.suspicion() && lock(&self.silence).is_some_and(|silence| link.rested < silence)
    }
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
