//! What rows come to: a digest of the text that COPY writes for them, whatever order they come in.
//!
//! The digest of a table is the sum of the 128-bit XXH3 hashes of its rows, each taken as COPY's text without the
//! newline after it. It finds what was lost, doubled or changed by accident; against forgers there are other means.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3Default, xxh3_128};

use crate::error::{Error, Result};

/// A line that ends COPY's text where no protocol says so.
const END: &[u8; 2] = b"\\.";

/// The sum of the hashes of rows.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RowDigest(u128);

/// The rows of one table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rows {
    /// How many.
    pub rows: u64,
    /// The length of their text, the newline of each included.
    pub bytes: u64,
    /// What their text comes to.
    pub digest: RowDigest,
}

/// Counts and digests COPY's text as it comes, in slices of any length.
///
/// Of the text it holds nothing: rows may be longer than memory.
#[derive(Debug)]
pub struct RowCounter {
    rows: Rows,
    ending: Ending,
    /// The beginning of a row whose end is in a later slice.
    partial: Option<Partial>,
}

/// How the text says that it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// It just stops.
    Silence,
    /// With a line of its own, which is still to come.
    Line,
    /// That line was read.
    Read,
}

struct Partial {
    hash: Box<Xxh3Default>,
    length: u64,
    head: [u8; END.len()],
}

impl fmt::Debug for Partial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.length)
    }
}

impl RowDigest {
    fn add(&mut self, hash: u128) {
        self.0 = self.0.wrapping_add(hash);
    }
}

impl RowCounter {
    /// For text as a server sends it.
    pub fn of_stream() -> Self {
        Self { rows: Rows::default(), ending: Ending::Silence, partial: None }
    }

    /// For text as an archive holds it: a line `\.` ends it, and only empty lines follow.
    pub fn of_archive() -> Self {
        Self { ending: Ending::Line, ..Self::of_stream() }
    }

    /// What was read so far, without a row that has only begun.
    pub fn rows(&self) -> Rows {
        self.rows
    }

    /// Takes the next part of the text.
    ///
    /// # Errors
    /// [`Error::Failed`] `rows_damaged` for anything but empty lines after the end.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<()> {
        while self.ending != Ending::Read && !bytes.is_empty() {
            let Some(end) = memchr::memchr(b'\n', bytes) else {
                self.begin(bytes);
                return Ok(());
            };
            self.line(&bytes[..end]);
            bytes = &bytes[end + 1..];
        }
        if bytes.iter().any(|byte| *byte != b'\n') {
            return Err(damaged("something stands after the end of the rows"));
        }
        Ok(())
    }

    /// What all of them come to.
    ///
    /// # Errors
    /// [`Error::Failed`] `rows_damaged` if the text ended within a row, or without the line that ends it.
    pub fn finish(self) -> Result<Rows> {
        match (self.partial, self.ending) {
            (None, Ending::Silence | Ending::Read) => Ok(self.rows),
            (None, Ending::Line) => Err(damaged("the end of the rows is missing")),
            (Some(_), _) => Err(damaged("the rows end within one")),
        }
    }

    /// Keeps what cannot be hashed at once.
    fn begin(&mut self, bytes: &[u8]) {
        let new = || Partial { hash: Box::new(Xxh3Default::new()), length: 0, head: [0; END.len()] };
        let partial = self.partial.get_or_insert_with(new);
        for (at, byte) in (partial.length..).zip(bytes).take(END.len()) {
            if let Some(place) = usize::try_from(at).ok().and_then(|at| partial.head.get_mut(at)) {
                *place = *byte;
            }
        }
        partial.hash.update(bytes);
        partial.length += bytes.len() as u64;
    }

    /// A row whose rest is `line`.
    fn line(&mut self, line: &[u8]) {
        let (hash, length, is_end) = if self.partial.is_some() {
            self.begin(line);
            let Some(partial) = self.partial.take() else { return };
            (partial.hash.digest128(), partial.length, partial.length == 2 && partial.head == *END)
        } else {
            (xxh3_128(line), line.len() as u64, line == END)
        };
        if is_end && self.ending == Ending::Line {
            self.ending = Ending::Read;
            return;
        }
        self.rows.rows += 1;
        self.rows.bytes += length + 1;
        self.rows.digest.add(hash);
    }
}

fn damaged(what: &str) -> Error {
    Error::failed("rows_damaged", what)
}

impl fmt::Display for RowDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for RowDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for RowDigest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let digits = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let number = if digits { u128::from_str_radix(text, 16).ok() } else { None };
        number.map(Self).ok_or_else(|| Error::invalid_input("digest_invalid", format!("{text:?} is no digest of rows")))
    }
}

impl TryFrom<String> for RowDigest {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<RowDigest> for String {
    fn from(digest: RowDigest) -> Self {
        digest.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(text: &[u8]) -> Rows {
        let mut counter = RowCounter::of_stream();
        counter.feed(text).unwrap();
        counter.finish().unwrap()
    }

    /// The same sum, written down in another way.
    fn summed(rows: &[&[u8]]) -> RowDigest {
        RowDigest(rows.iter().fold(0, |sum: u128, row| sum.wrapping_add(xxh3_128(row))))
    }

    #[test]
    fn rows_are_lines_and_their_order_does_not_count() {
        let rows = stream(b"1\ta\n2\t\\N\n\n");
        assert_eq!((rows.rows, rows.bytes), (3, 10));
        assert_eq!(rows.digest, summed(&[b"", b"2\t\\N", b"1\ta"]));
        assert_eq!(rows, stream(b"\n1\ta\n2\t\\N\n"));
        assert_ne!(rows.digest, stream(b"1\ta\n2\t\\N\n").digest);
        assert_ne!(stream(b"1\n1\n").digest, stream(b"2\n2\n").digest);
        assert_eq!(stream(b""), Rows::default());
    }

    #[test]
    fn the_hash_is_the_published_one() {
        // Test vector of XXH3's authors for no input, seed 0.
        assert_eq!(stream(b"\n").digest.to_string(), "99aa06d3014798d86001c324468d497f");
    }

    #[test]
    fn slices_do_not_count() {
        let long = [b"x".repeat(1000), b"\n\\.y\n\\\n.\n".to_vec(), b"z".repeat(300), b"\n\n".to_vec()].concat();
        let whole = stream(&long);
        for size in [1, 2, 3, 7, 64, 240, 241, 999] {
            let mut counter = RowCounter::of_stream();
            long.chunks(size).for_each(|slice| counter.feed(slice).unwrap());
            assert_eq!(counter.finish().unwrap(), whole, "{size}");
        }
        for cut in 0..long.len() {
            let mut counter = RowCounter::of_archive();
            counter.feed(&long[..cut]).unwrap();
            counter.feed(&long[cut..]).unwrap();
            counter.feed(b"\\").unwrap();
            counter.feed(b".").unwrap();
            counter.feed(b"\n\n\n").unwrap();
            assert_eq!(counter.finish().unwrap(), whole, "{cut}");
        }
    }

    #[test]
    fn an_archives_rows_end_with_their_line() {
        let mut counter = RowCounter::of_archive();
        counter.feed(b"1\n\\.\n\n\n").unwrap();
        assert_eq!(counter.finish().unwrap(), stream(b"1\n"));
        for (text, said) in [(&b"1\n"[..], "the end of the rows is missing"), (b"1\n\\.", "the rows end within one")] {
            let mut counter = RowCounter::of_archive();
            counter.feed(text).unwrap();
            let error = counter.finish().unwrap_err();
            assert_eq!((error.code(), error.to_string().as_str()), ("rows_damaged", said));
        }
        let mut counter = RowCounter::of_archive();
        assert_eq!(counter.feed(b"\\.\n\n2\n").unwrap_err().code(), "rows_damaged");
        // A server never sends it; if one does, it is a row like others.
        assert_eq!(stream(b"\\.\n").rows, 1);
    }

    #[test]
    fn digests_are_written_as_digits() {
        let digest = stream(b"a\n").digest;
        let text = serde_json::to_string(&digest).unwrap();
        assert_eq!(text, format!("\"{digest}\""));
        assert_eq!(serde_json::from_str::<RowDigest>(&text).unwrap(), digest);
        assert_eq!(RowDigest::default().to_string(), "0".repeat(32));
        for text in ["", "0", "+0000000000000000000000000000000", "A0000000000000000000000000000000"] {
            assert_eq!(text.parse::<RowDigest>().unwrap_err().code(), "digest_invalid", "{text}");
        }
    }
}
