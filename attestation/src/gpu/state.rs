//! What dstack's measured boot code found about the GPUs: the `gpu-attestation` event of RTMR3.

use serde::{Deserialize, Serialize};

use super::refusal::GpuRefusal;

const VERSION: u32 = 2;
const PROVIDER: &str = "nvidia";

/// State of all GPUs at boot. As good as the image that measured it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuState {
    version: u32,
    provider: String,
    devices: u32,
    cc_mode: String,
    devtools: bool,
    evidence_sha256: String,
}

impl GpuState {
    /// What a boot that attested `devices` GPUs writes.
    #[cfg(feature = "dev-platform")]
    pub(crate) fn attested(devices: u32, evidence: &[u8]) -> Self {
        use sha2::{Digest as _, Sha256};
        Self {
            version: VERSION,
            provider: PROVIDER.to_owned(),
            devices,
            cc_mode: "on".to_owned(),
            devtools: false,
            evidence_sha256: hex::encode(Sha256::digest(evidence)),
        }
    }

    /// Reads the event's payload; `None` if it has another form or version.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let state: Self = serde_json::from_slice(payload).ok()?;
        (state.version == VERSION && state.provider == PROVIDER).then_some(state)
    }

    /// Number of GPUs that were attested.
    pub fn devices(&self) -> u32 {
        self.devices
    }

    /// Confidential computing on, no developer tools, this number of GPUs.
    pub(crate) fn check(&self, devices: u32) -> Result<(), GpuRefusal> {
        let refused = |what| Err(GpuRefusal::StateNotAccepted { what });
        if self.cc_mode != "on" {
            return refused("confidential computing is not on");
        }
        if self.devtools {
            return refused("developer tools are on");
        }
        if self.devices != devices {
            return refused("another number of GPUs was attested at boot");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(version: u32, devices: u32, cc_mode: &str, devtools: bool) -> Vec<u8> {
        let value = serde_json::json!({
            "version": version, "provider": "nvidia", "devices": devices, "cc_mode": cc_mode,
            "devtools": devtools, "evidence_sha256": "00",
        });
        value.to_string().into_bytes()
    }

    #[test]
    fn only_confidential_gpus_in_the_right_number_pass() {
        assert_eq!(GpuState::parse(&payload(2, 1, "on", false)).unwrap().check(1), Ok(()));
        for bad in [payload(2, 2, "on", false), payload(2, 1, "off", false), payload(2, 1, "on", true)] {
            let refused = GpuState::parse(&bad).unwrap().check(1).unwrap_err();
            assert_eq!(refused.code(), "gpu_state_not_accepted");
        }
        assert_eq!(GpuState::parse(&payload(1, 1, "on", false)), None);
        assert_eq!(GpuState::parse(b"{}"), None);
    }
}
