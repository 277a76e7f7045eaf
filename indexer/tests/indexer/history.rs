//! Long random histories of every operation on the real contracts: what the mirror says is what the contracts' views
//! return, at every stop on the way. `COHORT_SEED` and `COHORT_OPERATIONS` choose another history.

use std::collections::BTreeSet;

use alloy::{
    primitives::{Address, B256, Bytes, FixedBytes, U64, U256, keccak256},
    signers::{SignerSync as _, local::PrivateKeySigner},
    sol_types::{SolCall, SolStruct, SolValue as _},
};
use cohort_protocol::{
    abi::{
        self,
        IDstackApp::{self as app, releaseDecisionCall},
        IDstackKms as kms,
    },
    decision::Decision,
    eip712,
    loss::Epsilon,
    terms::Terms,
};
use serde_json::{Value, json};

use crate::{
    anvil::{Anvil, creation_code},
    chain::Random,
    running::{Running, config, dumped, rebuilt_from},
    study::label,
};

/// Owners at the foundation; governance lists and strikes others.
const FOUNDERS: u64 = 4;
/// Identities that may become owners, and as many accounts to move to.
const PEOPLE: u64 = 6;
/// Terms, runs and datasets that operations choose from.
const ROUNDS: u64 = 5;
const RUNS: u64 = 12;
const DATASETS: u64 = 12;
const HOUR: u64 = 3_600;

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A key by its name.
fn signer(name: &str, number: u64) -> PrivateKeySigner {
    PrivateKeySigner::from_bytes(&keccak256(format!("{name} {number}"))).unwrap()
}

fn word(name: &str, number: u64) -> B256 {
    keccak256(format!("{name} {number}"))
}

struct World {
    anvil: Anvil,
    registry: Address,
    app: Address,
    random: Random,
    /// Operations that went through, by name.
    done: BTreeSet<&'static str>,
    expiry: u64,
    era: u32,
}

impl World {
    async fn found(seed: u64) -> Option<Self> {
        let codes = (creation_code("out", "DstackKms"), creation_code("out", "DstackApp"));
        let (Some(kms_code), Some(app_code)) = codes else {
            crate::running::skipped("out/DstackApp.sol is missing; run: script/forge build");
            return None;
        };
        let Some(anvil) = Anvil::start(&["--accounts", "1", "--auto-impersonate"]) else {
            crate::running::skipped("script/anvil does not start; run: npm ci");
            return None;
        };
        let deployer = anvil.accounts().await[0];
        let registry = anvil.send(deployer, None, [kms_code, deployer.abi_encode()].concat()).await.unwrap();
        let founded = (
            label("heart"),
            label("health"),
            (0..FOUNDERS).map(owner_info).collect::<Vec<_>>(),
            U256::from(2),
            signer("root", 0).address(),
            vec![signer("analyst", 0).address()],
            HOUR,
        );
        let app = anvil.send(deployer, None, [app_code, founded.abi_encode_params()].concat()).await.unwrap();
        let register = kms::registerAppCall { appId: app }.abi_encode();
        anvil.send(deployer, Some(registry), register).await;
        let block = anvil.call("eth_getBlockByNumber", json!(["latest", false])).await;
        let now: U64 = serde_json::from_value(block["timestamp"].clone()).unwrap();
        // Some hours on, so that time passing ends some of them.
        let expiry = now.to::<u64>() + 30 * HOUR;
        Some(Self { anvil, registry, app, random: Random(seed), done: BTreeSet::new(), expiry, era: 0 })
    }

    fn terms(&self, round: u64) -> abi::Terms {
        abi::Terms {
            composeHash: word("compose", round % 2),
            epsilonPerRun: 1_000_000_000,
            epsilonBudget: 3_000_000_000,
            expiry: self.expiry + round * HOUR,
            era: self.era,
            round: round as u32,
            ..crate::study::terms(0)
        }
    }

    fn request(&self, number: u64) -> abi::RunRequest {
        abi::RunRequest {
            proposalId: self.terms(number % ROUNDS).eip712_hash_struct(),
            participants: 1 + u128::from(number % 7),
            analyst: signer("analyst", 0).address(),
            nonce: word("nonce", number),
            deadline: u64::MAX,
        }
    }

    async fn sign(&self, by: &PrivateKeySigner, message: &impl SolStruct) -> Bytes {
        let digest = eip712::digest(message, &eip712::app_domain(31337, self.app));
        by.sign_hash_sync(&digest).unwrap().as_bytes().to_vec().into()
    }

    async fn view<C: SolCall>(&self, call: C, block: u64) -> C::Return {
        let data = Bytes::from(call.abi_encode());
        let params = json!([{ "to": self.app, "data": data }, U64::from(block)]);
        let bytes: Bytes = serde_json::from_value(self.anvil.call("eth_call", params).await).unwrap();
        C::abi_decode_returns(&bytes).unwrap()
    }

    /// A call by an account; what the contract refuses has no effect.
    async fn act(&mut self, name: &'static str, by: Address, call: impl SolCall) {
        if self.anvil.try_send(by, Some(self.app), call.abi_encode()).await.is_ok() {
            self.done.insert(name);
        }
    }

    /// One random operation of any kind.
    async fn step(&mut self) {
        let person = self.random.below(PEOPLE);
        let by = signer("person", self.random.below(PEOPLE)).address();
        let round = self.random.below(ROUNDS);
        let terms = self.terms(round);
        let proposal = terms.eip712_hash_struct();
        match self.random.below(24) {
            0..=3 => self.act("approve", by, app::approveCall { terms }).await,
            4 | 5 => self.approve_by_signature(terms).await,
            6 => {
                let call = app::rejectCall { proposalId: proposal, reason: "too small".to_owned() };
                self.act("reject", by, call).await;
            }
            7 if self.random.below(3) == 0 => {
                self.act("revoke", by, app::revokeCall { proposalId: proposal }).await;
            }
            8 if self.random.below(6) == 0 => {
                self.act("revoke all", by, app::revokeAllCall {}).await;
                self.era = self.view(app::configCall {}, self.tip().await).await.era;
            }
            9 => {
                let new = signer("moved", person).address();
                self.act("start rotation", by, app::startRotationCall { newAccount: new }).await;
                let accept = app::acceptRotationCall { ownerId: owner_info(person).ownerId };
                self.act("accept rotation", new, accept).await;
            }
            10 => {
                let revoker = signer("revoker", person).address();
                self.act("set revoker", by, app::setRevokerCall { revoker }).await;
            }
            11 => {
                let epsilon = (3 + self.random.below(30)) * 1_000_000_000;
                self.act("set cap", by, app::setOwnerCapCall { epsilonCap: epsilon, deltaCap: 0 }).await;
            }
            12 => self.act("reclaim", by, app::reclaimCall { terms }).await,
            13..=15 => self.register_dataset(by).await,
            16 | 17 => self.open_run().await,
            18 | 19 => self.post_receipt().await,
            20 if self.random.below(4) == 0 => {
                let agent = signer("agent", self.random.below(3)).address();
                self.act("revoke agent", by, app::revokeAgentCall { agent }).await;
            }
            21 | 22 => self.govern().await,
            _ => self.time_passes().await,
        }
    }

    async fn approve_by_signature(&mut self, terms: abi::Terms) {
        let mut approvals = Vec::new();
        for _ in 0..=self.random.below(3) {
            let owner = signer("person", self.random.below(PEOPLE));
            let deadline = u64::MAX;
            let message = abi::Approve { owner: owner.address(), terms: terms.clone(), deadline };
            let signature = self.sign(&owner, &message).await;
            approvals.push(abi::SignedApproval { owner: owner.address(), deadline, signature });
        }
        let relayer = signer("relayer", 0).address();
        self.act("approve by signature", relayer, app::approveBySigCall { terms, approvals }).await;
    }

    async fn register_dataset(&mut self, by: Address) {
        let number = self.random.below(DATASETS);
        let supersedes = match self.random.below(3) {
            0 => word("dataset", self.random.below(DATASETS)),
            _ => B256::ZERO,
        };
        let info = abi::DatasetInfo {
            datasetId: word("dataset", number),
            composeHash: word("compose", number % 2),
            region: label("EU-West"),
            kind: label("EHR"),
            records: 300,
            sizeBytes: 1 << 20,
            supersedes,
        };
        self.act("register dataset", by, app::registerDatasetCall { info }).await;
    }

    async fn open_run(&mut self) {
        let number = self.random.below(RUNS);
        let (terms, request) = (self.terms(number % ROUNDS), self.request(number));
        let signature = self.sign(&signer("analyst", 0), &request).await;
        let call = app::openRunCall { terms, request, signature };
        self.act("open run", signer("relayer", 0).address(), call).await;
    }

    async fn post_receipt(&mut self) {
        let number = self.random.below(RUNS);
        let (terms, request) = (self.terms(number % ROUNDS), self.request(number));
        let agent = signer("agent", self.random.below(3));
        let receipt = abi::Receipt {
            runId: request.eip712_hash_struct(),
            outputHash: word("output", self.random.below(2)),
            inputsHash: word("inputs", 0),
            evidenceHash: word("evidence", 0),
            epsilon: terms.epsilonPerRun,
            delta: 0,
            privacyProof: 1,
            producedAt: 1,
        };
        let certificate = abi::AgentCertificate {
            agent: agent.address(),
            composeHash: terms.composeHash,
            notAfter: u64::MAX,
        };
        let signature = self.sign(&agent, &receipt).await;
        let kms_signature = self.sign(&signer("root", 0), &certificate).await;
        let call = app::postReceiptCall {
            terms,
            request,
            receipt,
            signature,
            certificate,
            kmsSignature: kms_signature,
        };
        self.act("post receipt", signer("relayer", 0).address(), call).await;
    }

    /// A quorum's call of the contract on itself, now and then vetoed, after its delay.
    async fn govern(&mut self) {
        let person = self.random.below(PEOPLE);
        let (name, data) = match self.random.below(8) {
            0 => ("add owner", app::addOwnerCall { owner: owner_info(person) }.abi_encode()),
            1 => ("remove owner", app::removeOwnerCall { ownerId: owner_info(person).ownerId }.abi_encode()),
            2 => {
                let threshold = 1 + self.random.below(3) as u8;
                ("set threshold", app::setThresholdCall { threshold }.abi_encode())
            }
            3 => {
                let analyst = signer("analyst", self.random.below(3)).address();
                (
                    "set analyst",
                    app::setAnalystCall { analyst, listed: self.random.below(2) == 0 }.abi_encode(),
                )
            }
            4 => {
                let seconds = HOUR + self.random.below(HOUR);
                ("set delay", app::setGovernanceDelayCall { delaySeconds: seconds }.abi_encode())
            }
            5 => {
                let hash = word("allowed", self.random.below(3));
                ("add compose hash", app::addComposeHashCall { composeHash: hash }.abi_encode())
            }
            6 => {
                let device = word("device", self.random.below(3));
                ("add device", app::addDeviceCall { deviceId: device }.abi_encode())
            }
            _ => {
                let root = signer("root", 0).address();
                ("set KMS root", app::setKmsRootCall { kmsRoot: root }.abi_encode())
            }
        };
        let (data, salt) = (Bytes::from(data), word("salt", self.random.below(1 << 20)));
        let owners = self.view(app::ownersCall {}, self.tip().await).await.list;
        for owner in &owners {
            let call = app::approveActionCall { data: data.clone(), salt };
            self.act("approve action", owner.account, call).await;
        }
        if self.random.below(6) == 0
            && let Some(owner) = owners.first()
        {
            let version = self.view(app::configCall {}, self.tip().await).await.version;
            let call = app::vetoActionCall { actionId: action_id(&data, salt, version) };
            self.act("veto action", owner.account, call).await;
        }
        self.anvil.call("evm_increaseTime", json!([2 * HOUR])).await;
        let by = signer("relayer", 0).address();
        self.act(name, by, app::executeActionCall { data, salt }).await;
        self.era = self.view(app::configCall {}, self.tip().await).await.era;
    }

    /// Empty blocks, or a reorganisation, which takes back what it takes back.
    async fn time_passes(&mut self) {
        let (tip, depth) = (self.tip().await, 1 + self.random.below(5));
        if self.random.below(3) == 0 && tip > depth + 8 {
            self.anvil.call("anvil_reorg", json!([depth, []])).await;
            self.era = self.view(app::configCall {}, self.tip().await).await.era;
        } else {
            self.anvil.call("anvil_mine", json!([U64::from(depth)])).await;
        }
    }

    async fn tip(&self) -> u64 {
        self.anvil.tip().await.0
    }

    /// Everything that views return against everything that the mirror tells.
    async fn agrees(&mut self, running: &Running) {
        running.reaches(self.anvil.tip().await).await;
        let told = running.ok(&format!("/v1/apps/{}", self.app)).await;
        let at = told["head"]["number"].as_u64().unwrap();
        self.owners_agree(&told, at).await;
        for era in 0..=self.era {
            for round in 0..ROUNDS {
                let terms = abi::Terms { era, ..self.terms(round) };
                self.proposal_agrees(running, &Terms::from(&terms), at).await;
            }
        }
        self.datasets_agree(running, at).await;
        self.runs_agree(running, at).await;
        for _ in 0..20 {
            self.decision_agrees(running).await;
        }
    }

    async fn owners_agree(&self, told: &Value, at: u64) {
        let owners = self.view(app::ownersCall {}, at).await;
        let have: BTreeSet<String> = owners
            .list
            .iter()
            .zip(&owners.indexes)
            .map(|(owner, index)| {
                let revoker = (!owner.revoker.is_zero()).then_some(owner.revoker);
                json!([index, owner.account, revoker, grades(owner.grades), owner.ownerId]).to_string()
            })
            .collect();
        let mirrored: BTreeSet<String> = told["owners"]
            .as_array()
            .unwrap()
            .iter()
            .map(|owner| {
                let id = label(owner["owner"].as_str().unwrap());
                json!([owner["index"], owner["account"], owner["revoker"], owner["grades"], id]).to_string()
            })
            .collect();
        assert_eq!(mirrored, have, "owners at block {at}");
        for owner in
            [&told["owners"], &told["former_owners"]].into_iter().flat_map(|list| list.as_array().unwrap())
        {
            let index = owner["index"].as_u64().unwrap() as u8;
            let budget = self.view(app::ownerBudgetCall { index }, at).await;
            let epsilon = |units: u64| json!(Epsilon(units));
            assert_eq!(owner["budget"]["epsilon_cap"], epsilon(budget.epsilonCap), "owner {index}");
            assert_eq!(
                owner["budget"]["epsilon_committed"],
                epsilon(budget.epsilonCommitted),
                "owner {index}"
            );
        }
        let config = self.view(app::configCall {}, at).await;
        assert_eq!(told["threshold"], config.threshold);
        assert_eq!(told["era"], config.era);
        assert_eq!(told["governance_delay_seconds"], config.governanceDelaySeconds);
        assert_eq!(told["owners"].as_array().unwrap().len(), usize::from(config.ownerCount));
        assert_eq!(told["kms_root"], json!(self.view(app::kmsRootCall {}, at).await));
        for number in 0..3 {
            let (analyst, agent) = (signer("analyst", number).address(), signer("agent", number).address());
            let holds = |list: &str, who: Address| told[list].to_string().contains(&json!(who).to_string());
            let listed = self.view(app::isAnalystCall { account: analyst }, at).await;
            assert_eq!(holds("analysts", analyst), listed, "analyst {number}");
            let revoked = self.view(app::agentRevokedCall { agent }, at).await;
            assert_eq!(holds("revoked_agents", agent), revoked, "agent {number}");
        }
    }

    async fn proposal_agrees(&self, running: &Running, terms: &Terms, at: u64) {
        let id = terms.proposal_id().0;
        let (status, told) = running.get(&format!("/v1/apps/{}/proposals/{id}", self.app)).await;
        let have = self.view(app::proposalCall { proposalId: id }, at).await;
        let decision = self.view(app::proposalDecisionCall { proposalId: id }, at).await;
        let code = Decision::try_from(decision as u8).unwrap();
        if status == 404 {
            assert!(have.approvals == 0 && !have.revoked && code == Decision::ProposalUnknown, "{id}");
            return;
        }
        assert_eq!(told["decision"]["head"], json!(code), "{id}: {told}");
        let bits = told["approvals"].as_array().unwrap().iter();
        let approvals = bits.fold(0u128, |set, approval| set | 1 << approval["index"].as_u64().unwrap());
        assert_eq!(approvals, have.approvals, "{id}: {told}");
        assert_eq!(told["revocation"].is_object(), have.revoked, "{id}");
        assert_eq!(told["superseded_by"].is_object(), have.superseded, "{id}");
        if told["terms"].is_object() {
            assert_eq!(told["terms"], json!(terms));
            assert_eq!(told["threshold_snapshot"], have.thresholdSnapshot);
            let spent = Epsilon(have.runs * terms.epsilon_per_run.0);
            assert_eq!(told["budget"]["epsilon_spent"], json!(spent), "{id}");
        }
    }

    async fn datasets_agree(&self, running: &Running, at: u64) {
        let told = running.ok(&format!("/v1/apps/{}/datasets?limit=500", self.app)).await;
        for number in 0..DATASETS {
            let id = word("dataset", number);
            let have = self.view(app::datasetCall { datasetId: id }, at).await;
            let list = told["datasets"].as_array().unwrap();
            let found = list.iter().find(|dataset| dataset["dataset_id"] == json!(id));
            assert_eq!(found.is_some(), have.registered, "dataset {number}");
            if let Some(found) = found {
                assert_eq!(found["superseded_by"].is_object(), have.superseded, "{found}");
                assert_eq!(found["index"], have.ownerIndex, "{found}");
                assert_eq!(found["compose_hash"], json!(have.composeHash), "{found}");
            }
        }
    }

    async fn runs_agree(&self, running: &Running, at: u64) {
        for number in 0..RUNS {
            let id = self.request(number).eip712_hash_struct();
            let have = self.view(app::runCall { runId: id }, at).await;
            let (status, told) = running.get(&format!("/v1/apps/{}/runs/{id}", self.app)).await;
            assert_eq!(status == 200, have.openedAt != 0, "run {number}: {told}");
            if status == 200 {
                let bits = told["participants"].as_array().unwrap().iter();
                let set = bits.fold(0u128, |set, owner| set | 1 << owner["index"].as_u64().unwrap());
                assert_eq!(set, have.participants, "{told}");
                assert_eq!(told["opened"]["block"]["timestamp"], have.openedAt, "{told}");
                let digest = told["receipt"]["digest"].as_str().map(|text| text.parse().unwrap());
                assert_eq!(digest.unwrap_or(B256::ZERO), have.digest, "{told}");
                assert_eq!(told["status"] == "closed", !have.digest.is_zero(), "{told}");
            }
        }
    }

    /// A random question, at each position that the answer names.
    async fn decision_agrees(&mut self, running: &Running) {
        let (run, dataset, person) =
            (self.random.below(RUNS), self.random.below(DATASETS), self.random.below(PEOPLE));
        let terms = self.terms(run % ROUNDS);
        let call = releaseDecisionCall {
            proposalId: terms.eip712_hash_struct(),
            composeHash: terms.composeHash,
            ownerId: owner_info(person).ownerId,
            datasetId: word("dataset", dataset),
            runId: self.request(run).eip712_hash_struct(),
        };
        let path = format!(
            "/v1/apps/{}/release-decision?proposal={}&compose={}&owner=person-{person}&dataset={}&run={}",
            self.app, call.proposalId, call.composeHash, call.datasetId, call.runId
        );
        let (status, told) = running.get(&path).await;
        assert_eq!(status, 200, "{told}");
        for name in ["head", "confirmed", "finalized"] {
            let Some(block) = told[name]["position"]["number"].as_u64() else { continue };
            // Views revert where the contract is not there yet.
            let code = self.anvil.call("eth_getCode", json!([self.app, U64::from(block)])).await;
            if code != "0x" {
                let have = self.view(call.clone(), block).await;
                let have = Decision::try_from(have as u8).unwrap();
                assert_eq!(told[name]["decision"], json!(have), "{name} {block}: {path}");
            }
        }
    }
}

alloy::sol! {
    /// `TypedData.hashAction`: what owners sign, without who signs and until when.
    struct Action { bytes data; bytes32 salt; uint64 configVersion; }
}

fn action_id(data: &Bytes, salt: B256, version: u64) -> B256 {
    Action { data: data.clone(), salt, configVersion: version }.eip712_hash_struct()
}

fn owner_info(person: u64) -> abi::OwnerInfo {
    abi::OwnerInfo {
        ownerId: label(&format!("person-{person}")),
        account: signer("person", person).address(),
        revoker: Address::ZERO,
        jurisdiction: FixedBytes(*b"CH"),
        grades: 1 + (person % 3) as u16,
        epsilonCap: 20_000_000_000,
        deltaCap: 0,
    }
}

/// Names of the two grades that owners of these histories have.
fn grades(bits: u16) -> Vec<&'static str> {
    ["HIPAA", "GDPR"]
        .into_iter()
        .enumerate()
        .filter(|(bit, _)| bits & (1 << bit) != 0)
        .map(|(_, it)| it)
        .collect()
}

#[tokio::test]
async fn random_histories_are_mirrored_as_the_contracts_view_them() {
    let seed = from_environment("COHORT_SEED", 20_261_122);
    let operations = from_environment("COHORT_OPERATIONS", 300);
    println!("COHORT_SEED={seed} COHORT_OPERATIONS={operations}");
    let Some(mut world) = World::found(seed).await else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&[], dir.path().join("mirror.sqlite"));
    (config.rpc_urls, config.registry) = (vec![world.anvil.url.clone()], world.registry);
    let running = Running::start(&config).await;
    for operation in 1..=operations {
        world.step().await;
        if operation % 60 == 0 {
            world.agrees(&running).await;
        }
    }
    world.agrees(&running).await;
    running.stop().await.unwrap();
    let tip = world.anvil.tip().await;
    assert_eq!(dumped(&config.database).await, rebuilt_from(&config, tip).await);
    // The history is one of nearly all kinds, or it shows little.
    assert!(world.done.len() >= 18 || operations < 300, "{:?}", world.done);
}
