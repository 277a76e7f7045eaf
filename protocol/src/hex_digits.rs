//! Long bytes in JSON as lower-case hex digits without `0x`: `#[serde(with = "cohort_protocol::hex_digits")]`. It is what
//! `hex::serde` writes and reads, in a fraction of the time.

use alloy::primitives::hex;
use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

/// Writes them.
pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex::encode(bytes))
}

/// Reads them, of either case.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    decode(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// Digits of either case, an even number of them and nothing else.
pub fn decode(digits: &str) -> Result<Vec<u8>, hex::FromHexError> {
    match digits.as_bytes() {
        // The decoder would take such a prefix and leave it out.
        [b'0', x @ (b'x' | b'X'), ..] => {
            Err(hex::FromHexError::InvalidHexCharacter { c: char::from(*x), index: 1 })
        }
        _ => hex::decode(digits),
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Fast(#[serde(with = "super")] Vec<u8>);

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Slow(#[serde(with = "::hex::serde")] Vec<u8>);

    #[test]
    fn it_reads_and_writes_what_the_hex_crate_does() {
        for length in 0..100 {
            let bytes: Vec<u8> = (0..length).map(|n: u8| n.wrapping_mul(37)).collect();
            let text = serde_json::to_string(&Fast(bytes.clone())).unwrap();
            assert_eq!(text, serde_json::to_string(&Slow(bytes.clone())).unwrap());
            assert_eq!(serde_json::from_str::<Fast>(&text).unwrap(), Fast(bytes));
        }
        for text in
            ["", "ab", "AB", "aB", "0xab", "0Xab", "0x", "a", "abc", "gg", "a b", " ab", "ab\\n", "ä1", "äb1"]
        {
            let text = format!("\"{text}\"");
            let (fast, slow) = (serde_json::from_str::<Fast>(&text), serde_json::from_str::<Slow>(&text));
            assert_eq!(fast.ok().map(|fast| fast.0), slow.ok().map(|slow| slow.0), "{text}");
        }
    }
}
