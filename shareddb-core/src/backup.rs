//! Backups of one app's database: what is in them, where they are kept, how they come back.

mod archive;
mod blocks;
mod cursor;
mod digest;
mod toc;
mod toc_reader;

pub use archive::{ArchiveReader, Contents, Position};
pub use digest::{RowCounter, RowDigest, Rows};
pub use toc::{ArchiveVersion, Entry, Section, Toc};
