//! Development GPUs: NVIDIA's evidence in real structures, under a root of its own, with the reference
//! manifests (RIM) that describe them.
//!
//! Everything derives from the development platform's seed. The names say `NOT NVIDIA`.

mod pki;
mod report;
mod rim;

use cohort_protocol::recipe::GpuArchitecture;
use p384::ecdsa::SigningKey;
use sha2::{Digest as _, Sha384};

use self::pki::Certified;
use super::{DevPlatform, DevPlatformError};
use crate::gpu::{BLOCKS, GpuEvidence, Mode};

/// Driver that development GPUs claim to run.
pub const DRIVER_VERSION: &str = "999.00.01";
/// Their VBIOS version.
pub const VBIOS_VERSION: &str = "DE.50.00.00.01";
/// Bytes of the VBIOS version in a report.
const VBIOS_BYTES: [u8; 8] = [0x00, 0x00, 0x50, 0xDE, 0x01, 0, 0, 0];

/// The GPUs of a development machine.
#[derive(Clone)]
pub struct DevGpus {
    root: Certified,
    rim_root: Certified,
    rim_signer: Vec<Certified>,
    model: Certified,
    provisioner: Certified,
    gpus: Vec<DevGpu>,
}

#[derive(Clone)]
struct DevGpu {
    device: Certified,
    leaf: Certified,
}

/// What a report is made to say, for evidence that must be refused.
#[derive(Debug, Clone)]
pub struct ReportOptions {
    /// Nonce that it answers.
    pub nonce: [u8; 32],
    /// Mode of the GPU.
    pub mode: Mode,
    /// A block whose measurement is another one.
    pub tampered_block: Option<u8>,
    /// Whether it names other firmware than its certificate.
    pub other_firmware: bool,
}

impl ReportOptions {
    /// A good report of one of `gpus` GPUs.
    pub fn good(nonce: [u8; 32], gpus: usize) -> Self {
        let mode = if gpus == 1 { Mode::Single } else { Mode::Multiple };
        Self { nonce, mode, tampered_block: None, other_firmware: false }
    }
}

impl DevGpus {
    /// This many GPUs in the machine.
    pub fn of_platform(platform: &DevPlatform, gpus: u32) -> Result<Self, DevPlatformError> {
        Self::of_chip(platform, gpus, "GH100")
    }

    /// The same with devices whose certificates name this chip: NVIDIA's root certifies others than Hopper's GH100.
    pub fn of_chip(platform: &DevPlatform, gpus: u32, chip: &str) -> Result<Self, DevPlatformError> {
        let seed = platform.seed();
        let root = pki::root(seed, "Cohort Development Device Identity CA - NOT NVIDIA")?;
        let model = pki::authority(seed, "Cohort Development Model - NOT NVIDIA", &root)?;
        let provisioner = pki::authority(seed, "Cohort Development Provisioner - NOT NVIDIA", &model)?;
        let make = |index: u32| {
            let name = format!("{chip} Cohort Development GPU {index} - NOT NVIDIA");
            let device = pki::authority(seed, &name, &provisioner)?;
            let leaf = pki::leaf(seed, &format!("{name} firmware"), &device, &firmware_id())?;
            Ok(DevGpu { device, leaf })
        };
        let gpus = (0..gpus).map(make).collect::<Result<_, DevPlatformError>>()?;
        let rim_root = pki::root(seed, "Cohort Development RIM signing Root CA - NOT NVIDIA")?;
        let rim_family = pki::authority(seed, "Cohort Development Reference Value - NOT NVIDIA", &rim_root)?;
        let rim_issuer =
            pki::authority(seed, "Cohort Development Reference Value L3 - NOT NVIDIA", &rim_family)?;
        let rim_leaf = pki::signer(seed, "Cohort Development RIM Signer - NOT NVIDIA", &rim_issuer)?;
        let rim_signer = vec![rim_leaf, rim_issuer, rim_family];
        Ok(Self { root, rim_root, rim_signer, model, provisioner, gpus })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.gpus.len()
    }

    /// DER of the device root, for [`crate::gpu::GpuRoot::development`].
    pub fn root_certificate_der(&self) -> Result<Vec<u8>, DevPlatformError> {
        self.root.der()
    }

    /// PEM of the device root.
    pub fn root_certificate_pem(&self) -> Result<String, DevPlatformError> {
        self.root.pem()
    }

    /// DER of the root of the reference manifests.
    pub fn rim_root_certificate_der(&self) -> Result<Vec<u8>, DevPlatformError> {
        self.rim_root.der()
    }

    /// PEM of the root of the reference manifests.
    pub fn rim_root_certificate_pem(&self) -> Result<String, DevPlatformError> {
        self.rim_root.pem()
    }

    /// Evidence of all GPUs for a nonce.
    pub fn evidence(&self, nonce: &[u8; 32]) -> Result<Vec<GpuEvidence>, DevPlatformError> {
        let options = ReportOptions::good(*nonce, self.gpus.len());
        (0..self.gpus.len()).map(|index| self.evidence_of(index, &options)).collect()
    }

    /// Evidence of one GPU that says what it is made to say.
    pub fn evidence_of(
        &self,
        index: usize,
        options: &ReportOptions,
    ) -> Result<GpuEvidence, DevPlatformError> {
        let gpu = self.gpus.get(index).ok_or_else(|| DevPlatformError::Issue {
            what: "GPU evidence",
            detail: format!("there is no GPU {index}"),
        })?;
        let chain = [&gpu.leaf, &gpu.device, &self.provisioner, &self.model, &self.root];
        Ok(GpuEvidence {
            architecture: GpuArchitecture::Hopper,
            report: report::report(gpu.key(), options),
            certificates: chain.into_iter().map(Certified::der).collect::<Result<_, _>>()?,
        })
    }

    /// What NVIDIA's collector prints for a nonce: the bytes that dstack's `AttestGpu` returns.
    pub fn collected(&self, nonce: &[u8; 32]) -> Result<Vec<u8>, DevPlatformError> {
        use base64::Engine as _;
        use base64::engine::general_purpose::STANDARD;
        let options = ReportOptions::good(*nonce, self.gpus.len());
        let item = |gpu: &DevGpu| {
            let chain = [&gpu.leaf, &gpu.device, &self.provisioner, &self.model, &self.root];
            let pem = chain.into_iter().map(Certified::pem).collect::<Result<String, _>>()?;
            Ok(serde_json::json!({
                "arch": "HOPPER",
                "certificate": STANDARD.encode(pem),
                "driver_version": DRIVER_VERSION,
                "evidence": STANDARD.encode(report::report(gpu.key(), &options)),
                "nonce": hex::encode(nonce),
                "vbios_version": VBIOS_VERSION,
                "version": "1.0",
            }))
        };
        let items = self.gpus.iter().map(item).collect::<Result<Vec<_>, DevPlatformError>>()?;
        Ok(serde_json::Value::from(items).to_string().into_bytes())
    }

    /// The reference manifests of the driver and of the VBIOS, as signed XML.
    pub fn manifests(&self) -> Result<[String; 2], DevPlatformError> {
        let chain = self.rim_signer.iter().chain([&self.rim_root]);
        let chain = chain.map(Certified::der).collect::<Result<Vec<_>, _>>()?;
        let key = self.rim_signer.first().map(|leaf| &leaf.key).ok_or_else(|| DevPlatformError::Issue {
            what: "a reference manifest",
            detail: "no signer".to_owned(),
        })?;
        Ok([
            rim::manifest(key, &chain, DRIVER_VERSION, DRIVER_BLOCKS),
            rim::manifest(key, &chain, VBIOS_VERSION, VBIOS_BLOCKS),
        ])
    }
}

impl DevGpu {
    fn key(&self) -> &SigningKey {
        &self.leaf.key
    }
}

/// Blocks that the driver's manifest describes; the VBIOS's describes the rest.
const DRIVER_BLOCKS: std::ops::RangeInclusive<usize> = 20..=40;
const VBIOS_BLOCKS: std::ops::RangeInclusive<usize> = 1..=12;

/// Measurement of a block, 1 to 64: zero where no manifest says anything.
fn measurement(block: usize) -> [u8; 48] {
    if DRIVER_BLOCKS.contains(&block) || VBIOS_BLOCKS.contains(&block) {
        return Sha384::digest(format!("cohort development GPU block {block}")).into();
    }
    [0; 48]
}

fn firmware_id() -> [u8; 48] {
    Sha384::digest(b"cohort development GPU firmware").into()
}

const _: () = assert!(*DRIVER_BLOCKS.end() <= BLOCKS);
