//! The release decision from eight storage words, each proved against the state root of a block: what a key service or
//! an auditor can do without believing any endpoint. Slots: `test/golden/DstackApp.storage.json`.

use alloy::{
    primitives::{Address, B256, Bytes, U256, keccak256},
    providers::Provider,
    rpc::types::BlockId,
};
use alloy_trie::{Nibbles, TrieAccount, proof::verify_proof};
use cohort_cli::dev::Stack;
use cohort_protocol::{
    abi::IDstackApp,
    decision::{AppFacts, DatasetFacts, Decision, ProposalFacts, ReleaseFacts, RunFacts, decide},
    ids::{DatasetId, OwnerId, ProposalId, RunId},
    terms::Terms,
};

const CONFIG: u64 = 0;
const OWNER_INDEX: u64 = 2;
const PROPOSALS: u64 = 5;
const CURRENT: u64 = 6;
const RUNS: u64 = 9;
const DATASETS: u64 = 10;

/// What `releaseDecision` is asked.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) terms: Terms,
    pub(crate) owner: OwnerId,
    pub(crate) dataset: DatasetId,
    pub(crate) run: RunId,
}

/// Word `offset` of the mapping entry at `key`.
fn slot(key: B256, mapping: u64, offset: u64) -> B256 {
    let hash = keccak256([key.0, U256::from(mapping).to_be_bytes()].concat());
    B256::from(U256::from_be_bytes(hash.0) + U256::from(offset))
}

impl Question {
    fn slots(&self) -> Vec<B256> {
        let proposal = self.terms.proposal_id().0;
        vec![
            B256::from(U256::from(CONFIG)),
            slot(proposal, PROPOSALS, 0),
            slot(self.terms.compose_hash.0, CURRENT, 0),
            slot(self.owner.word(), OWNER_INDEX, 0),
            slot(self.dataset.0, DATASETS, 0),
            slot(self.dataset.0, DATASETS, 1),
            slot(self.run.0, RUNS, 0),
            slot(self.run.0, RUNS, 1),
        ]
    }

    /// The facts in the words, at a block's time.
    fn facts(&self, words: &[U256], block_time: u64) -> ReleaseFacts {
        let &[config, p, current, owner, compose, d, run, r] = words else { panic!("eight words") };
        let index_plus_one = field(owner, 0, 1) as u8;
        let closed = field(r, 24, 1) != 0;
        ReleaseFacts {
            proposal_id: self.terms.proposal_id(),
            compose_hash: self.terms.compose_hash,
            current_proposal: Some(ProposalId(B256::from(current))),
            app: AppFacts {
                active_owners: field(config, 0, 16),
                threshold: field(config, 16, 1) as u8,
                era: field(config, 19, 4) as u32,
                block_time,
            },
            proposal: Some(ProposalFacts {
                created: field(p, 29, 1) != 0,
                revoked: field(p, 30, 1) != 0,
                superseded: field(p, 31, 1) != 0,
                era: field(p, 21, 4) as u32,
                expiry: field(p, 16, 5) as u64,
                approvals: field(p, 0, 16),
                threshold_snapshot: field(p, 29, 1) as u8,
            }),
            owner_index: index_plus_one.checked_sub(1),
            dataset: (field(d, 0, 1) != 0).then(|| DatasetFacts {
                owner_index: field(d, 2, 1) as u8,
                compose_hash: B256::from(compose).into(),
                superseded: field(d, 1, 1) != 0,
            }),
            run: (field(r, 16, 8) != 0).then(|| RunFacts {
                proposal_id: ProposalId(B256::from(run)),
                participants: field(r, 0, 16),
                closed,
            }),
        }
    }
}

/// `bytes` bytes from byte `from` on, counted from the low end as solc does.
fn field(word: U256, from: usize, bytes: usize) -> u128 {
    let shifted: U256 = word >> (8 * from);
    (shifted & ((U256::from(1) << (8 * bytes)) - U256::from(1))).to()
}

/// Storage words of `app` at the newest block, proved; and that block's time.
async fn proved(provider: &impl Provider, app: Address, slots: Vec<B256>) -> (BlockId, Vec<U256>, u64) {
    let block = provider.get_block(BlockId::latest()).await.unwrap().expect("a block");
    let header = &block.header;
    assert_eq!(header.inner.hash_slow(), header.hash, "the header is what the block's hash commits to");
    let at = BlockId::hash(header.hash);
    let answer = provider.get_proof(app, slots.clone()).block_id(at).await.unwrap();
    let account = TrieAccount {
        nonce: answer.nonce,
        balance: answer.balance,
        storage_root: answer.storage_hash,
        code_hash: answer.code_hash,
    };
    let check = |root, key: B256, value: Option<Vec<u8>>, proof: &[Bytes]| {
        verify_proof(root, Nibbles::unpack(key), value, proof)
    };
    let leaf = Some(alloy_rlp::encode(account));
    check(header.state_root, keccak256(app), leaf.clone(), &answer.account_proof)
        .expect("the account is proved");
    assert!(check(B256::ZERO, keccak256(app), leaf, &answer.account_proof).is_err());
    let mut words = Vec::new();
    for (slot, entry) in slots.iter().zip(&answer.storage_proof) {
        let value = (!entry.value.is_zero()).then(|| alloy_rlp::encode(entry.value));
        check(answer.storage_hash, keccak256(slot), value, &entry.proof).expect("the word is proved");
        let other = Some(alloy_rlp::encode(entry.value ^ U256::from(1)));
        assert!(
            check(answer.storage_hash, keccak256(slot), other, &entry.proof).is_err(),
            "another word is not"
        );
        words.push(entry.value);
    }
    assert_eq!(words.len(), slots.len());
    (at, words, header.timestamp)
}

/// The contract's view, and the same from proved words.
pub(crate) async fn decision(stack: &Stack, provider: &impl Provider, question: &Question) -> Decision {
    let (at, words, time) = proved(provider, stack.app, question.slots()).await;
    let Question { terms, owner, dataset, run } = question;
    let app = IDstackApp::new(stack.app, provider);
    let view = app
        .releaseDecision(terms.proposal_id().0, terms.compose_hash.0, owner.word(), dataset.0, run.0)
        .block(at)
        .call()
        .await
        .unwrap();
    let decided = decide(&question.facts(&words, time));
    assert_eq!(Decision::try_from(view as u8), Ok(decided), "{question:?}");
    decided
}
