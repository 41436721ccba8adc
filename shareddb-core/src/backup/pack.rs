//! A dump on its way into the store, compressed and perhaps encrypted.

use std::io::{self, Write};

use bytes::{Bytes, BytesMut};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::manifest::Stored;
use super::seal::Recipients;
use super::upload::{Upload, Uploaded};
use crate::error::{Error, Result};

/// What passes between two stages at a time, and how much of it waits on each side of the encoder.
pub(super) const CHUNK: usize = 1 << 20;
pub(super) const WAITING: usize = 4;
/// Beyond this level zstd takes ten times the memory, for a hundredth of the size.
const LEVEL_MAX: i32 = 19;
const THREADS_MAX: u32 = 16;
/// What a thread compresses at a time, in bytes: half of what it would be, for half the memory and the same size.
const JOB: u32 = 4 << 20;

/// How a dump is packed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PackOptions {
    /// The level of zstd, 1 to 19.
    pub level: i32,
    /// On how many threads it is compressed; one at least.
    pub threads: u32,
    /// Whom it is encrypted for.
    pub recipients: Recipients,
}

impl Default for PackOptions {
    /// Level 3, as many threads as there are processors but no more than four, not encrypted.
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(4));
        Self { level: 3, threads: u32::try_from(threads).unwrap_or(1), recipients: Recipients::none() }
    }
}

impl PackOptions {
    pub(super) fn check(&self) -> Result<()> {
        if !(1..=LEVEL_MAX).contains(&self.level) {
            let message = format!("level {} is none of 1 to {LEVEL_MAX}", self.level);
            return Err(Error::invalid_input("compression_invalid", message).with_hint("3 is a good one"));
        }
        if !(1..=THREADS_MAX).contains(&self.threads) {
            let message = format!("{} threads are none of 1 to {THREADS_MAX}", self.threads);
            return Err(
                Error::invalid_input("compression_invalid", message).with_hint("as many as there are processors")
            );
        }
        Ok(())
    }
}

/// Takes a dump and puts it into the store. Memory is bounded whatever the dump's size: who gives faster than the store
/// takes waits.
///
/// Dropped without [`Pack::finish`], nothing of it is left, as far as that is possible. Only `finish` ends the compressed
/// stream: a dump that broke off leaves no stream that looks whole.
#[derive(Debug)]
pub struct Pack {
    input: Option<mpsc::Sender<Input>>,
    verdict: Option<oneshot::Sender<Verdict>>,
    encoder: Option<JoinHandle<io::Result<()>>>,
    sender: Option<JoinHandle<Result<Option<Uploaded>>>>,
    archive_bytes: u64,
    options: PackOptions,
}

#[derive(Debug)]
enum Input {
    Bytes(Bytes),
    /// There is no more, and all of it was good.
    End,
}

#[derive(Debug)]
enum Verdict {
    Complete,
    Abort,
}

impl Pack {
    /// Begins. To be called where tokio runs.
    ///
    /// # Errors
    /// `InvalidInput` for options that make no sense, `Failed` when these keys cannot be encrypted for.
    pub fn start(upload: Upload, options: PackOptions) -> Result<Self> {
        options.check()?;
        let seal = options.recipients.encryptor()?;
        let (input, from_dump) = mpsc::channel(WAITING);
        let (to_store, packed) = mpsc::channel(WAITING);
        let (verdict, awaited) = oneshot::channel();
        let (level, threads) = (options.level, options.threads);
        let encoder = tokio::task::spawn_blocking(move || encode(from_dump, to_store, seal, level, threads));
        let sender = tokio::spawn(send(upload, packed, awaited));
        Ok(Self {
            input: Some(input),
            verdict: Some(verdict),
            encoder: Some(encoder),
            sender: Some(sender),
            archive_bytes: 0,
            options,
        })
    }

    /// Adds bytes of the dump; waits while enough are on their way. Pieces of some ten thousand bytes and more are best.
    ///
    /// # Errors
    /// As the store says, perhaps of bytes given before. There is nothing to do then but to give up.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(CHUNK));
            let length = piece.len() as u64;
            let sent = match &self.input {
                Some(input) => input.send(Input::Bytes(piece)).await.is_ok(),
                None => false,
            };
            if !sent {
                return Err(self.failure().await);
            }
            self.archive_bytes += length;
        }
        Ok(())
    }

    /// Ends the stream and puts the object into its place. To be called only when the dump is known to be whole.
    ///
    /// # Errors
    /// As the store says; nothing is left then, as far as that is possible.
    pub async fn finish(mut self) -> Result<Stored> {
        let ended = match self.input.take() {
            Some(input) => input.send(Input::End).await.is_ok(),
            None => false,
        };
        let encoded = match self.encoder.take() {
            Some(encoder) if ended => encoder.await.is_ok_and(|encoded| encoded.is_ok()),
            _ => false,
        };
        if !encoded {
            return Err(self.failure().await);
        }
        match self.end(Verdict::Complete).await? {
            Some(uploaded) => Ok(self.stored(uploaded)),
            None => Err(broken()),
        }
    }

    fn stored(&self, uploaded: Uploaded) -> Stored {
        let Uploaded { object, bytes, sha256 } = uploaded;
        Stored {
            object,
            bytes,
            sha256,
            archive_bytes: self.archive_bytes,
            compression: format!("zstd:{}", self.options.level),
            encryption: self.options.recipients.encryption(),
        }
    }

    /// Gives up: nothing will be there.
    ///
    /// # Errors
    /// As the store says. What was sent may then lie there unseen until the store clears it away.
    pub async fn abort(mut self) -> Result<()> {
        self.input = None;
        self.end(Verdict::Abort).await.map(drop)
    }

    /// Why it goes no further.
    async fn failure(&mut self) -> Error {
        self.input = None;
        match self.end(Verdict::Abort).await {
            Err(error) => error,
            Ok(_) => broken(),
        }
    }

    async fn end(&mut self, verdict: Verdict) -> Result<Option<Uploaded>> {
        if let Some(told) = self.verdict.take() {
            // One that has failed listens no more, and says why itself.
            told.send(verdict).ok();
        }
        let Some(sender) = self.sender.take() else { return Err(broken()) };
        match sender.await {
            Ok(done) => done,
            Err(cut) => Err(Error::failed("internal", "an upload was cut short").with_source(cut)),
        }
    }
}

fn broken() -> Error {
    Error::failed("upload_broken", "the dump could not be packed: its upload has ended before")
}

/// Sends what the encoder makes. Whether it was the whole is not for this side to say: it waits for the verdict.
async fn send(
    mut upload: Upload,
    mut packed: mpsc::Receiver<Bytes>,
    verdict: oneshot::Receiver<Verdict>,
) -> Result<Option<Uploaded>> {
    while let Some(bytes) = packed.recv().await {
        if let Err(error) = upload.write(bytes).await {
            // What is asked to stop meanwhile has its reason in this error.
            drop(packed);
            upload.abort().await.ok();
            return Err(error);
        }
    }
    match verdict.await {
        Ok(Verdict::Complete) => upload.complete().await.map(Some),
        Ok(Verdict::Abort) | Err(_) => upload.abort().await.map(|()| None),
    }
}

/// The encoder's work, on a thread of its own.
fn encode(
    input: mpsc::Receiver<Input>,
    output: mpsc::Sender<Bytes>,
    seal: Option<age::Encryptor>,
    level: i32,
    threads: u32,
) -> io::Result<()> {
    let output = Outlet { output, pending: BytesMut::with_capacity(CHUNK) };
    match seal {
        Some(seal) => compress(input, seal.wrap_output(output)?, level, threads)?.finish()?.flush(),
        None => compress(input, output, level, threads)?.flush(),
    }
}

fn compress<W: Write>(mut input: mpsc::Receiver<Input>, output: W, level: i32, threads: u32) -> io::Result<W> {
    let mut encoder = zstd::Encoder::new(output, level)?;
    // One thread does the work itself.
    if threads > 1 {
        encoder.multithread(threads)?;
        encoder.set_parameter(zstd::zstd_safe::CParameter::JobSize(JOB))?;
    }
    encoder.include_checksum(true)?;
    encoder.long_distance_matching(false)?;
    loop {
        match input.blocking_recv() {
            Some(Input::Bytes(bytes)) => encoder.write_all(&bytes)?,
            Some(Input::End) => return encoder.finish(),
            // Whoever gave the dump is gone: the frame stays open, and says so to whoever reads it.
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Where the encoder writes to: collects small pieces to chunks.
struct Outlet {
    output: mpsc::Sender<Bytes>,
    pending: BytesMut,
}

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK - self.pending.len());
        self.pending.extend_from_slice(&bytes[..taken]);
        if self.pending.len() == CHUNK {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.pending, BytesMut::with_capacity(CHUNK));
        self.output.blocking_send(chunk.freeze()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Fault, Faulty, ID, back_up, id, in_memory, manifest, noise};
    use super::super::shelf::{Sealing, Shelf};
    use super::*;

    async fn begin(shelf: &Shelf) -> Pack {
        shelf.pack(&id(ID), PackOptions::default()).await.unwrap()
    }

    async fn is_empty(shelf: &Shelf) -> bool {
        let inventory = shelf.inventory().await.unwrap();
        inventory.backups.is_empty() && inventory.orphans.is_empty()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_stored_is_said_as_it_is() {
        let shelf = in_memory();
        let content = noise(3 * CHUNK + 17, 1);
        let manifest = back_up(&shelf, &id(ID), &content, PackOptions::default()).await;
        assert_eq!(manifest.data.archive_bytes, content.len() as u64);
        assert_eq!(manifest.data.compression, "zstd:3");
        let mut download = shelf.read(&manifest).await.unwrap();
        let mut stored = Vec::new();
        while let Some(bytes) = download.next().await.unwrap() {
            stored.extend_from_slice(&bytes);
        }
        assert_eq!(stored.len() as u64, manifest.data.bytes);
        // What the command line of zstd would do, with the checksum that it writes.
        assert_eq!(stored[4] & 0b100, 0b100);
        assert_eq!(zstd::decode_all(&stored[..]).unwrap(), content);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn given_up_nothing_is_left() {
        let (store, shelf) = Faulty::new();
        let mut pack = begin(&shelf).await;
        pack.write(noise(2 * CHUNK, 1)).await.unwrap();
        pack.abort().await.unwrap();
        assert!(is_empty(&shelf).await);
        assert_eq!(store.aborted(), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn dropped_nothing_is_left() {
        let (store, shelf) = Faulty::new();
        let mut pack = begin(&shelf).await;
        pack.write(noise(2 * CHUNK, 1)).await.unwrap();
        drop(pack);
        tokio::time::timeout(std::time::Duration::from_secs(20), async {
            while store.aborted() == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        assert!(is_empty(&shelf).await);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_dump_that_broke_off_leaves_an_open_frame() {
        let (to, input) = mpsc::channel(1);
        let (output, mut from) = mpsc::channel(64);
        let encoder = tokio::task::spawn_blocking(move || encode(input, output, None, 3, 2));
        to.send(Input::Bytes(noise(CHUNK, 1))).await.unwrap();
        drop(to);
        assert!(encoder.await.unwrap().is_err());
        let mut made = Vec::new();
        while let Some(bytes) = from.recv().await {
            made.extend_from_slice(&bytes);
        }
        assert!(made.is_empty() || zstd::decode_all(&made[..]).is_err());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_store_that_fails_is_the_reason_given() {
        for fault in [Fault::Part(1), Fault::Part(2), Fault::Complete] {
            let (store, shelf) = Faulty::new();
            let mut pack = begin(&shelf).await;
            store.breaks(fault);
            let mut failed = None;
            for round in 0..80 {
                if let Err(error) = pack.write(noise(CHUNK, round)).await {
                    failed = Some(error);
                    break;
                }
            }
            let error = match failed {
                Some(error) => error,
                None => pack.finish().await.unwrap_err(),
            };
            assert_eq!(error.code(), "store_unreachable", "{fault:?}: {error:?}");
            store.heals();
            assert!(is_empty(&shelf).await, "{fault:?}");
            assert_eq!(store.aborted(), 1, "{fault:?}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_lost_reply_is_no_failure() {
        let (store, shelf) = Faulty::new();
        let mut pack = begin(&shelf).await;
        store.breaks(Fault::CompleteReply);
        pack.write(noise(CHUNK, 1)).await.unwrap();
        let stored = pack.finish().await.unwrap();
        store.heals();
        shelf.publish(&manifest(&id(ID), stored)).await.unwrap();
        assert_eq!(store.aborted(), 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn options_that_make_no_sense_begin_nothing() {
        let shelf = in_memory();
        for (level, threads) in [(0, 1), (20, 1), (-1, 1), (3, 0), (3, 17)] {
            let options = PackOptions { level, threads, ..PackOptions::default() };
            assert_eq!(shelf.pack(&id(ID), options).await.unwrap_err().code(), "compression_invalid");
        }
        assert!(shelf.upload(&id("other-20261122T020056Z"), Sealing::Open).await.is_err());
        assert!(is_empty(&shelf).await);
    }
}
