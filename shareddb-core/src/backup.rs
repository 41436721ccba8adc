//! Backups of one app's database: what is in them, where they are kept, how they come back.

mod archive;
mod blocks;
mod cursor;
mod digest;
mod grants;
mod lexer;
mod schema_digest;
mod script;
mod selection;
mod splitter;
mod statement;
mod toc;
mod toc_reader;

pub use archive::{ArchiveReader, Contents, Position};
pub use digest::{RowCounter, RowDigest, Rows};
pub use schema_digest::{difference, schema_digest};
pub use script::{Piece, ScriptReader};
pub use selection::{DefaultPrivileges, LeftOut, LoadList, Target, Why, roles_named};
pub use statement::{MissingRoles, ScriptTarget};
pub use toc::{ArchiveVersion, Entry, Section, Toc};
