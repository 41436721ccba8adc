//! A dump on its way into a store.

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt as _, PutPayload};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::store::BackupStore;
use crate::error::{Error, Result};

/// Parts of one size, as some stores want them; ten thousand of them, which is the most, are 160 GB.
const PART: usize = 16 << 20;
const IN_FLIGHT: usize = 3;

/// An object that is being written. Dropped before [`Upload::complete`] it is taken back, as far as that is possible, and
/// nothing is to be seen of it.
#[derive(Debug)]
pub struct Upload {
    store: BackupStore,
    path: Path,
    name: String,
    /// None once it has ended.
    parts: Option<Box<dyn MultipartUpload>>,
    sending: JoinSet<object_store::Result<()>>,
    pending: Vec<Bytes>,
    pending_bytes: usize,
    bytes: u64,
    digest: Digest,
}

/// An object that is there whole.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Uploaded {
    /// Its name, in the folder of the app.
    pub object: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, as 64 hex digits.
    pub sha256: String,
}

/// The SHA-256 of what has passed so far.
pub(crate) struct Digest(Context);

impl Digest {
    pub(crate) fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn hex(self) -> String {
        self.0.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Digest")
    }
}

impl Upload {
    pub(super) async fn begin(store: BackupStore, path: Path, name: String) -> Result<Self> {
        let parts = store.objects().put_multipart(&path).await.map_err(|source| store.error("write", source))?;
        Ok(Self {
            store,
            path,
            name,
            parts: Some(parts),
            sending: JoinSet::new(),
            pending: Vec::new(),
            pending_bytes: 0,
            bytes: 0,
            digest: Digest::new(),
        })
    }

    /// Adds bytes; waits while enough of them are on their way.
    ///
    /// # Errors
    /// As the store says, perhaps of bytes given before. There is nothing to do then but to give up.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        self.digest.add(&bytes);
        self.bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(PART - self.pending_bytes));
            self.pending_bytes += piece.len();
            self.pending.push(piece);
            if self.pending_bytes == PART {
                self.send().await?;
            }
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<()> {
        self.wait_until_sending(IN_FLIGHT - 1).await?;
        self.pending_bytes = 0;
        let part: PutPayload = std::mem::take(&mut self.pending).into_iter().collect();
        if let Some(parts) = &mut self.parts {
            self.sending.spawn(parts.put_part(part));
        }
        Ok(())
    }

    async fn wait_until_sending(&mut self, most: usize) -> Result<()> {
        while self.sending.len() > most {
            match self.sending.join_next().await {
                Some(Ok(sent)) => sent.map_err(|source| self.store.error("write", source))?,
                Some(Err(cut)) => return Err(Error::failed("internal", "an upload was cut short").with_source(cut)),
                None => break,
            }
        }
        Ok(())
    }

    /// Puts the object into its place, and looks at it there.
    ///
    /// # Errors
    /// As the store says, or `Failed` (`upload_damaged`) when it has another size there. Nothing is left then, as far as that
    /// is possible.
    pub async fn complete(mut self) -> Result<Uploaded> {
        match self.finish().await {
            Ok(()) => {
                let digest = std::mem::replace(&mut self.digest, Digest::new());
                Ok(Uploaded { object: self.name.clone(), bytes: self.bytes, sha256: digest.hex() })
            }
            Err(error) => {
                self.take_back().await.ok();
                Err(error)
            }
        }
    }

    async fn finish(&mut self) -> Result<()> {
        if !self.pending.is_empty() {
            self.send().await?;
        }
        self.wait_until_sending(0).await?;
        let completed = match &mut self.parts {
            Some(parts) => parts.complete().await.map(drop),
            None => Ok(()),
        };
        // Its name is nobody else's: if it is there whole, only the reply was lost.
        let there = self.store.size(&self.path).await;
        match (completed, there) {
            (_, Ok(Some(size))) if size == self.bytes => {
                self.parts = None;
                Ok(())
            }
            (Err(source), _) => Err(self.store.error("write", source)),
            (Ok(()), Err(error)) => Err(error),
            (Ok(()), Ok(size)) => {
                let size = size.map_or_else(|| "is not there".to_owned(), |size| format!("has {size} bytes"));
                let message = format!("{} {size} after an upload of {} bytes", self.name, self.bytes);
                Err(Error::failed("upload_damaged", message)
                    .with_hint("something is wrong with the store: run it again"))
            }
        }
    }

    /// Gives up: the object will not be there.
    ///
    /// # Errors
    /// As the store says. What was sent may then lie there unseen until the store clears it away.
    pub async fn abort(mut self) -> Result<()> {
        self.take_back().await
    }

    async fn take_back(&mut self) -> Result<()> {
        self.sending.shutdown().await;
        let Some(mut parts) = self.parts.take() else { return Ok(()) };
        let aborted = parts.abort().await;
        // An upload that was completed after all cannot be aborted.
        self.store.delete(&self.path).await?;
        match aborted {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(self.store.error("take back an upload", source)),
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(mut parts) = self.parts.take() else { return };
        self.sending.abort_all();
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move { parts.abort().await.ok() });
        }
    }
}
