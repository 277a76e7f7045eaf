//! Where a sealed file goes: under its final name whole or not at all, or to a stream.

use std::{
    fs::{self, File},
    io::{self, IsTerminal, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use super::{Interrupt, SealFileError};
use crate::new_file::{NewFile, folder_of};

/// Where to.
#[derive(Debug)]
pub enum Place {
    /// A file that does not exist yet.
    File(PathBuf),
    /// A pipe or an open file: what was written before a failure stays written.
    Stream(File),
}

impl Place {
    /// Standard output, unless a person would see the bytes.
    pub fn standard_output() -> Result<Self, SealFileError> {
        let stdout = std::io::stdout();
        if stdout.is_terminal() {
            return Err(SealFileError::Terminal);
        }
        let stream = stdout.as_fd().try_clone_to_owned();
        Ok(Self::Stream(stream.map_err(|source| SealFileError::Write { path: "-".into(), source })?.into()))
    }

    /// Its name; `-` for a stream.
    pub fn name(&self) -> &Path {
        match self {
            Self::File(path) => path,
            Self::Stream(_) => Path::new("-"),
        }
    }

    pub(super) fn refuse_existing(&self) -> Result<(), SealFileError> {
        match self {
            Self::File(path) if path.symlink_metadata().is_ok() => {
                Err(SealFileError::Exists { path: path.clone() })
            }
            _ => Ok(()),
        }
    }

    /// An unnamed file for ciphertext: on the disk of the result, or in the folder for temporary files.
    pub(super) fn working_file(&self) -> Result<File, SealFileError> {
        let folder = match self {
            Self::File(path) => folder_of(path).to_owned(),
            Self::Stream(_) => std::env::temp_dir(),
        };
        make_folder(&folder)
            .and_then(|()| tempfile::tempfile_in(&folder))
            .map_err(|source| SealFileError::Write { path: folder, source })
    }

    /// Lets `write` make the content, then `keep` decide whether it stays.
    ///
    /// A file is on the disk before `keep` is asked, and gets its name after.
    pub(super) fn write<T>(
        &mut self,
        interrupt: &Interrupt,
        write: impl FnOnce(&mut (dyn Write + Send)) -> Result<T, SealFileError>,
        keep: impl FnOnce() -> Result<(), SealFileError>,
    ) -> Result<T, SealFileError> {
        let path = match self {
            Self::File(path) => path,
            Self::Stream(stream) => {
                let written = write(stream)?;
                keep()?;
                return Ok(written);
            }
        };
        let failed = |source| SealFileError::Write { path: path.clone(), source };
        let folder = folder_of(path);
        make_folder(folder).map_err(failed)?;
        let mut file = NewFile::create(path).map_err(failed)?;
        let written = write(file.file())?;
        file.finish(0o644).map_err(failed)?;
        if interrupt.is_set() {
            return Err(SealFileError::Interrupted);
        }
        keep()?;
        file.publish().map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => SealFileError::Exists { path: path.clone() },
            _ => failed(error),
        })?;
        Ok(written)
    }
}

/// A file in the folder's place is no folder; the system's own word for it, "file exists", would mislead.
fn make_folder(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => io::Error::from(rustix::io::Errno::NOTDIR),
        _ => error,
    })
}
