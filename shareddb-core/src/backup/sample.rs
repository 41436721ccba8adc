//! What the tests of the store stand on: a shelf, backups on it, and a store that fails when it is told to.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult, UploadPart,
};

use super::id::BackupId;
use super::manifest::{
    API_VERSION, DatabaseFacts, KIND, Manifest, ROW_DIGEST, Reason, SequenceFacts, ServerFacts, Stored, TableFacts,
};
use super::pack::PackOptions;
use super::shelf::Shelf;
use super::store::BackupStore;

pub(crate) const ID: &str = "my-app-20261122T020056Z";

pub(crate) fn id(text: &str) -> BackupId {
    text.parse().unwrap()
}

pub(crate) fn shelf(store: &BackupStore) -> Shelf {
    store.shelf(&"production".parse().unwrap(), &"my-app".parse().unwrap())
}

pub(crate) fn in_memory() -> Shelf {
    shelf(&BackupStore::open("memory:///backups", []).unwrap())
}

/// A manifest as a backup writes it.
pub(crate) fn manifest(id: &BackupId, data: Stored) -> Manifest {
    Manifest {
        api_version: API_VERSION.to_owned(),
        kind: KIND.to_owned(),
        id: id.clone(),
        app: id.app().clone(),
        environment: "production".parse().unwrap(),
        taken_at: id.taken_at(),
        took_seconds: 4.1,
        reason: Reason::Schedule,
        shareddb: "0.3.0".to_owned(),
        server: ServerFacts {
            version: "15.18".to_owned(),
            system_identifier: "7300000000000000000".to_owned(),
            client: "15.18".to_owned(),
            archive: "1.14".to_owned(),
            encoding: "UTF8".to_owned(),
            collate: "C.UTF-8".to_owned(),
            ctype: "C.UTF-8".to_owned(),
            provider: "libc".to_owned(),
            icu_locale: None,
            collation_version: None,
        },
        database: DatabaseFacts {
            name: "my_app_db".parse().unwrap(),
            owner: "my_app_db".parse().unwrap(),
            schema: "my_app".parse().unwrap(),
            bytes: 88_080_384,
        },
        data,
        row_digest: ROW_DIGEST.to_owned(),
        schema_digest: "00".repeat(32),
        tables: vec![TableFacts {
            schema: "my_app".to_owned(),
            name: "t\"1\n".to_owned(),
            rows: 1000,
            bytes: 36_466,
            digest: "00000000000000000000000000000007".parse().unwrap(),
        }],
        sequences: vec![SequenceFacts {
            schema: "my_app".to_owned(),
            name: "t1_id_seq".to_owned(),
            before: 1001,
            after: 1001,
        }],
        large_objects: 7,
        extensions: Vec::new(),
        roles: vec!["other_db".to_owned()],
        settings: Vec::new(),
        not_included: Vec::new(),
        warnings: Vec::new(),
        attempts: 1,
        keep: None,
    }
}

/// A dump that is there, as far as a manifest can tell.
pub(crate) fn stored(id: &BackupId) -> Stored {
    Stored {
        object: format!("{id}.k3v9q2.dump.zst"),
        bytes: 3,
        sha256: "ab".repeat(32),
        archive_bytes: 30,
        compression: "zstd:3".to_owned(),
        encryption: None,
    }
}

/// Bytes that compress a little, and are the same each time.
pub(crate) fn noise(length: usize, seed: u64) -> Bytes {
    let mut state = seed | 1;
    let byte = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        b'a' + ((state >> 59) as u8)
    };
    std::iter::repeat_with(byte).take(length).collect::<Vec<u8>>().into()
}

/// Takes a backup with this content.
pub(crate) async fn back_up(shelf: &Shelf, id: &BackupId, content: &Bytes, options: PackOptions) -> Manifest {
    let mut pack = shelf.pack(id, options).await.unwrap();
    pack.write(content.clone()).await.unwrap();
    let manifest = manifest(id, pack.finish().await.unwrap());
    shelf.publish(&manifest).await.unwrap();
    manifest
}

/// What goes wrong, at which request of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The part is not taken.
    Part(usize),
    /// The upload is not completed.
    Complete,
    /// The upload is completed, and the reply is lost.
    CompleteReply,
    /// An object is not written.
    Create(usize),
    /// It is written, and the reply is lost.
    CreateReply(usize),
    /// No object is created only if there is none: the store cannot.
    Unguarded,
    /// Objects with this in their names are not deleted.
    Delete(&'static str),
    /// Reading fails.
    Read,
}

/// A store in memory that has one fault.
#[derive(Clone)]
pub(crate) struct Faulty {
    inner: Arc<InMemory>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    fault: Option<Fault>,
    parts: usize,
    creates: usize,
    deleted: Vec<String>,
    aborted: usize,
    read: Vec<Range<u64>>,
}

impl Faulty {
    pub(crate) fn new() -> (Self, Shelf) {
        let store = Self { inner: Arc::new(InMemory::new()), state: Arc::default() };
        let shelf = shelf(&BackupStore::new(Arc::new(store.clone()), "backups"));
        (store, shelf)
    }

    pub(crate) fn breaks(&self, fault: Fault) {
        *self.state.lock().unwrap() = State { fault: Some(fault), ..State::default() };
    }

    pub(crate) fn heals(&self) {
        self.state.lock().unwrap().fault = None;
    }

    pub(crate) fn deleted(&self) -> Vec<String> {
        self.state.lock().unwrap().deleted.clone()
    }

    pub(crate) fn aborted(&self) -> usize {
        self.state.lock().unwrap().aborted
    }

    pub(crate) fn read(&self) -> usize {
        self.state.lock().unwrap().read.len()
    }

    fn fault(&self) -> Option<Fault> {
        self.state.lock().unwrap().fault
    }
}

fn lost() -> StoreError {
    StoreError::Generic { store: "Faulty", source: "the connection was cut".into() }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    store: Faulty,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let mut state = self.store.state.lock().unwrap();
        state.parts += 1;
        if state.fault == Some(Fault::Part(state.parts)) {
            return Box::pin(async { Err(lost()) });
        }
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> StoreResult<PutResult> {
        match self.store.fault() {
            Some(Fault::Complete) => Err(lost()),
            Some(Fault::CompleteReply) => self.inner.complete().await.and(Err(lost())),
            _ => self.inner.complete().await,
        }
    }

    async fn abort(&mut self) -> StoreResult<()> {
        self.store.state.lock().unwrap().aborted += 1;
        self.inner.abort().await
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> StoreResult<PutResult> {
        let (fault, number) = {
            let mut state = self.state.lock().unwrap();
            state.creates += 1;
            (state.fault, state.creates)
        };
        match fault {
            Some(Fault::Create(at)) if at == number => Err(lost()),
            Some(Fault::CreateReply(at)) if at == number => {
                self.inner.put_opts(location, payload, opts).await.and(Err(lost()))
            }
            Some(Fault::Unguarded) if opts.mode == PutMode::Create => {
                Err(StoreError::NotImplemented { operation: "create".into(), implementer: "faulty".into() })
            }
            _ => self.inner.put_opts(location, payload, opts).await,
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(FaultyUpload { inner, store: self.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        if options.head {
            return self.inner.get_opts(location, options).await;
        }
        let found = self.inner.get_opts(location, options).await?;
        self.state.lock().unwrap().read.push(found.range.clone());
        if self.fault() == Some(Fault::Read) { Err(lost()) } else { Ok(found) }
    }

    fn delete_stream(&self, locations: BoxStream<'static, StoreResult<Path>>) -> BoxStream<'static, StoreResult<Path>> {
        let store = self.clone();
        let guarded = locations.map(move |location| {
            let location = location?;
            let mut state = store.state.lock().unwrap();
            if let Some(Fault::Delete(word)) = state.fault
                && location.as_ref().contains(word)
            {
                return Err(StoreError::PermissionDenied { path: location.to_string(), source: "locked".into() });
            }
            state.deleted.push(location.filename().unwrap_or_default().to_owned());
            Ok(location)
        });
        self.inner.delete_stream(guarded.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
