//! The SPDM 1.1 exchange in a report (DMTF DSP0274): GET_MEASUREMENTS and MEASUREMENTS, strictly.

use super::BLOCKS;
use super::opaque::{Opaque, OpaqueError};

/// SPDM 1.1, GET_MEASUREMENTS, signature requested, all blocks.
const REQUEST: [u8; 4] = [0x11, 0xE0, 0x01, 0xFF];
/// SPDM 1.1, MEASUREMENTS, no index count, slot 0.
const RESPONSE: [u8; 4] = [0x11, 0x60, 0x00, 0x00];
/// Bytes of a block's value: SHA-384.
const VALUE_BYTES: usize = 48;
/// Index, specification, length; value type, length; value.
const BLOCK_BYTES: usize = 4 + 3 + VALUE_BYTES;
/// Bytes from the start up to the length of the opaque data.
const BEFORE_OPAQUE: usize = 4 + 32 + 1 + 4 + 1 + 3 + BLOCKS * BLOCK_BYTES + 32;
/// Bytes of the signature: ECDSA P-384, `r || s`.
const SIGNATURE_BYTES: usize = 96;

/// A report that does not have the form of the specification.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// It ends within a part.
    #[error("the report ends within its {part}")]
    Truncated {
        /// Which part.
        part: &'static str,
    },
    /// Bytes after the signature.
    #[error("{bytes} bytes follow the report's signature")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// A part has another value than the only one that is accepted.
    #[error("the report's {part} is not what GET_MEASUREMENTS of all blocks gives")]
    Value {
        /// Which part.
        part: &'static str,
    },
    /// A measurement block.
    #[error("measurement block {index} is not a SHA-384 value in its place")]
    Block {
        /// Position, from 1.
        index: usize,
    },
    /// The opaque data.
    #[error(transparent)]
    Opaque(#[from] OpaqueError),
}

/// A report taken apart. Nothing in it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report<'a> {
    pub(crate) nonce: [u8; 32],
    /// Values of the blocks 1 to 64.
    pub(crate) blocks: Vec<[u8; VALUE_BYTES]>,
    pub(crate) opaque: Opaque,
    /// What the signature is over.
    pub(crate) signed: &'a [u8],
    pub(crate) signature: &'a [u8],
}

impl<'a> Report<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, ReportError> {
        let mut cursor = Cursor(bytes);
        cursor.expect("request", &REQUEST)?;
        let nonce = cursor.array("request")?;
        cursor.expect("slot", &[0])?;
        cursor.expect("response", &RESPONSE)?;
        cursor.expect("number of blocks", &[u8::try_from(BLOCKS).unwrap_or_default()])?;
        let length = cursor.take("record length", 3)?;
        if length != little_endian_24(BLOCKS * BLOCK_BYTES) {
            return Err(ReportError::Value { part: "record length" });
        }
        let blocks = (1..=BLOCKS).map(|index| block(index, &mut cursor)).collect::<Result<_, _>>()?;
        cursor.take("responder's nonce", 32)?;
        let length = usize::from(cursor.u16("opaque data")?);
        let opaque = Opaque::parse(cursor.take("opaque data", length)?)?;
        let signature = cursor.take("signature", SIGNATURE_BYTES)?;
        if !cursor.0.is_empty() {
            return Err(ReportError::Trailing { bytes: cursor.0.len() });
        }
        let signed = bytes.get(..bytes.len() - SIGNATURE_BYTES).unwrap_or_default();
        Ok(Self { nonce, blocks, opaque, signed, signature })
    }
}

/// How long a report is by the length of its opaque data, if it has one.
pub(super) fn stated_length(bytes: &[u8]) -> Option<usize> {
    let length = bytes.get(BEFORE_OPAQUE..BEFORE_OPAQUE + 2)?.try_into().ok()?;
    Some(BEFORE_OPAQUE + 2 + usize::from(u16::from_le_bytes(length)) + SIGNATURE_BYTES)
}

fn block(index: usize, cursor: &mut Cursor<'_>) -> Result<[u8; VALUE_BYTES], ReportError> {
    let malformed = ReportError::Block { index };
    let number = u8::try_from(index).map_err(|_| malformed.clone())?;
    // DMTF specification, 51 bytes; a digest of mutable firmware, 48 bytes.
    let header = [number, 0x01, 51, 0, 0x01, 48, 0];
    if cursor.take("measurement record", header.len())? != header {
        return Err(malformed);
    }
    cursor.array("measurement record")
}

const fn little_endian_24(value: usize) -> [u8; 3] {
    let [low, middle, high, ..] = value.to_le_bytes();
    [low, middle, high]
}

/// What is left to read.
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn take(&mut self, part: &'static str, bytes: usize) -> Result<&'a [u8], ReportError> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(ReportError::Truncated { part })?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self, part: &'static str) -> Result<[u8; N], ReportError> {
        let taken = self.take(part, N)?;
        taken.try_into().map_err(|_| ReportError::Truncated { part })
    }

    pub(super) fn u16(&mut self, part: &'static str) -> Result<u16, ReportError> {
        self.array(part).map(u16::from_le_bytes)
    }

    fn expect(&mut self, part: &'static str, value: &[u8]) -> Result<(), ReportError> {
        let taken = self.take(part, value.len())?;
        if taken == value { Ok(()) } else { Err(ReportError::Value { part }) }
    }
}
