//! Random access to chunks, and to the plaintext as one seekable stream.

use std::io::{self, Read, Seek, SeekFrom};

use zeroize::{Zeroize, Zeroizing};

use super::{
    DATA_ENTRY, SealedError,
    chunks::{ChunkCipher, Chunking, TAG_BYTES},
    tar,
};

/// The chunks of a `data` entry that begins at `start` of `reader`.
pub(super) struct Chunks<R> {
    reader: R,
    start: u64,
    chunking: Chunking,
    cipher: ChunkCipher,
    buf: Zeroizing<Vec<u8>>,
    /// The chunk whose plaintext is in `buf`.
    held: Option<u64>,
}

impl<R: Read + Seek> Chunks<R> {
    pub(super) fn new(reader: R, start: u64, chunking: Chunking, cipher: ChunkCipher) -> Self {
        Self { reader, start, chunking, cipher, buf: Zeroizing::default(), held: None }
    }

    /// The plaintext of chunk `index`; the next call overwrites it.
    pub(super) fn chunk(&mut self, index: u64) -> Result<&[u8], SealedError> {
        let length = self.chunking.plain_len(index);
        if self.held != Some(index) {
            self.read(index, length)?;
        }
        Ok(self.buf.get(..length).unwrap_or_default())
    }

    fn read(&mut self, index: u64, length: usize) -> Result<(), SealedError> {
        if index >= self.chunking.count() {
            return Err(SealedError::Chunk { index });
        }
        self.held = None;
        self.buf.zeroize();
        self.buf.resize(length + TAG_BYTES, 0);
        let at = self.start + self.chunking.offset(index);
        self.reader.seek(SeekFrom::Start(at)).map_err(SealedError::Read)?;
        tar::read_exact(&mut self.reader, &mut self.buf, DATA_ENTRY)?;
        self.cipher.open(index, self.chunking.is_last(index), &mut self.buf)?;
        self.held = Some(index);
        Ok(())
    }
}

/// The plaintext of a sealed file as a stream that can seek; each chunk is authentic for its place.
pub struct Plaintext<R> {
    chunks: Chunks<R>,
    at: u64,
}

impl<R: Read + Seek> Plaintext<R> {
    pub(super) fn new(chunks: Chunks<R>) -> Self {
        Self { chunks, at: 0 }
    }
}

impl<R: Read + Seek> Read for Plaintext<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let chunking = self.chunks.chunking;
        if self.at >= chunking.plain_bytes() || buf.is_empty() {
            return Ok(0);
        }
        let size = u64::from(chunking.chunk_bytes());
        let plain = self.chunks.chunk(self.at / size).map_err(io::Error::other)?;
        let rest = plain.get((self.at % size) as usize..).unwrap_or_default();
        let count = (&mut &*rest).read(buf)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl<R: Read + Seek> Seek for Plaintext<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let from = |base: u64, by: i64| base.checked_add_signed(by);
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => from(self.chunks.chunking.plain_bytes(), by),
            SeekFrom::Current(by) => from(self.at, by),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}
