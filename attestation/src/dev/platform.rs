//! One development machine: its certificates, what "Intel" publishes about it, and its quotes.

use p256::ecdsa::SigningKey;

use super::pki::{self, Certified, Subject};
use super::published::{self, CollateralOptions};
use super::quote::{self, QuoteVersion, Signer, TdMeasurements};
use super::{DevPlatformError, PckFlags, pck};
use crate::bytes::DeviceId;
use crate::collateral::Collateral;
use crate::dstack;

/// Family of the machine: no real FMSPC.
pub(super) const FMSPC: [u8; 6] = [0xDE, 0x50, 0x00, 0x00, 0x00, 0x00];
pub(super) const PCE_ID: [u8; 2] = [0, 0];
pub(super) const PCE_SVN: u8 = 13;
pub(super) const CPU_SVN: [u8; 16] = [2, 2, 2, 2, 3, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0];
/// TDX module ISVSVN 5 of module version 1, microcode SVN 2.
pub(super) const TEE_TCB_SVN: [u8; 16] = [5, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// A machine that signs TDX quotes under a root of its own.
#[derive(Clone)]
pub struct DevPlatform {
    seed: [u8; 32],
    ppid: [u8; 16],
    root: Certified<SigningKey>,
    pck_ca: Certified<SigningKey>,
    pck: Certified<SigningKey>,
    tcb_signer: Certified<SigningKey>,
    attestation_key: SigningKey,
}

impl DevPlatform {
    /// The platform of a seed.
    pub fn from_seed(seed: [u8; 32]) -> Result<Self, DevPlatformError> {
        Self::with_flags(seed, PckFlags::default())
    }

    /// The platform of a seed, with these flags in its PCK certificate.
    pub fn with_flags(seed: [u8; 32], flags: PckFlags) -> Result<Self, DevPlatformError> {
        let key = |label| pki::signing_key(&seed, label);
        let not_after = pki::NOT_AFTER;
        let subject =
            |what, common_name, is_ca| Subject { what, common_name, not_after, is_ca, extension: None };
        let root = subject("the root", "Cohort Development Root CA - NOT INTEL", true);
        let root = pki::certify(root, key("root")?, None)?;
        let pck_ca = subject("the PCK CA", "Cohort Development PCK Platform CA - NOT INTEL", true);
        let pck_ca = pki::certify(pck_ca, key("pck ca")?, Some(&root))?;
        let signer = subject("the TCB signer", "Cohort Development TCB Signing - NOT INTEL", false);
        let tcb_signer = pki::certify(signer, key("tcb signer")?, Some(&root))?;
        let [ppid, instance] = ["ppid", "platform instance"].map(|label| {
            let [bytes @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = pki::derive(&seed, label);
            bytes
        });
        let mut leaf = subject("the PCK", "Cohort Development PCK - NOT INTEL", false);
        leaf.extension = Some(pck::sgx_extension(&ppid, &instance, flags)?);
        let pck = pki::certify(leaf, key("pck")?, Some(&pck_ca))?;
        let attestation_key = key("attestation key")?;
        Ok(Self { seed, ppid, root, pck_ca, pck, tcb_signer, attestation_key })
    }

    pub(super) fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// DER of the root certificate, for [`crate::TrustedRoot::development`].
    pub fn root_certificate_der(&self) -> Result<Vec<u8>, DevPlatformError> {
        self.root.der()
    }

    /// PEM of the root certificate.
    pub fn root_certificate_pem(&self) -> Result<String, DevPlatformError> {
        self.root.pem()
    }

    /// dstack device id of this machine.
    pub fn device_id(&self) -> DeviceId {
        dstack::device_id(&self.ppid)
    }

    /// The seed of the instance with this name, for [`super::DevGuest::new`].
    pub fn instance_seed(&self, name: &str) -> [u8; 32] {
        pki::derive(&self.seed, &format!("instance/{name}"))
    }

    /// Collateral that is valid at `now_secs` (Unix seconds) and for 30 days after.
    pub fn collateral(&self, now_secs: u64) -> Result<Collateral, DevPlatformError> {
        self.collateral_with(&CollateralOptions::at(now_secs))
    }

    /// Collateral that says something else.
    pub fn collateral_with(&self, options: &CollateralOptions) -> Result<Collateral, DevPlatformError> {
        let (from, until) = (options.valid_from, options.expires_at);
        let tcb_info = published::tcb_info(options)?;
        let qe_identity = published::qe_identity(options)?;
        let revoked: &[&Certified<SigningKey>] = if options.pck_is_revoked { &[&self.pck] } else { &[] };
        let signer_chain = [self.tcb_signer.pem()?, self.root.pem()?].concat();
        Ok(Collateral {
            pck_crl_issuer_chain: [self.pck_ca.pem()?, self.root.pem()?].concat(),
            root_ca_crl: pki::revocation_list(&self.root, from, until, &[])?,
            pck_crl: pki::revocation_list(&self.pck_ca, from, until, revoked)?,
            tcb_info_issuer_chain: signer_chain.clone(),
            tcb_info_signature: pki::sign(&self.tcb_signer.key, tcb_info.as_bytes()).to_vec(),
            tcb_info,
            qe_identity_issuer_chain: signer_chain,
            qe_identity_signature: pki::sign(&self.tcb_signer.key, qe_identity.as_bytes()).to_vec(),
            qe_identity,
            pck_certificate_chain: None,
        })
    }

    /// A version 4 quote of a virtual machine with these measurements.
    pub fn quote(
        &self,
        measurements: &TdMeasurements,
        report_data: &[u8; 64],
    ) -> Result<Vec<u8>, DevPlatformError> {
        self.quote_of(QuoteVersion::V4, measurements, report_data)
    }

    /// A quote of this version.
    pub fn quote_of(
        &self,
        version: QuoteVersion,
        measurements: &TdMeasurements,
        report_data: &[u8; 64],
    ) -> Result<Vec<u8>, DevPlatformError> {
        let signer = Signer {
            attestation_key: &self.attestation_key,
            pck_key: &self.pck.key,
            pck_chain: [self.pck.pem()?, self.pck_ca.pem()?, self.root.pem()?].concat(),
        };
        quote::quote(&signer, version, measurements, report_data)
    }
}
