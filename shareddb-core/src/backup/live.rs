//! What an app's database has that a dump made elsewhere does not decide.

use std::collections::{BTreeMap, BTreeSet};

use super::job::Job;
use super::{dump, prerequisites, record, scratch};
use crate::app::{App, EXTENSION_SCHEMA};
use crate::error::{Error, Result};
use crate::postgres::census::Reader;
use crate::postgres::copies::Locale;
use crate::postgres::marks::Marks;
use crate::postgres::requirements;

/// It is in every database.
const LANGUAGE: &str = "plpgsql";

/// What the app's database has and its successor gets.
pub(super) struct Live {
    /// Extensions that the admin made, with their schemas.
    pub(super) extensions: BTreeMap<String, String>,
    /// Roles of other apps.
    pub(super) others: BTreeSet<String>,
    pub(super) locale: Locale,
}

impl Live {
    pub(super) async fn read(job: &Job<'_>) -> Result<Self> {
        let session = dump::reading(job, job.app.database.as_str()).await?;
        let census = Reader(&session).census(&[]).await?;
        let marks = Marks::read(job.admin()).await?;
        let apps = marks.records().into_values().filter_map(|mark| App::recorded(mark).ok());
        let others = apps.filter(|app| app.name != job.app.name);
        let others = others.flat_map(|app| app.roles().map(ToString::to_string).collect::<Vec<_>>()).collect();
        let by_admin = census.extensions.iter().filter(|extension| extension.owner != job.app.owner.as_str());
        Ok(Self {
            extensions: by_admin.map(|extension| (extension.name.clone(), extension.schema.clone())).collect(),
            others,
            locale: scratch::locale(&record::server(&census)),
        })
    }

    /// What the admin has to make, and where: what it has made for the app already. A dump decides where, and not what.
    pub(super) async fn by_admin(
        &self,
        job: &Job<'_>,
        named: BTreeMap<String, Option<String>>,
    ) -> Result<Vec<(String, String)>> {
        let names: Vec<&str> = named.keys().map(String::as_str).filter(|name| *name != LANGUAGE).collect();
        prerequisites::extensions_there(job, &names).await?;
        let others = || named.iter().filter(|(name, _)| *name != LANGUAGE && !self.extensions.contains_key(*name));
        let refused = requirements::superusers_extensions(job.admin(), others().map(|(name, _)| name.as_str())).await?;
        if !refused.is_empty() {
            let message = format!("it needs extensions that only an admin may make: {}", refused.join(", "));
            let create = format!("shareddb create {} -e {}", job.app.name, job.server.environment());
            return Err(Error::refused("extension_not_made", message).with_hint(format!(
                "have them made, then run this again: {create} --extension {}",
                refused.join(",")
            )));
        }
        let place = |(name, schema): (&String, &String)| {
            let wanted = named.get(name).cloned().flatten();
            (name.clone(), wanted.unwrap_or_else(|| schema.clone()))
        };
        // That schema is an admin's, here as there.
        let ours = others().filter(|(_, schema)| schema.as_deref() == Some(EXTENSION_SCHEMA));
        let ours = ours.map(|(name, _)| (name.clone(), EXTENSION_SCHEMA.to_owned()));
        Ok(self.extensions.iter().map(place).chain(ours).collect())
    }
}

/// Schemas that the admin makes for them.
pub(super) fn schemas(extensions: &[(String, String)]) -> BTreeSet<String> {
    let schemas = extensions.iter().map(|(_, schema)| schema.clone());
    schemas.filter(|schema| schema != "public" && schema != "pg_catalog").collect()
}
