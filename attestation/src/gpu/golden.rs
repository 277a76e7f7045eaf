//! Golden values: what the measurements of known drivers and VBIOS versions must be, as a signed list.

use std::collections::BTreeSet;

use alloy::primitives::{Address, B256, Bytes};
use alloy::signers::{SignerSync, local::PrivateKeySigner};
use alloy::sol_types::Eip712Domain;
use cohort_protocol::recipe::GpuArchitecture;
use cohort_protocol::{eip712, json};
use serde::{Deserialize, Serialize};

use super::BLOCKS;
use super::refusal::GpuRefusal;
use super::verify::VerifiedGpu;

const FORMAT: &str = "cohort-gpu-golden/1";
const MAX_MANIFESTS: usize = 256;
const MAX_VALUES: usize = 16;
/// The block that measures NVDEC0: there is nothing to compare while that is off.
const NVDEC0_BLOCK: u8 = 36;

alloy::sol! {
    /// EIP-712: what a list's signer signs, under the domain of the registry.
    #[derive(Debug)]
    struct GpuGoldenValues {
        bytes32 listHash;
    }
}

/// A list that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// Not JSON of the format.
    #[error("not a signed list of golden values")]
    Json(#[source] serde_json::Error),
    /// Another format or version.
    #[error("the list's format is {found:?}, not {FORMAT}")]
    Format {
        /// As stated.
        found: String,
    },
    /// A rule of the format is broken.
    #[error("golden values: {0}")]
    Rule(&'static str),
    /// Signed by somebody else.
    #[error("the golden values are not signed by {wanted}")]
    Signer {
        /// Whose signature is needed.
        wanted: Address,
    },
    /// No canonical JSON form.
    #[error("the golden values have no canonical form")]
    Canonical(#[source] json::CanonicalError),
    /// The signer failed.
    #[error("the golden values cannot be signed")]
    Sign(#[source] alloy::signers::Error),
}

/// What a manifest is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ManifestKind {
    /// The driver and the firmware that it loads.
    Driver,
    /// The VBIOS and the firmware on the board.
    Vbios,
}

impl ManifestKind {
    /// `driver` or `vbios`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Driver => "driver",
            Self::Vbios => "vbios",
        }
    }
}

/// What one measurement block must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    /// SPDM block, 1 to 64.
    pub block: u8,
    /// SHA-384 values, hex; one of them.
    pub values: Vec<String>,
}

/// What one driver or VBIOS version must measure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// What it is about.
    pub kind: ManifestKind,
    /// Family of the chip.
    pub architecture: GpuArchitecture,
    /// As reports state it.
    pub version: String,
    /// The RIM's own id.
    pub tag_id: String,
    /// SHA-256 of the RIM file, hex.
    pub source_sha256: String,
    /// By ascending block.
    pub measurements: Vec<Measurement>,
}

impl Manifest {
    fn check(&self) -> Result<(), GoldenError> {
        let rule = |holds: bool, text| if holds { Ok(()) } else { Err(GoldenError::Rule(text)) };
        let blocks = || self.measurements.iter().map(|measurement| measurement.block);
        rule(!self.measurements.is_empty(), "a manifest has no measurement")?;
        rule(blocks().zip(blocks().skip(1)).all(|(a, b)| a < b), "blocks must ascend")?;
        rule(blocks().all(|block| (1..=BLOCKS).contains(&usize::from(block))), "blocks are 1 to 64")?;
        rule(is_hex(&self.source_sha256, 64), "source_sha256 is 64 hex digits")?;
        let is_text =
            |text: &str| (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        rule(is_text(&self.version) && is_text(&self.tag_id), "version and tag_id are 1 to 128 characters")?;
        for Measurement { values, .. } in &self.measurements {
            rule((1..=MAX_VALUES).contains(&values.len()), "a block has 1 to 16 values")?;
            rule(values.iter().all(|value| is_hex(value, 96)), "a value is 96 hex digits")?;
        }
        Ok(())
    }
}

/// The list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenValues {
    format: String,
    manifests: Vec<Manifest>,
}

impl GoldenValues {
    /// A list of manifests, in any order.
    pub fn new(mut manifests: Vec<Manifest>) -> Result<Self, GoldenError> {
        manifests.sort_by(|a, b| (a.kind, &a.version).cmp(&(b.kind, &b.version)));
        let list = Self { format: FORMAT.to_owned(), manifests };
        list.check_form()?;
        Ok(list)
    }

    /// The manifests, ascending by kind and version.
    pub fn manifests(&self) -> &[Manifest] {
        &self.manifests
    }

    /// SHA-256 of the RFC 8785 bytes: what is signed.
    pub fn hash(&self) -> Result<B256, GoldenError> {
        json::canonical_hash(self).map_err(GoldenError::Canonical)
    }

    fn check_form(&self) -> Result<(), GoldenError> {
        if self.format != FORMAT {
            return Err(GoldenError::Format { found: self.format.clone() });
        }
        if !(1..=MAX_MANIFESTS).contains(&self.manifests.len()) {
            return Err(GoldenError::Rule("1 to 256 manifests are needed"));
        }
        let keys = || self.manifests.iter().map(|manifest| (manifest.kind, &manifest.version));
        if !keys().zip(keys().skip(1)).all(|(a, b)| a < b) {
            return Err(GoldenError::Rule("manifests must ascend by kind and version, each once"));
        }
        self.manifests.iter().try_for_each(Manifest::check)
    }

    fn manifest(&self, gpu: &VerifiedGpu, kind: ManifestKind) -> Result<&Manifest, GpuRefusal> {
        let version = match kind {
            ManifestKind::Driver => gpu.driver_version(),
            ManifestKind::Vbios => gpu.vbios_version(),
        };
        let fits = |manifest: &&Manifest| {
            manifest.kind == kind
                && manifest.architecture == gpu.architecture()
                && manifest.version == version
        };
        self.manifests
            .iter()
            .find(fits)
            .ok_or_else(|| GpuRefusal::GoldenUnknown { kind: kind.as_str(), version: version.to_owned() })
    }

    /// Compares a GPU's measurements.
    pub fn check(&self, gpu: &VerifiedGpu) -> Result<(), GpuRefusal> {
        let manifests = [ManifestKind::Driver, ManifestKind::Vbios].map(|kind| self.manifest(gpu, kind));
        let [driver, vbios] = manifests;
        let (driver, vbios) = (driver?, vbios?);
        let blocks: BTreeSet<u8> = driver.measurements.iter().map(|measurement| measurement.block).collect();
        if let Some(twice) = vbios.measurements.iter().find(|other| blocks.contains(&other.block)) {
            return Err(GpuRefusal::GoldenConflict { block: twice.block });
        }
        for manifest in [driver, vbios] {
            for Measurement { block, values } in &manifest.measurements {
                let has_nothing = *block == NVDEC0_BLOCK && !gpu.nvdec0_is_on();
                let found = gpu.measurement(*block).map(hex::encode);
                if !has_nothing && !found.is_some_and(|found| values.contains(&found)) {
                    let kind = manifest.kind.as_str();
                    return Err(GpuRefusal::MeasurementMismatch { block: *block, kind });
                }
            }
        }
        Ok(())
    }
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The file: a list with its signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedGoldenValues {
    /// The list.
    pub golden: GoldenValues,
    /// Who signed it.
    pub signer: Address,
    /// EIP-712 signature: 65 bytes.
    pub signature: Bytes,
}

impl SignedGoldenValues {
    /// Reads a file and checks its form; the signature is checked by [`Self::verify`].
    pub fn parse(bytes: &[u8]) -> Result<Self, GoldenError> {
        let signed: Self = json::parse(bytes).map_err(GoldenError::Json)?;
        signed.golden.check_form()?;
        Ok(signed)
    }

    /// The list, if `signer` signed it under `domain`.
    pub fn verify(self, signer: Address, domain: &Eip712Domain) -> Result<GoldenValues, GoldenError> {
        let message = GpuGoldenValues { listHash: self.golden.hash()? };
        let recovered = eip712::recover(eip712::digest(&message, domain), &self.signature);
        if self.signer != signer || recovered != Some(signer) {
            return Err(GoldenError::Signer { wanted: signer });
        }
        Ok(self.golden)
    }
}

/// Signs a list.
pub fn sign_golden_values(
    golden: GoldenValues,
    key: &PrivateKeySigner,
    domain: &Eip712Domain,
) -> Result<SignedGoldenValues, GoldenError> {
    let message = GpuGoldenValues { listHash: golden.hash()? };
    let signature = key.sign_hash_sync(&eip712::digest(&message, domain)).map_err(GoldenError::Sign)?;
    Ok(SignedGoldenValues { golden, signer: key.address(), signature: signature.as_bytes().to_vec().into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(kind: ManifestKind, version: &str) -> Manifest {
        Manifest {
            kind,
            architecture: GpuArchitecture::Hopper,
            version: version.to_owned(),
            tag_id: "tag".to_owned(),
            source_sha256: "00".repeat(32),
            measurements: vec![Measurement { block: 2, values: vec!["ab".repeat(48)] }],
        }
    }

    #[test]
    fn a_signature_holds_for_its_list_signer_and_domain_only() {
        let key = PrivateKeySigner::random();
        let domain = eip712::kms_domain(1, Address::repeat_byte(1));
        let list = GoldenValues::new(vec![manifest(ManifestKind::Driver, "550.90.07")]).unwrap();
        let signed = sign_golden_values(list.clone(), &key, &domain).unwrap();
        let bytes = serde_json::to_vec(&signed).unwrap();
        let read = || SignedGoldenValues::parse(&bytes).unwrap();
        assert_eq!(read().verify(key.address(), &domain).unwrap(), list);
        assert!(read().verify(Address::ZERO, &domain).is_err());
        assert!(read().verify(key.address(), &eip712::kms_domain(2, Address::repeat_byte(1))).is_err());
        let mut changed = read();
        changed.golden.manifests[0].measurements[0].block = 3;
        assert!(changed.verify(key.address(), &domain).is_err());
    }

    #[test]
    fn the_form_is_exact() {
        let (driver, vbios) = (ManifestKind::Driver, ManifestKind::Vbios);
        assert!(GoldenValues::new(vec![manifest(vbios, "1"), manifest(driver, "1")]).is_ok());
        assert!(GoldenValues::new(vec![]).is_err());
        assert!(GoldenValues::new(vec![manifest(driver, "1"), manifest(driver, "1")]).is_err());
        for broken in [
            Manifest { version: String::new(), ..manifest(driver, "1") },
            Manifest { source_sha256: "0".to_owned(), ..manifest(driver, "1") },
            Manifest { measurements: vec![], ..manifest(driver, "1") },
            Manifest {
                measurements: vec![Measurement { block: 65, values: vec!["ab".repeat(48)] }],
                ..manifest(driver, "1")
            },
            Manifest {
                measurements: vec![Measurement { block: 1, values: vec!["AB".repeat(48)] }],
                ..manifest(driver, "1")
            },
        ] {
            assert!(GoldenValues::new(vec![broken]).is_err());
        }
    }
}
