//! When something runs, as text of cron.
//!
//! The grammar is what two readers have in common: the one of Kubernetes (`robfig/cron`), which does the scheduling, and the one that
//! tells here when that will be.

use std::fmt;
use std::str::FromStr;

use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What stands for a whole text.
const NICKNAMES: [&str; 5] = ["@yearly", "@monthly", "@weekly", "@daily", "@hourly"];
const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
/// The first and the last number of each field, and the words for some of them.
const FIELDS: [(u8, u8, &[&str]); 5] = [(0, 59, &[]), (0, 23, &[]), (1, 31, &[]), (1, 12, &MONTHS), (0, 6, &DAYS)];

/// Times that come back: `0 2 * * *` is every day at two. They are those of UTC.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cron(String);

impl Cron {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first time after this one. `None` when there is none: no February has 30 days.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let parsed = parser().parse(&self.0).ok()?;
        let next = parsed.find_next_occurrence(&Zoned::new(after, TimeZone::UTC), false).ok()?;
        Some(next.timestamp())
    }
}

impl FromStr for Cron {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let cron = Self(fields.join(" "));
        if !NICKNAMES.contains(&cron.as_str()) {
            let [minute, hour, day, month, weekday] = fields[..] else {
                return Err(invalid(text, &format!("it has {} fields, and not 5", fields.len())));
            };
            for (field, of) in [minute, hour, day, month, weekday].into_iter().zip(FIELDS) {
                check(field, of).map_err(|reason| invalid(text, &reason))?;
            }
        }
        // From a leap year on, four years have every date.
        match cron.next(Timestamp::UNIX_EPOCH) {
            Some(_) => Ok(cron),
            None => Err(invalid(text, "there is no such time")),
        }
    }
}

fn parser() -> CronParser {
    CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build()
}

/// One field: a list of numbers, ranges and everything, each perhaps in steps.
fn check(field: &str, (first, last, words): (u8, u8, &[&str])) -> std::result::Result<(), String> {
    let number = |text: &str| {
        let word = words.iter().position(|word| text.eq_ignore_ascii_case(word)).and_then(|at| u8::try_from(at).ok());
        let number = word.map(|at| at + first).or_else(|| text.parse().ok().filter(|_| is_digits(text)));
        number
            .filter(|number| (first..=last).contains(number))
            .ok_or_else(|| format!("{text:?} is none of {first} to {last}"))
    };
    for item in field.split(',') {
        let (range, step) = item.split_once('/').map_or((item, None), |(range, step)| (range, Some(step)));
        if step.is_some_and(|step| !is_digits(step) || step.parse().is_ok_and(|step: u32| step == 0)) {
            return Err(format!("{item:?} has steps that are no number"));
        }
        match (range, range.split_once('-')) {
            ("*", _) => {}
            (_, Some((from, to))) if number(from)? > number(to)? => return Err(format!("{item:?} runs backwards")),
            (_, Some(_)) => {}
            // The one reader takes it for a range to the end, and the other does not take it.
            (_, None) if step.is_some() => return Err(format!("{item:?} has steps and no range: {range}-{last}/…")),
            (single, None) => drop(number(single)?),
        }
    }
    Ok(())
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.len() <= 3 && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn invalid(text: &str, reason: &str) -> Error {
    Error::invalid_input("cron_invalid", format!("{text:?} is no text of cron: {reason}"))
        .with_hint("write minute, hour, day, month and weekday (0 is Sunday): \"0 2 * * *\" is every day at 02:00 UTC")
}

impl TryFrom<String> for Cron {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Cron> for String {
    fn from(cron: Cron) -> Self {
        cron.0
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cron({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_time_is_after_and_of_utc() {
        for (text, after, next) in [
            ("0 2 * * *", "2026-11-26T01:59:59Z", "2026-11-26T02:00:00Z"),
            ("0 2 * * *", "2026-11-26T02:00:00Z", "2026-11-27T02:00:00Z"),
            ("  0  4 * *  0 ", "2026-11-26T12:00:00Z", "2026-11-29T04:00:00Z"),
            ("0 4 * * sun", "2026-11-26T12:00:00Z", "2026-11-29T04:00:00Z"),
            ("*/15 8-18 * * MON-FRI", "2026-11-27T18:46:00Z", "2026-11-30T08:00:00Z"),
            ("0 0 29 2 *", "2026-11-26T12:00:00Z", "2028-02-29T00:00:00Z"),
            ("@weekly", "2026-11-26T12:00:00Z", "2026-11-29T00:00:00Z"),
            // Where a day and a weekday are named, either will do.
            ("0 0 13 * 5", "2026-11-26T12:00:00Z", "2026-11-27T00:00:00Z"),
        ] {
            let cron: Cron = text.parse().unwrap();
            assert_eq!(cron.next(after.parse().unwrap()).unwrap().to_string(), next, "{text}");
        }
        assert_eq!("  0  4 * *  0 ".parse::<Cron>().unwrap().as_str(), "0 4 * * 0");
    }

    #[test]
    fn what_one_of_both_readers_does_not_take_is_refused() {
        for text in [
            "",
            "soon",
            "0 2 * *",
            "0 0 2 * * *",
            "60 2 * * *",
            "0 24 * * *",
            "0 2 0 * *",
            "0 2 * * 7",
            "0 2 L * *",
            "0 2 15W * *",
            "0 2 * * 5#2",
            "0 2 * * +1",
            "0/15 * * * *",
            "*/0 * * * *",
            "5-1 * * * *",
            "1,,2 * * * *",
            "-1 * * * *",
            "0 2 * JANUARY *",
            "0 0 30 2 *",
            "@reboot",
            "@every 1h",
            "@DAILY",
            "TZ=Europe/Berlin 0 2 * * *",
        ] {
            let error = text.parse::<Cron>().err().unwrap_or_else(|| panic!("{text:?} passes"));
            assert_eq!(error.code(), "cron_invalid", "{text:?}");
            assert!(error.hint().is_some_and(|hint| hint.contains("0 2 * * *")), "{error:?}");
        }
    }
}
