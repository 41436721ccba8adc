//! How far a stage is, how fast it goes and how long it will take.

use std::time::Duration;

use crate::{moments, units};

/// Before this a rate says nothing.
const FIRST: Duration = Duration::from_secs(1);

/// How far a stage is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meter {
    pub(crate) bytes: u64,
    /// Bytes in all, as guessed.
    pub(crate) total: Option<u64>,
    /// Since the stage began.
    pub(crate) elapsed: Duration,
    pub(crate) table: Option<String>,
}

impl Meter {
    /// Bytes in all, as long as that can be true.
    pub(crate) fn whole(&self) -> Option<u64> {
        self.total.filter(|total| *total >= self.bytes && *total > 0)
    }

    /// Bytes a second.
    pub(crate) fn rate(&self) -> Option<u64> {
        (self.elapsed >= FIRST).then(|| (self.bytes as f64 / self.elapsed.as_secs_f64()) as u64)
    }

    /// How long it will take from now on.
    pub(crate) fn left(&self) -> Option<Duration> {
        let (rest, rate) = (self.whole()? - self.bytes, self.rate().filter(|rate| *rate > 0)?);
        Some(Duration::from_secs(rest.div_ceil(rate)))
    }

    /// All of it in one line.
    pub(crate) fn line(&self) -> String {
        let size = units::bytes;
        let whole = self.whole().map(|total| format!(" of about {}", size(total))).unwrap_or_default();
        let parts = [
            Some(size(self.bytes) + &whole),
            self.rate().map(|rate| format!("{}/s", size(rate))),
            self.left().map(|left| format!("{} left", moments::short(left))),
            self.table.clone(),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join("  ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn meter(bytes: u64, total: Option<u64>, seconds: u64) -> Meter {
        Meter { bytes, total, elapsed: Duration::from_secs(seconds), table: Some("public.events".to_owned()) }
    }

    #[test]
    fn a_line_says_what_is_known() {
        for (meter, line) in [
            (meter(412 * MIB, Some(1236 * MIB), 4), "412Mi of about 1.2Gi  103Mi/s  8s left  public.events"),
            (meter(412 * MIB, None, 4), "412Mi  103Mi/s  public.events"),
            (meter(412 * MIB, Some(1236 * MIB), 0), "412Mi of about 1.2Gi  public.events"),
            (meter(0, Some(0), 0), "0B  public.events"),
            (meter(0, Some(MIB), 9), "0B of about 1Mi  0B/s  public.events"),
        ] {
            assert_eq!(meter.line(), line);
        }
    }

    #[test]
    fn a_guess_that_was_wrong_is_not_shown() {
        let over = meter(2 * MIB, Some(MIB), 2);
        assert_eq!((over.whole(), over.left(), over.line().as_str()), (None, None, "2Mi  1Mi/s  public.events"));
    }
}
