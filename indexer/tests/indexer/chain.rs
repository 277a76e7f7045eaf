//! A made-up chain behind JSON-RPC over HTTP, which can reorganise and lie. Its headers and receipts are true ones.

use std::sync::{Arc, Mutex, MutexGuard};

use alloy::{
    consensus::{Header, Receipt, ReceiptEnvelope, TxReceipt as _, proofs::calculate_receipt_root},
    primitives::{Address, B256, Bloom, Log, LogData, U64, keccak256},
};
use axum::{Json, Router, extract::State, http::StatusCode, routing::post};
use serde_json::{Value, json};

pub(crate) const CHAIN_ID: u64 = 31337;
/// Timestamp of block 0; each block is one second later.
pub(crate) const GENESIS_TIME: u64 = 1_700_000_000;

/// Reproducible numbers.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

#[derive(Clone)]
pub(crate) struct Block {
    pub(crate) hash: B256,
    header: Header,
    pub(crate) logs: Vec<(Address, LogData)>,
}

/// The receipt of a block's only transaction, which emits all its logs.
fn receipt_of(logs: &[(Address, LogData)]) -> ReceiptEnvelope {
    let logs = logs.iter().map(|(address, data)| Log { address: *address, data: data.clone() }).collect();
    ReceiptEnvelope::Eip1559(Receipt { status: true.into(), cumulative_gas_used: 21_000, logs }.into())
}

#[derive(Default)]
pub(crate) struct Chain {
    pub(crate) blocks: Vec<Block>,
    /// Makes the hashes of a new branch differ.
    branch: u64,
    /// New blocks have filters that promise everything, as those of busy chains do.
    pub(crate) crowded: bool,
    /// Receipts have other data than the block's.
    pub(crate) forged_receipts: bool,
    /// Logs carry the hash of a block that does not exist.
    pub(crate) foreign_logs: bool,
    /// Answers repeat and reorder logs.
    pub(crate) shuffled_logs: bool,
    /// Ranges of more blocks are refused.
    pub(crate) max_range: Option<u64>,
    /// Answers for several blocks leave out what is beyond so many logs.
    pub(crate) max_logs: Option<usize>,
    /// Answers for several blocks leave out the newest blocks, as nodes do that have not indexed them yet.
    pub(crate) unindexed: u64,
    /// Height that the newest block is said to have.
    pub(crate) boasts: Option<u64>,
    /// What headers are once the newest was asked for: those of another node behind the same address, on another fork.
    pub(crate) second_opinion: Vec<Block>,
    /// The newest blocks are not shown, as by a node that is behind.
    pub(crate) hidden: usize,
    /// Headers below are not known any more.
    pub(crate) pruned_below: u64,
    /// Every request fails.
    pub(crate) down: bool,
    /// Requests so far.
    pub(crate) requests: u64,
    /// Heights of all headers that were asked for.
    pub(crate) asked: Vec<u64>,
}

impl Chain {
    pub(crate) fn mine(&mut self, logs: Vec<(Address, LogData)>) -> u64 {
        let number = self.blocks.len() as u64;
        let receipts = [receipt_of(&logs)];
        let bloom = if self.crowded { Bloom::repeat_byte(0xff) } else { receipts[0].bloom() };
        let header = Header {
            parent_hash: self.blocks.last().map_or(B256::ZERO, |block| block.hash),
            number,
            timestamp: GENESIS_TIME + number,
            logs_bloom: bloom,
            receipts_root: calculate_receipt_root(&receipts),
            mix_hash: B256::left_padding_from(&self.branch.to_be_bytes()),
            ..Header::default()
        };
        self.blocks.push(Block { hash: header.hash_slow(), header, logs });
        number
    }

    pub(crate) fn mine_empty(&mut self, blocks: usize) {
        for _ in 0..blocks {
            self.mine(Vec::new());
        }
    }

    /// Drops the newest blocks; what is mined next is another branch.
    pub(crate) fn drop_blocks(&mut self, depth: usize) {
        self.blocks.truncate(self.blocks.len() - depth);
        self.branch += 1;
    }

    pub(crate) fn tip(&self) -> (u64, B256) {
        (self.blocks.len() as u64 - 1, self.blocks.last().unwrap().hash)
    }

    fn shown(&self) -> &[Block] {
        &self.blocks[..self.blocks.len() - self.hidden]
    }

    fn header(&self, number: u64) -> Value {
        let block = self.shown().get(number as usize).filter(|_| number >= self.pruned_below);
        block.map_or(Value::Null, |block| block_json(&block.header))
    }

    fn receipts(&self, hash: &Value) -> Value {
        let mut blocks = self.blocks.iter().chain(&self.second_opinion);
        let Some(block) = blocks.find(|block| json!(block.hash) == *hash) else { return Value::Null };
        let receipt = receipt_of(&block.logs);
        let mut logs = json!(receipt.logs());
        if self.forged_receipts && !block.logs.is_empty() {
            logs[0]["data"] = json!("0x01");
        }
        json!([{
            "type": "0x2", "status": "0x1", "cumulativeGasUsed": "0x5208", "logs": logs, "logsBloom": receipt.bloom(),
            "transactionHash": keccak256(block.hash), "transactionIndex": "0x0", "blockHash": block.hash,
            "blockNumber": U64::from(block.header.number), "contractAddress": null,
        }])
    }

    fn logs(&self, number: u64, addresses: &[Address]) -> Vec<Value> {
        let block = &self.blocks[number as usize];
        let hash = if self.foreign_logs { B256::repeat_byte(0xee) } else { block.hash };
        let ours = block.logs.iter().enumerate().filter(|(_, (address, _))| addresses.contains(address));
        ours.map(|(index, (address, log))| {
            json!({
                "address": address, "topics": log.topics(), "data": log.data, "blockNumber": U64::from(number),
                "blockHash": hash, "transactionHash": keccak256(hash), "transactionIndex": "0x0",
                "logIndex": U64::from(index), "removed": false,
            })
        })
        .collect()
    }

    fn get_logs(&mut self, filter: &Value) -> Result<Value, &'static str> {
        let addresses: Vec<Address> = serde_json::from_value(filter["address"].clone()).unwrap();
        let mut found = Vec::new();
        if let Ok(hash) = serde_json::from_value::<B256>(filter["blockHash"].clone()) {
            let number = self.blocks.iter().position(|block| block.hash == hash).ok_or("unknown block")?;
            found.extend(self.logs(number as u64, &addresses));
        } else {
            let end = |name: &str| serde_json::from_value::<U64>(filter[name].clone()).unwrap().to::<u64>();
            let (from, to) = (end("fromBlock"), end("toBlock"));
            if self.max_range.is_some_and(|max| to - from >= max) {
                return Err("query exceeds max block range");
            }
            for number in from..=to.min((self.blocks.len() as u64 - 1).saturating_sub(self.unindexed)) {
                found.extend(self.logs(number, &addresses));
            }
            found.truncate(self.max_logs.unwrap_or(usize::MAX));
        }
        if self.shuffled_logs {
            found.extend(found.clone());
            found.reverse();
        }
        Ok(Value::Array(found))
    }

    fn answer(&mut self, method: &str, params: &Value) -> Result<Value, &'static str> {
        self.requests += 1;
        match method {
            "eth_chainId" => Ok(json!(U64::from(CHAIN_ID))),
            "eth_getBlockByNumber" => Ok(match params[0].as_str() {
                Some("latest") => {
                    let newest = self.shown().last().unwrap().header.clone();
                    block_json(&Header { number: self.boasts.unwrap_or(newest.number), ..newest })
                }
                Some("finalized") => self.header(self.tip().0.saturating_sub(4)),
                Some(hex) => {
                    let number = u64::from_str_radix(&hex[2..], 16).unwrap();
                    let all_told = self.asked.contains(&self.tip().0);
                    self.asked.push(number);
                    match self.second_opinion.get(number as usize).filter(|_| all_told) {
                        Some(other) => block_json(&other.header),
                        None => self.header(number),
                    }
                }
                None => Value::Null,
            }),
            "eth_getBlockReceipts" => Ok(self.receipts(&params[0])),
            "eth_getLogs" => self.get_logs(&params[0]),
            _ => Err("method not found"),
        }
    }
}

fn block_json(header: &Header) -> Value {
    let mut block = json!(header);
    (block["hash"], block["transactions"]) = (json!(header.hash_slow()), json!([]));
    block
}

/// A running endpoint of a made-up chain.
#[derive(Clone)]
pub(crate) struct Node {
    chain: Arc<Mutex<Chain>>,
    pub(crate) url: reqwest::Url,
}

impl Node {
    pub(crate) async fn start() -> Self {
        // For the tests' own HTTP clients; an error means that it is installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let chain = Arc::new(Mutex::new(Chain::default()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let app = Router::new().route("/", post(rpc)).with_state(chain.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { chain, url }
    }

    /// Another endpoint with a copy of the blocks.
    pub(crate) async fn twin(&self) -> Self {
        let twin = Self::start().await;
        twin.chain().blocks = self.chain().blocks.clone();
        twin
    }

    pub(crate) fn chain(&self) -> MutexGuard<'_, Chain> {
        self.chain.lock().unwrap()
    }
}

async fn rpc(
    State(chain): State<Arc<Mutex<Chain>>>,
    Json(request): Json<Value>,
) -> (StatusCode, Json<Value>) {
    let mut chain = chain.lock().unwrap();
    if chain.down {
        return (StatusCode::BAD_GATEWAY, Json(Value::Null));
    }
    let mut one = |request: &Value| match chain
        .answer(request["method"].as_str().unwrap(), &request["params"])
    {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": request["id"], "result": result }),
        Err(message) => {
            json!({ "jsonrpc": "2.0", "id": request["id"], "error": { "code": -32000, "message": message } })
        }
    };
    let answer = match &request {
        Value::Array(requests) => requests.iter().map(&mut one).collect(),
        request => one(request),
    };
    (StatusCode::OK, Json(answer))
}
