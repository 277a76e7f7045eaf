//! The public card of a sealed file: what anybody may know who has the file and no key.

use std::{
    fmt,
    fs::File,
    io::{BufReader, Error},
    path::{Path, PathBuf},
};

use alloy::primitives::{Address, B256};
use cohort_protocol::{
    ids::{ComposeHash, DatasetId, OwnerId},
    sealed::{self, Checked, Column, ContentKind, SealedError},
    text,
};
use serde::Serialize;

use crate::{
    failure::Failure,
    files::chain_text,
    seal::{
        WRAP_KEY_FORMULA, human,
        progress::{Bar, Watched},
    },
};

/// What every sealed dataset is. Compliance grades are on chain, with the owner.
const TAGS: [&str; 3] = ["sealed", "never-exits-silo", "recipe-bound"];

/// Why there is no card.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The file cannot be opened.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Error,
    },
    /// Something else, or changed.
    #[error("{} is not an intact sealed dataset ({})", path.display(), source.layer())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: SealedError,
    },
}

impl From<InspectError> for Failure {
    fn from(error: InspectError) -> Self {
        let message = chain_text(&error);
        match error {
            InspectError::Read { .. } => Self::input(message, "check the path and its permissions"),
            InspectError::Refused { .. } => {
                Self::refused(message, "get the file again from its owner, or seal it again: cohort seal")
            }
        }
    }
}

/// The card; stable JSON. Form, envelope and commitment were checked; that it opens, only its key shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InspectReport {
    /// The file.
    pub file: PathBuf,
    /// Whose data.
    pub owner: OwnerId,
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// The consortium's `DstackApp`.
    pub analysis_app_id: Address,
    /// The only recipe that it opens for.
    pub analysis_compose_hash: ComposeHash,
    /// How the wrap key is bound.
    pub wrap_key: &'static str,
    /// How it is kept secret.
    pub kem: &'static str,
    /// How the data is encrypted.
    pub algo: &'static str,
    /// Epoch of the KMS root.
    pub root_epoch: u32,
    /// SHA-256 of the KMS root's sealing key.
    pub root_key_id: B256,
    /// What the data is.
    pub kind: ContentKind,
    /// Records; absent where withheld or unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Columns; absent where withheld or unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<Vec<Column>>,
    /// Plaintext bytes.
    pub plain_bytes: u64,
    /// Size of the file in bytes.
    pub sealed_bytes: u64,
    /// Commitment to the whole file.
    pub dataset_id: DatasetId,
    /// Labels of the card.
    pub tags: Vec<String>,
}

/// Reads the whole file and checks all that needs no key.
pub fn inspect_file(path: &Path) -> Result<InspectReport, InspectError> {
    let file = File::open(path).map_err(|source| InspectError::Read { path: path.to_owned(), source })?;
    let checked = check(file).map_err(|source| match source {
        SealedError::Read(source) => InspectError::Read { path: path.to_owned(), source },
        source => InspectError::Refused { path: path.to_owned(), source },
    })?;
    let (context, content) = (checked.envelope.context(), checked.envelope.content());
    Ok(InspectReport {
        file: path.to_owned(),
        owner: context.owner,
        chain_id: context.chain_id,
        analysis_app_id: context.app,
        analysis_compose_hash: context.compose_hash,
        wrap_key: WRAP_KEY_FORMULA,
        kem: "X-Wing",
        algo: "AES-256-GCM",
        root_epoch: context.root_epoch,
        root_key_id: checked.envelope.root_key_id(),
        kind: content.kind,
        rows: content.rows,
        schema: content.schema.clone(),
        plain_bytes: content.bytes,
        sealed_bytes: checked.file_bytes,
        dataset_id: checked.dataset_id,
        tags: TAGS.map(str::to_owned).to_vec(),
    })
}

/// [`sealed::check`] with a bar: everything that needs no key.
pub(crate) fn check(file: File) -> Result<Checked, SealedError> {
    let bar = Bar::new("checking", file.metadata().ok().map(|metadata| metadata.len()));
    sealed::check(&mut Watched::new(BufReader::new(file), bar))
}

impl fmt::Display for InspectReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.file.file_name().unwrap_or(self.file.as_os_str());
        writeln!(f, "sealed dataset · {}", text::line(Path::new(name).display()))?;
        let mut line = |name: &str, value: &dyn fmt::Display| writeln!(f, "{name:<22} {value}");
        line("owner", &self.owner)?;
        line("analysis-app-id", &format_args!("{} (chain {})", self.analysis_app_id, self.chain_id))?;
        line("analysis-compose-hash", &self.analysis_compose_hash)?;
        line("wrap-key", &self.wrap_key)?;
        line("kms-root", &format_args!("{}, epoch {}, key {}", self.kem, self.root_epoch, self.root_key_id))?;
        line("algo", &self.algo)?;
        line("content", &format_args!("{}, {} before sealing", self.kind, human::bytes(self.plain_bytes)))?;
        let not_told = || "not told".to_owned();
        line("rows", &self.rows.map_or_else(not_told, human::count))?;
        line("columns", &self.schema.as_ref().map_or_else(not_told, |columns| column_list(columns)))?;
        line("size", &human::bytes(self.sealed_bytes))?;
        line("dataset-id", &self.dataset_id)?;
        write!(f, "{}", self.tags.join(" · "))
    }
}

fn column_list(columns: &[Column]) -> String {
    const SHOWN: usize = 16;
    let mut names: Vec<_> =
        columns.iter().take(SHOWN).map(|column| format!("{} {}", column.name, column.type_name)).collect();
    if columns.len() > SHOWN {
        names.push(format!("and {} more", columns.len() - SHOWN));
    }
    names.join(", ")
}
