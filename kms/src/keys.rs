//! From a [`Release`] to the answer: the only code that touches the root's secret keys for a request.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use alloy::primitives::Bytes;
use cohort_protocol::{
    eip712,
    hpke::SecretBytes,
    json::push_prefixed,
    release::{Certificate, CertifyAnswer, ReleaseAnswer, WrapKey, WrapKeys},
    sealed::{SealContext, SealedError, wrap_key_from_root},
};

use sha2::{Digest as _, Sha256};

use crate::{decide::Release, question::Item, release_log::Logged, roots::Roots};

/// Keys that cannot be derived or handed out. Says nothing of the keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No keys for that epoch.
    #[error("this KMS has no keys of the root that the release names")]
    NoRoot,
    /// The encapsulated key is malformed.
    #[error("the wrap key of dataset {0} cannot be derived")]
    WrapKey(cohort_protocol::ids::DatasetId),
    /// The answer cannot be encrypted to the agent's key.
    #[error("the answer cannot be encrypted to the agent's key")]
    Encrypt,
    /// The certificate cannot be signed.
    #[error("the certificate cannot be signed")]
    Sign,
}

/// Wrap keys remembered, twice: when the newer half is full, the older one is forgotten.
const HALF_MAX: usize = 512;

/// Wrap keys that were derived before. A dataset is opened for many runs, and its wrap key is a function of root,
/// context and encapsulated key alone: it is looked up by all of them. It is nothing that the process did not have
/// already, which holds the root, and no answer is remembered: every release is decided, logged and encrypted anew.
#[derive(Debug, Default)]
pub(crate) struct Remembered(Mutex<Halves>);

#[derive(Debug, Default)]
struct Halves {
    newer: HashMap<[u8; 32], SecretBytes>,
    older: HashMap<[u8; 32], SecretBytes>,
}

impl Remembered {
    fn get_or_derive(
        &self,
        context: &SealContext,
        enc: &[u8],
        derive: impl FnOnce() -> Result<SecretBytes, SealedError>,
    ) -> Result<SecretBytes, SealedError> {
        let mut name = Vec::with_capacity(enc.len() + 512);
        name.extend_from_slice(&context.root_epoch.to_be_bytes());
        push_prefixed(&mut name, &context.info());
        push_prefixed(&mut name, enc);
        let name = Sha256::digest(&name).into();
        // What is remembered is whole: each change is one call.
        let halves = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(secret) = halves().get(name) {
            return Ok(secret);
        }
        let secret = derive()?;
        halves().insert(name, secret.clone());
        Ok(secret)
    }
}

impl Halves {
    fn get(&mut self, name: [u8; 32]) -> Option<SecretBytes> {
        if let Some(secret) = self.older.remove(&name) {
            self.insert(name, secret);
        }
        self.newer.get(&name).cloned()
    }

    fn insert(&mut self, name: [u8; 32], secret: SecretBytes) {
        if self.newer.len() >= HALF_MAX {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(name, secret);
    }
}

impl Roots {
    /// Derives the wrap keys in the attested context, encrypts them to the agent's key and certifies its receipt
    /// key. `logged` shows that the release log already records this release (R13).
    pub fn answer(&self, release: &Release, logged: &Logged) -> Result<ReleaseAnswer, KeyError> {
        let keys = release.items.iter().map(|item| self.wrap_key(item)).collect::<Result<_, _>>()?;
        let sealed = WrapKeys { keys, lease_seconds: release.lease_seconds }
            .seal(&release.encryption_key, &release.binding);
        let (enc, ciphertext) = sealed.map_err(|_| KeyError::Encrypt)?;
        let certificate = self.certificate(release)?;
        let (enc, ciphertext) = (Bytes::from(enc), Bytes::from(ciphertext));
        Ok(ReleaseAnswer {
            enc,
            ciphertext,
            certificate,
            platform: release.platform.as_str().to_owned(),
            log_index: logged.index(),
        })
    }

    /// The certificate alone.
    pub fn certify(&self, release: &Release, logged: &Logged) -> Result<CertifyAnswer, KeyError> {
        let certificate = self.certificate(release)?;
        let platform = release.platform.as_str().to_owned();
        Ok(CertifyAnswer { certificate, platform, log_index: logged.index() })
    }

    fn wrap_key(&self, item: &Item) -> Result<WrapKey, KeyError> {
        let root = self.epoch(item.context.root_epoch).ok_or(KeyError::NoRoot)?;
        let derive = || wrap_key_from_root(&root.sealing, &item.context, &item.enc);
        let secret = self.wrap_keys.get_or_derive(&item.context, &item.enc, derive);
        let secret = secret.map_err(|_| KeyError::WrapKey(item.dataset_id))?;
        Ok(WrapKey { dataset_id: item.dataset_id, wrap_key: hex::encode(secret.expose_secret()) })
    }

    fn certificate(&self, release: &Release) -> Result<Certificate, KeyError> {
        let root = self.address(release.root()).ok_or(KeyError::NoRoot)?;
        let binding = &release.binding;
        let domain = eip712::app_domain(binding.chain_id, binding.app);
        let (agent, compose_hash) = (binding.receipt_key, release.compose_hash);
        Certificate::issue(&root.signer, &domain, agent, compose_hash, release.not_after)
            .map_err(|_| KeyError::Sign)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Case;

    /// R14 with a memory: another epoch, context or encapsulated key is another key, remembered or not.
    #[test]
    fn what_is_remembered_is_this_key_of_this_context() {
        let case = Case::allowed();
        let item = case.question().unwrap().items[0].clone();
        let direct = |item: &Item| {
            let root = case.roots.epoch(item.context.root_epoch).unwrap();
            wrap_key_from_root(&root.sealing, &item.context, &item.enc).unwrap()
        };
        let other = |change: fn(&mut Item)| {
            let mut other = item.clone();
            change(&mut other);
            other
        };
        let others = [
            other(|_| ()),
            other(|item| item.context.root_epoch = 0),
            other(|item| item.context.chain_id += 1),
            other(|item| item.context.app = [9; 20].into()),
            other(|item| item.context.compose_hash.0 = [9; 32].into()),
            other(|item| item.context.owner = "hospital-B".parse().unwrap()),
            other(|item| item.enc[0] ^= 1),
        ];
        for _ in 0..2 {
            for item in &others {
                let key = case.roots.wrap_key(item).unwrap();
                assert_eq!(key.wrap_key, hex::encode(direct(item).expose_secret()));
            }
        }
        assert_eq!(case.roots.wrap_keys.0.lock().unwrap().newer.len(), others.len());
    }

    #[test]
    fn memory_is_bounded_and_what_is_used_stays() {
        let mut halves = Halves::default();
        let name = |n: usize| {
            let mut name = [0; 32];
            name[..8].copy_from_slice(&n.to_be_bytes());
            name
        };
        halves.insert(name(0), SecretBytes::new([7; 32]));
        for n in 1..5 * HALF_MAX {
            halves.insert(name(n), SecretBytes::new([0; 32]));
            assert!(n % 100 > 0 || halves.get(name(0)).is_some());
            assert!(halves.newer.len() + halves.older.len() <= 2 * HALF_MAX);
        }
        assert!(halves.get(name(0)).is_some() && halves.get(name(1)).is_none());
    }
}
