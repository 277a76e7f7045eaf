//! Block headers, and what they commit to: a header's fields must hash to its block's hash, and a block's receipts to the
//! root in its header (Yellow Paper, section 4.3; EIP-2718 for typed receipts).

use alloy::{
    consensus,
    primitives::{Address, B256, Bloom, Bytes, U8, U64},
};
use alloy_rlp::{Encodable as _, RlpEncodable};
use alloy_trie::root::ordered_trie_root_encoded;
use serde::Deserialize;

/// Type of the OP Stack's deposit transactions, whose receipts may have two fields more (specs.optimism.io, Deposits).
const OP_DEPOSIT: u8 = 0x7e;

/// The part of a block header that the mirror keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Block number.
    pub number: u64,
    /// Block hash.
    pub hash: B256,
    /// Hash of the block before it.
    pub parent_hash: B256,
    /// Unix seconds.
    pub timestamp: u64,
}

/// A header with what it says about the block's logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogsHeader {
    /// The part that the mirror keeps.
    pub header: Header,
    /// Bloom filter over addresses and topics of all logs of the block (Yellow Paper, section 4.3.1).
    pub bloom: Bloom,
    /// Root of the trie of the block's receipts; `None`: the header is unproved, so nothing can be proved by it.
    pub receipts_root: Option<B256>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToldHeader {
    logs_bloom: Bloom,
    number: U64,
    hash: B256,
    parent_hash: B256,
    timestamp: U64,
}

#[derive(Deserialize)]
struct Hash {
    hash: B256,
}

impl LogsHeader {
    /// Of a block as JSON-RPC gives it. `Ok(None)`: its fields do not hash to its hash.
    pub(super) fn proved(json: &str) -> Result<Option<Self>, serde_json::Error> {
        let Hash { hash } = serde_json::from_str(json)?;
        let fields: consensus::Header = serde_json::from_str(json)?;
        let (number, parent_hash, timestamp) = (fields.number, fields.parent_hash, fields.timestamp);
        let header = Header { number, hash, parent_hash, timestamp };
        let proved = || Self { header, bloom: fields.logs_bloom, receipts_root: Some(fields.receipts_root) };
        Ok((fields.hash_slow() == hash).then(proved))
    }

    /// As the endpoint tells it.
    pub(super) fn told(json: &str) -> Result<Self, serde_json::Error> {
        let told: ToldHeader = serde_json::from_str(json)?;
        let (number, timestamp) = (told.number.to(), told.timestamp.to());
        let header = Header { number, hash: told.hash, parent_hash: told.parent_hash, timestamp };
        Ok(Self { header, bloom: told.logs_bloom, receipts_root: None })
    }
}

/// A receipt as an endpoint tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    #[serde(rename = "type", default)]
    kind: Option<U8>,
    #[serde(default)]
    status: Option<U8>,
    /// Of blocks before Byzantium, instead of the status.
    #[serde(default)]
    root: Option<Bytes>,
    cumulative_gas_used: U64,
    logs_bloom: Bloom,
    /// Logs of the transaction, in their order.
    pub logs: Vec<ReceiptLog>,
    /// The transaction. No part of what the root commits to.
    pub transaction_hash: B256,
    #[serde(default)]
    deposit_nonce: Option<U64>,
    #[serde(default)]
    deposit_receipt_version: Option<U64>,
}

/// What a receipt commits to of a log. Its place follows from where it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, RlpEncodable)]
pub struct ReceiptLog {
    /// The contract.
    pub address: Address,
    /// Signature of the event and its indexed arguments.
    pub topics: Vec<B256>,
    /// The other arguments.
    pub data: Bytes,
}

#[derive(RlpEncodable)]
#[rlp(trailing)]
struct Leaf<'a> {
    outcome: &'a [u8],
    cumulative_gas_used: u64,
    logs_bloom: &'a Bloom,
    logs: &'a Vec<ReceiptLog>,
    deposit_nonce: Option<u64>,
    deposit_receipt_version: Option<u64>,
}

impl Receipt {
    /// As its trie holds it.
    fn encoded(&self) -> Vec<u8> {
        let kind: u8 = self.kind.map_or(0, |kind| kind.to());
        let outcome: &[u8] = match (&self.status, &self.root) {
            (None, Some(root)) => root,
            (Some(status), _) if !status.is_zero() => &[1],
            _ => &[],
        };
        // Before the version there was one (Canyon), the nonce was not hashed.
        let version = self.deposit_receipt_version.filter(|_| kind == OP_DEPOSIT);
        let leaf = Leaf {
            outcome,
            cumulative_gas_used: self.cumulative_gas_used.to(),
            logs_bloom: &self.logs_bloom,
            logs: &self.logs,
            deposit_nonce: version.and(self.deposit_nonce).map(|nonce| nonce.to()),
            deposit_receipt_version: version.map(|version| version.to()),
        };
        let mut bytes = Vec::with_capacity(leaf.length() + 1);
        if kind != 0 {
            bytes.push(kind);
        }
        leaf.encode(&mut bytes);
        bytes
    }
}

/// Root of the trie of a block's receipts.
pub fn receipts_root(receipts: &[Receipt]) -> B256 {
    let leaves: Vec<_> = receipts.iter().map(Receipt::encoded).collect();
    ordered_trie_root_encoded(&leaves)
}

#[cfg(test)]
mod tests {
    use alloy::{
        consensus::{self, ReceiptEnvelope, proofs::calculate_receipt_root},
        eips::Encodable2718 as _,
        primitives::{Log, LogData, b256, hex},
    };
    use serde_json::{Value, json};

    use super::*;

    /// Ethereum's first block.
    fn genesis() -> Value {
        let empty = "0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421";
        json!({
            "parentHash": B256::ZERO, "miner": Address::ZERO, "mixHash": B256::ZERO, "logsBloom": Bloom::ZERO,
            "sha3Uncles": "0x1dcc4de8dec75d7aab85b567b6ccd41ad312451b948a7413f0a142fd40d49347",
            "stateRoot": "0xd7f8974fb5ac78d9ac099b9ad5018bedc2ce0a72dad1827a1709da30580f0544",
            "transactionsRoot": empty, "receiptsRoot": empty, "difficulty": "0x400000000", "number": "0x0",
            "gasLimit": "0x1388", "gasUsed": "0x0", "timestamp": "0x0", "nonce": "0x0000000000000042",
            "extraData": "0x11bbe8db4e347b4e8c937c1c8370e4b5ed33adb3db69cbdb7a38e1e50b1b82fa",
            "hash": "0xd4e56740f876aef8c010b86a40d5f56745a118d0906a34e69aec8c0db1cb8fa3",
            "totalDifficulty": "0x400000000", "size": "0x21c", "transactions": [], "uncles": [],
        })
    }

    #[test]
    fn a_header_is_what_its_hash_says() {
        let read = |block: &Value| LogsHeader::proved(&block.to_string()).unwrap();
        let proved = read(&genesis()).expect("Ethereum's own");
        assert_eq!((proved.header.number, proved.header.timestamp), (0, 0));
        for (field, other) in [
            ("parentHash", json!(B256::repeat_byte(1))),
            ("hash", json!(B256::repeat_byte(1))),
            ("number", json!("0x1")),
            ("timestamp", json!("0x1")),
            ("logsBloom", json!(Bloom::repeat_byte(1))),
            ("receiptsRoot", json!(B256::repeat_byte(1))),
            ("extraData", json!("0x")),
            ("baseFeePerGas", json!("0x1")),
        ] {
            let mut altered = genesis();
            altered[field] = other;
            assert_eq!(read(&altered), None, "{field}");
            let told = LogsHeader::told(&altered.to_string()).unwrap();
            assert_eq!(told.receipts_root, None, "nothing is proved by a header that is only told");
        }
        let mut incomplete = genesis();
        incomplete["stateRoot"] = Value::Null;
        assert!(LogsHeader::proved(&incomplete.to_string()).is_err());
    }

    fn told(kind: u8, envelope: &ReceiptEnvelope) -> Receipt {
        serde_json::from_value(json!({
            "type": U8::from(kind), "status": U8::from(u8::from(envelope.status())),
            "cumulativeGasUsed": U64::from(envelope.cumulative_gas_used()), "logsBloom": envelope.logs_bloom(),
            "logs": envelope.logs(), "transactionHash": B256::ZERO, "gasUsed": "0x1", "effectiveGasPrice": "0x0",
        }))
        .unwrap()
    }

    #[test]
    fn receipts_are_encoded_as_ethereum_does() {
        let log = |topics: usize, data: Vec<u8>| Log {
            address: Address::repeat_byte(7),
            data: LogData::new_unchecked(vec![B256::repeat_byte(3); topics], data.into()),
        };
        let kinds: [fn(consensus::ReceiptWithBloom) -> ReceiptEnvelope; 5] = [
            ReceiptEnvelope::Legacy,
            ReceiptEnvelope::Eip2930,
            ReceiptEnvelope::Eip1559,
            ReceiptEnvelope::Eip4844,
            ReceiptEnvelope::Eip7702,
        ];
        let mut block = (Vec::new(), Vec::new());
        // More than 128: the order of a trie's keys is not that of its receipts.
        for place in 0..200u8 {
            let kind = place % 5;
            let logs = (0..place % 4).map(|topics| log(topics.into(), vec![1; usize::from(place)])).collect();
            let receipt = consensus::Receipt {
                status: (place % 3 != 0).into(),
                cumulative_gas_used: 21_000 * u64::from(place),
                logs,
            };
            let envelope = kinds[usize::from(kind)](receipt.into());
            let told = told(kind, &envelope);
            assert_eq!(told.encoded(), envelope.encoded_2718(), "type {kind}");
            block.0.push(told);
            block.1.push(envelope);
            assert_eq!(receipts_root(&block.0), calculate_receipt_root(&block.1));
        }
        assert_eq!(receipts_root(&[]), alloy_trie::EMPTY_ROOT_HASH);
    }

    #[test]
    fn receipts_before_byzantium_have_a_root() {
        let root = b256!("96a8e009d2b88b1483e6941e6812e32263b05683fac202abc622a3e31aed1957");
        let receipt: Receipt = serde_json::from_value(json!({
            "root": root, "cumulativeGasUsed": "0x5208", "logsBloom": Bloom::ZERO, "logs": [], "transactionHash": B256::ZERO,
        }))
        .unwrap();
        let expected =
            [&hex!("f90128a0")[..], root.as_slice(), &hex!("825208b90100"), &[0; 256], &[0xc0]].concat();
        assert_eq!(receipt.encoded(), expected);
    }

    /// A receipt of OP Mainnet, as op-geth's tests have it.
    #[test]
    fn deposits_of_the_op_stack_have_two_fields_more() {
        let receipt = |version: Value| -> Receipt {
            serde_json::from_value(json!({
                "type": "0x7e", "status": "0x1", "cumulativeGasUsed": "0xb741", "logsBloom": Bloom::ZERO, "logs": [],
                "transactionHash": B256::ZERO, "depositNonce": "0x3d3bbf", "depositReceiptVersion": version,
            }))
            .unwrap()
        };
        let bloom = [&hex!("0182b741b90100")[..], &[0; 256], &hex!("c0")].concat();
        let canyon = [&hex!("7ef9010d")[..], &bloom, &hex!("833d3bbf01")].concat();
        assert_eq!(receipt(json!("0x1")).encoded(), canyon);
        // Regolith: the nonce is told and not hashed.
        assert_eq!(receipt(Value::Null).encoded(), [&hex!("7ef90108")[..], &bloom].concat());
    }
}
