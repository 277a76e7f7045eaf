//! Collateral: what Intel publishes about a platform, and for how long it may be used.

use der::Decode as _;
use serde::Deserialize;
use x509_cert::Certificate;
use x509_cert::crl::CertificateList;

use crate::refusal::Refusal;

/// TCB info, QE identity, certificate chains and revocation lists of one platform family, in the
/// JSON form of dcap-qvl (`QuoteCollateralV3`).
///
/// A copy that serves several machines must have `pck_certificate_chain` unset: that chain belongs
/// to one machine. The verifier ignores it where the quote has a chain of its own.
pub use dcap_qvl::QuoteCollateralV3 as Collateral;

/// Longest accepted collateral: the sum of its parts, in bytes (Intel's have about 20 000).
pub const MAX_BYTES: usize = 256 << 10;

/// The seconds at which collateral is valid, `valid_from..expires_at` (Unix time, end exclusive).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// First valid second.
    pub valid_from: u64,
    /// First second at which it is no longer valid.
    pub expires_at: u64,
}

impl Window {
    /// Whether `now` lies in the window.
    pub fn contains(&self, now: u64) -> bool {
        (self.valid_from..self.expires_at).contains(&now)
    }

    fn narrow(&mut self, from: u64, until: u64) {
        self.valid_from = self.valid_from.max(from);
        self.expires_at = self.expires_at.min(until);
    }
}

/// Reads the window from the dates in the collateral: TCB info, QE identity, both revocation lists
/// and the certificates of the issuer chains.
///
/// Nothing is verified here: use it to decide when to fetch again, and to explain a refusal.
pub fn window(collateral: &Collateral) -> Result<Window, Refusal> {
    let mut window = Window { valid_from: 0, expires_at: u64::MAX };
    for (part, json) in [("TCB info", &collateral.tcb_info), ("QE identity", &collateral.qe_identity)] {
        let (from, until) = json_dates(json).ok_or(Refusal::CollateralMalformed { part })?;
        window.narrow(from, until);
    }
    for (part, der) in [("root CA CRL", &collateral.root_ca_crl), ("PCK CRL", &collateral.pck_crl)] {
        let list = crl(der).ok_or(Refusal::CollateralMalformed { part })?.tbs_cert_list;
        let until = list.next_update.map_or(0, |time| time.to_unix_duration().as_secs());
        window.narrow(list.this_update.to_unix_duration().as_secs(), until);
    }
    for (part, pem) in [
        ("PCK CRL issuer chain", &collateral.pck_crl_issuer_chain),
        ("TCB info issuer chain", &collateral.tcb_info_issuer_chain),
        ("QE identity issuer chain", &collateral.qe_identity_issuer_chain),
    ] {
        let chain = certificates(pem).ok_or(Refusal::CollateralMalformed { part })?;
        for certificate in chain {
            let validity = certificate.tbs_certificate().validity();
            let until = validity.not_after.to_unix_duration().as_secs();
            // notAfter itself is still valid (RFC 5280, section 4.1.2.5).
            let until = until.saturating_add(1);
            window.narrow(validity.not_before.to_unix_duration().as_secs(), until);
        }
    }
    Ok(window)
}

fn json_dates(json: &str) -> Option<(u64, u64)> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Dates {
        issue_date: String,
        next_update: String,
    }
    let dates: Dates = serde_json::from_str(json).ok()?;
    let seconds = |text: &str| {
        let time: der::DateTime = text.parse().ok()?;
        Some(time.unix_duration().as_secs())
    };
    // dcap-qvl still accepts the second of nextUpdate.
    Some((seconds(&dates.issue_date)?, seconds(&dates.next_update)?.saturating_add(1)))
}

pub(crate) fn crl(der: &[u8]) -> Option<CertificateList> {
    CertificateList::from_der(der).ok()
}

pub(crate) fn certificates(pem: &str) -> Option<Vec<Certificate>> {
    // Chains served over HTTP often end in a NUL or in line breaks.
    let pem = pem.trim_matches(|c: char| c == '\0' || c.is_whitespace());
    Certificate::load_pem_chain(pem.as_bytes()).ok().filter(|chain| !chain.is_empty())
}

pub(crate) fn bytes(collateral: &Collateral) -> usize {
    [
        collateral.pck_crl_issuer_chain.len(),
        collateral.root_ca_crl.len(),
        collateral.pck_crl.len(),
        collateral.tcb_info_issuer_chain.len(),
        collateral.tcb_info.len(),
        collateral.tcb_info_signature.len(),
        collateral.qe_identity_issuer_chain.len(),
        collateral.qe_identity.len(),
        collateral.qe_identity_signature.len(),
        collateral.pck_certificate_chain.as_ref().map_or(0, String::len),
    ]
    .iter()
    .sum()
}

/// Which platforms collateral is for: a family of machines, by how their keys are certified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Family {
    /// Family, model, stepping, platform and custom SKU, as Intel numbers them.
    pub fmspc: [u8; 6],
    /// Keys certified by Intel's Platform CA (servers of one or more packages), not its Processor CA.
    pub by_platform_ca: bool,
}

impl Family {
    /// `platform` or `processor`.
    pub fn ca(&self) -> &'static str {
        if self.by_platform_ca { "platform" } else { "processor" }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", hex::encode(self.fmspc), self.ca())
    }
}

/// The family of the machine that made a quote: by its PCK certificate, which is not verified here.
pub fn family_of_quote(quote: &[u8]) -> Result<Family, Refusal> {
    let malformed = |error| Refusal::QuoteMalformed { detail: format!("{error:#}") };
    family_of_parsed(&dcap_qvl::quote::Quote::parse(quote).map_err(malformed)?)
}

pub(crate) fn family_of_parsed(quote: &dcap_qvl::quote::Quote) -> Result<Family, Refusal> {
    let malformed = |error| Refusal::QuoteMalformed { detail: format!("{error:#}") };
    let fmspc = dcap_qvl::intel::quote_fmspc(quote).map_err(malformed)?;
    let ca = dcap_qvl::intel::quote_ca(quote).map_err(malformed)?;
    Ok(Family { fmspc, by_platform_ca: ca == dcap_qvl::config::PckCa::Platform })
}

/// The family that collateral says it is for. Nothing is verified here.
pub fn family_of(collateral: &Collateral) -> Result<Family, Refusal> {
    #[derive(Deserialize)]
    struct Info {
        fmspc: String,
    }
    let part = "TCB info";
    let info: Info =
        serde_json::from_str(&collateral.tcb_info).map_err(|_| Refusal::CollateralMalformed { part })?;
    let mut fmspc = [0; 6];
    hex::decode_to_slice(info.fmspc, &mut fmspc).map_err(|_| Refusal::CollateralMalformed { part })?;
    let part = "PCK CRL";
    let list = crl(&collateral.pck_crl).ok_or(Refusal::CollateralMalformed { part })?;
    let by_platform_ca = list.tbs_cert_list.issuer.to_string().contains("Platform");
    Ok(Family { fmspc, by_platform_ca })
}
