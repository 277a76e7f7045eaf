//! A recipe that requires a GPU: keys only with evidence of one, and a result that shows both roots (S13).

use alloy::primitives::{B256, Bytes};
use cohort_attestation::{
    dev::{DevGuest, ReportOptions},
    gpu::{GpuEvidence, evidence_hash},
};
use cohort_cli::dev::Stack;
use cohort_protocol::release::{Binding, ReleaseAnswer};
use serde_json::{Value, json};

use super::{
    attack::{Enemy, Request},
    support::{approve, deployed, fails, ok, read, seal_all},
};

/// The study's recipe with a GPU.
fn require_gpu(stack: &mut Stack) {
    let mut compose: Value = read(&stack.study.compose_file());
    compose["cohort"]["gpu"] = json!({ "architecture": "hopper", "count": 1 });
    let file = stack.path("gpu-app-compose.json");
    std::fs::write(&file, serde_json::to_vec(&compose).unwrap()).unwrap();
    stack.study = stack.study.clone().with_compose_file(file);
    stack.gpus = 1;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipe_with_a_gpu_runs_with_one_and_not_without() {
    let mut stack = deployed("gpu").await;
    require_gpu(&mut stack);
    stack.start_services().await.unwrap_or_else(|f| panic!("{}", f.message));
    seal_all(&stack).await;
    let terms = approve(&stack, &[0, 1, 2, 3]).await;

    let analyst = stack.analyst.key();
    let run = ["run", "--terms", "terms.json", "--owners", "hospital-A,hospital-B", "--key-file", &analyst];
    ok(&stack, &[run.as_slice(), &["--out", "result.json"]].concat()).await;
    the_result_shows_both_roots(&stack).await;

    ok(&stack, &[run.as_slice(), &["--open-only", "--save-request", "run.json"]].concat()).await;
    stack.indexed().await.unwrap_or_else(|f| panic!("{}", f.message));
    let enemy = Enemy::new(&stack, &terms, "run.json", 0b0011);
    evidence_decides(&enemy).await;
}

async fn the_result_shows_both_roots(stack: &Stack) {
    let signer = stack.deployer.address.to_string();
    let golden = ["verify", "result.json", "--gpu-golden", "gpu/golden.json", "--gpu-golden-signer", &signer];
    let ran = ok(stack, &golden).await;
    for line in ["TDX quote", "GPU evidence", "GPU firmware", "development root"] {
        assert!(ran.stdout.contains(line), "{line}: {}", ran.stdout);
    }
    let result: Value = read(&stack.path("result.json"));
    assert_eq!(result["evidence"]["gpu"].as_array().unwrap().len(), 1);
    // By another signer's list, and with other evidence of the same GPU.
    let other = stack.analyst.address.to_string();
    let foreign = ["verify", "result.json", "--gpu-golden", "gpu/golden.json", "--gpu-golden-signer", &other];
    fails(stack, &foreign, 1, &["not signed by"]).await;
    let mut tampered = result.clone();
    let report = tampered["evidence"]["gpu"][0]["report"].as_str().unwrap().to_owned();
    let flipped = if report.ends_with('0') { "1" } else { "0" };
    tampered["evidence"]["gpu"][0]["report"] = json!(format!("{}{flipped}", &report[..report.len() - 1]));
    std::fs::write(stack.path("tampered.json"), tampered.to_string()).unwrap();
    let ran = stack.cohort(&["verify", "tampered.json"]).await.unwrap_or_else(|f| panic!("{}", f.message));
    assert!(ran.stdout.contains("gpu_evidence_hash_mismatch"), "{}", ran.stdout);
}

/// Requests as the agent makes them, with the GPU evidence that each case names.
async fn evidence_decides(enemy: &Enemy<'_>) {
    let good = |nonce: [u8; 32]| {
        move |guest: &DevGuest| guest.gpus().unwrap().evidence_of(0, &ReportOptions::good(nonce, 1)).unwrap()
    };
    released(enemy).await;
    // Without, and without the guest having seen one at boot.
    enemy.denied(&request(enemy, 1, |_, _| Vec::new()).await, "evidence_gpu_missing").await;
    let blind = request(enemy, 0, |_, nonce| {
        let machine = DevGuest::with_gpus(enemy.platform(), app(enemy), &enemy.compose(), &[3; 32], 1);
        vec![good(nonce)(&machine.unwrap())]
    });
    enemy.denied(&blind.await, "evidence_gpu_state_missing").await;
    // For something else, and by another machine's root.
    let replayed = request(enemy, 1, |guest, _| vec![good([1; 32])(guest)]).await;
    enemy.denied(&replayed, "evidence_gpu_nonce_mismatch").await;
    let foreign = request(enemy, 1, |_, nonce| {
        let platform = cohort_attestation::dev::DevPlatform::from_seed([9; 32]).unwrap();
        cohort_attestation::dev::DevGpus::of_platform(&platform, 1).unwrap().evidence(&nonce).unwrap()
    });
    enemy.denied(&foreign.await, "evidence_gpu_root_not_trusted").await;
    // Bits of the report, of its signature, of a certificate.
    for (at, code) in [
        (0, "evidence_gpu_evidence_malformed"),
        (60, "evidence_gpu_signature"),
        (usize::MAX, "evidence_gpu_signature"),
    ] {
        let flipped = request(enemy, 1, |guest, nonce| {
            let mut evidence = good(nonce)(guest);
            let last = evidence.report.len() - 1;
            evidence.report[at.min(last)] ^= 1;
            vec![evidence]
        });
        enemy.denied(&flipped.await, code).await;
    }
    let certificate = request(enemy, 1, |guest, nonce| {
        let mut evidence = good(nonce)(guest);
        let last = evidence.certificates[0].len() - 1;
        evidence.certificates[0][last] ^= 1;
        vec![evidence]
    });
    enemy.denied(&certificate.await, "evidence_gpu_chain").await;
    // Genuine, but of firmware that no manifest knows.
    let modified = request(enemy, 1, |guest, nonce| {
        let options = ReportOptions { tampered_block: Some(21), ..ReportOptions::good(nonce, 1) };
        vec![guest.gpus().unwrap().evidence_of(0, &options).unwrap()]
    });
    enemy.denied(&modified.await, "evidence_gpu_measurement_mismatch").await;
    // Other evidence than the quote commits to.
    let mut swapped = request(enemy, 1, |guest, nonce| vec![good(nonce)(guest)]).await;
    swapped.evidence.gpu[0].report[100] ^= 1;
    enemy.denied(&swapped, "evidence_gpu_evidence_hash_mismatch").await;
}

fn app(enemy: &Enemy<'_>) -> cohort_attestation::AppId {
    enemy.stack.app.into_array().into()
}

/// What an agent would send for hospital-A from a machine that attested `gpus` at boot.
async fn request(
    enemy: &Enemy<'_>,
    gpus: u32,
    evidence: impl Fn(&DevGuest, [u8; 32]) -> Vec<GpuEvidence>,
) -> Request {
    let guest = DevGuest::with_gpus(enemy.platform(), app(enemy), &enemy.compose(), &[3; 32], gpus).unwrap();
    let binding = enemy.binding().await;
    let gpu = evidence(&guest, binding.gpu_nonce());
    let gpu_evidence_hash = (!gpu.is_empty()).then(|| B256::from(evidence_hash(&gpu)));
    let binding = Binding { gpu_evidence_hash, ..binding };
    let mut evidence = enemy.evidence(&guest, &binding);
    evidence.gpu = gpu;
    Request {
        terms: enemy.terms.clone(),
        run: enemy.run.clone(),
        evidence,
        binding,
        encryption_key: Bytes::copy_from_slice(enemy.key.public_key().as_bytes()),
        datasets: vec![enemy.dataset("sealed/hospital-A.tar", "hospital-A")],
    }
}

/// With good evidence the keys come, once every witness of the KMS has seen the run.
async fn released(enemy: &Enemy<'_>) -> ReleaseAnswer {
    let mut last = String::new();
    for _ in 0..20 {
        let good = request(enemy, 1, |guest, nonce| guest.gpus().unwrap().evidence(&nonce).unwrap()).await;
        match enemy.send(&good).await {
            Ok(answer) => return answer,
            Err(refusal) => last = format!("{} ({})", refusal.message, refusal.code),
        }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    panic!("an honest request is refused: {last}");
}
