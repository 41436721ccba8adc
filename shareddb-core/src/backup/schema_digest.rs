//! Whether two databases have the same schema, by what pg_dump says of them.

use std::cmp::Ordering;
use std::fmt::Write as _;

use aws_lc_rs::digest::{Context, SHA256};

use super::toc::Entry;

/// A digest of everything in a table of contents that a load brings back: each object's kind, schema, name, definition
/// and owner, in whatever order they stand. What belongs to the database as a whole is not in it, nor are data.
///
/// Give it a [`Toc`](super::Toc), or those of its entries that are meant to come back.
pub fn schema_digest<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> String {
    let mut context = Context::new(&SHA256);
    for entry in sorted(entries) {
        for part in identity(entry).into_iter().chain([entry.definition.as_str(), entry.owner.as_str()]) {
            // The length keeps neighbours apart: no two lists of texts come to the same bytes.
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part.as_bytes());
        }
    }
    context.finish().as_ref().iter().fold(String::with_capacity(64), |mut digits, byte| {
        // Writing to a text does not fail.
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

/// The objects that differ, one sentence each: missing, not expected, or made or owned in another way.
///
/// It is empty where the digests are equal.
pub fn difference<'a>(
    expected: impl IntoIterator<Item = &'a Entry>,
    found: impl IntoIterator<Item = &'a Entry>,
) -> Vec<String> {
    let (expected, found) = (sorted(expected), sorted(found));
    let (mut expected, mut found) = (expected.into_iter().peekable(), found.into_iter().peekable());
    let mut sentences = Vec::new();
    loop {
        let (wanted, other) = match (expected.peek(), found.peek()) {
            (None, None) => return sentences,
            (wanted, other) => (wanted.copied(), other.copied()),
        };
        let order = match (wanted, other) {
            (Some(wanted), Some(other)) => identity(wanted).cmp(&identity(other)),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        let wanted = if order.is_le() { expected.next() } else { None };
        let other = if order.is_ge() { found.next() } else { None };
        match (wanted, other) {
            (Some(wanted), Some(other)) if wanted.definition != other.definition => {
                sentences.push(format!("{wanted} is defined differently"));
            }
            (Some(wanted), Some(other)) if wanted.owner != other.owner => {
                sentences.push(format!("{wanted} belongs to {:?} and not to {:?}", other.owner, wanted.owner));
            }
            (Some(_), Some(_)) | (None, None) => {}
            (Some(wanted), None) => sentences.push(format!("{wanted} is missing")),
            (None, Some(other)) => sentences.push(format!("{other} is not expected")),
        }
    }
}

/// What is compared, in an order that does not depend on how it was dumped.
fn sorted<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Vec<&'a Entry> {
    let mut sorted: Vec<_> = entries.into_iter().filter(|entry| is_schema(entry)).collect();
    sorted.sort_by(|one, other| {
        let rest = |entry: &'a Entry| (entry.definition.as_str(), entry.owner.as_str());
        identity(one).cmp(&identity(other)).then_with(|| rest(one).cmp(&rest(other)))
    });
    sorted
}

fn identity(entry: &Entry) -> [&str; 3] {
    [&entry.kind, &entry.namespace, &entry.tag]
}

/// Whether `pg_dump --schema-only` of an equal database has it, too.
fn is_schema(entry: &Entry) -> bool {
    let is_data = match entry.kind.as_str() {
        "TABLE DATA"
        | "MATERIALIZED VIEW DATA"
        | "SEQUENCE SET"
        | "BLOB"
        | "BLOBS"
        | "BLOB METADATA"
        | "BLOB COMMENTS"
        | "STATISTICS DATA" => true,
        "ACL" | "COMMENT" | "SECURITY LABEL" => entry.tag.starts_with("LARGE OBJECT"),
        _ => false,
    };
    !is_data && !entry.is_of_database()
}

#[cfg(test)]
mod tests {
    use super::super::toc::sample::entry;
    use super::*;

    fn schema() -> Vec<Entry> {
        let table = entry(10, "TABLE", "s", "t").defined("CREATE TABLE s.t (x int);\n");
        vec![table, entry(11, "VIEW", "s", "v").defined("CREATE VIEW s.v AS SELECT 1;\n")]
    }

    #[test]
    fn order_numbers_data_and_the_database_do_not_count() {
        let schema = schema();
        let mut other: Vec<_> = schema.iter().rev().cloned().collect();
        other.iter_mut().for_each(|entry| entry.id += 100);
        let beside = [
            ("TABLE DATA", "t"),
            ("SEQUENCE SET", "t_seq"),
            ("BLOBS", "BLOBS"),
            ("BLOB METADATA", "1..2"),
            ("DATABASE", "d"),
            ("DATABASE PROPERTIES", "d"),
            ("ACL", "DATABASE d"),
            ("COMMENT", "DATABASE d"),
            ("ACL", "LARGE OBJECT 1"),
            ("STATISTICS DATA", "t"),
        ];
        other.extend((200..).zip(beside).map(|(id, (kind, tag))| entry(id, kind, "", tag)));
        assert_eq!(schema_digest(&schema), schema_digest(&other));
        assert_eq!(difference(&schema, &other), Vec::<String>::new());
        assert_eq!(schema_digest(&[]), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }

    #[test]
    fn every_part_counts_and_differences_are_named() {
        let schema = schema();
        let changed = |change: &dyn Fn(&mut Vec<Entry>)| {
            let mut other = schema.clone();
            change(&mut other);
            assert_ne!(schema_digest(&schema), schema_digest(&other));
            difference(&schema, &other)
        };
        assert_eq!(changed(&|other| other.truncate(1)), ["VIEW s.v is missing"]);
        assert_eq!(changed(&|other| other.push(entry(12, "ACL", "s", "TABLE t"))), ["ACL s.TABLE t is not expected"]);
        assert_eq!(changed(&|other| other.push(other[0].clone())), ["TABLE s.t is not expected"]);
        assert_eq!(changed(&|other| other[0].definition.push(' ')), ["TABLE s.t is defined differently"]);
        assert_eq!(changed(&|other| other[1].owner = "x".into()), ["VIEW s.v belongs to \"x\" and not to \"app_db\""]);
        assert_eq!(changed(&|other| other[0].tag = "u".into()), ["TABLE s.t is missing", "TABLE s.u is not expected"]);
        // What moves from one text to its neighbour is a difference.
        assert_ne!(schema_digest(&[entry(1, "A", "b", "c")]), schema_digest(&[entry(1, "A", "bc", "")]));
    }
}
