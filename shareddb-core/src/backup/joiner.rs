//! An archive on its way to the store, with its rows in larger chunks: without compression of its own pg_dump writes each row as
//! a chunk, with its length before it, which takes room, and time where it is read again.

use bytes::{Bytes, BytesMut};

/// What a chunk of rows has, but for the last of a table. pg_restore reads a chunk whole.
pub(super) const CHUNK: usize = 64 << 10;

/// Takes an archive piece by piece, and gives one that says the same.
#[derive(Debug, Default)]
pub(super) struct Joiner {
    /// Rows that are not yet a chunk.
    rows: Vec<u8>,
    joined: BytesMut,
}

impl Joiner {
    /// Something that stays as it is.
    pub(super) fn other(&mut self, bytes: &[u8]) {
        self.joined.extend_from_slice(bytes);
    }

    /// What is in a chunk of rows.
    pub(super) fn rows(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK - self.rows.len()));
            self.rows.extend_from_slice(now);
            if self.rows.len() == CHUNK {
                self.chunk();
            }
            bytes = later;
        }
    }

    /// The end of a table's rows, with the bytes that say so.
    pub(super) fn end(&mut self, end: &[u8]) {
        if !self.rows.is_empty() {
            self.chunk();
        }
        self.other(end);
    }

    fn chunk(&mut self) {
        // It fits: a chunk is never longer than the limit.
        let length = u32::try_from(self.rows.len()).unwrap_or(u32::MAX);
        self.joined.extend_from_slice(&[0]);
        self.joined.extend_from_slice(&length.to_le_bytes());
        self.joined.extend_from_slice(&self.rows);
        self.rows.clear();
    }

    /// What is to be passed on by now.
    pub(super) fn take(&mut self) -> Bytes {
        self.joined.split().freeze()
    }
}
