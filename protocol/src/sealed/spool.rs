//! Sealing an input whose length is known only at its end, such as a pipe.
//!
//! The envelope stands first and tells the length, so the ciphertext goes to a working file and is copied behind the
//! envelope afterwards. The working file never holds plaintext.

use std::io::{Read, Seek, SeekFrom, Write};

use super::{
    DATA_ENTRY, DataRoot, SealedError,
    chunks::{ChunkCipher, Chunking, PLAINTEXT_BYTES_MAX, TAG_BYTES},
    keys::{DataKey, DataKeys},
    line::{Line, Ordered},
    random::{Chunks, Plaintext},
    seal::{Progress, SealParams, SealSecrets, SealedSummary, envelope, fill, write_archive},
    tar,
};

/// An encrypted input that awaits its envelope.
pub struct Spooled<F> {
    file: F,
    chunking: Chunking,
    data_key: DataKey,
    data_root: DataRoot,
}

/// What the reading step remembers.
struct Source<'s, R> {
    input: &'s mut R,
    progress: Progress<'s>,
    done: u64,
    /// One byte of the next chunk: it shows whether there is one.
    ahead: Option<u8>,
}

impl<R: Read> Source<'_, R> {
    /// Reads one chunk; returns its length and whether the input ends with it.
    fn chunk(&mut self, buf: &mut [u8]) -> Result<(usize, bool), SealedError> {
        let held = self.ahead.take().map_or(0, |byte| {
            buf.iter_mut().take(1).for_each(|slot| *slot = byte);
            1
        });
        let length = held + fill(self.input, buf.get_mut(held..).unwrap_or_default())?;
        let mut ahead = [0];
        let last = length < buf.len() || fill(self.input, &mut ahead)? == 0;
        self.ahead = (!last).then_some(ahead[0]);
        self.done += length as u64;
        if self.done > PLAINTEXT_BYTES_MAX {
            return Err(SealedError::TooLarge { bytes: self.done, limit: PLAINTEXT_BYTES_MAX });
        }
        if (self.progress)(self.done).is_break() {
            return Err(SealedError::Cancelled);
        }
        Ok((length, last))
    }
}

/// Encrypts `input` to its end into `file`, which is empty and private to the caller.
pub fn spool<F: Read + Write + Seek + Send>(
    input: &mut (impl Read + Send),
    file: F,
    chunk_bytes: u32,
    data_key: DataKey,
    progress: Progress<'_>,
) -> Result<Spooled<F>, SealedError> {
    let cut = |bytes| {
        Chunking::new(bytes, chunk_bytes)
            .ok_or(SealedError::Envelope("chunk_bytes must be a power of two from 4096 to 16777216".into()))
    };
    let most = cut(PLAINTEXT_BYTES_MAX)?.count();
    let cipher = ChunkCipher::new(&DataKeys::derive(data_key.secret()).chunk_key).ok_or(SealedError::Wrap)?;
    let source = Ordered::new(0, Source { input, progress, done: 0, ahead: None });
    let (tree, sink) = (Ordered::new(1, blake3::Hasher::new()), Ordered::new(2, file));
    Line::run(most + 1, chunk_bytes as usize, |line, index, buf| {
        buf.resize(chunk_bytes as usize, 0);
        let (length, last) = line.turn(&source, index, |source| {
            let read = source.chunk(buf)?;
            if read.1 {
                line.end_at(index + 1);
            }
            Ok(read)
        })?;
        buf.resize(length + TAG_BYTES, 0);
        cipher.seal(index, last, buf)?;
        line.turn(&tree, index, |tree| {
            tree.update(buf);
            Ok(())
        })?;
        line.turn(&sink, index, |file| file.write_all(buf).map_err(SealedError::Write))
    })?;
    let data_root = DataRoot(*tree.into_inner().finalize().as_bytes());
    Ok(Spooled { file: sink.into_inner(), chunking: cut(source.into_inner().done)?, data_key, data_root })
}

impl<F: Read + Seek + Send> Spooled<F> {
    /// Length of the plaintext.
    pub fn plain_bytes(&self) -> u64 {
        self.chunking.plain_bytes()
    }

    /// The plaintext, for whoever must look at it again to describe it.
    pub fn plaintext(&mut self) -> Result<Plaintext<&mut F>, SealedError> {
        let keys = DataKeys::derive(self.data_key.secret());
        let cipher = ChunkCipher::new(&keys.chunk_key).ok_or(SealedError::Wrap)?;
        Ok(Plaintext::new(Chunks::new(&mut self.file, 0, self.chunking, cipher)))
    }

    /// Writes the sealed file; `params.chunk_bytes` is that of [`spool`]. A working file that changed meanwhile is
    /// refused.
    pub fn seal(
        mut self,
        output: &mut (impl Write + Send),
        params: &SealParams,
        progress: Progress<'_>,
    ) -> Result<SealedSummary, SealedError> {
        let secrets = SealSecrets::around(self.data_key.into_secret(), &params.root, &params.context()?)?;
        let envelope = envelope(params, self.chunking.chunk_bytes(), self.chunking.plain_bytes(), &secrets)?;
        self.file.seek(SeekFrom::Start(0)).map_err(SealedError::Read)?;
        let file = &mut self.file;
        write_archive(output, envelope, |output, chunking| {
            let root = copy_chunks(file, output, chunking, None, progress)?;
            if root == self.data_root { Ok(root) } else { Err(SealedError::Commitment) }
        })
    }
}

/// Copies the content of a `data` entry and hashes it; with a cipher it also checks that every chunk opens.
pub(super) fn copy_chunks(
    input: &mut (impl Read + Send),
    output: &mut (impl Write + Send),
    chunking: Chunking,
    cipher: Option<&ChunkCipher>,
    progress: Progress<'_>,
) -> Result<DataRoot, SealedError> {
    let (source, tree) = (Ordered::new(0, (input, progress)), Ordered::new(1, blake3::Hasher::new()));
    let sink = Ordered::new(2, output);
    Line::run(chunking.count(), chunking.chunk_bytes() as usize, |line, index, buf| {
        buf.resize(chunking.plain_len(index) + TAG_BYTES, 0);
        line.turn(&source, index, |(input, progress)| {
            tar::read_exact(input, buf, DATA_ENTRY)?;
            let done = chunking.offset(index + 1).min(chunking.sealed_bytes());
            if progress(done).is_break() { Err(SealedError::Cancelled) } else { Ok(()) }
        })?;
        line.turn(&tree, index, |tree| {
            tree.update(buf);
            Ok(())
        })?;
        line.turn(&sink, index, |output| output.write_all(buf).map_err(SealedError::Write))?;
        cipher.map_or(Ok(()), |cipher| cipher.open(index, chunking.is_last(index), buf).map(drop))
    })?;
    Ok(DataRoot(*tree.into_inner().finalize().as_bytes()))
}
