//! The numbers and texts that pg_dump's custom format consists of, read from what has come so far.

use super::toc::{ArchiveVersion, Entry, Section};
use crate::error::Error;

/// The length of a number: its sign and four bytes.
const INTEGER: usize = 5;

/// Why reading stopped.
#[derive(Debug)]
pub(super) enum Stop {
    /// There must be so many bytes at least.
    Short(usize),
    /// What stands at this byte cannot stand there.
    Damaged {
        /// The byte, counted from the cursor's beginning.
        at: usize,
        /// What is wrong.
        what: String,
    },
    /// Nothing is damaged, and yet it is not read.
    Refused(Error),
}

pub(super) type Read<T> = Result<T, Stop>;

/// A place in bytes.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// What the file's own beginning leads to.
#[derive(Debug)]
pub(super) struct Fixed {
    pub(super) version: ArchiveVersion,
    pub(super) integer: u8,
    pub(super) offset: u8,
    pub(super) format: u8,
}

/// What an entry ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// A place in the same file, as a number of so many bytes.
    Offset(u8),
    /// The name of the file that its data are in.
    FileName,
}

/// Where an entry says that its data are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offset {
    /// Somewhere: whoever wrote it could not go back to say where.
    Unknown,
    At(u64),
    /// There are none.
    NoData,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes were read.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn damaged<T>(&self, what: impl Into<String>) -> Read<T> {
        Err(Stop::Damaged { at: self.at, what: what.into() })
    }

    fn take(&mut self, length: usize) -> Read<&'a [u8]> {
        let end = self.at.checked_add(length);
        let Some(end) = end else { return self.damaged("a length is no length") };
        let Some(taken) = self.bytes.get(self.at..end) else { return Err(Stop::Short(end)) };
        self.at = end;
        Ok(taken)
    }

    pub(super) fn byte(&mut self) -> Read<u8> {
        self.take(1).map(|taken| taken[0])
    }

    /// Sign and value of a number.
    fn number(&mut self) -> Read<(bool, u32)> {
        let begin = self.at;
        let taken = self.take(INTEGER)?;
        let value = u32::from_le_bytes([taken[1], taken[2], taken[3], taken[4]]);
        if taken[0] > 1 {
            self.at = begin;
            return self.damaged("a number has no sign");
        }
        Ok((taken[0] == 1, value))
    }

    pub(super) fn integer(&mut self) -> Read<i32> {
        let begin = self.at;
        let (negative, value) = self.number()?;
        let value = if negative { -i64::from(value) } else { i64::from(value) };
        i32::try_from(value).or_else(|_| {
            self.at = begin;
            self.damaged("a number is too large")
        })
    }

    /// An OID, which is written as if it were signed.
    pub(super) fn oid(&mut self) -> Read<u32> {
        self.integer().map(i32::cast_unsigned)
    }

    pub(super) fn length(&mut self) -> Read<usize> {
        let begin = self.at;
        let length = self.integer()?;
        usize::try_from(length).or_else(|_| {
            self.at = begin;
            self.damaged("a length is negative")
        })
    }

    fn text_or_none(&mut self) -> Read<Option<&'a str>> {
        let begin = self.at;
        let length = self.integer()?;
        if length == -1 {
            return Ok(None);
        }
        let Ok(length) = usize::try_from(length) else {
            self.at = begin;
            return self.damaged("a length is negative");
        };
        let taken = self.take(length)?;
        // pg_restore would end the text there, and read another one than this.
        if taken.contains(&0) {
            self.at = begin;
            return self.damaged("a text has a zero byte");
        }
        std::str::from_utf8(taken).map(Some).map_err(|_| Stop::Refused(foreign_encoding()))
    }

    pub(super) fn text(&mut self) -> Read<&'a str> {
        self.text_or_none().map(Option::unwrap_or_default)
    }

    fn number_in_text<T: std::str::FromStr>(&mut self) -> Read<T> {
        let begin = self.at;
        let text = self.text()?;
        text.parse().or_else(|_| {
            self.at = begin;
            self.damaged("a number is none")
        })
    }

    /// The bytes at the very beginning, behind the magic ones.
    pub(super) fn fixed(&mut self) -> Read<Fixed> {
        if self.take(5)? != b"PGDMP" {
            self.at = 0;
            return self.damaged("no archive of pg_dump begins like this");
        }
        let (major, minor, _revision) = (self.byte()?, self.byte()?, self.byte()?);
        let version = ArchiveVersion { major, minor };
        Ok(Fixed { version, integer: self.byte()?, offset: self.byte()?, format: self.byte()? })
    }

    pub(super) fn entry(&mut self, version: ArchiveVersion, tail: Tail) -> Read<(Entry, Offset)> {
        let id = self.integer()?;
        if id <= 0 {
            return self.damaged("an entry has no number");
        }
        let has_data = self.integer()? != 0;
        let (catalog, oid) = (self.number_in_text()?, self.number_in_text()?);
        let (tag, kind) = (self.text()?, self.text()?);
        let section = self.section()?;
        let (definition, _drop_statement, copy_statement) = (self.text()?, self.text()?, self.text()?);
        let (namespace, _tablespace) = (self.text()?, self.text()?);
        if version.minor >= 14 {
            let _access_method = self.text()?;
        }
        if version.minor >= 16 {
            let _relation_kind = self.integer()?;
        }
        let owner = self.text()?;
        let _with_oids = self.text()?;
        let dependencies = self.dependencies()?;
        let offset = match tail {
            Tail::Offset(bytes) => self.offset(bytes)?,
            Tail::FileName if self.text()?.is_empty() => Offset::NoData,
            Tail::FileName => Offset::Unknown,
        };
        // pg_restore passes over data that the entry denies, without a word.
        if has_data == (offset == Offset::NoData) {
            return self.damaged("an entry has data and has none");
        }
        let entry = Entry {
            id,
            has_data,
            catalog,
            oid,
            tag: tag.to_owned(),
            kind: kind.to_owned(),
            section,
            definition: definition.to_owned(),
            copy_statement: copy_statement.to_owned(),
            namespace: namespace.to_owned(),
            owner: owner.to_owned(),
            dependencies,
        };
        Ok((entry, offset))
    }

    fn section(&mut self) -> Read<Section> {
        let begin = self.at;
        Ok(match self.integer()? {
            1 => Section::None,
            2 => Section::PreData,
            3 => Section::Data,
            4 => Section::PostData,
            _ => {
                self.at = begin;
                return self.damaged("a section is unknown");
            }
        })
    }

    fn dependencies(&mut self) -> Read<Vec<i32>> {
        let mut found = Vec::new();
        loop {
            let begin = self.at;
            let Some(text) = self.text_or_none()? else { return Ok(found) };
            match text.parse() {
                Ok(id) => found.push(id),
                Err(_) => {
                    self.at = begin;
                    return self.damaged("a number is none");
                }
            }
        }
    }

    fn offset(&mut self, bytes: u8) -> Read<Offset> {
        let begin = self.at;
        let state = self.byte()?;
        let taken = self.take(usize::from(bytes))?;
        let value = taken.iter().rev().fold(0, |value: u64, byte| value << 8 | u64::from(*byte));
        match state {
            1 => Ok(Offset::Unknown),
            2 => Ok(Offset::At(value)),
            3 => Ok(Offset::NoData),
            _ => {
                self.at = begin;
                self.damaged("an offset is neither known nor unknown")
            }
        }
    }
}

fn foreign_encoding() -> Error {
    Error::invalid_input("archive_encoding", "names in the archive are not UTF-8")
        .with_hint("dump it once more with `pg_dump --encoding=UTF8`")
}
