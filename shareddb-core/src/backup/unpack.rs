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
            move || decode(&id, Inlet::new(input), encryption.as_ref(), &identities, opened, &decoded)
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
    output: &mpsc::Sender<Bytes>,
) -> Result<()> {
    let undecodable = |error: io::Error| damaged(id, "it cannot be decoded").with_source(error);
    let Some(encryption) = encryption else {
        opened.send(()).ok();
        return decompress(input, output).map_err(undecodable);
    };
    let sealed = age::Decryptor::new_buffered(input).map_err(|error| unopened(id, encryption, identities, &error))?;
    let keys = identities.all();
    let plain = sealed
        .decrypt(keys.iter().map(|key| key.as_ref() as &dyn age::Identity))
        .map_err(|error| unopened(id, encryption, identities, &error))?;
    opened.send(()).ok();
    decompress(BufReader::with_capacity(CHUNK, plain), output).map_err(undecodable)
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

#[cfg(test)]
mod tests {
    use age::secrecy::ExposeSecret as _;
    use object_store::memory::InMemory;
    use object_store::path::Path;
    use object_store::{ObjectStore, ObjectStoreExt as _};
    use std::sync::Arc;

    use super::super::pack::PackOptions;
    use super::super::sample::{Fault, Faulty, ID, back_up, id, in_memory, noise, shelf};
    use super::super::seal::Recipients;
    use super::super::shelf::Shelf;
    use super::super::store::BackupStore;
    use super::*;

    async fn content(shelf: &Shelf, manifest: &Manifest, identities: &Identities) -> Result<Vec<u8>> {
        let mut unpack = Unpack::start(shelf.read(manifest).await?, manifest, identities).await?;
        let mut content = Vec::new();
        while let Some(bytes) = unpack.next().await? {
            content.extend_from_slice(&bytes);
        }
        Ok(content)
    }

    fn sealed(recipients: Recipients) -> PackOptions {
        PackOptions { recipients, threads: 1, ..PackOptions::default() }
    }

    fn key() -> (Recipients, Identities) {
        let key = age::x25519::Identity::generate();
        let recipients = Recipients::keys([key.to_public().to_string().as_str()]).unwrap();
        (recipients, Identities::keys(key.to_string().expose_secret()).unwrap())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_went_in_comes_out() {
        for (length, threads) in [(0, 1), (1, 1), (CHUNK - 1, 2), (5 * CHUNK, 1), (23 * CHUNK + 5, 4)] {
            let shelf = in_memory();
            let written = noise(length, 9);
            let options = PackOptions { threads, ..PackOptions::default() };
            let manifest = back_up(&shelf, &id(ID), &written, options).await;
            assert_eq!(content(&shelf, &manifest, &Identities::none()).await.unwrap(), written, "{length}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn keys_open_what_is_for_them() {
        let (recipients, identities) = key();
        let shelf = in_memory();
        let written = noise(3 * CHUNK, 9);
        let manifest = back_up(&shelf, &id(ID), &written, sealed(recipients)).await;
        assert!(manifest.data.object.ends_with(".dump.zst.age"));
        assert_eq!(content(&shelf, &manifest, &identities).await.unwrap(), written);
        let error = content(&shelf, &manifest, &Identities::none()).await.unwrap_err();
        assert_eq!(error.code(), "backup_key_missing");
        assert!(error.to_string().contains("age1"));
        let error = content(&shelf, &manifest, &key().1).await.unwrap_err();
        assert!(matches!(error, Error::PermissionDenied(_)) && error.code() == "backup_key_wrong", "{error:?}");
        assert!(error.hint().unwrap().contains("age1"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn passphrases_open_what_is_for_them() {
        let shelf = in_memory();
        let options = sealed(Recipients::passphrase("m4rker").unwrap());
        assert!(!format!("{options:?}").contains("m4rker"));
        let manifest = back_up(&shelf, &id(ID), &noise(1000, 9), options).await;
        let right = Identities::passphrase("m4rker");
        assert!(!format!("{right:?}").contains("m4rker"));
        assert_eq!(content(&shelf, &manifest, &right).await.unwrap(), noise(1000, 9));
        let error = content(&shelf, &manifest, &Identities::passphrase("another")).await.unwrap_err();
        assert_eq!(error.code(), "backup_key_wrong");
        assert_eq!(content(&shelf, &manifest, &key().1).await.unwrap_err().code(), "backup_key_missing");
    }

    /// A backup in a store whose objects can be changed behind our back.
    async fn changeable(options: PackOptions, written: &Bytes) -> (Arc<InMemory>, Shelf, Manifest, Path) {
        let objects = Arc::new(InMemory::new());
        let shelf = shelf(&BackupStore::new(Arc::clone(&objects) as Arc<dyn ObjectStore>, "b"));
        let manifest = back_up(&shelf, &id(ID), written, options).await;
        let path = Path::from(format!("b/production/my-app/{}", manifest.data.object));
        (objects, shelf, manifest, path)
    }

    /// No flipped bit in any byte, no cut and no addition passes, whatever the manifest's digest says.
    async fn every_change_is_found(options: PackOptions, identities: &Identities, written: Bytes) {
        let (objects, shelf, manifest, path) = changeable(options, &written).await;
        let good = objects.get(&path).await.unwrap().bytes().await.unwrap();
        let put = |changed: Vec<u8>| {
            let (objects, path) = (&objects, &path);
            async move { objects.put(path, changed.into()).await.unwrap() }
        };
        for at in 0..good.len() {
            let mut changed = good.to_vec();
            changed[at] ^= 1 << (at % 8);
            put(changed).await;
            let error = content(&shelf, &manifest, identities).await.unwrap_err();
            assert_eq!(error.code(), "backup_damaged", "byte {at}: {error:?}");
        }
        for length in 0..good.len() {
            put(good[..length].to_vec()).await;
            assert_eq!(
                content(&shelf, &manifest, identities).await.unwrap_err().code(),
                "backup_damaged",
                "cut at {length}"
            );
        }
        put([&good[..], b"x"].concat()).await;
        assert_eq!(content(&shelf, &manifest, identities).await.unwrap_err().code(), "backup_damaged");
        put(good.to_vec()).await;
        assert_eq!(content(&shelf, &manifest, identities).await.unwrap(), written);
        objects.delete(&path).await.unwrap();
        assert_eq!(content(&shelf, &manifest, identities).await.unwrap_err().code(), "backup_data_missing");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_change_of_a_plain_dump_passes() {
        every_change_is_found(sealed(Recipients::none()), &Identities::none(), noise(700, 3)).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_change_of_an_encrypted_dump_passes() {
        let (recipients, identities) = key();
        every_change_is_found(sealed(recipients), &identities, noise(300, 3)).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_manifest_that_knows_another_digest_or_size_is_not_believed() {
        let (_, shelf, manifest, _) = changeable(PackOptions::default(), &noise(700, 3)).await;
        let mut other = manifest.clone();
        other.data.sha256 = "00".repeat(32);
        assert_eq!(content(&shelf, &other, &Identities::none()).await.unwrap_err().code(), "backup_damaged");
        let mut other = manifest.clone();
        other.data.archive_bytes += 1;
        assert_eq!(content(&shelf, &other, &Identities::none()).await.unwrap_err().code(), "backup_damaged");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_store_that_cannot_be_read_is_not_a_damaged_backup() {
        let (store, shelf) = Faulty::new();
        let manifest = back_up(&shelf, &id(ID), &noise(700, 3), PackOptions::default()).await;
        store.breaks(Fault::Read);
        let error = content(&shelf, &manifest, &Identities::none()).await.unwrap_err();
        assert_eq!(error.code(), "store_unreachable", "{error:?}");
    }
}
