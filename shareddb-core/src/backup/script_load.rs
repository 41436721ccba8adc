//! Loading a plain dump, by ourselves: psql would run whatever programs it names.

use std::collections::BTreeMap;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::SinkExt as _;
use tokio_postgres::CopyInSink;

use super::dump_file::DumpFile;
use super::event::{BackupEvent, Stage};
use super::job::Job;
use super::lexer::{TokenKind, first_tokens};
use super::load::Chunks as _;
use super::pins::Pins;
use super::script::{Piece, ScriptReader};
use super::statement::{self, ScriptTarget};
use crate::connection::Session;
use crate::error::{Error, Result};

/// When a search path did not help.
const NOT_THERE: &str = "what it names has to be in the dump, or come with an extension: dump the whole database";
/// So many words of a statement are told: what follows may be data.
const TOLD: usize = 4;

/// What a script will need.
#[derive(Debug, Default)]
pub(super) struct Foresight {
    /// Extensions that it makes, with the schemas that it names for them.
    pub(super) extensions: BTreeMap<String, Option<String>>,
    /// Its length, unpacked.
    pub(super) bytes: u64,
}

/// Reads a script to its end and runs nothing.
///
/// # Errors
/// As [`ScriptReader::feed`] and [`ScriptReader::finish`], and those of reading the file.
pub(super) async fn foresee(job: &Job<'_>, file: &DumpFile, target: &ScriptTarget) -> Result<Foresight> {
    job.tell(BackupEvent::Began(Stage::Reading));
    let mut reader = ScriptReader::new(target.clone());
    let mut foresight = Foresight::default();
    let mut chunks = file.read();
    while let Some(chunk) = chunks.next().await? {
        for piece in reader.feed(&chunk)? {
            if let Piece::Statement(text) = piece {
                foresight.extensions.extend(statement::extension(&text));
            }
        }
        foresight.bytes += chunk.len() as u64;
        job.tell(BackupEvent::Moved { stage: Stage::Reading, bytes: foresight.bytes, total: None, table: None });
    }
    reader.finish().map(|()| foresight)
}

/// Runs a script, and returns why statements of it were not run, with how many.
///
/// # Errors
/// The server's at the first statement that fails; `names_unqualified` where a search path may help.
pub(super) async fn run(
    job: &Job<'_>,
    session: &Session,
    pins: Option<Pins>,
    file: &DumpFile,
    target: &ScriptTarget,
    total: u64,
) -> Result<BTreeMap<String, u64>> {
    job.tell(BackupEvent::Began(Stage::Loading));
    let mut reader = ScriptReader::new(target.clone());
    let mut script = Script { session, pins, unpinned: false, copy: None, skipped: BTreeMap::new() };
    let (mut chunks, mut bytes) = (file.read(), 0);
    while let Some(chunk) = chunks.next().await? {
        let pieces = reader.feed(&chunk)?;
        for piece in pieces {
            script.piece(piece).await?;
        }
        bytes += chunk.len() as u64;
        job.tell(BackupEvent::Moved { stage: Stage::Loading, bytes, total: Some(total), table: None });
    }
    reader.finish()?;
    // What a transaction of its own has not ended would be gone with the session.
    session.batch_execute("COMMIT").await.map_err(|error| failed("COMMIT", error))?;
    if let Some(pins) = script.pins {
        pins.take().await?;
    }
    Ok(script.skipped)
}

struct Script<'a> {
    session: &'a Session,
    pins: Option<Pins>,
    /// Functions have been made that have no search path yet.
    unpinned: bool,
    copy: Option<Copy>,
    skipped: BTreeMap<String, u64>,
}

/// Data on their way.
struct Copy {
    sink: Pin<Box<CopyInSink<Bytes>>>,
    statement: String,
}

impl Script<'_> {
    async fn pin(&mut self) -> Result<()> {
        match &mut self.pins {
            Some(pins) if std::mem::take(&mut self.unpinned) => pins.give().await,
            _ => Ok(()),
        }
    }

    async fn piece(&mut self, piece: Piece) -> Result<()> {
        match piece {
            Piece::Statement(text) => {
                let functions = Functions::of(&text);
                if functions == Functions::Run {
                    self.pin().await?;
                }
                self.unpinned |= functions == Functions::Made;
                self.session.batch_execute(&text).await.map_err(|error| failed(&text, error))
            }
            Piece::Skipped { why, .. } => {
                *self.skipped.entry(why).or_default() += 1;
                Ok(())
            }
            Piece::CopyIn { statement } => {
                self.pin().await?;
                let sink = self.session.copy_in(&statement).await.map_err(|error| failed(&statement, error))?;
                self.copy = Some(Copy { sink: Box::pin(sink), statement });
                Ok(())
            }
            Piece::CopyData(bytes) => {
                let Some(copy) = &mut self.copy else { return Ok(()) };
                match copy.sink.send(bytes).await {
                    Ok(()) => Ok(()),
                    // Why it takes no more, it says at the end.
                    Err(error) => {
                        let said = copy.sink.as_mut().finish().await.err().unwrap_or(error);
                        Err(failed(&copy.statement, said))
                    }
                }
            }
            Piece::CopyEnd => match self.copy.take() {
                Some(mut copy) => {
                    let done = copy.sink.as_mut().finish().await;
                    done.map(drop).map_err(|error| failed(&copy.statement, error))
                }
                None => Ok(()),
            },
        }
    }
}

/// What a statement has to do with functions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Functions {
    Made,
    /// It may run them; a table as well, for its generated columns.
    Run,
    Untouched,
}

impl Functions {
    fn of(statement: &str) -> Self {
        let head = first_tokens(statement, 4);
        let is = |at: usize, words: &[&str]| head.get(at).is_some_and(|token| words.iter().any(|word| token.is(word)));
        let noun = if is(1, &["OR"]) { 3 } else { 1 };
        if is(0, &["CREATE"]) && is(noun, &["FUNCTION", "PROCEDURE"]) {
            Self::Made
        } else if is(0, &["CREATE"]) && is(1, &["TABLE", "UNLOGGED", "INDEX", "UNIQUE"])
            || is(0, &["INSERT", "REFRESH"])
            || is(0, &["ALTER"]) && is(1, &["TABLE"]) && statement.contains("ADD CONSTRAINT")
        {
            Self::Run
        } else {
            Self::Untouched
        }
    }
}

fn failed(statement: &str, source: tokio_postgres::Error) -> Error {
    let words = first_tokens(statement, TOLD);
    // What is in quotes may be data.
    let told = words.iter().take_while(|word| word.kind != TokenKind::Text).last();
    let head = told.map_or("", |last| &statement[..last.at.end]).split_whitespace().collect::<Vec<_>>().join(" ");
    let state = source.code().map(|state| state.code().to_owned());
    let error = Error::from_postgres(format_args!("the script fails at {head}…"), source);
    let makes = words.first().is_some_and(|word| ["CREATE", "ALTER", "REFRESH"].iter().any(|kind| word.is(kind)));
    match state.as_deref() {
        // undefined_function, undefined_table, undefined_object
        Some("42883") => unqualified(error),
        Some("42P01" | "42704") if makes => unqualified(error),
        Some("42P01") => error.with_hint("a dump of data alone, or one that drops first, needs what is not there: dump the whole database, without --clean"),
        Some("42501") if statement::extension(statement).is_some() => error.with_hint(
            "an extension that only an admin may make: shareddb create APP --extension NAME, then this again",
        ),
        _ => error,
    }
}

fn unqualified(error: Error) -> Error {
    Error::failed("names_unqualified", error.to_string()).with_hint(NOT_THERE).with_source(error)
}
