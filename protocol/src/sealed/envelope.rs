//! `envelope.json`: public facts, the encapsulated key and the wrapped data key, in RFC 8785 form.

use std::fmt;

use alloy::primitives::{Address, B256, Bytes};
use serde::{Deserialize, Serialize};

use super::{
    SealedError,
    chunks::Chunking,
    keys::{self, DataKeys, SealContext, WRAPPED_KEY_BYTES},
    tar,
};
use crate::{
    hpke::{ENCAPSULATED_KEY_BYTES, SecretBytes},
    ids::{ComposeHash, OwnerId},
    json, text,
};

/// Largest `envelope.json` in bytes.
pub const ENVELOPE_BYTES_MAX: u64 = 1 << 20;
/// Integers above this are not exact in JSON (RFC 8785, IEEE 754 doubles).
const JSON_INTEGER_MAX: u64 = (1 << 53) - 1;
const COLUMNS_MAX: usize = 4096;
const COLUMN_NAME_BYTES_MAX: usize = 128;
/// Longest type of a column in bytes.
pub const COLUMN_TYPE_BYTES_MAX: usize = 256;

/// What the plaintext is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContentKind {
    /// Apache Parquet file.
    Parquet,
    /// UTF-8 text, RFC 4180, one header line.
    Csv,
    /// Arrow IPC file or stream.
    Arrow,
    /// Anything else.
    Bytes,
}

impl ContentKind {
    /// The name in the envelope.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Csv => "csv",
            Self::Arrow => "arrow",
            Self::Bytes => "bytes",
        }
    }
}

impl fmt::Display for ContentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One column of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Name: 1 to 128 bytes of UTF-8 without control characters.
    pub name: String,
    /// Type: 1 to 256 printable ASCII characters, e.g. `int64`.
    #[serde(rename = "type")]
    pub type_name: String,
}

/// What the envelope tells about the plaintext.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// Length of the plaintext.
    pub bytes: u64,
    /// What it is.
    pub kind: ContentKind,
    /// Number of records; absent: withheld or unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Columns in file order; absent: withheld or unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Vec<Column>>,
}

/// SHA-256 of the RFC 8785 form of the schema list; 32 zero bytes where it is withheld.
pub fn schema_hash(schema: Option<&[Column]>) -> Result<B256, SealedError> {
    let Some(columns) = schema else { return Ok(B256::ZERO) };
    json::canonical_hash(&columns).map_err(|error| SealedError::Envelope(error.to_string()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Format {
    #[serde(rename = "cohort-sealed-dataset/1")]
    V1,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Kem {
    #[serde(rename = "X-Wing")]
    XWing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Kdf {
    #[serde(rename = "HKDF-SHA256")]
    HkdfSha256,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum AeadName {
    #[serde(rename = "AES-256-GCM")]
    Aes256Gcm,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    aead: AeadName,
    app: Address,
    chain_id: u64,
    chunk_bytes: u32,
    compose_hash: ComposeHash,
    content: Content,
    enc: Bytes,
    format: Format,
    kdf: Kdf,
    kem: Kem,
    key_commitment: B256,
    owner: OwnerId,
    root_epoch: u32,
    root_key_id: B256,
    schema_hash: B256,
    /// Absent only in the header that the wrapped key authenticates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wrapped_key: Option<Bytes>,
}

/// A valid envelope and the exact bytes it came from.
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope {
    fields: Fields,
    chunking: Chunking,
    bytes: Vec<u8>,
}

/// What a new envelope is made of.
pub(super) struct NewEnvelope<'a> {
    pub(super) context: &'a SealContext,
    pub(super) root_key_id: B256,
    pub(super) content: Content,
    pub(super) chunk_bytes: u32,
    pub(super) enc: &'a [u8],
    pub(super) wrap_key: &'a SecretBytes,
    pub(super) data_key: &'a SecretBytes,
}

impl Envelope {
    /// Parses `envelope.json`: canonical bytes, known fields, valid values; everything else is refused.
    pub fn parse(bytes: &[u8]) -> Result<Self, SealedError> {
        if bytes.len() as u64 > ENVELOPE_BYTES_MAX {
            return Err(refuse("it is larger than 1 MiB"));
        }
        let fields: Fields = serde_json::from_slice(bytes).map_err(|error| refuse(text::line(error)))?;
        let envelope = Self::build(fields)?;
        if envelope.bytes != bytes {
            return Err(refuse("it is not in canonical form (RFC 8785)"));
        }
        Ok(envelope)
    }

    /// Wraps the data key and builds the envelope around it.
    pub(super) fn wrap(new: NewEnvelope<'_>) -> Result<Self, SealedError> {
        let mut fields = Fields {
            aead: AeadName::Aes256Gcm,
            app: new.context.app,
            chain_id: new.context.chain_id,
            chunk_bytes: new.chunk_bytes,
            compose_hash: new.context.compose_hash,
            content: new.content,
            enc: Bytes::copy_from_slice(new.enc),
            format: Format::V1,
            kdf: Kdf::HkdfSha256,
            kem: Kem::XWing,
            key_commitment: DataKeys::derive(new.data_key).commitment,
            owner: new.context.owner.clone(),
            root_epoch: new.context.root_epoch,
            root_key_id: new.root_key_id,
            schema_hash: new.context.schema_hash,
            wrapped_key: None,
        };
        let wrapped = keys::wrap(new.wrap_key, &canonical(&fields)?, new.data_key)?;
        fields.wrapped_key = Some(Bytes::from(wrapped));
        Self::build(fields)
    }

    fn build(fields: Fields) -> Result<Self, SealedError> {
        let chunking = check(&fields)?;
        let bytes = canonical(&fields)?;
        if bytes.len() as u64 > ENVELOPE_BYTES_MAX {
            return Err(refuse("it is larger than 1 MiB: the schema is too long, withhold it"));
        }
        Ok(Self { fields, chunking, bytes })
    }

    /// The exact bytes of `envelope.json`.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What the envelope claims to be sealed for. The KMS compares it with, and derives from, attested facts.
    pub fn context(&self) -> SealContext {
        SealContext {
            chain_id: self.fields.chain_id,
            app: self.fields.app,
            compose_hash: self.fields.compose_hash,
            owner: self.fields.owner.clone(),
            root_epoch: self.fields.root_epoch,
            schema_hash: self.fields.schema_hash,
        }
    }

    /// The owner.
    pub fn owner(&self) -> &OwnerId {
        &self.fields.owner
    }

    /// SHA-256 of the X-Wing public key it is sealed to.
    pub fn root_key_id(&self) -> B256 {
        self.fields.root_key_id
    }

    /// The encapsulated key, 1120 bytes.
    pub fn enc(&self) -> &[u8] {
        &self.fields.enc
    }

    /// What it tells about the plaintext.
    pub fn content(&self) -> &Content {
        &self.fields.content
    }

    /// How the data is cut.
    pub fn chunking(&self) -> Chunking {
        self.chunking
    }

    /// Names the data key without telling it.
    pub fn key_commitment(&self) -> B256 {
        self.fields.key_commitment
    }

    /// Size of the tar entry with header and padding: where the next entry begins.
    pub(super) fn entry_bytes(&self) -> u64 {
        tar::entry_bytes(self.bytes.len() as u64)
    }

    /// The data key's sub-keys, if `wrap_key` is the right one.
    pub(super) fn unwrap(&self, wrap_key: &SecretBytes) -> Result<DataKeys, SealedError> {
        let wrapped = self.fields.wrapped_key.as_ref().ok_or(SealedError::Wrap)?;
        let header = canonical(&Fields { wrapped_key: None, ..self.fields.clone() })?;
        keys::unwrap(wrap_key, &header, wrapped, self.fields.key_commitment)
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope").field("context", &self.context()).field("content", self.content()).finish()
    }
}

fn refuse(reason: impl Into<String>) -> SealedError {
    SealedError::Envelope(reason.into())
}

fn canonical(fields: &Fields) -> Result<Vec<u8>, SealedError> {
    json::canonical(fields).map_err(|error| refuse(error.to_string()))
}

fn check(fields: &Fields) -> Result<Chunking, SealedError> {
    if fields.chain_id > JSON_INTEGER_MAX || fields.content.rows.is_some_and(|rows| rows > JSON_INTEGER_MAX) {
        return Err(refuse("an integer is above 2^53 - 1"));
    }
    if fields.enc.len() != ENCAPSULATED_KEY_BYTES {
        return Err(refuse("enc must be 1120 bytes"));
    }
    if fields.wrapped_key.as_ref().is_none_or(|key| key.len() != WRAPPED_KEY_BYTES) {
        return Err(refuse("wrapped_key must be 48 bytes"));
    }
    let schema = fields.content.schema.as_deref();
    check_schema(schema.unwrap_or_default())?;
    if fields.schema_hash != schema_hash(schema)? {
        return Err(refuse("schema_hash is not the hash of content.schema"));
    }
    Chunking::new(fields.content.bytes, fields.chunk_bytes).ok_or_else(|| {
        refuse("chunk_bytes must be a power of two from 4096 to 16777216, content.bytes at most 2^40")
    })
}

fn check_schema(columns: &[Column]) -> Result<(), SealedError> {
    if columns.len() > COLUMNS_MAX {
        return Err(refuse("content.schema has more than 4096 columns"));
    }
    let name_ok =
        |name: &str| (1..=COLUMN_NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
    let type_ok = |name: &str| {
        (1..=COLUMN_TYPE_BYTES_MAX).contains(&name.len()) && name.bytes().all(|b| (0x20..0x7f).contains(&b))
    };
    if columns.iter().all(|column| name_ok(&column.name) && type_ok(&column.type_name)) {
        return Ok(());
    }
    Err(refuse("a column of content.schema has a name or type that is empty, too long or not printable"))
}
