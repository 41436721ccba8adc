//! The manifest of a dump that has just been taken.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::archive::Contents;
use super::dump::Sight;
use super::id::BackupId;
use super::job::Job;
use super::manifest::{
    API_VERSION, DatabaseFacts, ExtensionFacts, ExtensionOwner, KIND, Manifest, ROW_DIGEST, RoleSettings,
    SequenceFacts, ServerFacts, Stored, TableFacts,
};
use super::options::BackupOptions;
use super::schema_digest::schema_digest;
use crate::error::{Error, Result};
use crate::names::{ExtensionName, RoleName};
use crate::postgres::census::{Census, TableFact};

/// What a manifest says beside what was seen and read.
pub(super) struct Circumstances<'a> {
    pub(super) id: BackupId,
    pub(super) stored: Stored,
    pub(super) system_identifier: String,
    /// Tables of the admin's extensions.
    pub(super) strange: &'a [TableFact],
    pub(super) attempts: u32,
    pub(super) took: Duration,
}

pub(super) fn manifest(
    job: &Job<'_>,
    options: &BackupOptions,
    sight: &Sight,
    contents: &Contents,
    circumstances: Circumstances<'_>,
) -> Result<Manifest> {
    let Circumstances { id, stored, system_identifier, strange, attempts, took } = circumstances;
    let census = &sight.census;
    let app = &job.app;
    let mut not_included: Vec<String> =
        census.left_out.iter().map(|(what, number)| format!("{what}: {number}")).collect();
    not_included.extend(strange.iter().map(|table| {
        format!("rows of {}, which extension {} has made", table.sql(), table.extension.as_deref().unwrap_or_default())
    }));
    Ok(Manifest {
        api_version: API_VERSION.to_owned(),
        kind: KIND.to_owned(),
        taken_at: id.taken_at(),
        keep: options.kept_until(id.taken_at()),
        id,
        app: app.name.clone(),
        environment: job.server.environment().clone(),
        took_seconds: (took.as_secs_f64() * 10.0).round() / 10.0,
        reason: options.reason,
        shareddb: env!("CARGO_PKG_VERSION").to_owned(),
        server: ServerFacts {
            system_identifier,
            client: contents.toc.dump_version.clone(),
            archive: contents.toc.version.to_string(),
            ..server(census)
        },
        database: DatabaseFacts {
            name: app.database.clone(),
            owner: app.owner.clone(),
            schema: app.schema.clone(),
            bytes: census.bytes,
        },
        // Values may be anybody's secret.
        settings: if stored.encryption.is_some() { Vec::new() } else { settings(census) },
        data: stored,
        row_digest: ROW_DIGEST.to_owned(),
        schema_digest: schema_digest(&contents.toc),
        tables: tables(sight, contents),
        sequences: sequences(sight),
        large_objects: contents.large_objects,
        extensions: extensions(job, census)?,
        roles: census.roles.iter().cloned().collect(),
        warnings: warnings(sight),
        not_included,
        attempts,
    })
}

/// When the snapshot was taken, by the server's clock.
pub(super) fn taken_at(census: &Census) -> Result<Timestamp> {
    let time = census.time.parse();
    time.map_err(|source: jiff::Error| {
        Error::failed("server_error", format!("the server's time {:?} cannot be read", census.time)).with_source(source)
    })
}

/// As far as the database tells.
pub(super) fn server(census: &Census) -> ServerFacts {
    let text = |column: &str| census.database.get(column).and_then(Value::as_str).map(str::to_owned);
    ServerFacts {
        version: census.server_version.clone(),
        system_identifier: String::new(),
        client: String::new(),
        archive: String::new(),
        encoding: census.encoding.clone(),
        collate: text("datcollate").unwrap_or_default(),
        ctype: text("datctype").unwrap_or_default(),
        provider: match text("datlocprovider").as_deref() {
            Some("i") => "icu",
            Some("b") => "builtin",
            _ => "libc",
        }
        .to_owned(),
        // The column was renamed when a builtin provider came.
        icu_locale: text("datlocale").or_else(|| text("daticulocale")),
        collation_version: text("datcollversion"),
    }
}

fn tables(sight: &Sight, contents: &Contents) -> Vec<TableFacts> {
    let counts: BTreeMap<(&str, &str), u64> = sight
        .tables
        .iter()
        .zip(&sight.counts)
        .map(|(table, count)| ((table.schema.as_str(), table.name.as_str()), *count))
        .collect();
    let entries = contents.toc.entries().iter().filter(|entry| entry.kind == "TABLE DATA");
    entries
        .filter_map(|entry| {
            let rows = contents.tables.get(&entry.id)?;
            let counted = counts.get(&(entry.namespace.as_str(), entry.tag.as_str()));
            Some(TableFacts {
                schema: entry.namespace.clone(),
                name: entry.tag.clone(),
                rows: counted.copied().unwrap_or(rows.rows),
                bytes: rows.bytes,
                digest: rows.digest,
            })
        })
        .collect()
}

fn sequences(sight: &Sight) -> Vec<SequenceFacts> {
    let pairs = sight.before.iter().filter_map(|before| {
        let after = sight.after.iter().find(|after| (&after.schema, &after.name) == (&before.schema, &before.name))?;
        Some((before, after))
    });
    pairs
        .map(|(before, after)| SequenceFacts {
            schema: before.schema.clone(),
            name: before.name.clone(),
            before: before.value,
            after: after.value,
        })
        .collect()
}

fn extensions(job: &Job<'_>, census: &Census) -> Result<Vec<ExtensionFacts>> {
    let facts = census.extensions.iter().map(|extension| {
        let ours = extension.owner == job.app.owner.as_str();
        Ok(ExtensionFacts {
            name: extension.name.parse::<ExtensionName>()?,
            version: extension.version.clone(),
            schema: extension.schema.clone(),
            owner: if ours { ExtensionOwner::App } else { ExtensionOwner::Admin },
        })
    });
    facts.collect()
}

/// Settings of the database itself bear no role's name.
fn settings(census: &Census) -> Vec<RoleSettings> {
    let named = census.settings.iter().filter_map(|(role, options)| {
        let set = options.iter().filter_map(|option| option.split_once('='));
        let set = set.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Some(RoleSettings { role: RoleName::existing(role).ok()?, set })
    });
    named.collect()
}

fn warnings(sight: &Sight) -> Vec<String> {
    let total: u64 = sight.counts.iter().sum();
    let mut warnings = Vec::new();
    if sight.tables.is_empty() {
        warnings.push("the database has no table".to_owned());
    } else if total == 0 {
        warnings.push("no table has a row".to_owned());
    }
    warnings
}
