//! The owner's recovery file: the data key of one sealed file, readable by its owner alone (mode 0600).

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use cohort_protocol::sealed::{DataKey, RECOVERY_BYTES_MAX, Recovery};
use zeroize::Zeroizing;

use super::SealFileError;
use crate::new_file::{NewFile, folder_of};

/// A recovery file that is written once the sealed file is complete: an interruption before leaves no key behind.
pub(super) struct RecoveryFile {
    path: PathBuf,
    record: Zeroizing<Vec<u8>>,
}

impl RecoveryFile {
    /// The record of `data_key` for `path`, which must not exist.
    pub(super) fn prepare(path: &Path, data_key: &DataKey) -> Result<Self, SealFileError> {
        let failed = |source| SealFileError::Write { path: path.to_owned(), source };
        if path.symlink_metadata().is_ok() {
            return Err(SealFileError::Exists { path: path.to_owned() });
        }
        if !folder_of(path).metadata().map_err(failed)?.is_dir() {
            return Err(failed(ErrorKind::NotADirectory.into()));
        }
        let record = Recovery::of(data_key)
            .to_json()
            .map_err(|source| SealFileError::Recovery { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), record })
    }

    /// Writes it whole or not at all; made with mode 0600 and never wider.
    pub(super) fn keep(self) -> Result<(), SealFileError> {
        let failed = |source| SealFileError::Write { path: self.path.clone(), source };
        let mut file = NewFile::create(&self.path).map_err(failed)?;
        file.file().write_all(&self.record).and_then(|()| file.finish(0o600)).map_err(failed)?;
        file.publish().map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => SealFileError::Exists { path: self.path.clone() },
            _ => failed(error),
        })
    }
}

/// Reads a recovery file that nobody else can read.
pub(super) fn read(path: &Path) -> Result<Recovery, SealFileError> {
    let failed = |source| SealFileError::Read { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(SealFileError::RecoveryMode { path: path.to_owned(), mode: mode & 0o777 });
    }
    let mut record = Zeroizing::new(Vec::with_capacity(RECOVERY_BYTES_MAX + 1));
    file.take(RECOVERY_BYTES_MAX as u64 + 1).read_to_end(&mut record).map_err(failed)?;
    Recovery::parse(&record).map_err(|source| SealFileError::Recovery { path: path.to_owned(), source })
}
