//! The keys of a dstack app, derived and certified as dstack derives and certifies them: guest API v0,
//! which all 0.5 and 0.6 releases serve, and v1, which 0.6 added.

use hkdf::Hkdf;
use k256::ecdsa::SigningKey;
use sha2::Sha256;
use sha3::{Digest as _, Keccak256};

use super::pki;
use super::{DevPlatform, DevPlatformError};
use crate::bytes::AppId;

/// Salt of every HKDF in dstack, but for guest API v1.
const SALT: &[u8] = b"RATLS";
/// Salt of guest API v1.
const SALT_V1: &[u8] = b"dstack-guest-v1";

/// Why a key was not derived.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Neither secp256k1 nor ed25519. The text is dstack's.
    #[error("Unsupported algorithm")]
    UnsupportedAlgorithm,
    /// The derived bytes are not a key of the algorithm (chance 2^-128).
    #[error("the derived bytes are not a key")]
    NotAKey,
}

/// A key that a guest agent gives to its app.
pub struct DerivedKey {
    /// The secret key.
    pub key: [u8; 32],
    /// `r || s || v` by the app's root key over the public key, and by the KMS root over the app's
    /// root key; `v` is 0 or 1.
    pub signature_chain: [[u8; 65]; 2],
}

/// An app's root key with the KMS root's signature.
pub struct AppKeys {
    app_key: SigningKey,
    kms_public_key: [u8; 33],
    kms_signature: [u8; 65],
}

impl AppKeys {
    /// The keys that the development platform's KMS root gives to an app.
    pub fn of_platform(platform: &DevPlatform, app_id: AppId) -> Result<Self, DevPlatformError> {
        let root = pki::derive(platform.seed(), "dstack kms root key");
        Self::issue(&root, app_id)
            .map_err(|error| DevPlatformError::Issue { what: "the app's keys", detail: error.to_string() })
    }

    /// What a KMS with this root key gives to an app.
    fn issue(root: &[u8; 32], app_id: AppId) -> Result<Self, KeyError> {
        let kms = SigningKey::from_slice(root).map_err(|_| KeyError::NotAKey)?;
        let app_key = derive(SALT, root, &[app_id.as_bytes(), b"app-key"])?;
        let app_key = SigningKey::from_slice(&app_key).map_err(|_| KeyError::NotAKey)?;
        let public = compressed(&app_key)?;
        let kms_signature = sign(&kms, &[b"dstack-kms-issued", b":", app_id.as_bytes(), &public])?;
        Ok(Self { app_key, kms_public_key: compressed(&kms)?, kms_signature })
    }

    /// SEC1 compressed public key of the KMS root: what `DstackKms.kmsInfo().k256Pubkey` holds.
    pub fn kms_public_key(&self) -> &[u8; 33] {
        &self.kms_public_key
    }

    /// dstack's `GetKey`: the key depends on `path` alone; `purpose` and `algorithm` go into the
    /// signature over the public key. An empty algorithm is secp256k1.
    pub fn get_key(&self, path: &str, purpose: &str, algorithm: &str) -> Result<DerivedKey, KeyError> {
        let key = derive(SALT, &self.app_key.to_bytes(), &[path.as_bytes()])?;
        let algorithm = if matches!(algorithm, "" | "k256") { "secp256k1" } else { algorithm };
        let public = hex::encode(public_key(&key, algorithm)?);
        let link = sign(&self.app_key, &[purpose.as_bytes(), b":", public.as_bytes()])?;
        Ok(DerivedKey { key, signature_chain: [link, self.kms_signature] })
    }

    /// `GetKey` of guest API v1: the key depends on domain and algorithm. Returns the public key beside it.
    pub fn get_key_v1(&self, domain: &str, algorithm: &str) -> Result<(DerivedKey, Vec<u8>), KeyError> {
        let info = prefixed(&[b"dstack-guest-v1-key", algorithm.as_bytes(), domain.as_bytes()]);
        let key = derive(SALT_V1, &self.app_key.to_bytes(), &[&info])?;
        let public = public_key(&key, algorithm)?;
        let claim =
            prefixed(&[b"dstack-guest-v1-key-claim", algorithm.as_bytes(), domain.as_bytes(), &public]);
        let link = sign(&self.app_key, &[&claim])?;
        Ok((DerivedKey { key, signature_chain: [link, self.kms_signature] }, public))
    }
}

/// SEC1 compressed secp256k1, or raw ed25519.
fn public_key(key: &[u8; 32], algorithm: &str) -> Result<Vec<u8>, KeyError> {
    match algorithm {
        "secp256k1" => {
            let key = SigningKey::from_slice(key).map_err(|_| KeyError::NotAKey)?;
            Ok(compressed(&key)?.to_vec())
        }
        "ed25519" => {
            use ring::signature::{Ed25519KeyPair, KeyPair as _};
            let pair = Ed25519KeyPair::from_seed_unchecked(key);
            Ok(pair.map_err(|_| KeyError::NotAKey)?.public_key().as_ref().to_vec())
        }
        _ => Err(KeyError::UnsupportedAlgorithm),
    }
}

/// Each part after its length: 4 bytes, big-endian.
fn prefixed(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

fn derive(salt: &[u8], key: &[u8], info: &[&[u8]]) -> Result<[u8; 32], KeyError> {
    let mut out = [0u8; 32];
    Hkdf::<Sha256>::new(Some(salt), key).expand(&info.concat(), &mut out).map_err(|_| KeyError::NotAKey)?;
    Ok(out)
}

fn compressed(key: &SigningKey) -> Result<[u8; 33], KeyError> {
    let point = key.verifying_key().to_encoded_point(true);
    point.as_bytes().try_into().map_err(|_| KeyError::NotAKey)
}

/// Signs the Keccak-256 of the joined parts; `r || s || v`.
fn sign(key: &SigningKey, parts: &[&[u8]]) -> Result<[u8; 65], KeyError> {
    let digest: [u8; 32] = Keccak256::digest(parts.concat()).into();
    let (signature, recovery) = key.sign_prehash_recoverable(&digest).map_err(|_| KeyError::NotAKey)?;
    let bytes = [&signature.to_bytes()[..], &[recovery.to_byte()]].concat();
    bytes.try_into().map_err(|_| KeyError::NotAKey)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k256::ecdsa::{RecoveryId, Signature, VerifyingKey};

    fn app() -> AppKeys {
        let key = "1a2b3c4d5e6f7a8b9c0d1e2f3a4b5c6d7e8f9a0b1c2d3e4f5a6b7c8d9e0f1a2b";
        let app_key = SigningKey::from_slice(&hex::decode(key).unwrap()).unwrap();
        AppKeys { app_key, kms_public_key: [0; 33], kms_signature: [0; 65] }
    }

    /// The test vector of dstack's guest API v0 specification.
    #[test]
    fn link_is_dstacks() {
        let key = app().get_key("test", "signing", "").unwrap();
        let expected = "c8a3dcf06c4e95bd78a5d7a1c8fcff171fc5848cfae804c6fc11bda4dc5d4062\
                        379995390843827444992c4c0e4bac70f0f878e01b9fc8b98cd7126fe5a3876b01";
        assert_eq!(hex::encode(key.signature_chain[0]), expected);
    }

    /// The test vectors of dstack's guest API v1 specification.
    #[test]
    fn v1_keys_are_dstacks() {
        let key = |domain, algorithm| hex::encode(app().get_key_v1(domain, algorithm).unwrap().0.key);
        assert_eq!(key("", "secp256k1"), "59f60584ce6fd2a3a31997256db9d77322463fc8a6b1520110401bcb1ee92387");
        assert_eq!(
            key("wallet", "secp256k1"),
            "2580611f0f936abe59399a8ac4ed9964d0259bd34c88ea012ca42b32acbf9386"
        );
        assert_eq!(
            key("wallet", "ed25519"),
            "d76a703b08ebb074b809b9d6acf3d7c6663131273807717ce9d23bbadc2c644e"
        );
        let link = app().get_key_v1("wallet", "secp256k1").unwrap().0.signature_chain[0];
        let expected = "af26d2f258d34580e7288bd83fc97bddc83769476d77823c4f76a3ad77a75149\
                        1a39ffc4ef3aa66cb0d008b8f6f199e6d57c1da9a92ba4cf10f23bf752b8cad000";
        assert_eq!(hex::encode(link), expected);
        assert_eq!(app().get_key_v1("wallet", "").err(), Some(KeyError::UnsupportedAlgorithm));
    }

    #[test]
    fn the_key_depends_on_the_path_alone() {
        let app = app();
        let one = app.get_key("a", "", "").unwrap().key;
        assert_eq!(app.get_key("a", "p", "ed25519").unwrap().key, one);
        assert_ne!(app.get_key("b", "", "").unwrap().key, one);
        assert_eq!(app.get_key("a", "", "rsa").err(), Some(KeyError::UnsupportedAlgorithm));
    }

    fn recover(parts: &[&[u8]], signature: &[u8; 65]) -> [u8; 33] {
        let digest = Keccak256::digest(parts.concat());
        let bytes = Signature::from_slice(&signature[..64]).unwrap();
        let recovery = RecoveryId::from_byte(signature[64]).unwrap();
        let key = VerifyingKey::recover_from_prehash(&digest, &bytes, recovery).unwrap();
        key.to_encoded_point(true).as_bytes().try_into().unwrap()
    }

    #[test]
    fn the_chain_leads_to_the_kms_root() {
        let id = AppId([7; 20]);
        let app = AppKeys::issue(&[5; 32], id).unwrap();
        for algorithm in ["secp256k1", "ed25519"] {
            let derived = app.get_key("p", "vms", algorithm).unwrap();
            let public = if algorithm == "ed25519" {
                use ring::signature::{Ed25519KeyPair, KeyPair as _};
                let pair = Ed25519KeyPair::from_seed_unchecked(&derived.key).unwrap();
                hex::encode(pair.public_key())
            } else {
                hex::encode(compressed(&SigningKey::from_slice(&derived.key).unwrap()).unwrap())
            };
            let [first, second] = &derived.signature_chain;
            let app_public = recover(&[b"vms:", public.as_bytes()], first);
            let root = recover(&[b"dstack-kms-issued:", id.as_bytes(), &app_public], second);
            assert_eq!(&root, app.kms_public_key());
        }
    }
}
