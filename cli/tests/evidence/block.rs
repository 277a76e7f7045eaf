//! A chain of one block: its storage, accounts and receipts as tries, and the proofs under its header.

use alloy::{
    consensus::{Header, Receipt, ReceiptEnvelope, TxReceipt},
    eips::Encodable2718,
    primitives::{Address, B256, Bytes, Log, LogData, U256, keccak256},
    sol_types::SolEvent,
};
use alloy_trie::{HashBuilder, Nibbles, TrieAccount, proof::ProofRetainer};
use cohort_agent::{prove::receipts_trie, run::RunResult};
use cohort_protocol::{
    abi::IDstackApp,
    chain_proof::{ChainProof, ReceiptProof, StorageProof},
};

use super::study::{PRODUCED_AT, domain};

const NUMBER: u64 = 77;
/// Stands for the code of the contract.
pub(crate) const CODE: &[u8] = b"the code of DstackApp";

/// The storage words, in the order of the file's slots.
pub(crate) struct Words {
    pub(crate) config: U256,
    pub(crate) kms_root: U256,
    pub(crate) proposal: U256,
    pub(crate) analyst: U256,
    pub(crate) agent_revoked: U256,
    pub(crate) digest: U256,
    pub(crate) run: U256,
    /// Owner's index plus one, compose hash, state; for each input.
    pub(crate) inputs: Vec<[U256; 3]>,
}

fn word(bytes: B256) -> U256 {
    U256::from_be_bytes(bytes.0)
}

/// `value` from byte `byte` on, counted from the low end.
pub(crate) fn field(value: u64, byte: usize) -> U256 {
    U256::from(value) << (8 * byte)
}

impl Words {
    /// Four owners, three needed, three approved, one run of which all is spent.
    pub(crate) fn of(result: &RunResult) -> Self {
        let terms = &result.terms;
        let compose = word(terms.compose_hash.0);
        // Zero byte 21 on: era 0. Registered; not superseded; the owner's index.
        let dataset = |owner: u64| [U256::from(owner + 1), compose, field(1, 0) | field(owner, 2)];
        Self {
            config: field(0b1111, 0) | field(3, 16) | field(4, 17) | field(4, 18) | field(4, 23),
            kms_root: word(result.binding.kms_root.into_word()),
            proposal: field(0b0111, 0) | field(terms.expiry, 16) | field(1, 25) | field(3, 29),
            analyst: U256::from(1),
            agent_revoked: U256::ZERO,
            digest: word(result.receipt.digest(&domain())),
            run: field(0b0011, 0) | field(PRODUCED_AT - 60, 16) | field(1, 24),
            inputs: vec![dataset(0), dataset(1)],
        }
    }

    fn list(&self) -> Vec<U256> {
        let mut list = vec![
            self.config,
            self.kms_root,
            self.proposal,
            self.analyst,
            self.agent_revoked,
            self.digest,
            self.run,
        ];
        list.extend(self.inputs.iter().flatten());
        list
    }
}

/// A trie's root, and for each key the nodes on its way.
fn trie(mut leaves: Vec<(B256, Vec<u8>)>, keys: &[B256]) -> (B256, Vec<Vec<Bytes>>) {
    let paths: Vec<_> = keys.iter().map(|key| Nibbles::unpack(keccak256(key))).collect();
    leaves.iter_mut().for_each(|(key, _)| *key = keccak256(*key));
    leaves.sort();
    leaves.dedup();
    let mut builder = HashBuilder::default().with_proof_retainer(ProofRetainer::from_iter(paths.clone()));
    for (key, value) in &leaves {
        builder.add_leaf(Nibbles::unpack(key), value);
    }
    let root = builder.root();
    let nodes = builder.take_proof_nodes();
    let way = |path| nodes.matching_nodes_sorted(path).into_iter().map(|(_, node)| node).collect();
    (root, paths.iter().map(way).collect())
}

/// The block's proofs for `result`, in which the event tells of `told`; and its number.
pub(crate) fn prove(result: &RunResult, told: &RunResult, words: &Words) -> (ChainProof, u64) {
    let slots = result.storage_slots();
    let list = words.list();
    let filler = (0u64..40).map(|i| (keccak256(i.to_be_bytes()), U256::from(i + 1)));
    let stored = slots.iter().copied().zip(list.iter().copied()).chain(filler);
    let leaves = stored.filter(|(_, word)| !word.is_zero()).map(|(slot, w)| (slot, alloy_rlp::encode(w)));
    let (storage_root, ways) = trie(leaves.collect(), &slots);
    let storage = slots
        .iter()
        .zip(&list)
        .zip(ways)
        .map(|((slot, word), proof)| StorageProof { slot: *slot, word: B256::from(*word), proof })
        .collect();

    let account = TrieAccount { nonce: 1, balance: U256::ZERO, storage_root, code_hash: keccak256(CODE) };
    let account = alloy_rlp::encode(account);
    let (state_root, account_proof) = accounts(result.app, &account);
    let encoded = receipts(told);
    let index = 1;
    let (receipts_root, proof) = receipts_trie(&encoded, index);
    let header = Header {
        number: NUMBER,
        timestamp: PRODUCED_AT + 30,
        gas_limit: 30_000_000,
        state_root,
        receipts_root,
        base_fee_per_gas: Some(7),
        ..Header::default()
    };
    let proof = ChainProof {
        header: alloy_rlp::encode(header).into(),
        account: account.into(),
        account_proof,
        storage,
        receipt: ReceiptProof { index: index as u64, receipt: encoded[index].clone(), proof },
    };
    (proof, NUMBER)
}

/// The state trie's leaves are keyed by the hash of 20 bytes.
fn accounts(app: Address, account: &[u8]) -> (B256, Vec<Bytes>) {
    let other = alloy_rlp::encode(TrieAccount::default());
    let mut leaves: Vec<_> =
        (1..=20).map(|byte| (keccak256(Address::repeat_byte(byte)), other.as_slice())).collect();
    leaves.push((keccak256(app), account));
    leaves.sort();
    let path = Nibbles::unpack(keccak256(app));
    let mut builder = HashBuilder::default().with_proof_retainer(ProofRetainer::from_iter([path]));
    for (key, value) in leaves {
        builder.add_leaf(Nibbles::unpack(key), value);
    }
    let root = builder.root();
    (root, builder.take_proof_nodes().into_nodes_sorted().into_iter().map(|(_, node)| node).collect())
}

/// Three transactions; the second posts the receipt.
fn receipts(told: &RunResult) -> Vec<Bytes> {
    let event = IDstackApp::ReceiptPosted {
        runId: told.receipt.run_id.0,
        proposalId: told.run.proposal_id.0,
        agent: told.certificate.agent,
        receipt: told.receipt.abi(),
        digest: told.receipt.digest(&domain()),
    };
    let other = Log { address: Address::ZERO, data: LogData::default() };
    let posted = Log { address: told.app, data: event.encode_log_data() };
    [(21_000, vec![]), (250_000, vec![other, posted]), (271_000, vec![])]
        .map(|(cumulative_gas_used, logs)| {
            let receipt = Receipt { status: true.into(), cumulative_gas_used, logs };
            let bloom = receipt.bloom();
            ReceiptEnvelope::Eip1559(alloy::consensus::ReceiptWithBloom::new(receipt, bloom))
                .encoded_2718()
                .into()
        })
        .into()
}
