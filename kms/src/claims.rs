//! What verified evidence says, in the types that the decision and the chain use.

use alloy::primitives::{Address, B256};
use cohort_attestation::gpu::{GpuPlatform, VerifiedGpu};
use cohort_attestation::{Platform, TcbStatus, VerifiedTd};
use cohort_protocol::ids::ComposeHash;

/// The attested facts that a release depends on. Made only from a [`VerifiedTd`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    pub(crate) platform: Platform,
    pub(crate) app: Address,
    pub(crate) compose_hash: ComposeHash,
    pub(crate) instance_id: Option<Address>,
    pub(crate) device_id: B256,
    /// As the guest image states it; zero if it states none.
    pub(crate) os_image_hash: B256,
    pub(crate) mr_system: B256,
    pub(crate) mr_aggregated: B256,
    pub(crate) report_data: [u8; 64],
    pub(crate) tcb_status: TcbStatus,
    /// `listHash` of the golden values that its GPUs were compared with, where it has any.
    pub(crate) gpu_golden_values: Option<B256>,
}

impl Claims {
    /// What the virtual machine and its GPUs prove; the latter were compared with the golden values of this `listHash`.
    /// One development root makes all of it development.
    pub fn new(td: &VerifiedTd, gpus: &[VerifiedGpu], gpu_golden_values: Option<B256>) -> Self {
        let is_development = gpus.iter().any(|gpu| gpu.platform() == GpuPlatform::Development);
        Self {
            platform: if is_development { Platform::Development } else { td.platform() },
            app: Address::from(td.app_id().0),
            compose_hash: td.compose_hash(),
            instance_id: td.instance_id().map(|id| Address::from(id.0)),
            device_id: B256::from(td.device_id().0),
            os_image_hash: td.os_image_hash().map(|hash| B256::from(hash.0)).unwrap_or_default(),
            mr_system: B256::from(td.mr_system().0),
            mr_aggregated: B256::from(td.mr_aggregated().0),
            report_data: *td.report_data(),
            tcb_status: td.tcb_status(),
            gpu_golden_values,
        }
    }
}
