//! How long to wait before the next try. Pure but for the dice.

use std::time::Duration;

use rand::RngExt as _;

/// Somewhere between nothing and `first` doubled with each try, `most` at the most: whoever failed together does not
/// come back together.
pub(super) fn full_jitter(first: Duration, most: Duration, tries: u32) -> Duration {
    let ceiling = first.saturating_mul(1 << tries.min(20)).min(most);
    ceiling.mul_f64(rand::rng().random_range(0.0..=1.0))
}

/// A duration more or less by a fifth.
pub(super) fn about(duration: Duration) -> Duration {
    duration.mul_f64(rand::rng().random_range(0.8..=1.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_an_end() {
        let (first, most) = (Duration::from_millis(5), Duration::from_millis(100));
        for tries in 0..40 {
            let wait = full_jitter(first, most, tries);
            assert!(wait <= most && (tries > 0 || wait <= first), "{wait:?}");
        }
        for _ in 0..100 {
            let life = about(Duration::from_secs(100));
            assert!((80..=120).contains(&life.as_secs()), "{life:?}");
        }
    }
}
