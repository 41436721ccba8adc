//! How a caller ends a run early.

use std::fmt;

use tokio_util::sync::CancellationToken;

use crate::error::Error;

/// Ends the runs that it was given to, when it is raised. Clones are one and the same.
#[derive(Clone, Default)]
pub struct Interrupt(CancellationToken);

impl Interrupt {
    /// One that nobody has raised.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends them: each cleans up and returns `Failed` with the code `interrupted`.
    pub fn raise(&self) {
        self.0.cancel();
    }

    /// Whether it was raised.
    pub fn is_raised(&self) -> bool {
        self.0.is_cancelled()
    }

    pub(crate) async fn raised(&self) -> Error {
        self.0.cancelled().await;
        Error::failed("interrupted", "interrupted")
            .with_hint("the app's database is as it was, and no backup was made of half a dump")
    }
}

impl fmt::Debug for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Interrupt({})", if self.is_raised() { "raised" } else { "not raised" })
    }
}
