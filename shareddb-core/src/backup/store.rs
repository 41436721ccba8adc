//! A place for backups, on any object store.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use jiff::Timestamp;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use super::location::{Location, locate};
use super::manifest::{API_VERSION, document};
use super::shelf::Shelf;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::file::{self, blocking};
use crate::names::{AppName, EnvironmentName};

/// The variables by which the vendors' programs get their credentials.
const VENDORS: [&str; 3] = ["AWS_", "AZURE_", "GOOGLE_"];
const MARKER: &str = "shareddb-backups.json";
const MARKER_KIND: &str = "BackupStore";
/// The one arrangement of objects that this version knows.
const LAYOUT: u32 = 1;
/// No document beside a backup is longer.
pub(crate) const DOCUMENT_MAX: u64 = 1 << 20;

/// A place for backups: a folder, a bucket or a part of one. Cheap to clone.
///
/// Every object is written once and never changed, so that a bucket that locks its objects will do.
#[derive(Clone)]
pub struct BackupStore {
    inner: Arc<Inner>,
}

struct Inner {
    location: Location,
    /// Holds once the marker was seen.
    marked: OnceCell<()>,
}

/// The first object of a store, which says how the others are arranged.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    api_version: String,
    kind: String,
    layout: u32,
}

/// An object as a listing shows it.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    /// The path below the folder that was listed.
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) modified: Timestamp,
}

impl BackupStore {
    /// The store at `url`: `file:///folder`, `s3://bucket/folder`, `gs://…`, `az://…`, or `memory://` for tests. `settings`
    /// are the variables by which the vendors' programs get their credentials (`AWS_…`, `GOOGLE_…`, `AZURE_…`); of others
    /// nothing is used. Nothing is touched yet.
    ///
    /// # Errors
    /// `InvalidInput` for a URL of another kind, or one that holds more than a place.
    pub fn open(url: &str, settings: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        let settings: Vec<(String, String)> = settings.into_iter().collect();
        Ok(Self::at(locate(url, &settings)?))
    }

    /// The store of an environment's backups; `settings` as for [`Self::open`].
    ///
    /// # Errors
    /// `InvalidInput` (`backups_unset`) when nobody has said where they are; else as [`Self::open`].
    pub fn of(environment: &Environment, settings: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        Self::open(environment.backups()?, settings)
    }

    /// The store at `url`, or else that of the environment, with the credentials that this process's environment has for it.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn from_env(environment: &Environment, url: Option<&str>) -> Result<Self> {
        let environment =
            url.into_iter().try_fold(environment.clone(), |environment, url| environment.with_backups(url))?;
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self::of(&environment, variables.filter(|(name, _)| VENDORS.iter().any(|vendor| name.starts_with(vendor))))
    }

    /// A store in the folder `root` of any object store.
    pub fn new(objects: Arc<dyn ObjectStore>, root: impl Into<Path>) -> Self {
        let root = root.into();
        let shown = format!("{objects}/{root}");
        Self::at(Location { objects, root, shown, folder: None })
    }

    fn at(location: Location) -> Self {
        Self { inner: Arc::new(Inner { location, marked: OnceCell::new() }) }
    }

    /// The backups of one app in one environment.
    pub fn shelf(&self, environment: &EnvironmentName, app: &AppName) -> Shelf {
        Shelf::new(self.clone(), environment.clone(), app.clone())
    }

    /// The apps of an environment that have anything here, in the order of their names.
    ///
    /// # Errors
    /// As for [`Shelf::list`].
    pub async fn apps(&self, environment: &EnvironmentName) -> Result<Vec<AppName>> {
        self.check_marker().await?;
        let folder = self.inner.location.root.clone().join(environment.as_str());
        let listed = self.objects().list_with_delimiter(Some(&folder)).await;
        let listed = listed.map_err(|source| self.error("list", source))?;
        let names = listed.common_prefixes.iter().filter_map(|prefix| prefix.filename()?.parse().ok());
        let mut names: Vec<AppName> = names.collect();
        names.sort();
        Ok(names)
    }

    pub(crate) fn folder(&self, environment: &EnvironmentName, app: &AppName) -> Path {
        self.inner.location.root.clone().join(environment.as_str()).join(app.as_str())
    }

    pub(crate) fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.inner.location.objects
    }

    /// What went wrong while one of our verbs was carried out here.
    pub(crate) fn error(&self, verb: &str, source: object_store::Error) -> Error {
        Error::from_store(format!("cannot {verb} in {}", self.inner.location.shown), source)
    }

    /// Makes sure that what is here is arranged as we know it. A store that is empty is.
    pub(crate) async fn check_marker(&self) -> Result<()> {
        if self.inner.marked.initialized() {
            return Ok(());
        }
        if let Some(bytes) = self.read_small(&self.marker_path(), DOCUMENT_MAX).await? {
            self.check_layout(&bytes)?;
            self.inner.marked.set(()).ok();
        }
        Ok(())
    }

    /// As [`Self::check_marker`], and marks an empty store as ours.
    pub(crate) async fn mark(&self, environment: &EnvironmentName) -> Result<()> {
        self.check_marker().await?;
        self.make_folder(environment).await?;
        let make = || async {
            let marker = Marker { api_version: API_VERSION.to_owned(), kind: MARKER_KIND.to_owned(), layout: LAYOUT };
            match self.create(&self.marker_path(), document(&marker)?.into()).await {
                // Another was faster, perhaps one of another version.
                Err(error) if error.code() == "object_exists" => self.check_marker().await,
                done => done,
            }
        };
        self.inner.marked.get_or_try_init(make).await.copied()
    }

    fn marker_path(&self) -> Path {
        self.inner.location.root.clone().join(MARKER)
    }

    fn check_layout(&self, bytes: &[u8]) -> Result<()> {
        let marker: Option<Marker> = serde_json::from_slice(bytes).ok();
        let known = |marker: &Marker| {
            (marker.api_version.as_str(), marker.kind.as_str(), marker.layout) == (API_VERSION, MARKER_KIND, LAYOUT)
        };
        if marker.as_ref().is_some_and(known) {
            return Ok(());
        }
        let message = format!(
            "{} is arranged in a way that this version does not know: {MARKER} says so",
            self.inner.location.shown
        );
        Err(Error::refused("store_version", message)
            .with_hint("use the version of shareddb that made it, or a newer one, or choose another folder"))
    }

    /// A folder that we make is for its owner only: a dump holds everything. The store's own may be there already, and anybody's.
    async fn make_folder(&self, environment: &EnvironmentName) -> Result<()> {
        let Some(folder) = &self.inner.location.folder else { return Ok(()) };
        let folder = folder.join(environment.as_str());
        blocking(move || file::make_private_folder(&folder)).await
    }

    /// Writes a new object. A reply that was lost does no harm: what is there then is what was to be written.
    ///
    /// # Errors
    /// `Conflict` (`object_exists`) when there is another object of that name; else as the store says.
    pub(crate) async fn create(&self, path: &Path, content: Bytes) -> Result<()> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let error = match self.objects().put_opts(path, content.clone().into(), options).await {
            Ok(_) => return Ok(()),
            Err(source) => self.error("write", source),
        };
        let there = match self.read_small(path, content.len() as u64).await {
            Ok(there) => there,
            // Longer than ours, hence another.
            Err(found) if found.code() == "object_too_long" => return Err(exists(path)),
            Err(_) => return Err(error),
        };
        match there {
            Some(there) if there == content => Ok(()),
            Some(_) => Err(exists(path)),
            None if error.code() == "store_cannot_create" => self.create_unguarded(path, content).await,
            None => Err(error),
        }
    }

    /// As [`Self::create`], where the store has no way to say "only if there is none". It was just seen that there is none.
    async fn create_unguarded(&self, path: &Path, content: Bytes) -> Result<()> {
        tracing::warn!(%path, "this store cannot refuse to overwrite an object: two backups in the same second may collide");
        self.objects().put(path, content.into()).await.map(drop).map_err(|source| self.error("write", source))
    }

    /// An object that is expected to be small, if it is there.
    ///
    /// # Errors
    /// `Conflict` (`object_too_long`) when it is longer than `most`.
    pub(crate) async fn read_small(&self, path: &Path, most: u64) -> Result<Option<Bytes>> {
        let found = match self.objects().get(path).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(source) => return Err(self.error("read", source)),
        };
        if found.meta.size > most {
            let message = format!("{path} has {} bytes, and {most} at most were expected", found.meta.size);
            return Err(Error::conflict("object_too_long", message));
        }
        found.bytes().await.map(Some).map_err(|source| self.error("read", source))
    }

    /// The size of an object, if it is there.
    pub(crate) async fn size(&self, path: &Path) -> Result<Option<u64>> {
        match self.objects().head(path).await {
            Ok(found) => Ok(Some(found.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(self.error("look", source)),
        }
    }

    /// Everything below a folder.
    pub(crate) async fn list(&self, folder: &Path) -> Result<Vec<Object>> {
        let objects = self.objects().list(Some(folder)).try_filter_map(|meta| async move {
            let Some(parts) = meta.location.prefix_match(folder) else { return Ok(None) };
            let name = parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/");
            let modified = Timestamp::from_second(meta.last_modified.timestamp()).unwrap_or_default();
            Ok(Some(Object { name, bytes: meta.size, modified }))
        });
        objects.try_collect().await.map_err(|source| self.error("list", source))
    }

    /// Deletes an object. One that is gone already is no failure.
    pub(crate) async fn delete(&self, path: &Path) -> Result<()> {
        match self.objects().delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(self.error("delete", source)),
        }
    }
}

fn exists(path: &Path) -> Error {
    Error::conflict("object_exists", format!("there is another {path} already"))
}

impl fmt::Display for BackupStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.location.shown)
    }
}

/// Where it is, never how it is reached.
impl fmt::Debug for BackupStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BackupStore({self})")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::pack::PackOptions;
    use super::super::sample::{ID, back_up, id, noise, shelf};
    use super::*;

    fn at(folder: &std::path::Path) -> BackupStore {
        BackupStore::open(&format!("file://{}", folder.display()), []).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_folder_is_made_at_the_first_write_for_its_owner_only() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("a b/backups");
        let store = BackupStore::open(&format!("file://{}/a%20b/backups", home.path().display()), []).unwrap();
        assert!(shelf(&store).list().await.unwrap().is_empty());
        assert!(!folder.exists());
        let manifest = back_up(&shelf(&store), &id(ID), &noise(100, 1), PackOptions::default()).await;
        assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert!(folder.join("production/my-app").join(&manifest.data.object).is_file());
        assert_eq!(
            std::fs::read_to_string(folder.join(MARKER)).unwrap(),
            "{\"apiVersion\":\"shareddb/v1\",\"kind\":\"BackupStore\",\"layout\":1}\n"
        );
        assert_eq!(shelf(&store).list().await.unwrap().len(), 1);
        shelf(&store).delete(&id(ID)).await.unwrap();
        assert!(shelf(&store).list().await.unwrap().is_empty());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn in_a_folder_of_everybody_backups_are_for_their_owner_only() {
        let home = tempfile::tempdir().unwrap();
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        back_up(&shelf(&at(home.path())), &id(ID), &noise(100, 1), PackOptions::default()).await;
        let mode = |folder: &std::path::Path| folder.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(home.path()), mode(&home.path().join("production"))), (0o777, 0o700));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn another_arrangement_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        for marker in ["{\"apiVersion\":\"shareddb/v1\",\"kind\":\"BackupStore\",\"layout\":2}", "", "[]"] {
            std::fs::write(home.path().join(MARKER), marker).unwrap();
            let store = at(home.path());
            assert_eq!(shelf(&store).list().await.unwrap_err().code(), "store_version", "{marker}");
            let error = shelf(&store).pack(&id(ID), PackOptions::default()).await.unwrap_err();
            assert!(matches!(error, Error::Refused(_)), "{error:?}");
            assert_eq!(shelf(&store).delete(&id(ID)).await.unwrap_err().code(), "store_version");
        }
    }

    #[test]
    fn credentials_are_not_shown() {
        let settings = [("AWS_SECRET_ACCESS_KEY", "m4rker"), ("AWS_ACCESS_KEY_ID", "x"), ("AWS_REGION", "r")];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let store = BackupStore::open("s3://bucket/folder", settings).unwrap();
        assert_eq!(
            (store.to_string().as_str(), format!("{store:?}").as_str()),
            ("s3://bucket/folder", "BackupStore(s3://bucket/folder)")
        );
    }
}
