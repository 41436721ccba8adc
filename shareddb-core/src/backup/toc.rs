//! The table of contents of an archive of pg_dump.

use std::collections::BTreeMap;
use std::fmt;

/// What an archive says about itself and everything that is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Toc {
    /// The version of the format.
    pub version: ArchiveVersion,
    /// The database that was dumped.
    pub database: String,
    /// The version of its server, such as `15.18`, perhaps with words after it.
    pub server_version: String,
    /// The version of the pg_dump that wrote it.
    pub dump_version: String,
    pub(super) entries: Vec<Entry>,
}

/// The version of pg_dump's custom format: 1.14 up to PostgreSQL 15, 1.15 for 16, 1.16 from 17 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ArchiveVersion {
    pub(super) major: u8,
    pub(super) minor: u8,
}

/// One object, or one aspect of an object, in an archive. Text is as it stands in the file; what is missing is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The number by which the archive refers to it.
    pub id: i32,
    /// Whether a block of data belongs to it.
    pub has_data: bool,
    /// The catalog that the object is in, by its OID; 0 for none.
    pub catalog: u32,
    /// The object's OID in that catalog; 0 for none.
    pub oid: u32,
    /// The object's name, unquoted, or a phrase such as `TABLE t`.
    pub tag: String,
    /// Such as `TABLE` or `FK CONSTRAINT`.
    pub kind: String,
    /// When it is loaded.
    pub section: Section,
    /// The statements that make it.
    pub definition: String,
    /// The COPY statement that its data belong to, with its newline.
    pub copy_statement: String,
    /// Its schema, unquoted.
    pub namespace: String,
    /// The role that owns it, unquoted.
    pub owner: String,
    /// Entries that have to be loaded before.
    pub dependencies: Vec<i32>,
}

/// The parts of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Section {
    /// With the object that it belongs to: comments, rights.
    None,
    /// Before the data.
    PreData,
    /// The data.
    Data,
    /// After the data: indexes, constraints, triggers.
    PostData,
}

impl Toc {
    /// Everything, in the archive's order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Entries by their numbers.
    pub(super) fn by_id(&self) -> BTreeMap<i32, &Entry> {
        self.entries.iter().map(|entry| (entry.id, entry)).collect()
    }
}

impl<'a> IntoIterator for &'a Toc {
    type Item = &'a Entry;
    type IntoIter = std::slice::Iter<'a, Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.iter()
    }
}

impl Entry {
    /// Whether it belongs to the database as a whole, which a load never makes: `DATABASE` itself, its settings, and
    /// rights, comments and labels on it.
    pub(super) fn is_of_database(&self) -> bool {
        match self.kind.as_str() {
            "DATABASE" | "DATABASE PROPERTIES" => true,
            "ACL" | "COMMENT" | "SECURITY LABEL" => self.tag.starts_with("DATABASE "),
            _ => false,
        }
    }
}

impl fmt::Display for ArchiveVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// For people: `TABLE my_app.orders`, on one line.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let schema = if self.namespace.is_empty() { String::new() } else { format!("{}.", self.namespace) };
        let line = format!("{} {schema}{}", self.kind, self.tag);
        f.write_str(&line.replace(|character: char| character.is_control(), " "))
    }
}

/// Entries that other files' tests are about.
#[cfg(test)]
pub(super) mod sample {
    use super::{Entry, Section};

    /// An entry of an owner `app_db`, without a definition.
    pub(in super::super) fn entry(id: i32, kind: &str, namespace: &str, tag: &str) -> Entry {
        Entry {
            id,
            has_data: false,
            catalog: 1259,
            oid: 16384,
            tag: tag.to_owned(),
            kind: kind.to_owned(),
            section: Section::PreData,
            definition: String::new(),
            copy_statement: String::new(),
            namespace: namespace.to_owned(),
            owner: "app_db".to_owned(),
            dependencies: Vec::new(),
        }
    }

    impl Entry {
        pub(in super::super) fn defined(self, definition: &str) -> Self {
            Self { definition: definition.to_owned(), ..self }
        }

        pub(in super::super) fn owned(self, owner: &str) -> Self {
            Self { owner: owner.to_owned(), ..self }
        }

        pub(in super::super) fn within(self, section: Section) -> Self {
            Self { section, ..self }
        }

        pub(in super::super) fn needing(self, dependencies: &[i32]) -> Self {
            Self { dependencies: dependencies.to_vec(), ..self }
        }
    }
}
