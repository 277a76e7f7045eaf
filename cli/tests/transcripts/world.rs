//! A chain and a KMS in one small server, and an owner's folder. What differs between two runs is written as a name.

use std::{
    path::PathBuf,
    process::{Output, Stdio},
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use alloy::{
    primitives::{Address, B256, Bytes, keccak256},
    sol_types::{SolCall, SolEvent},
};
use axum::{Json, Router, extract::State as Extract, http::StatusCode, routing::get};
use cohort_attestation::{
    AppId, KmsEvidence,
    dev::{DevGuest, DevPlatform},
};
use cohort_protocol::{
    abi::{IDstackApp, IDstackKms, OwnerInfo, boot::isKmsAllowedCall},
    compose::AppCompose,
    hpke::SecretBytes,
    ids::OwnerId,
    root::{RootAnswer, RootKeys},
};
use serde_json::{Value, json};

pub(crate) const APP: &str = "0x4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f";
pub(crate) const REGISTRY: &str = "0x5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f";
const OWNERS: [&str; 3] = ["hospital-A", "hospital-B", "hospital-C"];
const KMS_APP: [u8; 20] = [7; 20];

/// What chain and KMS answer.
pub(crate) struct Answers {
    pub(crate) chain_id: u64,
    pub(crate) pinned: Address,
    epoch: u32,
    pub(crate) retired: bool,
    pub(crate) measurement_listed: bool,
    pub(crate) evidence: Option<KmsEvidence>,
    pub(crate) kms_up: bool,
    pub(crate) proposed: bool,
    guest: DevGuest,
}

fn root(epoch: u32) -> RootKeys {
    RootKeys::derive(&SecretBytes::new([7; 32]), epoch).unwrap()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

impl Answers {
    fn new() -> Self {
        let platform = DevPlatform::from_seed([0x42; 32]).unwrap();
        let guest = DevGuest::new(platform, AppId(KMS_APP), r#"{"name":"kms"}"#, &[9; 32]).unwrap();
        let mut answers = Self {
            chain_id: 31337,
            pinned: Address::ZERO,
            epoch: 0,
            retired: false,
            measurement_listed: true,
            evidence: None,
            kms_up: true,
            proposed: true,
            guest,
        };
        answers.use_root(0);
        answers
    }

    /// Everything is as it should be, with the root of this epoch.
    pub(crate) fn use_root(&mut self, epoch: u32) {
        self.epoch = epoch;
        self.pinned = root(epoch).address();
        self.evidence = self.evidence_of(epoch);
    }

    /// What the KMS's machine shows about the root of this epoch.
    pub(crate) fn evidence_of(&self, epoch: u32) -> Option<KmsEvidence> {
        let statement = root(epoch).statement(31337, REGISTRY.parse().unwrap()).unwrap();
        let shown = self.guest.evidence(&statement.report_data()).unwrap();
        let mut evidence = KmsEvidence::of_guest(shown)?;
        evidence.collateral = Some(self.guest.platform().collateral(now()).unwrap());
        Some(evidence)
    }

    fn root_answer(&self) -> Value {
        let statement = root(self.epoch).statement(31337, REGISTRY.parse().unwrap()).unwrap();
        json!(RootAnswer { statement, evidence: self.evidence.clone() })
    }

    fn rpc(&self, method: &str, params: &Value) -> Value {
        match method {
            "eth_chainId" => json!(format!("{:#x}", self.chain_id)),
            "eth_getCode" => json!(if params[0] == APP { "0x01" } else { "0x" }),
            "eth_getLogs" if self.proposed => json!([log()]),
            "eth_getLogs" => json!([]),
            "eth_call" => {
                let data = params[0].get("input").or(params[0].get("data")).and_then(Value::as_str).unwrap();
                json!(Bytes::from(self.call(&data.parse::<Bytes>().unwrap())))
            }
            other => panic!("{other} is not played"),
        }
    }

    fn call(&self, data: &[u8]) -> Vec<u8> {
        let selector: [u8; 4] = data[..4].try_into().unwrap();
        let image = self.measurement_listed;
        match selector {
            IDstackApp::ownerOfCall::SELECTOR => {
                let asked = IDstackApp::ownerOfCall::abi_decode(data).unwrap().ownerId;
                let index = OWNERS.iter().position(|name| word(name) == asked);
                IDstackApp::ownerOfCall::abi_encode_returns(&IDstackApp::ownerOfReturn {
                    listed: index.is_some(),
                    index: index.unwrap_or_default() as u8,
                    account: Address::ZERO,
                    revoker: Address::ZERO,
                })
            }
            IDstackApp::ownersCall::SELECTOR => {
                let owner = |name: &&str| OwnerInfo { ownerId: word(name), ..owner_info() };
                let (list, indexes) = (OWNERS.iter().map(owner).collect(), vec![0, 1, 2]);
                IDstackApp::ownersCall::abi_encode_returns(&IDstackApp::ownersReturn { list, indexes })
            }
            IDstackApp::kmsRootCall::SELECTOR => IDstackApp::kmsRootCall::abi_encode_returns(&self.pinned),
            IDstackKms::rootCall::SELECTOR => {
                let epoch = IDstackKms::rootCall::abi_decode(data).unwrap().epoch;
                IDstackKms::rootCall::abi_encode_returns(&IDstackKms::rootReturn {
                    rootAddress: root(epoch).address(),
                    sealingKeyHash: keccak256(root(epoch).sealing.public_key().as_bytes()),
                    retired: self.retired,
                })
            }
            IDstackKms::kmsAllowedAggregatedMrsCall::SELECTOR => {
                IDstackKms::kmsAllowedAggregatedMrsCall::abi_encode_returns(&image)
            }
            IDstackKms::kmsAllowedDeviceIdsCall::SELECTOR => {
                IDstackKms::kmsAllowedDeviceIdsCall::abi_encode_returns(&true)
            }
            IDstackKms::allowedOsImagesCall::SELECTOR => {
                IDstackKms::allowedOsImagesCall::abi_encode_returns(&true)
            }
            isKmsAllowedCall::SELECTOR => {
                let reason = if image { "" } else { "Aggregated MR not allowed" };
                isKmsAllowedCall::abi_encode_returns(&(image, reason.to_owned()).into())
            }
            other => panic!("call {} is not played", hex::encode(other)),
        }
    }
}

fn word(name: &str) -> B256 {
    name.parse::<OwnerId>().unwrap().word()
}

fn owner_info() -> OwnerInfo {
    OwnerInfo {
        ownerId: B256::ZERO,
        account: Address::ZERO,
        revoker: Address::ZERO,
        jurisdiction: Default::default(),
        grades: 0,
        epsilonCap: 0,
        deltaCap: 0,
    }
}

/// Any log will do: the question is whether there is one.
fn log() -> Value {
    json!({
        "address": APP, "topics": [IDstackApp::ProposalCreated::SIGNATURE_HASH], "data": "0x", "removed": false,
        "blockHash": B256::ZERO, "blockNumber": "0x1", "blockTimestamp": "0x1",
        "transactionHash": B256::ZERO, "transactionIndex": "0x0", "logIndex": "0x0",
    })
}

/// A program that ended.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The owner's folder, and the server.
pub(crate) struct World {
    folder: tempfile::TempDir,
    answers: Arc<Mutex<Answers>>,
    url: String,
    server: tokio::task::JoinHandle<()>,
}

type Shared = Arc<Mutex<Answers>>;

async fn rpc(Extract(answers): Extract<Shared>, Json(request): Json<Value>) -> Json<Value> {
    let result = answers.lock().unwrap().rpc(request["method"].as_str().unwrap(), &request["params"]);
    Json(json!({ "jsonrpc": "2.0", "id": request["id"], "result": result }))
}

async fn kms_root(Extract(answers): Extract<Shared>) -> Result<Json<Value>, StatusCode> {
    let answers = answers.lock().unwrap();
    if answers.kms_up { Ok(Json(answers.root_answer())) } else { Err(StatusCode::BAD_GATEWAY) }
}

impl World {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let answers = Arc::new(Mutex::new(Answers::new()));
        let router = Router::new().route("/", axum::routing::post(rpc)).route("/v1/root", get(kms_root));
        let router = router.with_state(answers.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let world = Self { folder, answers, url, server };
        std::fs::copy(compose_file(), world.path("app-compose.json")).unwrap();
        let config = format!(
            "rpc_urls = [\"{0}\"]\nkms_url = \"{0}\"\napp = \"{APP}\"\nregistry = \"{REGISTRY}\"\n\
             compose = \"app-compose.json\"\nknown_roots = \"known-roots.json\"\n",
            world.url
        );
        std::fs::write(world.path("cohort.toml"), config).unwrap();
        std::fs::write(world.path("a.csv"), "id,age,sex,trestbps,chol,num\n1,63,Male,145,233,0\n").unwrap();
        let root = world.answers.lock().unwrap().guest.platform().root_certificate_pem().unwrap();
        std::fs::write(world.path("platform-root.pem"), root).unwrap();
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Answers)) {
        change(&mut self.answers.lock().unwrap());
    }

    /// Neither chain nor KMS answers from now on.
    pub(crate) fn stop(&self) {
        self.server.abort();
    }

    pub(crate) fn command(&self, program: &str, args: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(program);
        command
            .args(args)
            .current_dir(self.folder.path())
            .env("COHORT_INSECURE_DEV_ATTESTATION_ROOT", "platform-root.pem")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn ran(&self, output: &Output) -> Ran {
        let text = |bytes: &[u8]| self.named(&String::from_utf8_lossy(bytes));
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    pub(crate) async fn run(&self, args: &[&str]) -> Ran {
        self.ran(&self.command(env!("CARGO_BIN_EXE_cohort"), args).output().await.unwrap())
    }

    /// With files of at most 2 MiB: the shell's unit is 1 KiB, in POSIX mode 512 bytes.
    pub(crate) async fn run_limited(&self, args: &[&str]) -> Ran {
        let words = [
            &["-c", "ulimit -f 2048; trap '' XFSZ; exec \"$@\"", "bash", env!("CARGO_BIN_EXE_cohort")],
            args,
        ];
        self.ran(&self.command("bash", &words.concat()).output().await.unwrap())
    }

    /// With standard output into this file.
    pub(crate) async fn run_into(&self, args: &[&str], out: &str) -> Ran {
        let out = std::fs::OpenOptions::new().write(true).open(out).unwrap();
        let args = [args, &["--out", "-"]].concat();
        let mut command = self.command(env!("CARGO_BIN_EXE_cohort"), &args);
        self.ran(
            &command.stdout(out).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().await.unwrap(),
        )
    }

    /// Exit code and standard error, exactly.
    pub(crate) async fn transcript(&self, args: &[&str], code: i32, stderr: &str) {
        let ran = self.run(args).await;
        assert_eq!(ran.stderr, stderr, "cohort {}\n{}", args.join(" "), ran.stdout);
        assert_eq!(ran.code, code, "cohort {}", args.join(" "));
    }

    /// The same words with the two roots exchanged.
    pub(crate) fn swap(&self, text: &str) -> String {
        let text = text.replace("ROOT0", "ROOT?").replace("ROOT1", "ROOT0").replace("ROOT?", "ROOT1");
        let text = text.replace("KEY0", "KEY?").replace("KEY1", "KEY0").replace("KEY?", "KEY1");
        text.replace("epoch 0", "epoch ?").replace("epoch 1", "epoch 0").replace("epoch ?", "epoch 1")
    }

    fn named(&self, text: &str) -> String {
        let answers = self.answers.lock().unwrap();
        let compose = AppCompose::parse(&std::fs::read(compose_file()).unwrap()).unwrap();
        let statement = |epoch| root(epoch).statement(31337, REGISTRY.parse().unwrap()).unwrap();
        let day = chrono::DateTime::from_timestamp(now() as i64, 0).unwrap().format("%Y-%m-%d").to_string();
        let kms_compose = cohort_protocol::compose::compose_hash(answers.guest.app_compose().as_bytes());
        let names = [
            (self.url.clone(), "KMS"),
            (APP.into(), "APP"),
            (REGISTRY.into(), "REGISTRY"),
            (root(0).address().to_string(), "ROOT0"),
            (root(1).address().to_string(), "ROOT1"),
            (statement(0).key_id().to_string(), "KEY0"),
            (statement(1).key_id().to_string(), "KEY1"),
            (compose.compose_hash().to_string(), "HASH"),
            (kms_compose.to_string(), "COMPOSE"),
            (answers.guest.mr_aggregated().to_string(), "MR"),
            (answers.guest.platform().device_id().to_string(), "DEVICE"),
            (DevGuest::os_image_hash().to_string(), "IMAGE"),
            (AppId(KMS_APP).to_string(), "KMSAPP"),
            (hex::encode(statement(0).report_data()), "REPORT"),
            (hex::encode(statement(1).report_data()), "REPORT"),
            (day, "DAY"),
        ];
        // Addresses print with a checksum in some places.
        names.iter().fold(text.to_owned(), |text, (value, name)| {
            let checksummed =
                value.parse::<Address>().map_or_else(|_| value.clone(), |a| a.to_checksum(None));
            text.replace(value, &format!("<{name}>")).replace(&checksummed, &format!("<{name}>"))
        })
    }
}

fn compose_file() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../test/data/heart-disease/app-compose.json"))
}
