//! One app's backups in a store.

use bytes::Bytes;
use jiff::Timestamp;
use object_store::path::Path;

use super::download::Download;
use super::hold::Hold;
use super::id::BackupId;
use super::inventory::{Inventory, Listed};
use super::manifest::{MANIFEST_MAX, Manifest, document};
use super::object::{ObjectName, Part, Token};
use super::pack::{Pack, PackOptions};
use super::store::BackupStore;
use super::upload::Upload;
use super::verification::Verification;
use crate::error::{Error, Result};
use crate::names::{AppName, EnvironmentName};

/// The backups of one app in one environment. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shelf {
    store: BackupStore,
    environment: EnvironmentName,
    app: AppName,
}

/// Whether what is uploaded is encrypted, as its name will say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealing {
    /// It opens with a key only.
    Sealed,
    /// Whoever reads the store reads it.
    Open,
}

impl Shelf {
    pub(super) fn new(store: BackupStore, environment: EnvironmentName, app: AppName) -> Self {
        Self { store, environment, app }
    }

    pub(super) fn store(&self) -> &BackupStore {
        &self.store
    }

    /// Whose backups they are.
    pub fn app(&self) -> &AppName {
        &self.app
    }

    /// The environment they were taken in.
    pub fn environment(&self) -> &EnvironmentName {
        &self.environment
    }

    pub(super) fn path(&self, name: &ObjectName) -> Path {
        self.path_of(&name.to_string())
    }

    fn path_of(&self, name: &str) -> Path {
        self.store.folder(&self.environment, &self.app).join(name)
    }

    /// The backups, the newest first. One listing; nothing is read of each. What others have put into the folder is passed
    /// over, with a warning in the log.
    ///
    /// # Errors
    /// `Refused` (`store_version`) when the store is of a newer version, else as the store says. An app that was never backed
    /// up has no backups, which is no failure.
    pub async fn list(&self) -> Result<Vec<Listed>> {
        let inventory = self.inventory().await?;
        for stranger in &inventory.strangers {
            tracing::warn!(app = %self.app, object = stranger, "no object of a backup; it is passed over");
        }
        Ok(inventory.backups)
    }

    /// Everything in the folder, with what belongs to no backup.
    ///
    /// # Errors
    /// As for [`Self::list`].
    pub async fn inventory(&self) -> Result<Inventory> {
        self.store.check_marker().await?;
        let objects = self.store.list(&self.store.folder(&self.environment, &self.app)).await?;
        let mut inventory = Inventory::of(&self.app, objects);
        for (id, dumps) in std::mem::take(&mut inventory.doubtful) {
            // Of one that cannot be read nothing more is known.
            if let Ok(manifest) = self.manifest(&id).await {
                inventory.settle(&id, &manifest.data, dumps);
            }
        }
        Ok(inventory)
    }

    /// What is known of a backup.
    ///
    /// # Errors
    /// `NotFound` (`backup_not_found`); `Conflict` (`backup_foreign`) when it is another app's or another environment's;
    /// `Refused` (`manifest_version`) when a newer version has written it; `Failed` (`manifest_damaged`); else as the store
    /// says.
    pub async fn manifest(&self, id: &BackupId) -> Result<Manifest> {
        self.own(id)?;
        self.store.check_marker().await?;
        let path = self.path(&ObjectName::manifest(id));
        match self.store.read_small(&path, MANIFEST_MAX).await {
            Ok(Some(bytes)) => Manifest::parse(&bytes, id, &self.environment),
            Ok(None) => Err(Error::not_found("backup_not_found", format!("there is no backup {id} in {}", self.store))
                .with_hint(format!("`shareddb backups {}` lists those that there are", self.app))),
            Err(error) if error.code() == "object_too_long" => {
                Err(Error::failed("manifest_damaged", format!("the manifest of {id} is damaged: it is too long")))
            }
            Err(error) => Err(error),
        }
    }

    fn own(&self, id: &BackupId) -> Result<()> {
        if *id.app() == self.app {
            return Ok(());
        }
        Err(Error::conflict("backup_foreign", format!("{id} is a backup of {}, and not of {}", id.app(), self.app))
            .with_hint(format!("`shareddb backups {}` lists those of this app", self.app)))
    }

    /// Begins to write the dump of a backup. Nothing of it is listed before [`Self::publish`].
    ///
    /// # Errors
    /// `Conflict` (`backup_exists`) when there is a backup of that name: take another second. Else as the store says.
    pub async fn upload(&self, id: &BackupId, sealing: Sealing) -> Result<Upload> {
        self.own(id)?;
        self.store.mark().await?;
        if self.store.size(&self.path(&ObjectName::manifest(id))).await?.is_some() {
            return Err(taken(id));
        }
        let part = Part::Data { token: Token::random(), sealed: sealing == Sealing::Sealed };
        let name = ObjectName { id: id.clone(), part };
        Upload::begin(self.store.clone(), self.path(&name), name.to_string()).await
    }

    /// Begins to write a dump as it is to lie in the store: compressed, and encrypted if there is anybody to encrypt for.
    ///
    /// # Errors
    /// As for [`Self::upload`], and `InvalidInput` for options that make no sense.
    pub async fn pack(&self, id: &BackupId, options: PackOptions) -> Result<Pack> {
        options.check()?;
        let sealing = if options.recipients.encryption().is_some() { Sealing::Sealed } else { Sealing::Open };
        Pack::start(self.upload(id, sealing).await?, options)
    }

    /// Makes a backup of a dump that is there: from now on it is listed, and never changed.
    ///
    /// # Errors
    /// `Conflict` (`backup_exists`) when there is another backup of that name; `Failed` (`upload_damaged`) when the dump is
    /// not there whole; else as the store says, and it may be published nevertheless.
    pub async fn publish(&self, manifest: &Manifest) -> Result<()> {
        self.own(&manifest.id)?;
        let content: Bytes = manifest.to_bytes()?.into();
        // What we could not read we do not write.
        Manifest::parse(&content, &manifest.id, &self.environment)?;
        self.store.mark().await?;
        if self.store.size(&self.path_of(&manifest.data.object)).await? != Some(manifest.data.bytes) {
            let message = format!("the dump of {} is not in the store as it was sent", manifest.id);
            return Err(
                Error::failed("upload_damaged", message).with_hint("something is wrong with the store: run it again")
            );
        }
        match self.store.create(&self.path(&ObjectName::manifest(&manifest.id)), content).await {
            Err(error) if error.code() == "object_exists" => Err(taken(&manifest.id)),
            done => done,
        }
    }

    /// Takes back a dump that will not be published.
    ///
    /// # Errors
    /// `Refused` (`backup_published`) when it is a published backup's; else as the store says.
    pub async fn discard(&self, id: &BackupId, object: &str) -> Result<()> {
        self.own(id)?;
        let own =
            object.parse::<ObjectName>().is_ok_and(|name| name.id == *id && matches!(name.part, Part::Data { .. }));
        let published = match self.manifest(id).await {
            Ok(manifest) => manifest.data.object == object,
            Err(error) if error.code() == "backup_not_found" => false,
            // Whose it is cannot be told.
            Err(error) => return Err(error),
        };
        if !own || published {
            return Err(Error::refused("backup_published", format!("{object} is no dump that may be taken back")));
        }
        self.store.delete(&self.path_of(object)).await
    }

    /// Begins to read the dump of a backup as it lies in the store.
    ///
    /// # Errors
    /// `Failed` (`backup_data_missing`, `backup_damaged`) when it is gone or has another size; else as the store says.
    pub async fn read(&self, manifest: &Manifest) -> Result<Download> {
        self.own(&manifest.id)?;
        Download::begin(self.store.clone(), self.path_of(&manifest.data.object), manifest).await
    }

    /// Keeps prunes away from a backup until a time, or without end. To be done before its manifest is read.
    ///
    /// # Errors
    /// As the store says; `PermissionDenied` where it may only be read.
    pub async fn hold(&self, id: &BackupId, why: &str, until: Option<Timestamp>) -> Result<Hold> {
        self.own(id)?;
        Hold::place(self, id, why, until).await
    }

    /// Writes down what a check has found.
    ///
    /// # Errors
    /// As the store says.
    pub async fn record(&self, id: &BackupId, verification: &Verification) -> Result<()> {
        self.own(id)?;
        let Verification { at, verdict, .. } = *verification;
        let name = ObjectName { id: id.clone(), part: Part::Verification { at, verdict } };
        self.store.mark().await?;
        self.store.create(&self.path(&name), document(verification)?.into()).await
    }

    /// Deletes a backup whatever speaks for keeping it: its manifest first, so that it is never listed without its dump.
    /// What is gone already is no failure.
    ///
    /// # Errors
    /// As the store says; what is left then is no backup, and goes with the next prune.
    pub async fn delete(&self, id: &BackupId) -> Result<()> {
        self.own(id)?;
        self.store.check_marker().await?;
        let folder = self.store.folder(&self.environment, &self.app);
        let objects = self.store.list(&folder).await?;
        let mut names: Vec<ObjectName> = objects.iter().filter_map(|object| object.name.parse().ok()).collect();
        names.retain(|name| name.id == *id);
        names.sort_by_key(|name| match name.part {
            Part::Manifest => 0,
            Part::Data { .. } => 1,
            Part::Verification { .. } => 2,
            Part::Hold { .. } => 3,
        });
        for name in &names {
            self.store.delete(&self.path(name)).await?;
        }
        Ok(())
    }

    /// Deletes an object that belongs to no backup.
    pub(super) async fn delete_orphan(&self, name: &str) -> Result<()> {
        self.store.delete(&self.path_of(name)).await
    }
}

fn taken(id: &BackupId) -> Error {
    Error::conflict("backup_exists", format!("there is a backup {id} already"))
        .with_hint("two were taken in the same second: run it again")
}
