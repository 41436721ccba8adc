//! Loading an archive into a scratch database with pg_restore, while our own reader digests it.

use std::io::Write as _;

use bytes::Bytes;
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt as _;

use super::archive::{ArchiveReader, Contents};
use super::event::{BackupEvent, Stage};
use super::job::Job;
use super::program::Program;
use super::selection::{LoadList, Target};
use super::toc::Toc;
use super::unpack::Unpack;
use crate::error::{Error, Result};
use crate::postgres::maintenance;

/// What was read, and what of it was to be loaded.
pub(super) struct Loaded {
    pub(super) contents: Contents,
    pub(super) list: LoadList,
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

/// Loads it into `database`.
///
/// # Errors
/// `ToolFailed` with what pg_restore said, and those of a damaged archive, which count more.
pub(super) async fn load(
    job: &Job<'_>,
    mut archive: Unpack,
    database: &str,
    target: &Target,
    total: u64,
    tell: &(dyn Fn(BackupEvent<'_>) + Sync),
) -> Result<Loaded> {
    tell(BackupEvent::Began(Stage::Loading));
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
    let file = written(&list)?;
    let arguments = arguments(database, &file);
    let mut program = Program::start(&job.binaries, "pg_restore", &job.loading(database), &arguments)?;
    let passed = pass(&mut program, &mut archive, &mut reader, read, total, tell).await;
    let finished = match &passed {
        // Where the archive is damaged nothing more is to be loaded of it.
        Err(error) if error.code() != "pipe_closed" => Ok(()),
        _ => program.finish().await,
    };
    finished?;
    passed?;
    let contents = reader.finish()?;
    if !list.statements().is_empty() {
        let session = job.loading(database).connect().await?;
        maintenance::run_all(&session, list.statements()).await?;
    }
    Ok(Loaded { contents, list })
}

/// Passes the archive on as it is read.
async fn pass(
    program: &mut Program,
    archive: &mut Unpack,
    reader: &mut ArchiveReader,
    read: Vec<Bytes>,
    total: u64,
    tell: &(dyn Fn(BackupEvent<'_>) + Sync),
) -> Result<()> {
    let Some(mut input) = program.child.stdin.take() else {
        return Err(Error::failed("internal", "pg_restore has no input"));
    };
    // Why it does not read on, it says itself.
    let closed = |error: std::io::Error| Error::failed("pipe_closed", "pg_restore reads no more").with_source(error);
    for chunk in read {
        input.write_all(&chunk).await.map_err(closed)?;
    }
    while let Some(chunk) = archive.next().await? {
        reader.feed(&chunk)?;
        input.write_all(&chunk).await.map_err(closed)?;
        moved(tell, Stage::Loading, reader, total);
    }
    input.shutdown().await.map_err(closed)
}

fn arguments(database: &str, list: &NamedTempFile) -> Vec<String> {
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
    arguments.push(format!("--use-list={}", list.path().display()));
    arguments.push(format!("--dbname={database}"));
    arguments
}

fn written(list: &LoadList) -> Result<NamedTempFile> {
    let failed = |error| Error::from_io("cannot write the list of what is loaded", error);
    let mut file = NamedTempFile::with_prefix("shareddb-list-").map_err(failed)?;
    file.write_all(list.whole().as_bytes()).map_err(failed)?;
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
