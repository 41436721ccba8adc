//! How many sessions a server has promised to its apps, against what it can hold.

use std::borrow::Borrow;

use serde::Serialize;

use crate::app::App;
use crate::error::{Error, Result};

/// Sessions kept for admins and monitors: the server's own reserve of three, and five.
const RESERVED_CONNECTIONS: u32 = 8;
/// Small apps are idle most of the time, so more sessions may be promised than there are.
const OVERCOMMIT: u32 = 4;

/// How many sessions are promised to apps, and how many may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Budget {
    /// Sessions promised: the sum of the limits of the apps' databases.
    pub promised: u32,
    /// Sessions that may be promised.
    pub capacity: u32,
    #[serde(skip)]
    max_connections: u32,
}

impl Budget {
    /// The budget as these apps use it up.
    pub(crate) fn of(apps: impl IntoIterator<Item = impl Borrow<App>>, max_connections: u32) -> Self {
        let promised = apps.into_iter().map(|app| u32::from(app.borrow().database_connections())).sum();
        let capacity = OVERCOMMIT * max_connections.saturating_sub(RESERVED_CONNECTIONS);
        Self { promised, capacity, max_connections }
    }

    /// Whether one more app fits in.
    pub(crate) fn check(self, app: &App) -> Result<()> {
        let wanted = u32::from(app.database_connections());
        let (message, hint) = if wanted > self.max_connections / 2 {
            let max = self.max_connections;
            let message = format!("{wanted} connections are more than half of the server's {max}");
            (message, "ask for fewer with --connections")
        } else if self.promised + wanted > self.capacity {
            let (left, capacity) = (self.capacity.saturating_sub(self.promised), self.capacity);
            let message =
                format!("the server's budget has {left} of {capacity} connections left, and the app needs {wanted}");
            (message, "drop an app, ask for fewer with --connections, raise max_connections")
        } else {
            return Ok(());
        };
        Err(Error::refused("budget_exceeded", message)
            .with_hint(format!("{hint}, or allow it with --allow-overcommit")))
    }
}
