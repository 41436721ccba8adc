//! What is to be restored: a backup, or a dump that was made elsewhere.

use jiff::Timestamp;
use shareddb_core::{
    AppName, BackupStore, Choice, DumpFile, DumpForm, Environment, Identities, Manifest, OtherRoles, RestoreOptions,
    Result, Shelf,
};

use crate::args::Restore;
use crate::context::Context;
use crate::moments::age;
use crate::units;

/// It, and where the backups of the app that it replaces are.
pub(super) struct Incoming {
    pub(super) what: What,
    pub(super) store: BackupStore,
    /// When a check found that it does not restore, if none has restored it since.
    failed: Option<Timestamp>,
}

pub(super) enum What {
    Backup(Box<Manifest>, Shelf),
    File(DumpFile),
}

impl Incoming {
    /// Looks for it.
    ///
    /// # Errors
    /// `NotFound` when it is not there, and whatever hinders reading it.
    pub(super) async fn of(
        args: &Restore,
        app: &AppName,
        environment: &Environment,
        context: &Context,
    ) -> Result<Self> {
        if let Some(path) = &args.input {
            let file = DumpFile::open(path).await?;
            return Ok(Self { what: What::File(file), store: for_safety(args, environment)?, failed: None });
        }
        let (store, shelf) = match &args.from_env {
            Some(name) => {
                let there = context.other_environment(name)?;
                let shelf = BackupStore::from_env(&there, args.from.as_deref())?.shelf(there.name(), app);
                (for_safety(args, environment)?, shelf)
            }
            None => {
                let store = BackupStore::from_env(environment, args.from.as_deref())?;
                let shelf = store.shelf(environment.name(), app);
                (store, shelf)
            }
        };
        let choice = args.at.map_or_else(|| args.backup.clone(), Choice::At);
        let id = shelf.choose(&choice).await?;
        let manifest = Box::new(shelf.manifest(&id).await?);
        // Only what is known of it: where nothing can be listed, it may be there all the same.
        let listed = shelf.list().await.unwrap_or_default().into_iter().find(|listed| listed.id == id);
        let failed = listed.and_then(|listed| listed.damaged()).map(|check| check.at);
        Ok(Self { what: What::Backup(manifest, shelf), store, failed })
    }

    /// How it is restored.
    ///
    /// # Errors
    /// When a file with keys cannot be read.
    pub(super) async fn options(&self, args: &Restore) -> Result<RestoreOptions> {
        let mut options = RestoreOptions::default();
        options.safety_backup = !args.no_safety_backup;
        options.other_roles = match (args.skip_grants_to_missing, args.keep_grants) {
            (true, _) => Some(OtherRoles::Existing),
            (false, true) => Some(OtherRoles::Require),
            (false, false) => None,
        };
        if let What::Backup(manifest, shelf) = &self.what {
            options.identities = Identities::files(args.keys.identity.clone()).await?;
            // What was shown is what is restored, also when there is a newer one by then.
            options.backup = Choice::Id(manifest.id.clone());
            options.shelf = Some(shelf.clone());
        }
        Ok(options)
    }

    fn doubt(&self) -> String {
        self.failed.map(|at| format!("; verify found {} ago that it does NOT restore", age(at))).unwrap_or_default()
    }

    /// What it is, in a clause.
    pub(super) fn described(&self) -> String {
        match &self.what {
            What::Backup(manifest, _) => {
                let (taken, rows, doubt) = (age(manifest.taken_at), rows(manifest), self.doubt());
                format!("{}, taken {taken} ago ({rows} rows{doubt})", manifest.id)
            }
            What::File(file) => format!("{} ({}, {})", file.path().display(), form(file), units::bytes(file.bytes())),
        }
    }

    /// The same for a plan.
    pub(super) fn planned(&self) -> String {
        match &self.what {
            What::Backup(manifest, _) => {
                let stored = units::bytes(manifest.data.bytes);
                format!("backup/{} ({stored}, taken {} ago{})", manifest.id, age(manifest.taken_at), self.doubt())
            }
            What::File(file) => {
                format!("file {} ({}, {})", file.path().display(), form(file), units::bytes(file.bytes()))
            }
        }
    }

    /// What somebody should think of where data of one environment get into another.
    pub(super) fn crossing(&self, environment: &Environment) -> Option<String> {
        let What::Backup(manifest, _) = &self.what else { return None };
        (manifest.environment != *environment.name()).then(|| {
            format!(
                "{} rows of env {} get into env {}, and what they say of people with them",
                rows(manifest),
                manifest.environment,
                environment.name()
            )
        })
    }
}

/// Where the backup of what is there goes, if there is to be one.
fn for_safety(args: &Restore, environment: &Environment) -> Result<BackupStore> {
    match BackupStore::from_env(environment, None) {
        Err(_) if args.no_safety_backup => BackupStore::open("memory:///", []),
        store => store,
    }
}

fn rows(manifest: &Manifest) -> u64 {
    manifest.tables.iter().map(|table| table.rows).sum()
}

fn form(file: &DumpFile) -> &'static str {
    match file.form() {
        DumpForm::Script => "a script",
        DumpForm::Custom => "an archive of -Fc",
        DumpForm::Tar => "an archive of -Ft",
        DumpForm::Directory => "an archive of -Fd",
        _ => "a dump",
    }
}
