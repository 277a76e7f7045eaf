//! What "Intel" publishes about the machine: TCB info and QE identity.

use dcap_qvl::TcbStatus;
use serde_json::json;

use super::platform::{CPU_SVN, FMSPC, PCE_ID, PCE_SVN, TEE_TCB_SVN};
use super::quote::{QE_ATTRIBUTES, QE_MR_SIGNER, QE_PROD_ID, QE_SVN};
use super::{COLLATERAL_SECONDS, DevPlatformError, pki};

const TCB_DATE: &str = "2024-01-01T00:00:00Z";

/// What the collateral says. Times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollateralOptions {
    /// First valid second.
    pub valid_from: u64,
    /// `nextUpdate` of all parts.
    pub expires_at: u64,
    /// Family of the machines that it is for.
    pub fmspc: [u8; 6],
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
            fmspc: FMSPC,
            tcb_status: TcbStatus::UpToDate,
            advisory_ids: Vec::new(),
            pck_is_revoked: false,
        }
    }
}

/// TCB info, version 3.
pub(super) fn tcb_info(options: &CollateralOptions) -> Result<String, DevPlatformError> {
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
        "fmspc": hex::encode_upper(options.fmspc),
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

/// Identity of the TD quoting enclave, version 2.
pub(super) fn qe_identity(options: &CollateralOptions) -> Result<String, DevPlatformError> {
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
