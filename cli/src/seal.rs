//! Sealing one file: recognise, encrypt beside the final name, sync, rename; or leave nothing behind.

mod error;
pub mod human;
mod interrupt;
mod progress;
pub mod recognise;

use std::{
    fmt,
    fs::{self, File},
    io::{BufWriter, Cursor, Read, Seek},
    ops::ControlFlow,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use alloy::primitives::{Address, B256};
use cohort_protocol::{
    hpke::PublicKey,
    ids::{ComposeHash, DatasetId, OwnerId},
    sealed::{self, CHUNK_BYTES_DEFAULT, ContentKind, SealParams, SealedError, SealedSummary, root_key_id},
};
use serde::Serialize;
use zeroize::Zeroizing;

pub use error::SealFileError;
pub use interrupt::Interrupt;
use recognise::Recognised;

/// Standard input is held in memory, because the length stands before the data: at most this many bytes.
const STDIN_BYTES_MAX: u64 = 256 << 20;
/// The wrap key as the product page writes it; X-Wing makes it a secret.
pub const WRAP_KEY_FORMULA: &str = "HKDF(kms, app, compose, owner)";

/// One dataset to seal. The root key is authenticated by the caller.
#[derive(Debug, Clone)]
pub struct SealInput {
    /// Whose data.
    pub owner: OwnerId,
    /// The file; `-` reads standard input.
    pub input: PathBuf,
    /// Where to; `None`: `./sealed/NAME.tar`.
    pub output: Option<PathBuf>,
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// The consortium's `DstackApp`.
    pub app: Address,
    /// The recipe that may read it.
    pub compose_hash: ComposeHash,
    /// Epoch of the root key.
    pub root_epoch: u32,
    /// The KMS root's sealing key.
    pub root_key: PublicKey,
    /// Keep rows and schema out of the envelope.
    pub no_metadata: bool,
}

/// What was sealed; stable JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SealReport {
    /// The sealed file.
    pub file: PathBuf,
    /// Whose data.
    pub owner: OwnerId,
    /// What it was recognised as.
    pub kind: ContentKind,
    /// Records; absent where withheld or unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Plaintext bytes.
    pub plain_bytes: u64,
    /// Size of the sealed file in bytes.
    pub sealed_bytes: u64,
    /// Commitment to the sealed file, for `cohort dataset register`.
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

impl fmt::Display for SealReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "-> wrap-key = {WRAP_KEY_FORMULA} derived (X-Wing, epoch {})", self.root_epoch)?;
        writeln!(f, "-> {}", self.file.display())?;
        writeln!(f, "{}", human::rows_and_size(self.rows, self.sealed_bytes))?;
        write!(f, "dataset id {}", self.dataset_id)
    }
}

/// Seals one file. Ctrl-C and SIGTERM stop it cleanly when called within a tokio runtime.
pub fn seal_file(input: &SealInput) -> Result<SealReport, SealFileError> {
    let output = output_path(input)?;
    refuse_existing(&output)?;
    if input.input.as_os_str() == "-" {
        let bytes = read_stdin()?;
        let interrupt = Interrupt::listen();
        let found = recognise::recognise_bytes(&input.input, &bytes)?;
        let length = bytes.len() as u64;
        return seal_into(input, &output, &mut Cursor::new(bytes.as_slice()), length, found, &interrupt);
    }
    seal_path(input, &output, &Interrupt::listen())
}

/// [`seal_file`] of a named file, stopped by the given flag instead of signals.
pub fn seal_path(
    input: &SealInput,
    output: &Path,
    interrupt: &Interrupt,
) -> Result<SealReport, SealFileError> {
    refuse_existing(output)?;
    let failed = |source| SealFileError::Read { path: input.input.clone(), source };
    let mut file = File::open(&input.input).map_err(failed)?;
    let before = file.metadata().map_err(failed)?;
    if !before.is_file() {
        return Err(SealFileError::NotAFile { path: input.input.clone() });
    }
    let found = recognise::recognise_file(&input.input, &mut file, interrupt)?;
    file.rewind().map_err(failed)?;
    let source = file.try_clone().map_err(failed)?;
    let unchanged = || {
        let after = source.metadata().map_err(failed)?;
        let same = after.len() == before.len() && after.modified().ok() == before.modified().ok();
        if same { Ok(()) } else { Err(SealFileError::Changed { path: input.input.clone() }) }
    };
    let sealed = write_sealed(input, output, &mut file, before.len(), found, interrupt, &unchanged)?;
    Ok(report(input, output, sealed))
}

fn seal_into(
    input: &SealInput,
    output: &Path,
    reader: &mut impl Read,
    length: u64,
    found: Recognised,
    interrupt: &Interrupt,
) -> Result<SealReport, SealFileError> {
    let sealed = write_sealed(input, output, reader, length, found, interrupt, &|| Ok(()))?;
    Ok(report(input, output, sealed))
}

/// Writes into an unnamed-looking neighbour of `output` that disappears on any error, then gives it its name.
fn write_sealed(
    input: &SealInput,
    output: &Path,
    reader: &mut impl Read,
    length: u64,
    found: Recognised,
    interrupt: &Interrupt,
    unchanged: &dyn Fn() -> Result<(), SealFileError>,
) -> Result<SealedSummary, SealFileError> {
    let failed = |source| SealFileError::Write { path: output.to_owned(), source };
    let folder = folder_of(output);
    fs::create_dir_all(folder).map_err(failed)?;
    let temporary = tempfile::Builder::new().prefix(".cohort-seal-").tempfile_in(folder).map_err(failed)?;
    let mut bar = progress::Bar::new(length);
    let mut progress = |done| {
        bar.update(done);
        if interrupt.is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let mut writer = BufWriter::new(temporary.as_file());
    let summary = sealed::seal(reader, length, &mut writer, &params(input, found), &mut progress)
        .map_err(|error| seal_error(input, output, error))?;
    drop(writer);
    unchanged()?;
    temporary.as_file().set_permissions(fs::Permissions::from_mode(0o644)).map_err(failed)?;
    temporary.as_file().sync_all().map_err(failed)?;
    if interrupt.is_set() {
        return Err(SealFileError::Interrupted);
    }
    temporary.persist_noclobber(output).map_err(|error| match error.error.kind() {
        std::io::ErrorKind::AlreadyExists => SealFileError::Exists { path: output.to_owned() },
        _ => failed(error.error),
    })?;
    // The name is durable only once the folder is.
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    Ok(summary)
}

fn params(input: &SealInput, found: Recognised) -> SealParams {
    let told = !input.no_metadata;
    SealParams {
        chain_id: input.chain_id,
        app: input.app,
        compose_hash: input.compose_hash,
        owner: input.owner.clone(),
        root_epoch: input.root_epoch,
        root: input.root_key.clone(),
        kind: found.kind,
        rows: found.rows.filter(|_| told),
        schema: found.schema.filter(|_| told),
        chunk_bytes: CHUNK_BYTES_DEFAULT,
    }
}

fn report(input: &SealInput, output: &Path, sealed: SealedSummary) -> SealReport {
    SealReport {
        file: output.to_owned(),
        owner: input.owner.clone(),
        kind: sealed.envelope.content().kind,
        rows: sealed.envelope.content().rows,
        plain_bytes: sealed.plain_bytes,
        sealed_bytes: sealed.file_bytes,
        dataset_id: sealed.dataset_id,
        chain_id: input.chain_id,
        app: input.app,
        compose_hash: input.compose_hash,
        root_epoch: input.root_epoch,
        root_key_id: root_key_id(&input.root_key),
    }
}

fn seal_error(input: &SealInput, output: &Path, error: SealedError) -> SealFileError {
    match error {
        SealedError::Cancelled => SealFileError::Interrupted,
        SealedError::Read(source) => SealFileError::Read { path: input.input.clone(), source },
        SealedError::Write(source) => SealFileError::Write { path: output.to_owned(), source },
        SealedError::Length { .. } => SealFileError::Changed { path: input.input.clone() },
        SealedError::Envelope(reason) => SealFileError::Metadata { path: input.input.clone(), reason },
        other => SealFileError::Seal { path: input.input.clone(), source: other },
    }
}

fn output_path(input: &SealInput) -> Result<PathBuf, SealFileError> {
    match &input.output {
        Some(path) if path.as_os_str() == "-" => Err(SealFileError::StandardOutput),
        Some(path) => Ok(path.clone()),
        None => {
            let stem = input.input.file_stem().filter(|_| input.input.as_os_str() != "-");
            let mut name = stem.map_or_else(|| input.owner.as_str().into(), ToOwned::to_owned);
            name.push(".tar");
            Ok(Path::new("./sealed").join(name))
        }
    }
}

fn refuse_existing(output: &Path) -> Result<(), SealFileError> {
    if output.symlink_metadata().is_ok() {
        return Err(SealFileError::Exists { path: output.to_owned() });
    }
    Ok(())
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn read_stdin() -> Result<Zeroizing<Vec<u8>>, SealFileError> {
    let mut bytes = Zeroizing::new(Vec::new());
    std::io::stdin()
        .lock()
        .take(STDIN_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| SealFileError::Read { path: "-".into(), source })?;
    if bytes.len() as u64 > STDIN_BYTES_MAX {
        return Err(SealFileError::StandardInputTooLong { limit: STDIN_BYTES_MAX });
    }
    Ok(bytes)
}
