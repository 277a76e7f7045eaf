//! Sealing one file: recognise, encrypt beside the final name, sync, rename; or leave nothing behind.

mod error;
mod fit;
pub mod human;
mod interrupt;
mod place;
pub(crate) mod progress;
mod recovery;
pub mod reseal;
pub mod secrecy;

use std::{
    cell::Cell,
    fmt,
    fs::{self, File},
    io::{BufReader, Read, Seek, Write},
    ops::ControlFlow,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use alloy::primitives::{Address, B256};
use cohort_protocol::{
    hpke::PublicKey,
    ids::{ComposeHash, DatasetId, OwnerId},
    recipe,
    sealed::{
        self, CHUNK_BYTES_DEFAULT, ContentKind, DataKey, SealParams, SealedError, SealedSummary, root_key_id,
    },
};
use cohort_recognise::{RecogniseError, Recognised, named, recognise_file, recognise_stream};
use serde::Serialize;

pub use error::SealFileError;
pub use interrupt::Interrupt;
pub use place::Place;
use progress::{Bar, Watched};
use recovery::RecoveryFile;

/// The wrap key as the product page writes it; X-Wing makes it a secret.
pub const WRAP_KEY_FORMULA: &str = "HKDF(kms, app, compose, owner)";

/// One dataset to seal. The root key is authenticated by the caller.
#[derive(Debug, Clone)]
pub struct SealInput {
    /// Whose data.
    pub owner: OwnerId,
    /// The file; `-` reads standard input.
    pub input: PathBuf,
    /// Where to; `None`: `./sealed/NAME.tar`; `-` writes standard output.
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
    /// Keep the data key in this new file, for [`reseal`].
    pub recovery: Option<PathBuf>,
    /// The columns that the recipe reads of this owner, to warn where the file does not have them.
    pub reads: Vec<recipe::Column>,
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

/// Seals one file or standard input. Ctrl-C and SIGTERM stop it cleanly when called within a tokio runtime.
pub fn seal_file(input: &SealInput) -> Result<SealReport, SealFileError> {
    let mut place = match &input.output {
        Some(path) if path.as_os_str() == "-" => Place::standard_output()?,
        Some(path) => Place::File(path.clone()),
        None => Place::File(default_output(input)),
    };
    if input.input.as_os_str() != "-" {
        return seal_path(input, &mut place, &Interrupt::listen());
    }
    let failed = |source| SealFileError::Read { path: "-".into(), source };
    let mut stdin = File::from(std::io::stdin().as_fd().try_clone_to_owned().map_err(failed)?);
    seal_stream(input, &mut stdin, &mut place)
}

/// Seals a named file.
pub fn seal_path(
    input: &SealInput,
    place: &mut Place,
    interrupt: &Interrupt,
) -> Result<SealReport, SealFileError> {
    place.refuse_existing()?;
    let failed = |source| SealFileError::Read { path: input.input.clone(), source };
    let mut file = File::open(&input.input).map_err(failed)?;
    let before = file.metadata().map_err(failed)?;
    if !before.is_file() {
        return Err(SealFileError::NotAFile { path: input.input.clone() });
    }
    let found = {
        let mut watched = Watched::new(&mut file, Bar::new("recognising", Some(before.len())));
        recognise_file(&mut watched, named(&input.input), &|| interrupt.is_set())
            .map_err(|error| recognise_error(&input.input, error))?
    };
    warn_of_misfit(input, &found);
    file.rewind().map_err(failed)?;
    let source = file.try_clone().map_err(failed)?;
    let unchanged = || {
        let after = source.metadata().map_err(failed)?;
        let same = after.len() == before.len() && after.modified().ok() == before.modified().ok();
        if same { Ok(()) } else { Err(SealFileError::Changed { path: input.input.clone() }) }
    };
    let (data_key, recovery) = keys(input)?;
    let output = place.name().to_owned();
    let mut bar = Bar::new("sealing", Some(before.len()));
    let write = |mut writer: &mut (dyn Write + Send)| {
        let progress = &mut watch(&mut bar, interrupt);
        sealed::seal_with_key(&mut file, before.len(), &mut writer, &params(input, found), data_key, progress)
            .map_err(|error| seal_error(&input.input, &output, error))
    };
    let sealed = with_recovery(input, recovery, |keep| {
        place.write(interrupt, write, || unchanged().and_then(|()| keep()))
    })?;
    Ok(report(input, place.name(), sealed))
}

/// Seals what `stream` gives until it ends, whatever its length. Ciphertext is kept in an unnamed file meanwhile, so
/// a signal may end the process at any time until the result is written.
pub fn seal_stream(
    input: &SealInput,
    stream: &mut (impl Read + Send),
    place: &mut Place,
) -> Result<SealReport, SealFileError> {
    place.refuse_existing()?;
    let output = place.name().to_owned();
    let failed = |error| seal_error(&input.input, &output, error);
    let (data_key, recovery) = keys(input)?;
    let mut spooled = {
        let mut bar = Bar::new("reading", None);
        let never = Interrupt::default();
        let progress = &mut watch(&mut bar, &never);
        sealed::spool(stream, place.working_file()?, CHUNK_BYTES_DEFAULT, data_key, progress)
            .map_err(failed)?
    };
    let interrupt = Interrupt::listen();
    let found = {
        let bar = Bar::new("recognising", Some(spooled.plain_bytes()));
        let mut watched = Watched::new(spooled.plaintext().map_err(failed)?, bar);
        recognise_stream(&mut BufReader::new(&mut watched), &|| interrupt.is_set())
            .map_err(|error| recognise_error(&input.input, error))?
    };
    warn_of_misfit(input, &found);
    let mut bar = Bar::new("writing", Some(spooled.plain_bytes()));
    let write = |mut writer: &mut (dyn Write + Send)| {
        spooled.seal(&mut writer, &params(input, found), &mut watch(&mut bar, &interrupt)).map_err(failed)
    };
    let sealed = with_recovery(input, recovery, |keep| place.write(&interrupt, write, keep))?;
    Ok(report(input, place.name(), sealed))
}

/// A fresh data key, and the file by which its owner keeps it, if wanted.
fn keys(input: &SealInput) -> Result<(DataKey, Option<RecoveryFile>), SealFileError> {
    let failed = |source| SealFileError::Seal { path: input.input.clone(), source };
    let data_key = DataKey::fresh().map_err(failed)?;
    let file = input.recovery.as_deref().map(|path| RecoveryFile::prepare(path, &data_key)).transpose()?;
    Ok((data_key, file))
}

/// Keeps the recovery file when asked, just before the sealed file gets its name, and not if that fails.
fn with_recovery<T>(
    input: &SealInput,
    recovery: Option<RecoveryFile>,
    write: impl FnOnce(Box<dyn FnOnce() -> Result<(), SealFileError> + '_>) -> Result<T, SealFileError>,
) -> Result<T, SealFileError> {
    let kept = Cell::new(false);
    let keep = || {
        if let Some(file) = recovery {
            file.keep()?;
            kept.set(true);
        }
        Ok(())
    };
    let written = write(Box::new(keep));
    if let (Err(_), true, Some(path)) = (&written, kept.get(), &input.recovery) {
        // It opens nothing; the first error is the one to tell.
        let _ = fs::remove_file(path);
    }
    written
}

fn watch<'p>(bar: &'p mut Bar, interrupt: &'p Interrupt) -> impl FnMut(u64) -> ControlFlow<()> + Send + 'p {
    move |done| {
        bar.update(done);
        if interrupt.is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
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

/// A file that the recipe cannot read is sealed for nothing, which would be seen only in a run.
fn warn_of_misfit(input: &SealInput, found: &Recognised) {
    if let Some(misfit) = fit::misfit(&input.reads, found) {
        let (path, owner) = (input.input.display(), &input.owner);
        eprintln!(
            "warning: the recipe cannot read {path} as the data of {owner}: {misfit}; its runs would fail"
        );
    }
}

/// The library's error with the file that it is about.
fn seal_error(input: &Path, output: &Path, error: SealedError) -> SealFileError {
    let path = input.to_owned();
    match error {
        SealedError::Cancelled => SealFileError::Interrupted,
        SealedError::Read(source) => SealFileError::Read { path, source },
        SealedError::Write(source) => SealFileError::Write { path: output.to_owned(), source },
        SealedError::Length { .. } => SealFileError::Changed { path },
        SealedError::Envelope(reason) => SealFileError::Metadata { path, reason },
        other => SealFileError::Seal { path, source: other },
    }
}

/// The recogniser's error with the file that it is about.
fn recognise_error(input: &Path, error: RecogniseError) -> SealFileError {
    let path = input.to_owned();
    match error {
        RecogniseError::Read(source) => SealFileError::Read { path, source },
        RecogniseError::Unreadable { format, reason } => SealFileError::Unreadable { path, format, reason },
        RecogniseError::Stopped => SealFileError::Interrupted,
    }
}

/// `./sealed/NAME.tar`; standard input is named after its owner.
fn default_output(input: &SealInput) -> PathBuf {
    let stem = input.input.file_stem().filter(|_| input.input.as_os_str() != "-");
    let mut name = stem.map_or_else(|| input.owner.as_str().into(), ToOwned::to_owned);
    name.push(".tar");
    Path::new("./sealed").join(name)
}
