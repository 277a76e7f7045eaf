//! The measurements that dstack derives from a TD report, computed as dstack computes them, so that
//! they compare with what `DstackKms` and `DstackApp` hold on chain.

use dcap_qvl::quote::TDReport10;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use sha3::Keccak256;

use crate::boot::BootIdentity;
use crate::bytes::{AppId, DeviceId, InstanceId, MrAggregated, MrSystem, Register};

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

    /// The values that MR_CONFIG_ID may have for this identity: of the forms but [`Self::V3`] one at most. None if the
    /// identity has no such form (an unknown key provider, or a provider id that is not hex).
    pub fn expected(self, identity: &BootIdentity) -> Vec<[u8; 48]> {
        let (version, digests) = match self {
            Self::Unset => return vec![[0; 48]],
            Self::V1 => (1, vec![*identity.compose_hash.as_bytes()]),
            Self::V2 => (2, v2_digest(identity).into_iter().collect()),
            Self::V3 => (3, v3_digests(identity)),
        };
        let value = |digest: [u8; 32]| {
            let mut value = [0; 48];
            let bytes = std::iter::once(version).chain(digest);
            value.iter_mut().zip(bytes).for_each(|(place, byte)| *place = byte);
            value
        };
        digests.into_iter().map(value).collect()
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

/// The document that dstack's host writes in RFC 8785 form, rebuilt from the measured identity. What is empty is left
/// out; the policy for GPUs stands in it only where the host attached one, the init scripts only from version 3 of the
/// app-compose file on. Neither choice is measured, so that the document is any of the (at most four) that result.
fn v3_digests(identity: &BootIdentity) -> Vec<[u8; 32]> {
    #[derive(Clone, Serialize)]
    struct Document<'a> {
        version: u8,
        app_id: AppId,
        #[serde(with = "hex::serde")]
        compose_hash: &'a [u8; 32],
        #[serde(skip_serializing_if = "Option::is_none")]
        gpu_policy_hash: Option<String>,
        key_provider: &'a str,
        #[serde(skip_serializing_if = "String::is_empty")]
        key_provider_id: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        instance_id: Option<InstanceId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        init_script_hashes: Option<Vec<String>>,
    }
    let known =
        key_provider_kind(identity.key_provider.name()).zip(hex::decode(identity.key_provider.id()).ok());
    let Some(((_, key_provider), key_provider_id)) = known else {
        return Vec::new();
    };
    let plain = Document {
        version: 3,
        app_id: identity.app_id,
        compose_hash: identity.compose_hash.as_bytes(),
        gpu_policy_hash: None,
        key_provider,
        key_provider_id: hex::encode(key_provider_id),
        instance_id: identity.instance_id,
        init_script_hashes: None,
    };
    let gpus = identity.gpu_policy_hash.map(|hash| Some(hex::encode(hash)));
    let scripts: Vec<String> = identity.init_script_hashes.iter().map(hex::encode).collect();
    let mut documents = Vec::new();
    for gpu_policy_hash in std::iter::once(None).chain(gpus) {
        for init_script_hashes in [None, Some(scripts.clone())] {
            documents.push(Document {
                gpu_policy_hash: gpu_policy_hash.clone(),
                init_script_hashes,
                ..plain.clone()
            });
        }
    }
    documents
        .iter()
        .filter_map(|document| serde_json_canonicalizer::to_vec(document).ok())
        .map(v3_digest)
        .collect()
}

fn v3_digest(document: Vec<u8>) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"dstack-mr-config-v3:\0");
    hash.update(document);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::tests::identity;

    const PROVIDER: &[u8] =
        br#"{"name":"kms","id":"3333333333333333333333333333333333333333333333333333333333333333"}"#;

    fn v3(instance: &[u8], more: &[(&'static str, Vec<u8>)]) -> Vec<String> {
        let identity = identity([0x11; 20], [0x22; 32], instance, PROVIDER, more);
        MrConfig::V3.expected(&identity).iter().map(hex::encode).collect()
    }

    /// SHA-256 of the documents as dstack 0.6.0 writes them, computed apart from this code.
    #[test]
    fn form_3_is_dstacks() {
        let plain = "0350fc88d0a462b6a0b06ba25859abc02e98c2a8d9bd000b7dc0d8bae65e71ecbb000000000000000000000000000000";
        let gpu = "0390e5cffa571b22c2ca846872d6fb7b071aa1346f1a1f87f72869c47b39d94099000000000000000000000000000000";
        let both = "030dcec413b032b86b0a6160c7d8a49bdb3fd8e3961ec0ab6ed767ed2c07961860000000000000000000000000000000";
        let none = "03debb8d1269c4e488742b986cd771a55eac18b6f02d89095ea90871714c01c679000000000000000000000000000000";
        let policy = ("gpu-policy-hash", vec![0x55; 32]);
        let scripts = [("init-script-hash", vec![0xaa; 32]), ("init-script-hash", vec![0xbb; 32])];
        let has = |values: &[String], value: &str| values.iter().any(|other| other == value);
        let found = v3(&[0x44; 20], &[]);
        assert!(has(&found, plain) && !has(&found, gpu) && found.len() == 2, "{found:?}");
        let found = v3(&[0x44; 20], &[scripts[0].clone(), scripts[1].clone(), policy.clone()]);
        assert!(has(&found, plain) && has(&found, gpu) && has(&found, both) && found.len() == 4, "{found:?}");
        let swapped = v3(&[0x44; 20], &[scripts[1].clone(), scripts[0].clone(), policy]);
        assert!(has(&swapped, gpu) && !has(&swapped, both), "the order of the scripts counts");
        assert!(has(&v3(&[], &[]), none), "an app without instance id and without scripts");
    }

    /// Computed apart from this code, for each kind of provider.
    #[test]
    fn form_2_is_dstacks() {
        for (name, id, value) in [
            ("none", "", "022b90c730130d4ba9f7669253e5a0fb289b5688914f8e1f81efdf97e6d1142a81"),
            ("local-sgx", "33", "0257edb6ccd079b0a63e4c612e4ac84c0ad905a481f0c8619dccdc3de87882b5ca"),
            ("kms", "33", "027f2ca741da9d356026ab20ca640abf06198829a128817b091bbc9aec1ed97b60"),
            ("tpm", "", "02d728d791f15fa14f415b0d71c524ec1b0816321ce9c5707e911d55f84eeb4d17"),
        ] {
            let provider = format!(r#"{{"name":"{name}","id":"{}"}}"#, id.repeat(32));
            let identity = identity([0x11; 20], [0x22; 32], &[0x44; 20], provider.as_bytes(), &[]);
            let [found] = MrConfig::V2.expected(&identity)[..] else { panic!("{name}") };
            assert_eq!(hex::encode(&found[..33]), value, "{name}");
            assert_eq!(found[33..], [0; 15], "{name}");
        }
    }

    #[test]
    fn a_provider_that_dstack_does_not_know_has_no_value() {
        for provider in [&br#"{"name":"x","id":""}"#[..], br#"{"name":"kms","id":"xx"}"#] {
            let identity = identity([1; 20], [2; 32], &[3; 20], provider, &[]);
            assert!(
                MrConfig::V2.expected(&identity).is_empty() && MrConfig::V3.expected(&identity).is_empty()
            );
            assert_eq!(MrConfig::V1.expected(&identity).len(), 1);
        }
    }
}
