//! What the chain held after the receipt's block, from the proofs of section `chain`.

use alloy::{
    primitives::{B256, Log},
    sol_types::SolEvent,
};
use cohort_agent::run::RunResult;
use cohort_attestation::VerifiedTd;
use cohort_protocol::{
    abi::IDstackApp,
    chain_proof::{ChainProof, Header, ProofError},
    decision::{DatasetFacts, Decision, decide_proposal},
    eip712,
    loss::Epsilon,
    storage::{self, OddWord},
};

use crate::audit::text::utc;

use super::{Known, Name, Report, file, image_slots};

/// How far the agent's clock and a block's time may be apart, in seconds.
const CLOCKS_APART: u64 = 900;

/// Adds the lines of the chain's proofs; `td` is the machine of the file's evidence, if that holds.
pub fn check(
    result: &RunResult,
    proof: &ChainProof,
    td: Option<&VerifiedTd>,
    known: &Known,
    report: &mut Report,
) {
    let header = match header(result, proof) {
        Ok(header) => header,
        Err(why) => {
            report.check(Name::BlockHeader, false, why);
            return;
        }
    };
    let detail = format!("block {} of {}, hash {}", header.number, utc(header.timestamp), header.hash);
    report.check(Name::BlockHeader, true, detail);
    match known.block_hash {
        Some(hash) => {
            report.check(
                Name::Block,
                hash == header.hash,
                format!("of the file {}, given {hash}", header.hash),
            );
        }
        None => report
            .skip(Name::Block, "give its hash as you know it from elsewhere (--block-hash), or --rpc-url"),
    }
    receipt(result, proof, &header, report);
    analyst(result, proof, &header, report);
    registry(result, proof, &header, td, known, report);
    let words = match words(result, proof, &header, known, report) {
        Some(words) => words,
        None => return,
    };
    match State::of(result, &words) {
        Ok(state) => state.check(result, &header, report),
        Err(odd) => {
            report.check(Name::StorageProofs, false, odd.to_string());
        }
    }
}

/// The header is that of the block that the file names.
fn header(result: &RunResult, proof: &ChainProof) -> Result<Header, String> {
    let header = proof.header().map_err(|e| e.to_string())?;
    let position = &result.position;
    if header.hash == position.block_hash && header.number == position.block_number {
        return Ok(header);
    }
    Err(format!(
        "the header is of block {} {}, the file names block {} {}",
        header.number, header.hash, position.block_number, position.block_hash
    ))
}

/// The proved words in the order of [`cohort_protocol::sign_rpc::ResultFile::storage_slots`].
fn words(
    result: &RunResult,
    proof: &ChainProof,
    header: &Header,
    known: &Known,
    report: &mut Report,
) -> Option<Vec<B256>> {
    let account = match proof.account(header, result.app) {
        Ok(account) => account,
        Err(error) => {
            report.check(Name::AccountProof, false, error.to_string());
            return None;
        }
    };
    report.check(Name::AccountProof, true, "the contract's account is under the block's state root");
    let code = account.code_hash;
    match known.code_hash {
        Some(want) => {
            report.check(Name::ContractCode, code == want, format!("keccak256 {code}, given {want}"));
        }
        None => report.skip(
            Name::ContractCode,
            format!("keccak256 {code}: compare it with the release that you trust (--code-hash)"),
        ),
    }
    match proof.words(&account, &result.storage_slots()) {
        Ok(words) => {
            let detail = format!("{} storage words are under the contract's storage root", words.len());
            report.check(Name::StorageProofs, true, detail);
            Some(words)
        }
        Err(error) => {
            report.check(Name::StorageProofs, false, error.to_string());
            None
        }
    }
}

fn receipt(result: &RunResult, proof: &ChainProof, header: &Header, report: &mut Report) {
    let logs = match proof.logs(header) {
        Ok(logs) => logs,
        Err(error) => {
            report.check(Name::ReceiptProof, false, error.to_string());
            return;
        }
    };
    let detail = format!("transaction {} of the block, {} logs", proof.receipt.index, logs.len());
    report.check(Name::ReceiptProof, true, detail);
    let posted = logs.iter().any(|log| is_receipt(log, result));
    let detail =
        format!("in it the contract says that it took exactly this receipt, by {}", result.certificate.agent);
    report.check(Name::ReceiptOnChain, posted, detail);
    let transaction = result.position.transaction;
    match proof.transaction(header) {
        Ok(hash) => {
            let detail = format!("{hash} posted it; the file names {transaction}");
            report.check(Name::Transaction, hash == transaction, detail);
        }
        Err(error) => {
            report.check(Name::Transaction, false, error.to_string());
        }
    }
}

/// A request that is not signed by the analyst's key can only be that of a contract account.
fn analyst(result: &RunResult, proof: &ChainProof, header: &Header, report: &mut Report) {
    let analyst = result.run.analyst;
    let has_code = match proof.analyst_has_code(header, analyst) {
        Ok(has_code) => has_code,
        Err(error) => {
            report.check(Name::AccountProof, false, error.to_string());
            return;
        }
    };
    if file::is_by_key(result, &eip712::app_domain(result.chain_id, result.app)) {
        return;
    }
    if has_code {
        let why = "which DstackApp asked when it opened the run; its answer is not proved in a file (--rpc-url asks it)";
        report.skip(Name::RequestSignature, format!("analyst {analyst} is a contract account, {why}"));
    } else {
        let detail = format!("not by {analyst}, which is no contract account");
        report.check(Name::RequestSignature, false, detail);
    }
}

/// The registry's lists of CVM images, where the file has them.
fn registry(
    result: &RunResult,
    proof: &ChainProof,
    header: &Header,
    td: Option<&VerifiedTd>,
    known: &Known,
    report: &mut Report,
) {
    let (Some(proof), Some(td)) = (&proof.registry, td) else { return };
    let words = match proof.words(header, &image_slots(td)) {
        Ok(words) => words,
        Err(error @ ProofError::Account(..)) => {
            report.check(Name::AccountProof, false, error.to_string());
            return;
        }
        Err(error) => {
            report.check(Name::StorageProofs, false, error.to_string());
            return;
        }
    };
    let listed = words.iter().all(|word| storage::flag_of("an image", *word) == Ok(true));
    let address = proof.address;
    match known.registry {
        _ if !listed => {
            let detail = format!("the registry {address} does not list it after that block");
            report.check(Name::CvmImage, false, detail);
        }
        Some(want) => {
            let detail = format!("listed by the registry {address}, which is to be the given {want}");
            report.check(Name::CvmImage, address == want, detail);
        }
        // The terms have named it themselves, or nothing has.
        None if result.terms.systems.is_zero() => {
            let detail =
                format!("the registry {address} lists it; is that the one you mean? give --registry");
            report.skip(Name::CvmImage, detail);
        }
        None => {}
    }
}

/// The event of exactly this receipt.
fn is_receipt(log: &Log, result: &RunResult) -> bool {
    let digest = result.receipt.digest(&eip712::app_domain(result.chain_id, result.app));
    log.address == result.app
        && IDstackApp::ReceiptPosted::decode_log(log).is_ok_and(|event| {
            event.digest == digest
                && event.runId == result.receipt.run_id.0
                && event.proposalId == result.run.proposal_id.0
                && event.agent == result.certificate.agent
        })
}

/// The words, read.
struct State {
    config: storage::Config,
    kms_root: alloy::primitives::Address,
    proposal: storage::Proposal,
    analyst_is_listed: bool,
    agent_is_revoked: bool,
    digest: B256,
    run: storage::Run,
    inputs: Vec<(Option<u8>, Option<DatasetFacts>)>,
}

impl State {
    fn of(result: &RunResult, words: &[B256]) -> Result<Self, OddWord> {
        let few = OddWord { what: "a missing slot", word: B256::ZERO };
        let [config, kms_root, proposal, analyst, agent, digest, run, inputs @ ..] = words else {
            return Err(few);
        };
        let mut read = Vec::with_capacity(result.inputs.len());
        for input in inputs.chunks(3) {
            let &[owner, compose_hash, state] = input else { return Err(few) };
            read.push((storage::owner_index_of(owner)?, storage::dataset_of([compose_hash, state])?));
        }
        Ok(Self {
            config: storage::Config::of(*config)?,
            kms_root: storage::kms_root_of(*kms_root),
            proposal: storage::Proposal::of(*proposal)?,
            analyst_is_listed: storage::flag_of("the analyst", *analyst)?,
            agent_is_revoked: storage::flag_of("the agent's key", *agent)?,
            digest: *digest,
            run: storage::Run::of(*run)?,
            inputs: read,
        })
    }

    fn check(&self, result: &RunResult, header: &Header, report: &mut Report) {
        self.run(result, report);
        self.time(result, header, report);
        let root = result.binding.kms_root;
        let detail = format!("{root} is the root that the contract pinned");
        report.check(Name::PinnedRoot, self.kms_root == root, detail);
        self.quorum(result, header, report);
        let own = result.run.participants & !self.proposal.facts.approvals == 0;
        report.check(Name::OwnApproval, own, "each owner whose data took part had approved itself");
        self.datasets(result, report);
        let detail = format!("{} was listed", result.run.analyst);
        report.check(Name::Analyst, self.analyst_is_listed, detail);
        let detail = format!("no owner had revoked {}", result.certificate.agent);
        report.check(Name::AgentKey, !self.agent_is_revoked, detail);
        self.budget(result, report);
    }

    fn run(&self, result: &RunResult, report: &mut Report) {
        let digest = result.receipt.digest(&eip712::app_domain(result.chain_id, result.app));
        // The run's id is the hash of the request, which names the proposal; the proposal's id that of the terms.
        let holds = self.run.closed
            && self.run.opened_at != 0
            && self.digest == digest
            && self.run.participants == result.run.participants
            && result.run.run_id() == result.receipt.run_id
            && result.terms.proposal_id() == result.run.proposal_id
            && result.terms.epsilon_per_run == result.receipt.epsilon;
        let detail = format!(
            "the contract debited epsilon {} for this run and closed it with this receipt",
            result.terms.epsilon_per_run
        );
        report.check(Name::RunOnChain, holds, detail);
    }

    /// The host sets the agent's clock, as of which evidence and collateral are judged: the chain bounds it.
    fn time(&self, result: &RunResult, header: &Header, report: &mut Report) {
        let at = result.receipt.produced_at;
        let holds = at.saturating_add(CLOCKS_APART) >= self.run.opened_at
            && at <= header.timestamp.saturating_add(CLOCKS_APART);
        let detail = format!(
            "produced at {}, opened at {}, posted at {}",
            utc(at),
            utc(self.run.opened_at),
            utc(header.timestamp)
        );
        report.check(Name::Time, holds, detail);
    }

    fn quorum(&self, result: &RunResult, header: &Header, report: &mut Report) {
        let facts = self.proposal.facts;
        let decision = decide_proposal(&self.config.facts(header.timestamp), Some(&facts));
        let same = facts.era == result.terms.era && facts.expiry == result.terms.expiry;
        let signed = (facts.approvals & self.config.active_owners).count_ones();
        let needed = facts.threshold_snapshot.max(self.config.threshold);
        let detail = format!(
            "{signed} / {} owners had approved, {needed} needed; the proposal: {}",
            self.config.owner_count,
            decision.code()
        );
        report.check(Name::Quorum, decision == Decision::Allow && same, detail);
    }

    /// Superseded since the run was opened, a dataset still is what went in.
    fn datasets(&self, result: &RunResult, report: &mut Report) {
        let mut participants = 0u128;
        let mut holds = self.inputs.len() == result.inputs.len();
        for (owner, dataset) in &self.inputs {
            let index = owner.unwrap_or(u8::MAX);
            let bit = 1u128.checked_shl(u32::from(index)).unwrap_or(0);
            let fits =
                |d: &DatasetFacts| d.owner_index == index && d.compose_hash == result.terms.compose_hash;
            holds &= self.config.active_owners & bit != 0 && dataset.as_ref().is_some_and(fits);
            participants |= bit;
        }
        let owners: Vec<_> = result.inputs.iter().map(|input| input.owner.as_str()).collect();
        let detail = format!("registered for this compose hash by {}", owners.join(", "));
        report.check(Name::Datasets, holds && participants == result.run.participants, detail);
    }

    fn budget(&self, result: &RunResult, report: &mut Report) {
        let (terms, runs) = (&result.terms, u64::from(self.proposal.runs));
        let spent = terms.epsilon_per_run.0.checked_mul(runs);
        let delta = terms.delta_per_run.checked_mul(runs);
        let within = spent.is_some_and(|spent| spent <= terms.epsilon_budget.0)
            && delta.is_some_and(|delta| delta <= terms.delta_budget);
        let detail = format!(
            "epsilon {} of {} spent over the {runs} runs so far",
            Epsilon(spent.unwrap_or(u64::MAX)),
            terms.epsilon_budget
        );
        report.check(Name::Budget, within && runs >= 1, detail);
    }
}
