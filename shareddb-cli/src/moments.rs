//! Points in time as people read and write them.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::units;

/// As long as a day is written.
const DAY: usize = "2027-02-20".len();

/// Reads a moment: `2026-11-22T02:00:00Z`, or with another offset.
pub(crate) fn parse_moment(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| "write a time with its offset, such as 2026-11-22T02:00:00Z".to_owned())
}

/// Reads a moment, the beginning of a day of UTC's, or how far from now it is.
pub(crate) fn parse_future(text: &str) -> Result<Timestamp, String> {
    future(text, Timestamp::now())
}

fn future(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let day = |date: Date| date.to_zoned(TimeZone::UTC).ok().map(|day| day.timestamp());
    let moment = text
        .parse()
        .ok()
        .or_else(|| text.parse().ok().filter(|_| text.len() == DAY).and_then(day))
        .or_else(|| now.checked_add(units::parse_duration(text).ok()?).ok())
        .ok_or("write a day, a time or how long from now: 2027-02-20, 2027-02-20T02:00:00Z, 90d")?;
    if moment > now { Ok(moment) } else { Err("that is not in the future".to_owned()) }
}

/// Reads a duration, or `never`, which is zero.
pub(crate) fn parse_patience(text: &str) -> Result<Duration, String> {
    match text {
        "never" => Ok(Duration::ZERO),
        text => units::parse_duration(text),
    }
}

/// How long ago something was.
pub(crate) fn since(moment: Timestamp) -> Duration {
    Timestamp::now().duration_since(moment).try_into().unwrap_or_default()
}

/// How long ago something was, in its largest unit as kubectl has it: `52s`, `7m`, `3h`, `41d`.
pub(crate) fn age(moment: Timestamp) -> String {
    short(since(moment))
}

/// A duration, in two units while they are small and one later.
pub(crate) fn short(duration: Duration) -> String {
    const LARGER: [(u64, u64, char); 3] = [(48 * 3600, 86_400, 'd'), (3 * 3600, 3_600, 'h'), (120, 60, 'm')];
    let seconds = duration.as_secs();
    let unit = LARGER.iter().find(|(from, ..)| seconds >= *from);
    unit.map_or_else(|| format!("{seconds}s"), |(_, size, letter)| format!("{}{letter}", seconds / size))
}

/// How long something took: `0.4s`, `52s`, `3m12s`.
pub(crate) fn took(seconds: f64) -> String {
    if seconds < 9.95 {
        return format!("{seconds:.1}s");
    }
    units::duration(Duration::from_secs_f64(seconds.min(1e9).round()))
}

/// The day of a moment, by UTC.
pub(crate) fn day(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%d").to_string()
}

/// A moment to the minute: `2026-11-27 02:00 UTC`.
pub(crate) fn minute(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_future_is_a_day_a_time_or_a_distance() {
        let now = "2026-11-22T12:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("2027-02-20", "2027-02-20T00:00:00Z"),
            ("2027-02-20T02:00:00+01:00", "2027-02-20T01:00:00Z"),
            ("90d", "2027-02-20T12:00:00Z"),
            ("1h30m", "2026-11-22T13:30:00Z"),
        ] {
            assert_eq!(future(text, now).unwrap().to_string(), expected, "{text}");
        }
        for text in ["2026-11-22", "2026-11-22T11:59:59Z", "soon", "", "90"] {
            assert!(future(text, now).is_err(), "{text}");
        }
    }

    #[test]
    fn a_moment_has_an_offset() {
        assert_eq!(parse_moment("2026-11-22T03:00:00+01:00").unwrap().to_string(), "2026-11-22T02:00:00Z");
        for text in ["2026-11-22", "2026-11-22T02:00:00", "02:00", "latest"] {
            assert!(parse_moment(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ages_have_one_unit() {
        for (seconds, shown) in
            [(0, "0s"), (119, "119s"), (120, "2m"), (10_799, "179m"), (10_800, "3h"), (172_799, "47h"), (172_800, "2d")]
        {
            assert_eq!(short(Duration::from_secs(seconds)), shown);
        }
        assert_eq!((took(0.42), took(9.96), took(192.0)), ("0.4s".into(), "10s".into(), "3m12s".into()));
    }
}
