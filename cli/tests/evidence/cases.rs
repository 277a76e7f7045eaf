//! The files of `test/vectors/evidence`: sound ones, and one defect a file, with the check at which it must fail.

use alloy::primitives::{Address, B256, Bytes, U256, keccak256};
use cohort_agent::run::RunResult;
use cohort_cli::verify::Name;
use cohort_protocol::chain_proof::RegistryProof;
use serde_json::{Value, json};

use super::{
    block::field,
    study::{APP, Extra, PRODUCED_AT, Study, key},
};

/// One file.
pub(crate) struct Case {
    /// Its name: the defect.
    pub(crate) name: &'static str,
    /// Where it must fail; `None`: nowhere.
    pub(crate) fails_at: Option<Name>,
    /// How it is made.
    pub(crate) result: RunResult,
}

fn case(name: &'static str, fails_at: impl Into<Option<Name>>, change: impl FnOnce(&mut Study)) -> Case {
    let mut study = Study::sound();
    change(&mut study);
    Case { name, fails_at: fails_at.into(), result: study.make() }
}

fn with_gpu(name: &'static str, fails_at: impl Into<Option<Name>>, change: impl FnOnce(&mut Study)) -> Case {
    let mut study = Study::with(Extra::Gpu);
    change(&mut study);
    Case { name, fails_at: fails_at.into(), result: study.make() }
}

fn with_sql(name: &'static str, fails_at: impl Into<Option<Name>>, change: impl FnOnce(&mut Study)) -> Case {
    let mut study = Study::with(Extra::Sql);
    change(&mut study);
    Case { name, fails_at: fails_at.into(), result: study.make() }
}

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    [sound(), file(), evidence(), request(), proofs(), words()].into_iter().flatten().collect()
}

fn sound() -> Vec<Case> {
    vec![
        case("sound", None, |_| ()),
        case("sound-without-chain", None, |s| s.file = |file| file.chain = None),
        case("sound-any-image", None, |s| s.terms = |terms| terms.systems = B256::ZERO),
        case("sound-listed-image", None, |s| {
            s.terms = |terms| terms.systems = B256::ZERO;
            s.words = |w| w.image = Some([U256::from(1); 2]);
        }),
        case("sound-contract-account", None, |s| {
            s.analyst = key(9);
            s.words = |w| w.analyst_code = Some(B256::repeat_byte(5));
        }),
        case("sound-analyst-without-account", None, |s| s.words = |w| w.analyst_code = None),
        case("sound-superseded-dataset", None, |s| s.words = |w| w.inputs[0][2] |= field(1, 1)),
        with_gpu("sound-gpu", None, |_| ()),
        with_sql("sound-sql", None, |_| ()),
        with_sql("sound-sql-planned-by-another-version", None, |s| {
            s.evidence = |evidence| {
                let proof = evidence.privacy_proof.as_mut().unwrap();
                proof["planner"] = json!("datafusion 1.0.0");
                proof["steps"] = json!([]);
            };
        }),
    ]
}

fn file() -> Vec<Case> {
    vec![
        case("payload-altered", Name::Payload, |s| {
            s.file = |file| file.payload["measures"][0]["cells"][0]["suppressed"] = Value::Bool(false);
        }),
        case("payload-of-another-schema", Name::OutputSchema, |s| {
            s.payload = |payload| *payload = json!({ "measures": [] });
        }),
        case("compose-of-another-hash", Name::ComposeHash, |s| {
            s.terms = |terms| terms.compose_hash = B256::repeat_byte(5).into();
        }),
        case("recipe-of-another-hash", Name::Recipe, |s| {
            s.terms = |terms| terms.recipe_hash = B256::repeat_byte(5).into();
        }),
        with_sql("proof-of-other-sql", Name::PrivacyProof, |s| {
            s.evidence = |evidence| {
                evidence.privacy_proof.as_mut().unwrap()["steps"][0]["rule"] = json!("public_table");
            };
        }),
        with_sql("proof-missing", Name::PrivacyProof, |s| {
            s.evidence = |evidence| evidence.privacy_proof = None;
        }),
        with_sql("proof-of-another-unit", Name::PrivacyProof, |s| {
            s.evidence = |evidence| {
                let proof = evidence.privacy_proof.as_mut().unwrap();
                proof["planner"] = json!("datafusion 1.0.0");
                proof["unit"] = json!("age");
            };
        }),
        case("proof-without-sql", Name::PrivacyProof, |s| {
            s.evidence = |evidence| evidence.privacy_proof = Some(json!({}));
        }),
        case("epsilon-of-other-terms", Name::Recipe, |s| {
            s.terms = |terms| terms.epsilon_budget.0 += 1;
        }),
        case("loss-understated", Name::PrivacyLoss, |s| s.receipt = |receipt| receipt.epsilon.0 -= 1),
        case("delta-overstated", Name::PrivacyLoss, |s| s.receipt = |receipt| receipt.delta = 1),
        case("receipt-of-another-key", Name::ReceiptSignature, |s| s.signer = key(9)),
        case("receipt-altered", Name::ReceiptSignature, |s| {
            s.file = |file| file.receipt.produced_at += 1;
        }),
        case("certificate-of-another-root", Name::Certificate, |s| s.issuer = key(9)),
        case("certificate-of-another-compose", Name::Certificate, |s| {
            s.certificate = |certificate| certificate.compose_hash = B256::repeat_byte(5).into();
        }),
        case("certificate-ended", Name::Certificate, |s| {
            s.certificate = |certificate| certificate.not_after = PRODUCED_AT;
        }),
        case("attestation-claims-intel", Name::ClaimedPlatform, |s| {
            s.file = |file| file.attestation = "intel".to_owned();
        }),
        case("inputs-swapped", Name::Inputs, |s| s.file = |file| file.inputs.reverse()),
        case("inputs-fewer-than-participants", Name::Inputs, |s| s.run = |run| run.participants = 0b111),
    ]
}

fn evidence() -> Vec<Case> {
    vec![
        case("evidence-altered", Name::Evidence, |s| s.file = |file| file.evidence.event_log.push(' ')),
        case("binding-altered", Name::Evidence, |s| {
            s.file = |file| file.binding.challenge = B256::repeat_byte(5);
        }),
        case("quote-altered", Name::TdxQuote, |s| {
            // A byte of MRTD: the signature does not hold any more.
            s.evidence = |evidence| evidence.quote[48 + 136] ^= 1;
        }),
        case("quote-of-a-debug-machine", Name::TdxQuote, |s| {
            s.measurements = |td| td.td_attributes[0] |= 1;
        }),
        case("quote-of-another-challenge", Name::QuoteBinding, |s| {
            s.evidence = |evidence| {
                let other = Study { binding: |b| b.challenge = B256::repeat_byte(5), ..Study::sound() };
                evidence.quote = other.make().evidence.quote;
            };
        }),
        case("collateral-expired", Name::Collateral, |s| {
            s.collateral.valid_from = PRODUCED_AT - 100;
            s.collateral.expires_at = PRODUCED_AT;
        }),
        case("collateral-from-later", Name::Collateral, |s| s.collateral.valid_from = PRODUCED_AT + 1),
        case("collateral-revokes-the-machine", Name::Collateral, |s| s.collateral.pck_is_revoked = true),
        case("collateral-altered", Name::TdxQuote, |s| {
            s.evidence = |evidence| {
                let collateral = &mut evidence.collateral;
                collateral.tcb_info = collateral.tcb_info.replace("UpToDate", "UpToDatf");
            };
        }),
        case("event-log-altered", Name::EventLog, |s| {
            s.evidence = |evidence| {
                let mut log: Value = serde_json::from_str(&evidence.event_log).unwrap();
                log[0]["digest"] = json!("11".repeat(48));
                evidence.event_log = log.to_string();
            };
        }),
        case("event-log-without-an-event", Name::EventLog, |s| {
            s.evidence = |evidence| {
                let mut log: Vec<Value> = serde_json::from_str(&evidence.event_log).unwrap();
                log.retain(|event| event["event"] != "instance-id");
                evidence.event_log = json!(log).to_string();
            };
        }),
        case("machine-of-another-app", Name::Measurement, |s| s.booted.0 = Address::repeat_byte(0x60)),
        case("machine-of-another-compose", Name::Measurement, |s| s.booted.1.push('\n')),
        case("binding-of-another-run", Name::QuoteBinding, |s| {
            s.binding = |binding| binding.run_id = B256::repeat_byte(5).into();
        }),
        case("binding-of-another-receipt-key", Name::QuoteBinding, |s| {
            s.binding = |binding| binding.receipt_key = key(9).address();
        }),
        case("image-of-other-terms", Name::CvmImage, |s| {
            s.terms =
                |terms| terms.systems = keccak256([B256::repeat_byte(4), B256::repeat_byte(5)].concat());
        }),
        case("device-of-other-terms", Name::Device, |s| {
            s.terms =
                |terms| terms.devices = keccak256([B256::repeat_byte(4), B256::repeat_byte(5)].concat());
        }),
        with_gpu("gpu-report-altered", Name::GpuEvidence, |s| {
            s.evidence = |evidence| {
                let last = evidence.gpu[0].report.len() - 1;
                evidence.gpu[0].report[last] ^= 1;
            };
        }),
        with_gpu("gpu-of-another-chip", Name::GpuEvidence, |s| s.chip = "GB100"),
        with_gpu("gpu-evidence-missing", Name::GpuEvidence, |s| {
            s.evidence = |evidence| evidence.gpu.clear();
        }),
    ]
}

fn request() -> Vec<Case> {
    vec![
        case("run-of-another-nonce", Name::Run, |s| s.file = |file| file.run.nonce = B256::repeat_byte(5)),
        case("request-of-another-key", Name::RequestSignature, |s| s.analyst = key(9)),
        case("request-of-another-key-and-no-account", Name::RequestSignature, |s| {
            s.analyst = key(9);
            s.words = |w| w.analyst_code = None;
        }),
        case("run-of-another-proposal", Name::Run, |s| {
            s.run = |run| run.proposal_id = B256::repeat_byte(5).into();
        }),
    ]
}

fn proofs() -> Vec<Case> {
    vec![
        case("header-altered", Name::BlockHeader, |s| {
            s.file = |file| flip_last(&mut file.chain.as_mut().unwrap().header);
        }),
        case("header-of-another-number", Name::BlockHeader, |s| {
            s.file = |file| file.position.block_number += 1;
        }),
        case("account-altered", Name::AccountProof, |s| {
            s.file = |file| flip_last(&mut file.chain.as_mut().unwrap().account);
        }),
        case("account-proof-cut", Name::AccountProof, |s| {
            s.file = |file| {
                file.chain.as_mut().unwrap().account_proof.pop();
            };
        }),
        case("analyst-account-denied", Name::AccountProof, |s| {
            s.file = |file| {
                let analyst = &mut file.chain.as_mut().unwrap().analyst;
                analyst.account = Bytes::new();
                analyst.proof.pop();
            };
        }),
        case("registry-of-another-address", Name::AccountProof, |s| {
            s.words = |w| w.image = Some([U256::from(1); 2]);
            s.file = |file| registry(file).address = APP;
        }),
        case("registry-of-another-image", Name::StorageProofs, |s| {
            s.words = |w| w.image = Some([U256::from(1); 2]);
            s.file = |file| registry(file).storage.swap(0, 1);
        }),
        case("image-not-listed", Name::CvmImage, |s| {
            s.words = |w| w.image = Some([U256::ZERO, U256::from(1)]);
        }),
        case("os-image-not-listed", Name::CvmImage, |s| {
            s.terms = |terms| terms.systems = B256::ZERO;
            s.words = |w| w.image = Some([U256::from(1), U256::ZERO]);
        }),
        case("transaction-of-another-hash", Name::Transaction, |s| {
            s.file = |file| file.position.transaction = B256::repeat_byte(5);
        }),
        case("transaction-altered", Name::Transaction, |s| {
            s.file = |file| flip_last(&mut file.chain.as_mut().unwrap().receipt.transaction);
        }),
        case("storage-word-altered", Name::StorageProofs, |s| {
            s.file = |file| file.chain.as_mut().unwrap().storage[2].word = B256::repeat_byte(1);
        }),
        case("storage-word-denied", Name::StorageProofs, |s| {
            // The word is there; a way that ends early must not show that it is not.
            s.file = |file| {
                let entry = &mut file.chain.as_mut().unwrap().storage[2];
                entry.word = B256::ZERO;
                entry.proof.pop();
            };
        }),
        case("storage-slot-missing", Name::StorageProofs, |s| {
            s.file = |file| {
                file.chain.as_mut().unwrap().storage.pop();
            };
        }),
        case("storage-slots-swapped", Name::StorageProofs, |s| {
            s.file = |file| file.chain.as_mut().unwrap().storage.swap(0, 1);
        }),
        case("storage-word-impossible", Name::StorageProofs, |s| s.words = |w| w.analyst = U256::from(2)),
        case("receipt-proof-of-another-index", Name::ReceiptProof, |s| {
            s.file = |file| file.chain.as_mut().unwrap().receipt.index = 0;
        }),
        case("receipt-proof-altered", Name::ReceiptProof, |s| {
            s.file = |file| flip_last(&mut file.chain.as_mut().unwrap().receipt.receipt);
        }),
        case("event-of-another-run", Name::ReceiptOnChain, |s| {
            s.event = |told| told.receipt.run_id = B256::repeat_byte(5).into();
        }),
        case("event-of-another-contract", Name::ReceiptOnChain, |s| {
            s.event = |told| told.app = Address::repeat_byte(0x60);
        }),
    ]
}

fn words() -> Vec<Case> {
    vec![
        case("run-of-another-receipt", Name::RunOnChain, |s| s.words = |w| w.digest = U256::from(1)),
        case("run-still-open", Name::RunOnChain, |s| s.words = |w| w.run ^= field(1, 24)),
        case("run-never-opened", Name::RunOnChain, |s| s.words = |w| w.run = U256::ZERO),
        case("run-of-other-owners", Name::RunOnChain, |s| s.words = |w| w.run ^= field(0b0100, 0)),
        case("produced-before-the-run", Name::Time, |s| {
            s.words = |w| w.run ^= field((PRODUCED_AT - 60) ^ (PRODUCED_AT + 901), 16);
        }),
        case("produced-after-the-block", Name::Time, |s| s.words = |w| w.time = PRODUCED_AT - 901),
        case("root-not-pinned", Name::PinnedRoot, |s| s.words = |w| w.kms_root ^= U256::from(1)),
        case("quorum-not-reached", Name::Quorum, |s| s.words = |w| w.proposal ^= field(0b0100, 0)),
        case("quorum-raised", Name::Quorum, |s| s.words = |w| w.config ^= field(3 ^ 4, 16)),
        case("quorum-of-removed-owners", Name::Quorum, |s| {
            s.words = |w| w.config ^= field(0b0100, 0);
        }),
        case("proposal-revoked", Name::Quorum, |s| s.words = |w| w.proposal |= field(1, 30)),
        case("proposal-superseded", Name::Quorum, |s| s.words = |w| w.proposal |= field(1, 31)),
        case("proposal-expired", Name::Quorum, |s| s.terms = |terms| terms.expiry = PRODUCED_AT + 30),
        case("proposal-of-another-era", Name::Quorum, |s| s.words = |w| w.config |= field(1, 19)),
        case("own-approval-missing", Name::OwnApproval, |s| {
            // Three others approved: a quorum, without the owner of the first dataset.
            s.words = |w| w.proposal ^= field(0b1001, 0);
        }),
        case("dataset-unregistered", Name::Datasets, |s| s.words = |w| w.inputs[1][2] = U256::ZERO),
        case("dataset-of-another-owner", Name::Datasets, |s| s.words = |w| w.inputs[1][2] ^= field(3, 2)),
        case("dataset-of-another-compose", Name::Datasets, |s| s.words = |w| w.inputs[0][1] ^= U256::from(1)),
        case("owner-unknown", Name::Datasets, |s| s.words = |w| w.inputs[0][0] = U256::ZERO),
        case("analyst-not-listed", Name::Analyst, |s| s.words = |w| w.analyst = U256::ZERO),
        case("agent-key-revoked", Name::AgentKey, |s| s.words = |w| w.agent_revoked = U256::from(1)),
        case("budget-overspent", Name::Budget, |s| s.words = |w| w.proposal ^= field(1 ^ 200, 25)),
        case("budget-never-debited", Name::Budget, |s| s.words = |w| w.proposal ^= field(1, 25)),
    ]
}

fn registry(file: &mut RunResult) -> &mut RegistryProof {
    file.chain.as_mut().unwrap().registry.as_mut().unwrap()
}

fn flip_last(bytes: &mut Bytes) {
    let mut altered = bytes.to_vec();
    *altered.last_mut().unwrap() ^= 1;
    *bytes = altered.into();
}
