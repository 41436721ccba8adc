//! A search path for the functions that a load makes.

use crate::connection::Session;
use crate::error::Result;
use crate::postgres::maintenance;

/// Gives it to those that there are, for as long as is loaded: for what is made after them newer servers have no path but that.
pub(super) struct Pins {
    session: Session,
    path: Vec<String>,
    /// Those that have it.
    functions: Vec<String>,
}

impl Pins {
    /// With a session of its own, as the load's may be in a COPY.
    pub(super) fn new(session: Session, path: &[String]) -> Self {
        Self { session, path: path.to_vec(), functions: Vec::new() }
    }

    /// To those that have been made since the last time.
    pub(super) async fn give(&mut self) -> Result<()> {
        self.functions.extend(maintenance::give_search_path(&self.session, &self.path).await?);
        Ok(())
    }

    /// Takes it from them again.
    pub(super) async fn take(self) -> Result<()> {
        maintenance::take_search_path(&self.session, &self.functions).await
    }
}
