//! Collects the section `chain` of a result file from an endpoint. What an endpoint answers is proved before it is
//! taken: `docs/spec/evidence.md`.

use alloy::{
    consensus::ReceiptEnvelope,
    eips::{BlockId, Encodable2718},
    primitives::{B256, Bytes},
    providers::{DynProvider, Provider},
    rpc::types::TransactionReceipt,
    transports::TransportError,
};
use alloy_trie::{HashBuilder, Nibbles, TrieAccount, proof::ProofRetainer};
use cohort_protocol::{
    chain_proof::{ChainProof, Header, ProofError, ReceiptProof, StorageProof, receipt_key},
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
    let header = header(provider, result.position.block_hash).await?;
    let slots = result.storage_slots();
    let answer = provider
        .get_proof(result.app, slots.clone())
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
    let receipts = provider
        .get_block_receipts(at)
        .await
        .map_err(rpc("a block's receipts (eth_getBlockReceipts)"))?
        .ok_or(ProveError::Unknown("the block's receipts"))?;
    let proof = ChainProof {
        receipt: receipt_proof(receipts, result.position.transaction, &Header::decode(&header)?)?,
        header,
        account: alloy_rlp::encode(account).into(),
        account_proof: answer.account_proof,
        storage,
    };
    let header = proof.header()?;
    proof.words(&proof.account(&header, result.app)?, &slots)?;
    proof.logs(&header)?;
    Ok(proof)
}

/// RLP of the header of the block with this hash.
async fn header(provider: &DynProvider, hash: B256) -> Result<Bytes, ProveError> {
    let block = provider.get_block_by_hash(hash).await.map_err(rpc("the block"))?;
    let header = block.ok_or(ProveError::Unknown("the block"))?.header.inner;
    if header.hash_slow() != hash {
        return Err(ProveError::Encoding("block headers"));
    }
    Ok(alloy_rlp::encode(header).into())
}

fn receipt_proof(
    receipts: Vec<TransactionReceipt>,
    transaction: B256,
    header: &Header,
) -> Result<ReceiptProof, ProveError> {
    let index = receipts.iter().position(|receipt| receipt.transaction_hash == transaction);
    let index = index.ok_or(ProveError::Unknown("the transaction of the receipt in that block"))?;
    let encoded: Vec<Bytes> = receipts
        .into_iter()
        .map(|receipt| ReceiptEnvelope::encoded_2718(&receipt.into_primitives_receipt().inner).into())
        .collect();
    let (root, proof) = receipts_trie(&encoded, index);
    if root != header.receipts_root {
        return Err(ProveError::Encoding("receipts"));
    }
    let receipt = encoded.get(index).cloned().unwrap_or_default();
    Ok(ReceiptProof { index: index as u64, receipt, proof })
}

/// Root of a block's receipts, and the nodes on the way to one of them.
pub fn receipts_trie(encoded: &[Bytes], index: usize) -> (B256, Vec<Bytes>) {
    let key = |index: usize| Nibbles::unpack(receipt_key(index as u64));
    let mut leaves: Vec<_> = encoded.iter().enumerate().map(|(i, receipt)| (key(i), receipt)).collect();
    leaves.sort();
    let mut trie = HashBuilder::default().with_proof_retainer(ProofRetainer::from_iter([key(index)]));
    for (key, receipt) in leaves {
        trie.add_leaf(key, receipt);
    }
    let root = trie.root();
    let nodes = trie.take_proof_nodes().into_nodes_sorted();
    (root, nodes.into_iter().map(|(_, node)| node).collect())
}
