//! What a backup is called.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::names::AppName;

/// A backup's name: the app's, and the second it was taken at by the server's clock, as `my-app-20261122T020056Z`.
///
/// Names of one app sort by time.
///
/// ```
/// use shareddb_core::BackupId;
/// let id: BackupId = "my-app-20261122T020056Z".parse()?;
/// assert_eq!(id.app().as_str(), "my-app");
/// assert_eq!(id.taken_at().to_string(), "2026-11-22T02:00:56Z");
/// # Ok::<(), shareddb_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupId {
    app: AppName,
    taken_at: Timestamp,
}

impl BackupId {
    /// The name of a backup of `app` taken at this time; what is finer than a second is cut off.
    ///
    /// # Errors
    /// `InvalidInput` for a time outside the years 1970 to 9998.
    pub fn new(app: AppName, taken_at: Timestamp) -> Result<Self> {
        let second = Timestamp::from_second(taken_at.as_second()).ok();
        match second.filter(|_| is_in_range(taken_at)) {
            Some(taken_at) => Ok(Self { app, taken_at }),
            None => Err(Error::invalid_input("backup_time_invalid", format!("no backup is taken at {taken_at}"))
                .with_hint("what time is it by the server's clock?")),
        }
    }

    /// Whose backup it is.
    pub fn app(&self) -> &AppName {
        &self.app
    }

    /// When it was taken, by the server's clock, to the second.
    pub fn taken_at(&self) -> Timestamp {
        self.taken_at
    }
}

fn is_in_range(time: Timestamp) -> bool {
    (1970..=9998).contains(&TimeZone::UTC.to_datetime(time).year())
}

/// A time as it stands in the names of objects.
pub(crate) fn stamp(time: Timestamp) -> String {
    time.strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// The time that a stamp means. What is not written exactly as [`stamp`] does is none.
pub(crate) fn stamped(text: &str) -> Option<Timestamp> {
    let time = DateTime::strptime("%Y%m%dT%H%M%SZ", text).ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp();
    (is_in_range(time) && stamp(time) == text).then_some(time)
}

impl FromStr for BackupId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let parsed = text
            .rsplit_once('-')
            .and_then(|(app, time)| Some(Self { app: app.parse().ok()?, taken_at: stamped(time)? }));
        parsed.ok_or_else(|| {
            Error::invalid_input("backup_id_invalid", format!("{text:?} is no backup's name"))
                .with_hint("one looks like my-app-20261122T020056Z; `shareddb backups` lists them")
        })
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.app, stamp(self.taken_at))
    }
}

impl fmt::Debug for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl TryFrom<String> for BackupId {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<BackupId> for String {
    fn from(id: BackupId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> BackupId {
        text.parse().unwrap()
    }

    #[test]
    fn names_come_back_as_they_were_written() {
        for text in ["my-app-20261122T020056Z", "a-19700101T000000Z", "a-20240229T235959Z", "a-b-99981231T235959Z"] {
            assert_eq!(id(text).to_string(), text);
            assert_eq!(serde_json::to_string(&id(text)).unwrap(), format!("{text:?}"));
        }
        assert_eq!(id("my-app-20261122T020056Z").app().as_str(), "my-app");
    }

    #[test]
    fn what_is_not_exactly_a_name_is_none() {
        for text in [
            "",
            "my-app",
            "my-app-",
            "-20261122T020056Z",
            "My-App-20261122T020056Z",
            "../a-20261122T020056Z",
            "a/b-20261122T020056Z",
            "a-20261122T020056",
            "a-2026112T020056Z",
            "a-20260230T020056Z",
            "a-20261122T240056Z",
            "a-20261122T020060Z",
            "a-20261122t020056z",
            "a-20261122T020056Z ",
            "a-+2026122T020056Z",
            "a-19691231T235959Z",
            "a-99990101T000000Z",
            "shareddb-20261122T020056Z",
        ] {
            assert_eq!(text.parse::<BackupId>().unwrap_err().code(), "backup_id_invalid", "{text}");
        }
    }

    #[test]
    fn fractions_are_cut_and_names_sort_by_time() {
        let app: AppName = "a".parse().unwrap();
        let time: Timestamp = "2026-11-22T02:00:56.987654321Z".parse().unwrap();
        let made = BackupId::new(app.clone(), time).unwrap();
        assert_eq!(made, id("a-20261122T020056Z"));
        let later = BackupId::new(app.clone(), "2027-01-01T00:00:00Z".parse().unwrap()).unwrap();
        assert!(made < later && made.to_string() < later.to_string());
        let before: Timestamp = "1969-12-31T23:59:59.5Z".parse().unwrap();
        assert_eq!(BackupId::new(app, before).unwrap_err().code(), "backup_time_invalid");
    }
}
