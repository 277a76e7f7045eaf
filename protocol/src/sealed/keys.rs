//! Key schedule: root key pair and context -> wrap key -> data key -> chunk key and key commitment.

use std::fmt;

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Payload},
};
use alloy::primitives::{Address, B256};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::SealedError;
use crate::{
    hpke::{self, KeyPair, PublicKey, SecretBytes},
    ids::{ComposeHash, DatasetId, OwnerId},
    json::{push_prefixed, sha256},
};

/// Name and version of the format.
pub const FORMAT: &str = "cohort-sealed-dataset/1";
/// HPKE exporter context of the wrap key.
pub const WRAP_LABEL: &[u8] = b"cohort wrap key";
/// Length of the wrapped data key: 32 bytes and the tag.
pub(super) const WRAPPED_KEY_BYTES: usize = 48;
const DATASET_DOMAIN: &[u8] = b"cohort-dataset/1";
const CHUNK_KEY_INFO: &[u8] = b"chunk key";
const COMMITMENT_INFO: &[u8] = b"key commitment";

/// BLAKE3 of the whole `data` entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct DataRoot(pub [u8; 32]);

impl fmt::Display for DataRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", hex::encode(self.0))
    }
}

impl fmt::Debug for DataRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a wrap key is good for. The KMS fills it from attested facts, never from an envelope alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealContext {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// The `DstackApp` contract: dstack's app id.
    pub app: Address,
    /// The recipe's compose hash.
    pub compose_hash: ComposeHash,
    /// The data's owner.
    pub owner: OwnerId,
    /// Epoch of the KMS root that it is sealed to.
    pub root_epoch: u32,
    /// [`super::schema_hash`] of the sealed content.
    pub schema_hash: B256,
}

impl SealContext {
    /// The HPKE `info`: every field with its length before it, so that no two contexts share an encoding.
    pub fn info(&self) -> Vec<u8> {
        let mut info = Vec::with_capacity(192);
        push_prefixed(&mut info, FORMAT.as_bytes());
        push_prefixed(&mut info, &self.chain_id.to_be_bytes());
        push_prefixed(&mut info, self.app.as_slice());
        push_prefixed(&mut info, self.compose_hash.as_bytes());
        push_prefixed(&mut info, self.owner.as_str().as_bytes());
        push_prefixed(&mut info, &self.root_epoch.to_be_bytes());
        push_prefixed(&mut info, self.schema_hash.as_slice());
        info
    }
}

/// The wrap key that the KMS gives to an agent: it needs the root's secret key. Another context or another `enc`
/// gives another key, not an error; only an `enc` of the wrong form fails.
pub fn wrap_key_from_root(
    root: &KeyPair,
    context: &SealContext,
    enc: &[u8],
) -> Result<SecretBytes, SealedError> {
    hpke::decapsulate(root, enc, &context.info(), WRAP_LABEL).map_err(SealedError::Kem)
}

/// Names a root's sealing key: SHA-256 of its 1216 bytes.
pub fn root_key_id(root: &PublicKey) -> B256 {
    sha256(root.as_bytes())
}

/// The dataset's id: it commits to the envelope and to every byte of the ciphertext.
pub fn dataset_id(envelope_bytes: &[u8], data_root: DataRoot) -> DatasetId {
    let mut input = Vec::with_capacity(envelope_bytes.len() + 64);
    push_prefixed(&mut input, DATASET_DOMAIN);
    push_prefixed(&mut input, envelope_bytes);
    push_prefixed(&mut input, &data_root.0);
    DatasetId(sha256(&input))
}

/// The secret of one sealed file. It goes into one file and is used up by it: a second plaintext under the same key
/// would repeat nonces.
#[derive(Debug)]
pub struct DataKey(SecretBytes);

impl DataKey {
    /// From the operating system's randomness.
    pub fn fresh() -> Result<Self, SealedError> {
        hpke::random_secret().map(Self).map_err(SealedError::Random)
    }

    pub(super) fn secret(&self) -> &SecretBytes {
        &self.0
    }

    pub(super) fn into_secret(self) -> SecretBytes {
        self.0
    }
}

/// Chunk key and public key commitment of one data key.
pub(super) struct DataKeys {
    pub(super) chunk_key: SecretBytes,
    /// Collision-resistant in the data key: two data keys cannot share it.
    pub(super) commitment: B256,
}

impl DataKeys {
    pub(super) fn derive(data_key: &SecretBytes) -> Self {
        let hkdf = Hkdf::<Sha256>::new(Some(FORMAT.as_bytes()), data_key.expose_secret());
        let expand = |info: &[u8]| {
            let mut out = Zeroizing::new([0; 32]);
            hkdf.expand(info, out.as_mut_slice()).expect("32 bytes are within HKDF-SHA256's 8160");
            out
        };
        Self {
            chunk_key: SecretBytes::new(*expand(CHUNK_KEY_INFO)),
            commitment: B256::from(*expand(COMMITMENT_INFO)),
        }
    }
}

/// Encrypts the data key. The zero nonce is right: a wrap key comes from one encapsulation and encrypts once.
pub(super) fn wrap(
    wrap_key: &SecretBytes,
    aad: &[u8],
    data_key: &SecretBytes,
) -> Result<Vec<u8>, SealedError> {
    let cipher = Aes256Gcm::new(wrap_key.expose_secret().into());
    let payload = Payload { msg: data_key.expose_secret(), aad };
    cipher.encrypt(&[0; 12].into(), payload).map_err(|_| SealedError::Wrap)
}

/// Decrypts the data key and checks it against the envelope's commitment.
pub(super) fn unwrap(
    wrap_key: &SecretBytes,
    aad: &[u8],
    wrapped: &[u8],
    commitment: B256,
) -> Result<DataKeys, SealedError> {
    let cipher = Aes256Gcm::new(wrap_key.expose_secret().into());
    let payload = Payload { msg: wrapped, aad };
    let plain = Zeroizing::new(cipher.decrypt(&[0; 12].into(), payload).map_err(|_| SealedError::Wrap)?);
    let keys = DataKeys::derive(&SecretBytes::from_slice(&plain).ok_or(SealedError::Wrap)?);
    if keys.commitment != commitment {
        return Err(SealedError::Wrap);
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> SealContext {
        SealContext {
            chain_id: 31337,
            app: Address::repeat_byte(1),
            compose_hash: ComposeHash(B256::repeat_byte(2)),
            owner: "hospital-A".parse().unwrap(),
            root_epoch: 0,
            schema_hash: B256::repeat_byte(3),
        }
    }

    #[test]
    fn every_field_of_the_context_gives_another_wrap_key() {
        let root = KeyPair::derive(&SecretBytes::new([7; 32]));
        let (enc, key) = hpke::encapsulate(root.public_key(), &context().info(), WRAP_LABEL).unwrap();
        let again =
            |context: &SealContext| *wrap_key_from_root(&root, context, &enc).unwrap().expose_secret();
        assert_eq!(again(&context()), *key.expose_secret());
        let others = [
            SealContext { chain_id: 1, ..context() },
            SealContext { app: Address::repeat_byte(9), ..context() },
            SealContext { compose_hash: ComposeHash(B256::repeat_byte(9)), ..context() },
            SealContext { owner: "hospital-B".parse().unwrap(), ..context() },
            SealContext { root_epoch: 1, ..context() },
            SealContext { schema_hash: B256::repeat_byte(9), ..context() },
        ];
        let mut keys: Vec<_> = others.iter().map(again).chain([again(&context())]).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 7);
    }

    #[test]
    fn a_wrapped_key_must_match_the_commitment() {
        let (wrap_key, data_key) = (SecretBytes::new([1; 32]), SecretBytes::new([2; 32]));
        let wrapped = wrap(&wrap_key, b"aad", &data_key).unwrap();
        assert_eq!(wrapped.len(), WRAPPED_KEY_BYTES);
        let good = DataKeys::derive(&data_key).commitment;
        assert!(unwrap(&wrap_key, b"aad", &wrapped, good).is_ok());
        assert!(unwrap(&wrap_key, b"other", &wrapped, good).is_err());
        assert!(unwrap(&wrap_key, b"aad", &wrapped, B256::ZERO).is_err());
    }
}
