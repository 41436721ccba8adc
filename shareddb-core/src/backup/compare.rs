//! Comparing what a load has made with what the manifest says was dumped.

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, pin_mut};

use super::archive::Contents;
use super::digest::{RowCounter, Rows};
use super::dump;
use super::event::{BackupEvent, Stage};
use super::load::{self, Loader};
use super::manifest::Manifest;
use super::renaming::Renaming;
use super::schema_digest::{difference, schema_digest};
use super::selection::LoadList;
use super::toc::Entry;
use crate::connection::Session;
use crate::error::{Error, Result};
use crate::postgres::census::{Reader, SequenceFact};
use crate::postgres::sql::escaped;

/// How many differences are told.
const TOLD: usize = 20;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Findings(pub(super) Vec<String>);

impl Findings {
    fn add(&mut self, text: impl AsRef<str>) {
        self.0.push(escaped(text.as_ref()));
    }

    /// As an error about the backup.
    pub(super) fn into_result(self, id: &str) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let more = self.0.len().saturating_sub(TOLD);
        let mut told = self.0[..self.0.len().min(TOLD)].join("; ");
        if more > 0 {
            told.push_str(&format!("; and {more} more"));
        }
        Err(Error::failed("backup_differs", format!("backup {id} is not what was dumped: {told}"))
            .with_hint("restore another one: `shareddb backups` lists them, and `shareddb verify` proves them"))
    }
}

/// Compares what was read from the archive with the manifest.
pub(super) fn archive(manifest: &Manifest, contents: &Contents) -> Findings {
    let mut findings = Findings::default();
    let read: BTreeMap<(&str, &str), &Rows> = tables(contents).map(|(entry, rows)| (key(entry), rows)).collect();
    for table in &manifest.tables {
        match read.get(&(table.schema.as_str(), table.name.as_str())) {
            None => findings.add(format!("table {}.{} is not in it", table.schema, table.name)),
            Some(rows) if (rows.rows, rows.digest) != (table.rows, table.digest) => findings.add(format!(
                "table {}.{} has {} rows with digest {}, not {} with {}",
                table.schema, table.name, rows.rows, rows.digest, table.rows, table.digest
            )),
            Some(_) => {}
        }
    }
    if read.len() != manifest.tables.len() {
        findings.add(format!("it has {} tables, not {}", read.len(), manifest.tables.len()));
    }
    if contents.large_objects != manifest.large_objects {
        findings.add(format!("it has {} large objects, not {}", contents.large_objects, manifest.large_objects));
    }
    if schema_digest(&contents.toc) != manifest.schema_digest {
        findings.add("its definitions are others");
    }
    findings
}

/// Compares the database with the archive that was loaded into it, whose digests are the manifest's by then. The schema has its
/// name of there, and roles have theirs of here.
pub(super) async fn database(
    loader: &Loader<'_>,
    manifest: &Manifest,
    contents: &Contents,
    list: &LoadList,
    renaming: &Renaming,
    path: &[String],
) -> Result<Findings> {
    let (job, name) = (loader.job, loader.scratch.name());
    job.tell(BackupEvent::Began(Stage::Comparing));
    let mut findings = Findings::default();
    let session = dump::reading(job, name).await?;
    let reader = Reader(&session);
    reader.freeze(std::iter::empty()).await?;
    let total = contents.tables.values().map(|rows| rows.bytes).sum();
    let mut bytes = 0;
    let raw = dump::reading(job, name).await?;
    Reader(&raw).freeze(std::iter::empty()).await?;
    Reader(&raw).as_stored().await?;
    for (entry, rows) in tables(contents) {
        let found = digest(&raw, entry, path).await?;
        if found != *rows {
            findings.add(format!(
                "table {}.{} was loaded with {} rows and digest {}, not {} and {}",
                entry.namespace, entry.tag, found.rows, found.digest, rows.rows, rows.digest
            ));
        }
        bytes += rows.bytes;
        let (stage, table) = (Stage::Comparing, entry.tag.as_str());
        job.tell(BackupEvent::Moved { stage, bytes, total: Some(total), table: Some(table) });
    }
    let listed = reader.tables().await?;
    let counts = reader.counts(&listed, path).await?;
    let expected: BTreeMap<(&str, &str), u64> =
        manifest.tables.iter().map(|table| ((table.schema.as_str(), table.name.as_str()), table.rows)).collect();
    for (table, count) in listed.iter().zip(counts) {
        match expected.get(&(table.schema.as_str(), table.name.as_str())) {
            Some(rows) if *rows != count => {
                findings.add(format!("table {}.{} has {count} rows, not {rows}", table.schema, table.name));
            }
            None if table.extension.is_none() => {
                findings.add(format!("table {}.{} is one too many", table.schema, table.name));
            }
            _ => {}
        }
    }
    sequences(&mut findings, manifest, &reader.sequences().await?);
    let own: Vec<&str> = job.app.roles().map(AsRef::as_ref).collect();
    let census = reader.census(&own).await?;
    if census.large_objects != manifest.large_objects {
        findings.add(format!("{} large objects, not {}", census.large_objects, manifest.large_objects));
    }
    let foreign = reader.foreign(job.app.owner.as_str()).await?;
    findings.0.extend(foreign.iter().map(|object| format!("{object} does not belong to the app")));
    findings.0.extend(reader.unsound().await?.iter().map(|object| format!("{object} is not valid")));
    drop(session);
    let schema = load::schema(job, name).await?;
    let expected = renaming.expected(&contents.toc);
    findings.0.extend(difference(list.comparable(&expected), list.comparable(&schema)));
    Ok(findings)
}

/// What the rows of a table come to where it was loaded. A dump is written without a search path, which what names objects
/// shows; where an index needs the app's, the table is read with that.
async fn digest(session: &Session, entry: &Entry, path: &[String]) -> Result<Rows> {
    let reader = Reader(session);
    reader.mark().await?;
    let mut found = rows(session, entry).await;
    reader.back().await?;
    if found.as_ref().is_err_and(|error| error.sqlstate().is_some_and(|state| state.starts_with("42"))) {
        reader.mark().await?;
        reader.follow(path).await?;
        found = rows(session, entry).await;
        reader.back().await?;
    }
    found
}

async fn rows(session: &Session, entry: &Entry) -> Result<Rows> {
    let failed =
        |source| Error::from_postgres(format_args!("cannot read table {}.{}", entry.namespace, entry.tag), source);
    let copy = Reader(session).copy_out(&entry.namespace, &entry.tag, &entry.copy_statement);
    let stream = session.copy_out(copy.as_str()).await.map_err(failed)?;
    pin_mut!(stream);
    let mut counter = RowCounter::of_stream();
    while let Some(chunk) = stream.next().await {
        counter.feed(&chunk.map_err(failed)?)?;
    }
    counter.finish()
}

/// A sequence goes on while a dump runs; it must not have gone back.
fn sequences(findings: &mut Findings, manifest: &Manifest, found: &[SequenceFact]) {
    let found: BTreeMap<(&str, &str), &SequenceFact> =
        found.iter().map(|sequence| ((sequence.schema.as_str(), sequence.name.as_str()), sequence)).collect();
    for sequence in &manifest.sequences {
        let name = format!("{}.{}", sequence.schema, sequence.name);
        let Some(fact) = found.get(&(sequence.schema.as_str(), sequence.name.as_str())) else {
            findings.add(format!("sequence {name} is missing"));
            continue;
        };
        // Some descend, and some are set back meanwhile.
        let (low, high) = (sequence.before.min(sequence.after), sequence.before.max(sequence.after));
        if !(low..=high).contains(&fact.value) {
            findings.add(format!("sequence {name} stands at {}, not between {low} and {high}", fact.value));
        }
    }
}

fn tables(contents: &Contents) -> impl Iterator<Item = (&Entry, &Rows)> {
    contents
        .toc
        .entries()
        .iter()
        .filter(|entry| entry.kind == "TABLE DATA")
        .filter_map(|entry| Some((entry, contents.tables.get(&entry.id)?)))
}

fn key(entry: &Entry) -> (&str, &str) {
    (entry.namespace.as_str(), entry.tag.as_str())
}
