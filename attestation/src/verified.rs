//! The result of a successful verification.

use dcap_qvl::quote::TDReport10;
use dcap_qvl::{QuoteClaims, TcbStatus};
use serde::Serialize;

use crate::boot::{BootIdentity, KeyProvider};
use cohort_protocol::{abi::boot::AppBootInfo, ids::ComposeHash};

use crate::bytes::{AppId, DeviceId, InstanceId, MrAggregated, MrSystem, OsImageHash, Register};
use crate::dstack::{self, MrConfig};
use crate::gpu::GpuState;
use crate::policy::{Platform, TrustedRoot, advisories};

/// A virtual machine whose evidence was verified. Only [`crate::verify`] makes one.
///
/// Serializes for audit records; it cannot be deserialized.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifiedTd {
    platform: Platform,
    app_id: AppId,
    compose_hash: ComposeHash,
    instance_id: Option<InstanceId>,
    device_id: DeviceId,
    os_image_hash: Option<OsImageHash>,
    key_provider: KeyProvider,
    #[serde(skip_serializing_if = "Option::is_none")]
    gpu_state: Option<GpuState>,
    mr_system: MrSystem,
    mr_aggregated: MrAggregated,
    boot_mr_system: MrSystem,
    boot_mr_aggregated: MrAggregated,
    mrtd: Register,
    rtmrs: [Register; 4],
    mr_config: MrConfig,
    #[serde(with = "hex::serde")]
    report_data: [u8; 64],
    tcb_status: TcbStatus,
    advisory_ids: Vec<String>,
    tcb_evaluation: u32,
    tcb_date: u64,
    #[serde(with = "hex::serde")]
    fmspc: [u8; 6],
    #[serde(with = "hex::serde")]
    root_key_id: [u8; 48],
    collateral_expires_at: u64,
}

impl VerifiedTd {
    /// The kind of platform, by the root that was trusted.
    pub fn platform(&self) -> Platform {
        self.platform
    }

    /// dstack app id.
    pub fn app_id(&self) -> AppId {
        self.app_id
    }

    /// SHA-256 of the app-compose bytes, as measured.
    pub fn compose_hash(&self) -> ComposeHash {
        self.compose_hash
    }

    /// dstack instance id; `None` if the app asks for none.
    pub fn instance_id(&self) -> Option<InstanceId> {
        self.instance_id
    }

    /// dstack device id of the machine.
    pub fn device_id(&self) -> DeviceId {
        self.device_id
    }

    /// The `os-image-hash` event, if any. The guest image writes it, so it is as good as the image
    /// that [`Self::mrtd`] and RTMR0 to RTMR2 identify.
    pub fn os_image_hash(&self) -> Option<OsImageHash> {
        self.os_image_hash
    }

    /// Where the guest got its app keys.
    pub fn key_provider(&self) -> &KeyProvider {
        &self.key_provider
    }

    /// What measured boot code found about GPUs. As good as the image that [`Self::mr_system`] names.
    pub fn gpu_state(&self) -> Option<&GpuState> {
        self.gpu_state.as_ref()
    }

    /// dstack `mr_system` as of now.
    pub fn mr_system(&self) -> MrSystem {
        self.mr_system
    }

    /// dstack `mr_aggregated` as of now.
    pub fn mr_aggregated(&self) -> MrAggregated {
        self.mr_aggregated
    }

    /// `mr_system` as dstack's KMS saw it at boot, before the `key-provider` event.
    pub fn boot_mr_system(&self) -> MrSystem {
        self.boot_mr_system
    }

    /// `mr_aggregated` as dstack's KMS saw it at boot, up to `boot-mr-done`.
    pub fn boot_mr_aggregated(&self) -> MrAggregated {
        self.boot_mr_aggregated
    }

    /// Measurement of the initial virtual machine (virtual firmware).
    pub fn mrtd(&self) -> Register {
        self.mrtd
    }

    /// RTMR0 to RTMR3.
    pub fn rtmrs(&self) -> &[Register; 4] {
        &self.rtmrs
    }

    /// How the host bound the app's configuration into MR_CONFIG_ID.
    pub fn mr_config(&self) -> MrConfig {
        self.mr_config
    }

    /// The report data: what the virtual machine wanted to have signed.
    pub fn report_data(&self) -> &[u8; 64] {
        &self.report_data
    }

    /// TCB status, converged over platform, TDX module and quoting enclave.
    pub fn tcb_status(&self) -> TcbStatus {
        self.tcb_status
    }

    /// Advisories that apply to the platform, sorted, each once.
    pub fn advisory_ids(&self) -> &[String] {
        &self.advisory_ids
    }

    /// TCB evaluation data number of the collateral.
    pub fn tcb_evaluation(&self) -> u32 {
        self.tcb_evaluation
    }

    /// Date of the platform's TCB level, Unix seconds.
    pub fn tcb_date(&self) -> u64 {
        self.tcb_date
    }

    /// Platform family.
    pub fn fmspc(&self) -> &[u8; 6] {
        &self.fmspc
    }

    /// SHA-384 of the trusted root's public key point.
    pub fn root_key_id(&self) -> &[u8; 48] {
        &self.root_key_id
    }

    /// The boot information that dstack's contracts are asked about, as of now: `mr_aggregated` and `mr_system` over
    /// all of RTMR3. What the guest has none of (instance id, image hash) is zero, as dstack sends it.
    pub fn boot_info(&self) -> AppBootInfo {
        AppBootInfo {
            appId: self.app_id.0.into(),
            composeHash: self.compose_hash.0,
            instanceId: self.instance_id.map(|id| id.0).unwrap_or_default().into(),
            deviceId: self.device_id.0.into(),
            mrAggregated: self.mr_aggregated.0.into(),
            mrSystem: self.mr_system.0.into(),
            osImageHash: self.os_image_hash.map(|hash| hash.0).unwrap_or_default().into(),
            tcbStatus: self.tcb_status.to_string(),
            advisoryIds: self.advisory_ids.clone(),
        }
    }

    /// When the first part of the collateral expires, Unix seconds.
    pub fn collateral_expires_at(&self) -> u64 {
        self.collateral_expires_at
    }
}

/// RTMR0 to RTMR3 of a report.
pub(crate) fn registers(report: &TDReport10) -> [Register; 4] {
    [report.rt_mr0, report.rt_mr1, report.rt_mr2, report.rt_mr3].map(Register)
}

/// Draws the conclusion from evidence that has passed every check.
pub(crate) fn conclude(
    report: &TDReport10,
    identity: &BootIdentity,
    mr_config: MrConfig,
    claims: &QuoteClaims,
    root: &TrustedRoot,
) -> VerifiedTd {
    let mut advisory_ids: Vec<String> = advisories(claims).cloned().collect();
    advisory_ids.sort();
    advisory_ids.dedup();
    VerifiedTd {
        platform: root.platform(),
        app_id: identity.app_id,
        compose_hash: identity.compose_hash,
        instance_id: identity.instance_id,
        device_id: dstack::device_id(&claims.platform.pck.ppid),
        os_image_hash: identity.os_image_hash,
        key_provider: identity.key_provider.clone(),
        gpu_state: identity.gpu_state.clone(),
        mr_system: dstack::mr_system(report, Some(identity.key_provider.digest())),
        mr_aggregated: dstack::mr_aggregated(report, &Register(report.rt_mr3)),
        boot_mr_system: dstack::mr_system(report, None),
        boot_mr_aggregated: dstack::mr_aggregated(report, &identity.boot_rtmr3),
        mrtd: Register(report.mr_td),
        rtmrs: registers(report),
        mr_config,
        report_data: report.report_data,
        tcb_status: claims.tcb.status,
        advisory_ids,
        tcb_evaluation: claims.tcb.eval_data_number,
        tcb_date: claims.platform.tcb_date_tag,
        fmspc: claims.platform.pck.fmspc,
        root_key_id: *root.key_id(),
        collateral_expires_at: claims.earliest_expiration_date,
    }
}
