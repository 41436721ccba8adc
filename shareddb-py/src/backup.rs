//! `Backup`: what is known of one, and `Verification`: what a check has found.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use pyo3::prelude::*;
use shareddb_core::{BackupId, Described, Manifest, Reason, Verdict, Verification as CoreVerification, Verified};

use crate::dialects::chosen;
use crate::listing::html;
use crate::moments::{moment, span};
use crate::work::known;

/// What a backup is taken for, by its word.
pub(crate) fn reason(py: Python<'_>, word: &str) -> PyResult<Reason> {
    known(py, chosen("reason", word, &Reason::ALL, |reason| reason.as_str()))
}

/// A backup of an app.
#[pyclass(module = "shareddb", frozen)]
pub(crate) struct Backup {
    id: BackupId,
    checked: Option<Verified>,
    held: bool,
    manifest: Result<Box<Manifest>, String>,
}

impl Backup {
    /// One that was just taken.
    pub(crate) fn taken(manifest: Manifest) -> Self {
        Self { id: manifest.id.clone(), checked: None, held: false, manifest: Ok(Box::new(manifest)) }
    }

    /// One of a list.
    pub(crate) fn listed(described: Described) -> Self {
        let Described { listed, manifest, .. } = described;
        Self {
            checked: listed.checks.iter().find(|check| check.verdict != Verdict::Read).copied(),
            held: listed.held(Timestamp::now()),
            id: listed.id,
            manifest: manifest.map(Box::new).map_err(|error| error.to_string()),
        }
    }

    pub(crate) fn core_id(&self) -> &BackupId {
        &self.id
    }

    fn fact<T>(&self, fact: impl Fn(&Manifest) -> T) -> Option<T> {
        self.manifest.as_deref().ok().map(fact)
    }
}

#[pymethods]
impl Backup {
    /// Its name, such as `my-app-20261122T020056Z`.
    #[getter]
    fn id(&self) -> String {
        self.id.to_string()
    }

    /// Whose backup it is.
    #[getter]
    fn app(&self) -> &str {
        self.id.app().as_str()
    }

    /// When it was taken, by the server's clock.
    #[getter]
    fn taken_at(&self) -> SystemTime {
        moment(self.id.taken_at())
    }

    /// What the last check that restored it has found, `passed` or `failed`.
    #[getter]
    fn verdict(&self) -> Option<&'static str> {
        self.checked.map(|check| check.verdict.as_str())
    }

    /// When that check ended.
    #[getter]
    fn checked_at(&self) -> Option<SystemTime> {
        self.checked.map(|check| moment(check.at))
    }

    /// Whether somebody keeps prunes away from it.
    #[getter]
    fn held(&self) -> bool {
        self.held
    }

    /// Why nothing more is known of it, where its manifest cannot be read: all that follows is `None` then.
    #[getter]
    fn problem(&self) -> Option<&str> {
        self.manifest.as_ref().err().map(String::as_str)
    }

    /// The size of its dump in the store.
    #[getter]
    fn bytes(&self) -> Option<u64> {
        self.fact(|manifest| manifest.data.bytes)
    }

    /// The size of the database on the server.
    #[getter]
    fn database_bytes(&self) -> Option<u64> {
        self.fact(|manifest| manifest.database.bytes)
    }

    /// How many rows it has.
    #[getter]
    fn rows(&self) -> Option<u64> {
        self.fact(|manifest| manifest.tables.iter().map(|table| table.rows).sum())
    }

    /// How many rows each table has, by schema and name.
    #[getter]
    fn tables(&self) -> Option<std::collections::BTreeMap<(String, String), u64>> {
        let table = |table: &shareddb_core::TableFacts| ((table.schema.clone(), table.name.clone()), table.rows);
        self.fact(|manifest| manifest.tables.iter().map(table).collect())
    }

    /// How long it took.
    #[getter]
    fn took(&self) -> Option<Duration> {
        self.fact(|manifest| span(manifest.took_seconds))
    }

    /// What it was taken for: `manual`, `schedule`, `before-restore`, `before-drop`, `import` or `other`.
    #[getter]
    fn reason(&self) -> Option<&'static str> {
        self.fact(|manifest| manifest.reason.as_str())
    }

    /// The version of the server.
    #[getter]
    fn server(&self) -> Option<String> {
        self.fact(|manifest| manifest.server.version.clone())
    }

    /// Whether it opens with a key only.
    #[getter]
    fn encrypted(&self) -> Option<bool> {
        self.fact(|manifest| manifest.data.encryption.is_some())
    }

    /// Until when no policy deletes it.
    #[getter]
    fn keep_until(&self) -> Option<SystemTime> {
        self.fact(|manifest| manifest.keep.map(moment)).flatten()
    }

    /// What is in the database and not in the backup.
    #[getter]
    fn not_included(&self) -> Option<Vec<String>> {
        self.fact(|manifest| manifest.not_included.clone())
    }

    /// What should be known before it is relied on.
    #[getter]
    fn warnings(&self) -> Option<Vec<String>> {
        self.fact(|manifest| manifest.warnings.clone())
    }

    fn __str__(&self) -> String {
        self.id.to_string()
    }

    fn __repr__(&self) -> String {
        match self.fact(|manifest| manifest.data.bytes) {
            Some(bytes) => format!("<Backup {}, {bytes} bytes>", self.id),
            None => format!("<Backup {}, unreadable>", self.id),
        }
    }
}

/// What a check of a backup has found.
#[pyclass(module = "shareddb", frozen)]
pub(crate) struct Verification(CoreVerification);

impl Verification {
    pub(crate) fn new(verification: CoreVerification) -> Self {
        Self(verification)
    }
}

#[pymethods]
impl Verification {
    /// Which backup was checked.
    #[getter]
    fn id(&self) -> String {
        self.0.id.to_string()
    }

    /// When the check ended.
    #[getter]
    fn at(&self) -> SystemTime {
        moment(self.0.at)
    }

    /// What was found: `passed`, `read` when it was only read to its end, or `failed`.
    #[getter]
    fn verdict(&self) -> &'static str {
        self.0.verdict.as_str()
    }

    /// Whether nothing speaks against it.
    #[getter]
    fn passed(&self) -> bool {
        self.0.verdict != Verdict::Failed
    }

    /// How long it took.
    #[getter]
    fn took(&self) -> Duration {
        span(self.0.took_seconds)
    }

    /// What was wrong, a sentence each.
    #[getter]
    fn findings(&self) -> Vec<String> {
        self.0.findings.clone()
    }

    /// What of it a restore leaves out, and why.
    #[getter]
    fn left_out(&self) -> Vec<String> {
        self.0.left_out.clone()
    }

    fn _repr_html_(slf: &Bound<'_, Self>) -> PyResult<String> {
        html(slf.as_any())
    }

    fn __repr__(&self) -> String {
        format!("<Verification of {}: {}>", self.0.id, self.0.verdict)
    }
}
