//! Archives of pg_dump in its custom format, read while they pass by.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::blocks::{BlockReader, Place};
use super::cursor::{Cursor, Stop};
use super::digest::Rows;
use super::joiner::Joiner;
use super::toc::{Entry, Toc};
use super::toc_reader::{Layout, TocReader};
use crate::error::{Error, Result};

/// All of a table of contents: many times what twenty thousand tables need.
pub(super) const TOC_MAX: u64 = 256 << 20;

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
    /// Where it is passed on.
    joiner: Option<Joiner>,
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
        Self { part: Part::Toc(TocReader::default()), pending: Vec::new(), needed: 0, done: 0, joiner: None }
    }

    /// At the beginning of one that is passed on, too.
    pub(super) fn joining() -> Self {
        Self { joiner: Some(Joiner::default()), ..Self::new() }
    }

    /// What of it is to be passed on by now: an archive that says the same, with rows in larger chunks.
    pub(super) fn take(&mut self) -> Bytes {
        self.joiner.as_mut().map(Joiner::take).unwrap_or_default()
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
        if let Some(joiner) = &mut self.joiner {
            match blocks.in_rows() {
                true => joiner.rows(&bytes[..used]),
                false => joiner.other(&bytes[..used]),
            }
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
        let in_rows = matches!(&self.part, Part::Blocks(blocks) if blocks.in_rows());
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
        self.pass_on(&bytes[..cursor.at()], in_rows);
        if let Part::Toc(toc) = &mut self.part
            && let Some(listed) = toc.listed()
        {
            self.part = Part::Blocks(BlockReader::new(listed));
        }
        Ok(Some(cursor.at()))
    }

    /// The length of a chunk of rows is not passed on: it will be another.
    fn pass_on(&mut self, item: &[u8], in_rows: bool) {
        let goes_on = matches!(&self.part, Part::Blocks(blocks) if blocks.in_rows());
        match &mut self.joiner {
            Some(joiner) if !in_rows => joiner.other(item),
            Some(joiner) if !goes_on => joiner.end(item),
            _ => {}
        }
    }
}

/// The table of contents that a file begins with, if all of it is there, and whether the data are compressed.
///
/// # Errors
/// As [`ArchiveReader::feed`].
pub(super) fn toc(bytes: &[u8], layout: Layout) -> Result<Option<(Toc, bool)>> {
    let (mut reader, mut at) = (TocReader::of(layout), 0);
    loop {
        let mut cursor = Cursor::new(&bytes[at..]);
        match reader.item(&mut cursor) {
            Ok(()) => at += cursor.at(),
            Err(Stop::Short(needed)) if (at + needed) as u64 > TOC_MAX => {
                return Err(damaged(at as u64, "the table of contents is too long"));
            }
            Err(Stop::Short(_)) => return Ok(None),
            Err(Stop::Damaged { at: within, what }) => return Err(damaged((at + within) as u64, &what)),
            Err(Stop::Refused(error)) => return Err(error),
        }
        if let Some(listed) = reader.listed() {
            return Ok(Some((listed.toc, listed.compressed)));
        }
    }
}

fn damaged(at: u64, what: &str) -> Error {
    Error::failed("archive_damaged", format!("the archive is damaged at byte {at}: {what}"))
}

fn after_error() -> Error {
    Error::failed("archive_damaged", "the archive is not read on after an error")
}

#[cfg(test)]
mod tests {
    use super::super::digest::RowCounter;
    use super::super::joiner::CHUNK;
    use super::super::toc::Section;
    use super::*;

    /// Writes what pg_dump writes.
    #[derive(Clone)]
    struct Writer {
        minor: u8,
        bytes: Vec<u8>,
    }

    /// What is said of an archive that goes on like this.
    type Case<'a> = (&'a str, &'a dyn Fn(&mut Writer));

    /// Entries are `(id, kind, copy statement)`.
    type Listed<'a> = (i32, &'a str, Option<&'a str>);

    impl Writer {
        fn new(minor: u8, compression: u8, entries: &[Listed<'_>]) -> Self {
            let mut bytes = b"PGDMP".to_vec();
            bytes.extend([1, minor, 0, 4, 8, 1]);
            let mut writer = Self { minor, bytes };
            if minor >= 15 {
                writer.bytes.push(compression);
            } else {
                writer.integer(compression.into());
            }
            [5, 4, 3, 2, 1, 126, -1].into_iter().for_each(|number| writer.integer(number));
            ["app_db", "15.18", "15.18"].into_iter().for_each(|text| writer.text(Some(text)));
            writer.integer(entries.len().try_into().unwrap());
            entries.iter().for_each(|entry| writer.entry(*entry));
            writer
        }

        fn integer(&mut self, number: i32) {
            self.bytes.push(number.is_negative().into());
            self.bytes.extend(number.unsigned_abs().to_le_bytes());
        }

        fn text(&mut self, text: Option<&str>) {
            self.integer(text.map_or(-1, |text| text.len().try_into().unwrap()));
            self.bytes.extend(text.unwrap_or_default().as_bytes());
        }

        fn entry(&mut self, (id, kind, copy): Listed<'_>) {
            let has_data = copy.is_some() || kind == "BLOBS";
            self.integer(id);
            self.integer(has_data.into());
            ["1259", "16385", "t", kind].into_iter().for_each(|text| self.text(Some(text)));
            self.integer(if has_data { 3 } else { 2 });
            self.text((!has_data).then_some("CREATE TABLE s.t (x int);\n"));
            self.text(Some(""));
            self.text(copy);
            [Some("s"), None].into_iter().for_each(|text| self.text(text));
            if self.minor >= 14 {
                self.text(Some("heap"));
            }
            if self.minor >= 16 {
                self.integer(114);
            }
            [Some("app_db"), Some("false"), Some("3"), Some("21"), None].into_iter().for_each(|text| self.text(text));
            self.bytes.push(if has_data { 1 } else { 3 });
            self.bytes.extend([0; 8]);
        }

        fn block(&mut self, kind: u8, id: i32) {
            self.bytes.push(kind);
            self.integer(id);
        }

        fn chunk(&mut self, text: &str) {
            self.integer(text.len().try_into().unwrap());
            self.bytes.extend(text.as_bytes());
        }
    }

    const COPY: Option<&str> = Some("COPY s.t (x) FROM stdin;\n");

    /// Two tables, one of them empty, and two large objects.
    fn sample(minor: u8) -> Vec<u8> {
        let entries = [(3, "TABLE", None), (7, "TABLE DATA", COPY), (8, "TABLE DATA", COPY), (9, "BLOBS", None)];
        let mut writer = Writer::new(minor, 0, &entries);
        writer.block(1, 7);
        ["1\n", "2\n3", "\n", "\\.\n\n\n"].into_iter().for_each(|chunk| writer.chunk(chunk));
        writer.integer(0);
        writer.block(1, 8);
        writer.chunk("\\.\n\n\n");
        writer.integer(0);
        writer.block(3, 9);
        writer.integer(16400);
        writer.chunk("large");
        writer.integer(0);
        // An OID over half of all.
        writer.integer(-5);
        [0, 0].into_iter().for_each(|number| writer.integer(number));
        writer.bytes
    }

    fn read(bytes: &[u8]) -> Result<Contents> {
        let mut reader = ArchiveReader::new();
        reader.feed(bytes)?;
        reader.finish()
    }

    fn code(bytes: &[u8]) -> &'static str {
        read(bytes).unwrap_err().code()
    }

    #[test]
    fn every_version_tells_what_is_in_it() {
        for minor in 12..=16 {
            let bytes = sample(minor);
            let contents = read(&bytes).unwrap();
            assert_eq!(contents.toc.version.to_string(), format!("1.{minor}"));
            assert_eq!((contents.toc.database.as_str(), contents.toc.dump_version.as_str()), ("app_db", "15.18"));
            let table = &contents.toc.entries()[0];
            assert_eq!(
                (table.id, table.oid, table.owner.as_str(), table.section),
                (3, 16385, "app_db", Section::PreData)
            );
            assert_eq!(table.dependencies, [3, 21]);
            assert_eq!(contents.toc.entries()[1].copy_statement, COPY.unwrap());
            let mut rows = RowCounter::of_stream();
            rows.feed(b"3\n2\n1\n").unwrap();
            assert_eq!(contents.tables, BTreeMap::from([(7, rows.finish().unwrap()), (8, Rows::default())]));
            assert_eq!((contents.large_objects, contents.bytes), (2, bytes.len() as u64));
        }
    }

    #[test]
    fn slices_do_not_count() {
        let bytes = sample(16);
        let whole = read(&bytes).unwrap();
        for size in 1..70 {
            let mut reader = ArchiveReader::new();
            bytes.chunks(size).for_each(|slice| reader.feed(slice).unwrap());
            assert_eq!(reader.position().bytes, bytes.len() as u64);
            assert_eq!(reader.finish().unwrap(), whole, "{size}");
        }
        for cut in 0..bytes.len() {
            let mut reader = ArchiveReader::new();
            reader.feed(&bytes[..cut]).unwrap();
            reader.feed(&bytes[cut..]).unwrap();
            assert_eq!(reader.finish().unwrap(), whole, "{cut}");
        }
    }

    #[test]
    fn what_is_passed_on_says_the_same_in_larger_chunks() {
        let entries = [(7, "TABLE DATA", COPY), (8, "TABLE DATA", COPY), (9, "BLOBS", None)];
        let mut writer = Writer::new(16, 0, &entries);
        writer.block(1, 7);
        let rows: Vec<String> = (0..30_000).map(|row| format!("{row}\n")).collect();
        rows.iter().for_each(|row| writer.chunk(row));
        writer.chunk(&format!("{}\n", "x".repeat(3 * CHUNK)));
        writer.chunk("\\.\n\n\n");
        writer.integer(0);
        writer.block(1, 8);
        writer.chunk("\\.\n\n\n");
        writer.integer(0);
        writer.block(3, 9);
        writer.integer(16400);
        ["large", "object"].into_iter().for_each(|chunk| writer.chunk(chunk));
        [0, 0].into_iter().for_each(|number| writer.integer(number));
        let whole = read(&writer.bytes).unwrap();
        let joined = |size: usize| {
            let mut reader = ArchiveReader::joining();
            let mut joined = Vec::new();
            for slice in writer.bytes.chunks(size) {
                reader.feed(slice).unwrap();
                joined.extend(reader.take());
            }
            assert_eq!(reader.finish().unwrap(), whole, "{size}");
            joined
        };
        let once = joined(usize::MAX);
        assert!([1, 7, 4096].into_iter().all(|size| joined(size) == once));
        let content: usize = rows.iter().map(String::len).sum::<usize>() + 3 * CHUNK + 1;
        let saved = (rows.len() + 2 - (content + 5).div_ceil(CHUNK)) * 5;
        assert_eq!(writer.bytes.len() - once.len(), saved);
        let found = read(&once).unwrap();
        assert_eq!((&found.toc, &found.tables, found.large_objects), (&whole.toc, &whole.tables, 1));
    }

    #[test]
    fn the_place_is_known_while_it_is_read() {
        let bytes = sample(14);
        let mut reader = ArchiveReader::new();
        let mut seen = Vec::new();
        for slice in bytes.chunks(1) {
            reader.feed(slice).unwrap();
            let Position { table, .. } = reader.position();
            seen.extend(table.map(|entry| entry.id).filter(|id| seen.last() != Some(id)));
        }
        assert_eq!(seen, [7, 8, 9]);
    }

    #[test]
    fn an_archive_that_ends_early_is_never_whole() {
        let bytes = sample(15);
        for cut in 0..bytes.len() {
            assert_eq!(code(&bytes[..cut]), "archive_incomplete", "{cut}");
        }
        let more = [&bytes[..], b"\n"].concat();
        assert_eq!(code(&more), "archive_damaged");
        assert_eq!(code(&[&bytes[..], &bytes[..]].concat()), "archive_damaged");
    }

    #[test]
    fn no_changed_bit_breaks_the_reader_or_hides_a_block() {
        let bytes = sample(16);
        let whole = read(&bytes).unwrap();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                let Ok(found) = read(&changed) else { continue };
                // What is not seen here is content, and for that there are digests.
                assert_eq!(found.tables.len(), whole.tables.len(), "byte {at}, bit {bit}");
                assert_eq!(found.large_objects, whole.large_objects, "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn what_is_not_read_here_says_so() {
        let compressed = |minor| {
            let mut writer = Writer::new(minor, 1, &[(7, "TABLE DATA", COPY)]);
            writer.block(1, 7);
            writer.bytes
        };
        assert_eq!(code(&compressed(14)), "archive_compressed");
        assert_eq!(code(&compressed(16)), "archive_compressed");
        // Without data nothing is compressed.
        assert!(read(&Writer::new(14, 6, &[(3, "TABLE", None)]).bytes).is_ok());
        let mut inserts = Writer::new(14, 0, &[(7, "TABLE DATA", Some(""))]);
        inserts.block(1, 7);
        assert_eq!(code(&inserts.bytes), "archive_inserts");
        for minor in [11, 17] {
            let error = read(&Writer::new(minor, 0, &[]).bytes).unwrap_err();
            assert!(matches!(error, Error::Refused(_)) && error.code() == "archive_version", "{error}");
        }
        assert_eq!(code(b"-- PostgreSQL database dump"), "archive_damaged");
        let mut latin = Writer::new(14, 0, &[(3, "TABLE", None)]).bytes;
        let at = latin.windows(6).position(|text| text == b"app_db").unwrap();
        latin[at] = 0xe4;
        assert_eq!(code(&latin), "archive_encoding");
    }

    #[test]
    fn a_hostile_archive_is_damaged_and_costs_nothing() {
        let cases: [Case<'_>; 7] = [
            ("the table of contents is too long", &|writer| writer.integer(i32::MAX)),
            ("an entry has no number", &|writer| [-1, 0, 0].into_iter().for_each(|number| writer.integer(number))),
            ("two entries have the number 3", &|writer| writer.entry((3, "TABLE", None))),
            ("a text has a zero byte", &|writer| {
                [9, 0].into_iter().for_each(|number| writer.integer(number));
                writer.text(Some("12\u{0}59"));
            }),
            ("a length is negative", &|writer| [9, 0, -2].into_iter().for_each(|number| writer.integer(number))),
            ("a number is none", &|writer| {
                [9, 0].into_iter().for_each(|number| writer.integer(number));
                writer.text(Some("-1"));
            }),
            ("a number has no sign", &|writer| writer.bytes.extend([2; 5])),
        ];
        for (said, continued) in cases {
            let mut writer = Writer::new(14, 0, &[(3, "TABLE", None)]);
            // As if one more had been promised.
            let count = count_at(&writer);
            writer.bytes[count] = 2;
            if said.contains("too long") {
                [9, 0].into_iter().for_each(|number| writer.integer(number));
            }
            continued(&mut writer);
            let mut reader = ArchiveReader::new();
            let error = reader.feed(&writer.bytes).unwrap_err();
            assert!(error.code() == "archive_damaged" && error.to_string().ends_with(said), "{said}: {error}");
            assert_eq!(reader.feed(b"x").unwrap_err().code(), "archive_damaged");
        }
    }

    /// The lowest byte of the number of entries.
    fn count_at(writer: &Writer) -> usize {
        Writer::new(writer.minor, 0, &[]).bytes.len() - 4
    }

    #[test]
    fn blocks_must_be_those_that_are_listed() {
        let cases: [Case<'_>; 6] = [
            ("no block of data begins like this", &|writer| writer.block(2, 7)),
            ("there are data of 3, which has none", &|writer| writer.block(1, 3)),
            ("there are data of 99, which has none", &|writer| writer.block(1, 99)),
            ("TABLE DATA s.t has data of another kind", &|writer| writer.block(3, 7)),
            ("a length is negative", &|writer| {
                writer.block(1, 7);
                writer.integer(-1);
            }),
            ("there are data of 7 for a second time", &|writer| {
                writer.block(1, 7);
                writer.chunk("\\.\n");
                writer.integer(0);
                writer.block(1, 7);
            }),
        ];
        for (said, continued) in cases {
            let mut writer = Writer::new(16, 0, &[(3, "TABLE", None), (7, "TABLE DATA", COPY)]);
            continued(&mut writer);
            let error = ArchiveReader::new().feed(&writer.bytes).unwrap_err();
            assert!(error.code() == "archive_damaged" && error.to_string().ends_with(said), "{said}: {error}");
        }
        let mut writer = Writer::new(16, 0, &[(7, "TABLE DATA", COPY)]);
        writer.block(1, 7);
        writer.chunk("1\n");
        writer.integer(0);
        let error = ArchiveReader::new().feed(&writer.bytes).unwrap_err().to_string();
        assert!(error.ends_with("TABLE DATA s.t: the end of the rows is missing"), "{error}");
    }
}
