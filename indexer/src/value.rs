//! Small value types of events and answers.

use alloy::primitives::{Address, B256, FixedBytes};
use cohort_protocol::ids::Label;
use serde::{Serialize, Serializer};

/// A 32-byte word that should hold a label. JSON: the label's text, or `0x` hex of the word where it is none, so that
/// no contract can make an answer fail. The two cannot be confused: labels are shorter than 32 characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(pub B256);

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match Label::from_word("label", self.0) {
            Ok(label) => write!(f, "{label}"),
            Err(_) => write!(f, "0x{}", hex::encode(self.0)),
        }
    }
}

impl std::str::FromStr for Name {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(digits) = text.strip_prefix("0x").filter(|digits| digits.len() == 64) {
            let mut word = [0u8; 32];
            hex::decode_to_slice(digits, &mut word).map_err(|_| "not 64 hex digits".to_owned())?;
            return Ok(Self(B256::from(word)));
        }
        Label::parse("label", text).map(|label| Self(label.word())).map_err(|e| e.to_string())
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// ISO 3166-1 alpha-2 in ASCII; JSON: two capital letters, or `0x` hex where the bytes are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Jurisdiction(pub FixedBytes<2>);

impl Jurisdiction {
    /// Whether it is two capital letters.
    pub fn is_code(self) -> bool {
        self.0.iter().all(u8::is_ascii_uppercase)
    }
}

impl Serialize for Jurisdiction {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(self.0.as_slice()) {
            Ok(text) if self.is_code() => s.serialize_str(text),
            _ => s.collect_str(&format_args!("0x{}", hex::encode(self.0))),
        }
    }
}

/// Failure probability, unit 1e-18. JSON: decimal integer as a string, since JavaScript loses numbers above 2^53.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Delta(pub u64);

impl Delta {
    /// Difference, zero where it would be negative.
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Serialize for Delta {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&self.0)
    }
}

/// A set of owner indexes (bit i: owner i). JSON: ascending array of indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OwnerSet(pub u128);

impl OwnerSet {
    /// The bit of one index; empty for an index that no set can hold.
    pub fn of(index: u8) -> Self {
        Self(1u128.checked_shl(u32::from(index)).unwrap_or(0))
    }

    /// The indexes, ascending.
    pub fn indexes(self) -> impl Iterator<Item = u8> {
        (0..128u8).filter(move |index| self.contains(*index))
    }

    /// Whether the index is in the set.
    pub fn contains(self, index: u8) -> bool {
        self.0 & Self::of(index).0 != 0
    }
}

impl Serialize for OwnerSet {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(self.indexes())
    }
}

/// A word unless it is zero, which the contracts use for "none".
pub(crate) fn nonzero(word: B256) -> Option<B256> {
    (!word.is_zero()).then_some(word)
}

/// An address unless it is zero, which the contracts use for "none".
pub(crate) fn some_address(address: Address) -> Option<Address> {
    (!address.is_zero()).then_some(address)
}

macro_rules! grades {
    ($($(#[doc = $doc:literal])* $name:ident = $bit:literal, $text:literal;)*) => {
        /// A compliance grade: one bit of `OwnerInfo.grades`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Grade { $($(#[doc = $doc])* $name = $bit,)* }

        impl Grade {
            /// Its bit.
            pub const fn bit(self) -> u16 {
                1 << self as u16
            }
        }

        const GRADE_NAMES: &[&str] = &[$($text,)*];
    };
}

grades! {
    /// Health Insurance Portability and Accountability Act.
    Hipaa = 0, "HIPAA";
    /// General Data Protection Regulation.
    Gdpr = 1, "GDPR";
    /// The United Kingdom's own.
    UkGdpr = 2, "UK-GDPR";
    /// Payment Card Industry standards.
    Pci = 3, "PCI";
    /// SOC 2.
    Soc2 = 4, "SOC2";
    /// Federal Financial Institutions Examination Council.
    Ffiec = 5, "FFIEC";
}

/// Names of the grades in a bit set; unknown bits as `bit-N`.
pub(crate) fn grade_names(grades: u16) -> Vec<String> {
    let named =
        |bit: usize| GRADE_NAMES.get(bit).map_or_else(|| format!("bit-{bit}"), |name| (*name).to_owned());
    (0..16).filter(|bit| grades & (1 << bit) != 0).map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(value: impl Serialize) -> serde_json::Value {
        serde_json::to_value(value).unwrap()
    }

    #[test]
    fn words_are_told_whatever_they_hold() {
        for name in [Label::parse("x", "hospital-A").unwrap().word(), B256::repeat_byte(7), B256::ZERO] {
            let text = told(Name(name));
            assert_eq!(text.as_str().unwrap().parse(), Ok(Name(name)), "{text}");
        }
        assert_eq!(told(Jurisdiction((*b"CH").into())), "CH");
        assert_eq!(told(Jurisdiction([0, 1].into())), "0x0001");
        assert_eq!(told(Jurisdiction((*b"ch").into())), "0x6368");
        assert_eq!(told(OwnerSet(0b1010)), serde_json::json!([1, 3]));
        assert_eq!(told(OwnerSet(u128::MAX)).as_array().map(Vec::len), Some(128));
    }
}
