//! A dump on its way out of the store, decrypted and decompressed.

use std::io::{self, BufRead, BufReader, Read};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::download::{Download, damaged};
use super::manifest::{Encryption, Manifest};
use super::pack::{CHUNK, WAITING};
use super::seal::Identities;
use crate::error::{Error, Result};

/// Gives back a dump. The end is reached only when what lies in the store is what was written there, and what came out has
/// the size that went in.
#[derive(Debug)]
pub struct Unpack {
    id: String,
    output: mpsc::Receiver<Bytes>,
    decoder: Option<JoinHandle<Result<()>>>,
    fetcher: Option<JoinHandle<Result<Fetched>>>,
    expected: u64,
    passed: u64,
}

/// How the fetching ended, if nothing went wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fetched {
    /// All of it, and it was what was written.
    Whole,
    /// The decoder wanted no more.
    Stopped,
}

impl Unpack {
    /// Begins, and opens what is encrypted: a key that does not fit is found out here.
    ///
    /// # Errors
    /// `InvalidInput` (`backup_key_missing`), `PermissionDenied` (`backup_key_wrong`), `Failed` (`backup_damaged`) when it
    /// cannot be opened although the key is the right one; else as the store says.
    pub async fn start(download: Download, manifest: &Manifest, identities: &Identities) -> Result<Self> {
        let encryption = manifest.data.encryption.clone();
        identities.may_open(encryption.as_ref())?;
        let id = manifest.id.to_string();
        let (fetched, input) = mpsc::channel(WAITING);
        let (decoded, output) = mpsc::channel(WAITING);
        let (opened, told) = oneshot::channel();
        let fetcher = tokio::spawn(fetch(download, fetched));
        let decoder = tokio::task::spawn_blocking({
            let (id, identities) = (id.clone(), identities.clone());
            move || decode(&id, Inlet::new(input), encryption.as_ref(), &identities, opened, decoded)
        });
        let expected = manifest.data.archive_bytes;
        let mut unpack = Self { id, output, decoder: Some(decoder), fetcher: Some(fetcher), expected, passed: 0 };
        match told.await {
            Ok(()) => Ok(unpack),
            Err(_) => Err(unpack.end().await.err().unwrap_or_else(|| damaged(&unpack.id, "it cannot be opened"))),
        }
    }

    /// The next bytes of the dump; none after the last.
    ///
    /// # Errors
    /// `Failed` (`backup_damaged`) when it is not what was written, else as the store says. What was given before is then
    /// worth nothing.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        match self.output.recv().await {
            Some(bytes) => {
                self.passed += bytes.len() as u64;
                Ok(Some(bytes))
            }
            None => self.end().await.map(|()| None),
        }
    }

    /// How it ended. What went wrong in the store is told before what the decoder made of it.
    async fn end(&mut self) -> Result<()> {
        let (Some(decoder), Some(fetcher)) = (self.decoder.take(), self.fetcher.take()) else { return Ok(()) };
        let cut = |error| Error::failed("internal", "reading a backup was cut short").with_source(error);
        let decoded = decoder.await.map_err(cut)?;
        let fetched = fetcher.await.map_err(cut)??;
        decoded?;
        if fetched == Fetched::Stopped {
            return Err(damaged(&self.id, "something follows its end"));
        }
        if self.passed != self.expected {
            let why = format!("{} bytes are in it, and {} were put in", self.passed, self.expected);
            return Err(damaged(&self.id, &why));
        }
        Ok(())
    }
}

async fn fetch(mut download: Download, fetched: mpsc::Sender<Bytes>) -> Result<Fetched> {
    while let Some(bytes) = download.next().await? {
        if fetched.send(bytes).await.is_err() {
            return Ok(Fetched::Stopped);
        }
    }
    Ok(Fetched::Whole)
}

/// The decoder's work, on a thread of its own.
fn decode(
    id: &str,
    input: Inlet,
    encryption: Option<&Encryption>,
    identities: &Identities,
    opened: oneshot::Sender<()>,
    output: mpsc::Sender<Bytes>,
) -> Result<()> {
    let undecodable = |error: io::Error| damaged(id, "it cannot be decoded").with_source(error);
    let Some(encryption) = encryption else {
        opened.send(()).ok();
        return decompress(input, &output).map_err(undecodable);
    };
    let sealed = age::Decryptor::new_buffered(input).map_err(|error| unopened(id, encryption, identities, &error))?;
    let keys = identities.all();
    let plain = sealed
        .decrypt(keys.iter().map(|key| key.as_ref() as &dyn age::Identity))
        .map_err(|error| unopened(id, encryption, identities, &error))?;
    opened.send(()).ok();
    decompress(BufReader::with_capacity(CHUNK, plain), &output).map_err(undecodable)
}

/// Why it does not open.
fn unopened(id: &str, encryption: &Encryption, identities: &Identities, error: &age::DecryptError) -> Error {
    use age::DecryptError as Fault;
    let wrong_key = matches!(
        error,
        Fault::NoMatchingKeys | Fault::KeyDecryptionFailed | Fault::DecryptionFailed | Fault::ExcessiveWork { .. }
    );
    // The key is one of those it was encrypted for: then it is not the key that is wrong.
    if !wrong_key || identities.should_open(encryption) {
        return damaged(id, "its encryption cannot be opened");
    }
    let (message, hint) = match encryption {
        Encryption::Age(recipients) => (
            format!("none of these private keys opens the backup {id}"),
            format!("it was encrypted for {}", recipients.join(", ")),
        ),
        Encryption::AgePassphrase => (
            format!("this passphrase does not open the backup {id}"),
            "it is another one, or the backup is damaged: compare its SHA-256 with the manifest's".to_owned(),
        ),
    };
    Error::permission_denied("backup_key_wrong", message).with_hint(hint)
}

fn decompress(input: impl BufRead, output: &mpsc::Sender<Bytes>) -> io::Result<()> {
    let mut decoder = zstd::Decoder::with_buffer(input)?;
    loop {
        let mut chunk = BytesMut::zeroed(CHUNK);
        let mut filled = 0;
        while filled < CHUNK {
            match decoder.read(&mut chunk[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        if filled == 0 {
            return Ok(());
        }
        chunk.truncate(filled);
        if output.blocking_send(chunk.freeze()).is_err() {
            // Whoever wanted it is gone, and so is whoever would read this.
            return Err(io::ErrorKind::BrokenPipe.into());
        }
    }
}

/// What was fetched, as the decoder reads it.
struct Inlet {
    input: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Inlet {
    fn new(input: mpsc::Receiver<Bytes>) -> Self {
        Self { input, current: Bytes::new() }
    }
}

impl BufRead for Inlet {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.is_empty() {
            match self.input.blocking_recv() {
                Some(bytes) => self.current = bytes,
                None => break,
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, count: usize) {
        self.current.advance(count);
    }
}

impl Read for Inlet {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(into.len());
        into[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}
