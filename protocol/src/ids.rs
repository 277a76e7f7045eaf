//! Identifiers, each a type of its own so that two of them cannot be swapped.
//!
//! In text and JSON a 32-byte identifier is `0x` and 64 lower-case hex digits; labels are short ASCII names.

use std::{fmt, str::FromStr};

use alloy::primitives::B256;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Text that is not the identifier it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not `0x` and 64 hex digits.
    #[error("{kind} must be 0x and 64 hex digits, got {text:?}")]
    NotHex32 {
        /// Which identifier.
        kind: &'static str,
        /// What was given, cut to 80 characters.
        text: String,
    },
    /// Not a short label.
    #[error("{kind} must be 1 to 31 characters of A-Z a-z 0-9 . _ - (got {text:?})")]
    NotLabel {
        /// Which label.
        kind: &'static str,
        /// What was given, cut to 80 characters.
        text: String,
    },
    /// On-chain bytes that do not hold a left-aligned, zero-padded label.
    #[error("{kind} on chain is not a label: {bytes}")]
    NotLabelBytes {
        /// Which label.
        kind: &'static str,
        /// The word.
        bytes: B256,
    },
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

macro_rules! hash_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub B256);

        impl $name {
            /// From exactly 32 bytes.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                <[u8; 32]>::try_from(bytes).ok().map(|bytes| Self(B256::from(bytes)))
            }

            /// The raw 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "0x{}", hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let bad = || IdError::NotHex32 { kind: $kind, text: cut(text) };
                let digits = text.strip_prefix("0x").ok_or_else(bad)?;
                let mut bytes = [0u8; 32];
                hex::decode_to_slice(digits, &mut bytes).map_err(|_| bad())?;
                Ok(Self(B256::from(bytes)))
            }
        }

        impl From<B256> for $name {
            fn from(word: B256) -> Self {
                Self(word)
            }
        }

        impl From<$name> for B256 {
            fn from(id: $name) -> B256 {
                id.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

hash_id!(
    /// SHA-256 of the exact bytes of an `app-compose.json`, as dstack measures it.
    ComposeHash,
    "compose hash"
);
hash_id!(
    /// SHA-256 of the RFC 8785 form of the `cohort` section of an app-compose file.
    RecipeHash,
    "recipe hash"
);
hash_id!(
    /// SHA-256 of the RFC 8785 form of a recipe's output schema.
    OutputSchemaHash,
    "output schema hash"
);
hash_id!(
    /// EIP-712 struct hash of a proposal's terms.
    ProposalId,
    "proposal id"
);
hash_id!(
    /// EIP-712 struct hash of a run request.
    RunId,
    "run id"
);
hash_id!(
    /// Commitment to a sealed dataset's envelope and ciphertext.
    DatasetId,
    "dataset id"
);

/// A short ASCII name that fits one EVM word: left-aligned, zero-padded. Owner ids, regions, kinds.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label(String);

impl Label {
    /// Parses a label; `kind` names it in errors.
    pub fn parse(kind: &'static str, text: &str) -> Result<Self, IdError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if text.is_empty() || text.len() > 31 || !text.chars().all(allowed) {
            return Err(IdError::NotLabel { kind, text: cut(text) });
        }
        Ok(Self(text.to_owned()))
    }

    /// Reads a label from its EVM word; anything after the first zero byte must be zero.
    pub fn from_word(kind: &'static str, word: B256) -> Result<Self, IdError> {
        let bad = || IdError::NotLabelBytes { kind, bytes: word };
        let end = word.iter().position(|b| *b == 0).ok_or_else(bad)?;
        let (name, padding) = word.split_at(end);
        if padding.iter().any(|b| *b != 0) {
            return Err(bad());
        }
        let text = std::str::from_utf8(name).map_err(|_| bad())?;
        Self::parse(kind, text).map_err(|_| bad())
    }

    /// The EVM word: ASCII bytes left-aligned, zero-padded.
    pub fn word(&self) -> B256 {
        let mut word = [0u8; 32];
        for (slot, byte) in word.iter_mut().zip(self.0.bytes()) {
            *slot = byte;
        }
        B256::from(word)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for Label {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::parse("label", text)
    }
}

impl Serialize for Label {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

/// Stable institution id of an owner, e.g. `hospital-A`; its EVM word is `ownerId` on chain.
pub type OwnerId = Label;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_fits_one_word_and_reads_back() {
        let id: OwnerId = "hospital-A".parse().unwrap();
        assert_eq!(&id.word()[..10], b"hospital-A");
        assert_eq!(OwnerId::from_word("owner id", id.word()).unwrap(), id);
    }

    #[test]
    fn label_refuses_what_is_not_a_short_ascii_name() {
        for bad in ["", "hospital A", "hôpital", &"x".repeat(32)] {
            assert!(bad.parse::<Label>().is_err(), "{bad:?}");
        }
        let mut word = "a".parse::<Label>().unwrap().word();
        word[5] = b'x'; // a second name behind the padding
        assert!(Label::from_word("label", word).is_err());
        assert!(Label::from_word("label", B256::repeat_byte(b'x')).is_err());
    }

    #[test]
    fn hash_ids_take_exactly_64_hex_digits() {
        let text = format!("0x{}", "ab".repeat(32));
        assert_eq!(text.parse::<RunId>().unwrap().to_string(), text);
        for bad in [&text[2..], &text[..64], "0x", "zz"] {
            assert!(bad.parse::<RunId>().is_err(), "{bad:?}");
        }
    }
}
