//! Who has the connections at this moment.

use std::fmt;
use std::panic::Location;
use std::pin::pin;
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
// Apart from what every checkout reads of the rest: every one writes here.
#[repr(align(128))]
pub(super) struct Holders {
    slots: Mutex<Slots>,
    /// The last one has left.
    emptied: Notify,
}

#[derive(Default)]
struct Slots {
    all: Vec<Option<Holder>>,
    taken: usize,
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
        slots.taken += 1;
        if let Some(free) = slots.all.iter().position(Option::is_none) {
            slots.all[free] = holder;
            return free;
        }
        slots.all.push(holder);
        slots.all.len() - 1
    }

    pub(super) fn leave(&self, slot: usize) {
        let mut slots = self.lock();
        slots.all[slot] = None;
        slots.taken -= 1;
        let emptied = slots.taken == 0;
        drop(slots);
        if emptied {
            self.emptied.notify_waiters();
        }
    }

    pub(super) fn count(&self) -> usize {
        self.lock().taken
    }

    /// Who has had one for longest, and for how long.
    pub(super) fn longest(&self) -> Option<(Label, Duration)> {
        let slots = self.lock();
        let holder = slots.all.iter().flatten().min_by_key(|holder| holder.since)?;
        Some((holder.label, holder.since.elapsed()))
    }

    pub(super) fn cancellers(&self) -> Vec<Arc<Canceller>> {
        self.lock().all.iter().flatten().map(|holder| Arc::clone(&holder.canceller)).collect()
    }

    /// Returns when nobody has one.
    pub(super) async fn empty(&self) {
        loop {
            let mut emptied = pin!(self.emptied.notified());
            emptied.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            emptied.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
