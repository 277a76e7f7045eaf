//! Encrypted JSON keystores: Web3 Secret Storage, version 3, as geth, Foundry and most wallets write them.

use aes::{
    Aes128,
    cipher::{KeyIvInit, StreamCipher},
};
use alloy::primitives::{B256, keccak256};
use ctr::Ctr128BE;
use serde::Deserialize;
use sha2::Sha256;
use thiserror::Error;
use zeroize::Zeroizing;

/// Most memory that a file may make scrypt take, in bytes: geth's own files take 256 MiB.
const MEMORY_LIMIT: u64 = 512 << 20;
/// Most rounds that a file may make PBKDF2 take; files in use have 262,144.
const ROUNDS_LIMIT: u32 = 10_000_000;

/// Why a keystore does not open.
#[derive(Debug, Error)]
pub(super) enum KeystoreError {
    /// Not the JSON of such a file.
    #[error("it is no keystore of version 3: {0}")]
    Form(serde_json::Error),
    /// Another version.
    #[error("it has version {0}, not 3")]
    Version(u64),
    /// A cipher or a parameter that such files do not have.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
    /// The MAC does not fit.
    #[error("the password is wrong, or the file is damaged")]
    Password,
}

#[derive(Deserialize)]
struct Keystore {
    version: u64,
    #[serde(alias = "Crypto")]
    crypto: Crypto,
}

#[derive(Deserialize)]
struct Crypto {
    cipher: String,
    cipherparams: CipherParams,
    ciphertext: Hex,
    #[serde(flatten)]
    kdf: Kdf,
    mac: Hex,
}

#[derive(Deserialize)]
struct CipherParams {
    iv: Hex,
}

#[derive(Deserialize)]
#[serde(tag = "kdf", content = "kdfparams", rename_all = "lowercase")]
enum Kdf {
    Scrypt { dklen: usize, n: u64, r: u32, p: u32, salt: Hex },
    Pbkdf2 { dklen: usize, c: u32, prf: String, salt: Hex },
}

#[derive(Deserialize)]
struct Hex(#[serde(with = "hex::serde")] Vec<u8>);

/// The private key in a keystore.
pub(super) fn open(json: &[u8], password: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeystoreError> {
    let Keystore { version, crypto } = serde_json::from_slice(json).map_err(KeystoreError::Form)?;
    if version != 3 {
        return Err(KeystoreError::Version(version));
    }
    if crypto.cipher != "aes-128-ctr" {
        return Err(KeystoreError::Unsupported("the cipher"));
    }
    let derived = derive(&crypto.kdf, password)?;
    let (key, mac_key) = derived.split_at(16);
    let mac = keccak256([mac_key, &crypto.ciphertext.0].concat());
    if B256::try_from(crypto.mac.0.as_slice()).ok() != Some(mac) {
        return Err(KeystoreError::Password);
    }
    let mut secret = Zeroizing::new(crypto.ciphertext.0);
    Ctr128BE::<Aes128>::new_from_slices(key, &crypto.cipherparams.iv.0)
        .map_err(|_| KeystoreError::Unsupported("the length of the iv"))?
        .apply_keystream(&mut secret);
    Ok(secret)
}

/// 32 bytes: half of them encrypt, the others are in the MAC.
fn derive(kdf: &Kdf, password: &[u8]) -> Result<Zeroizing<[u8; 32]>, KeystoreError> {
    let mut key = Zeroizing::new([0; 32]);
    let (Kdf::Scrypt { dklen, .. } | Kdf::Pbkdf2 { dklen, .. }) = kdf;
    if *dklen != key.len() {
        return Err(KeystoreError::Unsupported("the length of the derived key"));
    }
    match kdf {
        Kdf::Scrypt { n, r, p, salt, .. } => {
            let memory = n.saturating_mul(u64::from(*r)).saturating_mul(128);
            if !n.is_power_of_two() || memory > MEMORY_LIMIT || *p > 16 {
                return Err(KeystoreError::Unsupported("what scrypt would take"));
            }
            let bad = |_| KeystoreError::Unsupported("what scrypt would take");
            let log_n = u8::try_from(n.trailing_zeros()).unwrap_or(u8::MAX);
            let params = scrypt::Params::new(log_n, *r, *p).map_err(bad)?;
            scrypt::scrypt(password, &salt.0, &params, key.as_mut())
                .map_err(|_| KeystoreError::Unsupported("the length of the derived key"))?;
        }
        Kdf::Pbkdf2 { c, prf, salt, .. } => {
            if prf != "hmac-sha256" || *c == 0 || *c > ROUNDS_LIMIT {
                return Err(KeystoreError::Unsupported("what PBKDF2 would take"));
            }
            pbkdf2::pbkdf2_hmac::<Sha256>(password, &salt.0, *c, key.as_mut());
        }
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// The definition's own example (ethereum.org, Web3 Secret Storage): password `testpassword`.
    fn example() -> Value {
        json!({
            "crypto": {
                "cipher": "aes-128-ctr",
                "cipherparams": { "iv": "6087dab2f9fdbbfaddc31a909735c1e6" },
                "ciphertext": "5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46",
                "kdf": "pbkdf2",
                "kdfparams": {
                    "c": 262144, "dklen": 32, "prf": "hmac-sha256",
                    "salt": "ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd"
                },
                "mac": "517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2"
            },
            "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6",
            "version": 3
        })
    }

    fn opened(keystore: &Value, password: &str) -> Result<String, String> {
        open(keystore.to_string().as_bytes(), password.as_bytes())
            .map(|key| hex::encode(key.as_slice()))
            .map_err(|e| e.to_string())
    }

    #[test]
    fn the_definitions_example_opens_with_its_password_only() {
        let key = "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d";
        assert_eq!(opened(&example(), "testpassword").unwrap(), key);
        assert!(opened(&example(), "testpasswore").unwrap_err().contains("password is wrong"));
    }

    #[test]
    fn what_would_take_for_ever_or_is_unknown_is_refused() {
        let changed = |pointer: &str, value: Value| {
            let mut keystore = example();
            *keystore.pointer_mut(pointer).unwrap() = value;
            opened(&keystore, "testpassword").unwrap_err()
        };
        assert!(changed("/version", json!(4)).contains("version 4"));
        assert!(changed("/crypto/cipher", json!("aes-256-gcm")).contains("cipher"));
        assert!(changed("/crypto/kdfparams/c", json!(4_000_000_000_u32)).contains("PBKDF2"));
        assert!(changed("/crypto/kdfparams/dklen", json!(64)).contains("derived key"));
        assert!(changed("/crypto/mac", json!("00")).contains("password is wrong"));
        let scrypt = |n: u64| json!({ "dklen": 32, "n": n, "r": 8, "p": 1, "salt": "00" });
        let with = |n| {
            let mut keystore = example();
            keystore["crypto"]["kdf"] = json!("scrypt");
            keystore["crypto"]["kdfparams"] = scrypt(n);
            opened(&keystore, "testpassword").unwrap_err()
        };
        assert!(with(1 << 40).contains("scrypt"));
        assert!(with(1000).contains("scrypt"));
        assert!(with(1 << 10).contains("password is wrong"));
    }
}
