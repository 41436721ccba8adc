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
    /// It holds what a restore has replaced ([`super::manifest::Reason::BeforeRestore`]), which nobody wanted any more.
    pub replaced: bool,
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
/// manifest says so. A backup that is known to be damaged takes no other's place, and neither does one of what a restore has
/// replaced: as long as there are others it stays only as long as its manifest says.
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
        apply(rule, quota, zone, wanted(&mut backups).filter(|judged| !judged.backup.damaged));
        apply(rule, quota, zone, wanted(&mut backups));
    }
    keep_whatever_the_policy(&mut backups);
    if last_attempt == LastAttempt::Failed {
        let missing = REMAIN_AFTER_FAILURE.saturating_sub(wanted(&mut backups).filter(|judged| judged.stays()).count());
        for judged in wanted(&mut backups).filter(|judged| !judged.stays()).take(missing) {
            judged.reasons.push(KeepReason::LastAttemptFailed);
        }
    }
    for judged in &mut backups {
        judged.reasons.sort();
        judged.reasons.dedup();
    }
    Ok(PrunePlan { backups })
}

/// Those that are more than what a restore has replaced; all of them when nothing else is of use.
fn wanted(backups: &mut [Judged]) -> impl Iterator<Item = &mut Judged> {
    let nothing_else = backups.iter().all(|judged| judged.backup.replaced || judged.backup.damaged);
    backups.iter_mut().filter(move |judged| nothing_else || !judged.backup.replaced)
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
    if let Some(newest) = wanted(backups).next() {
        newest.reasons.push(KeepReason::Newest);
    }
    let newest =
        |fits: fn(&Candidate) -> bool| backups.iter().position(|judged| judged.backup.verified && fits(&judged.backup));
    if let Some(verified) = newest(|backup| !backup.replaced).or_else(|| newest(|_| true)) {
        backups[verified].reasons.push(KeepReason::NewestVerified);
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn id(time: &str) -> BackupId {
        BackupId::new("a".parse().unwrap(), time.parse().unwrap()).unwrap()
    }

    fn candidate(id: BackupId) -> Candidate {
        Candidate { id, bytes: 1, verified: false, damaged: false, replaced: false, held: false, keep: None }
    }

    fn candidates(times: &[&str]) -> Vec<Candidate> {
        times.iter().map(|time| candidate(id(time))).collect()
    }

    fn of(rule: Rule, quota: Quota) -> RetentionPolicy {
        let mut policy = RetentionPolicy::default();
        let place = match rule {
            Rule::Last => &mut policy.last,
            Rule::Hourly => &mut policy.hourly,
            Rule::Daily => &mut policy.daily,
            Rule::Weekly => &mut policy.weekly,
            Rule::Monthly => &mut policy.monthly,
            Rule::Yearly => &mut policy.yearly,
        };
        *place = quota;
        policy
    }

    /// Berlin's rules, without asking the machine for them.
    fn berlin() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    fn plan(policy: &RetentionPolicy, zone: &TimeZone, given: &[Candidate]) -> PrunePlan {
        plan_prune(policy, zone, LastAttempt::Succeeded, given).unwrap()
    }

    fn kept(plan: &PrunePlan) -> BTreeSet<BackupId> {
        plan.backups.iter().filter(|judged| judged.stays()).map(|judged| judged.backup.id.clone()).collect()
    }

    fn by_rule(plan: &PrunePlan, rule: Rule) -> BTreeSet<BackupId> {
        let kept = plan.backups.iter().filter(|judged| judged.reasons.contains(&KeepReason::Rule(rule)));
        kept.map(|judged| judged.backup.id.clone()).collect()
    }

    /// The same rules, thought the other way round: by what a calendar calls each time.
    fn reference(rule: Rule, quota: Quota, zone: &TimeZone, given: &[Candidate]) -> BTreeSet<BackupId> {
        let format = match rule {
            Rule::Last => "%s",
            Rule::Hourly => "%Y-%m-%d %H %z",
            Rule::Daily => "%Y-%m-%d",
            Rule::Weekly => "%G-W%V",
            Rule::Monthly => "%Y-%m",
            Rule::Yearly => "%Y",
        };
        let name = |id: &BackupId| id.taken_at().to_zoned(zone.clone()).strftime(format).to_string();
        let all: BTreeSet<BackupId> = given.iter().map(|candidate| candidate.id.clone()).collect();
        let newest_of = |bucket: &str| all.iter().rev().find(|id| name(id) == bucket).cloned();
        let buckets: BTreeSet<String> = all.iter().map(name).collect();
        let mut heads: Vec<BackupId> = buckets.iter().filter_map(|bucket| newest_of(bucket)).collect();
        heads.sort();
        heads.reverse();
        let count = match quota {
            Quota::None => 0,
            Quota::Of(count) => count as usize,
            Quota::All => usize::MAX,
        };
        let mut kept: BTreeSet<BackupId> = heads.iter().take(count).cloned().collect();
        if heads.len() < count {
            kept.extend(all.first().cloned());
        }
        kept
    }

    const RULES: [Rule; 6] = [Rule::Last, Rule::Hourly, Rule::Daily, Rule::Weekly, Rule::Monthly, Rule::Yearly];

    /// Times around everything that calendars have of traps.
    const SERIES: [(&str, &[&str]); 10] = [
        ("one", &["2026-11-22T02:00:56Z"]),
        (
            "a week of nights",
            &[
                "2026-11-16T02:00:00Z",
                "2026-11-17T02:00:00Z",
                "2026-11-18T02:00:00Z",
                "2026-11-19T02:00:00Z",
                "2026-11-20T02:00:00Z",
                "2026-11-21T02:00:00Z",
                "2026-11-22T02:00:00Z",
                "2026-11-23T02:00:00Z",
            ],
        ),
        (
            "many a day",
            &[
                "2026-11-21T23:59:59Z",
                "2026-11-22T00:00:00Z",
                "2026-11-22T00:59:59Z",
                "2026-11-22T01:00:00Z",
                "2026-11-22T22:30:00Z",
                "2026-11-22T23:30:00Z",
                "2026-11-23T00:00:00Z",
            ],
        ),
        (
            "week 53",
            &[
                "2026-12-27T12:00:00Z",
                "2026-12-28T12:00:00Z",
                "2026-12-31T12:00:00Z",
                "2027-01-01T12:00:00Z",
                "2027-01-03T12:00:00Z",
                "2027-01-04T12:00:00Z",
            ],
        ),
        (
            "week 1 in December",
            &[
                "2024-12-29T12:00:00Z",
                "2024-12-30T12:00:00Z",
                "2024-12-31T12:00:00Z",
                "2025-01-01T12:00:00Z",
                "2025-01-05T12:00:00Z",
            ],
        ),
        ("leap day", &["2024-02-28T12:00:00Z", "2024-02-29T12:00:00Z", "2024-03-01T12:00:00Z", "2025-02-28T12:00:00Z"]),
        (
            "summer time ends",
            &[
                "2026-10-24T23:30:00Z",
                "2026-10-25T00:30:00Z",
                "2026-10-25T01:30:00Z",
                "2026-10-25T02:30:00Z",
                "2026-10-25T22:59:59Z",
                "2026-10-25T23:00:00Z",
            ],
        ),
        (
            "summer time begins",
            &["2026-03-29T00:59:59Z", "2026-03-29T01:00:00Z", "2026-03-29T01:59:59Z", "2026-03-29T22:00:00Z"],
        ),
        (
            "months apart",
            &["2025-01-31T23:30:00Z", "2025-06-30T22:30:00Z", "2025-12-31T23:30:00Z", "2026-06-01T00:00:00Z"],
        ),
        (
            "years apart",
            &[
                "1999-12-31T23:59:59Z",
                "2000-01-01T00:00:00Z",
                "2004-02-29T00:00:00Z",
                "2026-01-01T00:00:00Z",
                "9998-12-31T23:59:59Z",
            ],
        ),
    ];

    #[test]
    fn every_rule_keeps_what_a_calendar_says() {
        let mut cases = 0;
        for (name, times) in SERIES {
            let given = candidates(times);
            for zone in [TimeZone::UTC, berlin()] {
                for rule in RULES {
                    for quota in [Quota::Of(1), Quota::Of(2), Quota::Of(3), Quota::Of(100), Quota::All] {
                        let plan = plan(&of(rule, quota), &zone, &given);
                        assert_eq!(
                            by_rule(&plan, rule),
                            reference(rule, quota, &zone, &given),
                            "{name} {rule:?} {quota:?}"
                        );
                        cases += 1;
                    }
                }
            }
        }
        assert_eq!(cases, 600);
    }

    /// What is said by hand, so that the reference is not the only witness.
    #[test]
    fn cases_by_hand() {
        let cases: [(usize, Rule, u32, bool, &[usize]); 22] = [
            (0, Rule::Daily, 1, false, &[0]),
            (1, Rule::Last, 3, false, &[5, 6, 7]),
            (1, Rule::Daily, 2, false, &[6, 7]),
            // The 16th was a Monday, and so is the 23rd; the oldest of all fills the third.
            (1, Rule::Weekly, 1, false, &[7]),
            (1, Rule::Weekly, 2, false, &[6, 7]),
            (1, Rule::Weekly, 3, false, &[0, 6, 7]),
            (1, Rule::Monthly, 1, false, &[7]),
            (1, Rule::Monthly, 2, false, &[0, 7]),
            (2, Rule::Hourly, 3, false, &[4, 5, 6]),
            (2, Rule::Daily, 2, false, &[5, 6]),
            (2, Rule::Daily, 9, false, &[0, 5, 6]),
            // In Berlin it is the 23rd from 23:00 on.
            (2, Rule::Daily, 2, true, &[4, 6]),
            // Week 53 lasts until January the 3rd.
            (3, Rule::Weekly, 2, false, &[4, 5]),
            (3, Rule::Weekly, 3, false, &[0, 4, 5]),
            (3, Rule::Yearly, 2, false, &[2, 5]),
            // Week 1 begins on December the 30th.
            (4, Rule::Weekly, 1, false, &[4]),
            (4, Rule::Weekly, 2, false, &[0, 4]),
            (5, Rule::Daily, 9, false, &[0, 1, 2, 3]),
            (5, Rule::Monthly, 2, false, &[2, 3]),
            // Half past two comes twice.
            (6, Rule::Hourly, 5, true, &[1, 2, 3, 4, 5]),
            // It is the 25th until 23:00 only.
            (6, Rule::Daily, 2, true, &[4, 5]),
            (8, Rule::Monthly, 2, true, &[2, 3]),
        ];
        for (series, rule, count, in_berlin, expected) in cases {
            let given = candidates(SERIES[series].1);
            let zone = if in_berlin { berlin() } else { TimeZone::UTC };
            let expected: BTreeSet<BackupId> = expected.iter().map(|at| given[*at].id.clone()).collect();
            let plan = plan(&of(rule, Quota::Of(count)), &zone, &given);
            assert_eq!(by_rule(&plan, rule), expected, "{} {rule:?} {count}", SERIES[series].0);
        }
    }

    /// Numbers that are the same each time.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % sides
        }

        fn shelf(&mut self) -> Vec<Candidate> {
            let start = 1_600_000_000 + self.roll(200_000_000);
            let stretch = [3_600, 86_400, 30 * 86_400, 4 * 366 * 86_400][usize::try_from(self.roll(4)).unwrap()];
            let times: BTreeSet<u64> = (0..self.roll(40)).map(|_| start + self.roll(stretch)).collect();
            times
                .into_iter()
                .map(|time| {
                    let time = Timestamp::from_second(time.cast_signed()).unwrap();
                    let mut candidate = candidate(BackupId::new("a".parse().unwrap(), time).unwrap());
                    candidate.verified = self.roll(5) == 0;
                    candidate.damaged = !candidate.verified && self.roll(5) == 0;
                    candidate.held = self.roll(9) == 0;
                    candidate.replaced = self.roll(4) == 0;
                    candidate
                })
                .collect()
        }

        fn policy(&mut self) -> RetentionPolicy {
            let mut quota = || Quota::Of(u32::try_from(self.roll(6)).unwrap());
            let (last, hourly, daily, weekly) = (quota(), quota(), quota(), quota());
            RetentionPolicy { last, hourly, daily, weekly, monthly: quota(), yearly: Quota::Of(1) }
        }
    }

    #[test]
    fn properties() {
        let mut dice = Dice(1);
        for _ in 0..3000 {
            let (given, policy) = (dice.shelf(), dice.policy());
            let zone = if dice.roll(2) == 0 { TimeZone::UTC } else { berlin() };
            let plan = plan(&policy, &zone, &given);
            let kept = kept(&plan);
            assert_eq!(plan.backups.len(), given.len());
            // A larger number keeps as much and more.
            for rule in RULES {
                let mut larger = policy;
                let place = match rule {
                    Rule::Last => &mut larger.last,
                    Rule::Hourly => &mut larger.hourly,
                    Rule::Daily => &mut larger.daily,
                    Rule::Weekly => &mut larger.weekly,
                    Rule::Monthly => &mut larger.monthly,
                    Rule::Yearly => &mut larger.yearly,
                };
                if let Quota::Of(count) = place {
                    *count += 1;
                }
                assert!(self::kept(&self::plan(&larger, &zone, &given)).is_superset(&kept), "{rule:?}");
            }
            // What stays would stay again.
            let remaining: Vec<Candidate> = given.iter().filter(|one| kept.contains(&one.id)).cloned().collect();
            assert_eq!(self::kept(&self::plan(&policy, &zone, &remaining)), kept);
            // The order they are given in says nothing.
            let reversed: Vec<Candidate> = given.iter().rev().cloned().collect();
            assert_eq!(self::plan(&policy, &zone, &reversed), plan);
            // Floors.
            let nothing_else = given.iter().all(|one| one.replaced || one.damaged);
            let wanted: Vec<&Candidate> = given.iter().filter(|one| nothing_else || !one.replaced).collect();
            assert!(wanted.iter().max_by_key(|one| one.id.clone()).is_none_or(|newest| kept.contains(&newest.id)));
            let verified = wanted.iter().filter(|one| one.verified).max_by_key(|one| one.id.clone());
            assert!(
                given.iter().all(|one| !one.verified) || given.iter().any(|one| one.verified && kept.contains(&one.id))
            );
            assert!(verified.is_none_or(|verified| kept.contains(&verified.id)));
            assert!(given.iter().filter(|one| one.held).all(|held| kept.contains(&held.id)));
            // The others are kept as if those were not there.
            let without: Vec<Candidate> = wanted.into_iter().cloned().collect();
            let kept_without = self::kept(&self::plan(&policy, &zone, &without));
            assert!(without.iter().all(|one| kept.contains(&one.id) == kept_without.contains(&one.id)));
        }
    }

    #[test]
    fn an_empty_policy_deletes_nothing() {
        for policy in [RetentionPolicy::default(), of(Rule::Daily, Quota::Of(0))] {
            let error = plan_prune(&policy, &TimeZone::UTC, LastAttempt::Succeeded, &[]).unwrap_err();
            assert_eq!(error.code(), "policy_empty");
        }
    }

    #[test]
    fn damaged_ones_push_out_nothing() {
        let mut given = candidates(SERIES[1].1);
        for candidate in &mut given[4..] {
            candidate.damaged = true;
        }
        let plan = plan(&of(Rule::Last, Quota::Of(2)), &TimeZone::UTC, &given);
        let expected: BTreeSet<BackupId> = [2, 3, 6, 7].map(|at| given[at].id.clone()).into();
        assert_eq!(kept(&plan), expected);
    }

    #[test]
    fn what_a_restore_replaced_pushes_out_nothing() {
        let mut given = candidates(SERIES[1].1);
        for candidate in &mut given[6..] {
            candidate.replaced = true;
            candidate.verified = true;
        }
        given[7].keep = Some("2026-11-30T02:00:00Z".parse().unwrap());
        let policy = RetentionPolicy { daily: Quota::Of(1), ..of(Rule::Last, Quota::Of(2)) };
        let judged = plan(&policy, &TimeZone::UTC, &given);
        assert_eq!(kept(&judged), [4, 5, 7].map(|at| given[at].id.clone()).into());
        assert_eq!(by_rule(&judged, Rule::Daily), [given[5].id.clone()].into());
        let failed = plan_prune(&of(Rule::Last, Quota::Of(1)), &TimeZone::UTC, LastAttempt::Failed, &given).unwrap();
        assert_eq!(kept(&failed), [4, 5, 7].map(|at| given[at].id.clone()).into());
        // Where there is nothing else the newest stays all the same.
        given[7].keep = None;
        let alone = plan(&of(Rule::Last, Quota::Of(1)), &TimeZone::UTC, &given[6..]);
        assert_eq!(kept(&alone), [given[7].id.clone()].into());
        // So it does beside one that is damaged, and if it is the only one that is known to restore.
        given[5].damaged = true;
        given[7].verified = false;
        let beside = plan(&of(Rule::Last, Quota::Of(1)), &TimeZone::UTC, &given[5..]);
        assert!(kept(&beside).contains(&given[6].id) && kept(&beside).contains(&given[7].id), "{beside:?}");
        given[5].damaged = false;
        let beside = plan(&of(Rule::Last, Quota::Of(1)), &TimeZone::UTC, &given[5..]);
        assert_eq!(kept(&beside), [5, 6].map(|at| given[at].id.clone()).into());
    }

    #[test]
    fn floors_hold_whatever_the_policy() {
        let mut given = candidates(SERIES[1].1);
        given[0].keep = Some("2026-11-23T02:00:01Z".parse().unwrap());
        // It ends with the newest backup, and not with anybody's clock.
        given[1].keep = Some("2026-11-23T02:00:00Z".parse().unwrap());
        given[2].verified = true;
        given[3].verified = true;
        given[4].held = true;
        let plan = plan(&of(Rule::Last, Quota::Of(1)), &TimeZone::UTC, &given);
        let expected: BTreeSet<BackupId> = [0, 3, 4, 7].map(|at| given[at].id.clone()).into();
        assert_eq!(kept(&plan), expected);
        let reasons: Vec<String> = plan.backups[0].reasons.iter().map(ToString::to_string).collect();
        assert_eq!(reasons, ["last", "newest"]);
        assert_eq!(
            plan.doomed().map(|one| one.id.clone()).collect::<Vec<_>>(),
            [1, 2, 5, 6].map(|at| given[at].id.clone())
        );
        assert_eq!(plan.freed(), 4);
    }

    #[test]
    fn after_a_failure_two_remain() {
        let given = candidates(SERIES[1].1);
        let policy = of(Rule::Last, Quota::Of(1));
        let plan = plan_prune(&policy, &TimeZone::UTC, LastAttempt::Failed, &given).unwrap();
        assert_eq!(kept(&plan), [6, 7].map(|at| given[at].id.clone()).into());
        assert_eq!(plan.backups[1].reasons, [KeepReason::LastAttemptFailed]);
    }
}
