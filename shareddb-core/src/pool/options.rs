//! How a pool behaves: sizes and limits, none of which can be left out.

use std::time::Duration;

use crate::error::{Error, Result};

/// No session is worth keeping longer, and nobody waits longer.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// More is a mistake of units: a shared server has a hundred slots or so.
const SIZE_MAX: usize = 1000;

/// What a pool does unless told otherwise: safe on a server that is shared.
///
/// ```
/// use std::time::Duration;
/// use shareddb_core::PoolOptions;
///
/// let options = PoolOptions { size: 8, wait: Duration::from_secs(2), ..PoolOptions::default() };
/// assert_eq!(options.idle, Duration::from_secs(60));
/// ```
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// The most connections at a time: 4. At sixteen callers that has four fifths of the throughput of eight.
    /// One more is open for a moment while credentials are replaced.
    pub size: usize,
    /// How long a connection stays open that nobody uses: 60 s.
    pub idle: Duration,
    /// How long a connection lives, more or less by a fifth so that not all end at once: 30 min.
    pub life: Duration,
    /// How long a caller waits for a connection while all are in use, or while the server is full: 5 s.
    pub wait: Duration,
    /// How long a login may take: 5 s, or what the config says if that is less.
    pub connect: Duration,
    /// How long looking at a connection or cleaning it may take before another one is used instead: 1 s.
    pub recycle: Duration,
    /// How many pools like this one there are, one for each replica and one more while a new version rolls out: 2.
    /// It is only used to warn when all of them together are more than the server admits.
    pub replicas: usize,
    /// How statements are sent: [`Statements::Cached`].
    pub statements: Statements,
    /// The app's name in the server's activity view, beside the generation of the credentials; without it the
    /// config's application name, else the user's name.
    pub name: Option<String>,
}

/// How statements are sent to the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Statements {
    /// Prepared once for each connection, which is the quickest.
    #[default]
    Cached,
    /// Without names, in one round trip, for PgBouncer and the like in transaction mode: consecutive statements meet
    /// different sessions there, so nothing that belongs to a session is used. A parameter's type is told from its
    /// Rust type (`i32` is `int4`, `&str` is `text`), so that some statements need a cast: `$1::text::my_enum`. So do columns of the database's own types, an enum's
    /// say: the driver asks what they are by statements with names.
    Unnamed,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            size: 4,
            idle: Duration::from_secs(60),
            life: Duration::from_secs(30 * 60),
            wait: Duration::from_secs(5),
            connect: Duration::from_secs(5),
            recycle: Duration::from_secs(1),
            replicas: 2,
            statements: Statements::Cached,
            name: None,
        }
    }
}

impl PoolOptions {
    /// # Errors
    ///
    /// [`Error::InvalidInput`] with everything that is out of range.
    pub(super) fn check(&self) -> Result<()> {
        let mut faults = Vec::new();
        if !(1..=SIZE_MAX).contains(&self.size) {
            faults.push(format!("size is not between 1 and {SIZE_MAX}"));
        }
        if self.replicas == 0 {
            faults.push("replicas is 0".to_owned());
        }
        let durations = [
            ("idle", self.idle),
            ("life", self.life),
            ("wait", self.wait),
            ("connect", self.connect),
            ("recycle", self.recycle),
        ];
        for (name, duration) in durations {
            if duration.is_zero() || duration > LONGEST {
                faults.push(format!("{name} is not between a moment and a day"));
            }
        }
        if self.name.as_ref().is_some_and(|name| name.chars().any(char::is_control)) {
            faults.push("name contains a control character".to_owned());
        }
        if faults.is_empty() {
            return Ok(());
        }
        Err(Error::invalid_input("pool_options_invalid", format!("the options of the pool: {}", faults.join("; "))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_without_end() {
        assert!(PoolOptions::default().check().is_ok());
        let bad = PoolOptions {
            size: 0,
            replicas: 0,
            wait: Duration::ZERO,
            life: Duration::MAX,
            name: Some("a\0".to_owned()),
            ..PoolOptions::default()
        };
        let error = bad.check().unwrap_err().to_string();
        assert_eq!(error.matches(';').count(), 4, "{error}");
    }
}
