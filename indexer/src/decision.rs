//! The release decision over mirrored facts: the same facts, read once, decided at the head, at the confirmed and
//! at the finalized block.

use alloy::primitives::Address;
use cohort_protocol::{
    chain::{DecisionAt, Position, ReleaseDecisions},
    decision::{ReleaseFacts, decide},
    ids::{ComposeHash, DatasetId, ProposalId, RunId},
};

use crate::{
    event::AppEvent,
    store::{By, Kinds, Recorded, Select, Snapshot, StoreError},
    value::Name,
    view::{AppState, DECISION_KINDS, DatasetState, Positions, ProposalState, RunState, proposal},
};

/// What is asked: `releaseDecision` of `IDstackApp.sol`.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// Which proposal.
    pub proposal: ProposalId,
    /// The compose hash that the CVM proved.
    pub compose: ComposeHash,
    /// Whose key.
    pub owner: Name,
    /// Of which dataset.
    pub dataset: DatasetId,
    /// For which run.
    pub run: RunId,
}

/// The events that a question depends on, up to some block.
#[derive(Debug, Clone)]
pub struct ReleaseRows<'a> {
    configuration: &'a [Recorded<AppEvent>],
    proposal: Vec<Recorded<AppEvent>>,
    activations: Vec<Recorded<AppEvent>>,
    dataset: Vec<Recorded<AppEvent>>,
    run: Vec<Recorded<AppEvent>>,
}

/// The app's configuration up to a block, which all questions about it depend on.
pub async fn configuration(
    snapshot: &mut Snapshot,
    app: Address,
    at: u64,
) -> Result<Vec<Recorded<AppEvent>>, StoreError> {
    snapshot.events(Select::new(app, By::Contract, Kinds::Any(DECISION_KINDS), at)).await
}

impl<'a> ReleaseRows<'a> {
    /// Reads the events up to a block, beside those of [`configuration`].
    pub async fn load(
        snapshot: &mut Snapshot,
        app: Address,
        configuration: &'a [Recorded<AppEvent>],
        question: &Question,
        at: u64,
    ) -> Result<Self, StoreError> {
        let of_proposal = By::Proposal(question.proposal.0);
        let mut proposal =
            snapshot.events(Select::new(app, of_proposal, Kinds::Any(proposal::DECISION_KINDS), at)).await?;
        proposal.extend(proposal::superseding(snapshot, app, question.proposal.0, at).await?);
        let activated = Kinds::One("proposal_activated");
        Ok(Self {
            configuration,
            proposal,
            activations: snapshot
                .events(Select::new(app, By::Compose(question.compose.0), activated, at))
                .await?,
            dataset: DatasetState::rows(snapshot, app, question.dataset, at).await?,
            run: RunState::rows(snapshot, app, question.run, at).await?,
        })
    }

    /// The facts as of a block that is not above the one read up to.
    pub fn facts(&self, question: &Question, at: &Position) -> ReleaseFacts {
        let app = AppState::fold(self.configuration, at.number);
        let activated = |row: &&Recorded<AppEvent>| row.stamp.cursor.block_number <= at.number;
        let current_proposal = match self.activations.iter().rfind(activated).map(|row| &row.event) {
            Some(AppEvent::ProposalActivated { proposal_id, .. }) => Some(*proposal_id),
            _ => None,
        };
        ReleaseFacts {
            proposal_id: question.proposal,
            compose_hash: question.compose,
            current_proposal,
            app: app.facts(at.timestamp),
            proposal: ProposalState::fold(question.proposal, &self.proposal, at.number).facts(),
            owner_index: app.owner_index(question.owner),
            dataset: DatasetState::fold(question.dataset, &self.dataset, at.number)
                .map(|dataset| dataset.facts()),
            run: RunState::fold(&self.run, at.number).map(|run| run.facts()),
        }
    }

    /// The decision at each position.
    pub fn decisions(&self, question: &Question, positions: &Positions) -> ReleaseDecisions {
        let at =
            |position: Position| DecisionAt { position, decision: decide(&self.facts(question, &position)) };
        ReleaseDecisions {
            chain_id: positions.source.chain_id,
            head: at(positions.head),
            confirmed: at(positions.confirmed),
            finalized: positions.finalized.map(at),
        }
    }
}
