//! Verification of a dstack virtual machine on Intel TDX: quote, event log and app-compose bytes in,
//! [`VerifiedTd`] or a [`Refusal`] out.

use std::borrow::Cow;

use dcap_qvl::quote::{Quote, TDReport10};
use dcap_qvl::verify::QuoteVerifier;
use dcap_qvl::{QuoteClaims, QuotePolicy};

use crate::boot::BootIdentity;
use crate::collateral::Collateral;
use crate::diagnosis;
use crate::dstack::MrConfig;
use crate::event_log::{self, Rtmrs};
use crate::evidence::{Evidence, check_quote_sizes};
use crate::policy::{Policy, Root};
use crate::refusal::Refusal;
use crate::signatures::RememberingConfig;
use crate::verified::{VerifiedTd, conclude, registers};
use cohort_protocol::compose;

/// Verifies evidence at `now` (Unix seconds).
///
/// `expected_report_data` is what the caller's protocol requires the quote to be about: its own
/// challenge, the keys of the virtual machine, the run. Without it a quote proves only that such a
/// machine once existed, so there is no way to leave it out.
///
/// # Errors
/// The first reason found. What costs little is checked first, the signatures after it.
pub fn verify(
    evidence: &Evidence,
    policy: &Policy,
    expected_report_data: &[u8; 64],
    now: u64,
) -> Result<VerifiedTd, Refusal> {
    evidence.check_sizes()?;
    let quote = parse_quote(&evidence.quote)?;
    let report = quote.report.as_td10().ok_or(Refusal::NotTdx)?;
    if &report.report_data != expected_report_data {
        return Err(Refusal::ReportDataMismatch);
    }
    let (identity, rtmrs) = read_log(&evidence.event_log)?;
    check_app_compose(evidence.app_compose.as_deref(), &identity, policy)?;
    let mr_config = check_mr_config(report, &identity)?;
    check_registers(report, &rtmrs)?;
    let claims = appraise(&evidence.quote, &quote, &evidence.collateral, policy, now)?;
    Ok(conclude(report, &identity, mr_config, &claims, policy.root()))
}

/// Verifies the platform side of a TDX quote alone: signatures, chains, revocation, TD attributes,
/// TCB level and `policy`.
///
/// This says nothing about the app in the virtual machine, nor why the quote was made. It serves
/// evidence that is not dstack's, and inspection; what releases anything must use [`verify`].
pub fn verify_quote(
    quote: &[u8],
    collateral: &Collateral,
    policy: &Policy,
    now: u64,
) -> Result<QuoteClaims, Refusal> {
    check_quote_sizes(quote, collateral)?;
    let parsed = parse_quote(quote)?;
    parsed.report.as_td10().ok_or(Refusal::NotTdx)?;
    appraise(quote, &parsed, collateral, policy, now)
}

fn parse_quote(bytes: &[u8]) -> Result<Quote, Refusal> {
    Quote::parse(bytes).map_err(|error| Refusal::QuoteMalformed { detail: format!("{error:#}") })
}

fn read_log(json: &str) -> Result<(BootIdentity, Rtmrs), Refusal> {
    let events = event_log::parse(json).map_err(Refusal::EventLogMalformed)?;
    let identity = BootIdentity::read(&events).map_err(Refusal::EventLogGrammar)?;
    Ok((identity, event_log::replay(&events)))
}

fn check_app_compose(
    app_compose: Option<&str>,
    identity: &BootIdentity,
    policy: &Policy,
) -> Result<(), Refusal> {
    let measured = identity.compose_hash;
    match app_compose {
        Some(text) => {
            let presented = compose::compose_hash(text.as_bytes());
            let equal = presented == measured;
            equal.then_some(()).ok_or(Refusal::ComposeHashMismatch { presented, measured })
        }
        None if policy.app_compose_is_required() => Err(Refusal::AppComposeMissing),
        None => Ok(()),
    }
}

fn check_mr_config(report: &TDReport10, identity: &BootIdentity) -> Result<MrConfig, Refusal> {
    let [version, ..] = report.mr_config_id;
    let form = MrConfig::of(&report.mr_config_id).ok_or(Refusal::MrConfigUnknown { version })?;
    if form.expected(identity).contains(&report.mr_config_id) {
        Ok(form)
    } else {
        Err(Refusal::MrConfigMismatch { form })
    }
}

/// RTMR3 must replay. A log may leave out the events of RTMR0 to RTMR2, whose values count by
/// themselves; one that has them must have them right.
fn check_registers(report: &TDReport10, rtmrs: &Rtmrs) -> Result<(), Refusal> {
    let replayed = rtmrs.values().iter().zip(rtmrs.event_counts());
    for ((register, quoted), (value, count)) in (0u8..).zip(registers(report)).zip(replayed) {
        let told = *count > 0 || register == event_log::DSTACK_REGISTER;
        if told && *value != quoted {
            return Err(Refusal::EventLogMismatch { register });
        }
    }
    Ok(())
}

/// Verifies a quote under the policy's root, then applies the policy to its claims.
fn appraise(
    bytes: &[u8],
    quote: &Quote,
    collateral: &Collateral,
    policy: &Policy,
    now: u64,
) -> Result<QuoteClaims, Refusal> {
    let root = policy.root();
    let verifier = match root.root() {
        Root::Intel => QuoteVerifier::new_prod().with_config::<RememberingConfig>(),
        #[cfg(feature = "dev-platform")]
        Root::Development { der, .. } => QuoteVerifier::<RememberingConfig>::new_with_config(der.clone()),
    };
    let own = for_this_quote(collateral, quote).into_owned();
    // dcap-qvl appraises nothing here: our policy does, where each reason has its own code.
    let claims = verifier
        .verify_with_policy(bytes, own, now, &QuotePolicy::claims_only(now))
        .map_err(|error| diagnosis::explain(format!("{error:#}"), quote, collateral, root, now))?;
    if claims.platform.root_key_id[..] != root.key_id()[..] || claims.report != quote.report {
        let detail = "the verified report is not the one that was read".to_owned();
        return Err(Refusal::QuoteRefused { detail });
    }
    policy.check(&claims, now)?;
    Ok(claims)
}

/// A PCK chain in the collateral overrides the one in the quote, so that collateral shared between
/// machines would be refused. The quote's own chain wins.
fn for_this_quote<'a>(collateral: &'a Collateral, quote: &Quote) -> Cow<'a, Collateral> {
    if collateral.pck_certificate_chain.is_none() || quote.raw_cert_chain().is_err() {
        return Cow::Borrowed(collateral);
    }
    Cow::Owned(Collateral { pck_certificate_chain: None, ..collateral.clone() })
}
