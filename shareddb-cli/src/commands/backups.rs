//! `shareddb backups`.

use std::process::ExitCode;

use jiff::Timestamp;
use serde::Serialize;
use shareddb_core::{AppName, BackupId, BackupStore, Described, Listed, Manifest, Reason, Result, Verdict, Verified};

use crate::args::Backups;
use crate::color::Style;
use crate::context::Context;
use crate::moments::{age, day, took};
use crate::output::{Text, View};
use crate::table::{Cell, Table};
use crate::units;

/// A backup.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Item {
    pub(super) id: BackupId,
    pub(super) app: AppName,
    taken_at: Timestamp,
    /// The last check that restored it.
    checked: Option<Check>,
    held: bool,
    /// What its manifest says, where that can be read.
    #[serde(flatten)]
    pub(super) facts: Option<Facts>,
    /// Why that cannot be told.
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct Check {
    at: Timestamp,
    verdict: Verdict,
}

/// What a manifest says, in figures.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Facts {
    #[serde(rename = "bytes")]
    pub(super) stored: u64,
    pub(super) archive_bytes: u64,
    pub(super) database_bytes: u64,
    pub(super) rows: u64,
    tables: usize,
    large_objects: u64,
    pub(super) took_seconds: f64,
    attempts: u32,
    reason: Reason,
    server: String,
    compression: String,
    encrypted: bool,
    keep: Option<Timestamp>,
    not_included: Vec<String>,
    warnings: Vec<String>,
}

impl Facts {
    fn of(manifest: &Manifest) -> Self {
        Self {
            stored: manifest.data.bytes,
            archive_bytes: manifest.data.archive_bytes,
            database_bytes: manifest.database.bytes,
            rows: manifest.tables.iter().map(|table| table.rows).sum(),
            tables: manifest.tables.len(),
            large_objects: manifest.large_objects,
            took_seconds: manifest.took_seconds,
            attempts: manifest.attempts,
            reason: manifest.reason,
            server: manifest.server.version.clone(),
            compression: manifest.data.compression.clone(),
            encrypted: manifest.data.encryption.is_some(),
            keep: manifest.keep,
            not_included: manifest.not_included.clone(),
            warnings: manifest.warnings.clone(),
        }
    }
}

impl Item {
    /// One that was just taken.
    pub(super) fn of(manifest: &Manifest) -> Self {
        Self {
            id: manifest.id.clone(),
            app: manifest.app.clone(),
            taken_at: manifest.taken_at,
            checked: None,
            held: false,
            facts: Some(Facts::of(manifest)),
            problem: None,
        }
    }

    fn listed(described: &Described, now: Timestamp) -> Self {
        let Listed { id, checks, .. } = &described.listed;
        let check = checks.iter().find(|check| check.verdict != Verdict::Read);
        Self {
            id: id.clone(),
            app: id.app().clone(),
            taken_at: id.taken_at(),
            checked: check.map(|Verified { at, verdict, .. }| Check { at: *at, verdict: *verdict }),
            held: described.listed.held(now),
            facts: described.manifest.as_ref().ok().map(Facts::of),
            problem: described.manifest.as_ref().err().map(ToString::to_string),
        }
    }

    pub(super) fn name(&self) -> String {
        format!("backup/{}", self.id)
    }

    fn cells(&self, wide: bool, now: Timestamp) -> Vec<Cell> {
        let fact = |show: &dyn Fn(&Facts) -> String| Cell::from(self.facts.as_ref().map(show).unwrap_or_default());
        let size = match &self.problem {
            Some(_) => Cell::styled("UNREADABLE", Style::Bad),
            None => fact(&|facts| units::bytes(facts.stored)),
        };
        let mut cells = vec![
            self.id.to_string().into(),
            age(self.taken_at).into(),
            size,
            fact(&|facts| facts.rows.to_string()),
            self.verified(),
            self.kept(now).into(),
        ];
        if wide {
            cells.extend([
                fact(&|facts| facts.tables.to_string()),
                fact(&|facts| units::bytes(facts.database_bytes)),
                fact(&|facts| took(facts.took_seconds)),
                fact(&|facts| facts.reason.as_str().to_owned()),
                fact(&|facts| if facts.encrypted { "yes" } else { "no" }.to_owned()),
            ]);
        }
        cells
    }

    fn verified(&self) -> Cell {
        match &self.checked {
            Some(Check { at, verdict: Verdict::Failed }) => Cell::styled(format!("FAILED-{}", age(*at)), Style::Bad),
            Some(Check { at, .. }) => Cell::styled(age(*at), Style::Good),
            None => "".into(),
        }
    }

    fn kept(&self, now: Timestamp) -> String {
        let until = self.facts.as_ref().and_then(|facts| facts.keep).filter(|keep| *keep > now);
        // Only its name leads to it.
        let replaced = self.facts.as_ref().is_some_and(|facts| facts.reason == Reason::BeforeRestore);
        let replaced = replaced.then(|| Reason::BeforeRestore.as_str().to_owned());
        let kept = match (self.held, until) {
            (true, _) => Some("held".to_owned()),
            (false, Some(until)) => Some(format!("until-{}", day(until))),
            (false, None) => None,
        };
        replaced.into_iter().chain(kept).collect::<Vec<_>>().join(",")
    }
}

#[derive(Debug, Serialize)]
struct BackupList {
    store: String,
    items: Vec<Item>,
    #[serde(skip)]
    now: Timestamp,
}

impl View for BackupList {
    const KIND: &'static str = "BackupList";

    fn text(&self, style: Text) -> String {
        let mut heads = vec!["ID", "TAKEN", "SIZE", "ROWS", "VERIFIED", "KEPT"];
        if style.wide {
            heads.extend(["TABLES", "DBSIZE", "TOOK", "REASON", "ENCRYPTED"]);
        }
        let mut table = Table::new(heads);
        for item in &self.items {
            table.row(item.cells(style.wide, self.now));
        }
        table.render(style.paint)
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(Item::name).collect()
    }
}

pub(crate) async fn run(args: &Backups, context: &Context) -> Result<ExitCode> {
    let environment = context.environment()?;
    let store = BackupStore::from_env(&environment, args.from.as_deref())?;
    let apps: Vec<AppName> = match &args.app {
        Some(app) => vec![app.parse()?],
        None => store.apps(environment.name()).await?,
    };
    let now = Timestamp::now();
    let mut items = Vec::new();
    for app in &apps {
        let described = store.shelf(environment.name(), app).describe().await?;
        items.extend(described.iter().map(|described| Item::listed(described, now)));
    }
    for item in &items {
        if let Some(problem) = &item.problem {
            context.console.note(&format!("{}: {problem}", item.id));
        }
    }
    if items.is_empty() {
        let app = args.app.as_deref().unwrap_or("myapp");
        let place = context.flags();
        context.console.progress(&format!("no backups in {store}; take one: shareddb backup {app}{place}"));
    }
    context.output.show(&BackupList { store: store.to_string(), items, now })?;
    Ok(ExitCode::SUCCESS)
}
