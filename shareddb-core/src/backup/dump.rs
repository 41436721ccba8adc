//! Taking a backup: lock, snapshot, count, dump, compare, publish.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use rand::RngExt as _;
use tokio::io::AsyncReadExt as _;
use tokio::process::ChildStdout;
use tokio::time::{Instant, interval_at, sleep};

use super::archive::{ArchiveReader, Contents};
use super::event::{BackupEvent, Stage};
use super::id::BackupId;
use super::job::Job;
use super::manifest::Manifest;
use super::options::BackupOptions;
use super::pack::{Pack, PackOptions};
use super::program::Program;
use super::record::{self, Circumstances};
use super::shelf::Shelf;
use crate::connection::Session;
use crate::error::{Error, Result};
use crate::postgres::blockers;
use crate::postgres::census::{Census, LOCK_PATIENCE, Reader, SequenceFact, TableFact};
use crate::postgres::maintenance::may_bypass_row_security;
use crate::postgres::requirements;
use crate::postgres::session::AdminSession;
use crate::postgres::sql::identifier;

/// How often it is tried while tables are locked or rewritten under it.
const ATTEMPTS: u32 = 5;
/// How often it gives way to somebody who waits.
const YIELDS: u32 = 2;
/// How often it is looked whether somebody waits.
const WATCH: Duration = Duration::from_secs(2);
/// Bytes that are passed on at once.
const CHUNK: usize = 1 << 20;

/// What pg_dump says when others lock or drop what it is about to read: its time for a lock is one for the statement.
const SOMEBODY_ELSE: [&str; 4] =
    ["due to lock timeout", "due to statement timeout", "does not exist", "could not open relation"];

/// Why an attempt came to nothing.
pub(super) enum Miss {
    /// Another attempt may do better.
    Again(Error),
    /// Somebody waited for it too long.
    GaveWay(String),
    Over(Error),
}

impl From<Error> for Miss {
    fn from(error: Error) -> Self {
        Self::Over(error)
    }
}

/// What was seen in the snapshot.
pub(super) struct Sight {
    pub(super) tables: Vec<TableFact>,
    pub(super) counts: Vec<u64>,
    pub(super) census: Census,
    pub(super) before: Vec<SequenceFact>,
    pub(super) after: Vec<SequenceFact>,
}

/// Takes a backup, and tries again where others were in its way.
pub(super) async fn dump(job: &Job<'_>, shelf: &Shelf, options: &BackupOptions) -> Result<Manifest> {
    let attempt = Attempt { job, yield_after: options.yield_after };
    let mut patience = Patience::default();
    loop {
        match attempt.store(shelf, options, patience.number()).await {
            Ok(manifest) => return Ok(manifest),
            Err(miss) => patience.after(miss, &attempt).await?,
        }
    }
}

/// How often others were in the way.
#[derive(Default)]
pub(super) struct Patience {
    missed: u32,
    yields: u32,
}

impl Patience {
    /// The number of the attempt that comes.
    pub(super) fn number(&self) -> u32 {
        self.missed + self.yields + 1
    }

    /// Waits until it is time for another one.
    ///
    /// # Errors
    /// What kept the last one from its end, when there is no other.
    pub(super) async fn after(&mut self, miss: Miss, attempt: &Attempt<'_>) -> Result<()> {
        let (error, pause) = match miss {
            Miss::Over(error) => return Err(error),
            Miss::Again(error) => {
                self.missed += 1;
                (error, Duration::from_millis(rand::rng().random_range(1000..2000)))
            }
            Miss::GaveWay(whom) => {
                self.yields += 1;
                let error = Error::timeout("backup_gave_way", format!("the backup gave way to {whom}"))
                    .with_hint("a statement that locks a table waited for it: run it again when that is done");
                (error, attempt.yield_after)
            }
        };
        if self.missed >= ATTEMPTS || self.yields >= YIELDS {
            return Err(error);
        }
        attempt.job.tell(BackupEvent::Noticed(&format!("{error}: trying again")));
        sleep(pause).await;
        Ok(())
    }
}

/// Who takes what pg_dump writes.
#[async_trait]
pub(super) trait Taker: Send {
    async fn take(&mut self, chunk: Bytes) -> Result<()>;
}

/// The store, by way of the reader of archives.
struct IntoPack<'a> {
    archive: ArchiveReader,
    pack: &'a mut Pack,
    total: u64,
    job: &'a Job<'a>,
}

#[async_trait]
impl Taker for IntoPack<'_> {
    async fn take(&mut self, chunk: Bytes) -> Result<()> {
        self.archive.feed(&chunk)?;
        self.pack.write(self.archive.take()).await?;
        let position = self.archive.position();
        let table = position.table.map(ToString::to_string);
        let (stage, total, table) = (Stage::Dumping, Some(self.total), table.as_deref());
        self.job.tell(BackupEvent::Moved { stage, bytes: position.bytes, total, table });
        Ok(())
    }
}

/// One reading of the app's database.
pub(super) struct Attempt<'a> {
    pub(super) job: &'a Job<'a>,
    /// How long somebody may wait for it.
    pub(super) yield_after: Duration,
}

/// What is read: in one snapshot, of tables that nobody can change in shape.
pub(super) struct Still {
    pub(super) snapshot: String,
    pub(super) sight: Sight,
    /// Tables whose rows are not the app's.
    pub(super) strange: Vec<TableFact>,
}

impl Attempt<'_> {
    /// A session that reads the app's database.
    pub(super) async fn reading(&self) -> Result<Session> {
        self.job.tell(BackupEvent::Began(Stage::Waiting));
        reading(self.job, self.job.app.database.as_str()).await
    }

    /// Locks the tables, takes the snapshot and looks around in it.
    pub(super) async fn still(&self, reader: &Reader<'_>) -> Result<Still, Miss> {
        self.check_owners(reader).await?;
        requirements::lock_room(self.job.admin(), reader.lockable().await?).await?;
        if let Err(error) = self.freeze(reader).await {
            return Err(self.locked_out(error).await);
        }
        let snapshot = reader.export_snapshot().await?;
        // What was made since it was listed is in the snapshot, too.
        let (tables, strange): (Vec<_>, Vec<_>) =
            reader.tables().await?.into_iter().partition(|table| self.is_read(table));
        if let Some(table) = reader.rewritten().await?.first() {
            return Err(Miss::Again(rewritten(table)));
        }
        self.job.tell(BackupEvent::Began(Stage::Counting));
        let own: Vec<&str> = self.job.app.roles().map(AsRef::as_ref).collect();
        let census = reader.census(&own).await?;
        self.check(&census)?;
        let counts = reader.counts(&tables, &self.job.app.effective_search_path()).await?;
        let before = reader.sequences().await?;
        Ok(Still { snapshot, sight: Sight { tables, counts, census, before, after: Vec::new() }, strange })
    }

    async fn store(&self, shelf: &Shelf, options: &BackupOptions, number: u32) -> Result<Manifest, Miss> {
        let began = Instant::now();
        let session = self.reading().await?;
        let reader = Reader(&session);
        let mut still = self.still(&reader).await?;

        let id = BackupId::new(self.job.app.name.clone(), record::taken_at(&still.sight.census)?)?;
        let packing = PackOptions { recipients: options.recipients.clone(), ..PackOptions::default() };
        let mut pack = shelf.pack(&id, packing).await.map_err(taken)?;
        let dumped = match self.carry(&mut pack, &still).await {
            Ok(contents) => self.settle(&reader, &mut still.sight, &rows_by_table(&contents)).await.map(|()| contents),
            Err(miss) => Err(miss),
        };
        let contents = match dumped {
            Ok(contents) => contents,
            Err(miss) => {
                // What went wrong counts; what cannot be taken back now is no backup, and goes later.
                let _ = pack.abort().await;
                return Err(miss);
            }
        };
        let stored = pack.finish().await?;
        let circumstances = Circumstances {
            id,
            stored,
            system_identifier: self.job.system_identifier().await?,
            strange: &still.strange,
            attempts: number,
            took: began.elapsed(),
        };
        let manifest = record::manifest(self.job, options, &still.sight, &contents, circumstances)?;
        match shelf.publish(&manifest).await {
            Ok(()) => Ok(manifest),
            Err(error) if error.code() == "backup_exists" => {
                shelf.discard(&manifest.id, &manifest.data.object).await?;
                Err(taken(error))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn freeze(&self, reader: &Reader<'_>) -> Result<()> {
        let listed = reader.tables().await?;
        reader.freeze(listed.iter().filter(|table| self.is_read(table))).await
    }

    /// Rows of an extension that the admin made are the admin's.
    fn is_read(&self, table: &TableFact) -> bool {
        table.extension.is_none() || table.owner == self.job.app.owner.as_str()
    }

    /// What belongs to others the login may not even lock.
    async fn check_owners(&self, reader: &Reader<'_>) -> Result<()> {
        let app = &self.job.app;
        let foreign = reader.foreign(app.owner.as_str()).await?;
        if foreign.is_empty() {
            return Ok(());
        }
        let message = format!("objects in database {} belong to others: {}", app.database, foreign.join(", "));
        Err(Error::refused("objects_of_others", message).with_hint(format!(
            "whoever owns them, or a superuser, hands each to the app: ALTER … OWNER TO {}; or moves it elsewhere",
            app.owner
        )))
    }

    fn check(&self, census: &Census) -> Result<()> {
        if !census.forced_row_security.is_empty() && !may_bypass_row_security(&self.job.facts) {
            let message = format!(
                "the admin may not read past FORCE ROW LEVEL SECURITY of {}",
                census.forced_row_security.join(", ")
            );
            return Err(Error::refused("row_security_forced", message)
                .with_hint(format!("a superuser gives it the right: ALTER ROLE {} BYPASSRLS", self.job.facts.admin)));
        }
        Ok(())
    }

    /// Runs pg_dump on the snapshot, through the reader, into the store.
    async fn carry(&self, pack: &mut Pack, still: &Still) -> Result<Contents, Miss> {
        let mut taker = IntoPack { archive: ArchiveReader::joining(), pack, total: still.total(), job: self.job };
        self.pg_dump(still, &["--format=custom", "--compress=0"], &mut taker).await?;
        Ok(taker.archive.finish()?)
    }

    /// Runs pg_dump on the snapshot and passes on what it writes.
    pub(super) async fn pg_dump(&self, still: &Still, form: &[&str], taker: &mut dyn Taker) -> Result<(), Miss> {
        self.job.tell(BackupEvent::Began(Stage::Dumping));
        let usual = ["--no-password", "--lock-wait-timeout=10s", "--no-tablespaces", "--no-security-labels"];
        let mut arguments: Vec<String> = usual.iter().chain(form).map(|argument| (*argument).to_owned()).collect();
        arguments.push(format!("--snapshot={}", still.snapshot));
        arguments.extend(still.strange.iter().map(|table| format!("--exclude-table-data={}", table.sql())));
        let config = self.job.reading(self.job.app.database.as_str());
        let mut program = Program::start(&self.job.binaries, "pg_dump", &config, &arguments)?;
        let Some(output) = program.child.stdout.take() else {
            return Err(Error::failed("internal", "pg_dump has no output").into());
        };
        let watcher = self.job.server.session().await?;
        tokio::select! {
            pumped = pump(output, taker) => pumped?,
            whom = self.watch(&watcher) => return Err(whom?),
        }
        match program.finish().await {
            Ok(()) => Ok(()),
            Err(error) if SOMEBODY_ELSE.iter().any(|words| error.to_string().contains(words)) => {
                Err(Miss::Again(error))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Ends when somebody has waited for the dump too long.
    async fn watch(&self, session: &AdminSession) -> Result<Miss> {
        if self.yield_after.is_zero() {
            std::future::pending::<()>().await;
        }
        let mut ticks = interval_at(Instant::now() + WATCH, WATCH);
        loop {
            ticks.tick().await;
            let role = self.job.app.maintenance.as_str();
            if let Some(whom) = blockers::waiting_for(session, role, self.yield_after).await?.first() {
                return Ok(Miss::GaveWay(whom.clone()));
            }
        }
    }

    /// Looks whether what was dumped is what was there.
    pub(super) async fn settle(
        &self,
        reader: &Reader<'_>,
        sight: &mut Sight,
        dumped: &BTreeMap<(&str, &str), u64>,
    ) -> Result<(), Miss> {
        if let Some(table) = reader.rewritten().await?.first() {
            return Err(Miss::Again(rewritten(table)));
        }
        sight.after = reader.sequences().await?;
        reader.thaw().await?;
        for (table, count) in sight.tables.iter().zip(&sight.counts) {
            let found = dumped.get(&(table.schema.as_str(), table.name.as_str())).copied();
            if let Some(extension) = &table.extension {
                // Of an extension's own tables a dump has what the extension says, or nothing.
                if found.is_none() && *count > 0 {
                    return Err(in_extension(table, extension, *count).into());
                }
            } else if found != Some(*count) {
                let found = found.map_or_else(|| "no".to_owned(), |rows| rows.to_string());
                let message = format!("table {} has {count} rows, and the dump has {found}", table.sql());
                return Err(Error::failed("dump_differs", message)
                    .with_hint("nothing was kept; run it again, and look at the server's log")
                    .into());
            }
        }
        Ok(())
    }

    /// A table is locked by somebody: who?
    async fn locked_out(&self, error: Error) -> Miss {
        match error.sqlstate() {
            Some("55P03") => {}
            // It was dropped after it had been listed.
            Some("42P01" | "3F000") => return Miss::Again(error),
            Some("42501") => {
                let grant = format!(
                    "the owner has no right to a table of its own, or to its schema: GRANT ALL ON … TO {}",
                    self.job.app.owner
                );
                return Miss::Over(error.with_hint(grant));
            }
            _ => return Miss::Over(error),
        }
        let holders = blockers::locking(self.job.admin(), self.job.app.database.as_str()).await;
        let by = match holders {
            Ok(holders) if !holders.is_empty() => format!(" by {}", holders.join(", ")),
            _ => String::new(),
        };
        let message = format!("a table of database {} is locked{by}", self.job.app.database);
        Miss::Again(
            Error::timeout("table_locked", message)
                .with_hint("a dump waits for whoever changes a table: run it again when that is done")
                .with_source(error),
        )
    }
}

impl Still {
    /// About how many bytes there are to dump.
    pub(super) fn total(&self) -> u64 {
        self.sight.tables.iter().map(|table| table.bytes).sum()
    }
}

/// Passes on what a program writes, in large pieces.
async fn pump(mut output: ChildStdout, taker: &mut dyn Taker) -> Result<()> {
    let mut buffer = BytesMut::with_capacity(CHUNK);
    loop {
        let length =
            output.read_buf(&mut buffer).await.map_err(|error| Error::from_io("cannot read from pg_dump", error))?;
        if length > 0 && buffer.len() < CHUNK / 2 {
            continue;
        }
        if buffer.is_empty() {
            return Ok(());
        }
        taker.take(buffer.split().freeze()).await?;
        buffer.reserve(CHUNK);
    }
}

/// A session that reads what is there, whatever the app's search path and policies say, as pg_dump writes it.
pub(super) async fn reading(job: &Job<'_>, database: &str) -> Result<Session> {
    const SETTINGS: [(&str, &str); 8] = [
        ("search_path", "pg_catalog, pg_temp"),
        ("row_security", "off"),
        ("statement_timeout", "0"),
        // Even to ask for the size of a table takes a lock.
        ("lock_timeout", LOCK_PATIENCE),
        ("idle_in_transaction_session_timeout", "0"),
        ("datestyle", "ISO"),
        ("intervalstyle", "postgres"),
        ("extra_float_digits", "3"),
    ];
    let config = job.reading(database);
    SETTINGS.iter().fold(config, |config, (name, value)| config.with_option(*name, *value)).connect().await
}

/// Rows in an archive, by schema and table.
fn rows_by_table(contents: &Contents) -> BTreeMap<(&str, &str), u64> {
    let tables = contents.toc.entries().iter().filter(|entry| entry.kind == "TABLE DATA");
    tables
        .filter_map(|entry| {
            let rows = contents.tables.get(&entry.id)?;
            Some(((entry.namespace.as_str(), entry.tag.as_str()), rows.rows))
        })
        .collect()
}

/// A dump says of an extension that it is there, and nothing of what belongs to it.
fn in_extension(table: &TableFact, extension: &str, count: u64) -> Error {
    let message =
        format!("no dump has the {count} rows of table {}, which is part of extension {extension}", table.sql());
    Error::refused("rows_in_extension", message).with_hint(format!(
        "make it the app's own: ALTER EXTENSION {} DROP TABLE {}; or, if the extension came with it, have an admin make the extension",
        identifier(extension),
        table.sql()
    ))
}

/// Two backups cannot have the same second.
fn taken(error: Error) -> Miss {
    if error.code() == "backup_exists" { Miss::Again(error) } else { Miss::Over(error) }
}

fn rewritten(table: &str) -> Error {
    Error::conflict("table_rewritten", format!("table {table} was emptied or rewritten while the dump began"))
        .with_hint("run it again when that is done")
}
