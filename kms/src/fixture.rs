//! A request that is allowed, for tests that then break one thing.

use std::{collections::BTreeMap, io::Cursor, ops::ControlFlow};

use alloy::primitives::{Address, B256, Bytes};
use cohort_attestation::{Platform, TcbStatus};
use cohort_protocol::{
    chain::{DecisionAt, Position, ReleaseDecisions},
    decision::Decision,
    hpke::{KeyPair, SecretBytes},
    ids::{ComposeHash, OutputSchemaHash, RecipeHash},
    json::sha256,
    loss::Epsilon,
    release::{Binding, DatasetRequest, ReleaseRequest},
    sealed::{self, CHUNK_BYTES_MIN, ContentKind, SealParams},
    terms::{SignedRunRequest, Terms},
};

use crate::{
    challenge::UsedChallenge,
    claims::Claims,
    decide::{Release, ReleaseInputs, decide},
    denial::Denial,
    policy::Policy,
    question::{Checked, Question},
    roots::Roots,
    views::{EndpointView, PositionView, RootListing, Views},
};

pub(crate) const CHAIN_ID: u64 = 31337;
pub(crate) const NOW: u64 = 1_800_000_000;
pub(crate) const PLAINTEXT: &[u8] = b"age,sex\n63,1\n";

pub(crate) const fn app() -> Address {
    Address::repeat_byte(0xa1)
}

pub(crate) const fn registry() -> Address {
    Address::repeat_byte(0xa2)
}

pub(crate) const fn compose_hash() -> ComposeHash {
    ComposeHash(B256::repeat_byte(0xc0))
}

/// A sealed file and what a request says of it.
#[derive(Debug, Clone)]
pub(crate) struct Sealed {
    pub(crate) file: Vec<u8>,
    pub(crate) request: DatasetRequest,
}

pub(crate) fn seal(roots: &Roots, epoch: u32, change: impl FnOnce(&mut SealParams)) -> Sealed {
    let mut params = SealParams {
        chain_id: CHAIN_ID,
        app: app(),
        compose_hash: compose_hash(),
        owner: "hospital-A".parse().unwrap(),
        root_epoch: epoch,
        root: roots.epoch(epoch).unwrap().sealing.public_key().clone(),
        kind: ContentKind::Csv,
        rows: None,
        schema: None,
        chunk_bytes: CHUNK_BYTES_MIN,
    };
    change(&mut params);
    let mut file = Vec::new();
    let length = PLAINTEXT.len() as u64;
    let go_on = &mut |_| ControlFlow::Continue(());
    let summary = sealed::seal(&mut Cursor::new(PLAINTEXT), length, &mut file, &params, go_on).unwrap();
    let request = DatasetRequest {
        owner: params.owner,
        envelope: String::from_utf8(summary.envelope.bytes().to_vec()).unwrap(),
        data_root: B256::from(summary.data_root.0),
    };
    Sealed { file, request }
}

/// Everything that a decision depends on.
pub(crate) struct Case {
    pub(crate) roots: Roots,
    pub(crate) agent: KeyPair,
    pub(crate) sealed: Vec<Sealed>,
    pub(crate) request: ReleaseRequest<()>,
    /// What was consumed; `None`: the binding's.
    pub(crate) challenge: Option<B256>,
    pub(crate) claims: Claims,
    pub(crate) views: Views,
    pub(crate) policy: Policy,
    pub(crate) now: u64,
}

fn position(number: u64) -> Position {
    let hash = B256::left_padding_from(&number.to_be_bytes());
    Position { number, hash, timestamp: NOW - 1000 + number }
}

impl Case {
    /// Two datasets, two RPC endpoints, two root epochs (the app pins epoch 1, one dataset is sealed to epoch 0).
    pub(crate) fn allowed() -> Self {
        let roots = Roots::derive(&SecretBytes::new([7; 32]), &[0, 1]).unwrap();
        let agent = KeyPair::derive(&SecretBytes::new([9; 32]));
        let sealed = vec![
            seal(&roots, 1, |_| ()),
            seal(&roots, 0, |params| params.owner = "hospital-B".parse().unwrap()),
        ];
        let policy = Policy {
            chain_id: CHAIN_ID,
            registry: registry(),
            roots: roots.identities(),
            self_authorisation: true,
            confirmations: 3,
            max_head_age_seconds: 60,
            certificate_seconds: 3600,
            lease_seconds: 60,
            device_lists: Vec::new(),
            system_lists: Vec::new(),
        };
        let request = request(&roots, &agent, &sealed);
        let claims = Claims {
            platform: Platform::Intel,
            app: app(),
            compose_hash: compose_hash(),
            instance_id: None,
            device_id: B256::repeat_byte(0xd0),
            os_image_hash: B256::repeat_byte(0x05),
            mr_system: B256::repeat_byte(0x55),
            mr_aggregated: B256::repeat_byte(0x56),
            report_data: request.binding.report_data(),
            tcb_status: TcbStatus::UpToDate,
            gpu_golden_values: None,
        };
        let views = views(&roots, sealed.len());
        Self { roots, agent, sealed, request, challenge: None, claims, views, policy, now: NOW }
    }

    /// Makes run, binding and quote fit again after terms, run or encryption key were changed.
    pub(crate) fn bind(&mut self) {
        self.request.run.proposal_id = self.request.terms.proposal_id();
        self.request.binding.run_id = self.request.run.run_id();
        self.request.binding.encryption_key_hash = sha256(&self.request.encryption_key);
        self.claims.report_data = self.request.binding.report_data();
    }

    pub(crate) fn endpoint(&mut self, index: usize) -> &mut EndpointView {
        self.views.endpoints[index].as_mut().unwrap()
    }

    /// Changes what every endpoint says of every block.
    pub(crate) fn everywhere(&mut self, change: impl Fn(&mut PositionView)) {
        for endpoint in self.views.endpoints.iter_mut().flatten() {
            change(&mut endpoint.head);
            change(&mut endpoint.confirmed);
        }
    }

    pub(crate) fn indexer(&mut self, item: usize) -> &mut ReleaseDecisions {
        self.views.indexer[item].as_mut().unwrap()
    }

    pub(crate) fn question(&self) -> Result<Question, Denial> {
        let challenge = self.challenge.unwrap_or(self.request.binding.challenge);
        let challenge = UsedChallenge::for_tests(challenge);
        let (checked, ()) = Checked::new(self.request.clone(), &challenge, &self.policy)?;
        checked.attest(&self.claims, &self.policy)
    }

    pub(crate) fn decide(&self) -> Result<Release, Denial> {
        let question = &self.question()?;
        decide(&ReleaseInputs { question, views: &self.views, policy: &self.policy, now: self.now })
    }
}

fn request(roots: &Roots, agent: &KeyPair, sealed: &[Sealed]) -> ReleaseRequest<()> {
    let terms = Terms {
        compose_hash: compose_hash(),
        recipe_hash: RecipeHash(B256::repeat_byte(1)),
        output_schema_hash: OutputSchemaHash(B256::repeat_byte(2)),
        epsilon_per_run: Epsilon(1_500_000_000),
        delta_per_run: 0,
        epsilon_budget: Epsilon(4_500_000_000),
        delta_budget: 0,
        expiry: NOW + 86_400,
        devices: B256::ZERO,
        systems: B256::ZERO,
        era: 0,
        round: 0,
    };
    let run = SignedRunRequest {
        proposal_id: terms.proposal_id(),
        participants: 0b11,
        analyst: Address::repeat_byte(0xa3),
        nonce: B256::repeat_byte(3),
        deadline: NOW + 600,
        signature: Bytes::new(),
    };
    let encryption_key = Bytes::copy_from_slice(agent.public_key().as_bytes());
    let binding = Binding {
        chain_id: CHAIN_ID,
        app: app(),
        kms_root: roots.epoch(1).unwrap().address(),
        challenge: B256::repeat_byte(4),
        run_id: run.run_id(),
        encryption_key_hash: sha256(&encryption_key),
        receipt_key: Address::repeat_byte(0xa4),
        gpu_evidence_hash: None,
    };
    let datasets = sealed.iter().map(|sealed| sealed.request.clone()).collect();
    ReleaseRequest { terms, run, binding, encryption_key, datasets, evidence: () }
}

fn views(roots: &Roots, items: usize) -> Views {
    let listing = |root: crate::roots::RootIdentity| {
        let listing =
            RootListing { address: root.address, sealing_key_hash: root.sealing_key_hash, retired: false };
        (root.epoch, listing)
    };
    let at = |number| PositionView {
        block: position(number),
        decisions: vec![Some(0); items],
        kms_root: Some(roots.epoch(1).unwrap().address()),
        app_registered: Some(true),
        system_allowed: Some(true),
        os_image_allowed: Some(true),
        tcb_must_be_up_to_date: Some(true),
        any_device: Some(true),
        device_listed: Some(false),
        gpu_golden_values: Some(B256::ZERO),
        kms_allowed: Some(true),
        roots: roots.identities().into_iter().map(listing).collect::<BTreeMap<_, _>>(),
    };
    let endpoint = |head| EndpointView {
        chain_id: CHAIN_ID,
        head: at(head),
        confirmed: at(987),
        indexer_block: Some(position(980).hash),
    };
    let decided = |number| DecisionAt { position: position(number), decision: Decision::Allow };
    let indexed =
        ReleaseDecisions { chain_id: CHAIN_ID, head: decided(989), confirmed: decided(980), finalized: None };
    Views { indexer: vec![Ok(indexed); items], endpoints: vec![Ok(endpoint(990)), Ok(endpoint(991))] }
}
