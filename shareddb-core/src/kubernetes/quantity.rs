//! Amounts as Kubernetes writes them: `10Gi` of storage, `500m` of a processor.
//!
//! The grammar is that of Kubernetes' own quantities (`k8s.io/apimachinery/pkg/api/resource`), without exponents.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

const SUFFIXES: [(&str, u64); 9] = [
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("k", 1_000),
    ("", 1),
];
/// Those that are shown.
const BINARY: usize = 4;

/// So many bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size(u64);

/// So many thousandths of a processor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cores(u32);

impl Size {
    pub(crate) const fn mebibytes(count: u64) -> Self {
        Self(count << 20)
    }

    /// The number of bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }

    pub(crate) fn in_mebibytes(self) -> u64 {
        self.0 >> 20
    }

    /// This divided by a number.
    pub(crate) fn part(self, of: u64) -> Self {
        Self(self.0 / of)
    }
}

impl Cores {
    pub(crate) const fn thousandths(count: u32) -> Self {
        Self(count)
    }

    pub(crate) fn half(self) -> Self {
        Self(self.0.div_ceil(2))
    }
}

impl FromStr for Size {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = SUFFIXES.iter().find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit)));
        known.and_then(|(number, unit)| scaled(number, unit)).filter(|bytes| *bytes > 0).map(Self).ok_or_else(|| {
            Error::invalid_input("size_invalid", format!("{text:?} is no size"))
                .with_hint("write a number and a unit: 512Mi, 10Gi")
        })
    }
}

impl FromStr for Cores {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let thousandths = match text.strip_suffix('m') {
            Some(number) => scaled(number, 1),
            None => scaled(text, 1000),
        };
        thousandths.and_then(|count| u32::try_from(count).ok()).filter(|count| *count > 0).map(Self).ok_or_else(|| {
            Error::invalid_input("cpu_invalid", format!("{text:?} is no number of processors"))
                .with_hint("write 500m for half of one, or 2 for two")
        })
    }
}

/// A decimal number, times a unit; what is left of a whole is cut off.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || number.ends_with('.') || fraction.len() > 9 {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    let Ok(part) = fraction.parse::<u64>() else { return Some(whole) };
    let tenths = 10_u64.pow(u32::try_from(fraction.len()).ok()?);
    whole.checked_add(u64::try_from(u128::from(part) * u128::from(unit) / u128::from(tenths)).ok()?)
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, unit): &&(&str, u64)| self.0.is_multiple_of(*unit);
        match SUFFIXES[..BINARY].iter().find(fits) {
            Some((suffix, unit)) => write!(f, "{}{suffix}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 1000 {
            0 => write!(f, "{}", self.0 / 1000),
            _ => write!(f, "{}m", self.0),
        }
    }
}

macro_rules! as_text {
    ($($name:ident),*) => { $(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<Self> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    )* };
}

as_text!(Size, Cores);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_kubernetes_reads_them() {
        let bytes = |text: &str| text.parse::<Size>().unwrap().bytes();
        assert_eq!(bytes("10Gi"), 10 << 30);
        assert_eq!(bytes("1.5Gi"), 3 << 29);
        assert_eq!(bytes("1G"), 1_000_000_000);
        assert_eq!(bytes("0.5k"), 500);
        assert_eq!(bytes("4096"), 4096);
        for text in ["", "Gi", "10GB", "-1Gi", "1e3", "0", "0Mi", "1.Gi", ".5Gi", "1 Gi", "99999999999Ti"] {
            assert_eq!(text.parse::<Size>().unwrap_err().code(), "size_invalid", "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_in_the_largest_unit_that_fits() {
        for text in ["10Gi", "1536Mi", "3Ti", "1000"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        assert_eq!("1024Mi".parse::<Size>().unwrap().to_string(), "1Gi");
    }

    #[test]
    fn processors_have_thousandths() {
        for (text, shown) in [("500m", "500m"), ("2", "2"), ("1.5", "1500m"), ("2000m", "2")] {
            assert_eq!(text.parse::<Cores>().unwrap().to_string(), shown);
        }
        assert_eq!("250m".parse::<Cores>().unwrap(), "500m".parse::<Cores>().unwrap().half());
        for text in ["", "m", "0", "0m", "-1", "1c", "9999999999"] {
            assert_eq!(text.parse::<Cores>().unwrap_err().code(), "cpu_invalid", "{text}");
        }
    }
}
