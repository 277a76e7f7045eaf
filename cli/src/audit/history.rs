//! A consortium's state, folded from its events alone, each event checked against the rules as they stood before it.
//!
//! The contract has made these checks already. An auditor makes them again: a changed contract, an endpoint that drops
//! or invents logs, and a fault in the contract would all show here.

use std::collections::{BTreeMap, BTreeSet};

use alloy::{
    primitives::{Address, B256},
    sol_types::Eip712Domain,
};
use cohort_protocol::{
    abi::{self, IDstackApp::IDstackAppEvents as Event},
    decision::{AppFacts, Decision, ProposalFacts, decide_proposal},
    eip712,
    ids::Label,
    loss::Epsilon,
    terms::Terms,
};
use serde::Serialize;

use super::{Finding, Severity, logs::Entry};

/// Stands for the contract itself where an event names an owner's index.
const SELF_INDEX: u8 = u8::MAX;

/// Privacy loss: epsilon in units of 1e-9, delta in units of 1e-18.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Loss {
    /// Decimal epsilon.
    pub epsilon: Epsilon,
    /// Unit 1e-18.
    pub delta: u64,
}

impl Loss {
    fn new(epsilon: u64, delta: u64) -> Self {
        Self { epsilon: Epsilon(epsilon), delta }
    }

    fn plus(self, other: Self) -> Self {
        Self::new(self.epsilon.0.saturating_add(other.epsilon.0), self.delta.saturating_add(other.delta))
    }

    fn minus(self, other: Self) -> Self {
        Self::new(self.epsilon.0.saturating_sub(other.epsilon.0), self.delta.saturating_sub(other.delta))
    }

    fn within(self, cap: Self) -> bool {
        self.epsilon <= cap.epsilon && self.delta <= cap.delta
    }
}

/// An owner, listed or not any more.
#[derive(Debug, Clone, Serialize)]
pub struct Owner {
    /// Its bit; never used again.
    pub index: u8,
    /// Institution.
    pub owner_id: String,
    /// Its account.
    pub account: Address,
    /// Its revocation key; zero: none.
    pub revoker: Address,
    /// ISO 3166-1 alpha-2.
    pub jurisdiction: String,
    /// Bit set of compliance grades.
    pub grades: u16,
    /// Still listed.
    pub listed: bool,
    /// What it may commit over all proposals.
    pub cap: Loss,
    /// What it has committed: the total of the last event, and the approvals since.
    pub committed: Loss,
    /// The same, added up from approvals and reclaims.
    #[serde(skip)]
    pub summed: Loss,
}

/// How one owner approved.
#[derive(Debug, Clone, Serialize)]
pub struct Approval {
    /// Its bit.
    pub index: u8,
    /// By a signature that somebody relayed.
    pub by_signature: bool,
    /// Block.
    pub block: u64,
    /// Unix seconds.
    pub time: u64,
    /// Transaction.
    pub transaction: B256,
}

/// A proposal.
#[derive(Debug, Clone, Serialize)]
pub struct Proposal {
    /// EIP-712 struct hash of its terms.
    pub proposal_id: B256,
    /// Absent where it was revoked before anybody approved it.
    pub terms: Option<Terms>,
    /// Threshold when it was created.
    pub threshold_snapshot: u8,
    /// In the chain's order.
    pub approvals: Vec<Approval>,
    /// Owner indexes that rejected it, with their reasons.
    pub rejections: Vec<(u8, String)>,
    /// Revoked.
    pub revoked: bool,
    /// Replaced by another.
    pub superseded: bool,
    /// What its runs have debited.
    pub spent: Loss,
    /// What its terms allow.
    pub budget: Loss,
    /// What it is at the audited block: allow, or the first reason against it.
    pub decision: Option<Decision>,
    #[serde(skip)]
    approved: u128,
}

/// A run.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// EIP-712 struct hash of its request.
    pub run_id: B256,
    /// Under which proposal.
    pub proposal_id: B256,
    /// Who asked.
    pub analyst: Address,
    /// Owner indexes.
    pub participants: Vec<u8>,
    /// What it debited.
    pub loss: Loss,
    /// Block in which it was opened.
    pub opened_block: u64,
    /// Unix seconds.
    pub opened_time: u64,
    /// Its receipt, if there is one.
    pub receipt: Option<Posted>,
    /// Digests of further, different receipts.
    pub equivocations: Vec<B256>,
}

/// A receipt as posted.
#[derive(Debug, Clone, Serialize)]
pub struct Posted {
    /// The certified key.
    pub agent: Address,
    /// SHA-256 of the canonical output.
    pub output_hash: B256,
    /// Commitment to the input datasets.
    pub inputs_hash: B256,
    /// Commitment to the attestation evidence.
    pub evidence_hash: B256,
    /// The platform proved the privacy loss; else the recipe's author declares it.
    pub proved: bool,
    /// EIP-712 digest that the agent signed.
    pub digest: B256,
    /// Block.
    pub block: u64,
    /// Unix seconds.
    pub time: u64,
    /// Transaction.
    pub transaction: B256,
}

/// A registered dataset.
#[derive(Debug, Clone, Serialize)]
pub struct Dataset {
    /// Commitment to the sealed file.
    pub dataset_id: B256,
    /// Whose.
    pub owner_index: u8,
    /// For which recipe it is sealed.
    pub compose_hash: B256,
    /// Label.
    pub region: String,
    /// Label.
    pub kind: String,
    /// 0: withheld.
    pub records: u64,
    /// Bytes of the sealed file.
    pub size_bytes: u64,
    /// Replaced by its owner.
    pub superseded: bool,
}

/// One line of what happened.
#[derive(Debug, Clone, Serialize)]
pub struct Happened {
    /// Block.
    pub block: u64,
    /// Unix seconds.
    pub time: u64,
    /// Transaction.
    pub transaction: B256,
    /// In words.
    pub text: String,
}

/// Everything that the events say.
#[derive(Debug, Serialize)]
pub struct History {
    /// Label.
    pub name: String,
    /// Label.
    pub sector: String,
    /// Approvals that make a quorum.
    pub threshold: u8,
    /// The era of terms that count.
    pub era: u32,
    /// The pinned KMS root.
    pub kms_root: Address,
    /// Seconds between quorum and execution of a governance action.
    pub governance_delay_seconds: u64,
    /// By index.
    pub owners: BTreeMap<u8, Owner>,
    /// dstack's boot gate takes any device.
    pub allow_any_device: bool,
    /// dstack's boot gate wants an up-to-date TCB.
    pub require_tcb_up_to_date: bool,
    /// Devices that may boot where not any may.
    pub devices: BTreeSet<B256>,
    /// Listed analysts.
    pub analysts: BTreeSet<Address>,
    /// By id.
    pub proposals: BTreeMap<B256, Proposal>,
    /// Per compose hash, the proposal that reached quorum last.
    pub current: BTreeMap<B256, B256>,
    /// In the order of their opening.
    pub runs: Vec<Run>,
    /// By id.
    pub datasets: BTreeMap<B256, Dataset>,
    /// Agent keys that an owner revoked.
    pub revoked_agents: BTreeSet<Address>,
    /// In the chain's order.
    pub timeline: Vec<Happened>,
    /// Every KMS root that was ever pinned.
    #[serde(skip)]
    pub(super) kms_roots: BTreeSet<Address>,
    #[serde(skip)]
    domain: Eip712Domain,
    #[serde(skip)]
    created: bool,
    #[serde(skip)]
    pub(super) config_version: u64,
}

/// Where the findings of one event go.
struct Notes<'a> {
    block: u64,
    findings: &'a mut Vec<Finding>,
}

impl Notes<'_> {
    fn violation(&mut self, code: &'static str, text: String) {
        self.add(Severity::Violation, code, text);
    }

    fn require(&mut self, holds: bool, code: &'static str, text: impl FnOnce() -> String) {
        if !holds {
            self.violation(code, text());
        }
    }

    fn add(&mut self, severity: Severity, code: &'static str, text: String) {
        self.findings.push(Finding { severity, code, text, block: Some(self.block) });
    }
}

impl History {
    /// Nothing has happened yet.
    pub fn new(chain_id: u64, app: Address) -> Self {
        Self {
            name: String::new(),
            sector: String::new(),
            threshold: 0,
            era: 0,
            kms_root: Address::ZERO,
            governance_delay_seconds: 0,
            owners: BTreeMap::new(),
            allow_any_device: false,
            require_tcb_up_to_date: false,
            devices: BTreeSet::new(),
            analysts: BTreeSet::new(),
            proposals: BTreeMap::new(),
            current: BTreeMap::new(),
            runs: Vec::new(),
            datasets: BTreeMap::new(),
            revoked_agents: BTreeSet::new(),
            timeline: Vec::new(),
            kms_roots: BTreeSet::new(),
            domain: eip712::app_domain(chain_id, app),
            created: false,
            config_version: 0,
        }
    }

    /// Takes one event in, and notes what it breaks.
    pub fn apply(&mut self, entry: &Entry, findings: &mut Vec<Finding>) {
        let mut notes = Notes { block: entry.block, findings };
        let first = matches!(entry.event, Event::AppCreated(_));
        notes.require(first != self.created, "creation", || {
            "AppCreated is not the first event, or not the only one of its kind".to_owned()
        });
        self.created = true;
        if let Some(text) = self.take(entry, &mut notes) {
            let Entry { block, time, transaction, .. } = *entry;
            self.timeline.push(Happened { block, time, transaction, text });
        }
    }

    /// Notes what is left to say at the end.
    pub fn close(&mut self, now: u64, findings: &mut Vec<Finding>) {
        let facts = self.facts(now);
        for proposal in self.proposals.values_mut() {
            proposal.decision = Some(decide_proposal(&facts, Some(&proposal.facts())));
        }
        for run in self.runs.iter().filter(|run| run.receipt.is_none()) {
            let minutes = now.saturating_sub(run.opened_time) / 60;
            findings.push(Finding {
                severity: Severity::Notice,
                code: "open_run",
                text: format!(
                    "run {} debited epsilon {} and has no receipt after {minutes} minutes",
                    run.run_id, run.loss.epsilon
                ),
                block: Some(run.opened_block),
            });
        }
        for owner in self.owners.values() {
            let mut notes = |holds: bool, code, text: String| {
                if !holds {
                    findings.push(Finding { severity: Severity::Violation, code, text, block: None });
                }
            };
            notes(
                owner.summed == owner.committed,
                "owner_budget_sum",
                format!(
                    "{} has committed epsilon {} by its approvals, and {} by its own event",
                    owner.owner_id, owner.summed.epsilon, owner.committed.epsilon
                ),
            );
            notes(
                owner.committed.within(owner.cap),
                "owner_cap",
                format!(
                    "{} has committed epsilon {} of a cap of {}",
                    owner.owner_id, owner.committed.epsilon, owner.cap.epsilon
                ),
            );
        }
        if !self.created {
            findings.push(Finding {
                severity: Severity::Violation,
                code: "creation",
                text: "there is no event at all: --from-block is too late, or this is no DstackApp"
                    .to_owned(),
                block: None,
            });
        }
    }

    /// Bit set of the listed owners.
    pub fn active_owners(&self) -> u128 {
        self.owners.values().filter(|owner| owner.listed).fold(0, |set, owner| set | bit(owner.index))
    }

    /// An owner's name by its index.
    pub fn owner_name(&self, index: u8) -> String {
        match self.owners.get(&index) {
            Some(owner) => owner.owner_id.clone(),
            None if index == SELF_INDEX => "the quorum".to_owned(),
            None => format!("owner {index}"),
        }
    }

    fn facts(&self, block_time: u64) -> AppFacts {
        AppFacts { active_owners: self.active_owners(), threshold: self.threshold, era: self.era, block_time }
    }

    fn names(&self, indexes: &[u8]) -> String {
        let names: Vec<_> = indexes.iter().map(|index| self.owner_name(*index)).collect();
        names.join(", ")
    }

    /// Changes the state; returns what happened in words, unless another event of the transaction says it.
    fn take(&mut self, entry: &Entry, notes: &mut Notes<'_>) -> Option<String> {
        match &entry.event {
            Event::AppCreated(e) => {
                (self.name, self.sector) = (label(e.name), label(e.sector));
                (self.threshold, self.kms_root) = (e.threshold, e.kmsRoot);
                self.kms_roots.insert(e.kmsRoot);
                self.governance_delay_seconds = e.governanceDelaySeconds;
                Some(format!("{} was founded: threshold {}, KMS root {}", self.name, e.threshold, e.kmsRoot))
            }
            Event::OwnerAdded(_)
            | Event::OwnerRemoved(_)
            | Event::OwnerRotationStarted(_)
            | Event::OwnerRotated(_)
            | Event::RevokerSet(_)
            | Event::OwnerBudget(_)
            | Event::BudgetReclaimed(_) => self.take_owner(&entry.event, notes),
            Event::ProposalCreated(_)
            | Event::ProposalApproved(_)
            | Event::ProposalActivated(_)
            | Event::ProposalRejected(_)
            | Event::ProposalRevoked(_) => self.take_proposal(entry, notes),
            Event::RunOpened(e) => Some(self.take_run(e, entry, notes)),
            Event::ReceiptPosted(e) => Some(self.take_receipt(e, entry, notes)),
            Event::ReceiptEquivocation(e) => {
                notes.violation(
                    "equivocation",
                    format!(
                        "agent {} signed two receipts for run {}: {} and {}",
                        e.agent, e.runId, e.firstDigest, e.digest
                    ),
                );
                if let Some(run) = self.runs.iter_mut().find(|run| run.run_id == e.runId) {
                    run.equivocations.push(e.digest);
                }
                Some(format!("agent {} signed a second receipt for run {}", e.agent, e.runId))
            }
            Event::DatasetRegistered(e) => Some(self.take_dataset(e, notes)),
            Event::ThresholdSet(e) => {
                self.threshold = e.threshold;
                self.config_version += 1;
                Some(format!("the quorum set the threshold to {}", e.threshold))
            }
            Event::EraStarted(e) => {
                notes.require(self.era.checked_add(1) == Some(e.era), "era", || {
                    format!("era {} follows era {}", e.era, self.era)
                });
                self.era = e.era;
                Some(format!("{} ended all proposals; era {} began", self.owner_name(e.ownerIndex), e.era))
            }
            Event::AnalystSet(e) => {
                if e.listed {
                    self.analysts.insert(e.analyst)
                } else {
                    self.analysts.remove(&e.analyst)
                };
                Some(format!("analyst {} is {}listed", e.analyst, if e.listed { "" } else { "no longer " }))
            }
            Event::KmsRootSet(e) => {
                self.kms_root = e.kmsRoot;
                self.kms_roots.insert(e.kmsRoot);
                Some(format!("the quorum pinned the KMS root {}", e.kmsRoot))
            }
            Event::AgentRevoked(e) => {
                self.revoked_agents.insert(e.agent);
                Some(format!("{} revoked agent key {}", self.owner_name(e.ownerIndex), e.agent))
            }
            Event::GovernanceDelaySet(e) => {
                self.governance_delay_seconds = e.delaySeconds;
                Some(format!("the quorum set the governance delay to {} s", e.delaySeconds))
            }
            Event::SuccessorAnnounced(e) => {
                Some(format!("the quorum announced {} as successor", e.successor))
            }
            Event::ActionApproved(e) => {
                let name = self.owner_name(e.ownerIndex);
                Some(format!("{name} approved governance action {} (data {})", e.actionId, e.data))
            }
            Event::ActionScheduled(e) => {
                Some(format!("action {} may be executed from {}", e.actionId, e.readyAt))
            }
            Event::ActionVetoed(e) => {
                Some(format!("{} vetoed action {}", self.owner_name(e.ownerIndex), e.actionId))
            }
            Event::ActionExecuted(e) => Some(format!("action {} was executed", e.actionId)),
            // It repeats the event before it, for dstack's own auditors.
            Event::PolicyChanged(_) => None,
            Event::ComposeHashAdded(e) => Some(format!("compose hash {} may boot", e.composeHash)),
            Event::ComposeHashRemoved(e) => Some(format!("compose hash {} may not boot", e.composeHash)),
            Event::DeviceAdded(e) => {
                self.devices.insert(e.deviceId);
                Some(format!("device {} may boot", e.deviceId))
            }
            Event::DeviceRemoved(e) => {
                self.devices.remove(&e.deviceId);
                Some(format!("device {} may not boot", e.deviceId))
            }
            Event::AllowAnyDeviceSet(e) => {
                self.allow_any_device = e.allowAny;
                Some(format!("{} device may boot", if e.allowAny { "any" } else { "only a listed" }))
            }
            Event::RequireTcbUpToDateSet(e) => {
                self.require_tcb_up_to_date = e.required;
                Some(format!("an up-to-date TCB is {}required to boot", if e.required { "" } else { "not " }))
            }
        }
    }

    fn take_owner(&mut self, event: &Event, notes: &mut Notes<'_>) -> Option<String> {
        match event {
            Event::OwnerAdded(e) => {
                let owner_id = label(e.ownerId);
                // An endpoint can tell anything: 255 is nobody's.
                let next = self.owners.keys().next_back().map_or(0, |last| last.saturating_add(1));
                notes.require(e.index == next && next != SELF_INDEX, "owner_index", || {
                    format!("{owner_id} got index {} where {next} is the next unused one", e.index)
                });
                let former = self.owners.values().rfind(|owner| owner.owner_id == owner_id);
                notes.require(former.is_none_or(|owner| !owner.listed), "owner_twice", || {
                    format!("{owner_id} is listed twice")
                });
                let summed = former.map_or(Loss::default(), |owner| owner.summed);
                let jurisdiction = String::from_utf8_lossy(e.jurisdiction.as_slice()).into_owned();
                let text = format!("{owner_id} ({jurisdiction}) became an owner with account {}", e.account);
                self.owners.insert(
                    e.index,
                    Owner {
                        index: e.index,
                        owner_id,
                        account: e.account,
                        revoker: e.revoker,
                        jurisdiction,
                        grades: e.grades,
                        listed: true,
                        cap: Loss::default(),
                        committed: Loss::default(),
                        summed,
                    },
                );
                self.config_version += 1;
                Some(text)
            }
            Event::OwnerRemoved(e) => {
                self.config_version += 1;
                let owner = self.owner(e.index, notes)?;
                owner.listed = false;
                Some(format!("the quorum removed {}", owner.owner_id))
            }
            Event::OwnerRotationStarted(e) => {
                Some(format!("{} started to move to account {}", label(e.ownerId), e.newAccount))
            }
            Event::OwnerRotated(e) => {
                let owner = self.owner(e.index, notes)?;
                owner.account = e.newAccount;
                Some(format!("{} moved to account {}", owner.owner_id, e.newAccount))
            }
            Event::RevokerSet(e) => {
                let owner_id = label(e.ownerId);
                let owner =
                    self.owners.values_mut().find(|owner| owner.listed && owner.owner_id == owner_id)?;
                owner.revoker = e.revoker;
                Some(format!("{owner_id} set its revocation key to {}", e.revoker))
            }
            Event::OwnerBudget(e) => {
                let owner = self.owner(e.index, notes)?;
                let cap = Loss::new(e.epsilonCap, e.deltaCap);
                let changed = owner.cap != cap;
                owner.cap = cap;
                owner.committed = Loss::new(e.epsilonCommitted, e.deltaCommitted);
                changed.then(|| format!("{} has a lifetime cap of epsilon {}", owner.owner_id, cap.epsilon))
            }
            Event::BudgetReclaimed(e) => {
                let taken = Loss::new(e.epsilon, e.delta);
                let left = self.proposals.get(&e.proposalId).map(|p| p.budget.minus(p.spent));
                notes.require(left == Some(taken), "reclaim", || {
                    format!(
                        "epsilon {} was reclaimed from proposal {}, which had another rest",
                        taken.epsilon, e.proposalId
                    )
                });
                let owner = self.owner(e.ownerIndex, notes)?;
                owner.summed = owner.summed.minus(taken);
                Some(format!(
                    "{} took back epsilon {} of proposal {}",
                    owner.owner_id, taken.epsilon, e.proposalId
                ))
            }
            _ => None,
        }
    }

    fn take_proposal(&mut self, entry: &Entry, notes: &mut Notes<'_>) -> Option<String> {
        match &entry.event {
            Event::ProposalCreated(e) => {
                let terms = Terms::from(&e.terms);
                notes.require(terms.proposal_id().0 == e.proposalId, "proposal_id", || {
                    format!("proposal {} is not the hash of its terms", e.proposalId)
                });
                notes.require(e.thresholdSnapshot == self.threshold, "threshold_snapshot", || {
                    format!("proposal {} was created with threshold {}", e.proposalId, e.thresholdSnapshot)
                });
                notes.require(terms.era == self.era, "era", || {
                    format!("proposal {} is of era {} in era {}", e.proposalId, terms.era, self.era)
                });
                let budget = Loss::new(terms.epsilon_budget.0, terms.delta_budget);
                let text = format!("proposal {} was made: epsilon {} in all", e.proposalId, budget.epsilon);
                let proposal = self.proposal(e.proposalId);
                (proposal.terms, proposal.budget) = (Some(terms), budget);
                proposal.threshold_snapshot = e.thresholdSnapshot;
                Some(text)
            }
            Event::ProposalApproved(e) => {
                let active = self.active_owners();
                notes.require(e.added & !active == 0, "approver", || {
                    format!("proposal {} was approved by somebody who is no owner", e.proposalId)
                });
                let proposal = self.proposal(e.proposalId);
                notes.require(!proposal.revoked && !proposal.superseded, "approval_after_end", || {
                    format!("proposal {} was approved after its end", e.proposalId)
                });
                proposal.approved |= e.added;
                notes.require(proposal.approved == e.approvals, "approvals_sum", || {
                    format!("the approvals of proposal {} do not add up: an event is missing", e.proposalId)
                });
                let added = indexes(e.added);
                let Entry { block, time, transaction, .. } = *entry;
                let by_signature = e.bySignature;
                proposal.approvals.extend(added.iter().map(|index| Approval {
                    index: *index,
                    by_signature,
                    block,
                    time,
                    transaction,
                }));
                let budget = proposal.budget;
                for index in &added {
                    if let Some(owner) = self.owners.get_mut(index) {
                        owner.summed = owner.summed.plus(budget);
                        owner.committed = owner.committed.plus(budget);
                    }
                }
                let how = if by_signature { "by signature" } else { "by transaction" };
                Some(format!("{} approved proposal {} {how}", self.names(&added), e.proposalId))
            }
            Event::ProposalActivated(e) => {
                let facts = self.facts(entry.time);
                let decision = decide_proposal(&facts, Some(&self.proposal(e.proposalId).facts()));
                notes.require(decision == Decision::Allow, "activation", || {
                    format!("proposal {} reached its quorum, but is {decision}", e.proposalId)
                });
                let former = self.current.insert(e.composeHash, e.proposalId).unwrap_or_default();
                // One that is over already need not be marked.
                let marked = e.superseded == former || e.superseded.is_zero();
                notes.require(marked, "superseded", || {
                    format!("proposal {} superseded {}, not {former}", e.proposalId, e.superseded)
                });
                if let Some(former) = self.proposals.get_mut(&e.superseded) {
                    former.superseded = true;
                }
                Some(format!("proposal {} has its quorum", e.proposalId))
            }
            Event::ProposalRejected(e) => {
                let name = self.owner_name(e.ownerIndex);
                self.proposal(e.proposalId).rejections.push((e.ownerIndex, e.reason.clone()));
                Some(format!("{name} rejected proposal {}: {:?}", e.proposalId, e.reason))
            }
            Event::ProposalRevoked(e) => {
                let name = self.owner_name(e.ownerIndex);
                self.proposal(e.proposalId).revoked = true;
                Some(format!("{name} revoked proposal {} (key {})", e.proposalId, e.by))
            }
            _ => None,
        }
    }

    fn take_run(&mut self, e: &abi::IDstackApp::RunOpened, entry: &Entry, notes: &mut Notes<'_>) -> String {
        let facts = self.facts(entry.time);
        let loss = Loss::new(e.epsilon, e.delta);
        let listed = self.analysts.contains(&e.analyst);
        let twice = self.runs.iter().any(|run| run.run_id == e.runId);
        let proposal = self.proposal(e.proposalId);
        let decision = decide_proposal(&facts, Some(&proposal.facts()));
        notes.require(decision == Decision::Allow, "run_not_allowed", || {
            format!("run {} was opened while its proposal was {decision}", e.runId)
        });
        notes.require(listed, "analyst", || {
            format!("run {} was asked for by {}, who was not listed", e.runId, e.analyst)
        });
        notes.require(!twice, "run_twice", || format!("run {} was opened twice", e.runId));
        let consent = e.participants & !(proposal.approved & facts.active_owners) == 0;
        notes.require(consent && e.participants != 0, "participant", || {
            format!("run {} takes an owner's data without that owner's approval", e.runId)
        });
        let agreed = proposal
            .terms
            .as_ref()
            .is_some_and(|terms| loss == Loss::new(terms.epsilon_per_run.0, terms.delta_per_run));
        notes.require(agreed, "debit", || {
            format!("run {} debited epsilon {}, not what was agreed", e.runId, loss.epsilon)
        });
        proposal.spent = proposal.spent.plus(loss);
        let reported = Loss::new(e.epsilonSpent, e.deltaSpent);
        notes.require(proposal.spent == reported, "spent_sum", || {
            format!("the debits of proposal {} do not add up: an event is missing", e.proposalId)
        });
        notes.require(proposal.spent.within(proposal.budget), "budget", || {
            format!("proposal {} has spent more than its budget", e.proposalId)
        });
        let participants = indexes(e.participants);
        let text = format!(
            "run {} was opened on data of {}: epsilon {}",
            e.runId,
            self.names(&participants),
            loss.epsilon
        );
        self.runs.push(Run {
            run_id: e.runId,
            proposal_id: e.proposalId,
            analyst: e.analyst,
            participants,
            loss,
            opened_block: entry.block,
            opened_time: entry.time,
            receipt: None,
            equivocations: Vec::new(),
        });
        text
    }

    fn take_receipt(
        &mut self,
        e: &abi::IDstackApp::ReceiptPosted,
        entry: &Entry,
        notes: &mut Notes<'_>,
    ) -> String {
        let facts = self.facts(entry.time);
        let text = format!("agent {} posted the receipt of run {}", e.agent, e.runId);
        notes.require(!self.revoked_agents.contains(&e.agent), "agent_revoked", || {
            format!("the receipt of run {} is by a revoked agent key {}", e.runId, e.agent)
        });
        let digest = eip712::digest(&e.receipt, &self.domain);
        notes.require(digest == e.digest && e.receipt.runId == e.runId, "receipt_digest", || {
            format!("the receipt of run {} has another digest than the event says", e.runId)
        });
        let Some(run) = self.runs.iter_mut().find(|run| run.run_id == e.runId) else {
            notes.violation(
                "receipt_without_run",
                format!("a receipt for run {}, which nobody opened", e.runId),
            );
            return text;
        };
        notes.require(run.receipt.is_none(), "receipt_twice", || format!("run {} has two receipts", e.runId));
        notes.require(run.proposal_id == e.proposalId, "receipt_proposal", || {
            format!("the receipt of run {} names another proposal", e.runId)
        });
        notes.require(run.loss == Loss::new(e.receipt.epsilon, e.receipt.delta), "receipt_loss", || {
            format!("the receipt of run {} states another privacy loss than was debited", e.runId)
        });
        let participants = run.participants.iter().fold(0, |set, index| set | bit(*index));
        run.receipt = Some(Posted {
            agent: e.agent,
            output_hash: e.receipt.outputHash,
            inputs_hash: e.receipt.inputsHash,
            evidence_hash: e.receipt.evidenceHash,
            proved: e.receipt.privacyProof == 1,
            digest: e.digest,
            block: entry.block,
            time: entry.time,
            transaction: entry.transaction,
        });
        let proposal = self.proposal(e.proposalId);
        let decision = decide_proposal(&facts, Some(&proposal.facts()));
        notes.require(decision == Decision::Allow, "receipt_not_allowed", || {
            format!("the receipt of run {} was taken while its proposal was {decision}", e.runId)
        });
        let consent = participants & !(proposal.approved & facts.active_owners) == 0;
        notes.require(consent, "receipt_participant", || {
            format!("the receipt of run {} was taken after one of its owners was removed", e.runId)
        });
        text
    }

    fn take_dataset(&mut self, e: &abi::IDstackApp::DatasetRegistered, notes: &mut Notes<'_>) -> String {
        let info = &e.info;
        if let Some(former) = self.datasets.get_mut(&info.supersedes) {
            notes.require(former.owner_index == e.ownerIndex, "dataset_owner", || {
                format!("dataset {} replaces one of another owner", e.datasetId)
            });
            former.superseded = true;
        }
        let dataset = Dataset {
            dataset_id: e.datasetId,
            owner_index: e.ownerIndex,
            compose_hash: info.composeHash,
            region: label(info.region),
            kind: label(info.kind),
            records: info.records,
            size_bytes: info.sizeBytes,
            superseded: false,
        };
        let text = format!(
            "{} registered dataset {}: {} {}, {} records",
            self.owner_name(e.ownerIndex),
            e.datasetId,
            dataset.region,
            dataset.kind,
            dataset.records
        );
        let former = self.datasets.insert(e.datasetId, dataset);
        notes.require(former.is_none(), "dataset_twice", || {
            format!("dataset {} is registered twice", e.datasetId)
        });
        text
    }

    fn owner(&mut self, index: u8, notes: &mut Notes<'_>) -> Option<&mut Owner> {
        if !self.owners.contains_key(&index) {
            notes.violation("owner_unknown", format!("an event names owner {index}, who was never added"));
        }
        self.owners.get_mut(&index)
    }

    fn proposal(&mut self, id: B256) -> &mut Proposal {
        self.proposals.entry(id).or_insert_with(|| Proposal {
            proposal_id: id,
            terms: None,
            threshold_snapshot: 0,
            approvals: Vec::new(),
            rejections: Vec::new(),
            revoked: false,
            superseded: false,
            spent: Loss::default(),
            budget: Loss::default(),
            decision: None,
            approved: 0,
        })
    }
}

impl Proposal {
    /// Bit set of the owners that approved.
    pub fn approved(&self) -> u128 {
        self.approved
    }

    fn facts(&self) -> ProposalFacts {
        ProposalFacts {
            created: self.terms.is_some(),
            revoked: self.revoked,
            superseded: self.superseded,
            era: self.terms.as_ref().map_or(0, |terms| terms.era),
            expiry: self.terms.as_ref().map_or(0, |terms| terms.expiry),
            approvals: self.approved,
            threshold_snapshot: self.threshold_snapshot,
        }
    }
}

/// The set that holds one index.
pub(super) fn bit(index: u8) -> u128 {
    1u128.checked_shl(u32::from(index)).unwrap_or(0)
}

fn indexes(set: u128) -> Vec<u8> {
    (0..128).filter(|index| set & bit(*index) != 0).collect()
}

/// A short label; what is not one is shown as hex.
fn label(word: B256) -> String {
    Label::from_word("label", word).map_or_else(|_| word.to_string(), |label| label.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use alloy::primitives::FixedBytes;
    use cohort_protocol::abi::IDstackApp;

    use super::*;

    /// What no contract writes, an endpoint can tell: it is noted, and ends nothing.
    #[test]
    fn numbers_that_no_contract_writes_are_findings() {
        let mut history = History::new(1, Address::ZERO);
        let mut findings = Vec::new();
        let added = |index| {
            Event::OwnerAdded(IDstackApp::OwnerAdded {
                index,
                ownerId: B256::with_last_byte(index),
                account: Address::ZERO,
                revoker: Address::ZERO,
                jurisdiction: FixedBytes::ZERO,
                grades: 0,
            })
        };
        let era = |era| Event::EraStarted(IDstackApp::EraStarted { era, ownerIndex: 0, by: Address::ZERO });
        for event in [added(u8::MAX), added(0), era(u32::MAX), era(0)] {
            let entry = Entry { block: 1, log_index: 0, time: 1, transaction: B256::ZERO, name: "", event };
            history.apply(&entry, &mut findings);
        }
        let count = |code| findings.iter().filter(|finding| finding.code == code).count();
        assert_eq!((count("owner_index"), count("era")), (2, 2), "{findings:?}");
    }
}
