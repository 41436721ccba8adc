//! What is known of a backup. Written last and never changed: a backup is what has one.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::digest::RowDigest;
use super::id::BackupId;
use crate::error::{Error, Result};
use crate::names::{AppName, DatabaseName, EnvironmentName, ExtensionName, RoleName, SchemaName};

/// What every document beside a backup begins with.
pub(crate) const API_VERSION: &str = "shareddb/v1";
pub(crate) const KIND: &str = "Backup";
/// How [`TableFacts::digest`] is made.
pub(crate) const ROW_DIGEST: &str = "copy-text/v1";
/// No manifest is longer: a hundred thousand tables are 20 MiB.
pub(crate) const MANIFEST_MAX: u64 = 64 << 20;

/// The document that makes a backup of a dump. Table names and counts are readable in it, whether the dump is encrypted or
/// not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Manifest {
    /// `shareddb/v1`.
    pub api_version: String,
    /// `Backup`.
    pub kind: String,
    /// The backup's name.
    pub id: BackupId,
    /// Whose database it is.
    pub app: AppName,
    /// The environment it was taken in.
    pub environment: EnvironmentName,
    /// When, by the server's clock.
    pub taken_at: Timestamp,
    /// How long it took.
    pub took_seconds: f64,
    /// What it was taken for.
    pub reason: Reason,
    /// The version of shareddb that took it.
    pub shareddb: String,
    /// The server it was taken from.
    pub server: ServerFacts,
    /// The database it was taken from.
    pub database: DatabaseFacts,
    /// Where the dump is, and what it has to be.
    pub data: Stored,
    /// How the digests of tables are made: `copy-text/v1`.
    pub row_digest: String,
    /// The fingerprint of everything that is no data.
    pub schema_digest: String,
    /// Every table with rows of its own.
    pub tables: Vec<TableFacts>,
    /// Every sequence.
    pub sequences: Vec<SequenceFacts>,
    /// How many large objects there are.
    pub large_objects: u64,
    /// Extensions of the database.
    pub extensions: Vec<ExtensionFacts>,
    /// Roles that grants and policies name, other than the app's own.
    pub roles: Vec<String>,
    /// Settings of logins in this database. None where the dump is encrypted: values may be secret.
    pub settings: Vec<RoleSettings>,
    /// What is in the database and not in the dump.
    pub not_included: Vec<String>,
    /// What should be known before it is relied on.
    pub warnings: Vec<String>,
    /// How often the dump was begun.
    pub attempts: u32,
    /// Until when no policy deletes it.
    pub keep: Option<Timestamp>,
}

/// What a backup was taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reason {
    /// A schedule said so.
    Schedule,
    /// Somebody said so.
    Manual,
    /// A restore was about to replace the database.
    BeforeRestore,
    /// The app was about to be dropped.
    BeforeDrop,
    /// It was made of a dump from elsewhere.
    Import,
    /// One that this version does not know.
    #[serde(other)]
    Other,
}

impl Reason {
    /// Every one of them.
    pub const ALL: [Self; 6] =
        [Self::Schedule, Self::Manual, Self::BeforeRestore, Self::BeforeDrop, Self::Import, Self::Other];

    /// Its word, as manifests have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Manual => "manual",
            Self::BeforeRestore => "before-restore",
            Self::BeforeDrop => "before-drop",
            Self::Import => "import",
            Self::Other => "other",
        }
    }
}

/// The server a backup was taken from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerFacts {
    /// Its version, such as `15.18`.
    pub version: String,
    /// Which data directory it has.
    pub system_identifier: String,
    /// The version of `pg_dump`.
    pub client: String,
    /// The version of the archive format, such as `1.14`.
    pub archive: String,
    /// The database's encoding.
    pub encoding: String,
    /// `LC_COLLATE`.
    pub collate: String,
    /// `LC_CTYPE`.
    pub ctype: String,
    /// Where the locale comes from: `libc`, `icu`, `builtin`.
    pub provider: String,
    /// The locale, where it is ICU's.
    pub icu_locale: Option<String>,
    /// The version of the collation, where the server tells.
    pub collation_version: Option<String>,
}

/// The database a backup was taken from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseFacts {
    /// Its name.
    pub name: DatabaseName,
    /// Its owner.
    pub owner: RoleName,
    /// The app's schema.
    pub schema: SchemaName,
    /// Its size on the server.
    pub bytes: u64,
}

/// A dump as it lies in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stored {
    /// The object's name, in the folder of the app.
    pub object: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, as 64 hex digits.
    pub sha256: String,
    /// The size of what is in it, once decrypted and decompressed.
    pub archive_bytes: u64,
    /// How it is compressed, such as `zstd:3`.
    pub compression: String,
    /// How it is encrypted, if it is.
    pub encryption: Option<Encryption>,
}

/// How a dump is encrypted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", content = "recipients", rename_all = "kebab-case")]
pub enum Encryption {
    /// With age, for the holders of the private keys to these public ones.
    Age(Vec<String>),
    /// With age, for whoever knows the passphrase.
    AgePassphrase,
}

/// What a table held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TableFacts {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// How many rows of its own, as the server counts them.
    pub rows: u64,
    /// The size of its rows as text.
    pub bytes: u64,
    /// The digest of its rows.
    pub digest: RowDigest,
}

/// Where a sequence stood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SequenceFacts {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Its last value before the dump began.
    pub before: i64,
    /// Its last value after the dump had ended: sequences are in no snapshot.
    pub after: i64,
}

/// An extension of the database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExtensionFacts {
    /// Its name.
    pub name: ExtensionName,
    /// Its version.
    pub version: String,
    /// The schema of its objects.
    pub schema: String,
    /// Who made it: the `app`, or the `admin`, as only an admin may make some.
    pub owner: ExtensionOwner,
}

/// Who made an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExtensionOwner {
    /// The app's owner role.
    App,
    /// An admin of the server.
    Admin,
}

/// What a login has set for itself in this database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoleSettings {
    /// The login.
    pub role: RoleName,
    /// Names and values.
    pub set: BTreeMap<String, String>,
}

/// What says how the rest is to be read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: String,
    kind: String,
}

impl Manifest {
    /// The bytes that are stored. Equal manifests have equal bytes.
    ///
    /// # Errors
    /// `Failed` for a number that JSON cannot hold.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        document(self)
    }

    /// Reads what was stored as the manifest of `id`. Fields of newer versions are ignored.
    ///
    /// # Errors
    /// `Refused` (`manifest_version`) when it has another `apiVersion`, `Conflict` (`backup_foreign`) when it belongs to
    /// another app or environment, `Failed` (`manifest_damaged`) when it cannot be read or contradicts itself.
    pub(crate) fn parse(bytes: &[u8], id: &BackupId, environment: &EnvironmentName) -> Result<Self> {
        let damaged = |why: &str| {
            Error::failed("manifest_damaged", format!("the manifest of {id} is damaged: {why}"))
                .with_hint("choose another backup: `shareddb backups` lists them")
        };
        let head: Head = serde_json::from_slice(bytes).map_err(|_| damaged("it is no such document"))?;
        if head.kind != KIND {
            return Err(damaged("it is a document of another kind"));
        }
        if head.api_version != API_VERSION {
            let message = format!(
                "the manifest of {id} is of version {:?}, and this program knows {API_VERSION:?}",
                head.api_version
            );
            return Err(Error::refused("manifest_version", message)
                .with_hint("use the version of shareddb that took it, or a newer one"));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| damaged(&error.to_string()))?;
        manifest.belongs_to(id, environment)?;
        if manifest.id != *id {
            return Err(damaged("it is another backup's"));
        }
        match manifest.contradiction() {
            Some(why) => Err(damaged(why)),
            None => Ok(manifest),
        }
    }

    fn belongs_to(&self, id: &BackupId, environment: &EnvironmentName) -> Result<()> {
        if self.app != *id.app() || self.environment != *environment {
            let message = format!(
                "what lies at {id} is a backup of {} in {}, not of {} in {environment}",
                self.app,
                self.environment,
                id.app()
            );
            return Err(Error::conflict("backup_foreign", message)
                .with_hint("somebody has copied or moved it: put it back into the folder that it names"));
        }
        Ok(())
    }

    /// What cannot be true of it, whoever wrote it.
    fn contradiction(&self) -> Option<&'static str> {
        let object = self.data.object.parse::<super::object::ObjectName>();
        let is_data =
            |part| matches!(part, super::object::Part::Data { sealed, .. } if sealed == self.data.encryption.is_some());
        if self.id.app() != &self.app || self.id != BackupId::new(self.app.clone(), self.taken_at).ok()? {
            return Some("its name is not of its app and its time");
        }
        if !object.is_ok_and(|object| object.id == self.id && is_data(object.part)) {
            return Some("its dump is not its own");
        }
        let digits =
            |text: &str| text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (!digits(&self.data.sha256)).then_some("its SHA-256 is none")
    }
}

/// A document as it is stored: JSON on one line.
pub(crate) fn document(content: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(content).map_err(|error| {
        Error::failed("document_unwritable", "a document cannot be written as JSON").with_source(error)
    })?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::sample::{ID, id, manifest, stored};
    use super::*;

    fn parse(text: &str) -> Result<Manifest> {
        Manifest::parse(text.as_bytes(), &id(ID), &"production".parse().unwrap())
    }

    fn text() -> String {
        String::from_utf8(manifest(&id(ID), stored(&id(ID))).to_bytes().unwrap()).unwrap()
    }

    #[test]
    fn equal_content_is_equal_bytes() {
        let read = parse(&text()).unwrap();
        assert_eq!(read, manifest(&id(ID), stored(&id(ID))));
        assert_eq!(String::from_utf8(read.to_bytes().unwrap()).unwrap(), text());
        let start = r#"{"apiVersion":"shareddb/v1","kind":"Backup","id":"my-app-20261122T020056Z","app":"my-app","environment":"production","takenAt":"2026-11-22T02:00:56Z","tookSeconds":4.1,"reason":"schedule","shareddb":"0.3.0","server":{"version":"15.18","systemIdentifier":"#;
        assert!(text().starts_with(start), "{}", text());
        assert!(text().ends_with("\"attempts\":1,\"keep\":null}\n"));
    }

    #[test]
    fn what_newer_versions_add_is_passed_over() {
        let newer = text().replacen("{", r#"{"novelty":{"x":[1]},"#, 1).replace("\"schedule\"", "\"clone\"");
        assert_eq!(parse(&newer).unwrap().reason, Reason::Other);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let code = |text: &str| parse(text).unwrap_err().code();
        assert_eq!(code(&text().replace("shareddb/v1", "shareddb/v2")), "manifest_version");
        assert_eq!(code(&text().replace("\"production\"", "\"stage\"")), "backup_foreign");
        assert_eq!(code(&text().replace("my-app", "other")), "backup_foreign");
        for damaged in [
            String::new(),
            "{}".to_owned(),
            text()[..text().len() / 2].to_owned(),
            text().replace("\"Backup\"", "\"Hold\""),
            text().replace("20261122T020056Z", "20261122T020057Z"),
            text().replace("2026-11-22T02:00:56Z", "2026-11-22T02:00:57Z"),
            text().replace("k3v9q2.dump.zst", "../../x.dump.zst"),
            text().replace("k3v9q2.dump.zst", "manifest.json"),
            text().replace("k3v9q2.dump.zst", "k3v9q2.dump.zst.age"),
            text().replace("abababab", "ABABABAB"),
            text().replace("\"rows\":1000", "\"rows\":-1"),
        ] {
            assert_eq!(code(&damaged), "manifest_damaged", "{damaged}");
        }
    }

    #[test]
    fn encryption_names_its_recipients() {
        let mut data = stored(&id(ID));
        data.object.push_str(".age");
        data.encryption = Some(Encryption::Age(vec!["age1x".to_owned()]));
        let bytes = manifest(&id(ID), data.clone()).to_bytes().unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains(r#""encryption":{"method":"age","recipients":["age1x"]}"#), "{text}");
        assert_eq!(parse(&text).unwrap().data, data);
    }
}
