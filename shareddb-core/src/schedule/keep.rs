//! What a schedule keeps, as one word: `7d,4w,6m`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::backup::{Quota, RetentionPolicy};
use crate::error::{Error, Result};

/// What keeps everything, and a rule without end.
const ALL: &str = "all";

/// Which backups stay when a schedule has taken another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Keep {
    /// All of them: nothing is ever pruned.
    Everything,
    /// Those that a policy keeps.
    By(RetentionPolicy),
}

impl Keep {
    /// A week of days, a month of weeks, half a year of months.
    pub(crate) fn usual() -> Self {
        let [daily, weekly, monthly] = [7, 4, 6].map(Quota::Of);
        Self::By(RetentionPolicy { daily, weekly, monthly, ..RetentionPolicy::default() })
    }

    /// Whether a policy has a rule; one without would delete everything.
    ///
    /// # Errors
    /// `InvalidInput` when it has none.
    pub(crate) fn check(self) -> Result<()> {
        match self.options() {
            Some(options) if options.is_empty() => Err(invalid("")),
            _ => Ok(()),
        }
    }

    /// The options of the command `prune`. `None` when there is nothing to prune.
    pub(crate) fn options(self) -> Option<Vec<String>> {
        let Self::By(policy) = self else { return None };
        let given = rules(&policy).into_iter().filter_map(|(option, _, quota)| Some((option, shown(quota)?)));
        Some(given.flat_map(|(option, quota)| [format!("--keep-{option}"), quota]).collect())
    }
}

/// Each rule by the option of `prune`, and by the letter behind its number.
fn rules(policy: &RetentionPolicy) -> [(&'static str, &'static str, Quota); 6] {
    [
        ("last", "", policy.last),
        ("hourly", "h", policy.hourly),
        ("daily", "d", policy.daily),
        ("weekly", "w", policy.weekly),
        ("monthly", "m", policy.monthly),
        ("yearly", "y", policy.yearly),
    ]
}

/// `None` for a rule that does not apply.
fn shown(quota: Quota) -> Option<String> {
    match quota {
        Quota::None | Quota::Of(0) => None,
        Quota::Of(count) => Some(count.to_string()),
        Quota::All => Some(ALL.to_owned()),
    }
}

impl FromStr for Keep {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == ALL {
            return Ok(Self::Everything);
        }
        let mut policy = RetentionPolicy::default();
        for item in text.split(',') {
            let end = item.find(|c: char| !c.is_ascii_digit()).unwrap_or(item.len());
            let (number, letter) = item.strip_prefix(ALL).map_or_else(|| item.split_at(end), |letter| (ALL, letter));
            let rule = match letter {
                "" => &mut policy.last,
                "h" => &mut policy.hourly,
                "d" => &mut policy.daily,
                "w" => &mut policy.weekly,
                "m" => &mut policy.monthly,
                "y" => &mut policy.yearly,
                _ => return Err(invalid(text)),
            };
            if *rule != Quota::None {
                return Err(invalid(text));
            }
            let count = number.parse().ok().filter(|count| *count > 0);
            let count = count.map(Quota::Of).or((number == ALL).then_some(Quota::All));
            *rule = count.ok_or_else(|| invalid(text))?;
        }
        Ok(Self::By(policy))
    }
}

fn invalid(text: &str) -> Error {
    Error::invalid_input("keep_invalid", format!("{text:?} does not say which backups stay")).with_hint(
        "write 7d,4w,6m for one a day, a week and a month (also h, y, and a bare number for the newest), or all",
    )
}

impl TryFrom<String> for Keep {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Keep> for String {
    fn from(keep: Keep) -> Self {
        keep.to_string()
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::By(policy) = self else { return f.write_str(ALL) };
        let items = rules(policy).into_iter().filter_map(|(_, letter, quota)| Some(shown(quota)? + letter));
        f.write_str(&items.collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_a_policy_and_the_options_of_prune() {
        for (text, options) in [
            ("7d,4w,6m", "--keep-daily 7 --keep-weekly 4 --keep-monthly 6"),
            ("3", "--keep-last 3"),
            ("7d,ally", "--keep-daily 7 --keep-yearly all"),
            ("3,24h,1y", "--keep-last 3 --keep-hourly 24 --keep-yearly 1"),
        ] {
            let keep: Keep = text.parse().unwrap();
            assert_eq!((keep.to_string(), keep.options().unwrap().join(" ")), (text.into(), options.into()));
        }
        assert_eq!("all".parse::<Keep>().unwrap().options(), None);
        assert_eq!(Keep::usual().to_string(), "7d,4w,6m");
    }

    #[test]
    fn what_would_keep_nothing_or_is_said_twice_is_refused() {
        for text in ["", ",", "0d", "d", "7x", "7d,", "7d,8d", "-1d", "7 d", "99999999999d", "none"] {
            let refused = text.parse::<Keep>();
            assert_eq!(refused.err().map(|error| error.code()), Some("keep_invalid"), "{text:?}");
        }
    }
}
