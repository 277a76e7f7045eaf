//! A chain for one test.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use alloy::{
    primitives::{Address, B256, Bytes},
    providers::{Provider as _, RootProvider},
    rpc::types::TransactionReceipt,
};
use serde_json::{Value, json};

fn root_path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(relative)
}

/// A chain of its own for one test; ends with it.
pub(crate) struct Anvil {
    child: Child,
    pub(crate) provider: RootProvider,
    pub(crate) url: reqwest::Url,
    pub(crate) accounts: Vec<Address>,
}

impl Drop for Anvil {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Anvil {
    pub(crate) async fn start() -> Option<Self> {
        let anvil = root_path("script/anvil");
        if !anvil.exists() || !root_path("out/DstackApp.sol/DstackApp.json").exists() {
            println!("skipped: needs script/anvil and the contracts that forge build compiles");
            return None;
        }
        let mut command = Command::new(anvil);
        command.args(["--port", "0"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let Some(address) = lines.find_map(|line| Some(line.ok()?.strip_prefix("Listening on ")?.to_owned()))
        else {
            let _ = child.wait();
            println!("skipped: anvil does not start; run: npm ci");
            return None;
        };
        std::thread::spawn(move || lines.for_each(drop)); // or its pipe fills up
        let url: reqwest::Url = format!("http://{address}").parse().unwrap();
        let provider = RootProvider::new_http(url.clone());
        let accounts = provider.raw_request("eth_accounts".into(), ()).await.unwrap();
        Some(Self { child, provider, url, accounts })
    }

    pub(crate) async fn send(&self, from: usize, to: Option<Address>, data: Vec<u8>) -> TransactionReceipt {
        let transaction = json!([{ "from": self.accounts[from], "to": to, "data": Bytes::from(data) }]);
        let hash: B256 = self.provider.raw_request("eth_sendTransaction".into(), transaction).await.unwrap();
        let receipt = loop {
            if let Some(receipt) = self.provider.get_transaction_receipt(hash).await.unwrap() {
                break receipt;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert!(receipt.status());
        receipt
    }

    pub(crate) async fn deploy(&self, name: &str, arguments: Vec<u8>) -> Address {
        let artifact = root_path(&format!("out/{name}.sol/{name}.json"));
        let artifact: Value = serde_json::from_slice(&std::fs::read(artifact).unwrap()).unwrap();
        let code = hex::decode(&artifact["bytecode"]["object"].as_str().unwrap()[2..]).unwrap();
        self.send(0, None, [code, arguments].concat()).await.contract_address.unwrap()
    }

    pub(crate) async fn mine(&self, blocks: u64) {
        let _: Value = self.provider.raw_request("anvil_mine".into(), json!([blocks])).await.unwrap();
    }

    /// Sets the chain's clock forward.
    pub(crate) async fn pass_time(&self, seconds: u64) {
        let _: Value = self.provider.raw_request("evm_increaseTime".into(), json!([seconds])).await.unwrap();
        self.mine(1).await;
    }
}
