//! Verification of one GPU's report: form, chain, signature, nonce, firmware.

use cohort_protocol::recipe::GpuArchitecture;
use ring::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::certificates::verify_chain;
use super::evidence::{GpuEvidence, MAX_CERTIFICATE_BYTES, MAX_REPORT_BYTES};
use super::firmware::{self, DICE_EXTENSION};
use super::opaque::Mode;
use super::policy::{GpuPlatform, GpuRoot};
use super::refusal::GpuRefusal;
use super::report::Report;

/// Leaf, device, provisioner, model, root.
const CERTIFICATES: usize = 5;

/// A GPU whose report was verified: a device with a certified key answered the nonce. Only [`verify`]
/// makes one. It does not say that its firmware is good, nor where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifiedGpu {
    platform: GpuPlatform,
    architecture: GpuArchitecture,
    #[serde(with = "hex::serde")]
    device_id: [u8; 32],
    driver_version: String,
    vbios_version: String,
    board: [Option<String>; 3],
    mode: Mode,
    nvdec0_is_on: bool,
    #[serde(with = "hex::serde")]
    firmware_id: [u8; 48],
    #[serde(with = "hex::serde")]
    root_sha256: [u8; 32],
    #[serde(skip)]
    blocks: Vec<[u8; 48]>,
}

impl VerifiedGpu {
    /// The kind of GPU, by the root that was trusted.
    pub fn platform(&self) -> GpuPlatform {
        self.platform
    }

    /// Family of the chip.
    pub fn architecture(&self) -> GpuArchitecture {
        self.architecture
    }

    /// SHA-256 of the device's public key point: the same for every boot of one device.
    pub fn device_id(&self) -> &[u8; 32] {
        &self.device_id
    }

    /// As the report states it.
    pub fn driver_version(&self) -> &str {
        &self.driver_version
    }

    /// As the report states it, five bytes in hex with dots between.
    pub fn vbios_version(&self) -> &str {
        &self.vbios_version
    }

    /// Project, project SKU and chip SKU, where stated.
    pub fn board(&self) -> &[Option<String>; 3] {
        &self.board
    }

    /// How it shares the virtual machine with others.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether the video decoder that block 36 measures is on.
    pub fn nvdec0_is_on(&self) -> bool {
        self.nvdec0_is_on
    }

    /// SHA-256 of the trusted root's DER.
    pub fn root_sha256(&self) -> &[u8; 32] {
        &self.root_sha256
    }

    /// Value of an SPDM measurement block, 1 to 64.
    pub fn measurement(&self, block: u8) -> Option<&[u8; 48]> {
        self.blocks.get(usize::from(block).checked_sub(1)?)
    }
}

/// Verifies the report of one GPU at `now` (Unix seconds). `nonce` is what the caller's protocol
/// requires the report to answer.
///
/// # Errors
/// The first reason found. What costs little is checked first, the signatures after it.
pub fn verify(
    evidence: &GpuEvidence,
    root: &GpuRoot,
    nonce: &[u8; 32],
    now: u64,
) -> Result<VerifiedGpu, GpuRefusal> {
    let bytes = evidence.report.len();
    if bytes > MAX_REPORT_BYTES {
        return Err(GpuRefusal::ReportTooLarge { bytes });
    }
    let report = Report::parse(&evidence.report).map_err(GpuRefusal::Report)?;
    if report.nonce != *nonce {
        return Err(GpuRefusal::NonceMismatch);
    }
    let certificates = &evidence.certificates;
    let chain = verify_chain(certificates, CERTIFICATES, MAX_CERTIFICATE_BYTES, root.sha256(), now)
        .map_err(GpuRefusal::Chain)?;
    let architecture = evidence.architecture;
    let device = chain.issuer_name();
    if device.split(' ').next() != Some(chip(architecture)) {
        return Err(GpuRefusal::OtherChip { device, architecture });
    }
    UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, chain.leaf_point())
        .verify(report.signed, report.signature)
        .map_err(|_| GpuRefusal::Signature)?;
    let extension = chain.leaf_extension(DICE_EXTENSION).ok_or(GpuRefusal::FirmwareUnknown)?;
    let dice = firmware::parse(extension).ok_or(GpuRefusal::FirmwareUnknown)?;
    if dice.firmware_id != report.opaque.firmware_id || dice.device_point != chain.issuer_point() {
        return Err(GpuRefusal::FirmwareMismatch);
    }
    let opaque = report.opaque;
    Ok(VerifiedGpu {
        platform: root.platform(),
        architecture,
        device_id: Sha256::digest(chain.issuer_point()).into(),
        driver_version: opaque.driver_version,
        vbios_version: opaque.vbios_version,
        board: opaque.board,
        mode: opaque.mode,
        nvdec0_is_on: opaque.nvdec0_is_on,
        firmware_id: opaque.firmware_id,
        root_sha256: *root.sha256(),
        blocks: report.blocks,
    })
}

/// How device certificates name the chips of a family. NVIDIA's one root is also that of other families and of NVSwitches,
/// some of which are even certified below Hopper's model certificate.
const fn chip(architecture: GpuArchitecture) -> &'static str {
    match architecture {
        GpuArchitecture::Hopper => "GH100",
    }
}
