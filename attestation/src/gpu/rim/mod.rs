//! NVIDIA's reference integrity manifests (RIM): signed XML that says what the measurements of a driver
//! or a VBIOS must be. Spec: `docs/spec/gpu-evidence.md`.
//!
//! This is for the tool that distils golden values. It accepts the one form that NVIDIA publishes, so that
//! canonicalisation stays small enough to read, and refuses everything else.

mod canonical;
mod shape;
mod signature;

use base64::DecodeError;
use cohort_protocol::recipe::GpuArchitecture;
use roxmltree::{Document, Node};
use sha2::{Digest as _, Sha256};

use self::shape::{SWID, Signed};
use super::certificates::ChainError;
use super::golden::{GoldenError, GoldenValues, Manifest, ManifestKind, Measurement};
use super::{BLOCKS, certificates};

/// SHA-256 of the DER of NVIDIA's `NVIDIA CoRIM signing Root CA`.
pub const NVIDIA_RIM_ROOT_SHA256: [u8; 32] = [
    0x12, 0x97, 0x7b, 0x51, 0x15, 0xac, 0xb0, 0x38, 0x11, 0x79, 0x27, 0x9f, 0xff, 0xeb, 0x5a, 0x8c, 0x4d,
    0x26, 0x49, 0x71, 0xeb, 0xb3, 0x22, 0x98, 0x02, 0x3a, 0x46, 0x5f, 0xa4, 0x1d, 0xf5, 0xd1,
];

/// Longest accepted file, in bytes (real ones have 21 000).
pub const MAX_BYTES: usize = 256 << 10;
/// Namespace of the hash attributes.
const HASHES: &str = "http://www.w3.org/2001/04/xmlenc#sha384";

/// Why a manifest is refused.
#[derive(Debug, thiserror::Error)]
pub enum RimError {
    /// Too long.
    #[error("the manifest has {bytes} bytes, more than {MAX_BYTES}")]
    TooLarge {
        /// Length received.
        bytes: usize,
    },
    /// Not well-formed XML, or with a DTD.
    #[error("the manifest is not XML without a DTD")]
    Xml(#[source] roxmltree::Error),
    /// Not of the form that NVIDIA publishes.
    #[error("the manifest does not have NVIDIA's form: {what}")]
    Shape {
        /// What differs.
        what: &'static str,
    },
    /// Another algorithm or transform than the accepted one.
    #[error("the signature's {what} is not the accepted one")]
    Algorithm {
        /// Which.
        what: &'static str,
    },
    /// Base64 in the signature.
    #[error("the signature's {what} is not base64")]
    Base64 {
        /// Which part.
        what: &'static str,
        /// What the decoder said.
        #[source]
        source: DecodeError,
    },
    /// The content is not what was signed.
    #[error("the manifest's content is not what was signed")]
    Digest,
    /// The signer's certificates.
    #[error("the manifest's signer is refused")]
    Chain(#[source] ChainError),
    /// The signature itself.
    #[error("the manifest's signature does not verify")]
    Signature,
    /// Of another chip.
    #[error("the manifest is of the product {found:?}; only GH100 (Hopper) is supported")]
    Product {
        /// As stated.
        found: String,
    },
    /// A value in the manifest.
    #[error("the manifest's {what} has no accepted value")]
    Value {
        /// Which.
        what: &'static str,
    },
    /// The values make no golden values.
    #[error("the manifest cannot be used")]
    Golden(#[source] GoldenError),
}

/// The root that a manifest's signer must chain to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RimRoot([u8; 32]);

impl RimRoot {
    /// NVIDIA's.
    pub const fn nvidia() -> Self {
        Self(NVIDIA_RIM_ROOT_SHA256)
    }

    /// The root of a development GPU platform's manifests (DER). It must call itself `NOT NVIDIA`.
    #[cfg(feature = "dev-platform")]
    pub fn development(certificate_der: &[u8]) -> Result<Self, super::DevelopmentGpuRootError> {
        super::GpuRoot::development(certificate_der).map(|root| Self(*root.sha256()))
    }
}

/// Verifies a manifest as of `now` (Unix seconds) and takes its golden values.
pub fn read(xml: &[u8], root: &RimRoot, now: u64) -> Result<Manifest, RimError> {
    if xml.len() > MAX_BYTES {
        return Err(RimError::TooLarge { bytes: xml.len() });
    }
    let text = std::str::from_utf8(xml).map_err(|_| RimError::Shape { what: "it is not UTF-8" })?;
    let document = Document::parse(text).map_err(RimError::Xml)?;
    let signed = Signed::read(&document)?;
    signature::verify(&document, &signed, &root.0, now)?;
    let manifest = manifest(&signed, xml)?;
    // The rules of the list, for this manifest alone.
    GoldenValues::new(vec![manifest.clone()]).map_err(RimError::Golden)?;
    Ok(manifest)
}

fn manifest(signed: &Signed<'_, '_>, file: &[u8]) -> Result<Manifest, RimError> {
    let value = |what| RimError::Value { what };
    let meta = |name| signed.meta.attribute(name);
    if meta("edition") != Some("GPU") {
        return Err(value("edition"));
    }
    if meta("product") != Some("GH100") {
        return Err(RimError::Product { found: meta("product").unwrap_or_default().to_owned() });
    }
    let version = meta("colloquialVersion").ok_or(value("colloquialVersion"))?;
    let vbios = version.to_ascii_uppercase();
    let (kind, version) = match is_vbios(&vbios) {
        true => (ManifestKind::Vbios, vbios),
        false => (ManifestKind::Driver, version.to_owned()),
    };
    let measurements = measurements(&signed.payload)?;
    Ok(Manifest {
        kind,
        architecture: GpuArchitecture::Hopper,
        version,
        tag_id: signed.root.attribute("tagId").ok_or(value("tagId"))?.to_owned(),
        source_sha256: hex::encode(Sha256::digest(file)),
        measurements,
    })
}

/// The manifest does not say what it is about, but a VBIOS version is five bytes in hex, and a driver's is
/// two or three numbers.
fn is_vbios(version: &str) -> bool {
    let parts: Vec<&str> = version.split('.').collect();
    parts.len() == 5 && parts.iter().all(|part| part.len() == 2 && hex::decode(part).is_ok())
}

fn measurements(payload: &Node<'_, '_>) -> Result<Vec<Measurement>, RimError> {
    let mut seen = [false; BLOCKS];
    let mut active = Vec::new();
    for resource in payload.children().filter(Node::is_element) {
        let (index, is_active, values) = resource_values(&resource)?;
        let slot = seen.get_mut(index).ok_or(RimError::Value { what: "index" })?;
        if std::mem::replace(slot, true) {
            return Err(RimError::Value { what: "index, which is there twice" });
        }
        if is_active {
            let block = u8::try_from(index + 1).map_err(|_| RimError::Value { what: "index" })?;
            active.push(Measurement { block, values });
        }
    }
    active.sort_by_key(|measurement| measurement.block);
    Ok(active)
}

/// Index, whether it counts, and the alternatives.
fn resource_values(resource: &Node<'_, '_>) -> Result<(usize, bool, Vec<String>), RimError> {
    let value = |what| RimError::Value { what };
    if !resource.has_tag_name((SWID, "Resource")) || resource.attribute("type") != Some("Measurement") {
        return Err(RimError::Shape { what: "Payload holds something else than measurements" });
    }
    let number = |name: &'static str| {
        let text = resource.attribute(name).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        text.and_then(|text| text.parse::<usize>().ok()).ok_or(value(name))
    };
    let (index, alternatives) = (number("index")?, number("alternatives")?);
    if number("size")? != 48 {
        return Err(value("size"));
    }
    let is_active = match resource.attribute("active") {
        Some("True") => true,
        Some("False") => false,
        _ => return Err(value("active")),
    };
    let hashes = resource.attributes().filter(|attribute| attribute.namespace() == Some(HASHES)).count();
    if hashes != alternatives || !(1..=16).contains(&alternatives) {
        return Err(value("alternatives"));
    }
    let hash = |n: usize| {
        let name = format!("Hash{n}");
        let found = resource.attribute((HASHES, name.as_str())).map(str::to_ascii_lowercase);
        found.ok_or(value("hash"))
    };
    let mut values = (0..alternatives).map(hash).collect::<Result<Vec<_>, _>>()?;
    values.sort();
    values.dedup();
    Ok((index, is_active, values))
}
