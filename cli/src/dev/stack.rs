//! All services of one study, as processes of their own, on free ports.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use alloy::{
    network::TransactionBuilder,
    primitives::{Address, B256, U256},
    providers::{Provider, ProviderBuilder},
    rpc::types::TransactionRequest,
    signers::local::PrivateKeySigner,
};
use cohort_attestation::dev::{DevGuest, DevPlatform};
use cohort_protocol::root::RootStatement;
use serde::Deserialize;
use serde_json::json;
use tokio::process::Command;

use super::{Study, process::Process};
use crate::failure::{self, Failure, Outcome};

/// Who uses anvil's accounts, in their order. Their keys are public: good for nothing but development.
const NAMES: [&str; 7] =
    ["deployer", "hospital-A", "hospital-B", "hospital-C", "hospital-D", "analyst", "relayer"];
/// Signed golden values of the development GPUs.
const GOLDEN: &str = "gpu/golden.json";
/// Blocks on top before anything counts as confirmed.
const CONFIRMATIONS: u64 = 2;

/// What the KMS's virtual machine of the development stack is measured as running.
const KMS_APP_COMPOSE: &str =
    r#"{"features":["kms"],"manifest_version":2,"name":"cohort-kms-development","runner":"docker-compose"}"#;
/// Its instance.
const KMS_INSTANCE: &str = "kms-1";

/// Somebody with an account on the development chain.
#[derive(Debug, Clone)]
pub struct Person {
    /// File with the private key, mode 0600.
    pub key_file: PathBuf,
    /// The account.
    pub address: Address,
}

impl Person {
    /// The key file as `cohort` commands in the stack's folder name it.
    pub fn key(&self) -> String {
        let name =
            self.key_file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        format!("keys/{name}")
    }
}

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Ran {
    /// What it printed as result.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
}

impl Ran {
    /// Exit code 0.
    pub fn succeeded(&self) -> bool {
        self.code == Some(0)
    }
}

/// How to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// The project's folder.
    pub project: PathBuf,
    /// Where this stack keeps its files; under the project's `target`.
    pub folder: PathBuf,
    /// Folder of the built programs.
    pub programs: PathBuf,
}

/// A running stack.
#[derive(Debug)]
pub struct Stack {
    /// How it was started.
    pub options: Options,
    /// The study.
    pub study: Study,
    /// JSON-RPC of the chain.
    pub rpc_url: String,
    /// Endpoints that the agent is given; empty: the chain's own.
    pub agent_rpc_urls: Vec<String>,
    /// Development GPUs in the agent's machine.
    pub gpus: u32,
    /// Further arguments of the KMS.
    pub kms_args: Vec<String>,
    /// Further arguments of the agent.
    pub agent_args: Vec<String>,
    /// What KMS and agent log; `None`: what they do by themselves.
    pub log_filter: Option<String>,
    /// The indexer.
    pub indexer_url: String,
    /// The KMS.
    pub kms_url: String,
    /// The agent.
    pub agent_url: String,
    /// The registry.
    pub registry: Address,
    /// The consortium's contract.
    pub app: Address,
    /// The KMS root.
    pub kms_root: Address,
    /// What the development CVM's image measures as.
    pub mr_system: B256,
    /// The agent's gas account.
    pub agent_account: Address,
    /// Owners in the study's order.
    pub owners: Vec<Person>,
    /// Deploys the contracts; has no say in them afterwards.
    pub deployer: Person,
    /// Asks for runs.
    pub analyst: Person,
    /// Submits others' signatures.
    pub relayer: Person,
    /// anvil.
    pub anvil: Option<Process>,
    /// cohort-indexer.
    pub indexer: Option<Process>,
    /// cohort-kms.
    pub kms: Option<Process>,
    /// dev-guest-agent of the agent's virtual machine.
    pub guest: Option<Process>,
    /// dev-guest-agent of the KMS's virtual machine.
    pub kms_guest: Option<Process>,
    /// cohort-agent.
    pub agent: Option<Process>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Deployed {
    dstack_kms: Option<Address>,
    dstack_app: Option<Address>,
}

impl Stack {
    /// Starts anvil and deploys registry and contract with the forge scripts.
    pub async fn deploy(options: Options) -> Outcome<Self> {
        for name in ["keys", "logs", "data", "published"] {
            create(&options.folder.join(name))?;
        }
        let study = Study::heart_disease(&options.project);
        let logs = options.folder.join("logs");
        let accounts = options.folder.join("accounts.json");
        let mut anvil = Process::start_watched(
            "anvil",
            &options.project.join("script/anvil"),
            [
                "--port",
                "0",
                "--block-time",
                "1",
                "--chain-id",
                "31337",
                "--config-out",
                &accounts.display().to_string(),
            ],
            &logs,
        )?;
        let address = anvil.ready("Listening on ").await?;
        let [deployer, a, b, c, d, analyst, relayer] = people(&accounts, &options.folder.join("keys"))?;
        let mut stack = Self {
            rpc_url: format!("http://{address}"),
            study,
            agent_rpc_urls: Vec::new(),
            gpus: 0,
            kms_args: Vec::new(),
            agent_args: Vec::new(),
            log_filter: None,
            indexer_url: String::new(),
            kms_url: String::new(),
            agent_url: String::new(),
            registry: Address::ZERO,
            app: Address::ZERO,
            kms_root: Address::ZERO,
            mr_system: B256::ZERO,
            agent_account: Address::ZERO,
            owners: vec![a, b, c, d],
            deployer,
            analyst,
            relayer,
            anvil: Some(anvil),
            indexer: None,
            kms: None,
            guest: None,
            kms_guest: None,
            agent: None,
            options,
        };
        stack.deploy_contracts().await?;
        stack.write_config()?;
        Ok(stack)
    }

    /// A file of this stack.
    pub fn path(&self, name: &str) -> PathBuf {
        self.options.folder.join(name)
    }

    fn program(&self, name: &str) -> PathBuf {
        self.options.programs.join(name)
    }

    async fn deploy_contracts(&mut self) -> Outcome {
        let seed = write_seed(&self.path("platform.seed"))?;
        self.start_kms_guest().await?;
        let zero = Address::ZERO.to_string();
        let show =
            ["root", "show", "--chain-id", "31337", "--registry", &zero, "--guest-agent"].map(OsString::from);
        let shown = self.kms_tool(show, &self.path("kms-dstack.sock")).await?;
        let statement: RootStatement = serde_json::from_slice(&shown).map_err(|e| {
            Failure::unreachable(format!("cohort-kms root show: {e}"), "build everything anew")
        })?;
        self.kms_root = statement.root;
        self.mr_system = mr_system(&seed)?;
        let kms_guest = kms_guest(&seed)?;
        let hash = |bytes: &[u8]| format!("0x{}", hex::encode(bytes));
        let kms = json!({
            "root": statement.root,
            "sealingKey": statement.sealing_key,
            "mrSystems": [self.mr_system],
            "osImageHashes": [hash(DevGuest::os_image_hash().as_bytes())],
            "kmsAggregatedMrs": [hash(kms_guest.mr_aggregated().as_bytes())],
            "kmsDevices": [hash(kms_guest.platform().device_id().as_bytes())],
            "output": self.path("deployed-kms.json"),
        });
        self.registry = self.forge("DeployKms", &kms).await?.dstack_kms.unwrap_or_default();
        let app = self.study.deployment(&self.owners, self.analyst.address, self.kms_root, self.registry);
        let app = merge(app, json!({ "output": self.path("deployed-app.json") }));
        self.app = self.forge("DeployApp", &app).await?.dstack_app.unwrap_or_default();
        Ok(())
    }

    async fn kms_tool<const N: usize>(&self, args: [OsString; N], file: &Path) -> Outcome<Vec<u8>> {
        let output =
            Command::new(self.program("cohort-kms")).args(args).arg(file).output().await.map_err(|e| {
                Failure::input(format!("cannot start cohort-kms: {e}"), "build everything first: make build")
            })?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(Failure::unreachable(String::from_utf8_lossy(&output.stderr), "see the message above"))
    }

    /// Runs one forge script against the chain and reads what it deployed.
    async fn forge(&self, script: &str, input: &serde_json::Value) -> Outcome<Deployed> {
        let input_file = self.path(&format!("{script}.json"));
        fs::write(&input_file, input.to_string()).map_err(|e| Failure::write(&input_file, &e))?;
        let sender = self.deployer.address.to_string();
        let relative = input_file.strip_prefix(&self.options.project).unwrap_or(&input_file);
        let output = Command::new(self.options.project.join("script/forge"))
            .current_dir(&self.options.project)
            .env("FOUNDRY_BROADCAST", self.path("broadcast"))
            .args(["script", &format!("script/{script}.s.sol"), "--sig", "run(string)"])
            .arg(relative)
            .args(["--rpc-url", &self.rpc_url, "--broadcast", "--unlocked", "--sender", &sender])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|e| {
                Failure::input(format!("cannot start forge: {e}"), "install it first: make build")
            })?;
        if !output.status.success() {
            let log = self.path("logs/forge.log");
            let _ = fs::write(&log, [output.stdout, output.stderr].concat());
            return Err(Failure::unreachable(format!("{script} failed"), format!("see {}", log.display())));
        }
        let deployed = input.get("output").and_then(|v| v.as_str()).unwrap_or_default();
        crate::files::read_json(Path::new(deployed), "what a deploy script writes")
    }

    /// Splits the patients into one Parquet file a hospital, under `data`.
    pub async fn split_data(&self) -> Outcome {
        let output = Command::new(self.program("heart-disease-split"))
            .arg("--in")
            .arg(self.study.csv())
            .arg("--out")
            .arg(self.path("data"))
            .output()
            .await
            .map_err(|e| Failure::input(format!("cannot start heart-disease-split: {e}"), "make build"))?;
        if output.status.success() {
            return Ok(());
        }
        Err(Failure::input(String::from_utf8_lossy(&output.stderr), "see the message above"))
    }

    /// Runs a `cohort` command in the stack's folder, without a terminal.
    pub async fn cohort<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Outcome<Ran> {
        let output = Command::new(self.program("cohort"))
            .current_dir(&self.options.folder)
            .env("COHORT_INSECURE_DEV_ATTESTATION_ROOT", "platform-root.pem")
            .envs((self.gpus > 0).then_some(("COHORT_INSECURE_DEV_GPU_ROOT", "gpu/gpu-root.pem")))
            .args(args)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|e| {
                Failure::input(format!("cannot start cohort: {e}"), "build everything first: make build")
            })?;
        Ok(Ran {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code(),
        })
    }

    /// Waits until the indexer has confirmed the block that is the chain's newest now.
    pub async fn indexed(&self) -> Outcome {
        let wanted = self.provider()?.get_block_number().await.map_err(|e| failure::rpc(&e))?;
        let url =
            self.indexer_url.parse().map_err(|e| Failure::input(e, "the indexer's address is no URL"))?;
        let service = crate::http::Service::new("the indexer", &url)?;
        for _ in 0..300 {
            let status: serde_json::Value = service.get("v1/status").await?.ready("the indexer")?;
            if status.pointer("/confirmed/number").and_then(serde_json::Value::as_u64) >= Some(wanted) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(Failure::unreachable("the indexer does not follow the chain", "see logs/indexer.log"))
    }

    /// The chain, with anvil's accounts unlocked.
    pub fn provider(&self) -> Outcome<impl Provider + use<>> {
        let url = self.rpc_url.parse().map_err(|e| Failure::input(e, "the chain's address is no URL"))?;
        Ok(ProviderBuilder::new().connect_http(url))
    }

    /// `cohort.toml`, from which every `cohort` command in this folder knows the study.
    fn write_config(&self) -> Outcome {
        let url = |key: &str, value: &str| {
            if value.is_empty() { String::new() } else { format!("{key} = {value:?}\n") }
        };
        let text = format!(
            "rpc_urls = [{:?}]\nregistry = \"{}\"\napp = \"{}\"\ncompose = {:?}\nknown_roots = \"known-roots.json\"\n{}{}{}",
            self.rpc_url,
            self.registry,
            self.app,
            self.study.compose_file(),
            url("kms_url", &self.kms_url),
            url("indexer_url", &self.indexer_url),
            url("agent_url", &self.agent_url),
        );
        let path = self.path("cohort.toml");
        fs::write(&path, text).map_err(|e| Failure::write(&path, &e))
    }

    /// Starts indexer, guest agent, KMS and agent, in this order.
    pub async fn start_services(&mut self) -> Outcome {
        self.write_config()?;
        self.start_indexer().await?;
        self.start_guest().await?;
        self.import_golden_values().await?;
        self.start_kms().await?;
        self.start_agent().await?;
        self.write_config()
    }

    /// Starts the indexer.
    pub async fn start_indexer(&mut self) -> Outcome {
        let mut args = vec![
            "--rpc-url".into(),
            self.rpc_url.clone(),
            "--registry".into(),
            self.registry.to_string(),
            "--database".into(),
            self.path("indexer.sqlite").display().to_string(),
            "--listen".into(),
            listen(&self.indexer_url),
            "--confirmations".into(),
            CONFIRMATIONS.to_string(),
        ];
        // The console may ask the chain, and the agent once that is known.
        for url in [&self.rpc_url, &self.agent_url].into_iter().filter(|url| !url.is_empty()) {
            args.extend(["--console-connect".into(), url.trim_end_matches('/').to_owned()]);
        }
        let mut process =
            Process::start("indexer", &self.program("cohort-indexer"), args, &self.path("logs"))?;
        self.indexer_url = process.ready("listening ").await?;
        self.indexer = Some(process);
        Ok(())
    }

    /// Golden values from the development GPUs' manifests, signed by the registry's owner.
    async fn import_golden_values(&self) -> Outcome {
        if self.gpus == 0 {
            return Ok(());
        }
        let key = self.deployer.key();
        let import =
            ["gpu", "rim", "import", "gpu/driver.swidtag", "gpu/vbios.swidtag", "--chain-id", "31337"];
        let signed = ["--insecure-dev-rim-root", "gpu/rim-root.pem", "--out", GOLDEN, "--key-file", &key];
        let ran = self.cohort(&[&import[..], &signed].concat()).await?;
        if ran.succeeded() { Ok(()) } else { Err(Failure::input(ran.stderr, "see the message above")) }
    }

    /// Starts the KMS. The platform's root certificate is written first: it decides what the KMS trusts.
    pub async fn start_kms(&mut self) -> Outcome {
        let root = self.path("platform-root.pem");
        let seed = read_seed(&self.path("platform.seed"))?;
        let platform = platform(&seed)?;
        let certificate = platform
            .root_certificate_pem()
            .map_err(|e| Failure::input(format!("development platform: {e}"), "report this"))?;
        fs::write(&root, certificate).map_err(|e| Failure::write(&root, &e))?;
        let mut args: Vec<String> = vec![
            "serve".into(),
            "--rpc-url".into(),
            self.rpc_url.clone(),
            "--indexer-url".into(),
            self.indexer_url.clone(),
            "--registry".into(),
            self.registry.to_string(),
            "--chain-id".into(),
            "31337".into(),
            "--guest-agent".into(),
            self.path("kms-dstack.sock").display().to_string(),
            "--collateral-file".into(),
            self.path("collateral.json").display().to_string(),
            "--log".into(),
            self.path("release-log.jsonl").display().to_string(),
            "--confirmations".into(),
            CONFIRMATIONS.to_string(),
            "--insecure-dev-attestation-root".into(),
            root.display().to_string(),
            "--listen".into(),
            listen(&self.kms_url),
        ];
        if self.gpus > 0 {
            args.extend([
                "--gpu-golden".into(),
                self.path(GOLDEN).display().to_string(),
                "--gpu-golden-signer".into(),
                self.deployer.address.to_string(),
                "--insecure-dev-gpu-root".into(),
                self.path("gpu/gpu-root.pem").display().to_string(),
            ]);
        }
        args.extend(self.kms_args.iter().cloned());
        let (program, logs) = (self.program("cohort-kms"), self.path("logs"));
        let mut process = Process::start_logging("kms", &program, args, &logs, self.log_filter.as_deref())?;
        self.kms_url = process.ready("listening ").await?;
        self.kms = Some(process);
        Ok(())
    }

    /// Starts the stand-in for dstack's guest agent in the agent's virtual machine.
    pub async fn start_guest(&mut self) -> Outcome {
        let (app, compose) = (self.app.to_string(), self.study.compose_file());
        let mut gpus = Vec::new();
        if self.gpus > 0 {
            let folder = self.path("gpu");
            create(&folder)?;
            let (count, folder) = (self.gpus.to_string(), folder.display().to_string());
            gpus = vec!["--gpus".to_owned(), count, "--gpu-folder".to_owned(), folder];
        }
        self.guest = Some(
            self.start_guest_agent("dev-guest-agent", "dstack.sock", app, &compose, "agent-1", gpus).await?,
        );
        Ok(())
    }

    /// Starts the one in the KMS's own virtual machine, which gives the KMS its root secret and its quote.
    pub async fn start_kms_guest(&mut self) -> Outcome {
        let compose = self.path("kms-app-compose.json");
        fs::write(&compose, KMS_APP_COMPOSE).map_err(|e| Failure::write(&compose, &e))?;
        let app = kms_app_id().to_string();
        let (name, socket) = ("kms-guest-agent", "kms-dstack.sock");
        let process = self.start_guest_agent(name, socket, app, &compose, KMS_INSTANCE, Vec::new()).await?;
        self.kms_guest = Some(process);
        Ok(())
    }

    async fn start_guest_agent(
        &self,
        name: &'static str,
        socket: &str,
        app_id: String,
        compose: &Path,
        instance: &str,
        more: Vec<String>,
    ) -> Outcome<Process> {
        let socket = self.path(socket);
        let mut args: Vec<String> = vec![
            "--socket".into(),
            socket.display().to_string(),
            "--app-id".into(),
            app_id,
            "--app-compose".into(),
            compose.display().to_string(),
            "--seed-file".into(),
            self.path("platform.seed").display().to_string(),
            "--instance-name".into(),
            instance.to_owned(),
            "--collateral-file".into(),
            self.path("collateral.json").display().to_string(),
        ];
        args.extend(more);
        let process = Process::start(name, &self.program("dev-guest-agent"), args, &self.path("logs"))?;
        for _ in 0..200 {
            if tokio::net::UnixStream::connect(&socket).await.is_ok() {
                return Ok(process);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(Failure::unreachable(format!("{name} did not start"), "see its log in the stack's logs folder"))
    }

    /// The agent's arguments.
    pub fn agent_command(&self) -> Vec<String> {
        let mut args: Vec<String> = vec![
            "--guest-agent".into(),
            self.path("dstack.sock").display().to_string(),
            "--rpc-url".into(),
            if self.agent_rpc_urls.is_empty() { self.rpc_url.clone() } else { self.agent_rpc_urls.join(",") },
            "--kms-url".into(),
            self.kms_url.clone(),
            "--sealed".into(),
            self.path("published").display().to_string(),
            "--state".into(),
            self.path("agent-state").display().to_string(),
            "--confirmations".into(),
            CONFIRMATIONS.to_string(),
            "--listen".into(),
            listen(&self.agent_url),
        ];
        args.extend(self.agent_args.iter().cloned());
        args
    }

    /// Starts the agent and gives its gas account something to pay with.
    pub async fn start_agent(&mut self) -> Outcome {
        let (program, logs) = (self.program("cohort-agent"), self.path("logs"));
        let filter = self.log_filter.as_deref();
        let mut process = Process::start_logging("agent", &program, self.agent_command(), &logs, filter)?;
        self.agent_url = process.ready("listening ").await?;
        self.agent = Some(process);
        self.fund_agent().await
    }

    async fn fund_agent(&mut self) -> Outcome {
        #[derive(Deserialize)]
        struct Attestation {
            gas_account: Address,
        }
        let url = self.agent_url.parse().map_err(|e| Failure::input(e, "the agent's address is no URL"))?;
        let service = crate::http::Service::new("the agent", &url)?;
        let attestation: Attestation = service.get("v1/attestation").await?.ready("the agent")?;
        self.agent_account = attestation.gas_account;
        let provider = self.provider()?;
        let amount = U256::from(10).pow(U256::from(18));
        let payment = TransactionRequest::default()
            .with_from(self.deployer.address)
            .with_to(self.agent_account)
            .with_value(amount);
        let pending = provider.send_transaction(payment).await.map_err(|e| failure::rpc(&e))?;
        pending.get_receipt().await.map_err(|e| failure::rpc(&e))?;
        Ok(())
    }

    /// Stops everything, in reverse order.
    pub fn stop(&mut self) {
        for process in [
            &mut self.agent,
            &mut self.guest,
            &mut self.kms,
            &mut self.kms_guest,
            &mut self.indexer,
            &mut self.anvil,
        ] {
            drop(process.take());
        }
    }
}

/// The same port again after a restart, a free one at first.
fn listen(url: &str) -> String {
    url.strip_prefix("http://").unwrap_or("127.0.0.1:0").trim_end_matches('/').to_owned()
}

fn merge(mut base: serde_json::Value, more: serde_json::Value) -> serde_json::Value {
    if let (Some(base), serde_json::Value::Object(more)) = (base.as_object_mut(), more) {
        base.extend(more);
    }
    base
}

fn create(path: &Path) -> Outcome {
    fs::create_dir_all(path).map_err(|e| Failure::write(path, &e))
}

/// Writes a key file for each of [`NAMES`] out of what anvil tells about its accounts.
fn people(accounts: &Path, folder: &Path) -> Outcome<[Person; NAMES.len()]> {
    #[derive(Deserialize)]
    struct Accounts {
        private_keys: Vec<String>,
    }
    let accounts: Accounts = crate::files::read_json(accounts, "what anvil writes with --config-out")?;
    let mut people = Vec::with_capacity(NAMES.len());
    for (name, key) in NAMES.iter().zip(&accounts.private_keys) {
        let bad = |e: &dyn std::fmt::Display| {
            Failure::unreachable(format!("anvil's key for {name}: {e}"), "start anew")
        };
        let signer: PrivateKeySigner = key.parse().map_err(|e| bad(&e))?;
        let key_file = folder.join(format!("{name}.key"));
        write_private(&key_file, key)?;
        people.push(Person { key_file, address: signer.address() });
    }
    people.try_into().map_err(|_| Failure::unreachable("anvil has too few accounts", "start anew"))
}

fn write_private(path: &Path, text: &str) -> Outcome {
    use std::io::Write;
    let failed = |e: std::io::Error| Failure::write(path, &e);
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}

fn write_seed(path: &Path) -> Outcome<[u8; 32]> {
    let secret = cohort_protocol::hpke::random_secret()
        .map_err(|e| Failure::unreachable(e, "the system gives no randomness"))?;
    write_private(path, &hex::encode(secret.expose_secret()))?;
    Ok(*secret.expose_secret())
}

fn read_seed(path: &Path) -> Outcome<[u8; 32]> {
    let text = fs::read_to_string(path).map_err(|e| Failure::read(path, &e))?;
    let mut seed = [0u8; 32];
    hex::decode_to_slice(text.trim(), &mut seed)
        .map_err(|e| Failure::input(format!("{}: {e}", path.display()), "start the stack anew"))?;
    Ok(seed)
}

fn platform(seed: &[u8; 32]) -> Outcome<DevPlatform> {
    DevPlatform::from_seed(*seed)
        .map_err(|e| Failure::input(format!("development platform: {e}"), "report this"))
}

/// dstack's app id of an app that no contract governs: the first 20 bytes of its compose hash.
fn kms_app_id() -> Address {
    let hash = cohort_protocol::compose::compose_hash(KMS_APP_COMPOSE.as_bytes());
    Address::from_slice(hash.0.get(..20).unwrap_or_default())
}

/// The KMS's virtual machine, as its guest agent boots it.
fn kms_guest(seed: &[u8; 32]) -> Outcome<DevGuest> {
    let platform = platform(seed)?;
    let instance = platform.instance_seed(KMS_INSTANCE);
    DevGuest::new(platform, kms_app_id().into_array().into(), KMS_APP_COMPOSE, &instance)
        .map_err(|e| Failure::input(format!("development guest: {e}"), "report this"))
}

/// What every development guest of this platform measures as, whatever app it runs.
fn mr_system(seed: &[u8; 32]) -> Outcome<B256> {
    let guest = DevGuest::new(platform(seed)?, [0; 20].into(), "{}", &[0; 32])
        .map_err(|e| Failure::input(format!("development guest: {e}"), "report this"))?;
    Ok(B256::from(guest.mr_system().0))
}
