//! Canonical JSON (RFC 8785) and its hash, and JSON without duplicate keys: the one implementation of each.

mod strict;

use alloy::primitives::B256;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
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

/// Where two documents first say something else, as a JSON pointer; `None` if nowhere. 1 and 1.0 are the same number, as
/// in RFC 8785; from 2^53 on, where two whole numbers may have one canonical form, none is the same as any.
pub fn first_difference(one: &Value, other: &Value) -> Option<String> {
    let below = |key: &str, found: String| format!("/{}{found}", key.replace('~', "~0").replace('/', "~1"));
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let keys = one.keys().chain(other.keys().filter(|key| !one.contains_key(*key)));
            keys.into_iter().find_map(|key| match (one.get(key), other.get(key)) {
                (Some(one), Some(other)) => first_difference(one, other).map(|found| below(key, found)),
                _ => Some(below(key, String::new())),
            })
        }
        (Value::Array(one), Value::Array(other)) => {
            let length = one.len().min(other.len());
            let pairs = one.iter().zip(other).enumerate();
            let inside = |(at, (one, other)): (usize, (&Value, &Value))| {
                first_difference(one, other).map(|found| below(&at.to_string(), found))
            };
            let longer = || (one.len() != other.len()).then(|| below(&length.to_string(), String::new()));
            pairs.into_iter().find_map(inside).or_else(longer)
        }
        (Value::Number(one), Value::Number(other)) => {
            let same = one.as_f64() == other.as_f64();
            let exact =
                one.is_f64() || one.as_f64().is_some_and(|whole| whole.abs() < 9_007_199_254_740_992.0);
            (!same || !exact).then(String::new)
        }
        _ => (one != other).then(String::new),
    }
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
    fn the_first_difference_is_told_by_its_place() {
        let differ = |one: &str, other: &str| {
            let parse = |text: &str| parse_value(text.as_bytes()).unwrap();
            first_difference(&parse(one), &parse(other))
        };
        assert_eq!(differ(r#"{"a":[1,{"b":2}]}"#, r#"{"a":[1.0,{"b":2}]}"#), None);
        assert_eq!(differ(r#"{"a":[1,{"b":2}]}"#, r#"{"a":[1,{"b":3}]}"#).unwrap(), "/a/1/b");
        assert_eq!(differ(r#"{"a/b":null}"#, "{}").unwrap(), "/a~1b");
        assert_eq!(differ("[1]", "[1,2]").unwrap(), "/1");
        assert_eq!(differ(r#""0xAB""#, r#""0xab""#).unwrap(), "");
        // One canonical form, two numbers: neither is taken.
        assert_eq!(canonical(&9007199254740993u64).unwrap(), canonical(&9007199254740992u64).unwrap());
        assert_eq!(differ("9007199254740993", "9007199254740993").unwrap(), "");
        assert_eq!(differ("1e300", "1e300"), None);
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
