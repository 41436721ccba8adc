//! Reads the beginning of an archive: its header and its table of contents.

use std::collections::BTreeSet;

use super::cursor::{Cursor, Offset, Read, Stop};
use super::toc::{ArchiveVersion, Toc};
use crate::error::Error;

/// The versions that are understood: PostgreSQL 9.0 to 18.
const VERSIONS: std::ops::RangeInclusive<u8> = 12..=16;
/// pg_dump's mark of the custom format among its formats.
const CUSTOM: u8 = 1;

/// The table of contents as far as it was read.
#[derive(Debug, Default)]
pub(super) struct TocReader {
    toc: Option<Toc>,
    offset_bytes: u8,
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
        if fixed.format != CUSTOM {
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
        (self.offset_bytes, self.compressed, self.left) = (fixed.offset, compressed, left);
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
        let (entry, offset) = cursor.entry(version, self.offset_bytes)?;
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
