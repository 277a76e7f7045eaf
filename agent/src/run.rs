//! One run, from an analyst's request to a result that may be read.
//!
//! Order (docs/architecture.md): open on chain (debit), attest, keys, unseal, compute, guard, sign, receipt on chain,
//! and only when the receipt has aged: reveal. Whatever fails before that reveals nothing.

mod attest;
mod computation;
mod crash;
mod error;
mod lease;
mod request;
mod reveal;
mod state;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use alloy::{primitives::Address, signers::local::PrivateKeySigner};
use cohort_attestation::Collateral;
use cohort_guest::GuestAgent;
use cohort_protocol::{
    compose::AppCompose,
    eip712,
    ids::{ComposeHash, OwnerId, RunId},
    recipe::{Engine, Recipe},
};
use tokio::sync::{Semaphore, SemaphorePermit};
use tracing::{info, warn};

#[cfg(feature = "dev")]
pub use crash::insecure_dev_kill_at;
pub use error::RunError;
pub use request::{Prepared, RunBody};
pub use state::{Page, RunResult, RunState, Stage};

use crate::{
    chain::Chain,
    compute::{self, Sandbox},
    fetch::Sources,
    kms::Kms,
    machine::{Machine, MachineWatch},
    resume::{Keeper, Pending},
};
use error::request;

/// Requests that ask the chain or read files, at once.
const REQUESTS_AT_ONCE: usize = 16;
/// How often the agent asks for the keys of one run.
const ATTEMPTS: u32 = 12;
/// Pause between two requests.
const PAUSE: Duration = Duration::from_secs(1);

/// Everything a run needs.
pub struct Agent {
    /// Exact app-compose text, as the guest agent gave it.
    app_compose: String,
    compose_hash: ComposeHash,
    recipe: Recipe,
    /// Owners without whose data the recipe's SQL would read an empty table.
    required_owners: Vec<OwnerId>,
    /// Record of the proof of the recipe's SQL, if it has some.
    privacy_proof: Option<serde_json::Value>,
    chain: Chain,
    kms: Kms,
    guest: GuestAgent,
    sealed: Sources,
    sandbox: Option<Sandbox>,
    collateral: Option<Collateral>,
    receipt_key: PrivateKeySigner,
    runs: Mutex<state::Runs>,
    /// Results whose receipt is signed: posted as they are, however often that has to be tried. Another output for the
    /// same run would be a second draw of the noise.
    signed: Mutex<BTreeMap<RunId, Arc<Pending>>>,
    keeper: Option<Keeper>,
    changed: tokio::sync::watch::Sender<u64>,
    machine: Arc<MachineWatch>,
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
    pub collateral: Option<Collateral>,
    /// Development only: how long opened data is held before it is computed on.
    #[cfg(feature = "dev")]
    pub insecure_dev_slow: Duration,
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
        let proof = compute::prepare::prove(&recipe).map_err(|e| bad(&e))?;
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
            required_owners: proof.as_ref().map_or_else(Vec::new, |proof| proof.required_owners(&recipe)),
            privacy_proof: proof.map(|proof| proof.record()),
            recipe,
            app_compose: setup.app_compose,
            chain: setup.chain,
            kms: setup.kms,
            guest: setup.guest,
            sealed: setup.sealed,
            sandbox,
            collateral: setup.collateral,
            receipt_key: PrivateKeySigner::random(),
            runs: Mutex::default(),
            signed: Mutex::new(BTreeMap::new()),
            lessors: Mutex::new(BTreeMap::new()),
            #[cfg(feature = "dev")]
            insecure_dev_slow: setup.insecure_dev_slow,
            keeper: None,
            changed: tokio::sync::watch::Sender::new(0),
            machine: Arc::default(),
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

    /// What the VM is, and how busy between computations.
    pub fn machine(&self) -> Machine {
        self.machine.now()
    }

    /// Address of this boot's receipt key.
    pub fn receipt_key(&self) -> Address {
        self.receipt_key.address()
    }

    /// A place for one request that asks the chain or reads files; refused when all are taken.
    pub fn place(&self) -> Result<SemaphorePermit<'_>, RunError> {
        self.places
            .try_acquire()
            .map_err(|_| request("busy", "too many requests at once".to_owned(), "ask again"))
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

    fn domain(&self) -> alloy::sol_types::Eip712Domain {
        eip712::app_domain(self.chain.chain_id(), self.chain.app())
    }
}
