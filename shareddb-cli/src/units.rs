//! Sizes and durations as people read and write them.

use std::time::Duration;

const SECONDS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// A size such as `84Mi` or `1.2Gi`.
pub(crate) fn size(bytes: i64) -> String {
    const STEP: f64 = 1024.0;
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in ["Ki", "Mi", "Gi", "Ti"] {
        // 1023.7Ki would be shown as 1024Ki.
        if value.abs() < STEP - 0.5 {
            break;
        }
        value /= STEP;
        unit = next;
    }
    let shown = format!("{value:.1}");
    match shown.strip_suffix(".0") {
        Some(whole) => format!("{whole}{unit}"),
        None if value.abs() < 9.95 => format!("{shown}{unit}"),
        None => format!("{value:.0}{unit}"),
    }
}

/// The same for a size that is never below zero.
pub(crate) fn bytes(bytes: u64) -> String {
    size(i64::try_from(bytes).unwrap_or(i64::MAX))
}

/// Reads `90s`, `15m`, `6h`, `7d` and chains of them such as `1h30m`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    const FORM: &str = "write a number and its unit, such as 90s, 15m or 1h30m";
    let mut total: u64 = 0;
    let mut rest = text;
    let mut last = u64::MAX;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(|| format!("the unit is missing: {FORM}"))?;
        let number: u64 = rest[..end].parse().map_err(|_| FORM.to_owned())?;
        let unit = rest[end..].chars().next().unwrap_or_default();
        let (_, seconds) =
            SECONDS.iter().find(|(letter, size)| *letter == unit && *size < last).ok_or_else(|| FORM.to_owned())?;
        total = number
            .checked_mul(*seconds)
            .and_then(|seconds| total.checked_add(seconds))
            .filter(|total| *total <= 365 * 86_400)
            .ok_or("at most 365d are possible")?;
        last = *seconds;
        rest = &rest[end + 1..];
    }
    if total == 0 { Err(FORM.to_owned()) } else { Ok(Duration::from_secs(total)) }
}

/// Reads a duration that may be none: `0s`.
pub(crate) fn parse_grace(text: &str) -> Result<Duration, String> {
    if text == "0s" { Ok(Duration::ZERO) } else { parse_duration(text) }
}

/// Writes what [`parse_duration`] reads.
pub(crate) fn duration(duration: Duration) -> String {
    let mut rest = duration.as_secs();
    let mut text = String::new();
    for (letter, seconds) in SECONDS {
        let number = rest / seconds;
        rest %= seconds;
        if number > 0 {
            text.push_str(&format!("{number}{letter}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        let gi = 1024_f64.powi(3);
        for (bytes, shown) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1Ki"),
            (1536, "1.5Ki"),
            (7_689_235, "7.3Mi"),
            (84 << 20, "84Mi"),
            ((1 << 20) - 1, "1Mi"),
            ((1.25 * gi) as i64, "1.2Gi"),
            (10 << 30, "10Gi"),
            (3 << 40, "3Ti"),
        ] {
            assert_eq!(size(bytes), shown);
        }
    }

    #[test]
    fn durations_are_read_as_they_are_written() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("6h", 21_600), ("7d", 604_800), ("1h30m", 5_400)] {
            assert_eq!(parse_duration(text).unwrap().as_secs(), seconds, "{text}");
        }
        for text in ["5m", "1h30m", "7d", "1d2h3m4s"] {
            assert_eq!(duration(parse_duration(text).unwrap()), text);
        }
        assert_eq!(duration(Duration::from_secs(90)), "1m30s");
    }

    #[test]
    fn other_durations_are_refused() {
        for text in ["", "5", "0s", "m", "5x", "5m5", "30m1h", "1m1m", "-5m", "5 m", "5µ", "999999999d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert!(parse_duration("99999999999999999999s").is_err());
    }
}
