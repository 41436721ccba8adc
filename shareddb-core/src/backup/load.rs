//! Loading an archive into a scratch database with pg_restore, while our own reader digests it.

use std::io::Write as _;
use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt as _;
use tokio::process::ChildStdin;

use super::archive::{ArchiveReader, Contents};
use super::event::{BackupEvent, Stage};
use super::incoming::Order;
use super::job::Job;
use super::origin::Origin;
use super::pins::Pins;
use super::program::Program;
use super::scratch::Scratch;
use super::selection::{LoadList, Target};
use super::toc::Toc;
use super::unpack::Unpack;
use crate::error::{Error, Result};
use crate::postgres::sql::identifiers;
use crate::postgres::{maintenance, renaming};

/// A dump as it comes.
#[async_trait]
pub(super) trait Chunks: Send {
    /// The next bytes; none after the last.
    async fn next(&mut self) -> Result<Option<Bytes>>;
}

#[async_trait]
impl Chunks for Unpack {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        Unpack::next(self).await
    }
}

/// What was read, and what of it was to be loaded.
pub(super) struct Loaded {
    pub(super) contents: Contents,
    pub(super) list: LoadList,
}

/// What loads into a scratch.
pub(super) struct Loader<'a> {
    pub(super) job: &'a Job<'a>,
    pub(super) scratch: &'a Scratch<'a>,
}

/// Reads an archive to its end, for what it holds.
pub(super) async fn read(mut archive: Unpack, total: u64, tell: &(dyn Fn(BackupEvent<'_>) + Sync)) -> Result<Contents> {
    tell(BackupEvent::Began(Stage::Reading));
    let mut reader = ArchiveReader::new();
    while let Some(chunk) = archive.next().await? {
        reader.feed(&chunk)?;
        moved(tell, Stage::Reading, &reader, total);
    }
    reader.finish()
}

impl Loader<'_> {
    /// Loads a backup.
    ///
    /// # Errors
    /// `ToolFailed` with what pg_restore said (`names_unqualified` where [`Order::WithPath`] may do better), and those of a
    /// damaged archive, which count more.
    pub(super) async fn load(&self, origin: &Origin<'_>, target: &Target, order: &Order) -> Result<Loaded> {
        self.job.tell(BackupEvent::Began(Stage::Loading));
        let total = origin.manifest.data.archive_bytes;
        let mut archive = origin.read().await?;
        let mut reader = ArchiveReader::new();
        let mut read = Vec::new();
        // What is to be loaded is known when the table of contents is, which comes first.
        while reader.toc().is_none() {
            let Some(chunk) = archive.next().await? else { break };
            reader.feed(&chunk)?;
            read.push(chunk);
        }
        let Some(toc) = reader.toc() else {
            return Err(Error::failed("archive_damaged", "the archive ends within its table of contents"));
        };
        let list = LoadList::of(toc, target);
        let mut digest = |chunk: &Bytes| {
            reader.feed(chunk)?;
            moved(&|event| self.job.tell(event), Stage::Loading, &reader, total);
            Ok(())
        };
        match order {
            Order::Once => self.pass(&list.whole(), read, &mut archive, &mut digest).await?,
            Order::WithPath(path) => {
                let [functions, tables, late] = list.passes();
                let mut pins = self.pins(path).await?;
                for early in [functions, tables] {
                    self.early_pass(&early, &mut origin.read().await?).await?;
                    pins.give().await?;
                }
                self.pass(&late, read, &mut archive, &mut digest).await?;
                pins.take().await?;
            }
        }
        let contents = reader.finish()?;
        self.say(&list).await?;
        if !contents.toc.entries().iter().any(|entry| entry.kind == "SCHEMA" && entry.tag == "public") {
            renaming::drop_schema(&self.scratch.loading().await?.connect().await?, "public").await?;
        }
        Ok(Loaded { contents, list })
    }

    /// What gives the app's functions a search path while they are loaded.
    pub(super) async fn pins(&self, path: &[String]) -> Result<Pins> {
        Ok(Pins::new(self.scratch.loading().await?.connect().await?, path))
    }

    /// Runs what of the rights is not pg_restore's to run.
    pub(super) async fn say(&self, list: &LoadList) -> Result<()> {
        if list.statements().is_empty() {
            return Ok(());
        }
        let session = self.scratch.loading().await?.connect().await?;
        maintenance::run_all(&session, list.statements()).await
    }

    /// Hands everything to the owner and has the server look at it, which needs the search path that `path` is where functions of
    /// the app do. Returns what should be known of that.
    pub(super) async fn settle(&self, path: &[String]) -> Result<Vec<String>> {
        self.job.tell(BackupEvent::Began(Stage::Analyzing));
        self.scratch.gather().await?;
        let config = self.scratch.loading().await?.with_option("search_path", identifiers(path));
        let missed = maintenance::analyze(&config.connect().await?).await?;
        Ok(missed.into_iter().map(|what| format!("the planner knows nothing of {what}")).collect())
    }

    /// Has pg_restore load what `list` says of an archive that lies in a file or a folder.
    pub(super) async fn load_path(&self, path: &Path, list: &str) -> Result<()> {
        let (mut program, _list) = self.start(list, Some(path)).await?;
        drop(program.child.stdin.take());
        program.finish().await
    }

    /// Has it load what `list` says of the beginning of one that passes by.
    pub(super) async fn early_pass(&self, list: &str, archive: &mut dyn Chunks) -> Result<()> {
        let (mut program, _list) = self.start(list, None).await?;
        let mut input = program.child.stdin.take();
        while input.is_some()
            && let Some(chunk) = archive.next().await?
        {
            write(&mut input, &chunk).await;
        }
        drop(input);
        program.finish().await
    }

    /// Has it load what `list` says of one that passes by; `see` sees all of it.
    pub(super) async fn pass(
        &self,
        list: &str,
        read: Vec<Bytes>,
        archive: &mut dyn Chunks,
        see: &mut (dyn FnMut(&Bytes) -> Result<()> + Send),
    ) -> Result<()> {
        let (mut program, _list) = self.start(list, None).await?;
        let mut input = program.child.stdin.take();
        for chunk in &read {
            write(&mut input, chunk).await;
        }
        while let Some(chunk) = archive.next().await? {
            // Where the archive is damaged nothing more is to be loaded of it.
            see(&chunk)?;
            write(&mut input, &chunk).await;
        }
        if let Some(input) = &mut input {
            let _ = input.shutdown().await;
        }
        drop(input);
        program.finish().await
    }

    async fn start(&self, list: &str, path: Option<&Path>) -> Result<(Program, NamedTempFile)> {
        let file = written(list)?;
        let mut arguments: Vec<String> = [
            "--no-password",
            "--no-owner",
            "--no-tablespaces",
            "--no-security-labels",
            "--exit-on-error",
            // A materialized view over a table that hides rows is refused without; rows are loaded before security is on.
            "--enable-row-security",
        ]
        .map(str::to_owned)
        .into();
        arguments.push(format!("--use-list={}", file.path().display()));
        arguments.push(format!("--dbname={}", self.scratch.name()));
        // No name is taken for an option.
        arguments.extend(
            path.map(|path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()),
        );
        let job = self.job;
        Ok((Program::start(&job.binaries, "pg_restore", &self.scratch.loading().await?, &arguments)?, file))
    }
}

/// A program that reads no more has all it needs, or says why not.
async fn write(input: &mut Option<ChildStdin>, chunk: &Bytes) {
    if let Some(open) = input
        && open.write_all(chunk).await.is_err()
    {
        *input = None;
    }
}

fn written(list: &str) -> Result<NamedTempFile> {
    let failed = |error| Error::from_io("cannot write the list of what is loaded", error);
    let mut file = NamedTempFile::with_prefix("shareddb-list-").map_err(failed)?;
    file.write_all(list.as_bytes()).map_err(failed)?;
    Ok(file)
}

/// What pg_dump says of the schema of a database that is there.
pub(super) async fn schema(job: &Job<'_>, database: &str) -> Result<Toc> {
    use tokio::io::AsyncReadExt as _;
    let arguments = [
        "--no-password",
        "--format=custom",
        "--compress=0",
        "--schema-only",
        "--no-tablespaces",
        "--no-security-labels",
    ];
    let mut program = Program::start(&job.binaries, "pg_dump", &job.reading(database), &arguments.map(str::to_owned))?;
    let Some(mut output) = program.child.stdout.take() else {
        return Err(Error::failed("internal", "pg_dump has no output"));
    };
    let mut reader = ArchiveReader::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match output.read(&mut buffer).await.map_err(|error| Error::from_io("cannot read from pg_dump", error))? {
            0 => break,
            length => reader.feed(&buffer[..length])?,
        }
    }
    program.finish().await?;
    Ok(reader.finish()?.toc)
}

fn moved(tell: &(dyn Fn(BackupEvent<'_>) + Sync), stage: Stage, reader: &ArchiveReader, total: u64) {
    let position = reader.position();
    let table = position.table.map(ToString::to_string);
    tell(BackupEvent::Moved { stage, bytes: position.bytes, total: Some(total), table: table.as_deref() });
}
