//! A database of its own for a backup to be loaded into, which only the maintenance login may enter.

use std::time::Duration;

use rand::RngExt as _;
use secrecy::SecretString;

use super::job::Job;
use super::manifest::ServerFacts;
use crate::connection::ConnectionConfig;
use crate::copy_mark::{CopyMark, CopyRole};
use crate::error::{Error, Result};
use crate::password::{self, Verifier};
use crate::postgres::copies::{self, CopyFact, Locale};
use crate::postgres::statements as sql;
use crate::postgres::{loader, maintenance};

/// A scratch that is older is left over, even where nobody knows from whom.
const LEFT_OVER: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a restore can be taken back.
const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A scratch database. [`drop`](Self::drop) it, or [`keep`](Self::into_name) it for a swap.
pub(crate) struct Scratch<'a> {
    job: &'a Job<'a>,
    /// Its own, and its login's.
    name: String,
    password: SecretString,
}

impl<'a> Scratch<'a> {
    /// Makes one and furnishes it: closed to all, with the extensions that only an admin may make.
    ///
    /// # Errors
    /// `Refused` when the server lacks the locale; what was made is dropped again.
    pub(crate) async fn create(
        job: &'a Job<'a>,
        backup: &str,
        locale: &Locale,
        extensions: &[(String, String)],
    ) -> Result<Self> {
        let admin = job.admin();
        let since = copies::now(admin).await?;
        let scratch = Self { job, name: name('r', &since), password: password::generate()? };
        let mark = CopyMark { role: CopyRole::Scratch, app: job.app.name.clone(), backup: backup.to_owned(), since };
        let made = async {
            for statement in copies::create(&scratch.name, &job.app, &mark, locale) {
                admin.run("make a database for the restore", &statement).await?;
            }
            let verifier = Verifier::of(&scratch.password)?;
            loader::create(admin, &job.facts, &job.app, &scratch.name, &verifier, job.until()).await?;
            let inside = job.server.tenant_session(&scratch.name, &job.facts).await?;
            inside.run_transaction("furnish it", &copies::furnish(&job.app, extensions)).await
        };
        match made.await {
            Ok(()) => Ok(scratch),
            Err(error) => {
                // The first error counts; what cannot be dropped now is swept later.
                let _ = scratch.drop().await;
                Err(explained(error, locale))
            }
        }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// How it is loaded. What was loaded before may have changed the password: it is ours again.
    pub(crate) async fn loading(&self) -> Result<ConnectionConfig> {
        let verifier = Verifier::of(&self.password)?;
        loader::admit(self.job.admin(), &self.job.facts, &self.name, &verifier).await?;
        Ok(self.job.loading(&self.name, &self.password))
    }

    /// Everything in it becomes the owner's, whatever tenant code did while it was loaded.
    pub(crate) async fn gather(&self) -> Result<()> {
        let inside = self.job.server.tenant_session(&self.name, &self.job.facts).await?;
        maintenance::gather(&inside, &self.job.facts, &self.job.app).await?;
        let statements = loader::gather(&self.job.facts, &self.job.app, &self.name);
        let statements = maintenance::with_rights_of(&self.job.facts, &self.job.app, statements);
        inside.run_transaction("hand what was loaded to the owner", &statements).await
    }

    /// Nobody is in it any more, and nobody gets in: its login is gone.
    async fn lock(&self) -> Result<()> {
        let (job, name) = (self.job, self.name.as_str());
        loader::close(job.admin(), &job.facts, name).await?;
        let inside = job.server.tenant_session(name, &job.facts).await?;
        let statements = loader::dispossess(&job.facts, &job.app, name);
        let statements = maintenance::with_rights_of(&job.facts, &job.app, statements);
        inside.run_transaction("take from the login of the load what it has", &statements).await?;
        drop(inside);
        loader::drop(job.admin(), name).await
    }

    /// Itself, locked, if what was to fill it did; else it is dropped.
    pub(crate) async fn if_filled<T>(self, filled: Result<T>) -> Result<(Self, T)> {
        let whole = match filled {
            Ok(what) => self.lock().await.map(|()| what),
            Err(error) => Err(error),
        };
        match whole {
            Ok(what) => Ok((self, what)),
            Err(error) => {
                // The first error counts; what cannot be dropped now is swept later.
                let _ = self.drop().await;
                Err(error)
            }
        }
    }

    /// Makes the owner's what the admin made for the sake of extensions.
    pub(crate) async fn hand_over(&self, schemas: &[&str]) -> Result<()> {
        if schemas.is_empty() {
            return Ok(());
        }
        let job = self.job;
        let inside = job.server.tenant_session(&self.name, &job.facts).await?;
        let statements = schemas.iter().map(|schema| sql::own_schema(schema, job.app.owner.as_str())).collect();
        let statements = maintenance::with_rights_of(&job.facts, &job.app, statements);
        inside.run_transaction("hand schemas to the owner", &statements).await
    }

    /// Drops it.
    pub(crate) async fn drop(self) -> Result<()> {
        drop_copy(self.job, &self.name).await
    }

    /// Leaves it to whoever knows its name.
    pub(crate) fn into_name(self) -> String {
        self.name
    }
}

/// Drops a copy, with the sessions in it and its login, if it has one.
pub(crate) async fn drop_copy(job: &Job<'_>, name: &str) -> Result<()> {
    let admin = job.admin();
    loader::close(admin, &job.facts, name).await?;
    maintenance::empty(admin, &job.facts, &job.app, name).await?;
    admin.run(&format!("drop database {name}"), &sql::drop_database(name)).await?;
    loader::drop(admin, name).await
}

/// Drops what runs that were killed have left: this app's scratches at once, as its lock is ours; those of others when
/// they are old.
pub(crate) async fn sweep(job: &Job<'_>) -> Result<()> {
    let is_left = |copy: &CopyFact| {
        copy.mark.role == CopyRole::Scratch && (copy.mark.app == job.app.name || copy.age > LEFT_OVER)
    };
    drop_all(job, is_left).await?;
    for name in loader::left(job.admin()).await? {
        loader::close(job.admin(), &job.facts, &name).await?;
        // Another run may be about to do the same.
        if let Err(error) = loader::drop(job.admin(), &name).await {
            tracing::warn!(%error, role = name, "a login of a load is left over");
        }
    }
    Ok(())
}

/// The same, and drops what restores of this app have kept for long enough.
pub(crate) async fn clear(job: &Job<'_>) -> Result<()> {
    sweep(job).await?;
    expire(job).await
}

async fn expire(job: &Job<'_>) -> Result<()> {
    let is_over =
        |copy: &CopyFact| copy.mark.role == CopyRole::Kept && copy.mark.app == job.app.name && copy.age > KEPT_FOR;
    drop_all(job, is_over).await
}

async fn drop_all(job: &Job<'_>, goes: impl Fn(&CopyFact) -> bool) -> Result<()> {
    for copy in copies::copies(job.admin()).await?.iter().filter(|copy| goes(copy)) {
        drop_copy(job, &copy.name).await?;
    }
    Ok(())
}

/// `shareddb_r_1f2e3d4c_20261122T020056Z`: of a length of its own, since an app's database may have the longest name.
pub(super) fn name(kind: char, since: &str) -> String {
    let stamp: String = since.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("shareddb_{kind}_{:08x}_{}", rand::rng().random::<u32>(), stamp.to_lowercase())
}

fn explained(error: Error, locale: &Locale) -> Error {
    match error.sqlstate() {
        // invalid_parameter_value, wrong_object_type, undefined_object
        Some("22023" | "42809" | "42704") => {
            let message = format!(
                "the server cannot make a database with locale {} ({}, {})",
                locale.name.as_deref().unwrap_or(&locale.collate),
                locale.collate,
                locale.ctype
            );
            Error::refused("locale_missing", message)
                .with_hint("install the locale on the server, or choose another: --locale C.UTF-8")
                .with_source(error)
        }
        _ => error,
    }
}

/// The encoding and locale of the database that a backup is of.
pub(super) fn locale(server: &ServerFacts) -> Locale {
    Locale {
        encoding: server.encoding.clone(),
        collate: server.collate.clone(),
        ctype: server.ctype.clone(),
        provider: match server.provider.as_str() {
            "icu" => Some("i".to_owned()),
            "builtin" => Some("b".to_owned()),
            _ => None,
        },
        name: server.icu_locale.clone(),
    }
}
