//! All GPUs of one virtual machine: what the recipe requires, what the quote commits to, the measured
//! state and the golden values.

use std::collections::BTreeSet;

use cohort_protocol::compose;
use cohort_protocol::recipe::{GpuRequirement, required_gpus};

use super::evidence::{GpuEvidence, MAX_GPUS, evidence_hash};
use super::opaque::Mode;
use super::policy::GpuPolicy;
use super::refusal::GpuRefusal;
use super::state::GpuState;
use super::verify::{VerifiedGpu, verify};
use crate::evidence::Evidence;
use crate::verified::VerifiedTd;

/// Everything that the appraisal depends on. What is not the GPUs' own comes from verified evidence:
/// the requirement from the measured recipe, state and hash from the quote.
#[derive(Debug, Clone, Copy)]
pub struct Appraisal<'a> {
    /// What the measured recipe requires.
    pub required: Option<GpuRequirement>,
    /// The evidence.
    pub evidence: &'a [GpuEvidence],
    /// The hash that the quote's report data commits to.
    pub committed: Option<[u8; 32]>,
    /// What every report must answer.
    pub nonce: &'a [u8; 32],
    /// The `gpu-attestation` event of the replayed log.
    pub state: Option<&'a GpuState>,
}

/// Appraises the GPUs of a virtual machine at `now` (Unix seconds): one verified GPU for each that the
/// recipe requires, none if it requires none.
///
/// # Errors
/// The first reason found.
pub fn appraise(
    inputs: &Appraisal<'_>,
    policy: &GpuPolicy,
    now: u64,
) -> Result<Vec<VerifiedGpu>, GpuRefusal> {
    let Appraisal { required, evidence, committed, nonce, state } = *inputs;
    let Some(GpuRequirement { architecture, count }) = required else {
        let none = evidence.is_empty() && committed.is_none();
        return if none { Ok(Vec::new()) } else { Err(GpuRefusal::Unexpected) };
    };
    check_count(evidence, count)?;
    if committed != Some(evidence_hash(evidence)) {
        return Err(GpuRefusal::EvidenceHashMismatch);
    }
    state.ok_or(GpuRefusal::StateMissing)?.check(count)?;
    if evidence.iter().any(|gpu| gpu.architecture != architecture) {
        return Err(GpuRefusal::Unexpected);
    }
    let gpus = evidence.iter().map(|gpu| verify(gpu, policy.root(), nonce, now));
    let gpus: Vec<VerifiedGpu> = gpus.collect::<Result<_, _>>()?;
    let devices: BTreeSet<&[u8; 32]> = gpus.iter().map(VerifiedGpu::device_id).collect();
    if devices.len() != gpus.len() {
        return Err(GpuRefusal::Duplicate);
    }
    for gpu in &gpus {
        check_mode(gpu.mode(), gpus.len())?;
        check_golden(gpu, policy)?;
    }
    Ok(gpus)
}

/// [`appraise`] for evidence whose quote and log have been verified as `td`. `committed` is the hash that the
/// report data of that quote commits to, `nonce` what the same exchange requires of every report.
///
/// # Errors
/// As [`appraise`]; also if the app-compose text is absent or its requirement cannot be read.
pub fn appraise_evidence(
    evidence: &Evidence,
    td: &VerifiedTd,
    committed: Option<[u8; 32]>,
    nonce: &[u8; 32],
    policy: &GpuPolicy,
    now: u64,
) -> Result<Vec<VerifiedGpu>, GpuRefusal> {
    let app_compose = evidence.app_compose.as_deref().ok_or(GpuRefusal::RequirementUnknown)?;
    if compose::compose_hash(app_compose.as_bytes()) != td.compose_hash() {
        return Err(GpuRefusal::RequirementUnknown);
    }
    let required = required_gpus(app_compose.as_bytes()).map_err(|_| GpuRefusal::RequirementUnknown)?;
    let inputs = Appraisal { required, evidence: &evidence.gpu, committed, nonce, state: td.gpu_state() };
    appraise(&inputs, policy, now)
}

fn check_count(evidence: &[GpuEvidence], required: u32) -> Result<(), GpuRefusal> {
    let have = evidence.len();
    if have == 0 {
        return Err(GpuRefusal::Missing { required });
    }
    if have > MAX_GPUS {
        return Err(GpuRefusal::TooMany { have });
    }
    if usize::try_from(required) != Ok(have) {
        return Err(GpuRefusal::Count { have, required });
    }
    Ok(())
}

fn check_mode(mode: Mode, gpus: usize) -> Result<(), GpuRefusal> {
    let wanted = if gpus == 1 { Mode::Single } else { Mode::Multiple };
    if mode == wanted { Ok(()) } else { Err(GpuRefusal::ModeNotAccepted { mode, gpus }) }
}

fn check_golden(gpu: &VerifiedGpu, policy: &GpuPolicy) -> Result<(), GpuRefusal> {
    match policy.golden() {
        Some(golden) => golden.check(gpu),
        None if policy.golden_is_required() => Err(GpuRefusal::GoldenMissing),
        None => Ok(()),
    }
}
