//! The release protocol between agent and KMS. Spec: `docs/spec/release.md`.
//!
//! 1. `POST /v1/challenge` gives a single-use challenge.
//! 2. The agent takes a TDX quote whose report data is [`Binding::report_data`] and asks `POST /v1/release`.
//! 3. The answer's wrap keys open only with the agent's fresh encryption key, for this run and challenge.
//! 4. They are a lease: while it computes, the agent asks `POST /v1/lease`, and stops when that is refused.

use alloy::{
    primitives::{Address, B256, Bytes},
    signers::{SignerSync, local::PrivateKeySigner},
    sol_types::Eip712Domain,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256, Sha512};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{
    abi, eip712,
    hpke::{self, HpkeError, KeyPair, PublicKey},
    ids::{ComposeHash, DatasetId, OwnerId, RunId},
    json::push_prefixed,
    terms::{SignedRunRequest, Terms},
};

/// A challenge is good for this many seconds and for one request.
pub const CHALLENGE_SECONDS: u64 = 60;

/// Answer of `POST /v1/challenge`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Challenge {
    /// Random, single use.
    pub challenge: B256,
    /// Unix seconds after which it is refused.
    pub expires_at: u64,
    /// The KMS root that will answer; part of the binding.
    pub kms_root: Address,
}

/// What a quote's report data commits to: this KMS, this challenge, this run, these fresh keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// The consortium's contract.
    pub app: Address,
    /// The KMS that gave the challenge.
    pub kms_root: Address,
    /// Its challenge.
    pub challenge: B256,
    /// The run that the keys are for.
    pub run_id: RunId,
    /// SHA-256 of the agent's X-Wing public key, to which the answer is encrypted.
    pub encryption_key_hash: B256,
    /// Address of the agent's receipt key, which the KMS certifies.
    pub receipt_key: Address,
    /// Hash of the GPU evidence, if there is any (`docs/spec/gpu-evidence.md`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_evidence_hash: Option<B256>,
}

impl Binding {
    /// SHA-512 over the length-prefixed fields under the tag `cohort-release/1`: 64 bytes, a quote's report data.
    pub fn report_data(&self) -> [u8; 64] {
        let mut input = self.without_gpu();
        if let Some(hash) = &self.gpu_evidence_hash {
            push_prefixed(&mut input, hash.as_slice());
        }
        Sha512::digest(&input).into()
    }

    /// What every GPU's report must answer: SHA-256 over the report data as it is without GPU evidence.
    pub fn gpu_nonce(&self) -> [u8; 32] {
        let report_data: [u8; 64] = Sha512::digest(self.without_gpu()).into();
        let mut input = Vec::with_capacity(128);
        push_prefixed(&mut input, b"cohort-gpu-nonce/1");
        push_prefixed(&mut input, &report_data);
        Sha256::digest(&input).into()
    }

    fn without_gpu(&self) -> Vec<u8> {
        let mut input = Vec::with_capacity(256);
        push_prefixed(&mut input, b"cohort-release/1");
        push_prefixed(&mut input, &self.chain_id.to_be_bytes());
        push_prefixed(&mut input, self.app.as_slice());
        push_prefixed(&mut input, self.kms_root.as_slice());
        push_prefixed(&mut input, self.challenge.as_slice());
        push_prefixed(&mut input, self.run_id.as_bytes());
        push_prefixed(&mut input, self.encryption_key_hash.as_slice());
        push_prefixed(&mut input, self.receipt_key.as_slice());
        input
    }
}

/// One dataset whose key is asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetRequest {
    /// Whose dataset.
    pub owner: OwnerId,
    /// The exact bytes of `envelope.json`, as text.
    pub envelope: String,
    /// BLAKE3 root of the ciphertext, as the file's `commitment` states it.
    pub data_root: B256,
}

/// Body of `POST /v1/release`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseRequest<Evidence> {
    /// The terms that the run was opened under.
    pub terms: Terms,
    /// The analyst's signed request; its struct hash is the run id.
    pub run: SignedRunRequest,
    /// What the quote's report data commits to.
    pub binding: Binding,
    /// The agent's X-Wing public key, 1216 bytes.
    pub encryption_key: Bytes,
    /// One for each owner whose key is asked for.
    pub datasets: Vec<DatasetRequest>,
    /// TDX quote, event log, app-compose bytes, collateral.
    pub evidence: Evidence,
}

/// A certificate that a key belongs to code measured as (app, compose hash), signed by the KMS root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The agent's receipt key.
    pub agent: Address,
    /// What the agent is measured as.
    pub compose_hash: ComposeHash,
    /// Unix seconds; refused from then on.
    pub not_after: u64,
    /// EIP-712 `AgentCertificate` under the app's domain, by the KMS root: 65 bytes.
    pub signature: Bytes,
}

impl Certificate {
    /// Signs a certificate with the root key.
    pub fn issue(
        root: &PrivateKeySigner,
        domain: &Eip712Domain,
        agent: Address,
        compose_hash: ComposeHash,
        not_after: u64,
    ) -> Result<Self, alloy::signers::Error> {
        let mut certificate = Self { agent, compose_hash, not_after, signature: Bytes::new() };
        let digest = eip712::digest(&certificate.abi(), domain);
        certificate.signature = root.sign_hash_sync(&digest)?.as_bytes().to_vec().into();
        Ok(certificate)
    }

    /// The ABI form, without the signature.
    pub fn abi(&self) -> abi::AgentCertificate {
        abi::AgentCertificate {
            agent: self.agent,
            composeHash: self.compose_hash.0,
            notAfter: self.not_after,
        }
    }

    /// The address that signed it under `domain`, if any.
    pub fn signer(&self, domain: &Eip712Domain) -> Option<Address> {
        eip712::recover(eip712::digest(&self.abi(), domain), &self.signature)
    }
}

/// Answer of `POST /v1/release`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseAnswer {
    /// HPKE encapsulated key.
    pub enc: Bytes,
    /// HPKE ciphertext of the JSON of [`WrapKeys`].
    pub ciphertext: Bytes,
    /// For the agent's receipt key.
    pub certificate: Certificate,
    /// What the evidence was verified under: `intel` or `development`.
    pub platform: String,
    /// Entry of the release log that records this release.
    pub log_index: u64,
}

/// Answer of `POST /v1/certify`: that of a release, without keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertifyAnswer {
    /// For the agent's receipt key.
    pub certificate: Certificate,
    /// What the evidence was verified under: `intel` or `development`.
    pub platform: String,
    /// Entry of the release log that records the decision.
    pub log_index: u64,
}

/// The secret part of the answer.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub struct WrapKeys {
    /// In the order of the request.
    pub keys: Vec<WrapKey>,
    /// For how many seconds from the request on they may be used, unless the lease is renewed. In here since nobody
    /// who does not know the keys can change it.
    pub lease_seconds: u64,
}

/// One dataset's wrap key.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub struct WrapKey {
    /// Which dataset.
    #[zeroize(skip)]
    pub dataset_id: DatasetId,
    /// The 32 bytes, lower-case hex.
    pub wrap_key: String,
}

impl WrapKeys {
    /// Encrypts to the agent's key, bound to the report data of the request.
    pub fn seal(&self, agent: &PublicKey, binding: &Binding) -> Result<(Vec<u8>, Vec<u8>), HpkeError> {
        let mut plaintext = serde_json::to_vec(self).map_err(|_| HpkeError::Seal)?;
        let sealed = hpke::seal(agent, ANSWER_INFO, &binding.report_data(), &plaintext);
        plaintext.zeroize();
        sealed
    }

    /// Opens an answer.
    pub fn open(agent: &KeyPair, binding: &Binding, answer: &ReleaseAnswer) -> Result<Self, HpkeError> {
        let mut plaintext =
            hpke::open(agent, &answer.enc, ANSWER_INFO, &binding.report_data(), &answer.ciphertext)?;
        let keys = serde_json::from_slice(&plaintext).map_err(|_| HpkeError::Open);
        plaintext.zeroize();
        keys
    }
}

alloy::sol! {
    /// EIP-712: the KMS root has seen the receipt of a run, by its digest, at the confirmed depth.
    #[derive(Debug)]
    struct ReceiptSeen {
        bytes32 runId;
        bytes32 digest;
    }
}

/// Body of `POST /v1/receipt`: has the chain, as the KMS sees it, this receipt at the confirmed depth?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptQuestion {
    /// A run whose keys this KMS released.
    pub run_id: RunId,
    /// EIP-712 digest of the receipt, as the contract stores it.
    pub digest: B256,
}

/// Answer of `POST /v1/receipt`. Without it an agent reveals nothing: its own endpoints belong to its host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptAnswer {
    /// EIP-712 `ReceiptSeen(bytes32 runId,bytes32 digest)` under the app's domain, by the KMS root: 65 bytes.
    pub signature: Bytes,
}

impl ReceiptAnswer {
    /// Signs that the receipt is there.
    pub fn issue(
        root: &PrivateKeySigner,
        domain: &Eip712Domain,
        question: &ReceiptQuestion,
    ) -> Result<Self, alloy::signers::Error> {
        let signature = root.sign_hash_sync(&eip712::digest(&question.abi(), domain))?;
        Ok(Self { signature: signature.as_bytes().to_vec().into() })
    }

    /// The address that signed it for `question` under `domain`, if any.
    pub fn signer(&self, domain: &Eip712Domain, question: &ReceiptQuestion) -> Option<Address> {
        eip712::recover(eip712::digest(&question.abi(), domain), &self.signature)
    }
}

impl ReceiptQuestion {
    fn abi(&self) -> ReceiptSeen {
        ReceiptSeen { runId: self.run_id.0, digest: self.digest }
    }
}

alloy::sol! {
    /// EIP-712: the agent's receipt key asks to go on with a run.
    #[derive(Debug)]
    struct LeaseRenewal {
        bytes32 runId;
        bytes32 nonce;
    }

    /// EIP-712: the KMS root lets the run go on for some seconds from when the nonce was made.
    #[derive(Debug)]
    struct Lease {
        bytes32 runId;
        bytes32 nonce;
        uint64 seconds;
    }
}

/// Body of `POST /v1/lease`: may this run go on?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseRequest {
    /// A run whose keys this KMS released.
    pub run_id: RunId,
    /// Random: the answer is about this request and no older one.
    pub nonce: B256,
    /// EIP-712 `LeaseRenewal(bytes32 runId,bytes32 nonce)` under the app's domain, by the receipt key that got the run's
    /// keys: 65 bytes.
    pub signature: Bytes,
}

impl LeaseRequest {
    /// Signs a request with the receipt key.
    pub fn issue(
        receipt_key: &PrivateKeySigner,
        domain: &Eip712Domain,
        run_id: RunId,
        nonce: B256,
    ) -> Result<Self, alloy::signers::Error> {
        let digest = eip712::digest(&LeaseRenewal { runId: run_id.0, nonce }, domain);
        let signature = receipt_key.sign_hash_sync(&digest)?.as_bytes().to_vec().into();
        Ok(Self { run_id, nonce, signature })
    }

    /// The address that signed it under `domain`, if any.
    pub fn signer(&self, domain: &Eip712Domain) -> Option<Address> {
        let renewal = LeaseRenewal { runId: self.run_id.0, nonce: self.nonce };
        eip712::recover(eip712::digest(&renewal, domain), &self.signature)
    }
}

/// Answer of `POST /v1/lease`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseAnswer {
    /// For how many seconds, from when the agent sent its request.
    pub seconds: u64,
    /// EIP-712 `Lease(bytes32 runId,bytes32 nonce,uint64 seconds)` under the app's domain, by the KMS root: 65 bytes.
    pub signature: Bytes,
}

impl LeaseAnswer {
    /// Signs a lease.
    pub fn issue(
        root: &PrivateKeySigner,
        domain: &Eip712Domain,
        request: &LeaseRequest,
        seconds: u64,
    ) -> Result<Self, alloy::signers::Error> {
        let signature = root.sign_hash_sync(&eip712::digest(&lease(request, seconds), domain))?;
        Ok(Self { seconds, signature: signature.as_bytes().to_vec().into() })
    }

    /// The address that signed it for `request` under `domain`, if any.
    pub fn signer(&self, domain: &Eip712Domain, request: &LeaseRequest) -> Option<Address> {
        eip712::recover(eip712::digest(&lease(request, self.seconds), domain), &self.signature)
    }
}

fn lease(request: &LeaseRequest, seconds: u64) -> Lease {
    Lease { runId: request.run_id.0, nonce: request.nonce, seconds }
}

const ANSWER_INFO: &[u8] = b"cohort-release-answer/1";

/// Body of every refusal by KMS, agent and indexer: a stable code and words for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Stable, snake_case.
    pub code: String,
    /// What was refused, and why.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hpke::SecretBytes;

    fn binding() -> Binding {
        Binding {
            chain_id: 31337,
            app: Address::repeat_byte(1),
            kms_root: Address::repeat_byte(2),
            challenge: B256::repeat_byte(3),
            run_id: RunId(B256::repeat_byte(4)),
            encryption_key_hash: B256::repeat_byte(5),
            receipt_key: Address::repeat_byte(6),
            gpu_evidence_hash: None,
        }
    }

    #[test]
    fn report_data_commits_to_every_field() {
        let base = binding();
        let changed = [
            Binding { chain_id: 1, ..base.clone() },
            Binding { app: Address::ZERO, ..base.clone() },
            Binding { kms_root: Address::ZERO, ..base.clone() },
            Binding { challenge: B256::ZERO, ..base.clone() },
            Binding { run_id: RunId(B256::ZERO), ..base.clone() },
            Binding { encryption_key_hash: B256::ZERO, ..base.clone() },
            Binding { receipt_key: Address::ZERO, ..base.clone() },
        ];
        for other in changed {
            assert_ne!(base.report_data(), other.report_data(), "{other:?}");
            assert_ne!(base.gpu_nonce(), other.gpu_nonce(), "{other:?}");
        }
        let with_gpu = |byte| Binding { gpu_evidence_hash: Some(B256::repeat_byte(byte)), ..base.clone() };
        assert_ne!(base.report_data(), with_gpu(0).report_data());
        assert_ne!(with_gpu(1).report_data(), with_gpu(0).report_data());
        // The GPU must have answered before there is a hash of what it answered.
        assert_eq!(with_gpu(1).gpu_nonce(), base.gpu_nonce());
    }

    #[test]
    fn a_lease_is_for_one_run_request_time_and_pair_of_keys() {
        let (agent, root) = (PrivateKeySigner::random(), PrivateKeySigner::random());
        let domain = eip712::app_domain(1, Address::ZERO);
        let request = |run, nonce| {
            let (run, nonce) = (RunId(B256::repeat_byte(run)), B256::repeat_byte(nonce));
            LeaseRequest::issue(&agent, &domain, run, nonce).unwrap()
        };
        let asked = request(1, 2);
        assert_eq!(asked.signer(&domain), Some(agent.address()));
        let moved = LeaseRequest { run_id: RunId(B256::ZERO), ..asked.clone() };
        assert_ne!(moved.signer(&domain), Some(agent.address()));
        let answer = LeaseAnswer::issue(&root, &domain, &asked, 60).unwrap();
        assert_eq!(answer.signer(&domain, &asked), Some(root.address()));
        let longer = LeaseAnswer { seconds: 61, ..answer.clone() };
        assert_ne!(longer.signer(&domain, &asked), Some(root.address()));
        for other in [request(1, 3), request(3, 2)] {
            assert_ne!(answer.signer(&domain, &other), Some(root.address()), "an old answer was replayed");
        }
        assert_ne!(answer.signer(&eip712::app_domain(2, Address::ZERO), &asked), Some(root.address()));
    }

    #[test]
    fn an_answer_opens_only_with_the_agents_key_and_for_its_own_request() {
        let agent = KeyPair::derive(&SecretBytes::new([9; 32]));
        let keys = WrapKeys {
            keys: vec![WrapKey { dataset_id: DatasetId(B256::ZERO), wrap_key: "ab".repeat(32) }],
            lease_seconds: 60,
        };
        let (enc, ciphertext) = keys.seal(agent.public_key(), &binding()).unwrap();
        let root = PrivateKeySigner::random();
        let domain = eip712::app_domain(1, Address::ZERO);
        let certificate =
            Certificate::issue(&root, &domain, Address::ZERO, ComposeHash(B256::ZERO), 1).unwrap();
        assert_eq!(certificate.signer(&domain), Some(root.address()));
        assert_ne!(certificate.signer(&eip712::app_domain(2, Address::ZERO)), Some(root.address()));
        let answer = ReleaseAnswer {
            enc: enc.into(),
            ciphertext: ciphertext.into(),
            certificate,
            platform: "intel".to_owned(),
            log_index: 0,
        };
        assert_eq!(WrapKeys::open(&agent, &binding(), &answer).unwrap().keys.len(), 1);
        let replayed = Binding { challenge: B256::ZERO, ..binding() };
        assert!(WrapKeys::open(&agent, &replayed, &answer).is_err());
        let thief = KeyPair::derive(&SecretBytes::new([8; 32]));
        assert!(WrapKeys::open(&thief, &binding(), &answer).is_err());
    }
}
