//! An enemy with a CVM of its own talks to the real KMS: rules R1, R2, R4, R8, R10, R11, R14.

use alloy::{
    primitives::{Address, B256, Bytes},
    providers::{Provider, ProviderBuilder},
};
use cohort_agent::run::RunBody;
use cohort_attestation::{
    Collateral, Evidence,
    dev::{DevGuest, DevPlatform},
};
use cohort_cli::dev::Stack;
use cohort_protocol::{
    abi::IDstackKms,
    decision::Decision,
    hpke::{KeyPair, SecretBytes},
    ids::{DatasetId, OwnerId, RunId},
    json::sha256,
    release::{Binding, Challenge, DatasetRequest, Refusal, ReleaseAnswer, ReleaseRequest, WrapKeys},
    sealed,
    terms::{SignedRunRequest, Terms},
};

use super::proof::{self, Question};
use super::support::{approve, fails, ok, read, ready, seal_all, started};

pub(crate) type Request = ReleaseRequest<Evidence>;

/// Makes requests as an agent does, with everything in its hands to change.
pub(crate) struct Enemy<'a> {
    pub(crate) stack: &'a Stack,
    pub(crate) terms: Terms,
    pub(crate) run: SignedRunRequest,
    http: reqwest::Client,
    pub(crate) key: KeyPair,
}

impl<'a> Enemy<'a> {
    pub(crate) fn new(stack: &'a Stack, terms: &Terms, request_file: &str, participants: u128) -> Self {
        let body: RunBody = read(&stack.path(request_file));
        let run = SignedRunRequest {
            proposal_id: terms.proposal_id(),
            participants,
            analyst: body.analyst,
            nonce: body.nonce,
            deadline: body.deadline,
            signature: body.signature,
        };
        let key = KeyPair::derive(&SecretBytes::new([7; 32]));
        Self { stack, terms: terms.clone(), run, http: reqwest::Client::new(), key }
    }

    async fn challenge(&self) -> Challenge {
        let url = format!("{}/v1/challenge", self.stack.kms_url);
        self.http.post(url).json(&serde_json::json!({})).send().await.unwrap().json().await.unwrap()
    }

    pub(crate) async fn binding(&self) -> Binding {
        let challenge = self.challenge().await;
        Binding {
            chain_id: 31337,
            app: self.stack.app,
            kms_root: challenge.kms_root,
            challenge: challenge.challenge,
            run_id: self.run.run_id(),
            encryption_key_hash: sha256(self.key.public_key().as_bytes()),
            receipt_key: Address::repeat_byte(9),
            gpu_evidence_hash: None,
        }
    }

    fn provider(&self) -> impl Provider + use<> {
        ProviderBuilder::new().connect_http(self.stack.rpc_url.parse().unwrap())
    }

    pub(crate) fn platform(&self) -> DevPlatform {
        let mut seed = [0u8; 32];
        let text = std::fs::read_to_string(self.stack.path("platform.seed")).unwrap();
        hex::decode_to_slice(text.trim(), &mut seed).unwrap();
        DevPlatform::from_seed(seed).unwrap()
    }

    pub(crate) fn compose(&self) -> String {
        std::fs::read_to_string(self.stack.study.compose_file()).unwrap()
    }

    fn guest(&self, platform: DevPlatform, app: Address, compose: &str) -> DevGuest {
        DevGuest::new(platform, app.into_array().into(), compose, &[3; 32]).unwrap()
    }

    pub(crate) fn evidence(&self, guest: &DevGuest, binding: &Binding) -> Evidence {
        let collateral: Collateral = read(&self.stack.path("collateral.json"));
        guest.evidence(&binding.report_data()).unwrap().with_collateral(collateral)
    }

    pub(crate) fn dataset(&self, file: &str, owner: &str) -> DatasetRequest {
        let mut reader = std::fs::File::open(self.stack.path(file)).unwrap();
        let checked = sealed::check(&mut reader).unwrap();
        DatasetRequest {
            owner: owner.parse::<OwnerId>().unwrap(),
            envelope: String::from_utf8(checked.envelope.bytes().to_vec()).unwrap(),
            data_root: B256::from(checked.data_root.0),
        }
    }

    /// What an honest agent would send for hospital-A.
    async fn honest(&self) -> Request {
        let binding = self.binding().await;
        let guest = self.guest(self.platform(), self.stack.app, &self.compose());
        Request {
            terms: self.terms.clone(),
            run: self.run.clone(),
            evidence: self.evidence(&guest, &binding),
            binding,
            encryption_key: Bytes::copy_from_slice(self.key.public_key().as_bytes()),
            datasets: vec![self.dataset("sealed/hospital-A.tar", "hospital-A")],
        }
    }

    /// Takes the quote anew after the binding was changed.
    fn requote(&self, mut request: Request) -> Request {
        let guest = self.guest(self.platform(), self.stack.app, &self.compose());
        request.evidence = self.evidence(&guest, &request.binding);
        request
    }

    pub(crate) async fn send(&self, request: &Request) -> Result<ReleaseAnswer, Refusal> {
        let url = format!("{}/v1/release", self.stack.kms_url);
        let response = self.http.post(url).json(request).send().await.expect("the KMS answers");
        let success = response.status().is_success();
        let body = response.bytes().await.unwrap();
        if success {
            return Ok(serde_json::from_slice(&body).unwrap());
        }
        Err(serde_json::from_slice(&body)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&body))))
    }

    pub(crate) async fn denied(&self, request: &Request, code: &str) {
        match self.send(request).await {
            Ok(_) => panic!("released, expected {code}"),
            Err(refusal) => assert_eq!(refusal.code, code, "{}", refusal.message),
        }
    }

    /// Asks until every witness of the KMS has seen the run.
    async fn released(&self) -> (Request, ReleaseAnswer) {
        let mut last = String::new();
        for _ in 0..20 {
            let request = self.honest().await;
            match self.send(&request).await {
                Ok(answer) => return (request, answer),
                Err(refusal) => last = format!("{} ({})", refusal.message, refusal.code),
            }
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
        panic!("an honest request is refused: {last}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kms_opens_a_dataset_only_for_the_run_the_code_and_the_key_that_asked() {
    let (mut stack, terms) = ready("attack").await;
    let analyst = stack.analyst.key();
    let open = ["run", "--terms", "terms.json", "--owners", "hospital-A,hospital-B", "--key-file", &analyst];
    ok(&stack, &[open.as_slice(), &["--open-only", "--save-request", "run.json"]].concat()).await;
    stack.indexed().await.unwrap_or_else(|f| panic!("{}", f.message));
    let enemy = Enemy::new(&stack, &terms, "run.json", 0b0011);

    honest_keys_open_the_data(&enemy).await;
    decisions_can_be_proved(&enemy).await;
    replays_are_refused(&enemy).await;
    other_keys_runs_and_owners_are_refused(&enemy).await;
    other_code_and_machines_are_refused(&enemy).await;
    an_image_that_only_the_registry_lists_is_refused(&enemy).await;
    drop(enemy);

    // R8: the indexer is required; without it nothing is released, with it again everything goes on.
    let indexer = stack.indexer.take().expect("running");
    indexer.kill().await;
    let enemy = Enemy::new(&stack, &terms, "run.json", 0b0011);
    enemy.denied(&enemy.honest().await, "indexer_unreachable").await;
    drop(enemy);
    stack.start_indexer().await.unwrap_or_else(|f| panic!("{}", f.message));
    let enemy = Enemy::new(&stack, &terms, "run.json", 0b0011);
    enemy.released().await;

    // R2, R9: one owner's revocation counts at once, although the approvals stay confirmed.
    let key = stack.owners[1].key();
    ok(&stack, &["revoke", "--proposal", &terms.proposal_id().to_string(), "--key-file", &key]).await;
    enemy.denied(&enemy.honest().await, "proposal_revoked").await;
    stack_log_is_whole(&stack).await;
}

async fn honest_keys_open_the_data(enemy: &Enemy<'_>) {
    let (request, answer) = enemy.released().await;
    let keys =
        WrapKeys::open(&enemy.key, &request.binding, &answer).expect("the agent's key opens the answer");
    let secret = SecretBytes::from_slice(&hex::decode(&keys.keys[0].wrap_key).unwrap()).unwrap();
    let sealed_file = |name| std::fs::File::open(enemy.stack.path(name)).unwrap();
    let (plain, _) =
        sealed::open(&mut sealed_file("sealed/hospital-A.tar"), &secret, 1 << 20).expect("it opens");
    assert_eq!(*plain, std::fs::read(enemy.stack.path("data/hospital-A.parquet")).unwrap());
    // R14: that key opens no other owner's file.
    assert!(sealed::open(&mut sealed_file("sealed/hospital-B.tar"), &secret, 1 << 20).is_err());
    // R10: nobody else opens the answer.
    let other = KeyPair::derive(&SecretBytes::new([8; 32]));
    assert!(WrapKeys::open(&other, &request.binding, &answer).is_err());
}

/// R8 without belief in an endpoint: storage proofs give the same answers as the view.
async fn decisions_can_be_proved(enemy: &Enemy<'_>) {
    let own = enemy.honest().await.datasets.remove(0);
    let dataset = sealed::dataset_id(own.envelope.as_bytes(), sealed::DataRoot(own.data_root.0));
    let question =
        Question { terms: enemy.terms.clone(), owner: own.owner, dataset, run: enemy.run.run_id() };
    let check = async |question: Question, want| {
        assert_eq!(proof::decision(enemy.stack, &enemy.provider(), &question).await, want);
    };
    check(question.clone(), Decision::Allow).await;
    check(Question { run: RunId(B256::ZERO), ..question.clone() }, Decision::RunUnknown).await;
    check(Question { dataset: DatasetId(B256::ZERO), ..question.clone() }, Decision::DatasetUnknown).await;
    check(Question { owner: "hospital-B".parse().unwrap(), ..question.clone() }, Decision::DatasetUnknown)
        .await;
    check(Question { owner: "nobody".parse().unwrap(), ..question.clone() }, Decision::NotAnOwner).await;
    let other = Terms { round: 99, ..enemy.terms.clone() };
    check(Question { terms: other, ..question }, Decision::ProposalUnknown).await;
}

async fn replays_are_refused(enemy: &Enemy<'_>) {
    let (request, _) = enemy.released().await;
    enemy.denied(&request, "challenge_used").await;
    let mut made_up = enemy.honest().await;
    made_up.binding.challenge = B256::repeat_byte(0x55);
    enemy.denied(&enemy.requote(made_up), "challenge_unknown").await;
    // An old quote beside a fresh challenge.
    let mut stale = enemy.honest().await;
    stale.evidence = request.evidence;
    enemy.denied(&stale, "evidence_report_data_mismatch").await;
}

async fn other_keys_runs_and_owners_are_refused(enemy: &Enemy<'_>) {
    let thief = KeyPair::derive(&SecretBytes::new([8; 32]));
    let mut other_key = enemy.honest().await;
    other_key.encryption_key = Bytes::copy_from_slice(thief.public_key().as_bytes());
    enemy.denied(&other_key, "encryption_key_mismatch").await;
    other_key.binding.encryption_key_hash = sha256(thief.public_key().as_bytes());
    enemy
        .denied(
            &Request {
                binding: Binding {
                    challenge: enemy.challenge().await.challenge,
                    ..other_key.binding.clone()
                },
                ..other_key
            },
            "evidence_report_data_mismatch",
        )
        .await;

    let mut other_kms = enemy.honest().await;
    other_kms.binding.kms_root = Address::repeat_byte(1);
    enemy.denied(&enemy.requote(other_kms), "wrong_kms").await;

    let mut not_opened = enemy.honest().await;
    not_opened.run.nonce = B256::repeat_byte(0x77);
    not_opened.binding.run_id = not_opened.run.run_id();
    enemy.denied(&enemy.requote(not_opened), "run_unknown").await;

    // hospital-D has approved, but this run does not name it.
    let mut not_in_run = enemy.honest().await;
    not_in_run.datasets = vec![enemy.dataset("sealed/hospital-D.tar", "hospital-D")];
    enemy.denied(&not_in_run, "owner_not_in_run").await;

    let mut swapped = enemy.honest().await;
    swapped.datasets = vec![enemy.dataset("sealed/hospital-A.tar", "hospital-B")];
    enemy.denied(&swapped, "envelope_context").await;

    let mut other_data = enemy.honest().await;
    other_data.datasets[0].data_root = B256::repeat_byte(1);
    enemy.denied(&other_data, "dataset_unknown").await;
}

async fn other_code_and_machines_are_refused(enemy: &Enemy<'_>) {
    let request = enemy.honest().await;
    let compose = enemy.compose().replace("55-64", "55-63");
    let guest = enemy.guest(enemy.platform(), enemy.stack.app, &compose);
    let evidence = enemy.evidence(&guest, &request.binding);
    enemy.denied(&Request { evidence, ..request }, "compose_mismatch").await;

    // The approved text beside a quote of other code.
    let request = enemy.honest().await;
    let mut evidence = enemy.evidence(&guest, &request.binding);
    evidence.app_compose = Some(enemy.compose());
    enemy.denied(&Request { evidence, ..request }, "evidence_compose_hash_mismatch").await;

    let request = enemy.honest().await;
    let guest = enemy.guest(enemy.platform(), Address::repeat_byte(2), &enemy.compose());
    let evidence = enemy.evidence(&guest, &request.binding);
    enemy.denied(&Request { evidence, ..request }, "app_mismatch").await;

    // Another platform: its root is not the one that this KMS was given.
    let request = enemy.honest().await;
    let foreign = DevPlatform::from_seed([0x42; 32]).unwrap();
    let collateral = foreign.collateral(request.run.deadline - 3600).unwrap();
    let guest = enemy.guest(foreign, enemy.stack.app, &enemy.compose());
    let evidence = guest.evidence(&request.binding.report_data()).unwrap().with_collateral(collateral);
    enemy.denied(&Request { evidence, ..request }, "evidence_root_not_trusted").await;

    // R11: a second identity event, and a log that does not replay.
    let mut request = enemy.honest().await;
    let mut events: Vec<serde_json::Value> = serde_json::from_str(&request.evidence.event_log).unwrap();
    let app_id = events.iter().find(|event| event["event"] == "app-id").cloned().unwrap();
    events.push(app_id);
    request.evidence.event_log = serde_json::to_string(&events).unwrap();
    enemy.denied(&request, "evidence_boot_event_after_boundary").await;

    let mut request = enemy.honest().await;
    request.evidence.quote = vec![0xAB; 4096];
    let refusal = enemy.send(&request).await.expect_err("garbage");
    assert!(refusal.code.starts_with("evidence_"), "{refusal:?}");
}

/// R6: the registry's owner lists another CVM image after the owners have approved terms that name theirs.
async fn an_image_that_only_the_registry_lists_is_refused(enemy: &Enemy<'_>) {
    let request = enemy.honest().await;
    let guest = enemy.guest(enemy.platform(), enemy.stack.app, &enemy.compose());
    let mut other = guest.measurements().clone();
    other.mrtd.0[0] ^= 1;
    let mut evidence = enemy.evidence(&guest, &request.binding);
    evidence.quote = enemy.platform().quote(&other, &request.binding.report_data()).unwrap();
    let request = Request { evidence, ..request };

    let [rtmr0, rtmr1, rtmr2, _] = other.rtmrs;
    let registers = [other.mrtd, rtmr0, rtmr1, rtmr2].map(|register| register.0).concat();
    let other = sha256(&[&registers[..], guest.identity().key_provider.digest()].concat());
    let registry = IDstackKms::new(enemy.stack.registry, enemy.provider());
    let listing = registry.addAgentSystem(other).from(enemy.stack.deployer.address);
    assert!(listing.send().await.unwrap().get_receipt().await.unwrap().status());
    assert!(registry.allowedAgentSystems(other).call().await.unwrap());
    enemy.denied(&request, "system_not_in_terms").await;
}

/// R13: every decision is in the log, and the log holds together.
async fn stack_log_is_whole(stack: &Stack) {
    let output = std::process::Command::new(stack.options.programs.join("cohort-kms"))
        .args(["log", "verify"])
        .arg(stack.path("release-log.jsonl"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let log = std::fs::read_to_string(stack.path("release-log.jsonl")).unwrap();
    for code in [
        "owner_not_in_run",
        "system_not_in_terms",
        "dataset_unknown",
        "indexer_unreachable",
        "proposal_revoked",
    ] {
        assert!(log.contains(code), "{code} is not in the release log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_quorum_and_no_missing_owner_opens_a_run_and_the_budget_is_never_exceeded() {
    let stack = started("budget").await;
    seal_all(&stack).await;
    approve(&stack, &[0, 1]).await;
    let analyst = stack.analyst.key();
    let run = |owners: &'static str| {
        ["run", "--terms", "terms.json", "--owners", owners, "--key-file", &analyst, "--open-only"]
            .map(str::to_owned)
    };
    async fn refused(stack: &Stack, args: [String; 8], code: &str) {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        fails(stack, &args, 1, &[code]).await;
    }
    refused(&stack, run("hospital-A"), "no_quorum").await;
    let key = stack.owners[2].key();
    ok(&stack, &["approve", "--terms", "terms.json", "--owner", "hospital-C", "--key-file", &key, "--yes"])
        .await;
    // R1: the quorum is there; hospital-D has not signed.
    refused(&stack, run("hospital-A,hospital-D"), "owner_not_approved").await;
    // R4: 4.5 / 1.5 = three runs, whether or not they end with a result.
    for _ in 0..3 {
        let args = run("hospital-A,hospital-B");
        ok(&stack, &args.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    refused(&stack, run("hospital-A"), "budget_exhausted").await;
    // Not even a listed analyst's neighbour may ask.
    let relayer = stack.relayer.key();
    let args =
        ["run", "--terms", "terms.json", "--owners", "hospital-A", "--key-file", &relayer, "--open-only"];
    fails(&stack, &args, 1, &["not_an_analyst"]).await;
}
