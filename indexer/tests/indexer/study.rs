//! Logs of a consortium of four hospitals, as its contract would emit them.

use alloy::{
    primitives::{Address, B256, LogData, address},
    sol_types::SolEvent,
};
use cohort_protocol::{
    abi::{
        self, IDstackApp,
        IDstackApp::{
            AppCreated, DatasetRegistered, OwnerAdded, OwnerBudget, ProposalActivated, ProposalApproved,
            ProposalCreated, ProposalRevoked, ReceiptPosted, RunOpened,
        },
        IDstackKms,
        IDstackKms::AppRegistered,
    },
    ids::Label,
    terms::Terms,
};

use crate::chain::{Chain, GENESIS_TIME, Node};

pub(crate) const REGISTRY: Address = address!("0x0000000000000000000000000000000000000aaa");
pub(crate) const APP: Address = address!("0x0000000000000000000000000000000000000bbb");
pub(crate) const COMPOSE: B256 = B256::repeat_byte(0xc0);
pub(crate) const OWNERS: [&str; 4] = ["hospital-A", "hospital-B", "hospital-C", "hospital-D"];
/// Unix seconds at which the study's proposal expires: 5,000 blocks after the first.
pub(crate) const EXPIRY: u64 = GENESIS_TIME + 5_000;

pub(crate) type Logs = Vec<(Address, LogData)>;

pub(crate) fn by_app(event: impl SolEvent) -> (Address, LogData) {
    (APP, event.encode_log_data())
}

pub(crate) fn by_registry(event: impl SolEvent) -> (Address, LogData) {
    (REGISTRY, event.encode_log_data())
}

pub(crate) fn owner_word(index: usize) -> B256 {
    Label::parse("owner", OWNERS[index]).unwrap().word()
}

pub(crate) fn account(index: u8) -> Address {
    Address::repeat_byte(0x10 + index)
}

pub(crate) fn label(text: &str) -> B256 {
    Label::parse("label", text).unwrap().word()
}

pub(crate) fn terms(round: u32) -> abi::Terms {
    abi::Terms {
        composeHash: COMPOSE,
        recipeHash: B256::repeat_byte(1),
        outputSchemaHash: B256::repeat_byte(2),
        epsilonPerRun: 1_500_000_000,
        deltaPerRun: 0,
        epsilonBudget: 4_500_000_000,
        deltaBudget: 0,
        expiry: EXPIRY,
        devices: B256::ZERO,
        systems: B256::ZERO,
        era: 0,
        round,
    }
}

pub(crate) fn proposal_id(round: u32) -> B256 {
    Terms::from(&terms(round)).proposal_id().0
}

pub(crate) fn dataset_id(index: u8) -> B256 {
    B256::repeat_byte(0xd0 + index)
}

pub(crate) const RUN: B256 = B256::repeat_byte(0x77);

/// Foundation: the app with four owners and a threshold of three. Not registered yet.
pub(crate) fn founded() -> Logs {
    let mut logs = vec![by_app(AppCreated {
        name: label("heart-disease"),
        sector: label("health"),
        threshold: 3,
        kmsRoot: Address::repeat_byte(9),
        governanceDelaySeconds: 3600,
    })];
    for (index, jurisdiction) in [*b"US", *b"HU", *b"CH", *b"US"].into_iter().enumerate() {
        let index = index as u8;
        logs.push(by_app(OwnerAdded {
            ownerId: owner_word(usize::from(index)),
            account: account(index),
            revoker: Address::ZERO,
            jurisdiction: jurisdiction.into(),
            grades: 3,
            index,
        }));
        logs.push(by_app(OwnerBudget {
            index,
            epsilonCap: 10_000_000_000,
            epsilonCommitted: 0,
            deltaCap: 0,
            deltaCommitted: 0,
        }));
    }
    logs
}

pub(crate) fn registered(app: Address) -> (Address, LogData) {
    by_registry(AppRegistered { appId: app })
}

pub(crate) fn dataset(index: u8, id: B256, supersedes: B256) -> (Address, LogData) {
    let info = abi::DatasetInfo {
        datasetId: id,
        composeHash: COMPOSE,
        region: label("EU-West"),
        kind: label("EHR"),
        records: 300 + u64::from(index),
        sizeBytes: 1 << 20,
        supersedes,
    };
    by_app(DatasetRegistered { datasetId: id, ownerIndex: index, info })
}

pub(crate) fn created(round: u32) -> (Address, LogData) {
    let terms = terms(round);
    by_app(ProposalCreated {
        proposalId: proposal_id(round),
        composeHash: COMPOSE,
        terms,
        thresholdSnapshot: 3,
    })
}

pub(crate) fn approved(round: u32, added: u128, approvals: u128) -> (Address, LogData) {
    by_app(ProposalApproved { proposalId: proposal_id(round), added, approvals, bySignature: added == 0b100 })
}

pub(crate) fn activated(round: u32, superseded: B256) -> (Address, LogData) {
    by_app(ProposalActivated { proposalId: proposal_id(round), composeHash: COMPOSE, superseded })
}

pub(crate) fn revoked(round: u32, index: u8) -> (Address, LogData) {
    by_app(ProposalRevoked { proposalId: proposal_id(round), ownerIndex: index, by: account(index) })
}

pub(crate) fn run_opened(run: B256, participants: u128, epsilon_spent: u64) -> (Address, LogData) {
    by_app(RunOpened {
        runId: run,
        proposalId: proposal_id(0),
        analyst: Address::repeat_byte(0xaa),
        participants,
        epsilon: 1_500_000_000,
        delta: 0,
        epsilonSpent: epsilon_spent,
        deltaSpent: 0,
    })
}

pub(crate) fn receipt(run: B256) -> (Address, LogData) {
    let receipt = abi::Receipt {
        runId: run,
        outputHash: B256::repeat_byte(0x0f),
        inputsHash: B256::repeat_byte(0x1f),
        evidenceHash: B256::repeat_byte(0x2f),
        epsilon: 1_500_000_000,
        delta: 0,
        privacyProof: 1,
        producedAt: GENESIS_TIME + 10,
    };
    let digest = B256::repeat_byte(0x3f);
    by_app(ReceiptPosted {
        runId: run,
        proposalId: proposal_id(0),
        agent: Address::repeat_byte(0xcc),
        receipt,
        digest,
    })
}

/// Events of the registry that the study itself does not have.
pub(crate) fn registry_logs() -> Logs {
    let root = Address::repeat_byte(9);
    vec![
        by_registry(IDstackKms::RootRegistered { epoch: 0, root, sealingKey: vec![7u8; 1216].into() }),
        by_registry(IDstackKms::AgentSystemAdded { mrSystem: B256::repeat_byte(0x51) }),
        by_registry(IDstackKms::KmsInfoSet { k256Pubkey: vec![2u8; 33].into() }),
        by_registry(IDstackKms::GatewayAppIdSet { gatewayAppId: "gateway".to_owned() }),
    ]
}

/// Events of the app that the study itself does not have, which end nothing.
pub(crate) fn every_kind() -> Logs {
    let (word, someone) = (B256::repeat_byte(5), Address::repeat_byte(0x5a));
    vec![
        by_app(IDstackApp::RevokerSet { ownerId: owner_word(0), revoker: someone }),
        by_app(IDstackApp::OwnerRotationStarted {
            ownerId: owner_word(1),
            account: account(1),
            newAccount: someone,
        }),
        by_app(IDstackApp::AnalystSet { analyst: someone, listed: true }),
        by_app(IDstackApp::ProposalRejected {
            proposalId: proposal_id(0),
            ownerIndex: 3,
            reason: "too small a cohort".to_owned(),
        }),
        by_app(IDstackApp::ReceiptEquivocation {
            runId: RUN,
            agent: someone,
            firstDigest: word,
            digest: word,
        }),
        by_app(IDstackApp::AgentRevoked { agent: someone, ownerIndex: 2 }),
        by_app(IDstackApp::ActionApproved {
            actionId: word,
            ownerIndex: 0,
            data: vec![1, 2].into(),
            salt: word,
        }),
        by_app(IDstackApp::ActionScheduled { actionId: word, readyAt: GENESIS_TIME }),
        by_app(IDstackApp::ComposeHashAdded { composeHash: word }),
        by_app(IDstackApp::DeviceAdded { deviceId: word }),
        by_app(IDstackApp::SuccessorAnnounced { successor: someone }),
        dataset(0, B256::repeat_byte(0xda), dataset_id(0)),
        revoked(1, 3),
    ]
}

/// Mines [`until_open_run`].
pub(crate) fn with_open_run(chain: &mut Chain) {
    for logs in until_open_run() {
        chain.mine(logs);
    }
}

/// A node whose chain begins so.
pub(crate) async fn node_with_open_run() -> Node {
    let node = Node::start().await;
    with_open_run(&mut node.chain());
    node
}

/// Blocks from the foundation to an open run of hospitals A and B under an approved proposal: the key of hospital A
/// may be released. The app is registered only after half of it has happened.
pub(crate) fn until_open_run() -> Vec<Logs> {
    vec![
        founded(),
        (0..4).map(|index| dataset(index, dataset_id(index), B256::ZERO)).collect(),
        vec![created(0), approved(0, 0b1, 0b1)],
        vec![registered(APP)],
        vec![approved(0, 0b10, 0b11)],
        vec![approved(0, 0b100, 0b111), activated(0, B256::ZERO)],
        vec![run_opened(RUN, 0b11, 1_500_000_000)],
    ]
}

/// Those of the release decisions for the keys of these owners, by index, for the open run.
pub(crate) fn questions(owners: &[usize]) -> String {
    let each =
        |of: &dyn Fn(usize) -> String| owners.iter().map(|index| of(*index)).collect::<Vec<_>>().join(",");
    format!(
        "/v1/apps/{APP}/release-decisions?proposal={}&compose={}&owner={}&dataset={}&run={}",
        each(&|_| proposal_id(0).to_string()),
        each(&|_| COMPOSE.to_string()),
        each(&|index| OWNERS[index].to_owned()),
        each(&|index| dataset_id(index as u8).to_string()),
        each(&|_| RUN.to_string())
    )
}

/// Path and query of the release decision for hospital A's key for the open run.
pub(crate) fn question() -> String {
    question_of(OWNERS[0], dataset_id(0), COMPOSE, RUN, 0)
}

pub(crate) fn question_of(owner: &str, dataset: B256, compose: B256, run: B256, round: u32) -> String {
    let proposal = proposal_id(round);
    format!(
        "/v1/apps/{APP}/release-decision?proposal={proposal}&compose={compose}&owner={owner}&dataset={dataset}&run={run}"
    )
}
