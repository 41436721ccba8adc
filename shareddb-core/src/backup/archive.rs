//! Archives of pg_dump in its custom format, read while they pass by.

use std::collections::BTreeMap;

use super::blocks::{BlockReader, Place};
use super::cursor::{Cursor, Stop};
use super::digest::Rows;
use super::toc::{Entry, Toc};
use super::toc_reader::TocReader;
use crate::error::{Error, Result};

/// All of a table of contents: many times what twenty thousand tables need.
const TOC_MAX: u64 = 256 << 20;

/// Reads an archive as it comes, in slices of any length.
///
/// It holds the table of contents and nothing of the data. What it returns at the end was in the archive whole: every
/// entry that has data had its block, and nothing followed. What an archive *says*, it cannot prove: a changed
/// letter in a row gives another digest, and no error.
#[derive(Debug)]
pub struct ArchiveReader {
    part: Part,
    /// The beginning of something whose end is in a later slice.
    pending: Vec<u8>,
    /// How long that is at least.
    needed: usize,
    /// Bytes before what is pending, and before what is read next.
    done: u64,
}

/// What an archive consists of.
#[derive(Debug)]
enum Part {
    Toc(TocReader),
    Blocks(BlockReader),
    /// There was an error.
    Broken,
}

/// What was in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Contents {
    /// The table of contents.
    pub toc: Toc,
    /// The rows of each entry `TABLE DATA`, by its number.
    pub tables: BTreeMap<i32, Rows>,
    /// How many large objects there are.
    pub large_objects: u64,
    /// The archive's length.
    pub bytes: u64,
}

/// How far reading has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Position<'a> {
    /// Bytes that were fed.
    pub bytes: u64,
    /// The entry `TABLE DATA` or `BLOBS` whose data are being read.
    pub table: Option<&'a Entry>,
}

impl Default for ArchiveReader {
    fn default() -> Self {
        Self::new()
    }
}

impl ArchiveReader {
    /// At the beginning.
    pub fn new() -> Self {
        Self { part: Part::Toc(TocReader::default()), pending: Vec::new(), needed: 0, done: 0 }
    }

    /// Takes the next part.
    ///
    /// # Errors
    /// [`Error::Failed`] `archive_damaged` with the byte at which something does not fit; [`Error::Refused`]
    /// `archive_version` for a format that is not known here; [`Error::InvalidInput`] `archive_compressed` at the
    /// first data that are compressed, `archive_inserts` at the first that are no COPY, `archive_encoding` for names
    /// that are not UTF-8. After an error there is no going on.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        let fed = self.read(bytes);
        if fed.is_err() {
            (self.part, self.pending) = (Part::Broken, Vec::new());
        }
        fed
    }

    /// The table of contents, once it was read whole.
    pub fn toc(&self) -> Option<&Toc> {
        match &self.part {
            Part::Blocks(blocks) => Some(blocks.toc()),
            Part::Toc(_) | Part::Broken => None,
        }
    }

    /// How far it has come.
    pub fn position(&self) -> Position<'_> {
        let table = match &self.part {
            Part::Blocks(blocks) => blocks.open(),
            Part::Toc(_) | Part::Broken => None,
        };
        Position { bytes: self.done + self.pending.len() as u64, table }
    }

    /// Ends where the archive ends.
    ///
    /// # Errors
    /// [`Error::Failed`] `archive_incomplete` when something must still come.
    pub fn finish(self) -> Result<Contents> {
        let bytes = self.position().bytes;
        let incomplete = |what: String| {
            Error::failed("archive_incomplete", format!("the archive ends after {bytes} bytes, and {what}"))
        };
        let blocks = match self.part {
            Part::Blocks(blocks) => blocks,
            Part::Toc(_) => return Err(incomplete("within its table of contents".to_owned())),
            Part::Broken => return Err(after_error()),
        };
        let (toc, tables, large_objects) =
            blocks.finish().map_err(|entry| incomplete(format!("the data of {entry} are not there, or not whole")))?;
        if !self.pending.is_empty() {
            return Err(incomplete("within the beginning of a block".to_owned()));
        }
        Ok(Contents { toc, tables, large_objects, bytes })
    }

    fn read(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let used = match &mut self.part {
                Part::Broken => return Err(after_error()),
                Part::Blocks(blocks) if matches!(blocks.place, Place::Chunk { .. }) => self.chunk(bytes)?,
                _ if self.pending.is_empty() => self.item_within(bytes)?,
                _ => self.item_across(bytes)?,
            };
            bytes = &bytes[used..];
        }
        Ok(())
    }

    /// Passes on what of a chunk is in this slice.
    fn chunk(&mut self, bytes: &[u8]) -> Result<usize> {
        let Part::Blocks(blocks) = &mut self.part else { return Err(after_error()) };
        let Place::Chunk { left } = blocks.place else { return Err(after_error()) };
        let used = left.min(bytes.len());
        if let Err(error) = blocks.chunk(&bytes[..used], left) {
            let what = blocks.open().map_or_else(|| error.to_string(), |entry| format!("{entry}: {error}"));
            return Err(damaged(self.done, &what));
        }
        self.done += used as u64;
        Ok(used)
    }

    /// Reads something that begins in this slice, and keeps it if it does not end there.
    fn item_within(&mut self, bytes: &[u8]) -> Result<usize> {
        match self.item(bytes)? {
            Some(used) => {
                self.done += used as u64;
                Ok(used)
            }
            None => {
                self.pending.extend_from_slice(bytes);
                Ok(bytes.len())
            }
        }
    }

    /// Adds to something that began in an earlier slice, never more than belongs to it.
    fn item_across(&mut self, bytes: &[u8]) -> Result<usize> {
        let used = bytes.len().min(self.needed.saturating_sub(self.pending.len()));
        self.pending.extend_from_slice(&bytes[..used]);
        if self.pending.len() >= self.needed {
            let mut pending = std::mem::take(&mut self.pending);
            if let Some(whole) = self.item(&pending)? {
                self.done += whole as u64;
                pending.clear();
            }
            self.pending = pending;
        }
        Ok(used)
    }

    /// Reads one thing that begins at `self.done`: how long it was, or `None` when it does not end here.
    fn item(&mut self, bytes: &[u8]) -> Result<Option<usize>> {
        let mut cursor = Cursor::new(bytes);
        let read = match &mut self.part {
            Part::Toc(toc) => toc.item(&mut cursor),
            Part::Blocks(blocks) => blocks.item(&mut cursor, self.done),
            Part::Broken => return Err(after_error()),
        };
        match read {
            Ok(()) => {}
            Err(Stop::Short(needed)) => {
                if self.done + needed as u64 > TOC_MAX && matches!(self.part, Part::Toc(_)) {
                    return Err(damaged(self.done, "the table of contents is too long"));
                }
                self.needed = needed;
                return Ok(None);
            }
            Err(Stop::Damaged { at, what }) => return Err(damaged(self.done + at as u64, &what)),
            Err(Stop::Refused(error)) => return Err(error),
        }
        if let Part::Toc(toc) = &mut self.part
            && let Some(listed) = toc.listed()
        {
            self.part = Part::Blocks(BlockReader::new(listed));
        }
        Ok(Some(cursor.at()))
    }
}

fn damaged(at: u64, what: &str) -> Error {
    Error::failed("archive_damaged", format!("the archive is damaged at byte {at}: {what}"))
}

fn after_error() -> Error {
    Error::failed("archive_damaged", "the archive is not read on after an error")
}
