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
    keys::{self, DataKey, DataKeys, SealContext, WRAP_LABEL},
    line::{Line, Ordered},
    tar,
};
use crate::{
    hpke::{self, PublicKey, SecretBytes},
    ids::{ComposeHash, DatasetId, OwnerId},
};

pub(super) const COMMITMENT_BYTES: u64 = 32;

/// Gets the bytes done so far after every chunk, and may stop the work.
pub type Progress<'p> = &'p mut (dyn FnMut(u64) -> ControlFlow<()> + Send);

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
    /// A fresh wrap key for `context`, for a data key that exists already.
    pub(super) fn around(
        data_key: SecretBytes,
        root: &PublicKey,
        context: &SealContext,
    ) -> Result<Self, SealedError> {
        let (enc, wrap_key) =
            hpke::encapsulate(root, &context.info(), WRAP_LABEL).map_err(SealedError::Kem)?;
        Ok(Self { enc, wrap_key, data_key })
    }

    /// Chosen keys, for test vectors: whoever repeats them for two files breaks both.
    pub fn insecure_fixed(enc: Vec<u8>, wrap_key: SecretBytes, data_key: SecretBytes) -> Self {
        Self { enc, wrap_key, data_key }
    }
}

/// Seals `length` bytes of `input` into `output` with bounded memory, on several threads.
///
/// On any error `output` holds an incomplete file that the caller removes. Fails when `input` is longer or shorter
/// than `length`.
pub fn seal(
    input: &mut (impl Read + Send),
    length: u64,
    output: &mut (impl Write + Send),
    params: &SealParams,
    progress: Progress<'_>,
) -> Result<SealedSummary, SealedError> {
    seal_with_key(input, length, output, params, DataKey::fresh()?, progress)
}

/// [`seal`] under a data key whose [`super::Recovery`] the owner keeps.
pub fn seal_with_key(
    input: &mut (impl Read + Send),
    length: u64,
    output: &mut (impl Write + Send),
    params: &SealParams,
    data_key: DataKey,
    progress: Progress<'_>,
) -> Result<SealedSummary, SealedError> {
    let secrets = SealSecrets::around(data_key.into_secret(), &params.root, &params.context()?)?;
    insecure_seal_with(input, length, output, params, &secrets, progress)
}

/// [`seal`] with chosen keys, for test vectors.
pub fn insecure_seal_with(
    input: &mut (impl Read + Send),
    length: u64,
    output: &mut (impl Write + Send),
    params: &SealParams,
    secrets: &SealSecrets,
    progress: Progress<'_>,
) -> Result<SealedSummary, SealedError> {
    let envelope = envelope(params, params.chunk_bytes, length, secrets)?;
    write_archive(output, envelope, |output, chunking| {
        encrypt(input, output, chunking, &secrets.data_key, progress)
    })
}

pub(super) fn envelope(
    params: &SealParams,
    chunk_bytes: u32,
    bytes: u64,
    secrets: &SealSecrets,
) -> Result<Envelope, SealedError> {
    Envelope::wrap(NewEnvelope {
        context: &params.context()?,
        root_key_id: keys::root_key_id(&params.root),
        content: Content { bytes, kind: params.kind, rows: params.rows, schema: params.schema.clone() },
        chunk_bytes,
        enc: &secrets.enc,
        wrap_key: &secrets.wrap_key,
        data_key: &secrets.data_key,
    })
}

/// The first entry, whole.
pub(super) fn write_head(output: &mut impl Write, envelope: &Envelope) -> Result<(), SealedError> {
    let size = envelope.bytes().len() as u64;
    tar::write_header(output, ENVELOPE_ENTRY, size)?;
    output.write_all(envelope.bytes()).map_err(SealedError::Write)?;
    tar::write_padding(output, size)
}

/// All three entries; `write_data` writes the content of the second and returns its hash.
pub(super) fn write_archive<W: Write>(
    output: &mut W,
    envelope: Envelope,
    write_data: impl FnOnce(&mut W, Chunking) -> Result<DataRoot, SealedError>,
) -> Result<SealedSummary, SealedError> {
    let data_bytes = envelope.chunking().sealed_bytes();
    write_head(output, &envelope)?;
    tar::write_header(output, DATA_ENTRY, data_bytes)?;
    let data_root = write_data(output, envelope.chunking())?;
    tar::write_padding(output, data_bytes)?;
    tar::write_header(output, COMMITMENT_ENTRY, COMMITMENT_BYTES)?;
    output.write_all(&data_root.0).map_err(SealedError::Write)?;
    tar::write_padding(output, COMMITMENT_BYTES)?;
    tar::write_end(output)?;
    output.flush().map_err(SealedError::Write)?;
    Ok(summary(envelope, data_root))
}

pub(super) fn summary(envelope: Envelope, data_root: DataRoot) -> SealedSummary {
    let sizes = [envelope.bytes().len() as u64, envelope.chunking().sealed_bytes(), COMMITMENT_BYTES];
    SealedSummary {
        dataset_id: keys::dataset_id(envelope.bytes(), data_root),
        data_root,
        plain_bytes: envelope.content().bytes,
        file_bytes: tar::archive_bytes(sizes),
        envelope,
    }
}

/// Reads, encrypts, hashes and writes every chunk; the input must end with the last.
fn encrypt(
    input: &mut (impl Read + Send),
    output: &mut (impl Write + Send),
    chunking: Chunking,
    data_key: &SecretBytes,
    progress: Progress<'_>,
) -> Result<DataRoot, SealedError> {
    let cipher = ChunkCipher::new(&DataKeys::derive(data_key).chunk_key).ok_or(SealedError::Wrap)?;
    let want = chunking.plain_bytes();
    let (source, tree) = (Ordered::new(0, (input, progress, 0)), Ordered::new(1, blake3::Hasher::new()));
    let sink = Ordered::new(2, output);
    Line::run(chunking.count(), chunking.chunk_bytes() as usize, |line, index, buf| {
        let length = chunking.plain_len(index);
        buf.resize(length + TAG_BYTES, 0);
        line.turn(&source, index, |(input, progress, done)| {
            let read = fill(input, buf.get_mut(..length).unwrap_or_default())?;
            *done += read as u64;
            if read < length {
                return Err(SealedError::Length { what: "the input", have: *done, want });
            }
            if progress(*done).is_break() { Err(SealedError::Cancelled) } else { Ok(()) }
        })?;
        cipher.seal(index, chunking.is_last(index), buf)?;
        line.turn(&tree, index, |tree| {
            tree.update(buf);
            Ok(())
        })?;
        line.turn(&sink, index, |output| output.write_all(buf).map_err(SealedError::Write))
    })?;
    if fill(source.into_inner().0, &mut [0])? != 0 {
        return Err(SealedError::Length { what: "the input", have: want + 1, want });
    }
    Ok(DataRoot(*tree.into_inner().finalize().as_bytes()))
}

/// Reads until `buf` is full or the input ends; returns the bytes read.
pub(super) fn fill(input: &mut impl Read, buf: &mut [u8]) -> Result<usize, SealedError> {
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
