//! A result file made from nothing: fixed keys, a development machine, and a chain of one block. Each part can be
//! changed before it is signed or proved, so that a file has exactly one defect.

use std::sync::LazyLock;

use alloy::{
    primitives::{Address, B256, Bytes, keccak256},
    signers::{SignerSync, local::PrivateKeySigner},
    sol_types::Eip712Domain,
};
use cohort_agent::{compute::prepare, run::RunResult};
use cohort_attestation::{
    AppId, Evidence,
    dev::{CollateralOptions, DevGpus, DevGuest, DevPlatform, TdMeasurements},
    gpu,
};
use cohort_protocol::{
    compose::AppCompose,
    eip712,
    json::canonical_hash,
    release::{Binding, Certificate},
    sign_rpc::{self, FORMAT, Input, PrivacyProof, ReceiptPosition, SignedReceipt},
    storage,
    terms::{SignedRunRequest, Terms},
};
use serde_json::{Value, json};

use super::block::{self, Words};

/// Time of the run, Unix seconds.
pub(crate) const PRODUCED_AT: u64 = 1_750_000_000;
pub(crate) const CHAIN_ID: u64 = 31337;
pub(crate) const APP: Address = Address::repeat_byte(0x5f);
pub(crate) const REGISTRY: Address = Address::repeat_byte(0x6a);
const COMPOSE: &str = include_str!("../../../test/data/heart-disease/app-compose.json");

/// A key that everybody knows.
pub(crate) fn key(byte: u8) -> PrivateKeySigner {
    PrivateKeySigner::from_bytes(&B256::repeat_byte(byte)).unwrap()
}

pub(crate) fn root() -> PrivateKeySigner {
    key(1)
}

pub(crate) fn platform() -> DevPlatform {
    static PLATFORM: LazyLock<DevPlatform> = LazyLock::new(|| DevPlatform::from_seed([0xE7; 32]).unwrap());
    PLATFORM.clone()
}

/// What the study's recipe has beside the usual.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extra {
    Nothing,
    /// It requires a GPU.
    Gpu,
    /// Its rows come from SQL.
    Sql,
}

/// The app-compose file of the study.
pub(crate) fn compose(extra: Extra) -> String {
    let mut compose: Value = serde_json::from_str(COMPOSE).unwrap();
    match extra {
        Extra::Nothing => return COMPOSE.to_owned(),
        Extra::Gpu => compose["cohort"]["gpu"] = json!({ "architecture": "hopper", "count": 1 }),
        Extra::Sql => {
            let columns = compose["cohort"]["datasets"]["columns"].clone();
            let names = columns.as_array().unwrap().iter().map(|column| column["name"].as_str().unwrap());
            let latest = names.filter(|name| *name != "id").map(|name| format!("MAX({name}) AS {name}"));
            let sql = format!("SELECT id, {} FROM cohort GROUP BY id", latest.collect::<Vec<_>>().join(", "));
            compose["cohort"]["prepare"] =
                json!({ "steps": [{ "name": "persons", "sql": sql }], "columns": columns, "seconds": 60 });
        }
    }
    serde_json::to_string_pretty(&compose).unwrap()
}

/// What goes into a file, in the order in which it is made. Each hook sees what is about to be signed or proved.
pub(crate) struct Study {
    pub(crate) extra: Extra,
    /// What the GPUs' certificates say that they are.
    pub(crate) chip: &'static str,
    /// What the machine booted: app and app-compose.
    pub(crate) booted: (Address, String),
    pub(crate) collateral: CollateralOptions,
    pub(crate) measurements: fn(&mut TdMeasurements),
    pub(crate) terms: fn(&mut Terms),
    pub(crate) run: fn(&mut SignedRunRequest),
    pub(crate) analyst: PrivateKeySigner,
    pub(crate) payload: fn(&mut Value),
    /// After the quote was made for the binding as it was.
    pub(crate) binding: fn(&mut Binding),
    /// After the quote was made.
    pub(crate) evidence: fn(&mut Evidence),
    pub(crate) issuer: PrivateKeySigner,
    pub(crate) certificate: fn(&mut Certificate),
    pub(crate) receipt: fn(&mut SignedReceipt),
    pub(crate) signer: PrivateKeySigner,
    /// Before the words are hashed into the storage root.
    pub(crate) words: fn(&mut Words),
    /// Before the event is hashed into the receipts root.
    pub(crate) event: fn(&mut RunResult),
    /// The finished file.
    pub(crate) file: fn(&mut RunResult),
}

impl Study {
    pub(crate) fn sound() -> Self {
        Self::with(Extra::Nothing)
    }

    pub(crate) fn with(extra: Extra) -> Self {
        Self {
            extra,
            chip: "GH100",
            booted: (APP, compose(extra)),
            collateral: CollateralOptions::at(PRODUCED_AT),
            measurements: |_| (),
            terms: |_| (),
            run: |_| (),
            analyst: key(3),
            payload: |_| (),
            binding: |_| (),
            evidence: |_| (),
            issuer: root(),
            certificate: |_| (),
            receipt: |_| (),
            signer: key(2),
            words: |_| (),
            event: |_| (),
            file: |_| (),
        }
    }

    fn guest(&self) -> DevGuest {
        let (app, compose) = &self.booted;
        let id = AppId(app.into_array());
        let gpus = u32::from(self.extra == Extra::Gpu);
        DevGuest::with_gpus(platform(), id, compose, &[2; 32], gpus).unwrap()
    }

    fn app_compose(&self) -> AppCompose {
        AppCompose::parse(compose(self.extra).as_bytes()).unwrap()
    }

    fn terms(&self) -> Terms {
        let compose = self.app_compose();
        let recipe = compose.recipe().unwrap();
        let mut terms = Terms {
            compose_hash: compose.compose_hash(),
            recipe_hash: recipe.recipe_hash(),
            output_schema_hash: recipe.output_schema_hash(),
            epsilon_per_run: recipe.privacy().epsilon_per_run,
            delta_per_run: 0,
            epsilon_budget: recipe.privacy().epsilon_budget,
            delta_budget: 0,
            expiry: 1_893_456_000,
            devices: B256::ZERO,
            systems: keccak256(self.guest().mr_system().0),
            era: 0,
            round: 1,
        };
        (self.terms)(&mut terms);
        terms
    }

    fn run(&self, terms: &Terms) -> SignedRunRequest {
        let mut run = SignedRunRequest {
            proposal_id: terms.proposal_id(),
            participants: 0b11,
            analyst: key(3).address(),
            nonce: B256::repeat_byte(4),
            deadline: 1_893_456_000,
            signature: Bytes::new(),
        };
        (self.run)(&mut run);
        run.signature = sign(&self.analyst, eip712::digest(&run.abi(), &domain()));
        run
    }

    /// Binding and evidence: the quote is made for the binding as it is before its hook.
    fn evidence(&self, run: &SignedRunRequest) -> (Binding, Evidence) {
        let guest = self.guest();
        let mut binding = Binding {
            chain_id: CHAIN_ID,
            app: APP,
            kms_root: root().address(),
            challenge: B256::repeat_byte(8),
            run_id: run.run_id(),
            encryption_key_hash: B256::repeat_byte(9),
            receipt_key: key(2).address(),
            gpu_evidence_hash: None,
        };
        (self.binding)(&mut binding);
        let mut reports = Vec::new();
        if self.extra == Extra::Gpu {
            let gpus = DevGpus::of_chip(&platform(), 1, self.chip).unwrap();
            reports = gpus.evidence(&binding.gpu_nonce()).unwrap();
            binding.gpu_evidence_hash = Some(B256::from(gpu::evidence_hash(&reports)));
        }
        let mut measurements = guest.measurements().clone();
        (self.measurements)(&mut measurements);
        let mut guest_evidence = guest.evidence(&binding.report_data()).unwrap();
        guest_evidence.quote = platform().quote(&measurements, &binding.report_data()).unwrap();
        guest_evidence.app_compose = Some(compose(self.extra));
        guest_evidence.gpu = reports;
        let collateral = platform().collateral_with(&self.collateral).unwrap();
        let mut evidence = guest_evidence.with_collateral(collateral);
        let proof = prepare::prove(&self.app_compose().recipe().unwrap()).unwrap();
        evidence.privacy_proof = proof.map(|proof| proof.record());
        (self.evidence)(&mut evidence);
        (binding, evidence)
    }

    /// The file.
    pub(crate) fn make(&self) -> RunResult {
        let terms = self.terms();
        let run = self.run(&terms);
        let (binding, evidence) = self.evidence(&run);
        let inputs: Vec<_> = [("hospital-A", 6), ("hospital-B", 7)]
            .map(|(owner, id)| Input {
                owner: owner.parse().unwrap(),
                dataset_id: B256::repeat_byte(id).into(),
            })
            .into();
        let mut payload = payload(&compose(self.extra));
        (self.payload)(&mut payload);
        let mut certificate = Certificate {
            agent: key(2).address(),
            compose_hash: terms.compose_hash,
            not_after: PRODUCED_AT + 3600,
            signature: Bytes::new(),
        };
        (self.certificate)(&mut certificate);
        certificate.signature = sign(&self.issuer, eip712::digest(&certificate.abi(), &domain()));
        let mut receipt = SignedReceipt {
            run_id: run.run_id(),
            output_hash: canonical_hash(&payload).unwrap(),
            inputs_hash: sign_rpc::inputs_hash(&inputs),
            evidence_hash: sign_rpc::evidence_hash(&binding, &evidence).unwrap(),
            epsilon: terms.epsilon_per_run,
            delta: terms.delta_per_run,
            privacy_proof: PrivacyProof::Proved,
            produced_at: PRODUCED_AT,
            signature: Bytes::new(),
        };
        (self.receipt)(&mut receipt);
        receipt.signature = sign(&self.signer, receipt.digest(&domain()));
        let position = ReceiptPosition { transaction: B256::ZERO, block_number: 0, block_hash: B256::ZERO };
        let mut result = RunResult {
            format: FORMAT.to_owned(),
            chain_id: CHAIN_ID,
            app: APP,
            attestation: "development".to_owned(),
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
        self.prove(&mut result);
        (self.file)(&mut result);
        result
    }

    fn prove(&self, result: &mut RunResult) {
        let mut words = Words::of(result);
        (self.words)(&mut words);
        let mut told = result.clone();
        (self.event)(&mut told);
        let system = B256::from(self.guest().mr_system().0);
        let image = storage::image(system, B256::from(DevGuest::os_image_hash().0));
        let (proof, number) = block::prove(result, &told, &words, &image);
        result.position.transaction = keccak256(&proof.receipt.transaction);
        result.position.block_number = number;
        result.position.block_hash = keccak256(&proof.header);
        result.chain = Some(proof);
    }
}

pub(crate) fn domain() -> Eip712Domain {
    eip712::app_domain(CHAIN_ID, APP)
}

fn sign(key: &PrivateKeySigner, digest: B256) -> Bytes {
    key.sign_hash_sync(&digest).unwrap().as_bytes().to_vec().into()
}

/// Every cell suppressed.
fn payload(compose: &str) -> Value {
    let compose: Value = serde_json::from_str(compose).unwrap();
    let of = |measure: &Value| {
        let rules = measure["properties"].as_object().unwrap();
        let mut told: serde_json::Map<String, Value> = rules
            .iter()
            .filter_map(|(name, rule)| Some((name.clone(), rule.get("const")?.clone())))
            .collect();
        let groups = measure["properties"]["cells"]["items"]["properties"]["key"]["prefixItems"].as_array();
        let mut keys: Vec<Vec<Value>> = vec![Vec::new()];
        for group in groups.into_iter().flatten() {
            let choices = group["enum"].as_array().unwrap();
            let with = |key: &Vec<Value>| -> Vec<Vec<Value>> {
                choices.iter().map(|choice| [key.as_slice(), std::slice::from_ref(choice)].concat()).collect()
            };
            keys = keys.iter().flat_map(with).collect();
        }
        let cells: Vec<_> =
            keys.iter().map(|key| json!({ "key": key, "suppressed": true, "value": null })).collect();
        told.insert("cells".to_owned(), json!(cells));
        Value::Object(told)
    };
    let measures = compose["cohort"]["output_schema"]["properties"]["measures"]["prefixItems"].as_array();
    json!({ "measures": measures.into_iter().flatten().map(of).collect::<Vec<_>>() })
}
