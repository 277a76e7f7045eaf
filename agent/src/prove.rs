//! Collects the section `chain` of a result file from an endpoint. What an endpoint answers is proved before it is
//! taken: `docs/spec/evidence.md`.

use alloy::{
    consensus::ReceiptEnvelope,
    eips::{BlockId, Encodable2718},
    primitives::{Address, B256, Bytes},
    providers::{DynProvider, Provider},
    rpc::types::{Transaction, TransactionReceipt},
    transports::TransportError,
};
use alloy_trie::{HashBuilder, Nibbles, TrieAccount, proof::ProofRetainer};
use cohort_protocol::{
    chain_proof::{
        AccountProof, ChainProof, Header, ProofError, ReceiptProof, RegistryProof, StorageProof, index_key,
    },
    revert,
    sign_rpc::ResultFile,
};

/// An endpoint gives no usable proofs.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// It does not answer.
    #[error("the RPC endpoint does not give {what}: {reason}")]
    Rpc {
        /// What was asked for.
        what: &'static str,
        /// Why; endpoint addresses are cut out.
        reason: String,
    },
    /// It does not know the block, or the transaction in it.
    #[error("the RPC endpoint does not know {0}")]
    Unknown(&'static str),
    /// What it answers, encoded as Ethereum does, is not what the block's hash commits to.
    #[error("{0} of this chain are not encoded as Ethereum's: this version cannot prove them")]
    Encoding(&'static str),
    /// Its proofs do not hold.
    #[error("the RPC endpoint's proofs do not hold: {0}")]
    Proof(#[from] ProofError),
}

fn rpc(what: &'static str) -> impl Fn(TransportError) -> ProveError {
    move |error| ProveError::Rpc { what, reason: revert::without_urls(&error.to_string()) }
}

/// Proves what `result` claims of the chain, after the block that its position names.
pub async fn chain_proof<E>(
    provider: &DynProvider,
    result: &ResultFile<E>,
) -> Result<ChainProof, ProveError> {
    let at = BlockId::hash(result.position.block_hash);
    let block = block(provider, result.position.block_hash).await?;
    let header = Header::decode(&block.header)?;
    let slots = result.storage_slots();
    let app = account_and_words(provider, at, result.app, &slots).await?;
    let analyst = account_and_words(provider, at, result.run.analyst, &[]).await?;
    let receipts = provider
        .get_block_receipts(at)
        .await
        .map_err(rpc("a block's receipts (eth_getBlockReceipts)"))?
        .ok_or(ProveError::Unknown("the block's receipts"))?;
    let mut proof = ChainProof {
        receipt: receipt_proof(receipts, &block.transactions, result.position.transaction, &header)?,
        header: block.header,
        account: app.account,
        account_proof: app.account_proof,
        storage: app.storage,
        analyst: AccountProof { account: analyst.account, proof: analyst.account_proof },
        registry: None,
    };
    proof.words(&proof.account(&header, result.app)?, &slots)?;
    proof.logs(&header)?;
    proof.transaction(&header)?;
    if proof.analyst_has_code(&header, result.run.analyst).is_err() {
        // An account that never was: endpoints answer with an empty one, and nodes that show that there is none.
        proof.analyst.account = Bytes::new();
        proof.analyst_has_code(&header, result.run.analyst)?;
    }
    Ok(proof)
}

/// Proves what the registry's lists said of a CVM image ([`cohort_protocol::storage::image`]) after that block.
pub async fn registry_proof(
    provider: &DynProvider,
    header: &Header,
    registry: Address,
    slots: &[B256],
) -> Result<RegistryProof, ProveError> {
    let proof = account_and_words(provider, BlockId::hash(header.hash), registry, slots).await?;
    proof.words(header, slots)?;
    Ok(proof)
}

/// The account at `address` and words of its storage, as the endpoint tells them; nothing is proved yet.
async fn account_and_words(
    provider: &DynProvider,
    at: BlockId,
    address: Address,
    slots: &[B256],
) -> Result<RegistryProof, ProveError> {
    let answer = provider
        .get_proof(address, slots.to_vec())
        .block_id(at)
        .await
        .map_err(rpc("storage proofs (eth_getProof)"))?;
    let account = TrieAccount {
        nonce: answer.nonce,
        balance: answer.balance,
        storage_root: answer.storage_hash,
        code_hash: answer.code_hash,
    };
    let storage = slots
        .iter()
        .zip(answer.storage_proof)
        .map(|(slot, entry)| StorageProof { slot: *slot, word: B256::from(entry.value), proof: entry.proof })
        .collect();
    Ok(RegistryProof {
        address,
        account: alloy_rlp::encode(account).into(),
        account_proof: answer.account_proof,
        storage,
    })
}

/// A block as its hash commits to it.
struct Block {
    /// RLP of its header.
    header: Bytes,
    /// Its transactions as their trie holds them.
    transactions: Vec<Bytes>,
}

async fn block(provider: &DynProvider, hash: B256) -> Result<Block, ProveError> {
    let block = provider.get_block_by_hash(hash).full().await.map_err(rpc("the block"))?;
    let block = block.ok_or(ProveError::Unknown("the block"))?;
    if block.header.inner.hash_slow() != hash {
        return Err(ProveError::Encoding("block headers"));
    }
    let header = alloy_rlp::encode(&block.header.inner).into();
    let encoded = |transaction: Transaction| transaction.inner.encoded_2718().into();
    let transactions = block.transactions.into_transactions().map(encoded).collect();
    Ok(Block { header, transactions })
}

fn receipt_proof(
    receipts: Vec<TransactionReceipt>,
    transactions: &[Bytes],
    transaction: B256,
    header: &Header,
) -> Result<ReceiptProof, ProveError> {
    let index = receipts.iter().position(|receipt| receipt.transaction_hash == transaction);
    let index = index.ok_or(ProveError::Unknown("the transaction of the receipt in that block"))?;
    let encoded: Vec<Bytes> = receipts
        .into_iter()
        .map(|receipt| ReceiptEnvelope::encoded_2718(&receipt.into_primitives_receipt().inner).into())
        .collect();
    let (root, proof) = ordered_trie(&encoded, index);
    if root != header.receipts_root {
        return Err(ProveError::Encoding("receipts"));
    }
    let (root, transaction_proof) = ordered_trie(transactions, index);
    if root != header.transactions_root {
        return Err(ProveError::Encoding("transactions"));
    }
    let receipt = encoded.get(index).cloned().unwrap_or_default();
    let transaction = transactions.get(index).cloned().unwrap_or_default();
    Ok(ReceiptProof { index: index as u64, receipt, proof, transaction, transaction_proof })
}

/// Root of a block's transactions, or of their receipts, and the nodes on the way to one of them.
pub fn ordered_trie(encoded: &[Bytes], index: usize) -> (B256, Vec<Bytes>) {
    let key = |index: usize| Nibbles::unpack(index_key(index as u64));
    let mut leaves: Vec<_> = encoded.iter().enumerate().map(|(i, leaf)| (key(i), leaf)).collect();
    leaves.sort();
    let mut trie = HashBuilder::default().with_proof_retainer(ProofRetainer::from_iter([key(index)]));
    for (key, leaf) in leaves {
        trie.add_leaf(key, leaf);
    }
    let root = trie.root();
    let nodes = trie.take_proof_nodes().into_nodes_sorted();
    (root, nodes.into_iter().map(|(_, node)| node).collect())
}
