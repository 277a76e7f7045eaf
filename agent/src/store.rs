//! Where sealed datasets lie: a folder with ciphertext that anyone may read.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use alloy::primitives::Address;
use cohort_protocol::{
    hpke::SecretBytes,
    ids::{ComposeHash, DatasetId, OwnerId},
    sealed::{self, SealedError},
};
use zeroize::Zeroizing;

/// Plaintext of one dataset is held in memory: larger ones are refused.
const MAX_PLAINTEXT_BYTES: u64 = 4 << 30;

/// A sealed file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder or a file in it cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not a sealed dataset, or an altered one.
    #[error("{path} is not usable")]
    Sealed {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: SealedError,
    },
    /// It changed between the request and the answer.
    #[error("{path} changed while its key was asked for")]
    Changed {
        /// Which.
        path: PathBuf,
    },
}

/// A sealed file whose commitment was checked.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Where it lies.
    pub path: PathBuf,
    /// Form and commitment.
    pub checked: sealed::Checked,
}

impl Candidate {
    /// Commitment to the file, as registered on chain.
    pub fn dataset_id(&self) -> DatasetId {
        self.checked.dataset_id
    }

    /// Unseals into memory that is wiped on drop.
    pub fn unseal(&self, wrap_key: &SecretBytes) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let mut reader = BufReader::new(open(&self.path)?);
        let (plain, checked) = sealed::open(&mut reader, wrap_key, MAX_PLAINTEXT_BYTES)
            .map_err(|source| StoreError::Sealed { path: self.path.clone(), source })?;
        if checked.dataset_id != self.dataset_id() {
            return Err(StoreError::Changed { path: self.path.clone() });
        }
        Ok(plain)
    }
}

fn open(path: &Path) -> Result<File, StoreError> {
    File::open(path).map_err(|source| StoreError::Read { path: path.to_owned(), source })
}

/// The sealed files in `folder` that `owner` sealed for this app and compose hash.
///
/// Files for others are passed over; a file that claims to be for this owner and is damaged is an error.
pub fn candidates(
    folder: &Path,
    app: Address,
    compose: ComposeHash,
    owner: &OwnerId,
) -> Result<Vec<Candidate>, StoreError> {
    let unreadable = |source| StoreError::Read { path: folder.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_none_or(|extension| extension != "tar") {
            continue;
        }
        let Ok(envelope) = sealed::read_header(&mut BufReader::new(open(&path)?)) else { continue };
        let context = envelope.context();
        if context.app != app || context.compose_hash != compose || context.owner != *owner {
            continue;
        }
        let checked = sealed::check(&mut BufReader::new(open(&path)?))
            .map_err(|source| StoreError::Sealed { path: path.clone(), source })?;
        found.push(Candidate { path, checked });
    }
    Ok(found)
}
