//! The evidence of one GPU as it travels, and how it is read from NVIDIA's collector.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cohort_protocol::hex_digits;
use cohort_protocol::json::push_prefixed;
use cohort_protocol::recipe::GpuArchitecture;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::report;

/// Most GPUs in one evidence.
pub const MAX_GPUS: usize = 16;
/// Longest accepted report, in bytes (real ones have 4 000 to 4 300).
pub(crate) const MAX_REPORT_BYTES: usize = 16 << 10;
/// Longest accepted certificate, in bytes (real ones have 500 to 900).
pub(crate) const MAX_CERTIFICATE_BYTES: usize = 4 << 10;
/// Zero bytes that a driver may append after the signature.
const MAX_PADDING: usize = 3;
/// Longest accepted answer of a collector, in bytes.
const MAX_COLLECTED_BYTES: usize = 1 << 20;

/// The evidence of one GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuEvidence {
    /// Family of the chip.
    pub architecture: GpuArchitecture,
    /// SPDM request and response; hex in JSON.
    #[serde(with = "hex_digits")]
    pub report: Vec<u8>,
    /// DER of the certificates, leaf first, root last; hex in JSON.
    #[serde(with = "hex_list")]
    pub certificates: Vec<Vec<u8>>,
}

/// Evidence in NVIDIA's own form that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CollectedError {
    /// Too long.
    #[error("the collected GPU evidence has {bytes} bytes, more than {MAX_COLLECTED_BYTES}")]
    TooLarge {
        /// Length received.
        bytes: usize,
    },
    /// Not a JSON list of `{arch, evidence, certificate}`.
    #[error("not NVIDIA's list of GPU evidence: {0}")]
    Json(String),
    /// Not base64.
    #[error("GPU {index}: {field} is not base64")]
    Base64 {
        /// Position in the list.
        index: usize,
        /// Which field.
        field: &'static str,
    },
    /// Not PEM certificates.
    #[error("the certificates are not PEM")]
    Pem,
    /// A family that is not known here.
    #[error("GPU {index} is of architecture {found:?}; only HOPPER is supported")]
    Architecture {
        /// Position in the list.
        index: usize,
        /// As stated.
        found: String,
    },
}

impl GpuEvidence {
    /// Evidence of a Hopper GPU from a raw report and its PEM certificates. Up to three zero bytes
    /// after the report's signature, which some drivers append, are dropped.
    pub fn from_report(report: &[u8], certificates_pem: &[u8]) -> Result<Self, CollectedError> {
        Ok(Self {
            architecture: GpuArchitecture::Hopper,
            report: without_padding(report).to_vec(),
            certificates: certificates(certificates_pem)?,
        })
    }

    /// Reads what `nvattest collect-evidence` gives, which is also what dstack's `AttestGpu` returns
    /// (format `nvidia-nvattest-collect-evidence-json-v1`): a JSON list, or an object that has the
    /// list as `evidences`.
    pub fn from_collected(json: &[u8]) -> Result<Vec<Self>, CollectedError> {
        #[derive(Deserialize)]
        struct Item {
            arch: String,
            evidence: String,
            certificate: String,
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Collected {
            List(Vec<Item>),
            Wrapped { evidences: Vec<Item> },
        }
        if json.len() > MAX_COLLECTED_BYTES {
            return Err(CollectedError::TooLarge { bytes: json.len() });
        }
        let collected =
            serde_json::from_slice(json).map_err(|error| CollectedError::Json(error.to_string()))?;
        let (Collected::List(items) | Collected::Wrapped { evidences: items }) = collected;
        let read = |(index, item): (usize, Item)| {
            let decode = |field, text: &str| {
                STANDARD.decode(text).map_err(|_| CollectedError::Base64 { index, field })
            };
            if !item.arch.eq_ignore_ascii_case("hopper") {
                return Err(CollectedError::Architecture { index, found: item.arch });
            }
            let report = decode("evidence", &item.evidence)?;
            Self::from_report(&report, &decode("certificate", &item.certificate)?)
        };
        items.into_iter().enumerate().map(read).collect()
    }
}

fn without_padding(bytes: &[u8]) -> &[u8] {
    let Some(length) = report::stated_length(bytes) else {
        return bytes;
    };
    match bytes.split_at_checked(length) {
        Some((report, rest)) if rest.len() <= MAX_PADDING && rest.iter().all(|byte| *byte == 0) => report,
        _ => bytes,
    }
}

/// DER of each PEM block, which must all be certificates.
fn certificates(pem: &[u8]) -> Result<Vec<Vec<u8>>, CollectedError> {
    const END: &str = "-----END CERTIFICATE-----";
    let text = std::str::from_utf8(pem).map_err(|_| CollectedError::Pem)?;
    let mut blocks = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let end = rest.find(END).ok_or(CollectedError::Pem)? + END.len();
        let (block, after) = rest.split_at(end);
        let (label, document) = der::Document::from_pem(block).map_err(|_| CollectedError::Pem)?;
        if label != "CERTIFICATE" || blocks.len() > MAX_GPUS {
            return Err(CollectedError::Pem);
        }
        blocks.push(document.into_vec());
        rest = after.trim_start();
    }
    Ok(blocks)
}

/// What a quote commits to about GPUs: SHA-256 over every report and certificate, each with its length.
pub fn evidence_hash(gpus: &[GpuEvidence]) -> [u8; 32] {
    let mut input = Vec::new();
    push_prefixed(&mut input, b"cohort-gpu-evidence/1");
    for gpu in gpus {
        push_prefixed(&mut input, gpu.architecture.as_str().as_bytes());
        push_prefixed(&mut input, &gpu.report);
        for certificate in &gpu.certificates {
            push_prefixed(&mut input, certificate);
        }
    }
    Sha256::digest(&input).into()
}

mod hex_list {
    use cohort_protocol::hex_digits;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(list: &[Vec<u8>], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(list.iter().map(hex::encode))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Vec<u8>>, D::Error> {
        let list = Vec::<String>::deserialize(deserializer)?;
        list.iter().map(|text| hex_digits::decode(text).map_err(D::Error::custom)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(report: &[u8], certificates: &[&[u8]]) -> GpuEvidence {
        GpuEvidence {
            architecture: GpuArchitecture::Hopper,
            report: report.to_vec(),
            certificates: certificates.iter().map(|der| der.to_vec()).collect(),
        }
    }

    #[test]
    fn the_hash_knows_where_each_part_ends() {
        let base = evidence_hash(&[gpu(b"ab", &[b"c", b"d"])]);
        assert_ne!(base, evidence_hash(&[gpu(b"a", &[b"bc", b"d"])]));
        assert_ne!(base, evidence_hash(&[gpu(b"ab", &[b"cd"])]));
        assert_ne!(base, evidence_hash(&[gpu(b"ab", &[b"c", b"d"]), gpu(b"", &[])]));
        assert_ne!(base, evidence_hash(&[]));
    }

    #[test]
    fn another_architecture_is_named() {
        let json = br#"[{"arch":"BLACKWELL","nonce":"00","evidence":"AA==","certificate":"AA=="}]"#;
        let found = "BLACKWELL".to_owned();
        assert_eq!(GpuEvidence::from_collected(json), Err(CollectedError::Architecture { index: 0, found }));
    }

    #[test]
    fn what_is_not_pem_is_refused() {
        for text in ["x", "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\nx"] {
            assert_eq!(GpuEvidence::from_report(b"", text.as_bytes()), Err(CollectedError::Pem), "{text}");
        }
    }
}
