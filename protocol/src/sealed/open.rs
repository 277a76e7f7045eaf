//! Reading a sealed dataset: its header, its commitment without any key, its content with the wrap key.

use std::io::{Read, Seek, Write};

use zeroize::Zeroizing;

use super::{
    COMMITMENT_ENTRY, DATA_ENTRY, DataRoot, ENVELOPE_ENTRY, SealedError,
    chunks::{ChunkCipher, Chunking, TAG_BYTES},
    envelope::{ENVELOPE_BYTES_MAX, Envelope},
    keys,
    line::{Line, Ordered},
    random::Chunks,
    tar,
};
use crate::{hpke::SecretBytes, ids::DatasetId};

/// Bytes hashed at a time where no key is at hand.
const HASH_BYTES: u64 = 1 << 20;

/// A file whose form and commitment hold. That it opens, and for whom, only the wrap key shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The envelope.
    pub envelope: Envelope,
    /// BLAKE3 of the `data` entry.
    pub data_root: DataRoot,
    /// Commitment to both; compare it with the chain's.
    pub dataset_id: DatasetId,
    /// Size of the whole file in bytes.
    pub file_bytes: u64,
}

/// Reads and parses `envelope.json`; leaves the reader at the header of `data`.
pub fn read_header(reader: &mut impl Read) -> Result<Envelope, SealedError> {
    let size = tar::read_header(reader, ENVELOPE_ENTRY)?;
    if size > ENVELOPE_BYTES_MAX {
        return Err(SealedError::Tar { entry: ENVELOPE_ENTRY, problem: "is larger than 1 MiB" });
    }
    let mut bytes = vec![0; size as usize];
    tar::read_exact(reader, &mut bytes, ENVELOPE_ENTRY)?;
    tar::read_padding(reader, size, ENVELOPE_ENTRY)?;
    Envelope::parse(&bytes)
}

/// Checks everything that needs no key: entries, envelope, lengths, commitment and end.
pub fn check(reader: &mut (impl Read + Send)) -> Result<Checked, SealedError> {
    let envelope = read_header(reader)?;
    let size = read_data_header(reader, &envelope)?;
    let (source, tree) = (Ordered::new(0, &mut *reader), Ordered::new(1, blake3::Hasher::new()));
    Line::run(size.div_ceil(HASH_BYTES), HASH_BYTES as usize, |line, index, buf| {
        buf.resize(size.saturating_sub(index * HASH_BYTES).min(HASH_BYTES) as usize, 0);
        line.turn(&source, index, |reader| tar::read_exact(reader, buf, DATA_ENTRY))?;
        line.turn(&tree, index, |tree| {
            tree.update(buf);
            Ok(())
        })
    })?;
    finish(reader, envelope, size, DataRoot(*tree.into_inner().finalize().as_bytes()))
}

/// Opens a whole file into memory that is wiped on drop; at most `max_bytes` of plaintext.
///
/// One pass: entries, envelope, data key, every chunk, commitment, and nothing after the end. The caller compares
/// [`Checked::dataset_id`] with the one registered on chain.
pub fn open(
    reader: &mut (impl Read + Send),
    wrap_key: &SecretBytes,
    max_bytes: u64,
) -> Result<(Zeroizing<Vec<u8>>, Checked), SealedError> {
    let envelope = read_header(reader)?;
    let bytes = envelope.content().bytes;
    let too_large = || SealedError::TooLarge { bytes, limit: max_bytes };
    let capacity = usize::try_from(bytes).ok().filter(|_| bytes <= max_bytes).ok_or_else(too_large)?;
    // The whole size at once: growing would leave copies behind that nobody wipes.
    let mut plain = Zeroizing::new(Vec::new());
    plain.try_reserve_exact(capacity).map_err(|_| too_large())?;
    let checked = open_chunks(reader, envelope, wrap_key, &mut |chunk| {
        plain.extend_from_slice(chunk);
        Ok(())
    })?;
    Ok((plain, checked))
}

/// Opens a file of any size into `output`, chunk by chunk.
///
/// What was written is authentic as far as it goes; only `Ok` says that it is the whole and that the commitment
/// holds, so on an error the caller discards the output.
pub fn open_to(
    reader: &mut (impl Read + Send),
    wrap_key: &SecretBytes,
    output: &mut (impl Write + Send),
) -> Result<Checked, SealedError> {
    let envelope = read_header(reader)?;
    let checked = open_chunks(reader, envelope, wrap_key, &mut |chunk| output.write_all(chunk))?;
    output.flush().map_err(SealedError::Write)?;
    Ok(checked)
}

/// Reads, hashes, decrypts and emits every chunk.
fn open_chunks(
    reader: &mut (impl Read + Send),
    envelope: Envelope,
    wrap_key: &SecretBytes,
    emit: &mut (dyn FnMut(&[u8]) -> std::io::Result<()> + Send),
) -> Result<Checked, SealedError> {
    let size = read_data_header(reader, &envelope)?;
    let chunking = envelope.chunking();
    let cipher = ChunkCipher::new(&envelope.unwrap(wrap_key)?.chunk_key).ok_or(SealedError::Wrap)?;
    let (source, tree) = (Ordered::new(0, &mut *reader), Ordered::new(1, blake3::Hasher::new()));
    let sink = Ordered::new(2, emit);
    Line::run(chunking.count(), chunking.chunk_bytes() as usize, |line, index, buf| {
        buf.resize(chunking.plain_len(index) + TAG_BYTES, 0);
        line.turn(&source, index, |reader| tar::read_exact(reader, buf, DATA_ENTRY))?;
        line.turn(&tree, index, |tree| {
            tree.update(buf);
            Ok(())
        })?;
        let plain = cipher.open(index, chunking.is_last(index), buf)?;
        line.turn(&sink, index, |emit| emit(plain).map_err(SealedError::Write))
    })?;
    finish(reader, envelope, size, DataRoot(*tree.into_inner().finalize().as_bytes()))
}

pub(super) fn read_data_header(reader: &mut impl Read, envelope: &Envelope) -> Result<u64, SealedError> {
    let have = tar::read_header(reader, DATA_ENTRY)?;
    let want = envelope.chunking().sealed_bytes();
    if have != want {
        return Err(SealedError::Length { what: "entry `data`", have, want });
    }
    Ok(have)
}

pub(super) fn finish(
    reader: &mut impl Read,
    envelope: Envelope,
    data_bytes: u64,
    data_root: DataRoot,
) -> Result<Checked, SealedError> {
    tar::read_padding(reader, data_bytes, DATA_ENTRY)?;
    let size = tar::read_header(reader, COMMITMENT_ENTRY)?;
    if size != 32 {
        return Err(SealedError::Tar { entry: COMMITMENT_ENTRY, problem: "is not 32 bytes" });
    }
    let mut commitment = [0; 32];
    tar::read_exact(reader, &mut commitment, COMMITMENT_ENTRY)?;
    tar::read_padding(reader, size, COMMITMENT_ENTRY)?;
    tar::read_end(reader)?;
    if data_root.0 != commitment {
        return Err(SealedError::Commitment);
    }
    Ok(Checked {
        dataset_id: keys::dataset_id(envelope.bytes(), data_root),
        data_root,
        file_bytes: tar::archive_bytes([envelope.bytes().len() as u64, data_bytes, size]),
        envelope,
    })
}

/// Random access to the plaintext by chunk.
///
/// Each chunk is authentic for its place; the commitment is not read. Where the whole file matters, run [`check`]
/// first and compare the dataset id.
pub struct SealedReader<R> {
    envelope: Envelope,
    chunks: Chunks<R>,
}

impl<R: Read + Seek> SealedReader<R> {
    /// Reads the header at the reader's beginning and unwraps the data key.
    pub fn new(mut reader: R, wrap_key: &SecretBytes) -> Result<Self, SealedError> {
        reader.rewind().map_err(SealedError::Read)?;
        let envelope = read_header(&mut reader)?;
        read_data_header(&mut reader, &envelope)?;
        let start = reader.stream_position().map_err(SealedError::Read)?;
        let cipher = ChunkCipher::new(&envelope.unwrap(wrap_key)?.chunk_key).ok_or(SealedError::Wrap)?;
        let chunks = Chunks::new(reader, start, envelope.chunking(), cipher);
        Ok(Self { envelope, chunks })
    }

    /// The envelope.
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// How the plaintext is cut.
    pub fn chunking(&self) -> Chunking {
        self.envelope.chunking()
    }

    /// The plaintext of chunk `index`; the next call overwrites it.
    pub fn chunk(&mut self, index: u64) -> Result<&[u8], SealedError> {
        self.chunks.chunk(index)
    }
}
