//! Privacy loss in the units of the chain: exact integers, never floating point.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Epsilon in units of 1e-9. In JSON and text a decimal such as `1.5`, at most nine places, as a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epsilon(pub u64);

/// Text that is no epsilon.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("epsilon must be a decimal with at most 9 places, e.g. 1.5 (got {0:?})")]
pub struct EpsilonError(String);

const UNIT: u64 = 1_000_000_000;

impl Epsilon {
    /// Sum, or `None` where it does not fit.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The value as a float, for mechanisms whose interface takes one. Exact up to 2^53 units.
    pub fn as_f64(self) -> f64 {
        self.0 as f64 / UNIT as f64
    }
}

impl fmt::Display for Epsilon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.0 / UNIT;
        let fraction = format!("{:09}", self.0 % UNIT);
        let fraction = fraction.trim_end_matches('0');
        if fraction.is_empty() { write!(f, "{whole}") } else { write!(f, "{whole}.{fraction}") }
    }
}

impl FromStr for Epsilon {
    type Err = EpsilonError;
    fn from_str(text: &str) -> Result<Self, EpsilonError> {
        let bad = || EpsilonError(text.chars().take(40).collect());
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
            return Err(bad());
        }
        let whole: u64 = whole.parse().map_err(|_| bad())?;
        let fraction: u64 = format!("{fraction:0<9}").parse().map_err(|_| bad())?;
        whole.checked_mul(UNIT).and_then(|w| w.checked_add(fraction)).map(Self).ok_or_else(bad)
    }
}

impl Serialize for Epsilon {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Epsilon {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_text_is_exact_both_ways() {
        for (text, units) in [("1.5", 1_500_000_000), ("0.000000001", 1), ("4", 4_000_000_000), ("0", 0)] {
            assert_eq!(text.parse::<Epsilon>().unwrap(), Epsilon(units));
            assert_eq!(Epsilon(units).to_string(), text);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in ["", ".", "1.", ".5", "-1", "1e3", "0.0000000001", "18446744074", " 1"] {
            assert!(bad.parse::<Epsilon>().is_err(), "{bad:?}");
        }
    }
}
