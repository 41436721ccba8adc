//! Reads the beginning of an archive: its header and its table of contents.

use std::collections::BTreeSet;

use super::cursor::{Cursor, Offset, Read, Stop, Tail};
use super::toc::{ArchiveVersion, Toc};
use crate::error::Error;

/// The versions that are understood: PostgreSQL 9.0 to 18.
const VERSIONS: std::ops::RangeInclusive<u8> = 12..=16;
/// pg_dump's marks of its formats. A directory bears that of a tar file.
const CUSTOM: u8 = 1;
const TAR: u8 = 3;

/// Which of pg_dump's formats is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Layout {
    /// One file with the data behind the table of contents.
    #[default]
    Custom,
    /// A file `toc.dat` beside files with the data.
    Files,
}

/// The table of contents as far as it was read.
#[derive(Debug, Default)]
pub(super) struct TocReader {
    layout: Layout,
    toc: Option<Toc>,
    tail: Option<Tail>,
    compressed: bool,
    /// Entries that are still to come.
    left: i32,
    /// Numbers that were given to entries.
    ids: BTreeSet<i32>,
    /// Of each entry, in their order.
    offsets: Vec<Offset>,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) toc: Toc,
    /// Whether the data are compressed.
    pub(super) compressed: bool,
    /// Where each entry's data are said to be.
    pub(super) offsets: Vec<Offset>,
}

impl TocReader {
    pub(super) fn of(layout: Layout) -> Self {
        Self { layout, ..Self::default() }
    }

    /// Reads the header, or the next entry.
    pub(super) fn item(&mut self, cursor: &mut Cursor<'_>) -> Read<()> {
        match &self.toc {
            None => self.head(cursor),
            Some(toc) => {
                let version = toc.version;
                self.entry(cursor, version)
            }
        }
    }

    /// All of it, if that was all.
    pub(super) fn listed(&mut self) -> Option<Listed> {
        if self.left > 0 {
            return None;
        }
        let toc = self.toc.take()?;
        Some(Listed { toc, compressed: self.compressed, offsets: std::mem::take(&mut self.offsets) })
    }

    fn head(&mut self, cursor: &mut Cursor<'_>) -> Read<()> {
        let fixed = cursor.fixed()?;
        let version = fixed.version;
        if version.major != 1 || !VERSIONS.contains(&version.minor) {
            return Err(Stop::Refused(unknown_version(version)));
        }
        let (expected, tail) = match self.layout {
            Layout::Custom => (CUSTOM, Tail::Offset(fixed.offset)),
            Layout::Files => (TAR, Tail::FileName),
        };
        if fixed.format != expected {
            return cursor.damaged("this is the table of contents of another format");
        }
        if fixed.integer != 4 || !(1..=8).contains(&fixed.offset) {
            return cursor.damaged("numbers have another length");
        }
        let compressed = if version.minor >= 15 { cursor.byte()? != 0 } else { cursor.integer()? != 0 };
        for _ in ["second", "minute", "hour", "day", "month", "year", "daylight saving"] {
            cursor.integer()?;
        }
        let (database, server_version, dump_version) = (cursor.text()?, cursor.text()?, cursor.text()?);
        let left = cursor.integer()?;
        if left < 0 {
            return cursor.damaged("the number of entries is negative");
        }
        (self.tail, self.compressed, self.left) = (Some(tail), compressed, left);
        self.toc = Some(Toc {
            version,
            database: database.to_owned(),
            server_version: server_version.to_owned(),
            dump_version: dump_version.to_owned(),
            entries: Vec::new(),
        });
        Ok(())
    }

    fn entry(&mut self, cursor: &mut Cursor<'_>, version: ArchiveVersion) -> Read<()> {
        let Some(tail) = self.tail else { return cursor.damaged("an entry comes before the header") };
        let (entry, offset) = cursor.entry(version, tail)?;
        if !self.ids.insert(entry.id) {
            return cursor.damaged(format!("two entries have the number {}", entry.id));
        }
        self.offsets.push(offset);
        self.left -= 1;
        if let Some(toc) = &mut self.toc {
            toc.entries.push(entry);
        }
        Ok(())
    }
}

fn unknown_version(version: ArchiveVersion) -> Error {
    Error::refused("archive_version", format!("archives of version {version} are not known here")).with_hint(format!(
        "known are 1.{} to 1.{}, which PostgreSQL up to 18 writes: use a newer shareddb, or an older pg_dump",
        VERSIONS.start(),
        VERSIONS.end()
    ))
}
