//! TDX quotes: a TD report, signed by an attestation key that the quoting enclave vouches for.

use dcap_qvl::quote::{
    AuthData, AuthDataV4, CertificationData, Data, EnclaveReport, Header, QEReportCertificationData, Quote,
    Report, TDReport10, TDReport15,
};
use p256::ecdsa::SigningKey;
use parity_scale_codec::Encode as _;
use sha2::{Digest as _, Sha256};

use super::DevPlatformError;
use super::pki::sign;
use super::platform::{CPU_SVN, TEE_TCB_SVN};
use crate::bytes::Register;

/// Identity of the development quoting enclave.
pub(super) const QE_MR_SIGNER: [u8; 32] = [0xDE; 32];
pub(super) const QE_ATTRIBUTES: [u8; 16] = [0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
pub(super) const QE_PROD_ID: u16 = 2;
pub(super) const QE_SVN: u16 = 4;
const QE_AUTH_DATA: [u8; 32] = [0x1F; 32];

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

/// Who signs a quote.
pub(super) struct Signer<'a> {
    pub(super) attestation_key: &'a SigningKey,
    pub(super) pck_key: &'a SigningKey,
    /// PEM of PCK, PCK CA and root.
    pub(super) pck_chain: String,
}

/// A signed quote.
pub(super) fn quote(
    signer: &Signer<'_>,
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
            (5, Report::TD15(TDReport15 { base, tee_tcb_svn2, mr_service_td }))
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
    let mut quote = Quote { header, report, auth_data: AuthData::V4(auth_data(signer)?) };
    let signed = quote.encode();
    let signed = signed.get(..quote.signed_length()).unwrap_or(&signed);
    let signature = sign(signer.attestation_key, signed);
    if let AuthData::V4(auth) = &mut quote.auth_data {
        auth.ecdsa_signature = signature;
    }
    Ok(quote.encode())
}

/// The quoting enclave's statement about the attestation key, with the PCK chain.
fn auth_data(signer: &Signer<'_>) -> Result<AuthDataV4, DevPlatformError> {
    let point = signer.attestation_key.verifying_key().to_sec1_point(false);
    let mut ecdsa_attestation_key = [0u8; 64];
    for (to, from) in ecdsa_attestation_key.iter_mut().zip(point.as_bytes().iter().skip(1)) {
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
    Ok(AuthDataV4 {
        ecdsa_signature: [0; 64],
        ecdsa_attestation_key,
        // Type 6: the body is the QE report data below, which the encoder fills in.
        certification_data: CertificationData { cert_type: 6, body: Data::new(Vec::new()) },
        qe_report_data: QEReportCertificationData {
            qe_report,
            qe_report_signature: sign(signer.pck_key, &qe_report),
            qe_auth_data: Data::new(QE_AUTH_DATA.to_vec()),
            certification_data: CertificationData {
                cert_type: 5,
                body: Data::new(signer.pck_chain.as_bytes().to_vec()),
            },
        },
    })
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
