//! Which backups stay. A pure decision; [`super::prune`] carries it out.

use std::fmt;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use super::id::BackupId;
use crate::error::{Error, Result};

/// How many backups stay, by each rule. A backup stays if any rule keeps it.
///
/// A rule of hours keeps the newest backup of each hour that has one, for so many hours that have one; and so on. While there
/// are fewer, the oldest backup of all stays, too, until newer ones take its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetentionPolicy {
    /// So many of the newest.
    pub last: Quota,
    /// One an hour, for so many hours.
    pub hourly: Quota,
    /// One a day.
    pub daily: Quota,
    /// One a week, Monday to Sunday.
    pub weekly: Quota,
    /// One a month.
    pub monthly: Quota,
    /// One a year.
    pub yearly: Quota,
}

/// How many backups a rule keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quota {
    /// The rule does not apply.
    #[default]
    None,
    /// So many; none is as good as no rule.
    Of(u32),
    /// Without end.
    All,
}

/// A rule of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// [`RetentionPolicy::last`].
    Last,
    /// [`RetentionPolicy::hourly`].
    Hourly,
    /// [`RetentionPolicy::daily`].
    Daily,
    /// [`RetentionPolicy::weekly`].
    Weekly,
    /// [`RetentionPolicy::monthly`].
    Monthly,
    /// [`RetentionPolicy::yearly`].
    Yearly,
}

/// A backup to decide about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its name, which says when it was taken.
    pub id: BackupId,
    /// The size of its dump.
    pub bytes: u64,
    /// The newest check that restored it has passed.
    pub verified: bool,
    /// The newest check that said more than "it reads" has failed.
    pub damaged: bool,
    /// Somebody holds it.
    pub held: bool,
    /// Until when its manifest wants it kept.
    pub keep: Option<Timestamp>,
}

/// How the app's last attempt at a backup ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastAttempt {
    /// With a backup, or there was none that is known of.
    Succeeded,
    /// With none.
    Failed,
}

/// Why a backup stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum KeepReason {
    /// A rule keeps it.
    Rule(Rule),
    /// It is the newest.
    Newest,
    /// It is the newest of those that are known to restore.
    NewestVerified,
    /// Somebody holds it.
    Held,
    /// Its manifest wants it kept until then.
    Until(Timestamp),
    /// The last attempt failed, and hardly any would remain.
    LastAttemptFailed,
}

impl fmt::Display for KeepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rule(Rule::Last) => "last",
            Self::Rule(Rule::Hourly) => "hourly",
            Self::Rule(Rule::Daily) => "daily",
            Self::Rule(Rule::Weekly) => "weekly",
            Self::Rule(Rule::Monthly) => "monthly",
            Self::Rule(Rule::Yearly) => "yearly",
            Self::Newest => "newest",
            Self::NewestVerified => "newest verified",
            Self::Held => "held",
            Self::Until(until) => return write!(f, "until {until}"),
            Self::LastAttemptFailed => "the last attempt failed",
        })
    }
}

/// What is decided about a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Judged {
    /// The backup.
    pub backup: Candidate,
    /// Why it stays. No reason: it goes.
    pub reasons: Vec<KeepReason>,
}

impl Judged {
    /// Whether it stays.
    pub fn stays(&self) -> bool {
        !self.reasons.is_empty()
    }
}

/// What a prune will do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PrunePlan {
    /// Each backup, the newest first.
    pub backups: Vec<Judged>,
}

impl PrunePlan {
    /// Those that go, the oldest first.
    pub fn doomed(&self) -> impl Iterator<Item = &Candidate> {
        self.backups.iter().rev().filter(|judged| !judged.stays()).map(|judged| &judged.backup)
    }

    /// How much room their dumps take.
    pub fn freed(&self) -> u64 {
        self.doomed().map(|backup| backup.bytes).sum()
    }
}

/// While the last attempt has failed, not fewer remain.
const REMAIN_AFTER_FAILURE: usize = 2;

impl RetentionPolicy {
    fn rules(&self) -> impl Iterator<Item = (Rule, Quota)> {
        let rules = [
            (Rule::Last, self.last),
            (Rule::Hourly, self.hourly),
            (Rule::Daily, self.daily),
            (Rule::Weekly, self.weekly),
            (Rule::Monthly, self.monthly),
            (Rule::Yearly, self.yearly),
        ];
        rules.into_iter().filter(|(_, quota)| !matches!(quota, Quota::None | Quota::Of(0)))
    }
}

/// Decides which of one app's backups stay. Days, weeks, months and years are those of `zone`. No clock is asked: now is the
/// time of the newest backup, so that a clock that has jumped deletes nothing.
///
/// Whatever the policy, these stay: the newest, the newest that is known to restore, those that somebody holds, those whose
/// manifest says so. A backup that is known to be damaged takes no other's place.
///
/// # Errors
/// `InvalidInput` (`policy_empty`) for a policy without a rule: it would delete everything.
pub fn plan_prune(
    policy: &RetentionPolicy,
    zone: &TimeZone,
    last_attempt: LastAttempt,
    candidates: &[Candidate],
) -> Result<PrunePlan> {
    if policy.rules().next().is_none() {
        return Err(Error::invalid_input("policy_empty", "a policy without a rule would delete every backup")
            .with_hint("say what is to stay, for instance --keep-daily 7 --keep-weekly 4"));
    }
    let mut backups: Vec<Judged> =
        candidates.iter().map(|backup| Judged { backup: backup.clone(), reasons: Vec::new() }).collect();
    backups.sort_by(|a, b| {
        b.backup.id.taken_at().cmp(&a.backup.id.taken_at()).then_with(|| b.backup.id.cmp(&a.backup.id))
    });
    for (rule, quota) in policy.rules() {
        // Once as if the damaged ones were not there, and once as if they were good.
        apply(rule, quota, zone, backups.iter_mut().filter(|judged| !judged.backup.damaged));
        apply(rule, quota, zone, backups.iter_mut());
    }
    keep_whatever_the_policy(&mut backups);
    if last_attempt == LastAttempt::Failed {
        let missing = REMAIN_AFTER_FAILURE.saturating_sub(backups.iter().filter(|judged| judged.stays()).count());
        for judged in backups.iter_mut().filter(|judged| !judged.stays()).take(missing) {
            judged.reasons.push(KeepReason::LastAttemptFailed);
        }
    }
    for judged in &mut backups {
        judged.reasons.sort();
        judged.reasons.dedup();
    }
    Ok(PrunePlan { backups })
}

/// Walks from the newest to the oldest. The newest of each bucket is kept, and the oldest of all while there is room.
fn apply<'a>(rule: Rule, quota: Quota, zone: &TimeZone, backups: impl Iterator<Item = &'a mut Judged>) {
    let mut left = match quota {
        Quota::None => return,
        Quota::Of(count) => Some(count),
        Quota::All => None,
    };
    let mut newer = None;
    let mut backups = backups.enumerate().peekable();
    while let Some((at, judged)) = backups.next() {
        if left == Some(0) {
            return;
        }
        let bucket = Bucket::of(rule, at, &judged.backup.id.taken_at().to_zoned(zone.clone()));
        if newer != Some(bucket) || backups.peek().is_none() {
            judged.reasons.push(KeepReason::Rule(rule));
            left = left.map(|left| left - 1);
        }
        newer = Some(bucket);
    }
}

/// The stretch of time that a backup stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bucket {
    Itself(usize),
    /// The offset tells the two hours apart that are one on the clock when summer time ends.
    Hour(Date, i8, i32),
    Day(Date),
    /// By the year that the week belongs to, which at New Year is not the day's.
    Week(i16, i8),
    Month(i16, i8),
    Year(i16),
}

impl Bucket {
    fn of(rule: Rule, at: usize, time: &Zoned) -> Self {
        match rule {
            Rule::Last => Self::Itself(at),
            Rule::Hourly => Self::Hour(time.date(), time.hour(), time.offset().seconds()),
            Rule::Daily => Self::Day(time.date()),
            Rule::Weekly => {
                let week = time.date().iso_week_date();
                Self::Week(week.year(), week.week())
            }
            Rule::Monthly => Self::Month(time.year(), time.month()),
            Rule::Yearly => Self::Year(time.year()),
        }
    }
}

fn keep_whatever_the_policy(backups: &mut [Judged]) {
    let Some(now) = backups.first().map(|judged| judged.backup.id.taken_at()) else { return };
    if let Some(newest) = backups.first_mut() {
        newest.reasons.push(KeepReason::Newest);
    }
    if let Some(verified) = backups.iter_mut().find(|judged| judged.backup.verified) {
        verified.reasons.push(KeepReason::NewestVerified);
    }
    for judged in backups {
        if judged.backup.held {
            judged.reasons.push(KeepReason::Held);
        }
        if let Some(until) = judged.backup.keep.filter(|until| *until > now) {
            judged.reasons.push(KeepReason::Until(until));
        }
    }
}
