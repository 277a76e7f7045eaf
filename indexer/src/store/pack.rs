//! How a row keeps a log's topics and data: an RLP list of the topics, of the data's whole 32-byte words, and of what is
//! left after them. Words are RLP integers, without the zeros in front, of which ABI-encoded numbers mostly consist.

use alloy::primitives::{B256, U256};
use alloy_rlp::{Decodable as _, RlpDecodable, RlpEncodable};

/// Bytes of a word of the ABI.
const WORD: usize = 32;

#[derive(RlpEncodable, RlpDecodable)]
struct Packed {
    topics: Vec<U256>,
    words: Vec<U256>,
    rest: alloy::primitives::Bytes,
}

pub(super) fn pack(topics: &[B256], data: &[u8]) -> Vec<u8> {
    let (words, rest) = data.as_chunks::<WORD>();
    let packed = Packed {
        topics: topics.iter().map(|topic| U256::from_be_bytes(topic.0)).collect(),
        words: words.iter().map(|word| U256::from_be_bytes(*word)).collect(),
        rest: rest.to_vec().into(),
    };
    alloy_rlp::encode(packed)
}

/// Topics and data, or what is wrong with the row.
pub(super) fn unpack(mut packed: &[u8]) -> Result<(Vec<B256>, Vec<u8>), String> {
    let Packed { topics, words, rest } = Packed::decode(&mut packed).map_err(|error| error.to_string())?;
    if !packed.is_empty() {
        return Err("bytes after the log".to_owned());
    }
    let mut data = Vec::with_capacity(words.len() * WORD + rest.len());
    words.iter().for_each(|word| data.extend_from_slice(&word.to_be_bytes::<WORD>()));
    data.extend_from_slice(&rest);
    Ok((topics.into_iter().map(B256::from).collect(), data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_come_back_as_they_were() {
        let topics = [B256::repeat_byte(7), B256::ZERO, B256::with_last_byte(1)];
        let mut data = vec![0; 96];
        (data[31], data[64]) = (0x80, 9);
        for length in [0, 1, 31, 32, 33, 64, 95, 96] {
            for topics in [&topics[..], &topics[1..2], &[]] {
                let packed = pack(topics, &data[..length]);
                assert_eq!(unpack(&packed), Ok((topics.to_vec(), data[..length].to_vec())));
            }
        }
        assert!(pack(&topics, &data).len() < 110, "zeros cost nearly nothing");
    }

    #[test]
    fn what_was_not_packed_is_refused() {
        let packed = pack(&[B256::ZERO], &[1; 40]);
        assert!(unpack(&packed[..packed.len() - 1]).is_err());
        assert!(unpack(&[&packed[..], &[0]].concat()).is_err());
        assert!(unpack(&[]).is_err());
    }
}
