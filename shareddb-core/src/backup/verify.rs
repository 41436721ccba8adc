//! Proving a backup.

use std::time::Instant;

use jiff::Timestamp;

use super::event::BackupEvent;
use super::id::BackupId;
use super::manifest::Manifest;
use super::options::{OtherRoles, VerifyOptions};
use super::origin::Origin;
use super::restore::Own;
use super::verification::{Verdict, Verification};
use super::{BackupManager, compare, incoming, load, scratch};
use crate::error::Result;

/// What an error says of the backup itself, and not of what hindered looking.
const BAD: [&str; 9] = [
    "archive_damaged",
    "archive_incomplete",
    "backup_damaged",
    "backup_differs",
    "backup_data_missing",
    "manifest_damaged",
    "names_unqualified",
    "rows_damaged",
    "tool_failed",
];

pub(super) async fn verify(manager: &BackupManager, id: &BackupId, options: &VerifyOptions) -> Result<Verification> {
    let shelf = options.shelf.clone().unwrap_or_else(|| manager.shelf(id.app()));
    let hold = manager.held(&shelf, id, "verify").await;
    let began = Instant::now();
    let done = match shelf.manifest(id).await {
        Ok(manifest) => prove(manager, &shelf, &manifest, options).await,
        Err(error) => Err(error),
    };
    let record = |verdict| Verification::new(id.clone(), Timestamp::now(), verdict);
    let found = match done {
        Ok(Proof { verdict, server, left_out }) => Ok(Verification { server, left_out, ..record(verdict) }),
        Err(error) if BAD.contains(&error.code()) => {
            let findings = std::iter::once(error.to_string()).chain(error.causes()).collect();
            Ok(Verification { findings, ..record(Verdict::Failed) })
        }
        Err(error) => Err(error),
    };
    let result = match found {
        Ok(mut record) => {
            record.took_seconds = (began.elapsed().as_secs_f64() * 10.0).round() / 10.0;
            record.environment = Some(manager.server.environment().to_string());
            if let Err(error) = shelf.record(id, &record).await {
                let notice = format!("what was found is not kept: {error}");
                manager.listener.tell(id.app(), BackupEvent::Noticed(&notice));
            }
            Ok(record)
        }
        Err(error) => Err(error),
    };
    super::released(hold).await;
    result
}

async fn prove(
    manager: &BackupManager,
    shelf: &super::shelf::Shelf,
    manifest: &Manifest,
    options: &VerifyOptions,
) -> Result<Proof> {
    let app = &manifest.app;
    let tell = |event: BackupEvent<'_>| manager.listener.tell(app, event);
    let origin = Origin::open(shelf, manifest, &options.identities).await?;
    if options.quick {
        let archive = origin.read().await?;
        let read = tokio::select! {
            read = load::read(archive, manifest.data.archive_bytes, &tell) => read?,
            error = manager.interrupt.raised() => return Err(error),
        };
        compare::archive(manifest, &read).into_result(&manifest.id.to_string())?;
        return Ok(Proof { verdict: Verdict::Read, server: None, left_out: Vec::new() });
    }
    manager
        .work(app, async |job| {
            scratch::clear(job).await?;
            // Which other roles there are says nothing about the backup.
            let own = Own::check(job, &origin, Some(OtherRoles::Existing)).await?;
            let (scratch, made) = incoming::load(&own, job).await?;
            scratch.drop().await?;
            let left_out = made.left_out.iter().filter(|left| !left.why.is_there());
            Ok(Proof {
                verdict: Verdict::Passed,
                server: Some(job.facts.version.to_string()),
                left_out: left_out.map(ToString::to_string).collect(),
            })
        })
        .await
}

/// What was found, if nothing was wrong.
struct Proof {
    verdict: Verdict,
    server: Option<String>,
    left_out: Vec<String>,
}
