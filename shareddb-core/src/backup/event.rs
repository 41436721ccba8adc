//! What a caller can follow while a backup is taken, checked or restored.

use std::fmt;
use std::sync::Arc;

use crate::names::AppName;

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// Waiting for the app's lock, and for tables that somebody has locked.
    Waiting,
    /// Reading what the database holds.
    Counting,
    /// Dumping it into the store.
    Dumping,
    /// Looking whether a restore can succeed, before anything is made.
    Checking,
    /// Reading a backup to its end.
    Reading,
    /// Loading it into a database of its own.
    Loading,
    /// Handing it to the owner, and having the server look at it for its planner.
    Analyzing,
    /// Comparing what was loaded with what was dumped.
    Comparing,
    /// Putting the loaded database in the place of the app's.
    Swapping,
    /// Logging in as the app.
    Proving,
}

impl Stage {
    /// How a line of progress says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Counting => "counting",
            Self::Dumping => "dumping",
            Self::Checking => "checking",
            Self::Reading => "reading",
            Self::Loading => "loading",
            Self::Analyzing => "analyzing",
            Self::Comparing => "comparing",
            Self::Swapping => "swapping",
            Self::Proving => "proving",
        }
    }
}

/// Something that happened.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum BackupEvent<'a> {
    /// A stage began.
    Began(Stage),
    /// So much of a stage is done; told often.
    Moved {
        /// The stage.
        stage: Stage,
        /// Bytes of rows so far.
        bytes: u64,
        /// Bytes in all, where they can be guessed: a table's size on disk is not that of its rows.
        total: Option<u64>,
        /// The table that is on its way.
        table: Option<&'a str>,
    },
    /// Something to know that is no failure, such as an attempt that gave way to somebody.
    Noticed(&'a str),
}

type Callback = dyn Fn(&AppName, BackupEvent<'_>) + Send + Sync;

/// Who is told. It is called often and ought to be quick.
#[derive(Clone, Default)]
pub(crate) struct Listener(Option<Arc<Callback>>);

impl Listener {
    pub(crate) fn new(listener: impl Fn(&AppName, BackupEvent<'_>) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(listener)))
    }

    pub(crate) fn tell(&self, app: &AppName, event: BackupEvent<'_>) {
        if let Some(listener) = &self.0 {
            listener(app, event);
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listener({})", if self.0.is_some() { "set" } else { "none" })
    }
}
