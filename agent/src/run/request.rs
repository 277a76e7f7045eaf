//! An analyst's request, checked against this agent, its recipe, the chain's terms and the sealed files.

use std::{collections::BTreeSet, path::Path};

use alloy::primitives::{Address, B256, Bytes};
use cohort_protocol::{
    eip712,
    ids::{ComposeHash, OwnerId, ProposalId, RunId},
    sign_rpc::Input,
    terms::{SignedRunRequest, Terms},
};
use serde::{Deserialize, Serialize};

use super::{Agent, RunError, error::request};
use crate::{
    chain::ListedOwner,
    store::{self, Candidate},
};

/// Body of `POST /v1/runs`: what the analyst signed, in words that `curl` can send.
#[derive(Debug, Clone, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunBody {
    /// Compose hash to run; must be this agent's own.
    #[schema(value_type = String)]
    pub compose: ComposeHash,
    /// Owners whose data takes part.
    #[schema(value_type = Vec<String>)]
    pub owners: Vec<OwnerId>,
    /// The proposal; absent: the one in force for this compose hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub proposal: Option<ProposalId>,
    /// A listed analyst.
    #[schema(value_type = String)]
    pub analyst: Address,
    /// Tells runs apart.
    #[schema(value_type = String)]
    pub nonce: B256,
    /// Unix seconds after which the run may no longer be opened.
    pub deadline: u64,
    /// EIP-712 signature of `RunRequest` by the analyst.
    #[schema(value_type = String)]
    pub signature: Bytes,
}

/// A request that fits this agent, its recipe and the chain's terms.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub(super) terms: Terms,
    pub(super) run: SignedRunRequest,
    pub(super) inputs: Vec<(ListedOwner, Candidate)>,
}

impl Prepared {
    /// The run's identity.
    pub fn run_id(&self) -> RunId {
        self.run.run_id()
    }

    /// Whose datasets these are, as the envelope names them.
    pub(super) fn inputs(&self) -> Vec<Input> {
        let input = |(owner, candidate): &(ListedOwner, Candidate)| Input {
            owner: owner.id.clone(),
            dataset_id: candidate.dataset_id(),
        };
        self.inputs.iter().map(input).collect()
    }
}

impl Agent {
    /// Checks a request against this agent, its recipe, the sealed files and the chain's terms. Changes nothing.
    pub async fn prepare(&self, body: &RunBody) -> Result<Prepared, RunError> {
        if body.compose != self.compose_hash {
            let message = format!("this agent runs compose {}, not {}", self.compose_hash, body.compose);
            return Err(request(
                "compose_mismatch",
                message,
                "send the request to the agent of that compose hash",
            ));
        }
        self.check_names(&body.owners)?;
        if !self.chain.is_analyst(body.analyst).await? {
            let message = format!("{} is not a listed analyst", body.analyst);
            return Err(request("not_an_analyst", message, "the owners' quorum lists analysts"));
        }
        let owners = self.listed_owners(&body.owners).await?;
        let proposal_id = match body.proposal {
            Some(id) => id,
            None => self.chain.current_proposal(self.compose_hash).await?.ok_or_else(|| {
                let message = format!("no proposal for compose {} has reached its quorum", self.compose_hash);
                request("no_quorum", message, "more owners must approve: cohort approve")
            })?,
        };
        let terms = self.chain.terms(proposal_id).await?;
        self.check_terms(&terms)?;
        let run = SignedRunRequest {
            proposal_id,
            participants: owners.iter().fold(0, |set, owner| set | 1u128 << owner.index),
            analyst: body.analyst,
            nonce: body.nonce,
            deadline: body.deadline,
            signature: body.signature.clone(),
        };
        self.check_signature(&run).await?;
        let mut inputs = Vec::with_capacity(owners.len());
        for owner in owners {
            let dataset = self.dataset_of(&owner.id).await?;
            inputs.push((owner, dataset));
        }
        Ok(Prepared { terms, run, inputs })
    }

    /// Before any file is read for somebody. What a contract account signed, only the contract can check, when the
    /// run is opened.
    async fn check_signature(&self, run: &SignedRunRequest) -> Result<(), RunError> {
        let signer = eip712::recover(eip712::digest(&run.abi(), &self.domain()), &run.signature);
        if signer == Some(run.analyst) || self.chain.is_contract(run.analyst).await? {
            return Ok(());
        }
        let message = format!("the request is not signed by {}", run.analyst);
        Err(request("bad_signature", message, "sign exactly this request: cohort run"))
    }

    /// Owners of the recipe, each once, at least one. Asks nobody.
    fn check_names(&self, names: &[OwnerId]) -> Result<(), RunError> {
        let once: BTreeSet<&OwnerId> = names.iter().collect();
        if names.is_empty() || once.len() != names.len() {
            return Err(request(
                "invalid_owners",
                "name each owner once, at least one".to_owned(),
                "correct the list",
            ));
        }
        if let Some(missing) = self.required_owners.iter().find(|owner| !names.contains(owner)) {
            let message = format!("the recipe's SQL reads the table of {missing}, who does not take part");
            return Err(request("owner_missing", message, "name that owner too: cohort recipe explain"));
        }
        match names.iter().find(|name| !self.recipe.owners().contains(name)) {
            None => Ok(()),
            Some(name) => {
                let message = format!("the recipe has no dataset of {name}");
                Err(request("not_an_owner", message, "name owners of the recipe: cohort recipe explain"))
            }
        }
    }

    /// The named owners by ascending index.
    async fn listed_owners(&self, names: &[OwnerId]) -> Result<Vec<ListedOwner>, RunError> {
        let mut owners = Vec::with_capacity(names.len());
        for name in names {
            owners.push(self.chain.owner(name).await?);
        }
        owners.sort_by_key(|owner| owner.index);
        Ok(owners)
    }

    /// The debit on chain must be for exactly what this recipe spends.
    fn check_terms(&self, terms: &Terms) -> Result<(), RunError> {
        let recipe = &self.recipe;
        let same = terms.compose_hash == self.compose_hash
            && terms.recipe_hash == recipe.recipe_hash()
            && terms.output_schema_hash == recipe.output_schema_hash()
            && terms.epsilon_per_run == recipe.privacy().epsilon_per_run
            && terms.delta_per_run == recipe.delta_per_run().0;
        if same {
            return Ok(());
        }
        let message = "the approved terms are not those of this agent's recipe".to_owned();
        Err(request("terms_mismatch", message, "make the terms from this app-compose file: cohort terms"))
    }

    /// The one sealed file of `owner` for this recipe that is registered and in force.
    async fn dataset_of(&self, owner: &OwnerId) -> Result<Candidate, RunError> {
        let mut in_force = Vec::new();
        for folder in self.sealed.folders() {
            self.add_in_force(owner, folder, &mut in_force).await?;
        }
        if in_force.is_empty()
            && let Some(folder) = self.sealed.fetch(owner).await?
        {
            self.add_in_force(owner, &folder, &mut in_force).await?;
        }
        if in_force.len() > 1 {
            // Whoever fills the folder must not choose between versions.
            let message = format!("{} datasets of {owner} are in force for this recipe", in_force.len());
            let hint = "the owner registers the newest one with --supersedes";
            return Err(request("dataset_ambiguous", message, hint));
        }
        in_force.pop().ok_or_else(|| {
            let message =
                format!("no registered sealed dataset of {owner} for compose {}", self.compose_hash);
            request("dataset_unknown", message, "the owner seals, registers and publishes it: cohort seal")
        })
    }

    /// Adds the sealed files of `owner` in a folder that are registered and in force, each once.
    async fn add_in_force(
        &self,
        owner: &OwnerId,
        folder: &Path,
        in_force: &mut Vec<Candidate>,
    ) -> Result<(), RunError> {
        let (folder, app, compose, id) =
            (folder.to_owned(), self.chain.app(), self.compose_hash, owner.clone());
        let found = tokio::task::spawn_blocking(move || store::candidates(&folder, app, compose, &id))
            .await
            .map_err(|_| RunError::Internal("reading sealed files was interrupted"))??;
        for candidate in found {
            let known = in_force.iter().any(|other| other.dataset_id() == candidate.dataset_id());
            if !known && self.chain.dataset_in_force(candidate.dataset_id()).await? {
                in_force.push(candidate);
            }
        }
        Ok(())
    }

    /// Would the chain open this run now?
    pub async fn check_open(&self, prepared: &Prepared) -> Result<(), RunError> {
        if self.chain.run_is_known(prepared.run_id()).await? {
            return Ok(());
        }
        Ok(self.chain.check_open(&prepared.terms, &prepared.run).await?)
    }
}
