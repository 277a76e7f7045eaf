//! ECDSA signatures that were verified once are not verified again: most of a quote's cost is Intel's signatures over
//! collateral and certificates, which are the same in every request.
//!
//! That a signature holds depends on its bytes, the message and the key alone, so what is remembered is SHA-256 of the
//! three, for those that held. Dates, revocation and everything else are checked each time.

use std::collections::HashSet;
use std::sync::{LazyLock, Mutex, PoisonError};

use dcap_qvl::config::{Config, CryptoProvider};
use dcap_qvl::crypto::RingCrypto;
use dcap_qvl::signature::DerSigEncoder;
use dcap_qvl::x509::X509CertBackend;
use rustls_pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm};
use sha2::{Digest as _, Sha256};

/// Signatures remembered, twice: when the newer half is full, the older one is forgotten.
const HALF_MAX: usize = 4096;

/// dcap-qvl with ring, and a memory of signatures.
pub(crate) struct RememberingConfig;

impl Config for RememberingConfig {
    type X509 = X509CertBackend;
    type SigEncoder = DerSigEncoder;
    type Crypto = RememberingCrypto;
}

/// Its primitives.
pub(crate) struct RememberingCrypto;

impl CryptoProvider for RememberingCrypto {
    fn sig_algo() -> &'static dyn SignatureVerificationAlgorithm {
        &Remembering
    }

    fn sha256(data: &[u8]) -> [u8; 32] {
        RingCrypto::sha256(data)
    }

    fn sha384(data: &[u8]) -> [u8; 48] {
        RingCrypto::sha384(data)
    }
}

#[derive(Debug)]
struct Remembering;

impl SignatureVerificationAlgorithm for Remembering {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let mut name = Sha256::new();
        for part in [key, message, signature] {
            name.update((part.len() as u64).to_be_bytes());
            name.update(part);
        }
        let name = name.finalize().into();
        if known(|known| known.contains(name)) {
            return Ok(());
        }
        RingCrypto::sig_algo().verify_signature(key, message, signature)?;
        known(|known| known.insert(name));
        Ok(())
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        RingCrypto::sig_algo().public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        RingCrypto::sig_algo().signature_alg_id()
    }
}

#[derive(Default)]
struct Known {
    newer: HashSet<[u8; 32]>,
    older: HashSet<[u8; 32]>,
}

impl Known {
    /// What is asked for stays known, however many others come.
    fn contains(&mut self, name: [u8; 32]) -> bool {
        if self.older.contains(&name) {
            self.insert(name);
        }
        self.newer.contains(&name)
    }

    fn insert(&mut self, name: [u8; 32]) {
        if self.newer.len() >= HALF_MAX {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(name);
    }
}

fn known<T>(f: impl FnOnce(&mut Known) -> T) -> T {
    static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);
    // A set with an entry less is as good.
    f(&mut KNOWN.lock().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(all(test, feature = "dev-platform"))]
mod tests {
    use p256::ecdsa::{DerSignature, SigningKey, signature::Signer as _};

    use super::*;

    #[test]
    fn what_is_remembered_is_this_signature_of_this_message_by_this_key() {
        let key = |byte| SigningKey::from_slice(&[byte; 32]).unwrap();
        let point = |byte| key(byte).verifying_key().to_sec1_point(false).as_bytes().to_vec();
        let signature: DerSignature = key(1).sign(b"message");
        let (one, two, signature) = (point(1), point(2), signature.as_bytes());
        for _ in 0..2 {
            assert!(Remembering.verify_signature(&one, b"message", signature).is_ok());
            assert!(Remembering.verify_signature(&two, b"message", signature).is_err());
            assert!(Remembering.verify_signature(&one, b"messagf", signature).is_err());
            assert!(Remembering.verify_signature(&one, b"message", &signature[1..]).is_err());
        }
    }

    #[test]
    fn memory_is_bounded_and_what_is_used_stays() {
        let name = |n: usize| {
            let mut name = [0; 32];
            name[..8].copy_from_slice(&n.to_be_bytes());
            name
        };
        let mut known = Known::default();
        known.insert(name(0));
        for n in 1..5 * HALF_MAX {
            known.insert(name(n));
            assert!(n % 1000 > 0 || known.contains(name(0)));
            assert!(known.newer.len() + known.older.len() <= 2 * HALF_MAX);
        }
        assert!(known.contains(name(0)) && !known.contains(name(1)));
    }
}
