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
use super::seal::Recipients;
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

    /// For whom a backup is encrypted that nobody asked for: these, or where there are none, those of the newest backup. What was
    /// once encrypted is not written in clear text beside it.
    pub(crate) async fn recipients(&self, asked: &Recipients) -> Result<Recipients> {
        let listed = self.list().await?;
        match listed.iter().max_by_key(|listed| listed.id.clone()) {
            Some(newest) => asked.clone().or_those_of(&self.manifest(&newest.id).await?),
            None => Ok(asked.clone()),
        }
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
        self.store.mark(&self.environment).await?;
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
        self.store.mark(&self.environment).await?;
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
        self.store.mark(&self.environment).await?;
        match self.store.create(&self.path(&name), document(verification)?.into()).await {
            // Another check of the same second has found the same.
            Err(error) if error.code() == "object_exists" => Ok(()),
            done => done,
        }
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

#[cfg(test)]
mod tests {
    use super::super::sample::{Fault, Faulty, ID, back_up, id, in_memory, manifest, noise, stored};
    use super::super::verification::Verdict;
    use super::*;

    const LATER: &str = "my-app-20261123T020056Z";

    async fn ids(shelf: &Shelf) -> Vec<String> {
        shelf.list().await.unwrap().iter().map(|listed| listed.id.to_string()).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_backup_is_listed_once_it_is_published() {
        let shelf = in_memory();
        assert!(ids(&shelf).await.is_empty());
        let mut pack = shelf.pack(&id(ID), PackOptions::default()).await.unwrap();
        pack.write(noise(100, 1)).await.unwrap();
        let manifest = manifest(&id(ID), pack.finish().await.unwrap());
        assert!(ids(&shelf).await.is_empty());
        assert_eq!(shelf.inventory().await.unwrap().orphans.len(), 1);
        shelf.publish(&manifest).await.unwrap();
        back_up(&shelf, &id(LATER), &noise(100, 2), PackOptions::default()).await;
        assert_eq!(ids(&shelf).await, [LATER, ID]);
        let listed = shelf.list().await.unwrap().remove(1);
        assert_eq!(listed.bytes, Some(manifest.data.bytes));
        assert_eq!(shelf.manifest(&id(ID)).await.unwrap(), manifest);
        assert_eq!(shelf.store().apps(shelf.environment()).await.unwrap(), [shelf.app().clone()]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn two_of_one_second_are_told() {
        let shelf = in_memory();
        let first = back_up(&shelf, &id(ID), &noise(100, 1), PackOptions::default()).await;
        assert_eq!(shelf.upload(&id(ID), Sealing::Open).await.unwrap_err().code(), "backup_exists");
        // The same again is what a lost reply looks like.
        shelf.publish(&first).await.unwrap();
        let mut other = first.clone();
        other.attempts = 2;
        assert_eq!(shelf.publish(&other).await.unwrap_err().code(), "backup_exists");
        assert_eq!(shelf.discard(&id(ID), &first.data.object).await.unwrap_err().code(), "backup_published");
        assert_eq!(shelf.manifest(&id(ID)).await.unwrap(), first);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_dump_of_a_loser_is_taken_back() {
        let shelf = in_memory();
        let mut loser = shelf.pack(&id(ID), PackOptions::default()).await.unwrap();
        loser.write(noise(50, 3)).await.unwrap();
        let first = back_up(&shelf, &id(ID), &noise(100, 1), PackOptions::default()).await;
        let lost = loser.finish().await.unwrap();
        let inventory = shelf.inventory().await.unwrap();
        assert_eq!(inventory.backups[0].bytes, Some(first.data.bytes));
        assert_eq!(inventory.orphans[0].name, lost.object);
        shelf.discard(&id(ID), &lost.object).await.unwrap();
        assert!(shelf.inventory().await.unwrap().orphans.is_empty());
        assert!(shelf.read(&first).await.is_ok());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_is_published_without_its_dump() {
        let shelf = in_memory();
        let error = shelf.publish(&manifest(&id(ID), stored(&id(ID)))).await.unwrap_err();
        assert_eq!(error.code(), "upload_damaged");
        assert!(ids(&shelf).await.is_empty());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_publication_that_fails_or_seems_to() {
        // The first create is the marker's.
        for (fault, published) in [(Fault::Create(1), false), (Fault::CreateReply(1), true), (Fault::Unguarded, true)] {
            let (store, shelf) = Faulty::new();
            let mut pack = shelf.pack(&id(ID), PackOptions::default()).await.unwrap();
            pack.write(noise(100, 1)).await.unwrap();
            let manifest = manifest(&id(ID), pack.finish().await.unwrap());
            store.breaks(fault);
            let done = shelf.publish(&manifest).await;
            assert_eq!(done.is_ok(), published, "{fault:?}: {done:?}");
            store.heals();
            assert_eq!(ids(&shelf).await.len(), usize::from(published), "{fault:?}");
            shelf.publish(&manifest).await.unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn other_apps_backups_are_not_touched_from_here() {
        let shelf = in_memory();
        let foreign = id("other-20261122T020056Z");
        assert_eq!(shelf.manifest(&foreign).await.unwrap_err().code(), "backup_foreign");
        assert_eq!(shelf.delete(&foreign).await.unwrap_err().code(), "backup_foreign");
        assert_eq!(shelf.hold(&foreign, "x", None).await.unwrap_err().code(), "backup_foreign");
        assert_eq!(shelf.manifest(&id(ID)).await.unwrap_err().code(), "backup_not_found");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn holds_and_checks_are_listed() {
        let shelf = in_memory();
        back_up(&shelf, &id(ID), &noise(100, 1), PackOptions::default()).await;
        let now: Timestamp = "2026-11-24T00:00:00Z".parse().unwrap();
        let until: Timestamp = "2026-11-24T01:00:00.5Z".parse().unwrap();
        let mut hold = shelf.hold(&id(ID), "restore", Some(until)).await.unwrap();
        let held = async |at: Timestamp| shelf.list().await.unwrap()[0].held(at);
        assert!(held(now).await && held(until).await);
        assert!(!held("2026-11-24T01:00:01Z".parse().unwrap()).await);
        let later = "2026-11-24T02:00:00Z".parse().unwrap();
        hold.extend(later).await.unwrap();
        assert_eq!(shelf.list().await.unwrap()[0].holds.len(), 1);
        assert!(held(later).await);
        hold.release().await.unwrap();
        assert!(!held(now).await);
        for (at, verdict) in [("2026-11-24T00:00:00Z", Verdict::Passed), ("2026-11-25T00:00:00Z", Verdict::Read)] {
            shelf.record(&id(ID), &Verification::new(id(ID), at.parse().unwrap(), verdict)).await.unwrap();
        }
        let listed = shelf.list().await.unwrap().remove(0);
        assert_eq!(listed.checks.len(), 2);
        assert_eq!(listed.verified().unwrap().at, now);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_manifest_goes_first() {
        let (store, shelf) = Faulty::new();
        back_up(&shelf, &id(ID), &noise(100, 1), PackOptions::default()).await;
        back_up(&shelf, &id(LATER), &noise(100, 1), PackOptions::default()).await;
        let at = "2026-11-24T00:00:00Z".parse().unwrap();
        shelf.record(&id(ID), &Verification::new(id(ID), at, Verdict::Passed)).await.unwrap();
        shelf.hold(&id(ID), "x", Some(at)).await.unwrap();
        for word in ["manifest", ".dump.", "verify"] {
            store.breaks(Fault::Delete(word));
            assert_eq!(shelf.delete(&id(ID)).await.unwrap_err().code(), "store_denied");
            // Listed with its dump, or not at all.
            assert_eq!(ids(&shelf).await.len(), if word == "manifest" { 2 } else { 1 }, "{word}");
        }
        store.breaks(Fault::Read);
        shelf.delete(&id(ID)).await.unwrap();
        let endings =
            store.deleted().iter().map(|name| name.rsplit('.').nth(3).unwrap_or("").to_owned()).collect::<Vec<_>>();
        assert_eq!(endings.len(), 2, "{endings:?}");
        assert!(shelf.inventory().await.unwrap().orphans.is_empty());
        assert_eq!(ids(&shelf).await, [LATER]);
        shelf.delete(&id(ID)).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn listing_reads_nothing_of_a_backup() {
        let (store, shelf) = Faulty::new();
        for at in 10..30 {
            back_up(&shelf, &id(&format!("my-app-202611{at}T020056Z")), &noise(9, at), PackOptions::default()).await;
        }
        store.breaks(Fault::Unguarded);
        assert!(!ids(&shelf).await.is_empty());
        assert_eq!(store.read(), 0);
    }
}
