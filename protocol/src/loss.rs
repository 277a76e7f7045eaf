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

/// Delta, a probability of failure, in units of 1e-18. In recipes a decimal such as `0.000001`, at most 18 places, as a
/// string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Delta(pub u64);

/// Text that is no delta.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("delta must be a decimal with at most 18 places, e.g. 0.000001 (got {0:?})")]
pub struct DeltaError(String);

const PLACES: usize = 9;
const DELTA_PLACES: usize = 18;

impl Delta {
    /// The value as a float, for mechanisms whose interface takes one.
    pub fn as_f64(self) -> f64 {
        self.0 as f64 / 1e18
    }
}

impl fmt::Display for Epsilon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_decimal(f, self.0, PLACES)
    }
}

impl fmt::Display for Delta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_decimal(f, self.0, DELTA_PLACES)
    }
}

impl FromStr for Epsilon {
    type Err = EpsilonError;
    fn from_str(text: &str) -> Result<Self, EpsilonError> {
        read_decimal(text, PLACES).map(Self).ok_or_else(|| EpsilonError(text.chars().take(40).collect()))
    }
}

impl FromStr for Delta {
    type Err = DeltaError;
    fn from_str(text: &str) -> Result<Self, DeltaError> {
        read_decimal(text, DELTA_PLACES).map(Self).ok_or_else(|| DeltaError(text.chars().take(40).collect()))
    }
}

fn write_decimal(f: &mut fmt::Formatter<'_>, units: u64, places: usize) -> fmt::Result {
    let text = format!("{units:0width$}", width = places + 1);
    let (whole, fraction) = text.split_at(text.len() - places);
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() { f.write_str(whole) } else { write!(f, "{whole}.{fraction}") }
}

/// A decimal with at most so many places, in units of the last.
fn read_decimal(text: &str, places: usize) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > places {
        return None;
    }
    let fraction: u64 = format!("{fraction:0<places$}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(10u64.pow(places as u32))?.checked_add(fraction)
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

impl<'de> Deserialize<'de> for Delta {
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
        for (text, units) in [("0.000000000000000001", 1), ("0.000001", 1_000_000_000_000), ("0", 0)] {
            assert_eq!(text.parse::<Delta>().unwrap(), Delta(units));
            assert_eq!(Delta(units).to_string(), text);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in ["", ".", "1.", ".5", "-1", "1e3", "0.0000000001", "18446744074", " 1"] {
            assert!(bad.parse::<Epsilon>().is_err(), "{bad:?}");
        }
        for bad in ["", "1e-6", "0.0000000000000000001", "19"] {
            assert!(bad.parse::<Delta>().is_err(), "{bad:?}");
        }
    }
}
