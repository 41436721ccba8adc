//! What a listing of an app's folder tells.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::id::BackupId;
use super::manifest::Stored;
use super::object::{ObjectName, Part};
use super::store::Object;
use super::verification::Verdict;
use crate::names::AppName;

/// A backup as a listing shows it; nothing was read for that.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listed {
    /// Its name, which says when it was taken.
    pub id: BackupId,
    /// The size of its dump. None when the dump is gone, or when a killed attempt has left another one beside it.
    pub bytes: Option<u64>,
    /// When it was published, by the store's clock.
    pub published: Timestamp,
    /// The checks of it, the newest first.
    pub checks: Vec<Verified>,
    /// Until when it is held, for each hold; none: without end.
    pub holds: Vec<Option<Timestamp>>,
}

/// A check of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Verified {
    /// When it ended.
    pub at: Timestamp,
    /// What it found.
    pub verdict: Verdict,
}

impl Listed {
    /// The newest check that restored it, if it passed and no later check has failed.
    pub fn verified(&self) -> Option<Verified> {
        let known = self.checks.iter().find(|check| check.verdict != Verdict::Read)?;
        (known.verdict == Verdict::Passed).then_some(*known)
    }

    /// The newest check that says it is damaged, if none has restored it since.
    pub fn damaged(&self) -> Option<Verified> {
        let known = self.checks.iter().find(|check| check.verdict != Verdict::Read)?;
        (known.verdict == Verdict::Failed).then_some(*known)
    }

    /// Whether somebody holds it at this time.
    pub fn held(&self, now: Timestamp) -> bool {
        self.holds.iter().any(|until| until.is_none_or(|until| until > now))
    }
}

/// An object that belongs to no backup: an attempt was killed after its upload, or a prune was before its end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Orphan {
    /// Its name, in the folder of the app.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// When it was written, by the store's clock.
    pub modified: Timestamp,
}

/// Everything in an app's folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inventory {
    /// The backups, the newest first.
    pub backups: Vec<Listed>,
    /// What belongs to no backup.
    pub orphans: Vec<Orphan>,
    /// Names that are none of ours.
    pub strangers: Vec<String>,
    /// Backups with more than one dump: which is theirs, only their manifest tells.
    pub(crate) doubtful: Vec<(BackupId, Vec<Orphan>)>,
}

/// What is there of one name.
#[derive(Default)]
struct Pieces {
    published: Option<Timestamp>,
    dumps: Vec<Orphan>,
    checks: Vec<Verified>,
    holds: Vec<Option<Timestamp>>,
    /// Checks and holds.
    records: Vec<Orphan>,
}

impl Inventory {
    /// Sorts out what a listing of the folder of `app` has given.
    pub(crate) fn of(app: &AppName, objects: Vec<Object>) -> Self {
        let mut inventory = Self::default();
        let mut pieces: BTreeMap<BackupId, Pieces> = BTreeMap::new();
        for object in objects {
            match object.name.parse::<ObjectName>() {
                Ok(name) if name.id.app() == app => pieces.entry(name.id).or_default().add(name.part, object),
                _ => inventory.strangers.push(object.name),
            }
        }
        for (id, pieces) in pieces.into_iter().rev() {
            inventory.sort_in(id, pieces);
        }
        inventory.strangers.sort();
        inventory
    }

    fn sort_in(&mut self, id: BackupId, mut pieces: Pieces) {
        let Some(published) = pieces.published else {
            self.orphans.append(&mut pieces.dumps);
            self.orphans.append(&mut pieces.records);
            return;
        };
        let bytes = if let [dump] = &pieces.dumps[..] { Some(dump.bytes) } else { None };
        if pieces.dumps.len() > 1 {
            self.doubtful.push((id.clone(), pieces.dumps));
        }
        pieces.checks.sort_by(|a, b| b.cmp(a));
        self.backups.push(Listed { id, bytes, published, checks: pieces.checks, holds: pieces.holds });
    }

    /// Takes note of which of several dumps is a backup's.
    pub(crate) fn settle(&mut self, id: &BackupId, data: &Stored, dumps: Vec<Orphan>) {
        if let Some(listed) = self.backups.iter_mut().find(|listed| listed.id == *id) {
            listed.bytes = Some(data.bytes);
        }
        self.orphans.extend(dumps.into_iter().filter(|dump| dump.name != data.object));
    }
}

impl Pieces {
    fn add(&mut self, part: Part, object: Object) {
        let Object { name, bytes, modified } = object;
        let orphan = Orphan { name, bytes, modified };
        match part {
            Part::Data { .. } => return self.dumps.push(orphan),
            Part::Manifest => return self.published = Some(modified),
            Part::Verification { at, verdict } => self.checks.push(Verified { at, verdict }),
            Part::Hold { until, .. } => self.holds.push(until),
        }
        self.records.push(orphan);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "a-20261122T020056Z";

    fn objects(names: &[&str]) -> Vec<Object> {
        let object = |(at, name): (usize, &&str)| Object {
            name: (*name).to_owned(),
            bytes: at as u64 + 1,
            modified: "2026-11-22T02:01:00Z".parse().unwrap(),
        };
        names.iter().enumerate().map(object).collect()
    }

    fn inventory(names: &[String]) -> Inventory {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        Inventory::of(&"a".parse().unwrap(), objects(&names))
    }

    fn of(parts: &[&str]) -> Inventory {
        inventory(&parts.iter().map(|part| format!("{ID}.{part}")).collect::<Vec<_>>())
    }

    #[test]
    fn a_backup_is_what_has_a_manifest() {
        let found = of(&["abc123.dump.zst", "manifest.json"]);
        assert_eq!((found.backups.len(), found.orphans.len()), (1, 0));
        assert_eq!(found.backups[0].bytes, Some(1));
        let found = of(&["abc123.dump.zst", "verify.20261123T030000Z.passed.json"]);
        assert_eq!((found.backups.len(), found.orphans.len()), (0, 2));
        assert_eq!(of(&["manifest.json"]).backups[0].bytes, None);
        let found = of(&["abc123.dump.zst", "abc124.dump.zst", "manifest.json"]);
        assert_eq!((found.backups[0].bytes, found.doubtful.len()), (None, 1));
    }

    #[test]
    fn the_newest_check_that_restored_it_counts() {
        let verified = |parts: &[&str]| {
            let parts: Vec<&str> = ["manifest.json"].iter().chain(parts).copied().collect();
            let listed = of(&parts).backups.remove(0);
            (listed.verified().is_some(), listed.damaged().is_some())
        };
        assert_eq!(verified(&[]), (false, false));
        assert_eq!(verified(&["verify.20261123T030000Z.read.json"]), (false, false));
        assert_eq!(verified(&["verify.20261123T030000Z.passed.json"]), (true, false));
        assert_eq!(
            verified(&["verify.20261123T030000Z.passed.json", "verify.20261124T030000Z.failed.json"]),
            (false, true)
        );
        assert_eq!(
            verified(&["verify.20261124T030000Z.passed.json", "verify.20261123T030000Z.failed.json"]),
            (true, false)
        );
        assert_eq!(
            verified(&["verify.20261123T030000Z.failed.json", "verify.20261124T030000Z.read.json"]),
            (false, true)
        );
    }

    #[test]
    fn holds_end_when_their_time_has_come() {
        let now = "2026-11-23T00:00:00Z".parse().unwrap();
        assert!(of(&["manifest.json", "hold.pin.abc123.json"]).backups[0].held(now));
        assert!(of(&["manifest.json", "hold.20261123T000001Z.abc123.json"]).backups[0].held(now));
        assert!(!of(&["manifest.json", "hold.20261123T000000Z.abc123.json"]).backups[0].held(now));
    }

    #[test]
    fn newest_first_and_strangers_apart() {
        let names = [
            "a-20261122T020056Z.manifest.json",
            "a-20261123T020056Z.manifest.json",
            "b-20261123T020056Z.manifest.json",
            "README",
            "sub/a-20261123T020056Z.manifest.json",
        ];
        let found = inventory(&names.map(str::to_owned));
        let ids: Vec<String> = found.backups.iter().map(|backup| backup.id.to_string()).collect();
        assert_eq!(ids, ["a-20261123T020056Z", "a-20261122T020056Z"]);
        assert_eq!(found.strangers.len(), 3);
    }
}
