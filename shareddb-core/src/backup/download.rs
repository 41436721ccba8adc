//! A dump on its way out of a store.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore};
use tokio::task::JoinHandle;

use super::manifest::Manifest;
use super::store::BackupStore;
use super::upload::Digest;
use crate::error::{Error, Result};

/// Each part is a request of its own: whoever reads may pause for as long as it likes, and no connection is cut for that.
const PART: u64 = 8 << 20;
const IN_FLIGHT: usize = 3;

/// The bytes of a dump as they lie in the store. The end is reached only if they are those that the manifest names.
#[derive(Debug)]
pub struct Download {
    store: BackupStore,
    path: Path,
    id: String,
    size: u64,
    sha256: String,
    /// None once it was compared.
    digest: Option<Digest>,
    asked: u64,
    parts: VecDeque<JoinHandle<object_store::Result<Bytes>>>,
}

impl Download {
    pub(super) async fn begin(store: BackupStore, path: Path, manifest: &Manifest) -> Result<Self> {
        let id = manifest.id.to_string();
        match store.size(&path).await? {
            Some(size) if size == manifest.data.bytes => {}
            Some(size) => {
                let why =
                    format!("{} has {size} bytes, and {} were written", manifest.data.object, manifest.data.bytes);
                return Err(damaged(&id, &why));
            }
            None => {
                let message = format!("the dump of {id} is gone from the store: it was pruned meanwhile, or lost");
                return Err(Error::failed("backup_data_missing", message)
                    .with_hint("choose another backup: `shareddb backups` lists them"));
            }
        }
        let (size, sha256) = (manifest.data.bytes, manifest.data.sha256.clone());
        Ok(Self { store, path, id, size, sha256, digest: Some(Digest::new()), asked: 0, parts: VecDeque::new() })
    }

    /// The next bytes; none after the last.
    ///
    /// # Errors
    /// `Failed` (`backup_damaged`) in place of the end when they were not those that were written, else as the store says.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        while self.parts.len() < IN_FLIGHT && self.asked < self.size {
            let range = self.asked..self.size.min(self.asked + PART);
            self.asked = range.end;
            self.parts.push_back(tokio::spawn(part(Arc::clone(self.store.objects()), self.path.clone(), range)));
        }
        // Looked at before it is taken away, so that a caller who gives up waiting can ask again.
        let Some(first) = self.parts.front_mut() else { return self.compare().map(|()| None) };
        let part = first.await;
        self.parts.pop_front();
        let bytes = match part {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(source)) => return Err(self.store.error("read", source)),
            Err(cut) => return Err(Error::failed("internal", "a download was cut short").with_source(cut)),
        };
        if let Some(digest) = &mut self.digest {
            digest.add(&bytes);
        }
        Ok(Some(bytes))
    }

    fn compare(&mut self) -> Result<()> {
        let Some(digest) = self.digest.take() else { return Ok(()) };
        let found = digest.hex();
        if found == self.sha256 {
            return Ok(());
        }
        let why = format!("its SHA-256 is {found}, and {} was written", self.sha256);
        Err(damaged(&self.id, &why))
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        for part in &self.parts {
            part.abort();
        }
    }
}

async fn part(objects: Arc<dyn ObjectStore>, path: Path, range: Range<u64>) -> object_store::Result<Bytes> {
    let length = range.end - range.start;
    let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
    let bytes = objects.get_opts(&path, options).await?.bytes().await?;
    if bytes.len() as u64 == length {
        return Ok(bytes);
    }
    let message = format!("{} bytes came where {length} were asked for", bytes.len());
    Err(object_store::Error::Generic { store: "download", source: message.into() })
}

/// The backup is not what was written.
pub(crate) fn damaged(id: &str, why: &str) -> Error {
    Error::failed("backup_damaged", format!("the backup {id} is damaged: {why}"))
        .with_hint("choose another backup: `shareddb backups` lists them")
}
