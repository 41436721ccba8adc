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
    let verdict = match done {
        Ok(verdict) => Ok((verdict, Vec::new())),
        Err(error) if BAD.contains(&error.code()) => {
            let findings = std::iter::once(error.to_string()).chain(error.causes()).collect();
            Ok((Verdict::Failed, findings))
        }
        Err(error) => Err(error),
    };
    let result = match verdict {
        Ok((verdict, findings)) => {
            let mut record = Verification::new(id.clone(), Timestamp::now(), verdict);
            record.took_seconds = (began.elapsed().as_secs_f64() * 10.0).round() / 10.0;
            record.environment = Some(manager.server.environment().to_string());
            record.findings = findings;
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
) -> Result<Verdict> {
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
        return Ok(Verdict::Read);
    }
    manager
        .work(app, async |job| {
            scratch::clear(job).await?;
            // Elsewhere, who may read what says nothing about the backup.
            let others = options.shelf.as_ref().map(|_| OtherRoles::Existing);
            let own = Own::check(job, &origin, others).await?;
            let (scratch, _) = incoming::load(&own, job).await?;
            scratch.drop().await
        })
        .await?;
    Ok(Verdict::Passed)
}
