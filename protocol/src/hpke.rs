//! The one HPKE suite of the project (RFC 9180): X-Wing (X25519 + ML-KEM-768, KEM id 0x647a), HKDF-SHA256.
//!
//! Two uses: sealing a dataset's wrap key to the KMS root (export only), and sealing the KMS's answer to the
//! agent's fresh key (AES-256-GCM).

use std::{fmt, sync::Arc};

use alloy::primitives::hex;
use hpke::{
    Deserializable, Kem as _, OpModeR, OpModeS, Serializable,
    aead::{AesGcm256, ExportOnlyAead},
    kdf::HkdfSha256,
    kem::XWing,
    setup_receiver, setup_sender,
};
use zeroize::{Zeroize, ZeroizeOnDrop};

type PrivateKey = <XWing as hpke::Kem>::PrivateKey;
type HpkePublicKey = <XWing as hpke::Kem>::PublicKey;
type EncappedKey = <XWing as hpke::Kem>::EncappedKey;

/// Length of a public key in bytes.
pub const PUBLIC_KEY_BYTES: usize = 1216;
/// Length of an encapsulated key in bytes.
pub const ENCAPSULATED_KEY_BYTES: usize = 1120;

/// What can go wrong; never says why a ciphertext did not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HpkeError {
    /// Not an X-Wing public key.
    #[error("not an X-Wing public key of {PUBLIC_KEY_BYTES} bytes")]
    PublicKey,
    /// Its X25519 half is a point of low order: everybody knows what any secret gives with it.
    #[error("the X25519 half of this X-Wing public key is a point of low order")]
    LowOrder,
    /// Not an X-Wing encapsulated key.
    #[error("not an X-Wing encapsulated key of {ENCAPSULATED_KEY_BYTES} bytes")]
    EncapsulatedKey,
    /// The key or the context is another one, or the ciphertext was changed.
    #[error("does not open: other key, other context, or changed bytes")]
    Open,
    /// Key encapsulation failed.
    #[error("cannot seal to this public key")]
    Seal,
}

/// The u-coordinates of low order on X25519's curve and its twist, bit 255 cleared: 0, 1, two of order 8, and p - 1, p, p + 1,
/// as https://cr.yp.to/ecdh.html#validate lists them.
const LOW_ORDER: [[u8; 32]; 7] = [
    hex!("0000000000000000000000000000000000000000000000000000000000000000"),
    hex!("0100000000000000000000000000000000000000000000000000000000000000"),
    hex!("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    hex!("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    hex!("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    hex!("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    hex!("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
];

/// An X-Wing public key. It is parsed once: its ML-KEM half is unfolded for some time.
#[derive(Clone)]
pub struct PublicKey {
    bytes: Vec<u8>,
    key: Arc<HpkePublicKey>,
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for PublicKey {}

impl PublicKey {
    /// Parses the 1216 bytes of draft-connolly-cfrg-xwing-kem-10: ML-KEM-768 with FIPS 203's modulus check, and an
    /// X25519 point that is not of low order. X-Wing itself would take such a point, and be ML-KEM alone.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, HpkeError> {
        let key = HpkePublicKey::from_bytes(bytes).map_err(|_| HpkeError::PublicKey)?;
        let mut point = *bytes.last_chunk::<32>().ok_or(HpkeError::PublicKey)?;
        point[31] &= 0x7f;
        if LOW_ORDER.contains(&point) {
            return Err(HpkeError::LowOrder);
        }
        Ok(Self { bytes: bytes.to_vec(), key: Arc::new(key) })
    }

    /// The 1216 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey(0x{}..)", hex::encode(self.bytes.get(..8).unwrap_or_default()))
    }
}

/// A secret of 32 bytes: never printed, wiped on drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SecretBytes([u8; 32]);

impl SecretBytes {
    /// Takes over 32 secret bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// From a slice of exactly 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes, where an algorithm needs them.
    pub fn expose_secret(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(..)")
    }
}

/// An X-Wing key pair derived from 32 secret bytes.
pub struct KeyPair {
    secret: PrivateKey,
    public: PublicKey,
}

impl KeyPair {
    /// RFC 9180 `DeriveKeyPair` of the KEM: the same secret gives the same pair.
    pub fn derive(ikm: &SecretBytes) -> Self {
        let (secret, public) = XWing::derive_keypair(ikm.expose_secret());
        let bytes = public.to_bytes().to_vec();
        Self { secret, public: PublicKey { bytes, key: Arc::new(public) } }
    }

    /// The public half.
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({:?})", self.public)
    }
}

/// Makes a fresh secret that only the holder of `recipient`'s secret key can derive again, for exactly `info`.
///
/// Returns the encapsulated key (public) and the secret: `Context.Export(label, 32)` in mode_base with the
/// export-only AEAD.
pub fn encapsulate(
    recipient: &PublicKey,
    info: &[u8],
    label: &[u8],
) -> Result<(Vec<u8>, SecretBytes), HpkeError> {
    let (enc, context) =
        setup_sender::<ExportOnlyAead, HkdfSha256, XWing>(&OpModeS::Base, &recipient.key, info)
            .map_err(|_| HpkeError::Seal)?;
    let mut secret = SecretBytes([0; 32]);
    context.export(label, &mut secret.0).map_err(|_| HpkeError::Seal)?;
    Ok((enc.to_bytes().to_vec(), secret))
}

/// Derives the secret of [`encapsulate`] again. Another key or another `info` gives another secret, not an error.
pub fn decapsulate(
    recipient: &KeyPair,
    enc: &[u8],
    info: &[u8],
    label: &[u8],
) -> Result<SecretBytes, HpkeError> {
    let enc = EncappedKey::from_bytes(enc).map_err(|_| HpkeError::EncapsulatedKey)?;
    let context =
        setup_receiver::<ExportOnlyAead, HkdfSha256, XWing>(&OpModeR::Base, &recipient.secret, &enc, info)
            .map_err(|_| HpkeError::Open)?;
    let mut secret = SecretBytes([0; 32]);
    context.export(label, &mut secret.0).map_err(|_| HpkeError::Open)?;
    Ok(secret)
}

/// Encrypts one message to `recipient` (mode_base, AES-256-GCM). Returns encapsulated key and ciphertext.
pub fn seal(
    recipient: &PublicKey,
    info: &[u8],
    aad: &[u8],
    plaintext: &[u8],
) -> Result<(Vec<u8>, Vec<u8>), HpkeError> {
    let (enc, mut context) =
        setup_sender::<AesGcm256, HkdfSha256, XWing>(&OpModeS::Base, &recipient.key, info)
            .map_err(|_| HpkeError::Seal)?;
    let ciphertext = context.seal(plaintext, aad).map_err(|_| HpkeError::Seal)?;
    Ok((enc.to_bytes().to_vec(), ciphertext))
}

/// Opens what [`seal`] made.
pub fn open(
    recipient: &KeyPair,
    enc: &[u8],
    info: &[u8],
    aad: &[u8],
    ciphertext: &[u8],
) -> Result<Vec<u8>, HpkeError> {
    let enc = EncappedKey::from_bytes(enc).map_err(|_| HpkeError::EncapsulatedKey)?;
    let mut context =
        setup_receiver::<AesGcm256, HkdfSha256, XWing>(&OpModeR::Base, &recipient.secret, &enc, info)
            .map_err(|_| HpkeError::Open)?;
    context.open(ciphertext, aad).map_err(|_| HpkeError::Open)
}

/// Fresh secret bytes from the operating system.
pub fn random_secret() -> Result<SecretBytes, getrandom::Error> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes)?;
    Ok(SecretBytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(byte: u8) -> KeyPair {
        KeyPair::derive(&SecretBytes::new([byte; 32]))
    }

    #[test]
    fn half_a_public_key_is_none() {
        let good = pair(1).public_key().as_bytes().to_vec();
        assert!(PublicKey::from_bytes(&good).is_ok());
        let with = |at: usize, bytes: &[u8]| {
            let mut key = good.clone();
            key[at..at + bytes.len()].copy_from_slice(bytes);
            PublicKey::from_bytes(&key).err()
        };
        // 0, 1, p - 1, p, p + 1 and the two points of order 8; bit 255 does not count.
        let mut points = vec![[0; 32], [0; 32], [0xff; 32], [0xff; 32], [0xff; 32]];
        points[1][0] = 1;
        for (point, low) in points[2..].iter_mut().zip([0xec, 0xed, 0xee]) {
            (point[0], point[31]) = (low, 0x7f);
        }
        for order_8 in [
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
            "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        ] {
            points.push(hex::decode(order_8).unwrap().try_into().unwrap());
        }
        assert!(LOW_ORDER.iter().all(|point| points.contains(point)));
        for mut point in points {
            // A clamped scalar is a multiple of 8, the orders of these points divide 8.
            assert_eq!(x25519_dalek::x25519([8; 32], point), [0; 32]);
            assert_eq!(with(1184, &point), Some(HpkeError::LowOrder), "{point:02x?}");
            point[31] |= 0x80;
            assert_eq!(with(1184, &point), Some(HpkeError::LowOrder), "{point:02x?}");
        }
        assert_eq!(
            with(0, &[0xff, 0x0f]),
            Some(HpkeError::PublicKey),
            "a coefficient of 4095, not below 3329"
        );
        assert_eq!(PublicKey::from_bytes(&good[1..]).err(), Some(HpkeError::PublicKey));
    }

    #[test]
    fn only_the_same_key_and_context_give_the_secret_again() {
        let kms = pair(1);
        let (enc, secret) = encapsulate(kms.public_key(), b"context", b"label").unwrap();
        let again = |k: &KeyPair, info: &[u8], label: &[u8]| {
            decapsulate(k, &enc, info, label).unwrap().expose_secret() == secret.expose_secret()
        };
        assert!(again(&kms, b"context", b"label"));
        assert!(!again(&kms, b"other", b"label"));
        assert!(!again(&kms, b"context", b"other"));
        assert!(!again(&pair(2), b"context", b"label"));
    }

    #[test]
    fn a_message_opens_only_unchanged_and_in_its_context() {
        let agent = pair(3);
        let (enc, mut sealed) = seal(agent.public_key(), b"info", b"aad", b"wrap keys").unwrap();
        assert_eq!(open(&agent, &enc, b"info", b"aad", &sealed).unwrap(), b"wrap keys");
        assert!(open(&agent, &enc, b"info", b"other", &sealed).is_err());
        assert!(open(&pair(4), &enc, b"info", b"aad", &sealed).is_err());
        sealed[0] ^= 1;
        assert!(open(&agent, &enc, b"info", b"aad", &sealed).is_err());
    }
}
