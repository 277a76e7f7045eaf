//! Turns a failed quote verification into a precise reason.
//!
//! dcap-qvl reports failures as text. These checks run only after it has refused and look for the
//! cause in the same inputs; they never turn a refusal into an acceptance.

use dcap_qvl::quote::{Quote, TDAttributes};
use der::Decode as _;
use sha2::{Digest as _, Sha384};
use x509_cert::Certificate;

use crate::collateral::{self, Collateral};
use crate::policy::TrustedRoot;
use crate::refusal::Refusal;

/// How dcap-qvl's messages begin for signatures that fail under chains it has already accepted. It
/// saves the search below where a flood of forged quotes would make it costly; a message that is not
/// listed only costs the search.
const PAST_THE_CHAINS: [&str; 3] =
    ["Signature is invalid for", "QE report hash mismatch", "ISV enclave report signature"];

/// Explains why `quote` was refused; `detail` is what dcap-qvl said.
pub(crate) fn explain(
    detail: String,
    quote: &Quote,
    collateral: &Collateral,
    root: &TrustedRoot,
    now: u64,
) -> Refusal {
    if PAST_THE_CHAINS.iter().any(|text| detail.starts_with(text)) {
        return Refusal::QuoteRefused { detail };
    }
    foreign_root(quote, collateral, root)
        .or_else(|| other_family(quote, collateral))
        .or_else(|| outside_window(collateral, now))
        .or_else(|| revoked(quote, collateral))
        .or_else(|| attributes(quote))
        .unwrap_or(Refusal::QuoteRefused { detail })
}

/// Whether a chain in the evidence ends at another root than the trusted one.
fn foreign_root(quote: &Quote, collateral: &Collateral, root: &TrustedRoot) -> Option<Refusal> {
    let pck_root = dcap_qvl::intel::extract_cert_chain(quote)
        .ok()
        .and_then(|chain| Certificate::from_der(chain.last()?).ok());
    let signer_root =
        collateral::certificates(&collateral.tcb_info_issuer_chain).and_then(|mut chain| chain.pop());
    [pck_root, signer_root].into_iter().flatten().find_map(|certificate| {
        let certificate = certificate.tbs_certificate();
        let self_issued = certificate.issuer() == certificate.subject();
        let key = certificate.subject_public_key_info().subject_public_key.raw_bytes();
        let foreign = self_issued && root.key_id()[..] != Sha384::digest(key)[..];
        foreign.then(|| Refusal::RootNotTrusted { found: certificate.subject().to_string() })
    })
}

/// What cannot be read is told by the other checks.
fn other_family(quote: &Quote, collateral: &Collateral) -> Option<Refusal> {
    let (have, want) = (collateral::family_of(collateral).ok()?, collateral::family_of_parsed(quote).ok()?);
    (have != want).then_some(Refusal::CollateralOfAnotherFamily { have, want })
}

fn outside_window(collateral: &Collateral, now: u64) -> Option<Refusal> {
    match collateral::window(collateral) {
        Err(refusal) => Some(refusal),
        Ok(window) if now < window.valid_from => {
            Some(Refusal::CollateralNotYetValid { valid_from: window.valid_from, now })
        }
        Ok(window) if now >= window.expires_at => {
            Some(Refusal::CollateralExpired { expired_at: window.expires_at, now })
        }
        Ok(_) => None,
    }
}

fn revoked(quote: &Quote, collateral: &Collateral) -> Option<Refusal> {
    let chain = dcap_qvl::intel::extract_cert_chain(quote).ok()?;
    let leaf = Certificate::from_der(chain.first()?).ok()?;
    let serial = leaf.tbs_certificate().serial_number();
    let list = collateral::crl(&collateral.pck_crl)?.tbs_cert_list.revoked_certificates?;
    list.iter().any(|entry| &entry.serial_number == serial).then_some(Refusal::PckRevoked)
}

fn attributes(quote: &Quote) -> Option<Refusal> {
    let report = quote.report.as_td10()?;
    let attributes = TDAttributes::parse(report.td_attributes).ok()?;
    if attributes.tud != 0 {
        return Some(Refusal::TdDebug);
    }
    if attributes.sec.migratable {
        return Some(Refusal::TdMigratable);
    }
    let bound = quote.report.as_td15().is_some_and(|td15| td15.mr_service_td != [0; 48]);
    if bound || attributes.sec.servtd_ext {
        return Some(Refusal::TdService);
    }
    let acceptable = attributes.sec.sept_ve_disable && attributes.reserved == 0;
    (!acceptable).then(|| Refusal::TdAttributes { attributes: hex::encode(report.td_attributes) })
}
