//! Canonical JSON (RFC 8785) and its hash, and JSON without duplicate keys: the one implementation of each.

mod strict;

use alloy::primitives::B256;
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

/// A value that has no canonical JSON form.
#[derive(Debug, thiserror::Error)]
#[error("no canonical JSON (RFC 8785) form")]
pub struct CanonicalError(#[source] serde_json::Error);

/// The RFC 8785 bytes of a value. Fails for non-finite numbers and for map keys that are not strings.
pub fn canonical<T: Serialize>(value: &T) -> Result<Vec<u8>, CanonicalError> {
    serde_json_canonicalizer::to_vec(value).map_err(CanonicalError)
}

/// Parses JSON in which no object has a key twice: two readers of the same bytes must see the same document.
pub fn parse_value(bytes: &[u8]) -> Result<serde_json::Value, serde_json::Error> {
    serde_json::from_slice(bytes).map(|strict::Strict(value)| value)
}

/// [`parse_value`], then into a type.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_value(parse_value(bytes)?)
}

/// SHA-256 of bytes.
pub fn sha256(bytes: &[u8]) -> B256 {
    B256::from(<[u8; 32]>::from(Sha256::digest(bytes)))
}

/// SHA-256 of a value's RFC 8785 bytes.
pub fn canonical_hash<T: Serialize>(value: &T) -> Result<B256, CanonicalError> {
    Ok(sha256(&canonical(value)?))
}

/// Appends `part` to `out` with its length before it (u32, big-endian): unambiguous concatenation.
///
/// # Panics
/// If `part` is longer than 4 GiB; callers pass short fields.
pub fn push_prefixed(out: &mut Vec<u8>, part: &[u8]) {
    let len = u32::try_from(part.len()).expect("fields are shorter than 4 GiB");
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(part);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_and_spacing_is_gone() {
        let value: serde_json::Value = serde_json::from_str("{ \"b\": 1, \"a\": [1.0, 2e1] }").unwrap();
        assert_eq!(canonical(&value).unwrap(), br#"{"a":[1,20],"b":1}"#);
    }

    #[test]
    fn a_key_that_stands_twice_is_refused_at_any_depth() {
        assert!(parse_value(br#"{"a":1,"b":{"a":2}}"#).is_ok());
        let error = parse::<serde_json::Value>(br#"{"payload":[{"a":1,"a":2}]}"#).unwrap_err();
        assert!(error.to_string().contains("stands twice"), "{error}");
    }

    #[test]
    fn prefixed_parts_cannot_be_shifted() {
        let join = |parts: &[&[u8]]| {
            let mut out = Vec::new();
            parts.iter().for_each(|part| push_prefixed(&mut out, part));
            out
        };
        assert_ne!(join(&[b"ab", b"c"]), join(&[b"a", b"bc"]));
    }
}
