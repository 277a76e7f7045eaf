//! From a [`Release`] to the answer: the only code that touches the root's secret keys for a request.

use alloy::primitives::Bytes;
use cohort_protocol::{
    eip712,
    release::{Certificate, CertifyAnswer, ReleaseAnswer, WrapKey, WrapKeys},
    sealed::wrap_key_from_root,
};

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
        let secret = wrap_key_from_root(&root.sealing, &item.context, &item.enc);
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
