//! Who has the connections at this moment.

use std::fmt;
use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::canceller::Canceller;

/// What a caller is called in errors: its own word, or its place in the source.
#[derive(Clone, Copy, Debug)]
pub(super) enum Label {
    Word(&'static str),
    Place(&'static Location<'static>),
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => write!(f, "`{word}`"),
            Self::Place(place) => write!(f, "{}:{}", place.file(), place.line()),
        }
    }
}

/// All of them.
#[derive(Default)]
pub(super) struct Holders {
    slots: Mutex<Vec<Option<Holder>>>,
    changed: Notify,
}

struct Holder {
    label: Label,
    since: Instant,
    canceller: Arc<Canceller>,
}

impl Holders {
    /// Notes one; the number is for [`Self::leave`].
    pub(super) fn enter(&self, label: Label, since: Instant, canceller: Arc<Canceller>) -> usize {
        let holder = Some(Holder { label, since, canceller });
        let mut slots = self.lock();
        if let Some(free) = slots.iter().position(Option::is_none) {
            slots[free] = holder;
            return free;
        }
        slots.push(holder);
        slots.len() - 1
    }

    pub(super) fn leave(&self, slot: usize) {
        self.lock()[slot] = None;
        self.changed.notify_waiters();
    }

    pub(super) fn count(&self) -> usize {
        self.lock().iter().flatten().count()
    }

    /// Who has had one for longest, and for how long.
    pub(super) fn longest(&self) -> Option<(Label, Duration)> {
        let slots = self.lock();
        let holder = slots.iter().flatten().min_by_key(|holder| holder.since)?;
        Some((holder.label, holder.since.elapsed()))
    }

    pub(super) fn cancellers(&self) -> Vec<Arc<Canceller>> {
        self.lock().iter().flatten().map(|holder| Arc::clone(&holder.canceller)).collect()
    }

    /// Returns when nobody has one.
    pub(super) async fn empty(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<Holder>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
