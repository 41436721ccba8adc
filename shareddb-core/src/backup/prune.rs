//! Carries out what retention has decided.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::id::BackupId;
use super::inventory::{Inventory, Listed, Orphan};
use super::manifest::Reason;
use super::retention::{Candidate, LastAttempt, PrunePlan, RetentionPolicy, plan_prune};
use super::shelf::Shelf;
use crate::error::Result;

/// How many manifests are read at a time.
const AT_A_TIME: usize = 16;
/// What belongs to no backup may belong to one soon: an upload may take this long.
const ORPHAN_AGE: SignedDuration = SignedDuration::from_hours(48);

impl Shelf {
    /// Decides which backups a policy gives up, and deletes nothing.
    ///
    /// # Errors
    /// `InvalidInput` (`policy_empty`) for a policy that keeps nothing, and as the store says.
    pub async fn plan_prune(&self, policy: &RetentionPolicy, zone: &TimeZone) -> Result<PrunePlan> {
        plan(self, policy, zone, LastAttempt::Succeeded, Timestamp::now()).await
    }

    /// Deletes what a plan gives up, and what old runs have left in the store. Holds are looked at again before each.
    ///
    /// # Errors
    /// As the store says; the rest is as it was then, and the same call goes on.
    pub async fn prune(&self, plan: &PrunePlan) -> Result<Pruned> {
        carry_out(self, plan, Timestamp::now()).await
    }
}

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
    let now = sober(now, &listed);
    let candidates = stream::iter(listed.into_iter().map(|listed| candidate(shelf, listed, now)));
    let candidates: Vec<Candidate> = candidates.buffered(AT_A_TIME).try_collect().await?;
    plan_prune(policy, zone, last_attempt, &candidates)
}

async fn candidate(shelf: &Shelf, listed: Listed, now: Timestamp) -> Result<Candidate> {
    let (verified, damaged, held) = (listed.verified().is_some(), listed.damaged().is_some(), listed.held(now));
    let mut replaced = false;
    let (bytes, keep) = match shelf.manifest(&listed.id).await {
        Ok(manifest) => {
            replaced = manifest.reason == Reason::BeforeRestore;
            (manifest.data.bytes, manifest.keep)
        }
        // Deleted since it was listed: that it is gone is all that was to be reached.
        Err(error) if error.code() == "backup_not_found" => (0, None),
        // What is damaged has no say; of what a newer version has written nobody knows what it says.
        Err(error) if error.code() == "manifest_damaged" => (listed.bytes.unwrap_or(0), None),
        Err(error) if ["manifest_version", "backup_foreign"].contains(&error.code()) => {
            (listed.bytes.unwrap_or(0), Some(Timestamp::MAX))
        }
        Err(error) => return Err(error),
    };
    Ok(Candidate { id: listed.id, bytes, verified, damaged, replaced, held, keep })
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
        if listed.held(sober(now, &inventory.backups)) {
            pruned.spared.push(doomed.id.clone());
            continue;
        }
        match shelf.delete(&doomed.id).await {
            Ok(()) => {
                pruned.deleted.push(doomed.id.clone());
                pruned.bytes += doomed.bytes;
            }
            Err(error) if error.code() == "store_denied" => {
                pruned.retained.push((doomed.id.clone(), error.to_string()));
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

/// The time by which holds have ended: never later than the store has published something, since whoever's clock is ahead would
/// delete what another one is restoring.
fn sober(now: Timestamp, listed: &[Listed]) -> Timestamp {
    listed.iter().map(|listed| listed.published).max().map_or(now, |published| published.min(now))
}

/// What belongs to no backup although one was published long after. Both times are the store's: no other clock is asked.
pub(crate) fn old_orphans(inventory: &Inventory) -> impl Iterator<Item = &Orphan> {
    let newest = inventory.backups.iter().map(|backup| backup.published).max();
    inventory
        .orphans
        .iter()
        .filter(move |orphan| newest.is_some_and(|newest| newest.duration_since(orphan.modified) > ORPHAN_AGE))
}

#[cfg(test)]
mod tests {
    use super::super::pack::PackOptions;
    use super::super::retention::Quota;
    use super::super::sample::{Fault, Faulty, back_up, id, manifest, noise};
    use super::*;

    const NOW: &str = "2026-11-25T00:00:00Z";

    fn now() -> Timestamp {
        NOW.parse().unwrap()
    }

    fn day(day: u8) -> BackupId {
        id(&format!("my-app-202611{day}T020000Z"))
    }

    async fn nights(shelf: &Shelf) {
        for at in 20..25 {
            back_up(shelf, &day(at), &noise(100, u64::from(at)), PackOptions::default()).await;
        }
    }

    async fn planned(shelf: &Shelf) -> PrunePlan {
        let policy = RetentionPolicy { last: Quota::Of(2), ..RetentionPolicy::default() };
        plan(shelf, &policy, &TimeZone::UTC, LastAttempt::Succeeded, now()).await.unwrap()
    }

    async fn left(shelf: &Shelf) -> Vec<BackupId> {
        shelf.list().await.unwrap().into_iter().map(|listed| listed.id).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_plan_gives_up_is_deleted_the_oldest_first() {
        let (store, shelf) = Faulty::new();
        nights(&shelf).await;
        let plan = planned(&shelf).await;
        let pruned = carry_out(&shelf, &plan, now()).await.unwrap();
        assert_eq!(pruned.deleted, [day(20), day(21), day(22)]);
        assert_eq!(pruned.bytes, plan.freed());
        assert_eq!(left(&shelf).await, [day(24), day(23)]);
        assert!(store.deleted()[0].starts_with(&format!("{}.manifest", day(20))));
        // Again there is nothing to do, and the old plan does no harm.
        assert_eq!(carry_out(&shelf, &plan, now()).await.unwrap(), Pruned::default());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_hold_placed_after_the_plan_is_respected() {
        let (_, shelf) = Faulty::new();
        nights(&shelf).await;
        let plan = planned(&shelf).await;
        let hold = shelf.hold(&day(21), "restore", Some("2026-11-25T01:00:00Z".parse().unwrap())).await.unwrap();
        let pruned = carry_out(&shelf, &plan, now()).await.unwrap();
        assert_eq!((pruned.deleted, pruned.spared), (vec![day(20), day(22)], vec![day(21)]));
        hold.release().await.unwrap();
        assert_eq!(carry_out(&shelf, &plan, now()).await.unwrap().deleted, [day(21)]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_clock_that_has_jumped_deletes_nothing() {
        let (_, shelf) = Faulty::new();
        nights(&shelf).await;
        let mut before_restore = manifest(&day(25), {
            let mut pack = shelf.pack(&day(25), PackOptions::default()).await.unwrap();
            pack.write(noise(10, 1)).await.unwrap();
            pack.finish().await.unwrap()
        });
        before_restore.keep = Some("2026-12-02T00:00:00Z".parse().unwrap());
        shelf.publish(&before_restore).await.unwrap();
        back_up(&shelf, &day(26), &noise(100, 26), PackOptions::default()).await;
        back_up(&shelf, &day(27), &noise(100, 27), PackOptions::default()).await;
        // By the clock of whoever restores it, which is the store's.
        let clock = Timestamp::now();
        let _restoring = shelf.hold(&day(20), "restore", Some(clock + SignedDuration::from_hours(1))).await.unwrap();
        let policy = RetentionPolicy { last: Quota::Of(2), ..RetentionPolicy::default() };
        let planned = async |now| {
            let plan = plan(&shelf, &policy, &TimeZone::UTC, LastAttempt::Succeeded, now).await.unwrap();
            plan.doomed().map(|doomed| doomed.id.clone()).collect::<Vec<_>>()
        };
        let right = planned(clock).await;
        assert_eq!(right, [day(21), day(22), day(23), day(24)]);
        for hours in [-24, 24, 365 * 24] {
            let jumped = clock + SignedDuration::from_hours(hours);
            assert_eq!(planned(jumped).await, right, "{hours}");
        }
        let plan = plan(&shelf, &policy, &TimeZone::UTC, LastAttempt::Succeeded, clock).await.unwrap();
        carry_out(&shelf, &plan, clock + SignedDuration::from_hours(365 * 24)).await.unwrap();
        assert_eq!(left(&shelf).await, [day(27), day(26), day(25), day(20)]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_the_store_itself_keeps_is_reported() {
        let (store, shelf) = Faulty::new();
        nights(&shelf).await;
        store.breaks(Fault::Delete("20261121T"));
        let pruned = carry_out(&shelf, &planned(&shelf).await, now()).await.unwrap();
        assert_eq!(pruned.deleted, [day(20), day(22)]);
        assert_eq!(pruned.retained[0].0, day(21));
        assert_eq!(left(&shelf).await.len(), 3);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn manifests_have_their_say() {
        let (_, shelf) = Faulty::new();
        nights(&shelf).await;
        let kept = id("my-app-20261101T020000Z");
        let mut pack = shelf.pack(&kept, PackOptions::default()).await.unwrap();
        pack.write(noise(10, 1)).await.unwrap();
        let mut before_drop = manifest(&kept, pack.finish().await.unwrap());
        before_drop.keep = Some("2027-02-01T00:00:00Z".parse().unwrap());
        shelf.publish(&before_drop).await.unwrap();
        carry_out(&shelf, &planned(&shelf).await, now()).await.unwrap();
        assert_eq!(left(&shelf).await, [day(24), day(23), kept]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_store_that_cannot_be_read_is_not_pruned() {
        let (store, shelf) = Faulty::new();
        nights(&shelf).await;
        store.breaks(Fault::Read);
        let policy = RetentionPolicy { last: Quota::Of(1), ..RetentionPolicy::default() };
        assert!(plan(&shelf, &policy, &TimeZone::UTC, LastAttempt::Succeeded, now()).await.is_err());
        assert_eq!(left(&shelf).await.len(), 5);
    }

    #[test]
    fn orphans_go_when_a_backup_was_published_long_after() {
        use super::super::store::Object;
        let object = |name: &str, modified: &str| Object {
            name: name.to_owned(),
            bytes: 1,
            modified: modified.parse().unwrap(),
        };
        let old = |published: &str| {
            let inventory = Inventory::of(
                &"a".parse().unwrap(),
                vec![
                    object("a-20261120T020000Z.abc123.dump.zst", "2026-11-20T03:00:00Z"),
                    object("a-20261122T020000Z.abc124.dump.zst", published),
                    object("a-20261122T020000Z.manifest.json", published),
                ],
            );
            old_orphans(&inventory).count()
        };
        assert_eq!(old("2026-11-22T03:00:00Z"), 0);
        assert_eq!(old("2026-11-22T03:00:01Z"), 1);
    }
}
