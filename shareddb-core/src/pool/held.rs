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
    back: Option<Back>,
    pub(super) label: Label,
    /// The transaction that all of its statements belong to.
    pub(super) course: Option<Course>,
    since: Instant,
}

impl Held {
    pub(super) fn new(object: Object<Manager>, shared: Arc<Shared>, label: Label, since: Instant) -> Self {
        let slot = shared.holders.enter(label, since, Arc::clone(&object.canceller));
        Self { back: Some(Back { object: Some(object), shared, slot }), label, course: None, since }
    }

    #[allow(clippy::expect_used, reason = "it is taken in drop only")]
    fn back(&self) -> &Back {
        self.back.as_ref().expect("it is there until it is dropped")
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.back().shared
    }

    #[allow(clippy::expect_used, reason = "it is taken in drop only")]
    pub(super) fn link(&self) -> &Link {
        self.back().link().expect("it is there until it is dropped")
    }

    #[allow(clippy::expect_used, reason = "it is taken in drop only")]
    pub(super) fn link_mut(&mut self) -> &mut Link {
        self.back.as_mut().and_then(|back| back.object.as_mut()).expect("it is there until it is dropped")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let now = Instant::now();
        meter::held(now.saturating_duration_since(self.since));
        if self.course.as_ref().is_some_and(|course| !course.is_over()) {
            self.link().calls.leave_traces();
        }
        let Some(mut back) = self.back.take() else { return };
        let Some(link) = back.object.as_mut() else { return };
        link.rested = now;
        if !link.is_usable() || link.is_clean() {
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
        self.object.as_deref().map(Box::as_ref)
    }

    async fn washed(mut self) {
        let Some(link) = self.object.as_mut() else { return };
        if link.wash(&self.shared.options).await {
            link.rested = Instant::now();
        } else {
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
        if let Some(object) = self.object.take()
            && !(object.is_usable() && object.is_clean())
        {
            meter::evicted("broken");
            drop(Object::take(object));
        }
        self.shared.holders.leave(self.slot);
    }
}
