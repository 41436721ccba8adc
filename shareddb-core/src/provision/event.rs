//! What a caller can follow while a plan is carried out.

use std::fmt;
use std::sync::Arc;

use crate::provision::step::Step;

/// Something that happened. Steps of one transaction begin together and are done together.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The step begins.
    Begun(&'a Step),
    /// The step is done, and stays so.
    Done(&'a Step),
}

type Callback = dyn Fn(Event<'_>) + Send + Sync;

/// Who is told. It is called between steps and ought to be quick.
#[derive(Clone, Default)]
pub(crate) struct Listener(Option<Arc<Callback>>);

impl Listener {
    pub(crate) fn new(listener: impl Fn(Event<'_>) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(listener)))
    }

    pub(crate) fn tell(&self, event: Event<'_>) {
        if let Some(listener) = &self.0 {
            listener(event);
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listener({})", if self.0.is_some() { "set" } else { "none" })
    }
}
