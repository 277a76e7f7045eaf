//! One development machine: its certificates, what "Intel" publishes about it, and its quotes.

use dcap_qvl::TcbStatus;
use dcap_qvl::quote::{
    AuthData, AuthDataV4, CertificationData, Data, EnclaveReport, Header,
    QEReportCertificationData, Quote, Report, TDReport10, TDReport15,
};
use der::asn1::ObjectIdentifier;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use parity_scale_codec::Encode as _;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use x509_cert::ext::Extension;

use super::pki::{self, Certified, Subject};
use super::{COLLATERAL_SECONDS, DevPlatformError};
use crate::bytes::{DeviceId, Register};
use crate::collateral::Collateral;
use crate::dstack;

const FMSPC: [u8; 6] = [0xDE, 0x50, 0x00, 0x00, 0x00, 0x00];
const PCE_ID: [u8; 2] = [0, 0];
const PCE_SVN: u8 = 13;
const CPU_SVN: [u8; 16] = [2, 2, 2, 2, 3, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0];
/// TDX module ISVSVN 5 of module version 1, microcode SVN 2.
const TEE_TCB_SVN: [u8; 16] = [5, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const QE_MR_SIGNER: [u8; 32] = [0xDE; 32];
const QE_ATTRIBUTES: [u8; 16] = [0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const QE_PROD_ID: u16 = 2;
const QE_SVN: u16 = 4;
const QE_AUTH_DATA: [u8; 32] = [0x1F; 32];
const TCB_DATE: &str = "2024-01-01T00:00:00Z";
const SGX_EXTENSION: &str = "1.2.840.113741.1.13.1";

/// Flags of the PCK certificate. The default has them all set, as on real TDX servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PckFlags {
    /// Packages may be added.
    pub dynamic_platform: bool,
    /// The registration service holds the platform root keys.
    pub cached_keys: bool,
    /// Simultaneous multithreading.
    pub smt: bool,
}

impl Default for PckFlags {
    fn default() -> Self {
        Self {
            dynamic_platform: true,
            cached_keys: true,
            smt: true,
        }
    }
}

/// What a TD report says about a virtual machine, beside the report data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TdMeasurements {
    /// MRTD.
    pub mrtd: Register,
    /// RTMR0 to RTMR3.
    pub rtmrs: [Register; 4],
    /// MR_CONFIG_ID.
    pub mr_config_id: [u8; 48],
    /// TD attributes, little endian.
    pub td_attributes: [u8; 8],
    /// MR_SERVICETD, which only a version 5 quote has.
    pub mr_service_td: [u8; 48],
}

impl TdMeasurements {
    /// SEPT_VE_DISABLE and nothing else.
    pub const TD_ATTRIBUTES: [u8; 8] = (1u64 << 28).to_le_bytes();

    pub(super) fn report(&self, report_data: &[u8; 64]) -> TDReport10 {
        let [rt_mr0, rt_mr1, rt_mr2, rt_mr3] = self.rtmrs.map(|register| register.0);
        TDReport10 {
            tee_tcb_svn: TEE_TCB_SVN,
            mr_seam: [0xDE; 48],
            mr_signer_seam: [0; 48],
            seam_attributes: [0; 8],
            td_attributes: self.td_attributes,
            xfam: [0xE7, 0x02, 0x06, 0, 0, 0, 0, 0],
            mr_td: self.mrtd.0,
            mr_config_id: self.mr_config_id,
            mr_owner: [0; 48],
            mr_owner_config: [0; 48],
            rt_mr0,
            rt_mr1,
            rt_mr2,
            rt_mr3,
            report_data: *report_data,
        }
    }
}

/// Form of a quote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuoteVersion {
    /// Version 4 with a TDX 1.0 report.
    V4,
    /// Version 5 with a TDX 1.5 report.
    V5,
}

/// What the collateral says. Times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollateralOptions {
    /// First valid second.
    pub valid_from: u64,
    /// `nextUpdate` of all parts.
    pub expires_at: u64,
    /// Status of the platform's TCB level.
    pub tcb_status: TcbStatus,
    /// Advisories of the platform's TCB level.
    pub advisory_ids: Vec<String>,
    /// Whether the machine's PCK certificate is revoked.
    pub pck_is_revoked: bool,
}

impl CollateralOptions {
    /// An up-to-date platform from a day before `now` (clocks differ) to 30 days after.
    pub fn at(now: u64) -> Self {
        Self {
            valid_from: now.saturating_sub(24 * 3600),
            expires_at: now.saturating_add(COLLATERAL_SECONDS),
            tcb_status: TcbStatus::UpToDate,
            advisory_ids: Vec::new(),
            pck_is_revoked: false,
        }
    }
}

/// A machine that signs TDX quotes under a root of its own.
#[derive(Clone)]
pub struct DevPlatform {
    seed: [u8; 32],
    ppid: [u8; 16],
    root: Certified,
    pck_ca: Certified,
    pck: Certified,
    tcb_signer: Certified,
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
        let subject = |what, common_name, is_ca| Subject {
            what,
            common_name,
            is_ca,
            extension: None,
        };
        let root = subject("the root", "Cohort Development Root CA - NOT INTEL", true);
        let root = pki::certify(root, key("root")?, None)?;
        let pck_ca = subject(
            "the PCK CA",
            "Cohort Development PCK Platform CA - NOT INTEL",
            true,
        );
        let pck_ca = pki::certify(pck_ca, key("pck ca")?, Some(&root))?;
        let signer = subject(
            "the TCB signer",
            "Cohort Development TCB Signing - NOT INTEL",
            false,
        );
        let tcb_signer = pki::certify(signer, key("tcb signer")?, Some(&root))?;
        let [ppid, instance] = ["ppid", "platform instance"].map(|label| {
            let [bytes @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] =
                pki::derive(&seed, label);
            bytes
        });
        let mut pck = subject("the PCK", "Cohort Development PCK - NOT INTEL", false);
        pck.extension = Some(sgx_extension(&ppid, &instance, flags)?);
        let pck = pki::certify(pck, key("pck")?, Some(&pck_ca))?;
        let attestation_key = key("attestation key")?;
        Ok(Self {
            seed,
            ppid,
            root,
            pck_ca,
            pck,
            tcb_signer,
            attestation_key,
        })
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
    pub fn collateral_with(
        &self,
        options: &CollateralOptions,
    ) -> Result<Collateral, DevPlatformError> {
        let (from, until) = (options.valid_from, options.expires_at);
        let tcb_info = tcb_info(options)?;
        let qe_identity = qe_identity(options)?;
        let revoked: &[&Certified] = if options.pck_is_revoked {
            &[&self.pck]
        } else {
            &[]
        };
        let signer_chain = [self.tcb_signer.pem()?, self.root.pem()?].concat();
        Ok(Collateral {
            pck_crl_issuer_chain: [self.pck_ca.pem()?, self.root.pem()?].concat(),
            root_ca_crl: pki::revocation_list(&self.root, from, until, &[])?,
            pck_crl: pki::revocation_list(&self.pck_ca, from, until, revoked)?,
            tcb_info_issuer_chain: signer_chain.clone(),
            tcb_info_signature: sign(&self.tcb_signer.key, tcb_info.as_bytes()).to_vec(),
            tcb_info,
            qe_identity_issuer_chain: signer_chain,
            qe_identity_signature: sign(&self.tcb_signer.key, qe_identity.as_bytes()).to_vec(),
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
        let base = measurements.report(report_data);
        let (version, report) = match version {
            QuoteVersion::V4 => (4, Report::TD10(base)),
            QuoteVersion::V5 => {
                let mr_service_td = measurements.mr_service_td;
                let tee_tcb_svn2 = TEE_TCB_SVN;
                (
                    5,
                    Report::TD15(TDReport15 {
                        base,
                        tee_tcb_svn2,
                        mr_service_td,
                    }),
                )
            }
        };
        let header = Header {
            version,
            attestation_key_type: 2,
            tee_type: 0x81,
            qe_svn: 0,
            pce_svn: 0,
            qe_vendor_id: dcap_qvl::INTEL_QE_VENDOR_ID,
            user_data: [0; 20],
        };
        let mut quote = Quote {
            header,
            report,
            auth_data: AuthData::V4(self.auth_data()?),
        };
        let signed = quote.encode();
        let signed = signed.get(..quote.signed_length()).unwrap_or(&signed);
        let signature = sign(&self.attestation_key, signed);
        if let AuthData::V4(auth) = &mut quote.auth_data {
            auth.ecdsa_signature = signature;
        }
        Ok(quote.encode())
    }

    /// The quoting enclave's statement about the attestation key, with the PCK chain.
    fn auth_data(&self) -> Result<AuthDataV4, DevPlatformError> {
        let point = self.attestation_key.verifying_key().to_sec1_point(false);
        let mut ecdsa_attestation_key = [0u8; 64];
        for (to, from) in ecdsa_attestation_key
            .iter_mut()
            .zip(point.as_bytes().iter().skip(1))
        {
            *to = *from;
        }
        let mut hash = Sha256::new();
        hash.update(ecdsa_attestation_key);
        hash.update(QE_AUTH_DATA);
        let qe_report = qe_report(hash.finalize().into()).encode();
        let qe_report: [u8; 384] = qe_report.try_into().map_err(|_| DevPlatformError::Issue {
            what: "the QE report",
            detail: "it is not 384 bytes".to_owned(),
        })?;
        let chain = [self.pck.pem()?, self.pck_ca.pem()?, self.root.pem()?].concat();
        Ok(AuthDataV4 {
            ecdsa_signature: [0; 64],
            ecdsa_attestation_key,
            // Type 6: the body is the QE report data below, which the encoder fills in.
            certification_data: CertificationData {
                cert_type: 6,
                body: Data::new(Vec::new()),
            },
            qe_report_data: QEReportCertificationData {
                qe_report,
                qe_report_signature: sign(&self.pck.key, &qe_report),
                qe_auth_data: Data::new(QE_AUTH_DATA.to_vec()),
                certification_data: CertificationData {
                    cert_type: 5,
                    body: Data::new(chain.into_bytes()),
                },
            },
        })
    }
}

/// ECDSA P-256 with SHA-256, `r || s`.
fn sign(key: &SigningKey, message: &[u8]) -> [u8; 64] {
    let signature: Signature = key.sign(message);
    signature.to_bytes().into()
}

fn qe_report(key_hash: [u8; 32]) -> EnclaveReport {
    let mut report_data = [0u8; 64];
    for (to, from) in report_data.iter_mut().zip(key_hash) {
        *to = from;
    }
    EnclaveReport {
        cpu_svn: CPU_SVN,
        misc_select: 0,
        reserved1: [0; 28],
        attributes: QE_ATTRIBUTES,
        mr_enclave: [0xDE; 32],
        reserved2: [0; 32],
        mr_signer: QE_MR_SIGNER,
        reserved3: [0; 96],
        isv_prod_id: QE_PROD_ID,
        isv_svn: QE_SVN,
        reserved4: [0; 60],
        report_data,
    }
}

fn tcb_info(options: &CollateralOptions) -> Result<String, DevPlatformError> {
    let components = |svns: [u8; 16]| svns.map(|svn| json!({ "svn": svn }));
    let zeros = "00".repeat(48);
    let module = json!({
        "mrsigner": zeros, "attributes": "0000000000000000", "attributesMask": "FFFFFFFFFFFFFFFF",
    });
    Ok(json!({
        "id": "TDX",
        "version": 3,
        "issueDate": pki::date(options.valid_from)?.to_string(),
        "nextUpdate": pki::date(options.expires_at)?.to_string(),
        "fmspc": hex::encode_upper(FMSPC),
        "pceId": hex::encode_upper(PCE_ID),
        "tcbType": 0,
        "tcbEvaluationDataNumber": 17,
        "tdxModule": module,
        "tdxModuleIdentities": [{
            "id": "TDX_01",
            "mrsigner": zeros,
            "attributes": "0000000000000000",
            "attributesMask": "FFFFFFFFFFFFFFFF",
            "tcbLevels": [{
                "tcb": { "isvsvn": 5 }, "tcbDate": TCB_DATE, "tcbStatus": "UpToDate",
            }],
        }],
        "tcbLevels": [{
            "tcb": {
                "sgxtcbcomponents": components(CPU_SVN),
                "pcesvn": PCE_SVN,
                "tdxtcbcomponents": components(TEE_TCB_SVN),
            },
            "tcbDate": TCB_DATE,
            "tcbStatus": options.tcb_status.to_string(),
            "advisoryIDs": options.advisory_ids,
        }],
    })
    .to_string())
}

fn qe_identity(options: &CollateralOptions) -> Result<String, DevPlatformError> {
    Ok(json!({
        "id": "TD_QE",
        "version": 2,
        "issueDate": pki::date(options.valid_from)?.to_string(),
        "nextUpdate": pki::date(options.expires_at)?.to_string(),
        "tcbEvaluationDataNumber": 17,
        "miscselect": "00000000",
        "miscselectMask": "FFFFFFFF",
        "attributes": hex::encode_upper(QE_ATTRIBUTES),
        "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
        "mrsigner": hex::encode_upper(QE_MR_SIGNER),
        "isvprodid": QE_PROD_ID,
        "tcbLevels": [{
            "tcb": { "isvsvn": QE_SVN }, "tcbDate": TCB_DATE, "tcbStatus": "UpToDate",
        }],
    })
    .to_string())
}

/// The SGX extension of a PCK certificate (Intel, "SGX PCK Certificate and Certificate Revocation
/// List Profile Specification"): PPID, TCB, PCE id, FMSPC, SGX type, platform instance, flags.
fn sgx_extension(
    ppid: &[u8; 16],
    instance: &[u8; 16],
    flags: PckFlags,
) -> Result<Extension, DevPlatformError> {
    const WHAT: &str = "the SGX extension";
    let octets = |bytes: &[u8]| pki::encode(WHAT, der::Tag::OctetString, bytes);
    let integer = |value: u8| pki::encode(WHAT, der::Tag::Integer, &[value]);
    let boolean = |value: bool| {
        pki::encode(
            WHAT,
            der::Tag::Boolean,
            if value { &[0xFF] } else { &[0x00] },
        )
    };
    let named = |arc: &str, value| pki::named(WHAT, &format!("{SGX_EXTENSION}.{arc}"), value);
    let mut tcb = (1u8..)
        .zip(CPU_SVN)
        .map(|(n, svn)| named(&format!("2.{n}"), integer(svn)?))
        .collect::<Result<Vec<_>, _>>()?;
    tcb.push(named("2.17", integer(PCE_SVN)?)?);
    tcb.push(named("2.18", octets(&CPU_SVN)?)?);
    let configuration = [
        named("7.1", boolean(flags.dynamic_platform)?)?,
        named("7.2", boolean(flags.cached_keys)?)?,
        named("7.3", boolean(flags.smt)?)?,
    ];
    let content = pki::sequence(
        WHAT,
        &[
            named("1", octets(ppid)?)?,
            named("2", pki::sequence(WHAT, &tcb)?)?,
            named("3", octets(&PCE_ID)?)?,
            named("4", octets(&FMSPC)?)?,
            // 1: Scalable, the type of server platforms.
            named("5", pki::encode(WHAT, der::Tag::Enumerated, &[1])?)?,
            named("6", octets(instance)?)?,
            named("7", pki::sequence(WHAT, &configuration)?)?,
        ],
    )?;
    let oid = ObjectIdentifier::new(SGX_EXTENSION).map_err(|error| DevPlatformError::Issue {
        what: WHAT,
        detail: error.to_string(),
    })?;
    pki::extension(WHAT, oid, content)
}
