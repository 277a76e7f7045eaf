//! What can be wrong with a sealed file, and at which layer.

use std::io;

use crate::hpke::HpkeError;

/// A sealed file that is refused, or one that could not be written. Never says why a ciphertext did not open.
#[derive(Debug, thiserror::Error)]
pub enum SealedError {
    /// The source could not be read.
    #[error("cannot read")]
    Read(#[source] io::Error),
    /// The target could not be written.
    #[error("cannot write")]
    Write(#[source] io::Error),
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system")]
    Random(#[source] getrandom::Error),
    /// The caller asked to stop.
    #[error("stopped before the end")]
    Cancelled,
    /// The archive is not exactly the three entries in their one fixed form.
    #[error("tar entry `{entry}` {problem}")]
    Tar {
        /// The entry that was expected at this place; `end` after the last.
        entry: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// `envelope.json` is not the canonical JSON of a known, valid envelope.
    #[error("envelope.json is refused: {0}")]
    Envelope(String),
    /// `commitment` is not the hash of `data`.
    #[error("the commitment does not match the data: the file was changed after sealing")]
    Commitment,
    /// Key encapsulation failed.
    #[error("the sealing key cannot be used")]
    Kem(#[source] HpkeError),
    /// The wrap key does not give the data key that this envelope commits to.
    #[error(
        "the wrap key does not open this envelope: other owner, app, recipe, chain or KMS root, or a changed envelope"
    )]
    Wrap,
    /// The owner's recovery record cannot be used for this file.
    #[error("the recovery record cannot be used: {0}")]
    Recovery(&'static str),
    /// A chunk does not decrypt at its place.
    #[error("chunk {index} does not decrypt: changed, moved, repeated or missing data")]
    Chunk {
        /// Counted from 0.
        index: u64,
    },
    /// Lengths disagree: the envelope's, the entry's, or the input's.
    #[error("{what} has {have} bytes, expected {want}")]
    Length {
        /// What was measured.
        what: &'static str,
        /// Bytes found.
        have: u64,
        /// Bytes expected.
        want: u64,
    },
    /// The plaintext is larger than the reader allows or the machine can hold.
    #[error("the dataset has {bytes} bytes, the limit here is {limit}")]
    TooLarge {
        /// Plaintext bytes.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
}

impl SealedError {
    /// Stable name of the layer that refused: `tar`, `envelope`, `content`, `commitment`, `wrap`, `chunk`; `recovery`
    /// for the owner's record, `io` for the machine's own failures.
    pub const fn layer(&self) -> &'static str {
        match self {
            Self::Read(_) | Self::Write(_) | Self::Random(_) | Self::Cancelled => "io",
            Self::Tar { .. } => "tar",
            Self::Envelope(_) => "envelope",
            Self::Commitment => "commitment",
            Self::Kem(_) | Self::Wrap => "wrap",
            Self::Recovery(_) => "recovery",
            Self::Chunk { .. } => "chunk",
            Self::Length { .. } | Self::TooLarge { .. } => "content",
        }
    }
}
