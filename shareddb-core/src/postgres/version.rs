//! Which servers are fit for the role model.

use std::fmt;

use serde::Serialize;

use crate::error::{Error, Result};

/// A server's version, as `server_version_num` has it: `150018` is 15.18.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct ServerVersion(u32);

/// The oldest major that is still maintained.
const OLDEST_MAJOR: u32 = 14;

/// Minors of November 2024 in which a login's default role is not applied (PostgreSQL release notes of the minors that
/// came a week later): an app's objects would belong to its login.
const BROKEN: [ServerVersion; 4] =
    [ServerVersion(140_014), ServerVersion(150_009), ServerVersion(160_005), ServerVersion(170_001)];

/// Oldest minors with the security fixes of 2026 that the isolation of tenants relies on.
const SECURE: [ServerVersion; 5] = [
    ServerVersion(140_024),
    ServerVersion(150_019),
    ServerVersion(160_015),
    ServerVersion(170_011),
    ServerVersion(180_006),
];

impl ServerVersion {
    /// From `server_version_num`.
    pub(crate) fn new(number: u32) -> Self {
        Self(number)
    }

    /// The major version, such as 15.
    pub(crate) fn major(self) -> u32 {
        self.0 / 10_000
    }

    /// Whether a membership is a grant of its own for each role that granted it, with options.
    pub(crate) fn has_grantors(self) -> bool {
        self.major() >= 16
    }

    /// Whether a role can be an admin without being a superuser: before, CREATEROLE gave it every role, and no way to tell.
    pub(crate) fn has_plain_admins(self) -> bool {
        self.major() >= 16
    }

    /// The minor version, such as 18.
    pub(crate) fn minor(self) -> u32 {
        self.0 % 10_000
    }

    /// Whether apps can be kept apart on this server at all.
    ///
    /// # Errors
    /// `Refused` for a server that is too old or is one of the minors with a broken default role. A server that lacks
    /// later security fixes is not an error; [`ServerVersion::notice`] says so.
    pub(crate) fn check(self) -> Result<()> {
        let refused = |reason: String, hint: String| {
            Err(Error::refused("version_unfit", format!("PostgreSQL {self} cannot be used: {reason}")).with_hint(hint))
        };
        if self.major() < OLDEST_MAJOR {
            return refused(
                format!("it is older than {OLDEST_MAJOR}"),
                format!("upgrade the server to a major from {OLDEST_MAJOR} to 18"),
            );
        }
        if BROKEN.contains(&self) {
            return refused(
                "this minor ignores the default role of a login, so that objects get the wrong owner".into(),
                format!("upgrade the server to {}.{} or newer", self.major(), self.minor() + 1),
            );
        }
        Ok(())
    }

    /// What is to be said about an accepted server.
    pub(crate) fn notice(self) -> Option<String> {
        SECURE.iter().find(|secure| secure.major() == self.major() && self < **secure).map(|secure| {
            format!(
                "PostgreSQL {self} lacks security fixes that tenants' isolation relies on: upgrade to {secure} or newer"
            )
        })
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major(), self.minor())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate() {
        for good in [140_000, 140_013, 140_015, 150_008, 150_010, 160_004, 160_006, 170_000, 170_002, 180_000] {
            assert!(ServerVersion::new(good).check().is_ok(), "{good}");
        }
        for bad in [90_624, 120_022, 130_023, 140_014, 150_009, 160_005, 170_001] {
            let error = ServerVersion::new(bad).check().unwrap_err();
            assert_eq!(error.code(), "version_unfit", "{bad}");
            assert!(error.hint().is_some());
        }
        assert!(ServerVersion::new(150_009).check().unwrap_err().hint().unwrap().contains("15.10"));
    }

    #[test]
    fn servers_without_the_latest_fixes_are_named() {
        assert!(ServerVersion::new(150_018).notice().unwrap().contains("15.19"));
        assert_eq!(ServerVersion::new(150_019).notice(), None);
        assert_eq!(ServerVersion::new(190_000).notice(), None);
    }
}
