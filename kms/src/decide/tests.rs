//! Every reason for its cause, one broken thing at a time.

use alloy::primitives::{Address, B256};
use cohort_attestation::TcbStatus;
use cohort_protocol::{
    decision::Decision,
    ids::{ComposeHash, RunId},
    release::{ReleaseAnswer, WrapKeys},
    sealed,
    terms::id_list_hash,
};

use crate::{
    denial::Class,
    fixture::{CHAIN_ID, Case, NOW, PLAINTEXT, Sealed, app, seal},
    release_log::Logged,
    views::{EndpointFault, IndexerFault},
};

fn code(case: &Case) -> String {
    case.decide().map_or_else(|denial| denial.code().to_owned(), |_| "allow".to_owned())
}

/// The code that is wanted, and what is broken for it.
type Row = (&'static str, fn(&mut Case));

fn check(table: &[Row]) {
    for (row, (want, change)) in table.iter().enumerate() {
        let mut case = Case::allowed();
        change(&mut case);
        assert_eq!(code(&case), *want, "row {row}");
    }
}

fn replace(case: &mut Case, sealed: Sealed) {
    case.request.datasets[0] = sealed.request;
}

#[test]
fn the_request_must_be_consistent_and_for_this_kms() {
    check(&[
        ("allow", |_| ()),
        ("internal", |c| c.challenge = Some(B256::ZERO)),
        ("wrong_chain", |c| c.request.binding.chain_id = 1),
        ("wrong_kms", |c| c.request.binding.kms_root = Address::ZERO),
        ("proposal_mismatch", |c| c.request.terms.round = 1),
        ("proposal_mismatch", |c| c.request.terms.epsilon_per_run.0 += 1),
        ("run_mismatch", |c| c.request.run.nonce = B256::ZERO),
        ("run_mismatch", |c| c.request.binding.run_id = RunId(B256::ZERO)),
        ("encryption_key_mismatch", |c| c.request.encryption_key = vec![0; 1216].into()),
        ("malformed", |c| {
            c.request.encryption_key = vec![0; 5].into();
            c.bind();
        }),
        ("malformed", |c| c.request.datasets.clear()),
        ("malformed", |c| c.request.datasets = vec![c.request.datasets[0].clone(); 2]),
        ("malformed", |c| c.request.datasets = vec![c.request.datasets[0].clone(); 65]),
        ("envelope_malformed", |c| c.request.datasets[1].envelope.push(' ')),
        ("envelope_malformed", |c| c.request.datasets[1].envelope = "{}".to_owned()),
    ]);
}

/// R10: the quote is about this challenge, run and key, or about nothing.
#[test]
fn the_evidence_must_be_about_this_request() {
    check(&[
        ("report_data_mismatch", |c| c.claims.report_data[63] ^= 1),
        ("report_data_mismatch", |c| c.request.binding.receipt_key = Address::ZERO),
        ("report_data_mismatch", |c| {
            c.request.binding.challenge = B256::ZERO; // another live challenge, the old quote
        }),
        ("app_mismatch", |c| c.claims.app = Address::ZERO),
        ("compose_mismatch", |c| c.claims.compose_hash = ComposeHash(B256::ZERO)),
        ("compose_mismatch", |c| {
            c.request.terms.compose_hash = ComposeHash(B256::ZERO);
            c.bind();
        }),
    ]);
}

/// What the terms limit, whatever the registry lists (R6): devices and CVM images.
#[test]
fn the_terms_may_limit_devices_and_images() {
    type Limit = fn(&mut Case, B256);
    type Configure = fn(&mut Case, Vec<Vec<B256>>);
    let fields: [(&str, B256, Limit, Configure); 2] = [
        (
            "device_not_allowed",
            Case::allowed().claims.device_id,
            |c, v| c.request.terms.devices = v,
            |c, l| c.policy.device_lists = l,
        ),
        (
            "system_not_in_terms",
            Case::allowed().claims.mr_system,
            |c, v| c.request.terms.systems = v,
            |c, l| c.policy.system_lists = l,
        ),
    ];
    for (want, own, limit, configure) in fields {
        let [one, two] = [B256::repeat_byte(1), B256::repeat_byte(2)];
        let outcome = |field: B256, known: Vec<Vec<B256>>| {
            let mut case = Case::allowed();
            limit(&mut case, field);
            configure(&mut case, known);
            case.bind();
            code(&case)
        };
        let hash = |list: &[B256]| id_list_hash(list).unwrap();
        assert_eq!(outcome(B256::ZERO, vec![]), "allow");
        assert_eq!(outcome(hash(&[own]), vec![]), "allow");
        assert_eq!(outcome(hash(&[one]), vec![]), want);
        assert_eq!(outcome(hash(&[one, own]), vec![vec![two], vec![one, own]]), "allow");
        assert_eq!(outcome(hash(&[one, own]), vec![]), want, "not configured");
        assert_eq!(outcome(hash(&[one, two]), vec![vec![one, two]]), want);
    }
}

/// R14, from the request's side: an envelope for anything but the attested facts is refused.
#[test]
fn the_envelope_must_be_sealed_for_the_attested_facts() {
    check(&[
        ("envelope_context", |c| replace(c, seal(&c.roots, 1, |p| p.chain_id = 1))),
        ("envelope_context", |c| replace(c, seal(&c.roots, 1, |p| p.app = Address::ZERO))),
        ("envelope_context", |c| replace(c, seal(&c.roots, 1, |p| p.compose_hash = ComposeHash(B256::ZERO)))),
        ("envelope_context", |c| c.request.datasets[0].owner = "hospital-B".parse().unwrap()),
        ("envelope_context", |c| replace(c, seal(&c.roots, 1, |p| p.root_epoch = 0))),
        ("epoch_unknown", |c| replace(c, seal(&c.roots, 1, |p| p.root_epoch = 2))),
        ("allow", |c| replace(c, seal(&c.roots, 1, |_| ()))),
    ]);
}

#[test]
fn every_denial_of_the_contract_is_passed_on_from_any_endpoint() {
    for decision in Decision::ALL.iter().filter(|decision| **decision != Decision::Allow) {
        for (endpoint, item) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let mut case = Case::allowed();
            case.endpoint(endpoint).head.decisions[item] = Some(*decision as u64);
            let denial = case.decide().unwrap_err();
            assert_eq!(denial.code(), decision.code());
            assert_eq!(denial.class(), Class::Denied);
            assert_eq!(denial.hint(), decision.hint());
            let owner = ["hospital-A", "hospital-B"][item];
            assert!(denial.to_string().contains(owner), "{denial}");
        }
    }
}

/// R9: a denial at the newest block of any endpoint counts at once; an allowance must have aged.
#[test]
fn approvals_must_age_and_revocations_count_at_once() {
    for decision in Decision::ALL.iter().filter(|decision| **decision != Decision::Allow) {
        let mut case = Case::allowed();
        case.endpoint(1).confirmed.decisions[1] = Some(*decision as u64);
        let denial = case.decide().unwrap_err();
        assert_eq!(denial.code(), "not_confirmed");
        assert!(denial.to_string().contains(decision.code()), "{denial}");
    }
    check(&[
        ("not_confirmed", |c| c.endpoint(0).confirmed.app_registered = Some(false)),
        ("not_confirmed", |c| c.endpoint(0).confirmed.system_allowed = Some(false)),
        ("not_confirmed", |c| c.endpoint(1).confirmed.kms_root = None),
        ("not_confirmed", |c| c.endpoint(1).confirmed.decisions[0] = None),
        ("not_confirmed", |c| {
            c.endpoint(1).confirmed.roots.remove(&0);
        }),
        // The newest block's reason goes first.
        ("proposal_revoked", |c| {
            c.endpoint(0).confirmed.decisions[0] = Some(6);
            c.endpoint(1).head.decisions[0] = Some(2);
        }),
    ]);
}

#[test]
fn app_registry_and_system_must_fit() {
    check(&[
        ("contract_missing", |c| c.endpoint(0).head.kms_root = None),
        ("contract_missing", |c| c.endpoint(0).head.app_registered = None),
        ("contract_missing", |c| c.endpoint(1).head.system_allowed = None),
        ("contract_missing", |c| c.endpoint(1).head.decisions[1] = None),
        ("app_not_registered", |c| c.endpoint(1).head.app_registered = Some(false)),
        ("root_not_pinned", |c| c.endpoint(0).head.kms_root = Some(Address::ZERO)),
        ("root_not_pinned", |c| {
            c.request.binding.kms_root = c.roots.epoch(0).unwrap().address(); // own, but not the pinned one
            c.bind();
        }),
        ("root_not_registered", |c| {
            c.endpoint(0).head.roots.remove(&1);
        }),
        ("root_not_registered", |c| {
            c.endpoint(0).head.roots.remove(&0);
        }),
        ("root_not_registered", |c| c.endpoint(0).head.roots.get_mut(&0).unwrap().address = Address::ZERO),
        ("root_not_registered", |c| {
            c.endpoint(0).head.roots.get_mut(&1).unwrap().sealing_key_hash = B256::ZERO
        }),
        ("root_retired", |c| c.endpoint(1).head.roots.get_mut(&0).unwrap().retired = true),
        ("root_retired", |c| c.endpoint(1).head.roots.get_mut(&1).unwrap().retired = true),
        ("system_not_allowed", |c| c.endpoint(1).head.system_allowed = Some(false)),
        ("os_image_not_allowed", |c| c.endpoint(0).head.os_image_allowed = Some(false)),
        ("contract_missing", |c| c.endpoint(0).head.os_image_allowed = None),
        ("decision_unknown", |c| c.endpoint(0).head.decisions[0] = Some(15)),
        ("decision_unknown", |c| c.endpoint(0).head.decisions[0] = Some(256)),
        ("internal", |c| c.endpoint(0).head.decisions.truncate(1)),
    ]);
}

/// What the app and the registry tell dstack's boot gate holds for releases too.
#[test]
fn the_rules_of_the_boot_gate_hold() {
    check(&[
        ("tcb_not_up_to_date", |c| c.claims.tcb_status = TcbStatus::SWHardeningNeeded),
        ("allow", |c| {
            c.claims.tcb_status = TcbStatus::SWHardeningNeeded; // accepted by this KMS's policy, or it were not here
            c.everywhere(|view| view.tcb_must_be_up_to_date = Some(false));
        }),
        ("contract_missing", |c| c.endpoint(1).head.tcb_must_be_up_to_date = None),
        ("device_not_listed", |c| c.endpoint(1).head.any_device = Some(false)),
        ("not_confirmed", |c| c.endpoint(1).confirmed.any_device = Some(false)),
        ("allow", |c| {
            c.everywhere(|view| (view.any_device, view.device_listed) = (Some(false), Some(true)));
        }),
        ("device_not_listed", |c| {
            c.everywhere(|view| (view.any_device, view.device_listed) = (Some(false), Some(true)));
            c.endpoint(0).head.device_listed = Some(false);
        }),
        ("contract_missing", |c| c.endpoint(0).head.any_device = None),
        ("contract_missing", |c| c.endpoint(0).head.device_listed = None),
        ("kms_not_allowed", |c| c.endpoint(0).head.kms_allowed = Some(false)),
        ("not_confirmed", |c| c.endpoint(0).confirmed.kms_allowed = Some(false)),
        ("contract_missing", |c| c.endpoint(1).head.kms_allowed = None),
        ("allow", |c| {
            c.policy.self_authorisation = false;
            c.everywhere(|view| view.kms_allowed = None);
        }),
    ]);
}

/// R8: whatever is unreachable, stale or disagreeing is a denial.
#[test]
fn every_endpoint_must_be_up_fresh_and_in_agreement() {
    check(&[
        ("rpc_unreachable", |c| c.views.endpoints[0] = Err(EndpointFault::Silent)),
        ("rpc_unreachable", |c| c.views.endpoints[1] = Err(EndpointFault::Malformed)),
        ("chain_too_short", |c| c.views.endpoints[1] = Err(EndpointFault::TooShort)),
        ("rpc_wrong_chain", |c| c.endpoint(1).chain_id = 1),
        ("allow", |c| c.endpoint(1).head.block.timestamp = NOW - 60),
        ("head_stale", |c| c.endpoint(1).head.block.timestamp = NOW - 61),
        ("head_stale", |c| c.endpoint(0).head.block.timestamp = NOW + 61),
        ("head_stale", |c| c.now = NOW + 100),
        ("endpoints_disagree", |c| c.endpoint(1).confirmed.block.hash = B256::ZERO),
        ("endpoints_disagree", |c| c.endpoint(1).confirmed.block.number += 1),
        ("endpoints_disagree", |c| c.views.endpoints.clear()),
        ("allow", |c| c.endpoint(0).head.block.number = 990),
        ("chain_too_short", |c| c.endpoint(0).head.block.number = 989),
        ("chain_too_short", |c| c.endpoint(0).head.block.number = 900),
        ("chain_too_short", |c| c.policy.confirmations = 4),
        // One denial is enough, though another endpoint is down.
        ("proposal_revoked", |c| {
            c.views.endpoints[0] = Err(EndpointFault::Silent);
            c.endpoint(1).head.decisions[0] = Some(2);
        }),
        // A stale endpoint's word is no reason.
        ("head_stale", |c| {
            c.endpoint(1).head.block.timestamp = 0;
            c.endpoint(1).head.decisions[0] = Some(12);
        }),
    ]);
}

#[test]
fn the_indexer_is_required_and_never_sufficient() {
    check(&[
        ("indexer_unreachable", |c| c.views.indexer[1] = Err(IndexerFault)),
        ("indexer_unreachable", |c| c.views.indexer.clear()),
        ("indexer_fork", |c| c.indexer(0).chain_id = 1),
        ("indexer_fork", |c| c.indexer(1).confirmed.position.hash = B256::ZERO),
        ("indexer_fork", |c| c.endpoint(1).indexer_block = None),
        ("indexer_stale", |c| c.indexer(0).head.position.timestamp = NOW - 61),
        ("indexer_denies", |c| c.indexer(0).head.decision = Decision::NoQuorum),
        ("indexer_denies", |c| c.indexer(1).confirmed.decision = Decision::RunUnknown),
        // An indexer that allows changes nothing about the chain's denial, nor does one that is down.
        ("owner_not_approved", |c| c.endpoint(0).head.decisions[0] = Some(9)),
        ("owner_not_approved", |c| {
            c.endpoint(0).head.decisions[0] = Some(9);
            c.views.indexer.clear();
        }),
        ("not_confirmed", |c| {
            c.endpoint(0).confirmed.decisions[0] = Some(9);
            c.views.indexer.clear();
        }),
    ]);
}

fn answer(case: &Case) -> ReleaseAnswer {
    case.roots.answer(&case.decide().unwrap(), &Logged::for_tests(7)).unwrap()
}

#[test]
fn an_answer_opens_the_datasets_and_certifies_the_receipt_key() {
    let case = Case::allowed();
    let answer = answer(&case);
    let keys = WrapKeys::open(&case.agent, &case.request.binding, &answer).unwrap();
    assert_eq!(keys.keys.len(), 2);
    for (key, sealed) in keys.keys.iter().zip(&case.sealed) {
        let wrap_key = secret(&key.wrap_key);
        let (plain, checked) = sealed::open(&mut sealed.file.as_slice(), &wrap_key, 1 << 20).unwrap();
        assert_eq!((plain.as_slice(), checked.dataset_id), (PLAINTEXT, key.dataset_id));
    }
    let domain = cohort_protocol::eip712::app_domain(CHAIN_ID, app());
    let certificate = &answer.certificate;
    assert_eq!(certificate.signer(&domain), Some(case.request.binding.kms_root));
    assert_eq!(certificate.agent, case.request.binding.receipt_key);
    assert_eq!(certificate.not_after, NOW + 3600);
    assert_eq!((answer.platform.as_str(), answer.log_index), ("intel", 7));
}

fn secret(hex_digits: &str) -> cohort_protocol::hpke::SecretBytes {
    cohort_protocol::hpke::SecretBytes::from_slice(&hex::decode(hex_digits).unwrap()).unwrap()
}

/// R14, from the key's side: a CVM attested as another recipe, asking with that recipe's own valid terms and an
/// envelope whose labels were rewritten to match, gets a key that opens nothing.
#[test]
fn a_relabelled_envelope_gets_another_key() {
    let mut case = Case::allowed();
    let other = ComposeHash(B256::repeat_byte(0x99));
    case.request.terms.compose_hash = other;
    case.claims.compose_hash = other;
    for dataset in &mut case.request.datasets {
        let (old, new) = (crate::fixture::compose_hash().to_string(), other.to_string());
        dataset.envelope = dataset.envelope.replace(&old, &new);
    }
    case.bind();
    let keys = WrapKeys::open(&case.agent, &case.request.binding, &answer(&case)).unwrap();
    for (key, sealed) in keys.keys.iter().zip(&case.sealed) {
        assert!(sealed::open(&mut sealed.file.as_slice(), &secret(&key.wrap_key), 1 << 20).is_err());
    }
}

/// The table in the specification has every code, and says who must act as the code does.
#[test]
fn the_specification_lists_every_code() {
    let text = include_str!("../../../docs/spec/release.md");
    let samples = crate::denial::tests::one_of_each();
    assert!(samples.len() > 35);
    for denial in samples {
        let status = match denial.class() {
            Class::Malformed => 400,
            Class::Denied => 403,
            Class::Limited => 429,
            Class::Unavailable => 503,
            Class::Internal => 500,
        };
        let row = format!("| `{}` | {status} |", denial.code());
        assert!(text.contains(&row), "docs/spec/release.md has no row {row}");
    }
    for decision in Decision::ALL.iter().filter(|decision| **decision != Decision::Allow) {
        assert!(text.contains(&format!("| `{}` | 403 |", decision.code())), "{decision}");
    }
}

/// The list that GPUs were compared with is the one in force, where the registry announces one.
#[test]
fn gpu_golden_values_must_be_the_announced_ones() {
    const OWN: B256 = B256::repeat_byte(0x90);
    check(&[
        ("allow", |c| c.claims.gpu_golden_values = Some(OWN)),
        ("allow", |c| {
            c.claims.gpu_golden_values = Some(OWN);
            c.everywhere(|view| view.gpu_golden_values = Some(OWN));
        }),
        ("allow", |c| c.everywhere(|view| view.gpu_golden_values = Some(B256::repeat_byte(0x91)))),
        ("gpu_golden_not_in_force", |c| {
            c.claims.gpu_golden_values = Some(OWN);
            c.endpoint(1).head.gpu_golden_values = Some(B256::repeat_byte(0x91));
        }),
        ("not_confirmed", |c| {
            c.claims.gpu_golden_values = Some(OWN);
            c.endpoint(0).confirmed.gpu_golden_values = Some(B256::repeat_byte(0x91));
        }),
        ("contract_missing", |c| {
            c.claims.gpu_golden_values = Some(OWN);
            c.everywhere(|view| view.gpu_golden_values = None);
        }),
    ]);
}
