//! A connection in somebody's hands, and how it comes back.

use std::sync::Arc;
use std::time::Instant;

use deadpool::managed::Object;
use tokio::runtime::Handle;

use super::holders::Label;
use super::link::Link;
use super::manager::Manager;
use super::meter;
use super::shared::Shared;
use super::transaction::Course;

/// Gives the connection back when it is dropped: at once when it is as it was, else after it was made so beside the
/// program's own work. Until then nobody else gets it.
pub(super) struct Held {
    /// `None` only while it is being given back.
    object: Option<Object<Manager>>,
    pub(super) shared: Arc<Shared>,
    pub(super) label: Label,
    /// The transaction that all of its statements belong to.
    pub(super) course: Option<Course>,
    slot: usize,
    since: Instant,
}

impl Held {
    pub(super) fn new(object: Object<Manager>, shared: Arc<Shared>, label: Label) -> Self {
        let since = Instant::now();
        let slot = shared.holders.enter(label, since, Arc::clone(&object.canceller));
        Self { object: Some(object), shared, label, course: None, slot, since }
    }

    #[allow(clippy::expect_used, reason = "it is taken in drop only")]
    pub(super) fn link(&self) -> &Link {
        self.object.as_ref().expect("it is there until it is dropped")
    }

    #[allow(clippy::expect_used, reason = "it is taken in drop only")]
    pub(super) fn link_mut(&mut self) -> &mut Link {
        self.object.as_mut().expect("it is there until it is dropped")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(object) = self.object.take() else { return };
        meter::held(self.since.elapsed());
        if self.course.as_ref().is_some_and(|course| !course.is_over()) {
            object.calls.leave_traces();
        }
        let back = Back { object: Some(object), shared: Arc::clone(&self.shared), slot: self.slot };
        if back.link().is_none_or(|link| !link.is_usable() || link.is_clean()) {
            return;
        }
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(back.washed())),
            // Without a runtime nobody can talk to the server.
            Err(_) => back.give_up(),
        }
    }
}

/// A connection on its way back. However that ends, also with the end of the runtime, its place becomes free.
struct Back {
    object: Option<Object<Manager>>,
    shared: Arc<Shared>,
    slot: usize,
}

impl Back {
    fn link(&self) -> Option<&Link> {
        self.object.as_deref()
    }

    async fn washed(self) {
        let washed = match self.link() {
            Some(link) => link.wash(&self.shared.options).await,
            None => false,
        };
        if !washed {
            self.give_up();
        }
    }

    fn give_up(self) {
        if let Some(link) = self.link() {
            link.calls.breaks();
        }
    }
}

impl Drop for Back {
    fn drop(&mut self) {
        if let Some(mut object) = self.object.take() {
            if object.is_usable() && object.is_clean() {
                object.rested = Instant::now();
            } else {
                meter::evicted("broken");
                drop(Object::take(object));
            }
        }
        self.shared.holders.leave(self.slot);
    }
}
