//! The sealed dataset: one tar file that only an attested CVM with the approved recipe can open.
//!
//! Specification: `docs/spec/sealed-dataset.md`. Three entries: `envelope.json` (public facts and the wrapped data
//! key), `data` (AES-256-GCM chunks) and `commitment` (BLAKE3 of `data`). Writers and readers stream with bounded
//! memory. Whether a key may be had at all is decided by the KMS and the chain, not here.

mod chunks;
mod envelope;
mod error;
mod keys;
mod line;
mod open;
mod random;
mod reseal;
mod seal;
mod spool;
mod tar;

pub use chunks::{CHUNK_BYTES_DEFAULT, CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, Chunking, PLAINTEXT_BYTES_MAX};
pub use envelope::{
    COLUMN_TYPE_BYTES_MAX, Column, Content, ContentKind, ENVELOPE_BYTES_MAX, Envelope, schema_hash,
};
pub use error::SealedError;
pub use keys::{
    DataKey, DataRoot, FORMAT, SealContext, WRAP_LABEL, dataset_id, root_key_id, wrap_key_from_root,
};
pub use open::{Checked, SealedReader, check, open, open_to, read_header};
pub use random::Plaintext;
pub use reseal::{RECOVERY_BYTES_MAX, Recovery, ResealPart, ResealTarget, Resealed, reseal};
pub use seal::{Progress, SealParams, SealSecrets, SealedSummary, insecure_seal_with, seal, seal_with_key};
pub use spool::{Spooled, spool};

/// Name of the first entry.
pub const ENVELOPE_ENTRY: &str = "envelope.json";
/// Name of the second entry.
pub const DATA_ENTRY: &str = "data";
/// Name of the third entry.
pub const COMMITMENT_ENTRY: &str = "commitment";
