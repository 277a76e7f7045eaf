//! The section `chain` of a result file: one block's header, storage words and one transaction's receipt under it,
//! each proved up to the block's hash. Spec: `docs/spec/evidence.md`. Whether that block is of the chain is for whoever
//! knows a block hash from elsewhere: nothing in a file can say so.

use alloy::primitives::{Address, B256, Bytes, KECCAK256_EMPTY, Log, U256, keccak256};
use alloy_rlp::{Decodable, Encodable};
use alloy_trie::{Nibbles, TrieAccount, proof::verify_proof};
use serde::{Deserialize, Serialize};

/// At most this many nodes in one proof: a key has 64 nibbles.
const NODES_MAX: usize = 65;
/// At most this many bytes in a header, an account, a receipt or a node.
const BYTES_MAX: usize = 1 << 20;

/// One storage word and its proof under the account's storage root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageProof {
    /// Which slot.
    pub slot: B256,
    /// Its word.
    pub word: B256,
    /// RLP of the trie's nodes from the root down.
    pub proof: Vec<Bytes>,
}

/// One transaction and its receipt, each with its proof under the block's header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptProof {
    /// Index of the transaction in its block.
    pub index: u64,
    /// The receipt as the trie holds it (EIP-2718).
    pub receipt: Bytes,
    /// RLP of the receipts trie's nodes from the root down.
    pub proof: Vec<Bytes>,
    /// The transaction as the trie holds it (EIP-2718); its keccak256 is its hash.
    pub transaction: Bytes,
    /// RLP of the transactions trie's nodes from the root down.
    pub transaction_proof: Vec<Bytes>,
}

/// One account and its proof under the block's state root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountProof {
    /// RLP of the account: nonce, balance, storage root, code hash; empty if the proof shows that there is none.
    pub account: Bytes,
    /// RLP of the state trie's nodes from the root down.
    pub proof: Vec<Bytes>,
}

/// What the registry's lists say about the run's CVM image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryProof {
    /// The `DstackKms`.
    pub address: Address,
    /// RLP of its account.
    pub account: Bytes,
    /// RLP of the state trie's nodes from the root down.
    pub account_proof: Vec<Bytes>,
    /// Words of its storage after the block.
    pub storage: Vec<StorageProof>,
}

/// Section `chain` of a result file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainProof {
    /// RLP of the block's header; its keccak256 is the block's hash.
    pub header: Bytes,
    /// RLP of the contract's account: nonce, balance, storage root, code hash.
    pub account: Bytes,
    /// RLP of the state trie's nodes from the root down.
    pub account_proof: Vec<Bytes>,
    /// Words of the contract's storage after the block.
    pub storage: Vec<StorageProof>,
    /// The transaction that posted the run's receipt.
    pub receipt: ReceiptProof,
    /// The analyst's account: has it code, or is it a key's?
    pub analyst: AccountProof,
    /// The registry's word about the CVM image, for terms that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<RegistryProof>,
}

/// What does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Not the RLP of a block header.
    #[error("the header is not the RLP of a block header: {0}")]
    Header(String),
    /// An account is not under the state root.
    #[error("the account {0} is not proved under the block's state root: {1}")]
    Account(Address, String),
    /// A word is not under the storage root.
    #[error("the storage word at {slot} is not proved under its contract's storage root: {reason}")]
    Storage {
        /// Which slot.
        slot: B256,
        /// Why.
        reason: String,
    },
    /// Other slots than those that the file's claims depend on, or in another order.
    #[error("the storage words are not those of this run: {0}")]
    Slots(&'static str),
    /// The receipt is not under the receipts root.
    #[error("the transaction's receipt is not proved under the block's receipts root: {0}")]
    Receipt(String),
    /// The transaction is not under the transactions root.
    #[error("the transaction is not proved under the block's transactions root: {0}")]
    Transaction(String),
}

/// What a verifier takes from a block's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// keccak256 of the header's RLP.
    pub hash: B256,
    /// Block number.
    pub number: u64,
    /// Unix seconds.
    pub timestamp: u64,
    /// Root of the accounts after the block.
    pub state_root: B256,
    /// Root of the block's transactions.
    pub transactions_root: B256,
    /// Root of the block's receipts.
    pub receipts_root: B256,
}

fn next<T: Decodable>(rest: &mut &[u8]) -> Result<T, alloy_rlp::Error> {
    T::decode(rest)
}

fn skip(rest: &mut &[u8], items: usize) -> Result<(), alloy_rlp::Error> {
    for _ in 0..items {
        let header = alloy_rlp::Header::decode(rest)?;
        *rest = rest.get(header.payload_length..).ok_or(alloy_rlp::Error::InputTooShort)?;
    }
    Ok(())
}

/// The payload of a list that is all of `bytes`.
fn list(bytes: &[u8]) -> Result<&[u8], alloy_rlp::Error> {
    let mut rest = bytes;
    let payload = alloy_rlp::Header::decode_bytes(&mut rest, true)?;
    if rest.is_empty() { Ok(payload) } else { Err(alloy_rlp::Error::UnexpectedLength) }
}

impl Header {
    /// Reads the fields by their place, so that fields which later forks append do not matter.
    pub fn decode(bytes: &[u8]) -> Result<Self, ProofError> {
        let fields = || {
            let mut rest = list(bytes)?;
            skip(&mut rest, 3)?; // parent, ommers, beneficiary
            let state_root = next(&mut rest)?;
            let transactions_root = next(&mut rest)?;
            let receipts_root = next(&mut rest)?;
            skip(&mut rest, 2)?; // bloom, difficulty
            let number = next(&mut rest)?;
            skip(&mut rest, 2)?; // gas limit, gas used
            let timestamp = next(&mut rest)?;
            Ok(Self {
                hash: keccak256(bytes),
                number,
                timestamp,
                state_root,
                transactions_root,
                receipts_root,
            })
        };
        fields().map_err(|e: alloy_rlp::Error| ProofError::Header(e.to_string()))
    }
}

fn prove(root: B256, key: &[u8], value: Option<Vec<u8>>, proof: &[Bytes]) -> Result<(), String> {
    if proof.len() > NODES_MAX || proof.iter().any(|node| node.len() > BYTES_MAX) {
        return Err("the proof is longer than any can be".to_owned());
    }
    verify_proof(root, Nibbles::unpack(key), value, proof).map_err(|e| e.to_string())
}

/// A word that is zero is absent; anvil keeps it as a leaf.
fn prove_word(root: B256, entry: &StorageProof) -> Result<(), String> {
    let key = keccak256(entry.slot);
    let leaf = Some(alloy_rlp::encode(U256::from_be_bytes(entry.word.0)));
    if entry.word.is_zero() && prove(root, key.as_slice(), None, &entry.proof).is_ok() {
        return Ok(());
    }
    prove(root, key.as_slice(), leaf, &entry.proof)
}

/// The logs of a transaction that succeeded, from its receipt as the trie holds it.
fn logs(receipt: &[u8]) -> Result<Vec<Log>, String> {
    let fields = || {
        // A type byte precedes the list, but for receipts from before EIP-2718.
        let body = match receipt.split_first() {
            Some((kind, body)) if *kind < 0x80 => body,
            _ => receipt,
        };
        let mut rest = list(body)?;
        let succeeded = alloy_rlp::Header::decode_bytes(&mut rest, false)? == [1];
        skip(&mut rest, 2)?; // cumulative gas, bloom
        Ok((succeeded, next::<Vec<Log>>(&mut rest)?))
    };
    match fields() {
        Ok((true, logs)) => Ok(logs),
        Ok((false, _)) => Err("the transaction did not succeed".to_owned()),
        Err(e) => Err(alloy_rlp::Error::to_string(&e)),
    }
}

impl ChainProof {
    /// The header, unproved: its hash is what everything else rests on.
    pub fn header(&self) -> Result<Header, ProofError> {
        if self.header.len() > BYTES_MAX {
            return Err(ProofError::Header("it is longer than any header".to_owned()));
        }
        Header::decode(&self.header)
    }

    /// The account of `app` after the block, proved.
    pub fn account(&self, header: &Header, app: Address) -> Result<TrieAccount, ProofError> {
        account(header, app, &self.account, &self.account_proof)
    }

    /// The words at exactly these slots of `app`, in this order, proved under the account's storage root.
    pub fn words(&self, account: &TrieAccount, slots: &[B256]) -> Result<Vec<B256>, ProofError> {
        words(account, slots, &self.storage)
    }

    /// Has `analyst` code, so that it may sign by EIP-1271?
    pub fn analyst_has_code(&self, header: &Header, analyst: Address) -> Result<bool, ProofError> {
        let AccountProof { account: bytes, proof } = &self.analyst;
        if bytes.is_empty() {
            return prove(header.state_root, keccak256(analyst).as_slice(), None, proof)
                .map(|()| false)
                .map_err(|reason| ProofError::Account(analyst, reason));
        }
        Ok(account(header, analyst, bytes, proof)?.code_hash != KECCAK256_EMPTY)
    }

    /// The logs of the transaction, which succeeded, proved under the block's receipts root.
    pub fn logs(&self, header: &Header) -> Result<Vec<Log>, ProofError> {
        let ReceiptProof { index, receipt, proof, .. } = &self.receipt;
        prove(header.receipts_root, &index_key(*index), Some(receipt.to_vec()), proof)
            .and_then(|()| logs(receipt))
            .map_err(ProofError::Receipt)
    }

    /// The hash of the transaction with that receipt, proved under the block's transactions root.
    pub fn transaction(&self, header: &Header) -> Result<B256, ProofError> {
        let ReceiptProof { index, transaction, transaction_proof, .. } = &self.receipt;
        prove(header.transactions_root, &index_key(*index), Some(transaction.to_vec()), transaction_proof)
            .map(|()| keccak256(transaction))
            .map_err(ProofError::Transaction)
    }
}

impl RegistryProof {
    /// The words at exactly these slots, in this order, proved under the registry's storage root.
    pub fn words(&self, header: &Header, slots: &[B256]) -> Result<Vec<B256>, ProofError> {
        words(&account(header, self.address, &self.account, &self.account_proof)?, slots, &self.storage)
    }
}

fn account(
    header: &Header,
    address: Address,
    bytes: &[u8],
    proof: &[Bytes],
) -> Result<TrieAccount, ProofError> {
    let failed = |reason| ProofError::Account(address, reason);
    prove(header.state_root, keccak256(address).as_slice(), Some(bytes.to_vec()), proof).map_err(failed)?;
    let mut rest = bytes;
    match TrieAccount::decode(&mut rest) {
        Ok(account) if rest.is_empty() => Ok(account),
        Ok(_) => Err(failed("bytes after the account".to_owned())),
        Err(e) => Err(failed(e.to_string())),
    }
}

fn words(account: &TrieAccount, slots: &[B256], storage: &[StorageProof]) -> Result<Vec<B256>, ProofError> {
    if storage.len() != slots.len() {
        return Err(ProofError::Slots("there are more or fewer of them"));
    }
    let word = |(slot, entry): (&B256, &StorageProof)| {
        if entry.slot != *slot {
            return Err(ProofError::Slots("another one stands in its place"));
        }
        prove_word(account.storage_root, entry)
            .map_err(|reason| ProofError::Storage { slot: *slot, reason })?;
        Ok(entry.word)
    };
    slots.iter().zip(storage).map(word).collect()
}

/// Key of a transaction, and of its receipt, in the block's tries: RLP of its index.
pub fn index_key(index: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(9);
    index.encode(&mut key);
    key
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The nodes, receipt and header of a committed file.
    fn seeds() -> Vec<Bytes> {
        let file: serde_json::Value =
            serde_json::from_str(include_str!("../../test/vectors/evidence/sound.json")).unwrap();
        let chain: ChainProof = serde_json::from_value(file["chain"].clone()).unwrap();
        let words = chain.storage.into_iter().flat_map(|entry| entry.proof);
        let others = [chain.header, chain.account, chain.receipt.receipt, chain.receipt.transaction];
        let transaction = chain.receipt.transaction_proof;
        let nodes =
            chain.account_proof.into_iter().chain(words).chain(chain.receipt.proof).chain(transaction);
        nodes.chain(chain.analyst.proof).chain(others).collect()
    }

    /// `bytes` as every part of a section, under the roots that make each of them the first node of its proof.
    fn read(bytes: &[u8]) {
        let (node, root) = (Bytes::copy_from_slice(bytes), keccak256(bytes));
        let _ = Header::decode(bytes);
        let _ = logs(bytes);
        let header = Header {
            hash: root,
            number: 0,
            timestamp: 0,
            state_root: root,
            transactions_root: root,
            receipts_root: root,
        };
        let word = StorageProof { slot: B256::ZERO, word: B256::ZERO, proof: vec![node.clone()] };
        let proof = ChainProof {
            header: node.clone(),
            account: node.clone(),
            account_proof: vec![node.clone()],
            storage: vec![word.clone()],
            receipt: ReceiptProof {
                index: 0,
                receipt: node.clone(),
                proof: vec![node.clone()],
                transaction: node.clone(),
                transaction_proof: vec![node.clone()],
            },
            analyst: AccountProof { account: node.clone(), proof: vec![node.clone()] },
            registry: None,
        };
        let registry = RegistryProof {
            address: Address::ZERO,
            account: node.clone(),
            account_proof: vec![node.clone()],
            storage: vec![word],
        };
        let _ = registry.words(&header, &[B256::ZERO]);
        let _ = proof.account(&header, Address::ZERO);
        let _ = proof.analyst_has_code(&header, Address::ZERO);
        let _ = proof.transaction(&header);
        let absent = AccountProof { account: Bytes::new(), proof: vec![node] };
        let _ = ChainProof { analyst: absent, ..proof.clone() }.analyst_has_code(&header, Address::ZERO);
        let _ = proof.logs(&header);
        let account = TrieAccount { storage_root: root, ..TrieAccount::default() };
        let _ = proof.words(&account, &[B256::ZERO]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            read(&bytes);
        }

        #[test]
        fn changed_nodes_are_refused_or_read(
            seed in 0usize..1000, at in 0usize..1000, byte in any::<u8>(), cut in 0usize..1000
        ) {
            let seeds = seeds();
            let mut bytes = seeds[seed % seeds.len()].to_vec();
            let length = bytes.len();
            bytes[at % length] = byte;
            bytes.truncate(length - if cut < 500 { 0 } else { cut % length });
            read(&bytes);
        }
    }

    #[test]
    fn a_header_is_read_by_place_whatever_follows() {
        let mut payload = Vec::new();
        for _ in 0..3 {
            B256::ZERO.encode(&mut payload);
        }
        for byte in 1..=3 {
            B256::repeat_byte(byte).encode(&mut payload);
        }
        [0u8; 256].as_slice().encode(&mut payload);
        for number in [0u64, 77, 30_000_000, 21_000, 1_790_000_000] {
            number.encode(&mut payload);
        }
        "a field of a later fork".encode(&mut payload);
        let mut bytes = Vec::new();
        alloy_rlp::Header { list: true, payload_length: payload.len() }.encode(&mut bytes);
        bytes.extend(payload);
        let header = Header::decode(&bytes).unwrap();
        assert_eq!((header.number, header.timestamp), (77, 1_790_000_000));
        assert_eq!(header.state_root, B256::repeat_byte(1));
        assert_eq!(header.transactions_root, B256::repeat_byte(2));
        assert_eq!(header.receipts_root, B256::repeat_byte(3));
        assert_eq!(header.hash, keccak256(&bytes));
        for cut in 0..bytes.len() {
            assert!(Header::decode(&bytes[..cut]).is_err(), "{cut}");
        }
        bytes.push(0);
        assert!(Header::decode(&bytes).is_err());
    }
}
