//! The record of an app, which the server itself keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::adoption::Adopted;
use crate::app::Slot;
use crate::error::{Error, Result};
use crate::names::{
    AppName, DatabaseName, EnvironmentName, ExtensionName, LoginName, RoleName, SchemaName, SettingName,
};

const PREFIX: &str = "shareddb:";
/// A mark is a JSON object; other comments may begin with our name.
const OPENING: char = '{';
/// The form that is written and read.
pub(crate) const VERSION: u16 = 1;
/// The form of an app that was adopted: who does not know it would take the app's own ways for drift.
pub(crate) const ADOPTED_VERSION: u16 = 2;

/// The record of an app, kept as the comment of its owner role and of its database. There is no other state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Mark {
    /// Version of this form.
    pub version: u16,
    /// The app.
    pub app: AppName,
    /// The environment it was made in.
    #[serde(rename = "env")]
    pub environment: EnvironmentName,
    /// Its database.
    pub database: DatabaseName,
    /// Its owner role, where that does not have the database's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<RoleName>,
    /// Its first login.
    pub user: LoginName,
    /// Sessions per login.
    pub connections: u16,
    /// Schemas searched.
    pub search_path: Vec<SchemaName>,
    /// Extensions an admin made.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub extensions: BTreeSet<ExtensionName>,
    /// Settings of its sessions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<SettingName, String>,
    /// The number of the newest password that was made for the app; on the owner role only.
    #[serde(default = "first", skip_serializing_if = "is_first")]
    pub generation: u32,
    /// The login that a rotation has closed, since its password had got into wrong hands or was nobody's; on the owner role only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<Slot>,
    /// A rotation that has not come to its end; on the owner role only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationRecord>,
    /// What has begun and has not come to its end; on the owner role only, but for a drop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// That it was made by hand and taken over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted: Option<Adopted>,
}

/// What is being done to an app, or was when it was cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Progress {
    /// It is being made, and has never been whole.
    Creating,
    /// It was whole and is being changed; that it works and is isolated has not been proven since.
    Changing,
    /// It is being dropped.
    Dropping,
    /// It was made by hand and is being taken over; it works, and not everything is its own yet.
    Adopting,
    /// It was taken over and proven, and some of its objects are still a superuser's, who has to hand them over.
    Waiting,
}

impl Progress {
    /// How a sentence says it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "being made",
            Self::Changing => "being changed",
            Self::Dropping => "being dropped",
            Self::Adopting => "being adopted",
            Self::Waiting => "waiting for what only a superuser hands over",
        }
    }
}

/// The number of an app's first password.
pub(crate) const FIRST_GENERATION: u32 = 1;

fn first() -> u32 {
    FIRST_GENERATION
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_first(generation: &u32) -> bool {
    *generation == FIRST_GENERATION
}

/// A change of password that has begun: where the Secret goes, and what becomes of the login that it named before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RotationRecord {
    /// The login that gets the new password. The Secret names it as soon as that works.
    pub to: Slot,
    /// Seconds for which the password of the other one goes on working.
    pub grace: u64,
    /// The other login is closed and its sessions are ended, since its password has got into wrong hands.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub now: bool,
}

#[derive(Deserialize)]
struct Form {
    version: u16,
}

impl Mark {
    /// Reads a comment. `None`: it is not a mark at all.
    ///
    /// # Errors
    /// `Conflict` when it claims to be a mark and cannot be read, for one because a newer version wrote it.
    pub fn parse(comment: &str) -> Option<Result<Self>> {
        let json = comment.strip_prefix(PREFIX).filter(|json| json.starts_with(OPENING))?;
        // A newer form may lack what this one has.
        if let Ok(Form { version }) = serde_json::from_str(json)
            && ![VERSION, ADOPTED_VERSION].contains(&version)
        {
            let message =
                format!("another shareddb made this record (form {version}, and this one knows {ADOPTED_VERSION})");
            return Some(Err(Error::conflict("mark_unreadable", message).with_hint("use a newer shareddb")));
        }
        Some(serde_json::from_str(json).map_err(|source| {
            Error::conflict("mark_unreadable", "a record of shareddb is damaged")
                .with_hint("put back what it was; the owner role and the database of an app bear the same one")
                .with_source(source)
        }))
    }

    /// The name of the owner role.
    pub fn owner(&self) -> &str {
        self.owner.as_ref().map_or(self.database.as_str(), RoleName::as_str)
    }

    /// Whether a drop has begun.
    pub fn is_dropping(&self) -> bool {
        self.progress == Some(Progress::Dropping)
    }

    /// Whether an adoption has not ended: not everything is the app's own yet.
    pub(crate) fn is_adopting(&self) -> bool {
        matches!(self.progress, Some(Progress::Adopting | Progress::Waiting))
    }

    /// The same, as it stands on the database: without what changes with each password.
    pub(crate) fn of_database(self) -> Self {
        Self { generation: FIRST_GENERATION, closed: None, rotation: None, ..self }
    }

    /// The same, with a rotation that has begun, or without.
    pub(crate) fn rotating(self, rotation: Option<RotationRecord>) -> Self {
        Self { rotation, ..self }
    }

    /// The same, with something begun.
    pub(crate) fn while_in(self, progress: Progress) -> Self {
        Self { progress: Some(progress), ..self }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_string(self).map_err(|_| fmt::Error)?;
        write!(f, "{PREFIX}{json}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{App, AppSpec};

    #[test]
    fn a_mark_survives_its_comment() {
        let mut spec = AppSpec::new("my-app".parse().unwrap());
        spec.database = Some("prod_db".parse().unwrap());
        spec.settings = Some([("work_mem".parse().unwrap(), "8MB".to_owned())].into());
        let mark = App::derive(&spec, &"stage".parse().unwrap(), None).unwrap().mark();
        let comment = mark.to_string();
        assert!(comment.starts_with("shareddb:{\"version\":1,"));
        assert_eq!(Mark::parse(&comment).unwrap().unwrap(), mark);
    }

    #[test]
    fn comments_that_are_no_marks() {
        assert!(Mark::parse("my own words").is_none());
        assert!(Mark::parse("shareddb: the login of good").is_none());
        assert_eq!(Mark::parse("shareddb:{").unwrap().unwrap_err().code(), "mark_unreadable");
        let newer = App::derive(&AppSpec::new("a".parse().unwrap()), &"stage".parse().unwrap(), None)
            .unwrap()
            .mark()
            .to_string()
            .replace("\"version\":1", "\"version\":9");
        assert_eq!(Mark::parse(&newer).unwrap().unwrap_err().code(), "mark_unreadable");
    }
}
