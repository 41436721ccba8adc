//! Carries out what retention has decided.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::id::BackupId;
use super::inventory::{Inventory, Listed, Orphan};
use super::retention::{Candidate, LastAttempt, PrunePlan, RetentionPolicy, plan_prune};
use super::shelf::Shelf;
use crate::error::Result;

/// How many manifests are read at a time.
const AT_A_TIME: usize = 16;
/// What belongs to no backup may belong to one soon: an upload may take this long.
const ORPHAN_AGE: SignedDuration = SignedDuration::from_hours(48);

/// What a prune has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pruned {
    /// Backups that are gone.
    pub deleted: Vec<BackupId>,
    /// How much room their dumps took.
    pub bytes: u64,
    /// Backups that somebody has begun to hold since the plan was made, and stay.
    pub spared: Vec<BackupId>,
    /// Backups that the store does not let go, with what it says.
    pub retained: Vec<(BackupId, String)>,
    /// Objects of no backup that are gone.
    pub orphans: Vec<String>,
}

/// Decides about the backups of a shelf.
///
/// # Errors
/// As [`plan_prune`], and as the store says. A manifest that cannot be read keeps its backup from no rule: that it wants to
/// be kept would stand in it, so it stays.
pub(crate) async fn plan(
    shelf: &Shelf,
    policy: &RetentionPolicy,
    zone: &TimeZone,
    last_attempt: LastAttempt,
    now: Timestamp,
) -> Result<PrunePlan> {
    let listed = shelf.list().await?;
    let candidates = stream::iter(listed.into_iter().map(|listed| candidate(shelf, listed, now)));
    let candidates: Vec<Candidate> = candidates.buffered(AT_A_TIME).try_collect().await?;
    plan_prune(policy, zone, last_attempt, &candidates)
}

async fn candidate(shelf: &Shelf, listed: Listed, now: Timestamp) -> Result<Candidate> {
    let (verified, damaged, held) = (listed.verified().is_some(), listed.damaged().is_some(), listed.held(now));
    let (bytes, keep) = match shelf.manifest(&listed.id).await {
        Ok(manifest) => (manifest.data.bytes, manifest.keep),
        // Deleted since it was listed: that it is gone is all that was to be reached.
        Err(error) if error.code() == "backup_not_found" => (0, None),
        // What is damaged has no say; of what a newer version has written nobody knows what it says.
        Err(error) if error.code() == "manifest_damaged" => (listed.bytes.unwrap_or(0), None),
        Err(error) if ["manifest_version", "backup_foreign"].contains(&error.code()) => {
            (listed.bytes.unwrap_or(0), Some(Timestamp::MAX))
        }
        Err(error) => return Err(error),
    };
    Ok(Candidate { id: listed.id, bytes, verified, damaged, held, keep })
}

/// Deletes what a plan gives up, the oldest first, and what belongs to no backup and is old. Before each, the holds are
/// looked at anew.
///
/// # Errors
/// As the store says; what is deleted until then is gone, and the rest is as it was. That the store itself keeps a backup is
/// no failure: it is reported.
pub(crate) async fn carry_out(shelf: &Shelf, plan: &PrunePlan, now: Timestamp) -> Result<Pruned> {
    let mut pruned = Pruned::default();
    for doomed in plan.doomed() {
        let inventory = shelf.inventory().await?;
        let Some(listed) = inventory.backups.iter().find(|listed| listed.id == doomed.id) else { continue };
        if listed.held(now) {
            pruned.spared.push(doomed.id.clone());
            continue;
        }
        match shelf.delete(&doomed.id).await {
            Ok(()) => {
                pruned.deleted.push(doomed.id.clone());
                pruned.bytes += doomed.bytes;
            }
            Err(error) if error.code() == "store_denied" => {
                pruned.retained.push((doomed.id.clone(), error.to_string()))
            }
            Err(error) => return Err(error),
        }
    }
    for orphan in old_orphans(&shelf.inventory().await?) {
        shelf.delete_orphan(&orphan.name).await?;
        pruned.orphans.push(orphan.name.clone());
    }
    Ok(pruned)
}

/// What belongs to no backup although one was published long after. Both times are the store's: no other clock is asked.
pub(crate) fn old_orphans(inventory: &Inventory) -> impl Iterator<Item = &Orphan> {
    let newest = inventory.backups.iter().map(|backup| backup.published).max();
    inventory
        .orphans
        .iter()
        .filter(move |orphan| newest.is_some_and(|newest| newest.duration_since(orphan.modified) > ORPHAN_AGE))
}
