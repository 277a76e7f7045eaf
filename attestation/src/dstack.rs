//! The measurements that dstack derives from a TD report, computed as dstack computes them, so that
//! they compare with what `DstackKms` and `DstackApp` hold on chain.

use dcap_qvl::quote::TDReport10;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use sha3::Keccak256;

use crate::boot::BootIdentity;
use crate::bytes::{DeviceId, MrAggregated, MrSystem, Register};

/// `device_id` = SHA-256(PPID). The PPID (16 bytes) is in the PCK certificate: a guest cannot know
/// it, and a guest agent's own `device_id` is the hash of nothing.
pub fn device_id(ppid: &[u8]) -> DeviceId {
    DeviceId(Sha256::digest(ppid).into())
}

/// `mr_system` = SHA-256(MRTD || RTMR0 || RTMR1 || RTMR2 || mr_key_provider), where
/// `mr_key_provider` is SHA-256 of the `key-provider` event, or zero before that event.
pub fn mr_system(report: &TDReport10, mr_key_provider: Option<&[u8; 32]>) -> MrSystem {
    let mut hash = Sha256::new();
    for register in [&report.mr_td, &report.rt_mr0, &report.rt_mr1, &report.rt_mr2] {
        hash.update(register);
    }
    hash.update(mr_key_provider.unwrap_or(&[0; 32]));
    MrSystem(hash.finalize().into())
}

/// `mr_aggregated` = SHA-256(MRTD || RTMR0..2 || `rtmr3`), followed by MR_CONFIG_ID || MR_OWNER ||
/// MR_OWNER_CONFIG if any of these three is set.
pub fn mr_aggregated(report: &TDReport10, rtmr3: &Register) -> MrAggregated {
    let mut hash = Sha256::new();
    for register in [&report.mr_td, &report.rt_mr0, &report.rt_mr1, &report.rt_mr2] {
        hash.update(register);
    }
    hash.update(rtmr3.as_bytes());
    let config = [&report.mr_config_id, &report.mr_owner, &report.mr_owner_config];
    if config.iter().any(|value| **value != [0; 48]) {
        config.iter().for_each(|value| hash.update(value));
    }
    MrAggregated(hash.finalize().into())
}

/// How MR_CONFIG_ID names the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MrConfig {
    /// Zero: the host bound no configuration, the event log alone does.
    Unset,
    /// `01 || compose_hash || 0*15`.
    V1,
    /// `02 || Keccak-256(compose_hash || app_id || kind || key_provider_id) || 0*15`.
    V2,
    /// `03 || SHA-256("dstack-mr-config-v3:" || 00 || document) || 0*15`.
    V3,
}

impl MrConfig {
    /// The form that the first byte of a non-zero MR_CONFIG_ID announces; unknown forms are `None`.
    pub fn of(mr_config_id: &[u8; 48]) -> Option<Self> {
        match mr_config_id {
            all if *all == [0; 48] => Some(Self::Unset),
            [1, ..] => Some(Self::V1),
            [2, ..] => Some(Self::V2),
            [3, ..] => Some(Self::V3),
            _ => None,
        }
    }

    /// The value MR_CONFIG_ID must have for this identity. `None` if the identity has no such form
    /// (an unknown key provider, or a provider id that is not hex).
    pub fn expected(self, identity: &BootIdentity) -> Option<[u8; 48]> {
        let digest: [u8; 32] = match self {
            Self::Unset => return Some([0; 48]),
            Self::V1 => *identity.compose_hash.as_bytes(),
            Self::V2 => v2_digest(identity)?,
            Self::V3 => v3_digest(identity)?,
        };
        let mut value = [0; 48];
        let (version, rest) = value.split_first_mut()?;
        *version = match self {
            Self::Unset => 0,
            Self::V1 => 1,
            Self::V2 => 2,
            Self::V3 => 3,
        };
        rest.get_mut(..32)?.copy_from_slice(&digest);
        Some(value)
    }
}

/// dstack's number and name for a key provider.
fn key_provider_kind(name: &str) -> Option<(u8, &'static str)> {
    match name {
        "none" => Some((0, "none")),
        "local" | "local-sgx" => Some((1, "local")),
        "kms" => Some((2, "kms")),
        "tpm" => Some((3, "tpm")),
        _ => None,
    }
}

fn v2_digest(identity: &BootIdentity) -> Option<[u8; 32]> {
    let (kind, _) = key_provider_kind(identity.key_provider.name())?;
    let mut hash = Keccak256::new();
    hash.update(identity.compose_hash.as_bytes());
    hash.update(identity.app_id.as_bytes());
    hash.update([kind]);
    hash.update(hex::decode(identity.key_provider.id()).ok()?);
    Some(hash.finalize().into())
}

/// The document that dstack's host writes in RFC 8785 form, rebuilt from the measured identity.
fn v3_digest(identity: &BootIdentity) -> Option<[u8; 32]> {
    #[derive(Serialize)]
    struct Document<'a> {
        version: u8,
        app_id: String,
        compose_hash: String,
        key_provider: &'a str,
        key_provider_id: String,
        instance_id: String,
    }
    let (_, key_provider) = key_provider_kind(identity.key_provider.name())?;
    let document = serde_json_canonicalizer::to_vec(&Document {
        version: 3,
        app_id: identity.app_id.to_string(),
        compose_hash: hex::encode(identity.compose_hash.as_bytes()),
        key_provider,
        key_provider_id: hex::encode(hex::decode(identity.key_provider.id()).ok()?),
        instance_id: identity.instance_id.map(|id| id.to_string()).unwrap_or_default(),
    })
    .ok()?;
    let mut hash = Sha256::new();
    hash.update(b"dstack-mr-config-v3:\0");
    hash.update(&document);
    Some(hash.finalize().into())
}
