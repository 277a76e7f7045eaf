//! Writing a sealed dataset.

use std::{
    io::{ErrorKind, Read, Write},
    ops::ControlFlow,
};

use alloy::primitives::Address;

use super::{
    COMMITMENT_ENTRY, DATA_ENTRY, DataRoot, ENVELOPE_ENTRY, SealedError,
    chunks::{ChunkCipher, Chunking, TAG_BYTES},
    envelope::{Column, Content, ContentKind, Envelope, NewEnvelope, schema_hash},
    keys::{self, DataKeys, SealContext, WRAP_LABEL},
    pipe::{Buffer, pipe},
    tar,
};
use crate::{
    hpke::{self, PublicKey, SecretBytes},
    ids::{ComposeHash, DatasetId, OwnerId},
};

const COMMITMENT_BYTES: u64 = 32;

/// For whom and for what a dataset is sealed, and what its envelope tells.
#[derive(Debug, Clone)]
pub struct SealParams {
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
    /// What the plaintext is.
    pub kind: ContentKind,
    /// Number of records; `None`: withheld or unknown.
    pub rows: Option<u64>,
    /// Columns; `None`: withheld or unknown.
    pub schema: Option<Vec<Column>>,
    /// Plaintext bytes a chunk: a power of two from 4 KiB to 16 MiB.
    pub chunk_bytes: u32,
}

impl SealParams {
    /// The context that the wrap key is bound to.
    pub fn context(&self) -> Result<SealContext, SealedError> {
        Ok(SealContext {
            chain_id: self.chain_id,
            app: self.app,
            compose_hash: self.compose_hash,
            owner: self.owner.clone(),
            root_epoch: self.root_epoch,
            schema_hash: schema_hash(self.schema.as_deref())?,
        })
    }
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSummary {
    /// Commitment to envelope and ciphertext: goes on chain.
    pub dataset_id: DatasetId,
    /// BLAKE3 of the `data` entry.
    pub data_root: DataRoot,
    /// Plaintext bytes read.
    pub plain_bytes: u64,
    /// Size of the sealed file in bytes.
    pub file_bytes: u64,
    /// The envelope as written.
    pub envelope: Envelope,
}

/// The random part of a sealed file.
#[derive(Debug)]
pub struct SealSecrets {
    enc: Vec<u8>,
    wrap_key: SecretBytes,
    data_key: SecretBytes,
}

impl SealSecrets {
    /// Fresh keys from the operating system.
    fn fresh(root: &PublicKey, context: &SealContext) -> Result<Self, SealedError> {
        let (enc, wrap_key) =
            hpke::encapsulate(root, &context.info(), WRAP_LABEL).map_err(SealedError::Kem)?;
        let data_key = hpke::random_secret().map_err(SealedError::Random)?;
        Ok(Self { enc, wrap_key, data_key })
    }

    /// Chosen keys, for test vectors: whoever repeats them for two files breaks both.
    pub fn insecure_fixed(enc: Vec<u8>, wrap_key: SecretBytes, data_key: SecretBytes) -> Self {
        Self { enc, wrap_key, data_key }
    }
}

/// Seals `length` bytes of `input` into `output` with bounded memory, on two threads.
///
/// `progress` gets the plaintext bytes done so far after every chunk and may stop the work. On any error `output`
/// holds an incomplete file that the caller removes. Fails when `input` is longer or shorter than `length`.
pub fn seal(
    input: &mut impl Read,
    length: u64,
    output: &mut (impl Write + Send),
    params: &SealParams,
    progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<SealedSummary, SealedError> {
    let secrets = SealSecrets::fresh(&params.root, &params.context()?)?;
    insecure_seal_with(input, length, output, params, &secrets, progress)
}

/// [`seal`] with chosen keys, for test vectors.
pub fn insecure_seal_with(
    input: &mut impl Read,
    length: u64,
    output: &mut (impl Write + Send),
    params: &SealParams,
    secrets: &SealSecrets,
    progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<SealedSummary, SealedError> {
    let envelope = Envelope::wrap(NewEnvelope {
        context: &params.context()?,
        root_key_id: keys::root_key_id(&params.root),
        content: Content {
            bytes: length,
            kind: params.kind,
            rows: params.rows,
            schema: params.schema.clone(),
        },
        chunk_bytes: params.chunk_bytes,
        enc: &secrets.enc,
        wrap_key: &secrets.wrap_key,
        data_key: &secrets.data_key,
    })?;
    let envelope_bytes = envelope.bytes().len() as u64;
    let data_bytes = envelope.chunking().sealed_bytes();
    tar::write_header(output, ENVELOPE_ENTRY, envelope_bytes)?;
    output.write_all(envelope.bytes()).map_err(SealedError::Write)?;
    tar::write_padding(output, envelope_bytes)?;
    tar::write_header(output, DATA_ENTRY, data_bytes)?;
    let data_root = write_chunks(input, output, envelope.chunking(), &secrets.data_key, progress)?;
    tar::write_padding(output, data_bytes)?;
    tar::write_header(output, COMMITMENT_ENTRY, COMMITMENT_BYTES)?;
    output.write_all(&data_root.0).map_err(SealedError::Write)?;
    tar::write_padding(output, COMMITMENT_BYTES)?;
    tar::write_end(output)?;
    output.flush().map_err(SealedError::Write)?;
    Ok(SealedSummary {
        dataset_id: keys::dataset_id(envelope.bytes(), data_root),
        data_root,
        plain_bytes: length,
        file_bytes: tar::archive_bytes([envelope_bytes, data_bytes, COMMITMENT_BYTES]),
        envelope,
    })
}

/// Reads, encrypts and hashes on this thread, writes on another.
fn write_chunks(
    input: &mut impl Read,
    output: &mut (impl Write + Send),
    chunking: Chunking,
    data_key: &SecretBytes,
    progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<DataRoot, SealedError> {
    let cipher = ChunkCipher::new(&DataKeys::derive(data_key).chunk_key).ok_or(SealedError::Wrap)?;
    let want = chunking.plain_bytes();
    let mut hasher = blake3::Hasher::new();
    let mut done = 0;
    let encrypt = |index: u64, buf: &mut Buffer| {
        let length = chunking.plain_len(index);
        buf.resize(length + TAG_BYTES, 0);
        let read = fill(input, buf.get_mut(..length).unwrap_or_default())?;
        done += read as u64;
        if read < length {
            return Err(SealedError::Length { what: "the input", have: done, want });
        }
        cipher.seal(index, chunking.is_last(index), buf)?;
        hasher.update(buf);
        if progress(done).is_break() { Err(SealedError::Cancelled) } else { Ok(()) }
    };
    let write = |_index: u64, buf: &mut Buffer| output.write_all(buf).map_err(SealedError::Write);
    pipe(chunking.count(), chunking.chunk_bytes() as usize, encrypt, write)?;
    if fill(input, &mut [0])? != 0 {
        return Err(SealedError::Length { what: "the input", have: want + 1, want });
    }
    Ok(DataRoot(*hasher.finalize().as_bytes()))
}

/// Reads until `buf` is full or the input ends; returns the bytes read.
fn fill(input: &mut impl Read, buf: &mut [u8]) -> Result<usize, SealedError> {
    let mut filled = 0;
    while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(SealedError::Read(error)),
        }
    }
    Ok(filled)
}
