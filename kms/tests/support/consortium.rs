//! Three hospitals (quorum 2), their contracts on anvil, and a guest that runs their recipe.

use alloy::{
    primitives::{Address, B256, Bytes, FixedBytes},
    rpc::types::TransactionReceipt,
    signers::{SignerSync as _, local::PrivateKeySigner},
    sol_types::{SolCall, SolValue as _},
};
use cohort_attestation::{AppId, TrustedRoot, dev};
use cohort_kms::{roots::Roots, service::Request};
use cohort_protocol::{
    abi::{self, IDstackApp, IDstackKms},
    eip712,
    hpke::{KeyPair, SecretBytes},
    ids::{OutputSchemaHash, OwnerId, RecipeHash},
    loss::Epsilon,
    release::{Challenge, DatasetRequest},
    sealed,
    terms::{SignedRunRequest, Terms},
};

use super::{APP_COMPOSE, anvil::Anvil, binding, compose_hash, evidence, request, seal, unix_now};

/// How deep an approval must lie.
pub(crate) const CONFIRMATIONS: u64 = 2;
/// Of the KMS root.
pub(crate) const EPOCHS: [u32; 2] = [0, 1];
const OWNERS: [&str; 3] = ["hospital-A", "hospital-B", "hospital-C"];
/// Before a governance action may be executed, in seconds: the contract's least.
pub(crate) const GOVERNANCE_DELAY: u64 = 3600;

/// The secret of the root.
pub(crate) const ROOT_SECRET: [u8; 32] = [7; 32];

/// The root's keys.
pub(crate) fn roots() -> Roots {
    Roots::derive(&SecretBytes::new(ROOT_SECRET), &EPOCHS).unwrap()
}

/// An agent's receipt key that can sign.
pub(crate) fn receipt_key() -> PrivateKeySigner {
    PrivateKeySigner::from_slice(&[8; 32]).unwrap()
}

/// The contracts, whoever acts on them, and what is sealed.
pub(crate) struct Consortium {
    pub(crate) anvil: Anvil,
    pub(crate) registry: Address,
    pub(crate) app: Address,
    pub(crate) guest: dev::DevGuest,
    pub(crate) sealed: Vec<u8>,
    pub(crate) dataset: DatasetRequest,
    analyst: PrivateKeySigner,
}

fn founders(accounts: &[Address]) -> Vec<abi::OwnerInfo> {
    let owner = |(name, account): (&&str, &Address)| abi::OwnerInfo {
        ownerId: name.parse::<OwnerId>().unwrap().word(),
        account: *account,
        revoker: Address::ZERO,
        jurisdiction: FixedBytes(*b"CH"),
        grades: 2,
        epsilonCap: u64::MAX,
        deltaCap: u64::MAX,
    };
    OWNERS.iter().zip(&accounts[1..]).map(owner).collect()
}

impl Consortium {
    /// Deployed, with nothing listed, approved or registered yet. Pins the root of epoch 0, to which its data is sealed.
    /// `None` where there is no anvil.
    pub(crate) async fn deploy() -> Option<Self> {
        let anvil = Anvil::start().await?;
        let roots = roots();
        let root = roots.epoch(0).unwrap().address();
        let analyst = PrivateKeySigner::from_slice(&[6; 32]).unwrap();
        let registry = anvil.deploy("DstackKms", anvil.accounts[0].abi_encode()).await;
        let label = |text: &str| text.parse::<OwnerId>().unwrap().word();
        let arguments = (
            label("study"),
            label("health"),
            founders(&anvil.accounts),
            2u16,
            root,
            vec![analyst.address()],
            GOVERNANCE_DELAY,
        );
        let app = anvil.deploy("DstackApp", arguments.abi_encode_params()).await;
        let platform = dev::DevPlatform::from_seed([3; 32]).unwrap();
        let guest = dev::DevGuest::new(platform, AppId(app.into_array()), APP_COMPOSE, &[5; 32]).unwrap();
        let (sealed, dataset) = seal(&roots, app, OWNERS[0]);
        Some(Self { anvil, registry, app, guest, sealed, analyst, dataset })
    }

    /// The root of the development platform that its guest runs on.
    pub(crate) fn trusted_root(&self) -> TrustedRoot {
        TrustedRoot::development(&self.guest.platform().root_certificate_der().unwrap()).unwrap()
    }

    pub(crate) async fn registry(&self, call: impl SolCall) {
        self.anvil.send(0, Some(self.registry), call.abi_encode()).await;
    }

    pub(crate) async fn owner(&self, index: usize, call: impl SolCall) -> TransactionReceipt {
        self.anvil.send(index + 1, Some(self.app), call.abi_encode()).await
    }

    pub(crate) async fn register_epoch(&self, epoch: u32) {
        let keys = roots();
        let keys = keys.epoch(epoch).unwrap();
        let sealing_key = Bytes::copy_from_slice(keys.sealing.public_key().as_bytes());
        self.registry(IDstackKms::registerRootCall { root: keys.address(), sealingKey: sealing_key }).await;
    }

    /// Everything that the registry's owner does, but for roots.
    pub(crate) async fn list_all(&self) {
        self.registry(IDstackKms::registerAppCall { appId: self.app }).await;
        let mr_system = B256::from(self.guest.mr_system().0);
        self.registry(IDstackKms::addAgentSystemCall { mrSystem: mr_system }).await;
        self.registry(os_image()).await;
    }

    /// Approved by a quorum, a run opened, all of it deep enough.
    pub(crate) async fn approve_and_open(&self, terms: &Terms) {
        self.approve(0, terms).await;
        self.approve(1, terms).await;
        self.open_run(terms, &self.run(terms)).await;
        self.anvil.mine(CONFIRMATIONS).await;
    }

    pub(crate) async fn revoke(&self, terms: &Terms) -> TransactionReceipt {
        self.owner(1, IDstackApp::revokeCall { proposalId: terms.proposal_id().0 }).await
    }

    pub(crate) async fn register_dataset(&self) {
        let bytes = self.dataset.envelope.as_bytes();
        let info = abi::DatasetInfo {
            datasetId: sealed::dataset_id(bytes, sealed::DataRoot(self.dataset.data_root.0)).0,
            composeHash: compose_hash().0,
            region: B256::ZERO,
            kind: B256::ZERO,
            records: 1,
            sizeBytes: self.sealed.len() as u64,
            supersedes: B256::ZERO,
        };
        self.owner(0, IDstackApp::registerDatasetCall { info }).await;
    }

    pub(crate) async fn approve(&self, index: usize, terms: &Terms) {
        self.owner(index, IDstackApp::approveCall { terms: terms.abi() }).await;
    }

    pub(crate) async fn open_run(&self, terms: &Terms, run: &SignedRunRequest) {
        let (request, signature) = (run.abi(), run.signature.clone());
        let call = IDstackApp::openRunCall { terms: terms.abi(), request, signature };
        self.anvil.send(9, Some(self.app), call.abi_encode()).await;
    }

    pub(crate) fn terms(&self, round: u32) -> Terms {
        Terms {
            compose_hash: compose_hash(),
            recipe_hash: RecipeHash(B256::repeat_byte(1)),
            output_schema_hash: OutputSchemaHash(B256::repeat_byte(2)),
            epsilon_per_run: Epsilon(1_500_000_000),
            delta_per_run: 0,
            epsilon_budget: Epsilon(4_500_000_000),
            delta_budget: 0,
            expiry: unix_now() / 86_400 * 86_400 + 10 * 86_400,
            devices: B256::ZERO,
            systems: B256::ZERO,
            era: 0,
            round,
        }
    }

    pub(crate) fn run(&self, terms: &Terms) -> SignedRunRequest {
        self.run_of(terms, B256::repeat_byte(3))
    }

    /// Another nonce is another run.
    pub(crate) fn run_of(&self, terms: &Terms, nonce: B256) -> SignedRunRequest {
        let mut run = SignedRunRequest {
            proposal_id: terms.proposal_id(),
            participants: 0b001,
            analyst: self.analyst.address(),
            nonce,
            deadline: unix_now() / 86_400 * 86_400 + 86_400 * 2,
            signature: Bytes::new(),
        };
        let digest = eip712::digest(&run.abi(), &eip712::app_domain(31337, self.app));
        run.signature = Bytes::from(self.analyst.sign_hash_sync(&digest).unwrap().as_bytes().to_vec());
        run
    }

    /// A request as an honest agent makes it.
    pub(crate) fn request(
        &self,
        challenge: &Challenge,
        agent: &KeyPair,
        terms: &Terms,
        run: &SignedRunRequest,
    ) -> Request {
        let binding = binding(challenge, self.app, run.run_id(), agent);
        let evidence = evidence(&self.guest, &binding);
        request(terms.clone(), run.clone(), binding, agent, vec![self.dataset.clone()], evidence)
    }
}

/// Lists the image that every development guest states.
pub(crate) fn os_image() -> IDstackKms::addOsImageHashCall {
    IDstackKms::addOsImageHashCall { osImageHash: B256::from(dev::DevGuest::os_image_hash().0) }
}
