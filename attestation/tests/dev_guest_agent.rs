//! The guest-agent stand-in as a process: its socket API, and evidence from it through the verifier.
#![cfg(feature = "dev-platform")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cohort_attestation::{GuestEvidence, Platform, Policy, TrustedRoot, verify};
use serde_json::{Value, json};
use tempfile::TempDir;

const APP_COMPOSE: &str = "{\"manifest_version\":2,\"name\":\"study\"}\n";

struct Agent {
    folder: TempDir,
    child: Child,
}

impl Agent {
    fn command(folder: &Path) -> Command {
        let seed = folder.join("seed");
        if !seed.exists() {
            fs::write(&seed, "11".repeat(32)).unwrap();
            fs::set_permissions(&seed, fs::Permissions::from_mode(0o600)).unwrap();
            fs::write(folder.join("app-compose.json"), APP_COMPOSE).unwrap();
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_dev-guest-agent"));
        command.arg("--socket").arg(folder.join("dstack.sock"));
        command.arg("--app-id").arg(format!("0x{}", "a0".repeat(20)));
        command.arg("--app-compose").arg(folder.join("app-compose.json"));
        command.arg("--seed-file").arg(seed).arg("--instance-name").arg("one");
        command.arg("--collateral-file").arg(folder.join("collateral.json"));
        command.arg("--root-file").arg(folder.join("root.pem")).arg("--exit-with-stdin");
        command.stdin(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap())
    }

    fn start_in(folder: TempDir) -> Self {
        let mut child = Self::command(folder.path()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("listening on"), "{line}");
        Self { folder, child }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn send(&self, request: &str) -> (u16, String) {
        let mut stream = UnixStream::connect(self.path("dstack.sock")).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    fn post(&self, method: &str, body: &Value) -> (u16, Value) {
        let body = body.to_string();
        let (status, body) = self.send(&format!(
            "POST /{method} HTTP/1.1\r\nhost: dstack\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ));
        (status, serde_json::from_str(&body).unwrap())
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: dstack\r\nconnection: close\r\n\r\n"))
    }

    fn exited(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if self.child.try_wait().unwrap().is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn its_evidence_verifies_with_the_files_it_wrote() {
    let agent = Agent::start();
    let report_data = [0xCD; 64];
    let (status, quote) = agent.post("GetQuote", &json!({ "report_data": "cd".repeat(64) }));
    assert_eq!(status, 200);
    let (_, info) = agent.post("Info", &json!({}));
    let tcb_info: Value = serde_json::from_str(info["tcb_info"].as_str().unwrap()).unwrap();
    assert_eq!(tcb_info["app_compose"], APP_COMPOSE);
    let evidence = GuestEvidence {
        quote: hex::decode(quote["quote"].as_str().unwrap()).unwrap(),
        event_log: quote["event_log"].as_str().unwrap().to_owned(),
        app_compose: tcb_info["app_compose"].as_str().map(str::to_owned),
        gpu: Vec::new(),
    };
    let collateral = fs::read(agent.path("collateral.json")).unwrap();
    let evidence = evidence.with_collateral(serde_json::from_slice(&collateral).unwrap());
    let root = fs::read(agent.path("root.pem")).unwrap();
    let (_, root) = der::pem::decode_vec(&root).unwrap();
    let policy = Policy::production().with_root(TrustedRoot::development(&root).unwrap());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let td = verify(&evidence, &policy, &report_data, now).unwrap();
    assert_eq!(td.platform(), Platform::Development);
    assert_eq!(info["app_id"], td.app_id().to_string());
    assert_eq!(info["compose_hash"], td.compose_hash().to_string());
    assert_eq!(info["instance_id"], td.instance_id().unwrap().to_string());
    assert_eq!(info["mr_aggregated"], td.mr_aggregated().to_string());
    assert!(td.collateral_expires_at() > now + 29 * 24 * 3600);
}

/// The keys of every recorded answer of the real agent, so that a client of one works with the other.
#[test]
fn its_answers_have_the_shape_of_the_real_agents() {
    let agent = Agent::start();
    let keys = |value: &Value| {
        let mut keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys
    };
    let (_, version) = agent.post("Version", &json!({}));
    assert_eq!(keys(&version), ["rev", "version"]);
    let (_, info) = agent.post("Info", &json!({}));
    assert_eq!(
        keys(&info),
        [
            "app_cert",
            "app_id",
            "app_name",
            "cloud_product",
            "cloud_vendor",
            "compose_hash",
            "device_id",
            "instance_id",
            "key_provider_info",
            "mr_aggregated",
            "os_image_hash",
            "tcb_info",
            "vm_config"
        ]
    );
    let (_, quote) = agent.post("GetQuote", &json!({ "report_data": "0x0102" }));
    let padded = format!("0102{}", "00".repeat(62));
    assert_eq!(quote["report_data"], padded);
    assert_eq!(keys(&quote), ["attestation", "event_log", "quote", "report_data", "vm_config"]);
    let (_, key) = agent.post("GetKey", &json!({ "path": "a", "purpose": "p" }));
    assert_eq!(keys(&key), ["key", "signature_chain"]);
    assert_eq!(key["signature_chain"][1].as_str().unwrap().len(), 130);
    let (status, by_get) = agent.get("/GetKey?path=a&purpose=p");
    assert_eq!((status, serde_json::from_str::<Value>(&by_get).unwrap()), (200, key));
}

#[test]
fn its_errors_are_the_real_agents() {
    let agent = Agent::start();
    let error = |method, body| {
        let (status, answer) = agent.post(method, &body);
        (status, answer["error"].as_str().unwrap().to_owned())
    };
    let long = json!({ "report_data": "00".repeat(65) });
    assert_eq!(error("GetQuote", long), (400, "Report data is too long".to_owned()));
    let algorithm = json!({ "algorithm": "rsa" });
    assert_eq!(error("GetKey", algorithm), (400, "Unsupported algorithm".to_owned()));
    assert_eq!(error("EmitEvent", json!({})), (400, "Service not found: EmitEvent".to_owned()));
    assert_eq!(error("GetQuote", json!([1])).0, 400);
    assert_eq!(agent.get("/v1/Info").0, 404);
}

#[test]
fn it_leaves_nothing_behind() {
    let mut agent = Agent::start();
    let second = Agent::command(agent.folder.path()).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let message = String::from_utf8(second.stderr).unwrap();
    assert!(message.contains("another service listens"), "{message}");
    assert_eq!(agent.post("Version", &json!({})).0, 200);
    drop(agent.child.stdin.take());
    assert!(agent.exited());
    assert!(!agent.path("dstack.sock").exists());
}

#[test]
fn it_stops_on_a_signal_and_replaces_a_dead_socket() {
    let folder = tempfile::tempdir().unwrap();
    drop(std::os::unix::net::UnixListener::bind(folder.path().join("dstack.sock")).unwrap());
    let mut agent = Agent::start_in(folder);
    assert_eq!(agent.post("Version", &json!({})).0, 200);
    let mode = fs::metadata(agent.path("dstack.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let pid = agent.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(agent.exited());
    assert!(!agent.path("dstack.sock").exists());
}

#[test]
fn it_leaves_other_files_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("dstack.sock"), "mine").unwrap();
    let refused = Agent::command(folder.path()).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(fs::read(folder.path().join("dstack.sock")).unwrap(), b"mine");
}

#[test]
fn it_refuses_a_seed_that_others_can_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Agent::command(folder.path());
    fs::set_permissions(folder.path().join("seed"), fs::Permissions::from_mode(0o644)).unwrap();
    let refused = command.output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(message.contains("chmod 600"), "{message}");
}
