//! Why a file was not sealed, and what to do about it.

use std::{
    io::{Error, ErrorKind},
    path::PathBuf,
};

use cohort_protocol::sealed::SealedError;

use crate::{
    failure::{Exit, Failure},
    files::chain_text,
};

/// Each leaves nothing behind under the final name.
#[derive(Debug, thiserror::Error)]
pub enum SealFileError {
    /// The input cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The input.
        path: PathBuf,
        /// Why.
        #[source]
        source: Error,
    },
    /// A folder, a device, a pipe.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// The input.
        path: PathBuf,
    },
    /// Its first bytes or its name promise a format that it does not keep.
    #[error("{} is not readable as {format}: {reason}", path.display())]
    Unreadable {
        /// The input.
        path: PathBuf,
        /// Parquet, CSV or Arrow.
        format: &'static str,
        /// The reader's reason; never cell values.
        reason: String,
    },
    /// The envelope cannot hold what the file tells about itself.
    #[error("the rows and columns of {} do not fit the envelope: {reason}", path.display())]
    Metadata {
        /// The input.
        path: PathBuf,
        /// Which limit.
        reason: String,
    },
    /// Somebody wrote to the input meanwhile.
    #[error("{} changed while it was being sealed", path.display())]
    Changed {
        /// The input.
        path: PathBuf,
    },
    /// Bytes on a screen help nobody.
    #[error("standard output is a terminal: a sealed dataset is not text")]
    Terminal,
    /// The recovery file is not one, or not of this dataset.
    #[error("{} is not usable", path.display())]
    Recovery {
        /// The recovery file.
        path: PathBuf,
        /// Why.
        #[source]
        source: SealedError,
    },
    /// Somebody else could read the data key.
    #[error("recovery file {} can be read by others (mode {mode:03o})", path.display())]
    RecoveryMode {
        /// The recovery file.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
    },
    /// Nothing to do.
    #[error("{} is sealed for this recipe already", path.display())]
    SameRecipe {
        /// The sealed file.
        path: PathBuf,
    },
    /// The sealed file to seal anew is none, or was changed.
    #[error("{} is not an intact sealed dataset ({})", path.display(), source.layer())]
    NotSealed {
        /// The sealed file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: SealedError,
    },
    /// Sealed files are not overwritten.
    #[error("{} exists already", path.display())]
    Exists {
        /// The output.
        path: PathBuf,
    },
    /// The output cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The output.
        path: PathBuf,
        /// Why.
        #[source]
        source: Error,
    },
    /// Ctrl-C or SIGTERM.
    #[error("interrupted: nothing was written")]
    Interrupted,
    /// Anything else.
    #[error("cannot seal {}", path.display())]
    Seal {
        /// The input.
        path: PathBuf,
        /// Why.
        #[source]
        source: SealedError,
    },
}

impl SealFileError {
    /// What a person does next.
    pub fn hint(&self) -> String {
        match self {
            Self::Read { .. } => "check the path after --in and its permissions".into(),
            Self::NotAFile { .. } => {
                "give one file after --in, or - to read a pipe; pack a folder into one file first".into()
            }
            Self::Unreadable { format, .. } => {
                format!(
                    "repair or export the file again; a file that is no {format} needs another name or kind"
                )
            }
            Self::Metadata { .. } => "seal with --no-metadata".into(),
            Self::Changed { .. } => "seal a copy that nobody writes to".into(),
            Self::Terminal => "redirect it to a file or a pipe, or give a file name after --out".into(),
            Self::Recovery { .. } => "give the file that --recovery-file wrote when this dataset was sealed".into(),
            Self::RecoveryMode { path, .. } => format!("chmod 600 {}", path.display()),
            Self::SameRecipe { .. } => "give the new app-compose file after --compose".into(),
            Self::NotSealed { .. } => "get the file again from where it is kept".into(),
            Self::Exists { .. } => "give another --out, or move the file away".into(),
            Self::Write { source, .. }
                if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) =>
            {
                "free space there, or give --out on another disk; the sealed file is as large as the input, and \
                 standard input takes as much again meanwhile (with --out - in TMPDIR)"
                    .into()
            }
            Self::Write { source, .. } if source.kind() == ErrorKind::FileTooLarge => {
                "that disk, or ulimit -f, allows no file of this size: give --out on another disk".into()
            }
            Self::Write { source, .. } if source.kind() == ErrorKind::BrokenPipe => {
                "the program that reads the output ended first; what it got is not a sealed dataset".into()
            }
            Self::Write { .. } => "check the folder of --out and its permissions".into(),
            Self::Interrupted => "seal again when ready".into(),
            Self::Seal { .. } => "run cohort kms verify, then seal again".into(),
        }
    }
}

impl From<SealFileError> for Failure {
    fn from(error: SealFileError) -> Self {
        let exit = match error {
            SealFileError::Interrupted | SealFileError::NotSealed { .. } => Exit::Refused,
            _ => Exit::Input,
        };
        Self { exit, message: chain_text(&error), hint: Some(error.hint()) }
    }
}
