//! Sealing a sealed file for another recipe, with the owner's recovery file; the ciphertext stays as it is.

use std::{
    fmt,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
};

use alloy::primitives::{Address, B256};
use cohort_protocol::{
    ids::{ComposeHash, DatasetId, OwnerId},
    sealed::{self, Envelope, ResealPart, ResealTarget, Resealed, SealedError, root_key_id},
};
use serde::Serialize;

use super::{Bar, Interrupt, Place, SealFileError, WRAP_KEY_FORMULA, human, recovery, watch};

/// One sealed file and what it shall be sealed for. The root key is authenticated by the caller.
#[derive(Debug, Clone)]
pub struct ResealInput {
    /// The sealed file.
    pub file: PathBuf,
    /// The file that sealing it left with the owner.
    pub recovery: PathBuf,
    /// For whom and for what.
    pub target: ResealTarget,
    /// All of the new file, or what stands before its data.
    pub part: ResealPart,
}

/// What was resealed; stable JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ResealReport {
    /// The new file or head; `-` for standard output.
    pub file: PathBuf,
    /// Is it only what stands before the data?
    pub head_only: bool,
    /// Where in the old file the part begins that follows the head, in bytes.
    pub old_data_offset: u64,
    /// Whose data.
    pub owner: OwnerId,
    /// Size of the whole new file in bytes.
    pub sealed_bytes: u64,
    /// Commitment to the new file, for `cohort dataset register --supersedes`.
    pub dataset_id: DatasetId,
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// The consortium's `DstackApp`.
    pub app: Address,
    /// The recipe that may read it.
    pub compose_hash: ComposeHash,
    /// Epoch of the KMS root.
    pub root_epoch: u32,
    /// SHA-256 of the KMS root's sealing key.
    pub root_key_id: B256,
}

impl fmt::Display for ResealReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "-> wrap-key = {WRAP_KEY_FORMULA} derived (X-Wing, epoch {})", self.root_epoch)?;
        writeln!(f, "-> {}", self.file.display())?;
        if self.head_only {
            writeln!(
                f,
                "where the sealed file is kept: (cat HEAD; tail -c +{} OLD.tar) > NEW.tar",
                self.old_data_offset + 1
            )?;
        }
        writeln!(f, "{}", human::bytes(self.sealed_bytes))?;
        write!(f, "dataset id {}", self.dataset_id)
    }
}

/// The public envelope of a sealed file: whose data it is, and what it is sealed for now.
pub fn envelope(path: &Path) -> Result<Envelope, SealFileError> {
    let mut file =
        File::open(path).map_err(|source| SealFileError::Read { path: path.to_owned(), source })?;
    sealed::read_header(&mut file).map_err(|error| reseal_error(path, path, path, error))
}

/// Seals anew. The old file is checked as a whole first to last, and is not changed.
pub fn reseal_file(
    input: &ResealInput,
    place: &mut Place,
    interrupt: &Interrupt,
) -> Result<ResealReport, SealFileError> {
    place.refuse_existing()?;
    let recovery = recovery::read(&input.recovery)?;
    let old = envelope(&input.file)?;
    let (was, target) = (old.context(), &input.target);
    let same_place = (was.chain_id, was.app) == (target.chain_id, target.app);
    let same_key = old.root_key_id() == root_key_id(&target.root);
    if same_place && same_key && was.compose_hash == target.compose_hash && was.owner == target.owner {
        return Err(SealFileError::SameRecipe { path: input.file.clone() });
    }
    let failed = |source| SealFileError::Read { path: input.file.clone(), source };
    let mut file = File::open(&input.file).map_err(failed)?;
    let output = place.name().to_owned();
    let mut bar = Bar::new("resealing", Some(old.chunking().sealed_bytes()));
    let write = |mut writer: &mut (dyn Write + Send)| {
        let progress = &mut watch(&mut bar, interrupt);
        sealed::reseal(&mut file, &recovery, target, &mut writer, input.part, progress)
            .map_err(|error| reseal_error(&input.file, &input.recovery, &output, error))
    };
    let done = place.write(interrupt, write, || Ok(()))?;
    Ok(report(input, place.name(), &done))
}

fn report(input: &ResealInput, output: &Path, done: &Resealed) -> ResealReport {
    let target = &input.target;
    ResealReport {
        file: output.to_owned(),
        head_only: input.part == ResealPart::Head,
        old_data_offset: done.old_data_offset,
        owner: target.owner.clone(),
        sealed_bytes: done.summary.file_bytes,
        dataset_id: done.summary.dataset_id,
        chain_id: target.chain_id,
        app: target.app,
        compose_hash: target.compose_hash,
        root_epoch: target.root_epoch,
        root_key_id: root_key_id(&target.root),
    }
}

fn reseal_error(file: &Path, recovery: &Path, output: &Path, error: SealedError) -> SealFileError {
    match error {
        SealedError::Recovery(_) => SealFileError::Recovery { path: recovery.to_owned(), source: error },
        SealedError::Cancelled => SealFileError::Interrupted,
        SealedError::Read(source) => SealFileError::Read { path: file.to_owned(), source },
        SealedError::Write(source) => SealFileError::Write { path: output.to_owned(), source },
        source => SealFileError::NotSealed { path: file.to_owned(), source },
    }
}
