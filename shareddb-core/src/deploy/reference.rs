//! A reference to a container image: its grammar, and what its tag tells of PostgreSQL, whether that can be deployed or not.
//!
//! The grammar is that of the distribution project (`reference.go`): a repository of lower-case parts, perhaps behind the name of
//! a registry, a tag and a digest.

use crate::deploy::image::Flavour;

/// The longest name of a repository, and the longest tag.
const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;

/// A reference, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reference<'a> {
    /// Everything before the tag, registry and all.
    pub(crate) repository: &'a str,
    pub(crate) tag: Option<&'a str>,
}

/// What a reference tells of what is in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Telling {
    pub(crate) major: Option<u32>,
    pub(crate) flavour: Option<Flavour>,
}

impl<'a> Reference<'a> {
    /// Takes one apart; the reason when no container runtime would take it.
    pub(crate) fn parse(text: &'a str) -> Result<Self, &'static str> {
        let (bare, digest) = match text.split_once('@') {
            Some((bare, digest)) => (bare, Some(digest)),
            None => (text, None),
        };
        if digest.is_some_and(|digest| !is_digest(digest)) {
            return Err("its digest is not sha256: and 64 digits of base 16");
        }
        // A colon before the last slash belongs to a registry's port.
        let at = bare.rfind('/').map_or(0, |slash| slash + 1);
        let (repository, tag) = match bare[at..].split_once(':') {
            Some((_, tag)) => (&bare[..bare.len() - tag.len() - 1], Some(tag)),
            None => (bare, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err("its tag has other characters than a-z, A-Z, 0-9, _, . and -");
        }
        if repository.len() > NAME_MAX || !is_name(repository) {
            return Err("its name has other characters than a-z, 0-9, and ., _ or - between them");
        }
        Ok(Self { repository, tag })
    }

    /// What its tag tells: by the ways of the official image (`15-alpine`, `15`), or of those that have a version of their own
    /// first and name PostgreSQL's after `pg`. What these stand on is known only where they say it.
    pub(crate) fn telling(&self) -> Telling {
        let tag = self.tag.unwrap_or_default();
        let said = said_flavour(tag);
        let after_pg = tag.split(['-', '_']).find_map(|part| leading(part.strip_prefix("pg")?, &['.']));
        if after_pg.is_some() {
            return Telling { major: after_pg, flavour: said };
        }
        let major = leading(tag, &['.', '-']);
        let is_official = self.repository.rsplit('/').next() == Some("postgres") && self.tag.is_some();
        Telling { major, flavour: said.or((major.is_some() || is_official).then_some(Flavour::Debian)) }
    }
}

/// What a tag says in words.
fn said_flavour(tag: &str) -> Option<Flavour> {
    const DEBIAN: [&str; 6] = ["debian", "buster", "bullseye", "bookworm", "trixie", "ubuntu"];
    if tag.contains("alpine") {
        return Some(Flavour::Alpine);
    }
    DEBIAN.iter().any(|word| tag.contains(word)).then_some(Flavour::Debian)
}

/// The number that a text begins with, where it ends there or one of these follows.
fn leading(text: &str, after: &[char]) -> Option<u32> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let rest = &text[end..];
    text[..end].parse().ok().filter(|_| rest.is_empty() || rest.starts_with(after))
}

fn is_digest(text: &str) -> bool {
    let hex = |text: &str| text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    text.strip_prefix("sha256:").is_some_and(hex)
}

fn is_tag(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= TAG_MAX && text.starts_with(word) && text.chars().all(|c| word(c) || ".-".contains(c))
}

fn is_name(text: &str) -> bool {
    let (registry, path) = match text.split_once('/') {
        Some((first, rest)) if is_registry(first) => (Some(first), rest),
        _ => (None, text),
    };
    registry.is_none_or(is_host) && path.split('/').all(is_part)
}

/// Whether the first part is the name of a registry, and not of somebody at the usual one.
fn is_registry(part: &str) -> bool {
    part.contains(['.', ':']) || part == "localhost" || part.contains(|c: char| c.is_ascii_uppercase())
}

fn is_host(text: &str) -> bool {
    let (host, port) = text.split_once(':').unwrap_or((text, "0"));
    let is_label = |label: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
        !label.is_empty() && label.chars().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    host.split('.').all(is_label) && !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit())
}

/// Letters and digits, with one dot, one or two underscores, or any number of hyphens between them.
fn is_part(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let between = text.split(plain).filter(|separator| !separator.is_empty());
    let fits = |separator: &str| matches!(separator, "." | "_" | "__") || separator.bytes().all(|b| b == b'-');
    text.starts_with(plain) && text.ends_with(plain) && between.into_iter().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> (Option<u32>, Option<Flavour>) {
        let Telling { major, flavour } = Reference::parse(text).unwrap().telling();
        (major, flavour)
    }

    #[test]
    fn a_tag_tells_what_it_tells() {
        for (text, major, flavour) in [
            ("postgres:13-alpine", Some(13), Some(Flavour::Alpine)),
            ("postgres:9.6", Some(9), Some(Flavour::Debian)),
            ("postgres:latest", None, Some(Flavour::Debian)),
            ("postgres:alpine", None, Some(Flavour::Alpine)),
            ("postgres", None, None),
            ("timescale/timescaledb:2.11.2-pg15", Some(15), None),
            ("timescale/timescaledb:latest-pg15-oss", Some(15), None),
            ("pgvector/pgvector:pg15-bookworm", Some(15), Some(Flavour::Debian)),
            ("mine/database:7", Some(7), Some(Flavour::Debian)),
            ("mine/database:stable", None, None),
        ] {
            assert_eq!(told(text), (major, flavour), "{text}");
        }
    }

    #[test]
    fn a_registry_and_its_port_belong_to_the_repository() {
        let parsed = Reference::parse("mirror.example:5000/a/postgres:15").unwrap();
        assert_eq!(parsed, Reference { repository: "mirror.example:5000/a/postgres", tag: Some("15") });
        assert_eq!(Reference::parse("localhost:5000/postgres").unwrap().tag, None);
    }
}
