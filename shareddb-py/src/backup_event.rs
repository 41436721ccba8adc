//! `BackupEvent`: what happens while a backup is taken, checked or restored.

use pyo3::prelude::*;
use shareddb_core::BackupEvent as Core;

/// Something that happened while a backup was taken, checked or restored.
#[pyclass(module = "shareddb", frozen)]
pub(crate) struct BackupEvent {
    app: String,
    stage: Option<&'static str>,
    bytes: Option<u64>,
    total: Option<u64>,
    table: Option<String>,
    notice: Option<String>,
}

impl BackupEvent {
    /// None for what this version does not know.
    pub(crate) fn of(app: &str, event: Core<'_>) -> Option<Self> {
        let nothing = Self { app: app.to_owned(), stage: None, bytes: None, total: None, table: None, notice: None };
        Some(match event {
            Core::Began(stage) => Self { stage: Some(stage.as_str()), ..nothing },
            Core::Moved { stage, bytes, total, table } => Self {
                stage: Some(stage.as_str()),
                bytes: Some(bytes),
                total,
                table: table.map(str::to_owned),
                ..nothing
            },
            Core::Noticed(notice) => Self { notice: Some(notice.to_owned()), ..nothing },
            _ => return None,
        })
    }
}

#[pymethods]
impl BackupEvent {
    /// The app.
    #[getter]
    fn app(&self) -> &str {
        &self.app
    }

    /// What is being done, in one word; `None` for a notice.
    #[getter]
    fn stage(&self) -> Option<&'static str> {
        self.stage
    }

    /// Bytes of rows so far; `None` when the stage begins.
    #[getter]
    fn bytes(&self) -> Option<u64> {
        self.bytes
    }

    /// Bytes in all, where they can be guessed.
    #[getter]
    fn total(&self) -> Option<u64> {
        self.total
    }

    /// The table that is on its way.
    #[getter]
    fn table(&self) -> Option<&str> {
        self.table.as_deref()
    }

    /// Something to know that is no failure.
    #[getter]
    fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    fn __repr__(&self) -> String {
        let Self { app, stage, bytes, notice, .. } = self;
        match (stage, bytes, notice) {
            (_, _, Some(notice)) => format!("<BackupEvent {app}: {notice}>"),
            (Some(stage), Some(bytes), _) => format!("<BackupEvent {app} {stage} {bytes} bytes>"),
            (stage, ..) => format!("<BackupEvent {app} {}>", stage.unwrap_or_default()),
        }
    }
}
