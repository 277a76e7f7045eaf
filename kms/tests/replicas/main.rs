//! Replicas as real processes: a run's keys go to one receipt key whichever of them is asked, also while one is killed
//! under load; each log tells what its replica answered; a new replica gets the root by its evidence.

#[path = "../support/mod.rs"]
mod support;
#[path = "../world/mod.rs"]
mod world;

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use alloy::primitives::{Address, B256};
use cohort_attestation::{AppId, KmsEvidence, dev};
use cohort_kms::{
    guest::ROOT_KEY,
    onboard::{OnboardRequest, report_data},
    release_log::{self, Outcome},
};
use cohort_protocol::{
    hpke::{KeyPair, SecretBytes},
    ids::RunId,
    release::{Challenge, Refusal, ReleaseAnswer},
    root::RootAnswer,
};
use support::{CHAIN_ID, guest, unix_now};
use tokio::net::{TcpListener, TcpStream};
use world::{CONFIRMATIONS, Endpoint, Options, REGISTRY, World};

/// Longest wait for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running `cohort-kms`; killed at once, as by `kill -9`, when dropped.
struct Process {
    child: Child,
    address: SocketAddr,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Options that every process has.
fn serve(world: &World, dir: &Path) -> Command {
    let platform = dir.join("platform.pem");
    std::fs::write(&platform, world.guest.platform().root_certificate_pem().unwrap()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cohort-kms"));
    command.env_clear().args(["serve", "--listen", "127.0.0.1:0"]);
    for url in &world.rpc_urls {
        command.args(["--rpc-url", url.as_str()]);
    }
    command.args(["--indexer-url", world.indexer_url.as_str(), "--chain-id", &CHAIN_ID.to_string()]);
    command.args(["--registry", &REGISTRY.to_string(), "--confirmations", &CONFIRMATIONS.to_string()]);
    command.args(["--max-head-age-seconds", "86400", "--requests-per-second", "1000000"]);
    command.arg("--insecure-dev-attestation-root").arg(platform);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Starts it, or gives what it said before it ended.
fn start(mut command: Command) -> Result<Process, String> {
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let mut stderr = child.stderr.take().unwrap();
    match line.trim().strip_prefix("listening http://") {
        Some(address) => {
            std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
            Ok(Process { address: address.parse().unwrap(), child })
        }
        None => {
            let mut said = String::new();
            stderr.read_to_string(&mut said).unwrap();
            child.wait().unwrap();
            Err(said)
        }
    }
}

/// The address that the others know a replica by, wherever its process listens now.
struct Forwarder {
    address: SocketAddr,
    target: Arc<Mutex<Option<SocketAddr>>>,
}

impl Forwarder {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, target) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(None)));
        let to: Arc<Mutex<Option<SocketAddr>>> = target.clone();
        tokio::spawn(async move {
            while let Ok((mut from, _)) = listener.accept().await {
                let Some(target) = *to.lock().unwrap() else { continue };
                tokio::spawn(async move {
                    if let Ok(mut to) = TcpStream::connect(target).await {
                        let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                    }
                });
            }
        });
        Self { address, target }
    }
}

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Three replicas of one root, each with a disk of its own.
struct Set {
    world: World,
    dir: tempfile::TempDir,
    forwarders: Vec<Forwarder>,
    processes: Mutex<Vec<Option<Process>>>,
}

impl Set {
    async fn start() -> Self {
        let world = World::new(Options::default()).await;
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(root).unwrap();
        std::io::Write::write_all(&mut file, hex::encode([7; 32]).as_bytes()).unwrap();
        let mut forwarders = Vec::new();
        for _ in NAMES {
            forwarders.push(Forwarder::new().await);
        }
        let processes = Mutex::new(NAMES.iter().map(|_| None).collect());
        let set = Self { world, dir, forwarders, processes };
        (0..NAMES.len()).for_each(|index| set.run(index, true));
        set
    }

    fn file(&self, index: usize, kind: &str) -> PathBuf {
        self.dir.path().join(format!("{}.{kind}", NAMES[index]))
    }

    fn run(&self, index: usize, first: bool) {
        let mut command = serve(&self.world, self.dir.path());
        command.arg("--insecure-root-file").arg(self.dir.path().join("root"));
        command.arg("--log").arg(self.file(index, "log"));
        command.args(["--replica", NAMES[index], "--replica-votes"]).arg(self.file(index, "votes"));
        for (name, forwarder) in NAMES.iter().zip(&self.forwarders) {
            if *name != NAMES[index] {
                command.args(["--replica-peer", &format!("{name}=http://{}", forwarder.address)]);
            }
        }
        if first {
            command.arg("--replica-first-start");
        }
        let process = start(command).unwrap();
        *self.forwarders[index].target.lock().unwrap() = Some(process.address);
        self.processes.lock().unwrap()[index] = Some(process);
    }

    /// As `kill -9` does.
    fn kill(&self, index: usize) {
        *self.forwarders[index].target.lock().unwrap() = None;
        self.processes.lock().unwrap()[index] = None;
    }

    /// Asks one replica for a run's keys for a receipt key. `None` where it does not answer.
    async fn ask(&self, index: usize, run: u8, key: u8) -> Option<Result<(RunId, ReleaseAnswer), String>> {
        let url = |path: &str| format!("http://{}/{path}", self.forwarders[index].address);
        let challenge = self.world.http.post(url("v1/challenge")).send().await.ok()?;
        let challenge: Challenge = challenge.json().await.ok()?;
        let asked = self.world.request_for(&challenge, B256::repeat_byte(run), |binding| {
            binding.receipt_key = Address::repeat_byte(key);
        });
        let response = self.world.http.post(url("v1/release")).json(&asked.request).send().await.ok()?;
        if response.status() == 200 {
            return Some(Ok((asked.request.binding.run_id, response.json().await.ok()?)));
        }
        Some(Err(response.json::<Refusal>().await.ok()?.code))
    }

    async fn code(&self, index: usize, run: u8, key: u8) -> String {
        match self.ask(index, run, key).await.expect("an answer") {
            Ok(_) => "allow".to_owned(),
            Err(code) => code,
        }
    }

    /// Asks until the answer is this one.
    async fn until(&self, index: usize, run: u8, key: u8, want: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let code = self.code(index, run, key).await;
            if code == want {
                return;
            }
            assert!(Instant::now() < deadline, "{code} instead of {want}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// To which receipt keys each run went, by all logs; each log verifies.
    fn released(&self) -> BTreeMap<RunId, Vec<Address>> {
        let mut released: BTreeMap<RunId, Vec<Address>> = BTreeMap::new();
        for index in 0..NAMES.len() {
            for entry in entries(&self.file(index, "log")) {
                if entry.record.outcome == Outcome::Released {
                    released.entry(entry.record.run_id).or_default().push(entry.record.receipt_key);
                }
            }
        }
        for keys in released.values_mut() {
            keys.sort_unstable();
            keys.dedup();
        }
        released
    }
}

fn entries(log: &Path) -> Vec<release_log::Entry> {
    release_log::verify(log).unwrap();
    let text = std::fs::read_to_string(log).unwrap();
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.map(|line| serde_json::from_str::<release_log::Line>(line).unwrap().entry).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_to_one_receipt_key_whichever_replica_is_asked_and_whichever_is_killed() {
    let set = Arc::new(Set::start().await);
    assert_eq!(set.code(0, 1, 1).await, "allow");
    // Before the other key is tried there: two votes are enough, so this replica may not have voted yet, and its vote for a
    // key that loses would stay.
    assert_eq!(set.code(1, 1, 1).await, "allow");
    assert_eq!(set.code(1, 1, 2).await, "run_released");
    assert_eq!(set.code(2, 1, 2).await, "run_released");

    // A challenge is good at the replica that gave it.
    let url = |index: usize, path: &str| format!("http://{}/{path}", set.forwarders[index].address);
    let challenge = set.world.http.post(url(0, "v1/challenge")).send().await.unwrap();
    let asked = set.world.request_for(&challenge.json().await.unwrap(), B256::repeat_byte(1), |_| ());
    let response = set.world.http.post(url(1, "v1/release")).json(&asked.request).send().await.unwrap();
    assert_eq!(response.json::<Refusal>().await.unwrap().code, "challenge_unknown");
    let response = set.world.http.post(url(1, "v1/replica/vote")).body("{}").send().await.unwrap();
    assert_eq!(response.status(), 400);

    // Two agents race for each run at two replicas, while one of the three is killed.
    let race = |run: u8, key: u8| {
        let set = set.clone();
        tokio::spawn(async move {
            let index = usize::from(run + key) % 3;
            (index, set.ask(index, run, key).await)
        })
    };
    let mut races: Vec<_> = (10..40).flat_map(|run| [race(run, 1), race(run, 2)]).collect();
    let first = races.remove(0).await.unwrap();
    set.kill(2);
    let mut answers = vec![first];
    for race in races {
        answers.push(race.await.unwrap());
    }
    let released = set.released();
    assert!(released.values().all(|keys| keys.len() == 1), "a run went to two agents: {released:?}");
    let mut kept = 0;
    for (index, answer) in answers {
        if let Some(Ok((run, answer))) = answer {
            let entries = entries(&set.file(index, "log"));
            let entry =
                entries.get(usize::try_from(answer.log_index).unwrap()).expect("an answer without its entry");
            assert_eq!((entry.record.run_id, entry.record.outcome), (run, Outcome::Released));
            kept += 1;
        }
    }
    assert!(kept > 0, "nothing was released: the race shows nothing");

    // Two of three go on; one alone releases nothing new, and what it has released again to the same agent.
    assert_eq!(set.code(0, 50, 1).await, "allow");
    set.kill(1);
    assert_eq!(set.code(0, 51, 1).await, "replicas_unreachable");
    assert_eq!(set.code(0, 50, 1).await, "allow");
    set.run(1, false);
    set.until(0, 51, 1, "allow").await;

    // A replica that has lost its votes learns them before it votes.
    std::fs::remove_file(set.file(2, "votes")).unwrap();
    set.run(2, false);
    set.until(2, 51, 2, "run_released").await;
    set.kill(0);
    assert_eq!(set.code(2, 51, 2).await, "run_released");
    set.until(1, 52, 1, "allow").await;
    let released = set.released();
    assert!(released.values().all(|keys| keys.len() == 1), "a run went to two agents: {released:?}");
}

/// A KMS that gets its root from another one, on machines of the development platform.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_replica_gets_the_root_by_its_evidence() {
    let platform = || dev::DevPlatform::from_seed([3; 32]).unwrap();
    let machine = |compose: &str, instance: u8| {
        dev::DevGuest::new(platform(), AppId([4; 20]), compose, &[instance; 32]).unwrap()
    };
    let serving = machine(r#"{"name":"kms"}"#, 1);
    let key = serving.app_keys().unwrap().get_key(ROOT_KEY, "cohort-kms-root", "secp256k1").unwrap().key;
    let world = World::new(Options { root_secret: key, ..Options::default() }).await;
    let dir = tempfile::tempdir().unwrap();
    let collateral = dir.path().join("collateral.json");
    let content = serde_json::to_vec(&platform().collateral(unix_now()).unwrap()).unwrap();
    std::fs::write(&collateral, content).unwrap();
    let command = |name: &str, guest: dev::DevGuest| {
        let socket = dir.path().join(format!("{name}.sock"));
        guest::serve(&socket, guest::router(guest));
        let mut command = serve(&world, dir.path());
        command.arg("--guest-agent").arg(socket).arg("--collateral-file").arg(&collateral);
        command.arg("--log").arg(dir.path().join(format!("{name}.log")));
        command
    };
    let mut first = command("first", serving);
    first.arg("--serve-onboarding");
    let first = start(first).unwrap();
    let from = format!("http://{}", first.address);
    let onboarded = |name: &str, guest: dev::DevGuest| {
        let mut command = command(name, guest);
        command.args(["--onboard-from", &from]);
        // Its own guest agent would give the same key: a wrong derivation shows that the root came from the other one.
        command.args(["--guest-key-api", "v1"]);
        start(command)
    };
    let refused = |name: &str, guest: dev::DevGuest| match onboarded(name, guest) {
        Ok(_) => panic!("{name} got the root"),
        Err(said) => said,
    };

    let second = onboarded("second", machine(r#"{"name":"kms"}"#, 2)).unwrap();
    let url = format!("http://{}/v1/root", second.address);
    let root: RootAnswer<KmsEvidence> = world.http.get(url).send().await.unwrap().json().await.unwrap();
    assert_eq!(root.statement.root, world.root);
    let log = entries(&dir.path().join("first.log"));
    let codes: Vec<_> = log.iter().map(|entry| (entry.record.code.as_str(), entry.record.app)).collect();
    assert_eq!(codes, [("onboarded", Address::from([4; 20]))]);

    let said = refused("other", machine(r#"{"name":"thief"}"#, 3));
    assert!(said.contains("machine_differs") && said.contains("compose hash"), "{said}");
    world.set(1, Endpoint::NoKms);
    let said = refused("unlisted", machine(r#"{"name":"kms"}"#, 4));
    assert!(said.contains("candidate_not_allowed"), "{said}");
    world.set(1, Endpoint::Honest);
    let foreign = dev::DevPlatform::from_seed([8; 32]).unwrap();
    let foreign = dev::DevGuest::new(foreign, AppId([4; 20]), r#"{"name":"kms"}"#, &[5; 32]).unwrap();
    let said = refused("foreign", foreign);
    assert!(said.contains("(evidence_"), "{said}");
    assert_eq!(entries(&dir.path().join("first.log")).len(), 1);

    // R10: a challenge is good for one request, and its evidence for one key.
    let challenge = world.http.post(format!("http://{}/v1/challenge", first.address)).send().await.unwrap();
    let Challenge { challenge, kms_root, .. } = challenge.json().await.unwrap();
    let key = |byte| KeyPair::derive(&SecretBytes::new([byte; 32])).public_key().as_bytes().to_vec();
    let data = report_data((CHAIN_ID, REGISTRY), kms_root, challenge, &key(1));
    let guest = machine(r#"{"name":"kms"}"#, 7).evidence(&data).unwrap();
    let (quote, event_log, app_compose) = (guest.quote, guest.event_log, guest.app_compose.unwrap());
    let evidence = KmsEvidence { quote, event_log, app_compose, collateral: None };
    let request = OnboardRequest { challenge, encryption_key: key(1).into(), evidence };
    let code = async |request: &OnboardRequest| {
        let url = format!("http://{}/v1/onboard", first.address);
        let response = world.http.post(url).json(request).send().await.unwrap();
        if response.status() == 200 {
            "ok".to_owned()
        } else {
            response.json::<Refusal>().await.unwrap().code
        }
    };
    assert_eq!(code(&request).await, "ok");
    assert_eq!(code(&request).await, "challenge_used");
    let challenge = world.http.post(format!("http://{}/v1/challenge", first.address)).send().await.unwrap();
    let Challenge { challenge, .. } = challenge.json().await.unwrap();
    let stolen = OnboardRequest { challenge, encryption_key: key(2).into(), ..request };
    assert_eq!(code(&stolen).await, "evidence_report_data_mismatch");
    assert_eq!(entries(&dir.path().join("first.log")).len(), 2, "R13");

    // The KMS of the world serves no onboarding.
    let mut command = command("off", machine(r#"{"name":"kms"}"#, 6));
    command.args(["--onboard-from", world.url.as_str()]);
    let Err(said) = start(command) else { panic!("it got the root") };
    assert!(said.contains("onboarding_off"), "{said}");
}
