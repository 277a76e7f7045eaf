//! An anvil of one's own, and the compiled contracts.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use alloy::primitives::{Address, B256, Bytes, U64};
use serde_json::{Value, json};

/// A transaction that has no receipt by then never gets one.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Anvil {
    child: Child,
    pub(crate) url: reqwest::Url,
    client: reqwest::Client,
}

impl Drop for Anvil {
    fn drop(&mut self) {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        drop(ended);
    }
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What deploys a contract, from the folder where forge puts it; `None`: it is not compiled.
pub(crate) fn creation_code(out: &str, contract: &str) -> Option<Vec<u8>> {
    let file = root().join(format!("{out}/{contract}.sol/{contract}.json"));
    let artifact: Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    hex::decode(artifact["bytecode"]["object"].as_str()?.trim_start_matches("0x")).ok()
}

impl Anvil {
    /// On a free port, where nothing costs anything. `None`, after the launcher has said why: it does not start.
    pub(crate) fn start(options: &[&str]) -> Option<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut child = Command::new(root().join("script/anvil"))
            .args(["--port", "0", "--base-fee", "0", "--gas-price", "0"])
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut lines = BufReader::new(child.stdout.take()?).lines().map_while(Result::ok);
        let address = lines.find_map(|line| Some(line.strip_prefix("Listening on ")?.to_owned()));
        let Some(address) = address else {
            drop(child.wait());
            return None;
        };
        // Read on, or anvil would stop when the pipe is full.
        std::thread::spawn(move || lines.for_each(drop));
        let url = format!("http://{address}").parse().unwrap();
        Some(Self { child, url, client: reqwest::Client::new() })
    }

    /// The same endpoint over WebSocket.
    pub(crate) fn ws_url(&self) -> reqwest::Url {
        let mut url = self.url.clone();
        url.set_scheme("ws").unwrap();
        url
    }

    /// The answer to a call, an error being one.
    pub(crate) async fn ask(&self, method: &str, params: Value) -> Value {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        self.client.post(self.url.clone()).json(&body).send().await.unwrap().json().await.unwrap()
    }

    pub(crate) async fn call(&self, method: &str, params: Value) -> Value {
        let answer = self.ask(method, params).await;
        assert!(answer["error"].is_null(), "{method}: {answer}");
        answer["result"].clone()
    }

    pub(crate) async fn accounts(&self) -> Vec<Address> {
        serde_json::from_value(self.call("eth_accounts", json!([])).await).unwrap()
    }

    /// Sends a transaction in a block of its own and gives the contract that it created, if any; `Err`: it reverts.
    pub(crate) async fn try_send(
        &self,
        from: Address,
        to: Option<Address>,
        data: Vec<u8>,
    ) -> Result<Option<Address>, Value> {
        let data = Bytes::from(data);
        let transaction = json!([{
            "from": from, "to": to, "data": data, "gas": "0x1000000", "gasPrice": "0x0",
        }]);
        let sent = self.ask("eth_sendTransaction", transaction).await;
        if sent["result"].is_null() {
            return Err(sent);
        }
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let receipt = self.call("eth_getTransactionReceipt", json!([sent["result"]])).await;
            match receipt["status"].as_str() {
                Some("0x1") => return Ok(serde_json::from_value(receipt["contractAddress"].clone()).unwrap()),
                Some(_) => return Err(receipt),
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
        panic!("no receipt of {sent}");
    }

    /// The same, of a transaction that must not revert.
    pub(crate) async fn send(&self, from: Address, to: Option<Address>, data: Vec<u8>) -> Option<Address> {
        self.try_send(from, to, data).await.unwrap()
    }

    pub(crate) async fn tip(&self) -> (u64, B256) {
        let block = self.call("eth_getBlockByNumber", json!(["latest", false])).await;
        let number: U64 = serde_json::from_value(block["number"].clone()).unwrap();
        (number.to(), serde_json::from_value(block["hash"].clone()).unwrap())
    }
}
