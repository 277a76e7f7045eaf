//! Stand-ins for identifiers: the same person at every owner, another one in every run, and no way back.

use aes::{
    Aes256, Block,
    cipher::{BlockCipherEncrypt as _, KeyInit as _},
};
use arrow::{
    array::{Array, ArrayRef, AsArray, Decimal128Array},
    datatypes::{DataType, Int64Type},
};
use cohort_protocol::hpke::{self, SecretBytes};

use super::ComputeError;

/// The key of one run's pseudonyms.
pub(super) struct PseudonymKey(SecretBytes);

impl PseudonymKey {
    /// A fresh one from the system's randomness.
    pub(super) fn fresh() -> Result<Self, ComputeError> {
        hpke::random_secret().map(Self).map_err(|_| ComputeError::Noise)
    }

    /// First 16 bytes of BLAKE3 of the identifier's text, keyed.
    pub(super) fn of(&self, text: &[u8]) -> [u8; 16] {
        let hash = blake3::keyed_hash(self.0.expose_secret(), text);
        let mut pseudonym = [0; 16];
        pseudonym.iter_mut().zip(hash.as_bytes()).for_each(|(slot, byte)| *slot = *byte);
        pseudonym
    }

    /// Pseudonyms of a column of identifiers as decimals of 38 digits: the first 126 of 128 bits. All owners' identifiers
    /// are of one type. A number is one block of AES: a permutation, and with 78 million rows much cheaper than a hash.
    pub(super) fn of_column(&self, units: &ArrayRef) -> Decimal128Array {
        match units.data_type() {
            DataType::Int64 => {
                let numbers = units.as_primitive::<Int64Type>();
                let mut blocks: Vec<Block> = numbers.values().iter().map(|number| block(*number)).collect();
                Aes256::new(self.0.expose_secret().into()).encrypt_blocks(&mut blocks);
                let values = blocks.iter().map(|block| decimal((*block).into())).collect();
                Decimal128Array::new(values, numbers.nulls().cloned())
            }
            _ => {
                let texts = units.as_string::<i32>().iter();
                texts.map(|text| text.map(|text| decimal(self.of(text.as_bytes())))).collect()
            }
        }
    }
}

/// A number as the plaintext of its pseudonym: 16 bytes, big endian, with its sign.
fn block(number: i64) -> Block {
    i128::from(number).to_be_bytes().into()
}

fn decimal(pseudonym: [u8; 16]) -> i128 {
    (u128::from_be_bytes(pseudonym) >> 2).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray};
    use std::{collections::BTreeSet, sync::Arc};

    #[test]
    fn a_person_has_one_pseudonym_a_run() {
        let key = PseudonymKey::fresh().unwrap();
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![
            Some(i64::MIN),
            Some(-1),
            None,
            Some(0),
            Some(i64::MAX),
            Some(-1),
        ]));
        let texts: ArrayRef =
            Arc::new(StringArray::from(vec![Some("a"), Some("b"), None, Some(""), Some("c"), Some("b")]));
        for units in [numbers, texts] {
            let pseudonyms = key.of_column(&units);
            assert!(pseudonyms.is_null(2) && pseudonyms.null_count() == 1);
            assert_eq!(pseudonyms.value(1), pseudonyms.value(5));
            let known: BTreeSet<i128> = pseudonyms.iter().flatten().collect();
            assert_eq!(known.len(), 4);
            assert!(known.iter().all(|value| (0..10i128.pow(38)).contains(value)));
            let other = PseudonymKey::fresh().unwrap().of_column(&units);
            assert!(other.iter().flatten().all(|value| !known.contains(&value)));
        }
    }

    /// The expected value is OpenSSL's:
    /// `printf '%032x' 42 | xxd -r -p | openssl enc -aes-256-ecb -nopad -K 000102...1f`.
    #[test]
    fn a_number_s_pseudonym_is_aes_256_of_it() {
        let bytes: [u8; 32] = std::array::from_fn(|index| u8::try_from(index).unwrap());
        let key = PseudonymKey(SecretBytes::new(bytes));
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![42]));
        assert_eq!(
            key.of_column(&numbers).value(0),
            (0xb9eff3fc_486fdc56_b0619cf4_4b66976b_u128 >> 2).cast_signed()
        );
    }
}
