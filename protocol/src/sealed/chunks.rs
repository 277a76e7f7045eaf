//! Bulk encryption: AES-256-GCM in the STREAM construction, one key a file, position and end in the nonce.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::SealedError;
use crate::hpke::SecretBytes;

/// Plaintext bytes of a chunk unless chosen otherwise.
pub const CHUNK_BYTES_DEFAULT: u32 = 1 << 20;
/// Smallest chunk.
pub const CHUNK_BYTES_MIN: u32 = 4 << 10;
/// Largest chunk: what a reader must be able to hold.
pub const CHUNK_BYTES_MAX: u32 = 16 << 20;
/// Largest plaintext under one key, 1 TiB: 2^36 AES blocks keep the distinguishing advantage under 2^-56.
pub const PLAINTEXT_BYTES_MAX: u64 = 1 << 40;
/// Bytes that each chunk grows by.
pub(super) const TAG_BYTES: usize = 16;

/// How a plaintext of `bytes` is cut: full chunks, and a last one of 1 to `chunk_bytes` (0 only if empty).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunking {
    bytes: u64,
    chunk_bytes: u32,
}

impl Chunking {
    /// `None` when the chunk size is no power of two within bounds, or the plaintext is too long.
    pub fn new(bytes: u64, chunk_bytes: u32) -> Option<Self> {
        let size_ok =
            chunk_bytes.is_power_of_two() && (CHUNK_BYTES_MIN..=CHUNK_BYTES_MAX).contains(&chunk_bytes);
        (size_ok && bytes <= PLAINTEXT_BYTES_MAX).then_some(Self { bytes, chunk_bytes })
    }

    /// Number of chunks; an empty plaintext has one.
    pub const fn count(&self) -> u64 {
        let full = self.bytes.div_ceil(self.chunk_bytes as u64);
        if full == 0 { 1 } else { full }
    }

    /// Plaintext bytes in chunk `index`; 0 past the end.
    pub fn plain_len(&self, index: u64) -> usize {
        let start = index.saturating_mul(u64::from(self.chunk_bytes));
        self.bytes.saturating_sub(start).min(u64::from(self.chunk_bytes)) as usize
    }

    /// Is this the last chunk?
    pub const fn is_last(&self, index: u64) -> bool {
        index + 1 == self.count()
    }

    /// Where chunk `index` begins in the `data` entry.
    pub const fn offset(&self, index: u64) -> u64 {
        index * (self.chunk_bytes as u64 + TAG_BYTES as u64)
    }

    /// Size of the `data` entry.
    pub const fn sealed_bytes(&self) -> u64 {
        self.bytes + self.count() * TAG_BYTES as u64
    }

    /// Plaintext bytes of the whole.
    pub const fn plain_bytes(&self) -> u64 {
        self.bytes
    }

    /// Plaintext bytes of a full chunk.
    pub const fn chunk_bytes(&self) -> u32 {
        self.chunk_bytes
    }
}

/// 11 bytes of index, big-endian, then 1 for the last chunk and 0 for the others.
pub(super) fn nonce(index: u64, last: bool) -> [u8; 12] {
    let mut nonce = [0; 12];
    for (slot, byte) in nonce.iter_mut().skip(3).zip(index.to_be_bytes()) {
        *slot = byte;
    }
    nonce[11] = u8::from(last);
    nonce
}

/// The chunk key, ready to use; ring's key schedule is not wiped on drop, the bytes it came from are.
pub(super) struct ChunkCipher(LessSafeKey);

impl ChunkCipher {
    pub(super) fn new(key: &SecretBytes) -> Option<Self> {
        UnboundKey::new(&AES_256_GCM, key.expose_secret()).ok().map(|key| Self(LessSafeKey::new(key)))
    }

    /// Encrypts all of `buf` but the last 16 bytes in place; these become the tag.
    pub(super) fn seal(&self, index: u64, last: bool, buf: &mut [u8]) -> Result<(), SealedError> {
        let refuse = || SealedError::Chunk { index };
        let (plain, slot) = buf.split_last_chunk_mut::<TAG_BYTES>().ok_or_else(refuse)?;
        let nonce = Nonce::assume_unique_for_key(nonce(index, last));
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::empty(), plain).map_err(|_| refuse())?;
        slot.copy_from_slice(tag.as_ref());
        Ok(())
    }

    /// Decrypts `buf` (ciphertext and tag) in place and returns the plaintext.
    pub(super) fn open<'b>(
        &self,
        index: u64,
        last: bool,
        buf: &'b mut [u8],
    ) -> Result<&'b mut [u8], SealedError> {
        let nonce = Nonce::assume_unique_for_key(nonce(index, last));
        self.0.open_in_place(nonce, Aad::empty(), buf).map_err(|_| SealedError::Chunk { index })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn geometry_around_borders() {
        for (bytes, count, last) in [(0, 1, 0), (1, 1, 1), (4096, 1, 4096), (4097, 2, 1), (8192, 2, 4096)] {
            let cut = Chunking::new(bytes, 4096).unwrap();
            assert_eq!((cut.count(), cut.plain_len(count - 1)), (count, last), "{bytes}");
            assert!(cut.is_last(count - 1) && cut.plain_len(count) == 0);
            assert_eq!(cut.sealed_bytes(), bytes + 16 * count);
        }
    }

    #[test]
    fn chunk_sizes_outside_the_bounds_are_refused() {
        for bad in [0, 2048, 4095, 12288, 32 << 20] {
            assert!(Chunking::new(1, bad).is_none(), "{bad}");
        }
        assert!(Chunking::new(PLAINTEXT_BYTES_MAX + 1, 4096).is_none());
    }

    #[test]
    fn nonce_layout() {
        assert_eq!(nonce(0x0102, true), [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 1]);
    }
}
