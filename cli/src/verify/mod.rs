//! Re-checks one result file, `docs/spec/evidence.md`: the file alone, the chain's proofs in it, and what endpoints say.

use alloy::primitives::{Address, B256};
use cohort_agent::run::RunResult;
use cohort_attestation::{Policy, Refusal, VerifiedTd, gpu::GpuPolicy};
use cohort_protocol::{eip712, storage};

pub mod chain;
mod evidence;
mod file;
mod name;
pub mod online;

pub use crate::report::Verdict;
pub use name::Name;

/// The report of one file.
pub type Report = crate::report::Report<Name>;

/// What the verifier knows from elsewhere than the file. Without any of it everything else shows only that the file
/// agrees with itself: anybody can make a contract, a KMS and a chain of their own.
#[derive(Debug, Clone)]
pub struct Known {
    /// The consortium's contract.
    pub app: Option<Address>,
    /// The registry that lists the CVM images of terms that name none.
    pub registry: Option<Address>,
    /// keccak256 of the contract's code.
    pub code_hash: Option<B256>,
    /// The KMS root that the consortium pins.
    pub kms_root: Option<Address>,
    /// Hash of the block with the receipt.
    pub block_hash: Option<B256>,
    /// `mr_system` of the CVM images that the terms' `systems` stands for, ascending.
    pub systems: Vec<B256>,
    /// Ids of the machines that the terms' `devices` stands for, ascending.
    pub devices: Vec<B256>,
    /// Which roots and TCB states are accepted.
    pub policy: Policy,
    /// Which GPU roots are accepted.
    pub gpu_policy: GpuPolicy,
}

/// All that needs no network: the file, and the chain's proofs in it if it has any.
pub fn check_file(result: &RunResult, known: &Known, report: &mut Report) {
    let domain = eip712::app_domain(result.chain_id, result.app);
    file::payload(result, report);
    file::recipe(result, report);
    file::signatures(result, &domain, report);
    let td = evidence::check(result, known, report);
    file::request(result, &domain, report);
    anchors(result, known, report);
    if let Some(proof) = &result.chain {
        chain::check(result, proof, td.as_ref(), known, report);
    }
}

fn anchors(result: &RunResult, known: &Known, report: &mut Report) {
    match known.app {
        Some(app) => {
            let detail = format!("of the file {}, given {app}", result.app);
            report.check(Name::Contract, app == result.app, detail);
        }
        None => report.skip(Name::Contract, format!("{} is not compared: give --app", result.app)),
    }
    let root = result.binding.kms_root;
    match known.kms_root {
        Some(want) => {
            report.check(Name::KmsRoot, root == want, format!("of the file {root}, given {want}"));
        }
        // The contract's own word tells it as well.
        None if result.chain.is_some() => {}
        None => report.skip(Name::KmsRoot, format!("{root} is not compared: give --kms-root or --rpc-url")),
    }
}

/// Is it of the consortium that the verifier means? By the KMS root, or by the contract on a block that is known.
pub fn is_anchored(known: &Known, report: &Report) -> bool {
    let by_root = known.kms_root.is_some() && report.holds(Name::KmsRoot);
    let by_contract = report.holds(Name::Contract) && report.holds(Name::Block);
    by_root || (by_contract && report.holds(Name::PinnedRoot))
}

/// The machine of the file's evidence, as of the run.
pub fn machine(result: &RunResult, policy: &Policy) -> Result<VerifiedTd, Refusal> {
    let expected = result.binding.report_data();
    cohort_attestation::verify(&result.evidence, policy, &expected, result.receipt.produced_at)
}

/// Slots of the registry's words about a CVM image. One that names no OS image is never listed.
pub fn image_slots(td: &VerifiedTd) -> [B256; 2] {
    let image = td.os_image_hash().map(|hash| B256::from(hash.0)).unwrap_or_default();
    storage::image(B256::from(td.mr_system().0), image)
}
