//! Verification of a dstack virtual machine on Intel TDX: quote, event log and app-compose bytes in,
//! [`VerifiedTd`] or a [`Refusal`] out.

use std::borrow::Cow;

use dcap_qvl::configs::RingConfig;
use dcap_qvl::quote::{Quote, TDReport10};
use dcap_qvl::verify::QuoteVerifier;
use dcap_qvl::{QuoteClaims, QuotePolicy, TcbStatus};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::boot::{BootIdentity, KeyProvider};
use crate::bytes::{
    AppId, ComposeHash, DeviceId, InstanceId, MrAggregated, MrSystem, OsImageHash, Register,
};
use crate::collateral::{self, Collateral};
use crate::diagnosis;
use crate::dstack::{self, MrConfig};
use crate::event_log::{self, Rtmrs};
use crate::policy::{Platform, Policy, Root, TrustedRoot, advisories};
use crate::refusal::Refusal;

/// Longest accepted quote, in bytes (real ones have 5 000 to 10 000).
pub const MAX_QUOTE_BYTES: usize = 64 << 10;
/// Longest accepted app-compose file, in bytes: dstack's own limit.
pub const MAX_APP_COMPOSE_BYTES: usize = 256 << 10;

/// What a guest agent can give: evidence still without collateral.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestEvidence {
    /// DCAP quote, version 4 or 5; hex in JSON. Its bytes are malleable, so that neither they nor
    /// their hash identify anything: the report data does.
    #[serde(with = "hex::serde")]
    pub quote: Vec<u8>,
    /// The `event_log` string of the guest agent's `GetQuote` answer, as received.
    pub event_log: String,
    /// The exact text of `app-compose.json` (`tcb_info.app_compose` of the guest agent's `Info`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_compose: Option<String>,
}

impl GuestEvidence {
    /// Adds the collateral to verify it with.
    pub fn with_collateral(self, collateral: Collateral) -> Evidence {
        let Self {
            quote,
            event_log,
            app_compose,
        } = self;
        Evidence {
            quote,
            event_log,
            app_compose,
            collateral,
        }
    }
}

/// Everything that is needed to verify a virtual machine, now or later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// As in [`GuestEvidence`].
    #[serde(with = "hex::serde")]
    pub quote: Vec<u8>,
    /// As in [`GuestEvidence`].
    pub event_log: String,
    /// As in [`GuestEvidence`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_compose: Option<String>,
    /// Intel's statements about the platform, valid at the time of verification.
    pub collateral: Collateral,
}

/// A virtual machine whose evidence was verified. Only [`verify`] makes one.
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

    /// When the first part of the collateral expires, Unix seconds.
    pub fn collateral_expires_at(&self) -> u64 {
        self.collateral_expires_at
    }
}

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
    check_sizes(evidence)?;
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
    Ok(conclude(
        report,
        &identity,
        mr_config,
        &claims,
        policy.root(),
    ))
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
    check_size("quote", quote.len(), MAX_QUOTE_BYTES)?;
    check_size(
        "collateral",
        collateral::bytes(collateral),
        collateral::MAX_BYTES,
    )?;
    let parsed = parse_quote(quote)?;
    parsed.report.as_td10().ok_or(Refusal::NotTdx)?;
    appraise(quote, &parsed, collateral, policy, now)
}

fn check_sizes(evidence: &Evidence) -> Result<(), Refusal> {
    let app_compose = evidence.app_compose.as_ref().map_or(0, String::len);
    check_size("quote", evidence.quote.len(), MAX_QUOTE_BYTES)?;
    check_size(
        "event log",
        evidence.event_log.len(),
        event_log::MAX_LOG_BYTES,
    )?;
    check_size("app-compose", app_compose, MAX_APP_COMPOSE_BYTES)?;
    check_size(
        "collateral",
        collateral::bytes(&evidence.collateral),
        collateral::MAX_BYTES,
    )
}

fn check_size(part: &'static str, bytes: usize, limit: usize) -> Result<(), Refusal> {
    if bytes > limit {
        return Err(Refusal::TooLarge { part, bytes, limit });
    }
    Ok(())
}

fn parse_quote(bytes: &[u8]) -> Result<Quote, Refusal> {
    Quote::parse(bytes).map_err(|error| Refusal::QuoteMalformed {
        detail: format!("{error:#}"),
    })
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
            let presented = ComposeHash(Sha256::digest(text.as_bytes()).into());
            let equal = presented == measured;
            equal.then_some(()).ok_or(Refusal::ComposeHashMismatch {
                presented,
                measured,
            })
        }
        None if policy.app_compose_is_required() => Err(Refusal::AppComposeMissing),
        None => Ok(()),
    }
}

fn check_mr_config(report: &TDReport10, identity: &BootIdentity) -> Result<MrConfig, Refusal> {
    let [version, ..] = report.mr_config_id;
    let form = MrConfig::of(&report.mr_config_id).ok_or(Refusal::MrConfigUnknown { version })?;
    if form.expected(identity) == Some(report.mr_config_id) {
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

fn registers(report: &TDReport10) -> [Register; 4] {
    [report.rt_mr0, report.rt_mr1, report.rt_mr2, report.rt_mr3].map(Register)
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
        Root::Intel => QuoteVerifier::new_prod().with_config::<RingConfig>(),
        #[cfg(feature = "dev-platform")]
        Root::Development { der, .. } => QuoteVerifier::<RingConfig>::new_with_config(der.clone()),
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
    Cow::Owned(Collateral {
        pck_certificate_chain: None,
        ..collateral.clone()
    })
}

fn conclude(
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
