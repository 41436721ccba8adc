//! The image of the server: which major of PostgreSQL it has, and what follows from that.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::deploy::reference::{Reference, Telling};
use crate::error::{Error, Result};

/// Majors whose image keeps its data as described here.
pub(crate) const MAJORS: std::ops::RangeInclusive<u32> = 14..=18;

/// A container image that keeps the contract of the official `postgres`: its tag begins with the major of PostgreSQL, or has it
/// after `pg`, and says whether it stands on Alpine (`15-alpine`, `pg15-alpine`) or on Debian (`15`, `15.4-bookworm`,
/// `pg15-bookworm`). A digest may follow.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Image {
    reference: String,
    major: u32,
    flavour: Flavour,
}

/// What an image stands on. One does not read the indexes of the other: their C libraries sort text differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    Alpine,
    Debian,
}

impl Image {
    /// The major version of PostgreSQL.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// The reference, as a container runtime takes it.
    pub fn as_str(&self) -> &str {
        &self.reference
    }

    pub(crate) fn flavour(&self) -> Flavour {
        self.flavour
    }

    /// The user and group `postgres` of the image (read in both Dockerfiles of the official image).
    pub(crate) fn user(&self) -> i64 {
        match self.flavour {
            Flavour::Alpine => 70,
            Flavour::Debian => 999,
        }
    }

    /// Where the volume is mounted. It has to be what the image declares as its volume: else the runtime would lay an
    /// empty one of its own over it or beside it.
    pub(crate) fn mount(&self) -> &'static str {
        if self.major < 18 { "/var/lib/postgresql/data" } else { "/var/lib/postgresql" }
    }

    /// Where in it the data are. Below 18 it is a folder in the mount, since the root of a volume may hold `lost+found`, and
    /// then initdb refuses it.
    pub(crate) fn data_directory(&self) -> String {
        match self.major {
            ..18 => format!("{}/pgdata", self.mount()),
            major => format!("{}/{major}/docker", self.mount()),
        }
    }
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alpine => "Alpine",
            Self::Debian => "Debian",
        })
    }
}

impl FromStr for Image {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let fault = |message: String| {
            Error::invalid_input("image_invalid", message).with_hint(
                "name one that keeps the contract of the official image, by major: postgres:15-alpine, postgres:17",
            )
        };
        let reference = Reference::parse(text).map_err(|why| fault(format!("{text:?} is no image: {why}")))?;
        if reference.tag.is_none() {
            return Err(fault(format!("image {text:?} has no tag, which would say its version of PostgreSQL")));
        }
        let Telling { major, flavour } = reference.telling();
        let Some(major) = major else {
            return Err(fault(format!("the tag of image {text:?} does not begin with a version of PostgreSQL")));
        };
        if !MAJORS.contains(&major) {
            let (oldest, newest) = (MAJORS.start(), MAJORS.end());
            return Err(fault(format!(
                "image {text:?} is of PostgreSQL {major}; {oldest} to {newest} can be deployed"
            )));
        }
        let Some(flavour) = flavour else {
            return Err(fault(format!("the tag of image {text:?} does not say whether it stands on Alpine or Debian")));
        };
        Ok(Self { reference: text.to_owned(), major, flavour })
    }
}

impl TryFrom<String> for Image {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Image> for String {
    fn from(image: Image) -> Self {
        image.reference
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reference)
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.reference)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_says_the_major_and_the_flavour() {
        let digest = "0123456789abcdef".repeat(4);
        let pinned = format!("mirror.example:5000/postgres:16-alpine@sha256:{digest}");
        for (text, major, user) in [
            ("postgres:15-alpine", 15, 70),
            ("postgres:15.4-alpine3.18", 15, 70),
            ("postgres:17", 17, 999),
            ("docker.io/library/postgres:18.1-trixie", 18, 999),
            ("pgvector/pgvector:0.8.0-pg16-bookworm", 16, 999),
            ("Mirror.example/a__b/c--d:15-alpine", 15, 70),
            (&pinned, 16, 70),
        ] {
            let image: Image = text.parse().unwrap();
            assert_eq!((image.major(), image.user(), image.as_str()), (major, user, text));
        }
    }

    #[test]
    fn an_image_of_no_known_version_is_refused() {
        for text in [
            "",
            "postgres",
            "postgres:",
            "postgres:latest",
            "postgres:alpine",
            "postgres:9.6",
            "postgres:19",
            "postgres:15x",
            ":15",
            "a/:15",
            "postgres:15 x",
            "postgres@sha256:0123",
            "mirror.example:5000/postgres",
            "timescale/timescaledb:2.11.2-pg15",
            "timescale/timescaledb:15.2-pg14",
            // No runtime takes these.
            "Postgres:15",
            "shop/Postgres:15",
            "postgres:15:16",
            "postgres:15@sha256:0123",
            "postgres:15@0123456789abcdef0123456789abcdef",
            "a//postgres:15",
            "-postgres:15",
            "post..gres:15",
            "mirror.example:port/postgres:15",
        ] {
            assert_eq!(text.parse::<Image>().unwrap_err().code(), "image_invalid", "{text}");
        }
    }

    #[test]
    fn data_lie_within_the_mount() {
        for major in MAJORS {
            let image: Image = format!("postgres:{major}-alpine").parse().unwrap();
            let data = image.data_directory();
            assert!(data.starts_with(&format!("{}/", image.mount())), "{data}");
            assert_eq!(data.starts_with("/var/lib/postgresql/data/"), major < 18);
        }
    }
}
