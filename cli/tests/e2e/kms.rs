//! The KMS in a virtual machine of its own, as owners and replicas see it.

use std::time::{SystemTime, UNIX_EPOCH};

use alloy::{
    network::TransactionBuilder, primitives::Bytes, providers::Provider, rpc::types::TransactionRequest,
    sol_types::SolCall,
};
use cohort_attestation::{KmsEvidence, Platform, Policy, kms};
use cohort_cli::dev::Stack;
use cohort_protocol::{
    abi::{
        IDstackKms,
        boot::{AppBootInfo, isKmsAllowedCall},
    },
    root::RootAnswer,
};

use crate::support;

/// What the registry says about a machine that wants to be a KMS.
async fn is_kms_allowed(stack: &Stack, boot: &AppBootInfo) -> (bool, String) {
    let call = isKmsAllowedCall { bootInfo: boot.clone() };
    let request =
        TransactionRequest::default().with_to(stack.registry).with_input(Bytes::from(call.abi_encode()));
    let answer = stack.provider().unwrap().call(request).await.unwrap();
    let decoded = isKmsAllowedCall::abi_decode_returns(&answer).unwrap();
    (decoded.isAllowed, decoded.reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kms_shows_in_which_machine_its_keys_are() {
    let mut stack = support::deployed("kms-evidence").await;
    stack.indexer_url = "http://127.0.0.1:9".to_owned(); // nothing here asks it
    stack.start_kms().await.unwrap_or_else(|f| panic!("{}", f.message));
    let answer: RootAnswer<KmsEvidence> =
        reqwest::get(format!("{}/v1/root", stack.kms_url)).await.unwrap().json().await.unwrap();
    assert_eq!(answer.statement.root, stack.kms_root);
    let evidence = answer.evidence.expect("a KMS in a virtual machine shows its evidence");
    let root = cohort_cli::dev::attestation_root(&stack.path("platform-root.pem"));
    let policy = Policy::production().with_root(root.unwrap_or_else(|f| panic!("{}", f.message)));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let machine = kms::verify(&answer.statement, &evidence, None, &policy, now).unwrap();
    assert_eq!(machine.td().platform(), Platform::Development);
    let boot = machine.td().boot_info();
    assert_eq!(is_kms_allowed(&stack, &boot).await, (true, String::new()));
    let other = AppBootInfo { mrAggregated: [1; 32].into(), ..boot.clone() };
    assert!(!is_kms_allowed(&stack, &other).await.0);
    let call = IDstackKms::removeKmsAggregatedMrCall { mrAggregated: boot.mrAggregated };
    let request = TransactionRequest::default()
        .with_from(stack.deployer.address)
        .with_to(stack.registry)
        .with_input(Bytes::from(call.abi_encode()));
    let sent = stack.provider().unwrap().send_transaction(request).await.unwrap();
    assert!(sent.get_receipt().await.unwrap().status());
    assert_eq!(is_kms_allowed(&stack, &boot).await.1, "Aggregated MR not allowed");
}
