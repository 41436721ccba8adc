//! What the objects of an app's backups are called. What a listing has to say stands in the names, so that it needs no
//! reading.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;

use super::id::{BackupId, stamp, stamped};
use super::verification::Verdict;

/// How long the part of a name is that chance has chosen.
const TOKEN_LENGTH: usize = 6;
const TOKEN_LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
const SEALED: &str = "dump.zst.age";
const PLAIN: &str = "dump.zst";
const PIN: &str = "pin";

/// A few characters chosen by chance: two that do the same at the same time do not write one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Token([u8; TOKEN_LENGTH]);

impl Token {
    pub(crate) fn random() -> Self {
        let mut bytes = [0_u8; TOKEN_LENGTH];
        rand::fill(&mut bytes);
        // 256 is no multiple of 36: a few letters come a little more often, which harms nobody here.
        Self(bytes.map(|byte| TOKEN_LETTERS[usize::from(byte) % TOKEN_LETTERS.len()]))
    }

    fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; TOKEN_LENGTH] = text.as_bytes().try_into().ok()?;
        bytes.iter().all(|byte| TOKEN_LETTERS.contains(byte)).then_some(Self(bytes))
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

/// The name of one object, inside the folder of its app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ObjectName {
    pub(crate) id: BackupId,
    pub(crate) part: Part,
}

/// Which object of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The dump; `sealed` with a key or not.
    Data { token: Token, sealed: bool },
    /// What makes a backup of it.
    Manifest,
    /// What a check has found.
    Verification { at: Timestamp, verdict: Verdict },
    /// Somebody works with it until then, or wants it kept without end.
    Hold { until: Option<Timestamp>, token: Token },
}

impl ObjectName {
    pub(crate) fn manifest(id: &BackupId) -> Self {
        Self { id: id.clone(), part: Part::Manifest }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.", self.id)?;
        match &self.part {
            Part::Data { token, sealed } => write!(f, "{token}.{}", if *sealed { SEALED } else { PLAIN }),
            Part::Manifest => f.write_str("manifest.json"),
            Part::Verification { at, verdict } => write!(f, "verify.{}.{verdict}.json", stamp(*at)),
            Part::Hold { until: Some(until), token } => write!(f, "hold.{}.{token}.json", stamp(*until)),
            Part::Hold { until: None, token } => write!(f, "hold.{PIN}.{token}.json"),
        }
    }
}

/// It is no name of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Strange;

impl FromStr for ObjectName {
    type Err = Strange;
    fn from_str(text: &str) -> Result<Self, Strange> {
        let (id, rest) = text.split_once('.').ok_or(Strange)?;
        let id = id.parse().map_err(|_| Strange)?;
        Ok(Self { id, part: part(rest).ok_or(Strange)? })
    }
}

fn part(text: &str) -> Option<Part> {
    let words: Vec<&str> = text.split('.').collect();
    Some(match words.as_slice() {
        ["manifest", "json"] => Part::Manifest,
        ["verify", at, verdict, "json"] => Part::Verification { at: stamped(at)?, verdict: Verdict::of_word(verdict)? },
        ["hold", until, token, "json"] => {
            let until = if *until == PIN { None } else { Some(stamped(until)?) };
            Part::Hold { until, token: Token::parse(token)? }
        }
        [token, "dump", "zst"] => Part::Data { token: Token::parse(token)?, sealed: false },
        [token, "dump", "zst", "age"] => Part::Data { token: Token::parse(token)?, sealed: true },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_they_were_written() {
        for part in [
            "k3v9q2.dump.zst",
            "k3v9q2.dump.zst.age",
            "manifest.json",
            "verify.20261123T030000Z.passed.json",
            "verify.20261123T030000Z.read.json",
            "verify.20261123T030000Z.failed.json",
            "hold.20261123T030000Z.abc123.json",
            "hold.pin.abc123.json",
        ] {
            let text = format!("my-app-20261122T020056Z.{part}");
            assert_eq!(text.parse::<ObjectName>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_others_have_put_there_is_strange() {
        for text in [
            "",
            "README.md",
            "my-app-20261122T020056Z",
            "my-app-20261122T020056Z.",
            "my-app-20261122T020056Z.json",
            "my-app-20261122T020056Z.K3V9Q2.dump.zst",
            "my-app-20261122T020056Z.k3v9q.dump.zst",
            "my-app-20261122T020056Z.k3v9q2.dump.gz",
            "my-app-20261122T020056Z.manifest.json.bak",
            "my-app-20261122T020056Z.verify.20261123T030000Z.json",
            "my-app-20261122T020056Z.verify.20261123T030000Z.maybe.json",
            "my-app-20261122T020056Z.hold.never.abc123.json",
            "my-app-20261122T020056Z.k3v9q2.dump.zst#1",
        ] {
            assert_eq!(text.parse::<ObjectName>(), Err(Strange), "{text}");
        }
    }

    #[test]
    fn chance_chooses_from_the_letters_of_its_own_grammar() {
        for _ in 0..1000 {
            let token = Token::random();
            assert_eq!(Token::parse(&token.to_string()), Some(token));
        }
        assert_ne!(Token::random(), Token::random());
    }
}
