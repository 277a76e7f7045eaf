//! A new envelope for data that is sealed already, by the owner's recovery record.

use std::{fmt, io::Read, io::Write};

use alloy::primitives::{Address, B256};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::{
    Envelope, SealParams, SealedError, SealedSummary,
    chunks::ChunkCipher,
    keys::{DataKey, DataKeys},
    open::{finish, read_data_header, read_header},
    seal::{self, Progress, SealSecrets},
    spool::copy_chunks,
};
use crate::{
    hpke::{PublicKey, SecretBytes},
    ids::{ComposeHash, OwnerId},
};

/// Largest recovery record in bytes.
pub const RECOVERY_BYTES_MAX: usize = 4096;

/// The data key of one sealed file as its owner keeps it: whoever has it and the file has the plaintext.
///
/// It cannot seal anything else: [`reseal`] is its one use.
pub struct Recovery {
    data_key: SecretBytes,
    key_commitment: B256,
}

#[derive(Serialize, Deserialize)]
enum RecoveryFormat {
    #[serde(rename = "cohort-recovery/1")]
    V1,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    data_key: String,
    format: RecoveryFormat,
    key_commitment: String,
}

impl Drop for Record {
    fn drop(&mut self) {
        self.data_key.zeroize();
    }
}

impl Recovery {
    /// Of the key that a file is about to be sealed with.
    pub fn of(data_key: &DataKey) -> Self {
        let key_commitment = DataKeys::derive(data_key.secret()).commitment;
        Self { data_key: data_key.secret().clone(), key_commitment }
    }

    /// The record: one JSON object; a secret.
    pub fn to_json(&self) -> Result<Zeroizing<Vec<u8>>, SealedError> {
        let mut hex = Zeroizing::new([0u8; 64]);
        hex::encode_to_slice(self.data_key.expose_secret(), hex.as_mut())
            .map_err(|_| SealedError::Recovery("its key is not 32 bytes"))?;
        let mut data_key = String::with_capacity(66);
        data_key.push_str("0x");
        hex.iter().for_each(|digit| data_key.push(char::from(*digit)));
        let key_commitment = self.key_commitment.to_string();
        let record = Record { data_key, format: RecoveryFormat::V1, key_commitment };
        let mut json = Zeroizing::new(Vec::with_capacity(RECOVERY_BYTES_MAX));
        serde_json::to_writer(&mut *json, &record)
            .map_err(|_| SealedError::Recovery("it cannot be written as JSON"))?;
        Ok(json)
    }

    /// Reads a record; it must be consistent in itself.
    pub fn parse(bytes: &[u8]) -> Result<Self, SealedError> {
        if bytes.len() > RECOVERY_BYTES_MAX {
            return Err(SealedError::Recovery("it is larger than 4 KiB"));
        }
        // The parser would also take the members' values alone, in an array. Its own words could quote the key.
        let an_object = bytes.trim_ascii_start().starts_with(b"{");
        let record: Record = serde_json::from_slice(bytes)
            .ok()
            .filter(|_| an_object)
            .ok_or(SealedError::Recovery("it is not a record of cohort-recovery/1"))?;
        let (Some(key), Some(commitment)) = (unhex(&record.data_key), unhex(&record.key_commitment)) else {
            return Err(SealedError::Recovery("its values are not 0x and 64 hex digits in lower case"));
        };
        let (data_key, key_commitment) = (SecretBytes::new(*key), B256::from(*commitment));
        if DataKeys::derive(&data_key).commitment != key_commitment {
            return Err(SealedError::Recovery("its key does not match its own commitment"));
        }
        Ok(Self { data_key, key_commitment })
    }
}

/// The one form that 32 bytes have in this format.
fn unhex(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let digits = text.strip_prefix("0x").filter(|digits| !digits.bytes().any(|b| b.is_ascii_uppercase()))?;
    let mut bytes = Zeroizing::new([0u8; 32]);
    hex::decode_to_slice(digits, bytes.as_mut()).ok().map(|()| bytes)
}

impl fmt::Debug for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recovery({})", self.key_commitment)
    }
}

/// For whom and for what the data is sealed from now on.
#[derive(Debug, Clone)]
pub struct ResealTarget {
    /// EIP-155 chain id, at most 2^53 - 1.
    pub chain_id: u64,
    /// The consortium's `DstackApp`.
    pub app: Address,
    /// The recipe that may read the data.
    pub compose_hash: ComposeHash,
    /// The data's owner.
    pub owner: OwnerId,
    /// Epoch of `root`.
    pub root_epoch: u32,
    /// The KMS root's sealing key, authenticated by the caller.
    pub root: PublicKey,
}

/// How much of the new file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResealPart {
    /// All of it.
    Whole,
    /// What stands before the `data` entry: the old file's bytes from there on complete it.
    Head,
}

/// What was written, and where in the old file the part begins that stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resealed {
    /// The new file.
    pub summary: SealedSummary,
    /// Offset of the `data` entry's header in the old file.
    pub old_data_offset: u64,
}

/// Wraps the data key of a sealed file anew, under a fresh encapsulation for `target`; the ciphertext stays.
///
/// The whole old file is checked, each chunk included, before the last byte is written; on any error the caller
/// removes the output.
pub fn reseal(
    input: &mut (impl Read + Send),
    recovery: &Recovery,
    target: &ResealTarget,
    output: &mut (impl Write + Send),
    part: ResealPart,
    progress: Progress<'_>,
) -> Result<Resealed, SealedError> {
    let old = read_header(input)?;
    let keys = DataKeys::derive(&recovery.data_key);
    if old.key_commitment() != keys.commitment {
        return Err(SealedError::Recovery("it belongs to another dataset"));
    }
    let cipher = ChunkCipher::new(&keys.chunk_key).ok_or(SealedError::Wrap)?;
    let params = params(&old, target);
    let secrets = SealSecrets::around(recovery.data_key.clone(), &target.root, &params.context()?)?;
    let new = seal::envelope(&params, params.chunk_bytes, old.content().bytes, &secrets)?;
    let size = read_data_header(input, &old)?;
    let old_data_offset = old.entry_bytes();
    let mut check = |output: &mut Output<'_, _>, chunking| {
        let root = copy_chunks(input, output, chunking, Some(&cipher), progress)?;
        finish(input, old.clone(), size, root)?;
        Ok(root)
    };
    let summary = match part {
        ResealPart::Whole => seal::write_archive(&mut Output::To(output), new, check)?,
        ResealPart::Head => {
            let root = check(&mut Output::Nowhere, new.chunking())?;
            seal::write_head(output, &new)?;
            output.flush().map_err(SealedError::Write)?;
            seal::summary(new, root)
        }
    };
    Ok(Resealed { summary, old_data_offset })
}

/// Where the chunks go.
enum Output<'o, W> {
    To(&'o mut W),
    Nowhere,
}

impl<W: Write> Write for Output<'_, W> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::To(output) => output.write(buf),
            Self::Nowhere => Ok(buf.len()),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::To(output) => output.flush(),
            Self::Nowhere => Ok(()),
        }
    }
}

fn params(old: &Envelope, target: &ResealTarget) -> SealParams {
    let content = old.content();
    SealParams {
        chain_id: target.chain_id,
        app: target.app,
        compose_hash: target.compose_hash,
        owner: target.owner.clone(),
        root_epoch: target.root_epoch,
        root: target.root.clone(),
        kind: content.kind,
        rows: content.rows,
        schema: content.schema.clone(),
        chunk_bytes: old.chunking().chunk_bytes(),
    }
}
