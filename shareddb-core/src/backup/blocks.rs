//! Reads the data of an archive: blocks of rows and of large objects, each in chunks.

use std::collections::{BTreeMap, BTreeSet};

use super::cursor::{Cursor, Offset, Read, Stop};
use super::digest::{RowCounter, Rows};
use super::toc::{Entry, Toc};
use super::toc_reader::Listed;
use crate::error::{Error, Result};

const BLOCK_OF_ROWS: u8 = 1;
const BLOCK_OF_LARGE_OBJECTS: u8 = 3;

/// The data as far as they were read.
#[derive(Debug)]
pub(super) struct BlockReader {
    toc: Toc,
    compressed: bool,
    /// Entries that have data: their place in the table of contents, and where the data are said to be.
    expected: BTreeMap<i32, (usize, Offset)>,
    open: Option<Open>,
    pub(super) place: Place,
    tables: BTreeMap<i32, Rows>,
    /// Blocks of large objects.
    read: BTreeSet<i32>,
    large_objects: u64,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Block,
    LargeObject,
    ChunkLength,
    Chunk { left: usize },
}

/// A block that is being read.
#[derive(Debug)]
struct Open {
    index: usize,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Rows(RowCounter),
    LargeObjects,
}

impl BlockReader {
    pub(super) fn new(listed: Listed) -> Self {
        let entries = listed.toc.entries.iter().zip(listed.offsets).enumerate();
        let with_data = entries.filter(|(_, (entry, _))| entry.has_data);
        let expected = with_data.map(|(index, (entry, offset))| (entry.id, (index, offset))).collect();
        Self {
            toc: listed.toc,
            compressed: listed.compressed,
            expected,
            open: None,
            place: Place::Block,
            tables: BTreeMap::new(),
            read: BTreeSet::new(),
            large_objects: 0,
        }
    }

    pub(super) fn toc(&self) -> &Toc {
        &self.toc
    }

    /// The entry whose data are being read.
    pub(super) fn open(&self) -> Option<&Entry> {
        self.open.as_ref().and_then(|open| self.toc.entries.get(open.index))
    }

    /// Whether rows are being read.
    pub(super) fn in_rows(&self) -> bool {
        matches!(&self.open, Some(Open { content: Content::Rows(_), .. }))
    }

    /// Reads what comes next and is no chunk; `begin` is the cursor's place in the archive.
    pub(super) fn item(&mut self, cursor: &mut Cursor<'_>, begin: u64) -> Read<()> {
        match self.place {
            Place::Block => self.block(cursor, begin),
            Place::LargeObject => self.large_object(cursor),
            Place::ChunkLength | Place::Chunk { .. } => self.chunk_length(cursor),
        }
    }

    /// Takes a part of a chunk.
    pub(super) fn chunk(&mut self, bytes: &[u8], left: usize) -> Result<()> {
        if let Some(Open { content: Content::Rows(rows), .. }) = &mut self.open {
            rows.feed(bytes)?;
        }
        let left = left - bytes.len();
        self.place = if left == 0 { Place::ChunkLength } else { Place::Chunk { left } };
        Ok(())
    }

    /// What was read, or the first entry whose data are not there.
    pub(super) fn finish(self) -> Result<(Toc, BTreeMap<i32, Rows>, u64), Box<Entry>> {
        let missing = self.open.as_ref().map(|open| open.index).or_else(|| {
            let mut missing = self.expected.iter().filter(|(id, _)| !self.has_read(**id));
            missing.next().map(|(_, (index, _))| *index)
        });
        match missing.and_then(|index| self.toc.entries.get(index)) {
            Some(entry) => Err(Box::new(entry.clone())),
            None => Ok((self.toc, self.tables, self.large_objects)),
        }
    }

    fn has_read(&self, id: i32) -> bool {
        self.tables.contains_key(&id) || self.read.contains(&id)
    }

    fn block(&mut self, cursor: &mut Cursor<'_>, begin: u64) -> Read<()> {
        let kind = cursor.byte()?;
        if !matches!(kind, BLOCK_OF_ROWS | BLOCK_OF_LARGE_OBJECTS) {
            return cursor.damaged("no block of data begins like this");
        }
        let id = cursor.integer()?;
        let Some((index, offset)) = self.expected.get(&id).copied() else {
            return cursor.damaged(format!("there are data of {id}, which has none"));
        };
        if self.has_read(id) {
            return cursor.damaged(format!("there are data of {id} for a second time"));
        }
        if matches!(offset, Offset::At(said) if said != begin) {
            return cursor.damaged(format!("the data of {id} are not where they are said to be"));
        }
        let Some(entry) = self.toc.entries.get(index) else {
            return cursor.damaged(format!("there are data of {id}, which has none"));
        };
        if self.compressed {
            return Err(Stop::Refused(compressed()));
        }
        let content = match (kind, entry.kind.as_str()) {
            (BLOCK_OF_ROWS, "TABLE DATA") if entry.copy_statement.is_empty() => {
                return Err(Stop::Refused(inserts(entry)));
            }
            (BLOCK_OF_ROWS, "TABLE DATA") => Content::Rows(RowCounter::of_archive()),
            (BLOCK_OF_LARGE_OBJECTS, "BLOBS") => Content::LargeObjects,
            _ => return cursor.damaged(format!("{entry} has data of another kind")),
        };
        self.place = match content {
            Content::Rows(_) => Place::ChunkLength,
            Content::LargeObjects => Place::LargeObject,
        };
        self.open = Some(Open { index, content });
        Ok(())
    }

    fn large_object(&mut self, cursor: &mut Cursor<'_>) -> Read<()> {
        if cursor.oid()? == 0 {
            self.close(cursor)
        } else {
            self.large_objects += 1;
            self.place = Place::ChunkLength;
            Ok(())
        }
    }

    fn chunk_length(&mut self, cursor: &mut Cursor<'_>) -> Read<()> {
        match (cursor.length()?, &self.open) {
            (0, Some(Open { content: Content::LargeObjects, .. })) => {
                self.place = Place::LargeObject;
                Ok(())
            }
            (0, _) => self.close(cursor),
            (left, _) => {
                self.place = Place::Chunk { left };
                Ok(())
            }
        }
    }

    fn close(&mut self, cursor: &Cursor<'_>) -> Read<()> {
        self.place = Place::Block;
        let Some(open) = self.open.take() else { return cursor.damaged("a block ends that has not begun") };
        let Some(entry) = self.toc.entries.get(open.index) else {
            return cursor.damaged("a block ends that has not begun");
        };
        match open.content {
            Content::LargeObjects => {
                self.read.insert(entry.id);
            }
            Content::Rows(counter) => match counter.finish() {
                Ok(rows) => {
                    self.tables.insert(entry.id, rows);
                }
                Err(error) => return cursor.damaged(format!("{entry}: {error}")),
            },
        }
        Ok(())
    }
}

fn compressed() -> Error {
    Error::invalid_input("archive_compressed", "the data in the archive are compressed, and are not read here")
        .with_hint("dump it with `pg_dump -Fc -Z0`, or load it as it is: pg_restore reads it")
}

fn inserts(entry: &Entry) -> Error {
    Error::invalid_input("archive_inserts", format!("{entry} is written as INSERT statements, and is not read here"))
        .with_hint("dump it without --inserts, or load it as it is: pg_restore reads it")
}
