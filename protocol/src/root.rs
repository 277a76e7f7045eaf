//! The KMS root: its keys, and the statement by which owners know what they seal to. Spec: `docs/spec/kms-root.md`.

use alloy::{
    primitives::{Address, B256, Bytes},
    signers::{SignerSync, local::PrivateKeySigner},
};
use hkdf::Hkdf;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha512};

use crate::{
    eip712,
    hpke::{KeyPair, PublicKey, SecretBytes},
    json::{push_prefixed, sha256},
};

alloy::sol! {
    /// EIP-712: what a root key signs about the sealing key of its epoch.
    #[derive(Debug)]
    struct KmsRoot {
        uint32 epoch;
        bytes sealingKey;
    }
}

const SALT: &[u8] = b"cohort-kms-root/1";

/// A statement that cannot be trusted, or keys that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The derived scalar is no secp256k1 key (chance 2^-128).
    #[error("the root secret gives no signing key for epoch {0}; make another root secret")]
    NoSigningKey(u32),
    /// The sealing key is malformed.
    #[error("the KMS root statement has no valid X-Wing sealing key")]
    SealingKey,
    /// Signed by somebody else.
    #[error("the KMS root statement is not signed by {0}")]
    Signature(Address),
}

/// The root's keys of one epoch.
pub struct RootKeys {
    /// Epoch, counted by the registry from 0.
    pub epoch: u32,
    /// Signs agents' certificates; its address is pinned in every `DstackApp`.
    pub signer: PrivateKeySigner,
    /// Owners seal to it.
    pub sealing: KeyPair,
}

impl RootKeys {
    /// Derives the keys of `epoch` from the root secret (HKDF-SHA256, RFC 5869).
    pub fn derive(secret: &SecretBytes, epoch: u32) -> Result<Self, RootError> {
        let signing = expand(secret, b"signing", epoch);
        let signer = PrivateKeySigner::from_slice(signing.expose_secret())
            .map_err(|_| RootError::NoSigningKey(epoch))?;
        Ok(Self { epoch, signer, sealing: KeyPair::derive(&expand(secret, b"sealing", epoch)) })
    }

    /// The root's address.
    pub fn address(&self) -> Address {
        self.signer.address()
    }

    /// Signs the statement for one chain and registry.
    pub fn statement(&self, chain_id: u64, registry: Address) -> Result<RootStatement, RootError> {
        let sealing_key = Bytes::copy_from_slice(self.sealing.public_key().as_bytes());
        let message = KmsRoot { epoch: self.epoch, sealingKey: sealing_key.clone() };
        let digest = eip712::digest(&message, &eip712::kms_domain(chain_id, registry));
        let signature =
            self.signer.sign_hash_sync(&digest).map_err(|_| RootError::Signature(self.address()))?;
        Ok(RootStatement {
            chain_id,
            registry,
            epoch: self.epoch,
            root: self.address(),
            sealing_key,
            signature: Bytes::from(signature.as_bytes().to_vec()),
        })
    }
}

impl std::fmt::Debug for RootKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RootKeys(epoch {}, {})", self.epoch, self.address())
    }
}

/// The key under which the replicas of a root authenticate what they say to each other (`docs/spec/replicas.md`).
pub fn replica_key(secret: &SecretBytes) -> SecretBytes {
    expand(secret, b"replicas", 0)
}

fn expand(secret: &SecretBytes, purpose: &[u8], epoch: u32) -> SecretBytes {
    let mut info = purpose.to_vec();
    info.extend_from_slice(&epoch.to_be_bytes());
    let mut out = [0u8; 32];
    Hkdf::<Sha256>::new(Some(SALT), secret.expose_secret())
        .expand(&info, &mut out)
        .expect("32 bytes is a valid HKDF-SHA256 length");
    SecretBytes::new(out)
}

/// What `GET /v1/root` of a KMS states: the key to seal to, signed by the root that the chain pins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootStatement {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// The `DstackKms` that lists the root.
    pub registry: Address,
    /// Root epoch.
    pub epoch: u32,
    /// Address of the root's signing key.
    pub root: Address,
    /// X-Wing public key, 1216 bytes.
    pub sealing_key: Bytes,
    /// EIP-712 `KmsRoot(uint32 epoch,bytes sealingKey)` by `root`.
    pub signature: Bytes,
}

impl RootStatement {
    /// Checks the signature against `root` and returns the key to seal to. Whether `root` is the one that the chain
    /// pins is for the caller to check: this is arithmetic only.
    pub fn verify(&self) -> Result<PublicKey, RootError> {
        let key = PublicKey::from_bytes(&self.sealing_key).map_err(|_| RootError::SealingKey)?;
        let message = KmsRoot { epoch: self.epoch, sealingKey: self.sealing_key.clone() };
        let digest = eip712::digest(&message, &eip712::kms_domain(self.chain_id, self.registry));
        match eip712::recover(digest, &self.signature) {
            Some(signer) if signer == self.root => Ok(key),
            _ => Err(RootError::Signature(self.root)),
        }
    }

    /// SHA-256 of the sealing key: names it in envelopes.
    pub fn key_id(&self) -> B256 {
        sha256(&self.sealing_key)
    }

    /// What the quote of a KMS that states this is about: SHA-512 over the length-prefixed fields under the tag
    /// `cohort-kms-evidence/1`; 64 bytes.
    pub fn report_data(&self) -> [u8; 64] {
        let mut input = Vec::with_capacity(160);
        push_prefixed(&mut input, b"cohort-kms-evidence/1");
        push_prefixed(&mut input, &self.chain_id.to_be_bytes());
        push_prefixed(&mut input, self.registry.as_slice());
        push_prefixed(&mut input, &self.epoch.to_be_bytes());
        push_prefixed(&mut input, self.root.as_slice());
        push_prefixed(&mut input, self.key_id().as_slice());
        Sha512::digest(&input).into()
    }
}

/// Answer of `GET /v1/root`: the statement, and the evidence of the virtual machine that holds the keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootAnswer<Evidence> {
    /// What is stated.
    pub statement: RootStatement,
    /// A quote whose report data is [`RootStatement::report_data`], with what explains it. A KMS whose root comes from
    /// a file has none.
    #[serde(default = "Option::default", skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(byte: u8, epoch: u32) -> RootKeys {
        RootKeys::derive(&SecretBytes::new([byte; 32]), epoch).unwrap()
    }

    #[test]
    fn epochs_and_secrets_have_keys_of_their_own() {
        assert_eq!(keys(1, 0).address(), keys(1, 0).address());
        assert_ne!(keys(1, 0).address(), keys(1, 1).address());
        assert_ne!(keys(1, 0).address(), keys(2, 0).address());
        assert_ne!(keys(1, 0).sealing.public_key(), keys(1, 1).sealing.public_key());
    }

    #[test]
    fn a_statement_holds_for_its_chain_registry_epoch_and_key_only() {
        let good = keys(1, 0).statement(31337, Address::repeat_byte(7)).unwrap();
        assert!(good.verify().is_ok());
        let other_key = Bytes::copy_from_slice(keys(2, 0).sealing.public_key().as_bytes());
        for bad in [
            RootStatement { chain_id: 1, ..good.clone() },
            RootStatement { registry: Address::ZERO, ..good.clone() },
            RootStatement { epoch: 1, ..good.clone() },
            RootStatement { root: Address::ZERO, ..good.clone() },
            RootStatement { sealing_key: other_key, ..good.clone() },
        ] {
            assert!(bad.verify().is_err(), "{bad:?}");
            assert_ne!(bad.report_data(), good.report_data(), "{bad:?}");
        }
    }
}
