//! The Sign-RPC envelope: one result with everything its proof needs. Spec: `docs/spec/sign-rpc.md`.

use alloy::{
    primitives::{Address, B256, Bytes, keccak256},
    sol_types::{Eip712Domain, SolStruct},
};
use serde::{Deserialize, Serialize};

use crate::{
    abi,
    chain_proof::ChainProof,
    eip712,
    ids::{DatasetId, OwnerId, RunId},
    json::{self, CanonicalError},
    loss::Epsilon,
    release::{Binding, Certificate},
    storage,
    terms::{SignedRunRequest, Terms, decimal},
};

/// The format's name and version.
pub const FORMAT: &str = "cohort-result/1";

/// How the loss stated by a receipt is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum PrivacyProof {
    /// The recipe's author declares it.
    Declared = 0,
    /// The platform derived the sensitivities from the recipe.
    Proved = 1,
}

/// One input of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Whose.
    pub owner: OwnerId,
    /// Which sealed dataset.
    pub dataset_id: DatasetId,
}

/// keccak256 over the dataset ids, concatenated in ascending owner index.
pub fn inputs_hash(inputs: &[Input]) -> B256 {
    let bytes: Vec<u8> = inputs.iter().flat_map(|input| *input.dataset_id.as_bytes()).collect();
    keccak256(bytes)
}

/// A receipt (`Receipt` in `IDstackApp.sol`) with the agent's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedReceipt {
    /// The run.
    pub run_id: RunId,
    /// SHA-256 of the payload's RFC 8785 bytes.
    pub output_hash: B256,
    /// [`inputs_hash`].
    pub inputs_hash: B256,
    /// [`evidence_hash`].
    pub evidence_hash: B256,
    /// What the run debited.
    pub epsilon: Epsilon,
    /// What the run debited, unit 1e-18.
    #[serde(with = "decimal")]
    pub delta: u64,
    /// How the loss is known.
    pub privacy_proof: PrivacyProof,
    /// Unix seconds by the agent's clock.
    pub produced_at: u64,
    /// EIP-712 signature by the agent's certified key: 65 bytes.
    pub signature: Bytes,
}

impl SignedReceipt {
    /// The ABI form, without the signature.
    pub fn abi(&self) -> abi::Receipt {
        abi::Receipt {
            runId: self.run_id.0,
            outputHash: self.output_hash,
            inputsHash: self.inputs_hash,
            evidenceHash: self.evidence_hash,
            epsilon: self.epsilon.0,
            delta: self.delta,
            privacyProof: self.privacy_proof as u8,
            producedAt: self.produced_at,
        }
    }

    /// EIP-712 digest under `domain`: what is signed, and what the contract stores for the run.
    pub fn digest(&self, domain: &Eip712Domain) -> B256 {
        self.abi().eip712_signing_hash(domain)
    }

    /// The address that signed it, if any.
    pub fn signer(&self, domain: &Eip712Domain) -> Option<Address> {
        eip712::recover(self.digest(domain), &self.signature)
    }
}

/// Where the receipt stands on the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptPosition {
    /// Transaction that posted it.
    pub transaction: B256,
    /// Its block.
    pub block_number: u64,
    /// Hash of its block.
    pub block_hash: B256,
}

/// A whole result: `GET /v1/runs/{id}` of the agent, and the file that `cohort verify` takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResultFile<Evidence> {
    /// [`FORMAT`].
    pub format: String,
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// The consortium's contract.
    pub app: Address,
    /// `intel`, or `development` for evidence under a development root.
    pub attestation: String,
    /// The released aggregate.
    pub payload: serde_json::Value,
    /// What the agent signed and posted.
    pub receipt: SignedReceipt,
    /// Why the agent's key counts.
    pub certificate: Certificate,
    /// The terms that the owners approved.
    pub terms: Terms,
    /// The analyst's request.
    pub run: SignedRunRequest,
    /// In ascending owner index.
    pub inputs: Vec<Input>,
    /// What the quote's report data commits to.
    pub binding: Binding,
    /// TDX quote, event log, app-compose bytes, collateral as of the run.
    pub evidence: Evidence,
    /// Where the receipt is.
    pub position: ReceiptPosition,
    /// What the chain held after that block, proved; absent where no endpoint gave proofs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<ChainProof>,
}

impl<Evidence> ResultFile<Evidence> {
    /// The storage slots whose words section `chain` proves, in this order.
    pub fn storage_slots(&self) -> Vec<B256> {
        let mut slots = vec![
            storage::config(),
            storage::kms_root(),
            storage::proposal(self.run.proposal_id),
            storage::analyst(self.run.analyst),
            storage::agent_revoked(self.certificate.agent),
        ];
        slots.extend(storage::run(self.receipt.run_id));
        for input in &self.inputs {
            slots.push(storage::owner_index(&input.owner));
            slots.extend(storage::dataset(input.dataset_id));
        }
        slots
    }
}

/// SHA-256 of the RFC 8785 bytes of `{"binding": …, "evidence": …}`.
pub fn evidence_hash<E: Serialize>(binding: &Binding, evidence: &E) -> Result<B256, CanonicalError> {
    #[derive(Serialize)]
    struct Both<'a, E> {
        binding: &'a Binding,
        evidence: &'a E,
    }
    json::canonical_hash(&Both { binding, evidence })
}
