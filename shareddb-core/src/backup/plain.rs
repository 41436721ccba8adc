//! A plain dump for people, in a file: SQL that psql runs, or a restore reads.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use tempfile::NamedTempFile;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::Instant;

use super::dump::{Attempt, Miss, Taker};
use super::event::{BackupEvent, Stage};
use super::job::Job;
use super::lexer::first_tokens;
use super::script::{Piece, ScriptReader};
use super::statement::{MissingRoles, ScriptTarget};
use crate::error::{Error, Result};
use crate::postgres::census::Reader;

/// zstd's own default.
const LEVEL: i32 = 3;
const WAITING: usize = 4;

/// A plain dump that was written.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PlainDump {
    /// Where it is.
    pub path: PathBuf,
    /// Its size there.
    pub bytes: u64,
    /// How many tables have rows in it, or could have.
    pub tables: u64,
    /// How many rows they have.
    pub rows: u64,
    /// How long it took.
    pub took_seconds: f64,
}

impl Attempt<'_> {
    /// Writes one, which is there when it is whole and as many rows are in it as the server counted.
    pub(super) async fn write(&self, path: &Path) -> Result<PlainDump, Miss> {
        let began = Instant::now();
        let session = self.reading().await?;
        let reader = Reader(&session);
        let mut still = self.still(&reader).await?;
        let file = PlainFile::begin(path)?;
        let mut taker = IntoFile { file, counter: Counter::new(), bytes: 0, total: still.total(), job: self.job };
        self.pg_dump(&still, &["--format=plain", "--no-owner"], &mut taker).await?;
        let IntoFile { file, counter, .. } = taker;
        let rows = counter.finish()?;
        let by_table = rows.iter().map(|((schema, name), rows)| ((schema.as_str(), name.as_str()), *rows)).collect();
        self.settle(&reader, &mut still.sight, &by_table).await?;
        let bytes = file.finish().await?;
        Ok(PlainDump {
            path: path.to_owned(),
            bytes,
            tables: rows.len() as u64,
            rows: rows.values().sum(),
            took_seconds: (began.elapsed().as_secs_f64() * 10.0).round() / 10.0,
        })
    }
}

/// A file, by way of whoever counts the rows.
struct IntoFile<'a> {
    file: PlainFile,
    counter: Counter,
    bytes: u64,
    total: u64,
    job: &'a Job<'a>,
}

#[async_trait]
impl Taker for IntoFile<'_> {
    async fn take(&mut self, chunk: Bytes) -> Result<()> {
        self.counter.feed(&chunk)?;
        self.bytes += chunk.len() as u64;
        self.file.write(chunk).await?;
        let table = self.counter.table.as_ref().map(|(schema, name)| format!("{schema}.{name}"));
        let (stage, bytes, total) = (Stage::Dumping, self.bytes, Some(self.total));
        self.job.tell(BackupEvent::Moved { stage, bytes, total, table: table.as_deref() });
        Ok(())
    }
}

/// Counts the rows in a plain dump that passes by.
struct Counter {
    reader: ScriptReader,
    rows: BTreeMap<(String, String), u64>,
    table: Option<(String, String)>,
}

impl Counter {
    fn new() -> Self {
        let target = ScriptTarget { missing_roles: MissingRoles::Skip, ..ScriptTarget::default() };
        Self { reader: ScriptReader::new(target), rows: BTreeMap::new(), table: None }
    }

    fn feed(&mut self, chunk: &[u8]) -> Result<()> {
        for piece in self.reader.feed(chunk)? {
            match piece {
                Piece::CopyIn { statement } => {
                    let table = copied(&statement);
                    self.rows.extend(table.clone().map(|table| (table, 0)));
                    self.table = table;
                }
                Piece::CopyData(bytes) => {
                    let rows = self.table.as_ref().and_then(|table| self.rows.get_mut(table));
                    rows.into_iter().for_each(|rows| *rows += memchr::memchr_iter(b'\n', &bytes).count() as u64);
                }
                Piece::CopyEnd => self.table = None,
                Piece::Statement(_) | Piece::Skipped { .. } => {}
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<BTreeMap<(String, String), u64>> {
        self.reader.finish().map(|()| self.rows)
    }
}

/// The table that a statement of pg_dump's copies into.
fn copied(statement: &str) -> Option<(String, String)> {
    let tokens = first_tokens(statement, 4);
    let [copy, schema, dot, table] = tokens.as_slice() else { return None };
    (copy.is("COPY") && dot.is_sign('.')).then_some((schema.name()?, table.name()?))
}

/// A file that is there when it is whole. It is written on a thread of its own.
struct PlainFile {
    path: PathBuf,
    input: mpsc::Sender<Bytes>,
    writer: JoinHandle<io::Result<NamedTempFile>>,
}

/// Endings that a dump in plain text must not have.
const OTHER_PACKINGS: [&str; 8] = ["bz2", "xz", "lz4", "lzma", "zip", "7z", "br", "dump"];

impl PlainFile {
    fn begin(path: &Path) -> Result<Self> {
        let failed = |error| Error::from_io(format!("cannot write {}", path.display()), error);
        // What is written takes the place of what is there.
        if path.exists() && !path.is_file() {
            return Err(failed(io::ErrorKind::IsADirectory.into()).with_hint("name a file"));
        }
        let packing = path.extension().and_then(|name| name.to_str()).map(str::to_ascii_lowercase);
        if let Some(other) = packing.as_deref().filter(|name| OTHER_PACKINGS.contains(name)) {
            let message = format!("{} asks for a form that is not written here: .{other}", path.display());
            return Err(
                Error::invalid_input("dump_packing", message).with_hint("end its name in .sql, .sql.gz or .sql.zst")
            );
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Nobody else may read it: it is made so, and stays so.
        let file = NamedTempFile::with_prefix_in(".shareddb-dump-", folder).map_err(failed)?;
        let (input, chunks) = mpsc::channel(WAITING);
        let writer = spawn_blocking(move || match packing.as_deref() {
            Some("gz") => {
                let encoder = copy(chunks, GzEncoder::new(file, Compression::default()))?;
                synced(encoder.finish()?)
            }
            Some("zst") => synced(copy(chunks, zstd::Encoder::new(file, LEVEL)?)?.finish()?),
            _ => synced(copy(chunks, file)?),
        });
        Ok(Self { path: path.to_owned(), input, writer })
    }

    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        match self.input.send(chunk).await {
            Ok(()) => Ok(()),
            // It says why when it is asked to end.
            Err(_) => Err(self.ended().await.err().unwrap_or_else(|| Error::failed("internal", "a file ended early"))),
        }
    }

    async fn ended(&mut self) -> Result<NamedTempFile> {
        let cut = |error| Error::failed("internal", "writing a dump was cut short").with_source(error);
        let failed = |error| Error::from_io(format!("cannot write {}", self.path.display()), error);
        (&mut self.writer).await.map_err(cut)?.map_err(failed)
    }

    /// Its size.
    async fn finish(mut self) -> Result<u64> {
        // What has no sender ends.
        self.input = mpsc::channel(1).0;
        let file = self.ended().await?;
        let failed = |error| Error::from_io(format!("cannot write {}", self.path.display()), error);
        let kept = file.persist(&self.path).map_err(|error| failed(error.error))?;
        Ok(kept.metadata().map_err(failed)?.len())
    }
}

fn copy<W: Write>(mut chunks: mpsc::Receiver<Bytes>, mut to: W) -> io::Result<W> {
    while let Some(chunk) = chunks.blocking_recv() {
        to.write_all(&chunk)?;
    }
    Ok(to)
}

fn synced(mut file: NamedTempFile) -> io::Result<NamedTempFile> {
    file.flush()?;
    file.as_file().sync_all()?;
    Ok(file)
}
