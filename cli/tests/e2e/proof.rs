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
    decision::{Decision, ReleaseFacts, RunFacts, decide},
    ids::{DatasetId, OwnerId, ProposalId, RunId},
    storage,
    terms::Terms,
};

/// What `releaseDecision` is asked.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) terms: Terms,
    pub(crate) owner: OwnerId,
    pub(crate) dataset: DatasetId,
    pub(crate) run: RunId,
}

impl Question {
    fn slots(&self) -> Vec<B256> {
        let mut slots = vec![
            storage::config(),
            storage::proposal(self.terms.proposal_id()),
            storage::current_proposal(self.terms.compose_hash),
            storage::owner_index(&self.owner),
        ];
        slots.extend(storage::dataset(self.dataset));
        slots.extend(storage::run(self.run));
        slots
    }

    /// The facts in the words, at a block's time.
    fn facts(&self, words: &[B256], block_time: u64) -> ReleaseFacts {
        let &[config, proposal, current, owner, compose, dataset, digest, run] = words else {
            panic!("eight words")
        };
        let opened = storage::Run::of(run).expect("a run");
        ReleaseFacts {
            proposal_id: self.terms.proposal_id(),
            compose_hash: self.terms.compose_hash,
            current_proposal: Some(ProposalId(current)),
            app: storage::Config::of(config).expect("a configuration").facts(block_time),
            proposal: Some(storage::Proposal::of(proposal).expect("a proposal").facts),
            owner_index: storage::owner_index_of(owner).expect("an index"),
            dataset: storage::dataset_of([compose, dataset]).expect("a dataset"),
            run: (opened.opened_at != 0).then_some(RunFacts {
                proposal_id: ProposalId(digest),
                participants: opened.participants,
                closed: opened.closed,
            }),
        }
    }
}

/// Storage words of `app` at the newest block, proved; and that block's time.
async fn proved(provider: &impl Provider, app: Address, slots: Vec<B256>) -> (BlockId, Vec<B256>, u64) {
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
        words.push(B256::from(entry.value));
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
