//! Why a dataset key may or may not be released: the contract's reasons, and the same decision over mirrored facts.
//!
//! The chain decides (`releaseDecision` in `IDstackApp.sol`). The indexer repeats it with [`decide`] over rows that
//! it built from events; the KMS requires both and treats any difference as a denial.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{ComposeHash, ProposalId};

macro_rules! decisions {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $code:literal, $hint:literal;)*) => {
        /// The decision with its stable number (contract) and code (JSON).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Decision { $($(#[$doc])* $name = $number,)* }

        impl Decision {
            /// All of them, in the contract's order.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Stable text code.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// What a person can do about it.
            pub const fn hint(self) -> &'static str {
                match self { $(Self::$name => $hint,)* }
            }
        }

        impl TryFrom<u8> for Decision {
            type Error = UnknownDecision;
            fn try_from(number: u8) -> Result<Self, UnknownDecision> {
                match number { $($number => Ok(Self::$name),)* other => Err(UnknownDecision(other)) }
            }
        }
    };
}

decisions! {
    /// The key may go out.
    Allow = 0, "allow", "nothing to do";
    /// No owner has approved these terms.
    ProposalUnknown = 1, "proposal_unknown", "owners approve these exact terms first: cohort approve";
    /// An owner revoked it; terminal.
    ProposalRevoked = 2, "proposal_revoked", "terminal; owners approve the terms afresh with another round";
    /// Another proposal for the same compose hash took its place; terminal.
    ProposalSuperseded = 3, "proposal_superseded", "use the newer proposal for this compose hash";
    /// An owner ended all proposals of that era.
    EraEnded = 4, "era_ended", "owners approve the terms afresh for the current era";
    /// Its expiry has passed.
    ProposalExpired = 5, "proposal_expired", "owners approve terms with a later expiry";
    /// Fewer live approvals than the threshold.
    NoQuorum = 6, "no_quorum", "more owners must approve: cohort approve";
    /// The CVM's compose hash is not the one that was approved.
    ComposeMismatch = 7, "compose_mismatch", "run exactly the approved app-compose file";
    /// No such owner is listed.
    NotAnOwner = 8, "not_an_owner", "check the owner's name against the contract's list";
    /// That owner's own approval is missing.
    OwnerNotApproved = 9, "owner_not_approved", "this owner must approve itself: cohort approve; no quorum replaces it";
    /// Not registered, not this owner's, or sealed for another compose hash.
    DatasetUnknown = 10, "dataset_unknown", "the owner registers the sealed file: cohort dataset register";
    /// Its owner replaced it.
    DatasetSuperseded = 11, "dataset_superseded", "use the owner's newer sealed file";
    /// The run is not open on chain for this proposal.
    RunUnknown = 12, "run_unknown", "open the run on chain first: cohort run";
    /// Its receipt is posted.
    RunClosed = 13, "run_closed", "open another run: each debit yields one result";
    /// The run does not include this owner.
    OwnerNotInRun = 14, "owner_not_in_run", "open a run that names this owner";
}

/// A number that no version of this software knows: a denial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown decision number {0}")]
pub struct UnknownDecision(pub u8);

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}

/// The facts about a proposal that its liveness depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProposalFacts {
    /// Its terms are known: somebody approved it.
    pub created: bool,
    /// Revoked, perhaps before it was created.
    pub revoked: bool,
    /// Replaced by another.
    pub superseded: bool,
    /// Era of its terms.
    pub era: u32,
    /// Expiry of its terms, Unix seconds.
    pub expiry: u64,
    /// Bit set of the owners that approved.
    pub approvals: u128,
    /// Threshold when it was created.
    pub threshold_snapshot: u8,
}

/// The consortium's configuration and the block's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppFacts {
    /// Bit set of the listed owners.
    pub active_owners: u128,
    /// Current threshold.
    pub threshold: u8,
    /// Current era.
    pub era: u32,
    /// Timestamp of the block at which the question is asked, Unix seconds.
    pub block_time: u64,
}

/// A registered dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatasetFacts {
    /// Index of the owner that registered it.
    pub owner_index: u8,
    /// What it is sealed for.
    pub compose_hash: ComposeHash,
    /// Replaced by its owner.
    pub superseded: bool,
}

/// A run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunFacts {
    /// The proposal it was opened under.
    pub proposal_id: ProposalId,
    /// Bit set of the owners that take part.
    pub participants: u128,
    /// Its receipt is posted.
    pub closed: bool,
}

/// Everything a release decision depends on.
#[derive(Debug, Clone, Copy)]
pub struct ReleaseFacts {
    /// Which proposal is asked about.
    pub proposal_id: ProposalId,
    /// The compose hash that the CVM proved.
    pub compose_hash: ComposeHash,
    /// The proposal that reached quorum for that compose hash, if any.
    pub current_proposal: Option<ProposalId>,
    /// The consortium.
    pub app: AppFacts,
    /// The proposal, if anything is known of it.
    pub proposal: Option<ProposalFacts>,
    /// Index of the owner, if listed.
    pub owner_index: Option<u8>,
    /// The dataset, if registered.
    pub dataset: Option<DatasetFacts>,
    /// The run, if opened.
    pub run: Option<RunFacts>,
}

/// Reasons 1 to 6, or [`Decision::Allow`] when the proposal is live.
pub fn decide_proposal(app: &AppFacts, proposal: Option<&ProposalFacts>) -> Decision {
    let Some(p) = proposal else { return Decision::ProposalUnknown };
    let quorum = p.threshold_snapshot.max(app.threshold);
    if p.revoked {
        Decision::ProposalRevoked
    } else if !p.created {
        Decision::ProposalUnknown
    } else if p.superseded {
        Decision::ProposalSuperseded
    } else if p.era != app.era {
        Decision::EraEnded
    } else if app.block_time >= p.expiry {
        Decision::ProposalExpired
    } else if (p.approvals & app.active_owners).count_ones() < u32::from(quorum) {
        Decision::NoQuorum
    } else {
        Decision::Allow
    }
}

/// The contract's `releaseDecision`, over facts.
pub fn decide(facts: &ReleaseFacts) -> Decision {
    let live = decide_proposal(&facts.app, facts.proposal.as_ref());
    if live != Decision::Allow {
        return live;
    }
    if facts.current_proposal != Some(facts.proposal_id) {
        return Decision::ComposeMismatch;
    }
    let Some(owner_index) = facts.owner_index else { return Decision::NotAnOwner };
    let bit = 1u128.checked_shl(u32::from(owner_index)).unwrap_or(0);
    if facts.app.active_owners & bit == 0 {
        return Decision::NotAnOwner;
    }
    if facts.proposal.is_none_or(|p| p.approvals & bit == 0) {
        return Decision::OwnerNotApproved;
    }
    decide_dataset(facts, owner_index).or_else(|| decide_run(facts, bit)).unwrap_or(Decision::Allow)
}

fn decide_dataset(facts: &ReleaseFacts, owner_index: u8) -> Option<Decision> {
    match facts.dataset {
        Some(d) if d.owner_index == owner_index && d.compose_hash == facts.compose_hash => {
            d.superseded.then_some(Decision::DatasetSuperseded)
        }
        _ => Some(Decision::DatasetUnknown),
    }
}

fn decide_run(facts: &ReleaseFacts, owner_bit: u128) -> Option<Decision> {
    match facts.run {
        // The contract does not keep the proposal of a closed run.
        Some(run) if run.closed => Some(Decision::RunClosed),
        Some(run) if run.proposal_id == facts.proposal_id => {
            (run.participants & owner_bit == 0).then_some(Decision::OwnerNotInRun)
        }
        _ => Some(Decision::RunUnknown),
    }
}

#[cfg(test)]
mod tests {
    use alloy::primitives::B256;

    use super::*;

    fn allowed() -> ReleaseFacts {
        let proposal_id = ProposalId(B256::repeat_byte(1));
        let compose_hash = ComposeHash(B256::repeat_byte(2));
        ReleaseFacts {
            proposal_id,
            compose_hash,
            current_proposal: Some(proposal_id),
            app: AppFacts { active_owners: 0b1111, threshold: 3, era: 0, block_time: 100 },
            proposal: Some(ProposalFacts {
                created: true,
                revoked: false,
                superseded: false,
                era: 0,
                expiry: 200,
                approvals: 0b0111,
                threshold_snapshot: 3,
            }),
            owner_index: Some(0),
            dataset: Some(DatasetFacts { owner_index: 0, compose_hash, superseded: false }),
            run: Some(RunFacts { proposal_id, participants: 0b0111, closed: false }),
        }
    }

    fn with(change: impl FnOnce(&mut ReleaseFacts)) -> Decision {
        let mut facts = allowed();
        change(&mut facts);
        decide(&facts)
    }

    #[test]
    fn every_reason_is_given_for_its_cause() {
        type Change = fn(&mut ReleaseFacts);
        let table: &[(Decision, Change)] = &[
            (Decision::Allow, |_| ()),
            (Decision::ProposalUnknown, |f| f.proposal = None),
            (Decision::ProposalRevoked, |f| f.proposal.as_mut().unwrap().revoked = true),
            (Decision::ProposalSuperseded, |f| f.proposal.as_mut().unwrap().superseded = true),
            (Decision::EraEnded, |f| f.app.era = 1),
            (Decision::ProposalExpired, |f| f.app.block_time = 200),
            (Decision::NoQuorum, |f| f.proposal.as_mut().unwrap().approvals = 0b0011),
            (Decision::NoQuorum, |f| f.app.active_owners = 0b1101),
            (Decision::ComposeMismatch, |f| f.current_proposal = None),
            (Decision::NotAnOwner, |f| f.owner_index = None),
            (Decision::OwnerNotApproved, |f| f.owner_index = Some(3)),
            (Decision::DatasetUnknown, |f| f.dataset = None),
            (Decision::DatasetUnknown, |f| f.dataset.as_mut().unwrap().owner_index = 1),
            (Decision::DatasetSuperseded, |f| f.dataset.as_mut().unwrap().superseded = true),
            (Decision::RunUnknown, |f| f.run = None),
            (Decision::RunClosed, |f| f.run.as_mut().unwrap().closed = true),
            (Decision::OwnerNotInRun, |f| f.run.as_mut().unwrap().participants = 0b0110),
        ];
        for (want, change) in table {
            assert_eq!(with(*change), *want);
        }
    }

    #[test]
    fn a_raised_threshold_counts_and_a_lowered_one_does_not() {
        assert_eq!(with(|f| f.app.threshold = 4), Decision::NoQuorum);
        let lowered = with(|f| {
            f.app.threshold = 2;
            f.proposal.as_mut().unwrap().approvals = 0b0011;
        });
        assert_eq!(lowered, Decision::NoQuorum);
    }

    #[test]
    fn numbers_and_codes_are_stable() {
        for (number, decision) in Decision::ALL.iter().enumerate() {
            assert_eq!(Decision::try_from(number as u8), Ok(*decision));
            assert_eq!(serde_json::to_value(decision).unwrap(), decision.code());
        }
        assert!(Decision::try_from(15).is_err());
    }
}
