//! A chain of one block: its storage, accounts and receipts as tries, and the proofs under its header.

use alloy::{
    consensus::{Header, Receipt, ReceiptEnvelope, TxReceipt},
    eips::Encodable2718,
    primitives::{Address, B256, Bytes, Log, LogData, U256, keccak256},
    sol_types::SolEvent,
};
use alloy_trie::{HashBuilder, KECCAK_EMPTY, Nibbles, TrieAccount, proof::ProofRetainer};
use cohort_agent::{prove::ordered_trie, run::RunResult};
use cohort_protocol::{
    abi::IDstackApp,
    chain_proof::{AccountProof, ChainProof, ReceiptProof, RegistryProof, StorageProof},
};

use super::study::{PRODUCED_AT, REGISTRY, domain};

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
    /// The block's time.
    pub(crate) time: u64,
    /// Code hash of the analyst's account; none: there is no such account.
    pub(crate) analyst_code: Option<B256>,
    /// Is the CVM image listed by its mr_system, and by its OS image's hash? None: the file does not tell.
    pub(crate) image: Option<[U256; 2]>,
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
            time: PRODUCED_AT + 30,
            analyst_code: Some(KECCAK_EMPTY),
            image: None,
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

/// The root of a trie of leaves at hashed keys, and for each hashed key the nodes on its way.
fn trie(mut leaves: Vec<(B256, Vec<u8>)>, keys: &[B256]) -> (B256, Vec<Vec<Bytes>>) {
    let paths: Vec<_> = keys.iter().map(Nibbles::unpack).collect();
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

/// A contract's storage with these words, and the proof of each.
fn storage(slots: &[B256], words: &[U256]) -> (B256, Vec<StorageProof>) {
    let filler = (0u64..40).map(|i| (keccak256(i.to_be_bytes()), U256::from(i + 1)));
    let stored = slots.iter().copied().zip(words.iter().copied()).chain(filler);
    let leaves = stored.filter(|(_, word)| !word.is_zero());
    let leaves = leaves.map(|(slot, word)| (keccak256(slot), alloy_rlp::encode(word))).collect();
    let keys: Vec<_> = slots.iter().map(keccak256).collect();
    let (root, ways) = trie(leaves, &keys);
    let entries = slots.iter().zip(words).zip(ways);
    let proofs = entries
        .map(|((slot, word), proof)| StorageProof { slot: *slot, word: B256::from(*word), proof })
        .collect();
    (root, proofs)
}

/// The block's proofs for `result`, in which the event tells of `told`; and its number. `image`: slots of the registry.
pub(crate) fn prove(
    result: &RunResult,
    told: &RunResult,
    words: &Words,
    image: &[B256],
) -> (ChainProof, u64) {
    let account = |storage_root, code_hash| {
        alloy_rlp::encode(TrieAccount { nonce: 1, balance: U256::ZERO, storage_root, code_hash })
    };
    let (root, app_storage) = storage(&result.storage_slots(), &words.list());
    let app = account(root, keccak256(CODE));
    let (root, registry_storage) = storage(image, &words.image.unwrap_or_default());
    let registry = account(root, keccak256(b"the code of DstackKms"));
    let analyst = words.analyst_code.map(|code| account(B256::ZERO, code));

    let other = alloy_rlp::encode(TrieAccount::default());
    let mut accounts: Vec<_> =
        (1..=20).map(|byte| (keccak256(Address::repeat_byte(byte)), other.clone())).collect();
    accounts.push((keccak256(result.app), app.clone()));
    accounts.push((keccak256(REGISTRY), registry.clone()));
    accounts.extend(analyst.iter().map(|account| (keccak256(result.run.analyst), account.clone())));
    let keys = [result.app, result.run.analyst, REGISTRY].map(keccak256);
    let (state_root, ways) = trie(accounts, &keys);
    let [account_proof, analyst_proof, registry_proof] = ways.try_into().expect("three keys");

    let (receipts, transactions, index) = (receipts(told), transactions(), 1);
    let (receipts_root, proof) = ordered_trie(&receipts, index);
    let (transactions_root, transaction_proof) = ordered_trie(&transactions, index);
    let header = Header {
        number: NUMBER,
        timestamp: words.time,
        gas_limit: 30_000_000,
        state_root,
        transactions_root,
        receipts_root,
        base_fee_per_gas: Some(7),
        ..Header::default()
    };
    let proof = ChainProof {
        header: alloy_rlp::encode(header).into(),
        account: app.into(),
        account_proof,
        storage: app_storage,
        receipt: ReceiptProof {
            index: index as u64,
            receipt: receipts[index].clone(),
            proof,
            transaction: transactions[index].clone(),
            transaction_proof,
        },
        analyst: AccountProof { account: analyst.unwrap_or_default().into(), proof: analyst_proof },
        registry: words.image.map(|_| RegistryProof {
            address: REGISTRY,
            account: registry.into(),
            account_proof: registry_proof,
            storage: registry_storage,
        }),
    };
    (proof, NUMBER)
}

/// Three of them; their content is nobody's business here.
fn transactions() -> Vec<Bytes> {
    (0u8..3).map(|index| [2, index].repeat(40).into()).collect()
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
