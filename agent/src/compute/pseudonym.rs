//! Stand-ins for identifiers: the same person at every owner, another one in every run, and no way back.

use std::io::Write as _;

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

    /// Pseudonyms of a column of identifiers as decimals of 38 digits: the first 126 of their 128 bits.
    pub(super) fn of_column(&self, units: &ArrayRef) -> Decimal128Array {
        let decimal = |text: &[u8]| (u128::from_be_bytes(self.of(text)) >> 2).cast_signed();
        match units.data_type() {
            DataType::Int64 => {
                let values = units.as_primitive::<Int64Type>().iter();
                values.map(|value| value.map(|value| decimal(&DecimalText::of(value)))).collect()
            }
            _ => {
                let values = units.as_string::<i32>().iter();
                values.map(|value| value.map(|text| decimal(text.as_bytes()))).collect()
            }
        }
    }
}

/// A number's decimal text without an allocation.
struct DecimalText {
    bytes: [u8; 20],
    length: usize,
}

impl DecimalText {
    fn of(value: i64) -> Self {
        let mut bytes = [0; 20];
        let mut rest = bytes.as_mut_slice();
        // No 64-bit integer has more than 20 characters.
        let _ = write!(rest, "{value}");
        let length = 20 - rest.len();
        Self { bytes, length }
    }
}

impl std::ops::Deref for DecimalText {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray};
    use std::sync::Arc;

    #[test]
    fn numbers_and_their_text_are_the_same_person_and_other_runs_tell_nothing() {
        let key = PseudonymKey::fresh().unwrap();
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![i64::MIN, -1, 0, 42, i64::MAX]));
        let texts: Vec<String> = [i64::MIN, -1, 0, 42, i64::MAX].iter().map(ToString::to_string).collect();
        let texts: ArrayRef = Arc::new(StringArray::from(texts));
        let pseudonyms = key.of_column(&numbers);
        assert_eq!(pseudonyms, key.of_column(&texts));
        assert_ne!(pseudonyms, PseudonymKey::fresh().unwrap().of_column(&numbers));
        assert!(pseudonyms.values().iter().all(|value| (0..10i128.pow(38)).contains(value)));
    }
}
