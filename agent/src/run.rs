//! One run, from an analyst's request to a result that may be read.
//!
//! Order (design, section 2): open on chain (debit), attest, keys, unseal, compute, guard, sign, receipt on chain,
//! and only when the receipt has aged: reveal. Whatever fails before that reveals nothing.

mod lease;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use alloy::{
    primitives::{Address, B256, Bytes},
    signers::{SignerSync, local::PrivateKeySigner},
};
use cohort_attestation::{
    Collateral, Evidence, GuestEvidence,
    gpu::{self, GpuEvidence},
};
use cohort_protocol::{
    compose::AppCompose,
    decision::Decision,
    eip712,
    hpke::{self, KeyPair, SecretBytes},
    ids::{ComposeHash, OwnerId, ProposalId, RunId},
    json::sha256,
    recipe::{Engine, Recipe},
    release::{Binding, Certificate, DatasetRequest, ReceiptQuestion, Refusal, ReleaseRequest, WrapKeys},
    sign_rpc::{self, Input, PrivacyProof, ResultFile, SignedReceipt},
    terms::{SignedRunRequest, Terms},
};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, SemaphorePermit};
use tracing::{info, warn};
use zeroize::Zeroizing;

use lease::{Lease, Stop};

use crate::{
    chain::{Chain, ChainError, ListedOwner},
    compute::{self, GuardedOutput, Sandbox},
    fetch::{FetchError, Sources},
    guest::{GuestAgent, GuestError},
    kms::{Kms, KmsError},
    resume::{Keeper, Pending, ResumeError},
    store::{self, Candidate, StoreError},
};

/// Refusals of the KMS that end by themselves when its witnesses have caught up with the chain.
const NOT_YET: [&str; 4] = ["not_confirmed", "indexer_denies", "indexer_fork", "indexer_stale"];
/// Requests that ask the chain or read files, at once.
const REQUESTS_AT_ONCE: usize = 16;
/// How often the agent asks for the keys of one run.
const ATTEMPTS: u32 = 12;
/// Pause between two requests.
const PAUSE: Duration = Duration::from_secs(1);

/// A finished run.
pub type RunResult = ResultFile<Evidence>;

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

/// How far a run is. Stages tell what is done, never anything of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Waiting for its turn.
    Queued,
    /// `openRun` debits the budget.
    Opening,
    /// Quote, challenge, keys.
    Attesting,
    /// Unsealing, computing, guarding.
    Computing,
    /// The receipt is on its way to the confirmed depth.
    PostingReceipt,
}

/// State of a run as the API shows it.
#[derive(Debug, Clone)]
pub enum RunState {
    /// Under way.
    Running(Stage),
    /// Its receipt is on chain: the result may be read.
    Done(Arc<RunResult>),
    /// It ended without a result.
    Failed(Refusal),
}

/// Why a run did not yield a result. Texts never hold anything from a row (R15).
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The request does not fit this agent.
    #[error("{}", .0.message)]
    Request(Refusal),
    /// The chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The KMS.
    #[error(transparent)]
    Kms(#[from] KmsError),
    /// The guest agent.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// A sealed file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The data cannot be computed on.
    #[error(transparent)]
    Compute(#[from] compute::ComputeError),
    /// The output may not leave.
    #[error(transparent)]
    Guard(#[from] compute::GuardError),
    /// A signed result cannot be kept.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// A sealed file cannot be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// Randomness, signing or encoding failed.
    #[error("internal: {0}")]
    Internal(&'static str),
}

impl RunError {
    /// The stable code and words for the API. Internals stay in the log.
    pub fn refusal(&self) -> Refusal {
        let (code, hint) = match self {
            Self::Request(refusal) => return refusal.clone(),
            Self::Chain(ChainError::Refused(reverted)) => return reverted.0.clone(),
            Self::Kms(KmsError::Refused(refusal)) => return refusal.clone(),
            Self::Chain(ChainError::GasLow { .. }) => {
                ("gas_low", "send some of the chain's currency to the agent's gas account")
            }
            Self::Fetch(_) => {
                ("dataset_unreachable", "check the address and that the file is published there")
            }
            Self::Resume(_) => ("state_unwritable", "give the agent a folder that it may write: --state"),
            Self::Chain(ChainError::OwnerUnknown(_)) => {
                ("not_an_owner", "check the owner's name against the contract's list")
            }
            Self::Chain(ChainError::ProposalUnknown(_)) => {
                ("proposal_unknown", "owners approve first: cohort approve")
            }
            Self::Chain(_) => ("chain_unavailable", "try again when the RPC endpoints answer and agree"),
            Self::Kms(KmsError::Unreachable(_)) => ("kms_unreachable", "try again when the KMS answers"),
            Self::Guest(_) => {
                ("guest_agent_unavailable", "check the socket that dstack mounts into the container")
            }
            Self::Store(_) => ("dataset_unusable", "the owner seals and publishes the file again"),
            Self::Compute(_) => {
                ("input_unusable", "the owner checks the sealed file against the recipe's schema")
            }
            Self::Guard(_) => ("output_refused", "the recipe's output does not fit its registered schema"),
            Self::Internal(_) => ("internal", "see the agent's log"),
        };
        Refusal { code: code.to_owned(), message: self.to_string(), hint: Some(hint.to_owned()) }
    }
}

fn request(code: &str, message: String, hint: &str) -> RunError {
    RunError::Request(Refusal { code: code.to_owned(), message, hint: Some(hint.to_owned()) })
}

/// A request that fits this agent, its recipe and the chain's terms.
#[derive(Debug, Clone)]
pub struct Prepared {
    terms: Terms,
    run: SignedRunRequest,
    inputs: Vec<(ListedOwner, Candidate)>,
}

impl Prepared {
    /// The run's identity.
    pub fn run_id(&self) -> RunId {
        self.run.run_id()
    }
}

/// Everything a run needs.
pub struct Agent {
    /// Exact app-compose text, as the guest agent gave it.
    app_compose: String,
    compose_hash: ComposeHash,
    recipe: Recipe,
    chain: Chain,
    kms: Kms,
    guest: GuestAgent,
    sealed: Sources,
    sandbox: Option<Sandbox>,
    collateral: Collateral,
    receipt_key: PrivateKeySigner,
    runs: Mutex<BTreeMap<RunId, RunState>>,
    /// Results whose receipt is signed: posted as they are, however often that has to be tried. Another output for the
    /// same run would be a second draw of the noise.
    signed: Mutex<BTreeMap<RunId, Arc<Pending>>>,
    keeper: Option<Keeper>,
    changed: tokio::sync::watch::Sender<u64>,
    /// The root that released the keys of a run: it alone renews their lease.
    lessors: Mutex<BTreeMap<RunId, Address>>,
    #[cfg(feature = "dev")]
    insecure_dev_slow: Duration,
    places: Semaphore,
    turn: tokio::sync::Mutex<()>,
}

/// What the agent is set up with.
pub struct Setup {
    /// The chain, connected.
    pub chain: Chain,
    /// The KMS.
    pub kms: Kms,
    /// The guest agent.
    pub guest: GuestAgent,
    /// Exact app-compose text.
    pub app_compose: String,
    /// Where sealed files lie.
    pub sealed: Sources,
    /// Where a Python recipe's script runs.
    pub sandbox: Sandbox,
    /// Intel's (or the development platform's) statements for this machine.
    pub collateral: Collateral,
    /// Development only: how long opened data is held before it is computed on.
    #[cfg(feature = "dev")]
    pub insecure_dev_slow: Duration,
}

/// What the KMS attested, without the keys.
#[derive(Debug, Clone)]
struct Attested {
    binding: Binding,
    evidence: Evidence,
    certificate: Certificate,
    platform: String,
}

impl Agent {
    /// Reads the recipe out of the measured app-compose and makes this boot's receipt key.
    pub fn new(setup: Setup) -> Result<Self, RunError> {
        let bad = |e: &dyn std::error::Error| {
            request(
                "recipe_unusable",
                format!("this CVM's app-compose holds no usable recipe: {e}"),
                "cohort recipe lint",
            )
        };
        let compose = AppCompose::parse(setup.app_compose.as_bytes()).map_err(|e| bad(&e))?;
        let recipe = compose.recipe().map_err(|e| bad(&e))?;
        compute::preflight(&recipe).map_err(|e| bad(&e))?;
        compute::account(&recipe).map_err(|e| bad(&e))?;
        let sandbox = match recipe.engine() {
            Engine::Declared => None,
            Engine::Python(python) => {
                // Nothing is debited for a script that cannot be confined.
                setup.sandbox.has_script(python).map_err(|e| bad(&e))?;
                setup.sandbox.check().map_err(|e| bad(&e))?;
                Some(setup.sandbox)
            }
        };
        Ok(Self {
            compose_hash: compose.compose_hash(),
            recipe,
            app_compose: setup.app_compose,
            chain: setup.chain,
            kms: setup.kms,
            guest: setup.guest,
            sealed: setup.sealed,
            sandbox,
            collateral: setup.collateral,
            receipt_key: PrivateKeySigner::random(),
            runs: Mutex::new(BTreeMap::new()),
            signed: Mutex::new(BTreeMap::new()),
            lessors: Mutex::new(BTreeMap::new()),
            #[cfg(feature = "dev")]
            insecure_dev_slow: setup.insecure_dev_slow,
            keeper: None,
            changed: tokio::sync::watch::Sender::new(0),
            places: Semaphore::new(REQUESTS_AT_ONCE),
            turn: tokio::sync::Mutex::new(()),
        })
    }

    /// What this agent runs.
    pub fn compose_hash(&self) -> ComposeHash {
        self.compose_hash
    }

    /// The chain it serves.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Address of this boot's receipt key.
    pub fn receipt_key(&self) -> Address {
        self.receipt_key.address()
    }

    /// State of a run of this boot.
    pub fn state(&self, id: RunId) -> Option<RunState> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// All runs of this boot.
    pub fn runs(&self) -> Vec<(RunId, RunState)> {
        let runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        runs.iter().map(|(id, state)| (*id, state.clone())).collect()
    }

    /// Tells of every change of any run's state.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn set(&self, id: RunId, state: RunState) {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).insert(id, state);
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Keeps signed results in `folder`, sealed, so that a crash between receipt and reveal loses nothing.
    pub async fn keep_in(mut self, folder: &std::path::Path) -> Result<Self, RunError> {
        let secret = self.guest.key("cohort/resume", "resume").await?;
        self.keeper = Some(Keeper::new(folder, &secret, self.compose_hash)?);
        Ok(self)
    }

    /// Takes up what an earlier boot had signed: posts the receipt if it is missing, and reveals.
    pub fn resume(self: &Arc<Self>) {
        for pending in self.keeper.as_ref().map(Keeper::load).unwrap_or_default() {
            let id = pending.receipt.run_id;
            if !self.is_whole(&pending) {
                warn!(target: "cohort::agent", run = %id, "a kept result does not fit this agent; left alone");
                continue;
            }
            info!(target: "cohort::agent", run = %id, "taken up again");
            let pending = Arc::new(pending);
            self.signed.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&pending));
            self.set(id, RunState::Running(Stage::PostingReceipt));
            let agent = Arc::clone(self);
            tokio::spawn(async move {
                let _turn = agent.turn.lock().await;
                let outcome = agent.reveal(&pending).await;
                agent.end(id, outcome);
            });
        }
    }

    /// The guard's own check again: nothing but what it lets out is ever revealed.
    fn is_whole(&self, pending: &Pending) -> bool {
        pending.binding.app == self.chain.app()
            && pending.binding.chain_id == self.chain.chain_id()
            && pending.terms.compose_hash == self.compose_hash
            && compute::guard(&self.recipe, &pending.payload)
                .is_ok_and(|output| output.hash() == pending.receipt.output_hash)
    }

    /// A place for one request that asks the chain or reads files; refused when all are taken.
    pub fn place(&self) -> Result<SemaphorePermit<'_>, RunError> {
        self.places
            .try_acquire()
            .map_err(|_| request("busy", "too many requests at once".to_owned(), "ask again"))
    }

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
            && terms.delta_per_run == 0;
        if same {
            return Ok(());
        }
        let message = "the approved terms are not those of this agent's recipe".to_owned();
        Err(request("terms_mismatch", message, "make the terms from this app-compose file: cohort terms"))
    }

    /// The one sealed file of `owner` for this recipe that is registered and in force.
    async fn dataset_of(&self, owner: &OwnerId) -> Result<Candidate, RunError> {
        let mut in_force = self.in_force(owner, self.sealed.folder()).await?;
        if in_force.is_empty()
            && let Some(folder) = self.sealed.fetch(owner).await?
        {
            in_force = self.in_force(owner, &folder).await?;
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

    /// The sealed files of `owner` in a folder that are registered and in force, each once.
    async fn in_force(&self, owner: &OwnerId, folder: &std::path::Path) -> Result<Vec<Candidate>, RunError> {
        let (folder, app, compose, id) =
            (folder.to_owned(), self.chain.app(), self.compose_hash, owner.clone());
        let found = tokio::task::spawn_blocking(move || store::candidates(&folder, app, compose, &id))
            .await
            .map_err(|_| RunError::Internal("reading sealed files was interrupted"))??;
        let mut in_force: Vec<Candidate> = Vec::new();
        for candidate in found {
            let known = in_force.iter().any(|other| other.dataset_id() == candidate.dataset_id());
            if !known && self.chain.dataset_in_force(candidate.dataset_id()).await? {
                in_force.push(candidate);
            }
        }
        Ok(in_force)
    }

    /// Would the chain open this run now?
    pub async fn check_open(&self, prepared: &Prepared) -> Result<(), RunError> {
        if self.chain.run_is_known(prepared.run_id()).await? {
            return Ok(());
        }
        Ok(self.chain.check_open(&prepared.terms, &prepared.run).await?)
    }

    /// Asks the KMS for the keys of a run without opening it: its refusal says what is missing. Debits nothing.
    pub async fn preflight(&self, prepared: &Prepared) -> Result<(), RunError> {
        self.attest(prepared).await.map(drop)
    }

    /// Registers the run; `false` if this boot knows it already.
    pub fn admit(&self, id: RunId) -> bool {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        match runs.get(&id) {
            Some(RunState::Failed(_)) | None => {
                runs.insert(id, RunState::Running(Stage::Queued));
                true
            }
            Some(_) => false,
        }
    }

    /// Runs to the end and records the outcome. One run at a time.
    pub async fn execute(self: Arc<Self>, prepared: Prepared) {
        let _turn = self.turn.lock().await;
        let id = prepared.run_id();
        let outcome = Self::pipeline(&self, &prepared).await;
        self.end(id, outcome);
    }

    fn end(&self, id: RunId, outcome: Result<RunResult, RunError>) {
        let state = match outcome {
            Ok(result) => RunState::Done(Arc::new(result)),
            Err(error) => {
                warn!(target: "cohort::agent", run = %id, code = error.refusal().code, "run ended without a result");
                RunState::Failed(error.refusal())
            }
        };
        self.set(id, state);
    }

    async fn pipeline(self: &Arc<Self>, prepared: &Prepared) -> Result<RunResult, RunError> {
        let id = prepared.run_id();
        let stage = |stage| {
            info!(target: "cohort::agent", run = %id, ?stage, "stage");
            self.set(id, RunState::Running(stage));
        };
        let signed = match self.signed_before(id) {
            Some(signed) => signed,
            None => self.compute_once(prepared, &stage).await?,
        };
        stage(Stage::PostingReceipt);
        self.reveal(&signed).await
    }

    /// Commit, then reveal: the receipt on chain, seen by all endpoints and by the KMS, and only then the output (R16).
    async fn reveal(&self, signed: &Pending) -> Result<RunResult, RunError> {
        let id = signed.receipt.run_id;
        let digest = signed.receipt.digest(&self.domain());
        kill_point("kept");
        let (receipt, certificate) = (&signed.receipt, &signed.certificate);
        self.chain.post_receipt(&signed.terms, &signed.run, receipt, certificate, digest).await?;
        kill_point("posted");
        self.wait_for_the_kms(signed, digest).await?;
        kill_point("seen");
        let position = self.chain.receipt_position(id, digest).await?;
        let Pending { platform, payload, receipt, certificate, terms, run, inputs, binding, evidence } =
            signed.clone();
        let mut result = ResultFile {
            format: sign_rpc::FORMAT.to_owned(),
            chain_id: self.chain.chain_id(),
            app: self.chain.app(),
            attestation: platform,
            payload,
            receipt,
            certificate,
            terms,
            run,
            inputs,
            binding,
            evidence,
            position,
            chain: None,
        };
        result.chain = self.chain.prove(&result).await;
        Ok(result)
    }

    fn lessor(&self, id: RunId) -> Option<Address> {
        self.lessors.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied()
    }

    fn set_lessor(&self, id: RunId, root: Address) {
        self.lessors.lock().unwrap_or_else(PoisonError::into_inner).insert(id, root);
    }

    fn signed_before(&self, id: RunId) -> Option<Arc<Pending>> {
        self.signed.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Opens the run if it is not, gets its keys, computes, guards and signs: once a run.
    async fn compute_once(
        self: &Arc<Self>,
        prepared: &Prepared,
        stage: &impl Fn(Stage),
    ) -> Result<Arc<Pending>, RunError> {
        let id = prepared.run_id();
        if !self.chain.run_is_known(id).await? {
            stage(Stage::Opening);
            self.chain.check_gas().await?;
            self.check_before_debit(prepared).await?;
            self.chain.open_run(&prepared.terms, &prepared.run).await?;
        }
        stage(Stage::Attesting);
        let asked = Instant::now();
        let (attested, keys) = self.attest_until_seen(prepared).await?;
        kill_point("released");
        stage(Stage::Computing);
        self.set_lessor(id, attested.binding.kms_root);
        let mut lease = Lease::start(Arc::clone(self), prepared.clone(), asked, keys.lease_seconds);
        let stop = lease.stop();
        let output = lease.hold(self.compute(prepared, keys, stop)).await??;
        lease.finish(self, prepared).await?;
        let receipt = self.sign_receipt(prepared, &attested, &output)?;
        let Attested { binding, evidence, certificate, platform } = attested;
        let signed = Arc::new(Pending {
            platform,
            payload: output.into_value(),
            receipt,
            certificate,
            terms: prepared.terms.clone(),
            run: prepared.run.clone(),
            inputs: inputs(prepared),
            binding,
            evidence,
        });
        kill_point("signed");
        if let Some(keeper) = &self.keeper {
            keeper.save(&signed)?;
        }
        self.signed.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&signed));
        Ok(signed)
    }

    /// What is debited never comes back: first the KMS must find nothing missing but the opening itself.
    async fn check_before_debit(&self, prepared: &Prepared) -> Result<(), RunError> {
        match self.attest(prepared).await {
            Err(RunError::Kms(KmsError::Refused(refusal))) if refusal.code == Decision::RunUnknown.code() => {
                Ok(())
            }
            other => other.map(drop),
        }
    }

    /// This agent's own endpoints are its host's, who may show it any chain. The KMS, whose root alone opens the data,
    /// must have seen the receipt too.
    async fn wait_for_the_kms(&self, signed: &Pending, digest: B256) -> Result<(), RunError> {
        let question = ReceiptQuestion { run_id: signed.receipt.run_id, digest };
        let mut asked = 1;
        let answer = loop {
            match self.kms.receipt(&question).await {
                Err(KmsError::Refused(refusal)) if refusal.code == "receipt_not_seen" && asked < ATTEMPTS => {
                    asked += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                answer => break answer?,
            }
        };
        if answer.signer(&self.domain(), &question) == Some(signed.binding.kms_root) {
            return Ok(());
        }
        Err(RunError::Internal(
            "the statement that the receipt was seen is not by the KMS that released the keys",
        ))
    }

    /// Asks again while some witness of the KMS has not yet seen what the others have: the opened run is young.
    async fn attest_until_seen(&self, prepared: &Prepared) -> Result<(Attested, WrapKeys), RunError> {
        for _ in 1..ATTEMPTS {
            match self.attest(prepared).await {
                Err(RunError::Kms(KmsError::Refused(refusal)))
                    if NOT_YET.contains(&refusal.code.as_str()) =>
                {
                    info!(target: "cohort::agent", run = %prepared.run_id(), code = refusal.code, "asking again");
                    tokio::time::sleep(PAUSE).await;
                }
                other => return other,
            }
        }
        self.attest(prepared).await
    }

    /// Fresh keys, challenge, quote, request: the wrap keys come back sealed to this call's key alone.
    async fn attest(&self, prepared: &Prepared) -> Result<(Attested, WrapKeys), RunError> {
        let secret = hpke::random_secret().map_err(|_| RunError::Internal("no randomness"))?;
        let encryption = KeyPair::derive(&secret);
        let challenge = self.kms.challenge().await?;
        let mut binding = Binding {
            chain_id: self.chain.chain_id(),
            app: self.chain.app(),
            kms_root: challenge.kms_root,
            challenge: challenge.challenge,
            run_id: prepared.run_id(),
            encryption_key_hash: sha256(encryption.public_key().as_bytes()),
            receipt_key: self.receipt_key.address(),
            gpu_evidence_hash: None,
        };
        let gpu = self.gpu_evidence(&mut binding).await?;
        let evidence = self.evidence(&binding, gpu).await?;
        let request = ReleaseRequest {
            terms: prepared.terms.clone(),
            run: prepared.run.clone(),
            binding: binding.clone(),
            encryption_key: Bytes::copy_from_slice(encryption.public_key().as_bytes()),
            datasets: dataset_requests(prepared)?,
            evidence,
        };
        let answer = self.kms.release(&request).await?;
        let keys = WrapKeys::open(&encryption, &binding, &answer)
            .map_err(|_| RunError::Internal("the KMS's answer does not open with this request's key"))?;
        let (certificate, platform) = (answer.certificate, answer.platform);
        Ok((Attested { binding, evidence: request.evidence, certificate, platform }, keys))
    }

    /// Evidence of the GPUs that the recipe requires, to which the binding then commits; none if it requires none.
    async fn gpu_evidence(&self, binding: &mut Binding) -> Result<Vec<GpuEvidence>, RunError> {
        if self.recipe.gpu().is_none() {
            return Ok(Vec::new());
        }
        let gpus = self.guest.gpu_evidence(&binding.gpu_nonce()).await?;
        binding.gpu_evidence_hash = Some(B256::from(gpu::evidence_hash(&gpus)));
        Ok(gpus)
    }

    async fn evidence(&self, binding: &Binding, gpu: Vec<GpuEvidence>) -> Result<Evidence, RunError> {
        let quote = self.guest.quote(&binding.report_data()).await?;
        let bytes = hex::decode(&quote.quote)
            .map_err(|_| RunError::Internal("the guest agent's quote is not hex"))?;
        Ok(GuestEvidence {
            quote: bytes,
            event_log: quote.event_log,
            app_compose: Some(self.app_compose.clone()),
            gpu,
        }
        .with_collateral(self.collateral.clone()))
    }

    /// Unseals and computes away from the async threads; plaintext and keys are wiped when it returns.
    /// It ends early, with nothing, when the lease of the keys is lost.
    async fn compute(
        &self,
        prepared: &Prepared,
        keys: WrapKeys,
        stop: Stop,
    ) -> Result<GuardedOutput, RunError> {
        let mut jobs = Vec::with_capacity(prepared.inputs.len());
        for (owner, candidate) in &prepared.inputs {
            let key = keys
                .keys
                .iter()
                .find(|key| key.dataset_id == candidate.dataset_id())
                .ok_or(RunError::Internal("the KMS's answer lacks a key"))?;
            let bytes = Zeroizing::new(
                hex::decode(&key.wrap_key).map_err(|_| RunError::Internal("a wrap key is not hex"))?,
            );
            let key =
                SecretBytes::from_slice(&bytes).ok_or(RunError::Internal("a wrap key is not 32 bytes"))?;
            jobs.push((owner.id.clone(), candidate.clone(), key));
        }
        drop(keys);
        let (recipe, sandbox) = (self.recipe.clone(), self.sandbox.clone());
        #[cfg(feature = "dev")]
        let slow = self.insecure_dev_slow;
        tokio::task::spawn_blocking(move || {
            let mut data = Vec::with_capacity(jobs.len());
            for (owner, candidate, key) in &jobs {
                go_on(&stop)?;
                data.push((owner.clone(), candidate.unseal(key)?));
            }
            #[cfg(feature = "dev")]
            insecure_dev_pause(slow, &stop);
            go_on(&stop)?;
            let output = compute::compute(&recipe, data, sandbox.as_ref())?;
            go_on(&stop)?;
            Ok(compute::guard(&recipe, output.value())?)
        })
        .await
        .map_err(|_| RunError::Internal("the computation was interrupted"))?
    }

    fn sign_receipt(
        &self,
        prepared: &Prepared,
        attested: &Attested,
        output: &GuardedOutput,
    ) -> Result<SignedReceipt, RunError> {
        let evidence_hash = sign_rpc::evidence_hash(&attested.binding, &attested.evidence)
            .map_err(|_| RunError::Internal("the evidence has no canonical form"))?;
        let mut receipt = SignedReceipt {
            run_id: prepared.run_id(),
            output_hash: output.hash(),
            inputs_hash: sign_rpc::inputs_hash(&inputs(prepared)),
            evidence_hash,
            epsilon: prepared.terms.epsilon_per_run,
            delta: prepared.terms.delta_per_run,
            privacy_proof: self.privacy_proof(),
            produced_at: now(),
            signature: Bytes::new(),
        };
        let digest = receipt.digest(&self.domain());
        let signature =
            self.receipt_key.sign_hash_sync(&digest).map_err(|_| RunError::Internal("signing failed"))?;
        receipt.signature = signature.as_bytes().to_vec().into();
        Ok(receipt)
    }

    /// R18: what a script's numbers reveal of one person is its author's claim.
    fn privacy_proof(&self) -> PrivacyProof {
        match self.recipe.engine() {
            Engine::Declared => PrivacyProof::Proved,
            Engine::Python(_) => PrivacyProof::Declared,
        }
    }

    fn domain(&self) -> alloy::sol_types::Eip712Domain {
        eip712::app_domain(self.chain.chain_id(), self.chain.app())
    }
}

/// The way out of a computation whose lease is lost: what it holds is wiped as it is dropped.
fn go_on(stop: &Stop) -> Result<(), RunError> {
    if stop.is_set() { Err(RunError::Internal("stopped")) } else { Ok(()) }
}

/// Development only: holds the opened data, as a long computation would.
#[cfg(feature = "dev")]
fn insecure_dev_pause(pause: Duration, stop: &Stop) {
    let end = Instant::now() + pause;
    while Instant::now() < end && !stop.is_set() {
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A step at which tests end the process as `kill -9` does.
#[cfg(feature = "dev")]
static KILL_AT: std::sync::OnceLock<String> = std::sync::OnceLock::new();

/// Ends this process as `kill -9` does when a run gets to `step`: `released`, `signed`, `kept`, `posted` or `seen`.
#[cfg(feature = "dev")]
pub fn insecure_dev_kill_at(step: String) {
    let _ = KILL_AT.set(step);
}

fn kill_point(_step: &str) {
    #[cfg(feature = "dev")]
    if KILL_AT.get().is_some_and(|step| step == _step) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

fn inputs(prepared: &Prepared) -> Vec<Input> {
    let input = |(owner, candidate): &(ListedOwner, Candidate)| Input {
        owner: owner.id.clone(),
        dataset_id: candidate.dataset_id(),
    };
    prepared.inputs.iter().map(input).collect()
}

fn dataset_requests(prepared: &Prepared) -> Result<Vec<DatasetRequest>, RunError> {
    let request = |(owner, candidate): &(ListedOwner, Candidate)| {
        let envelope = String::from_utf8(candidate.checked.envelope.bytes().to_vec())
            .map_err(|_| RunError::Internal("an envelope is not UTF-8"))?;
        Ok(DatasetRequest {
            owner: owner.id.clone(),
            envelope,
            data_root: B256::from(candidate.checked.data_root.0),
        })
    };
    prepared.inputs.iter().map(request).collect()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
