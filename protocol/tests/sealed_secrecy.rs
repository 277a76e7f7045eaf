//! Trap T1: nothing that is public derives a key. An attacker with every public value tries.

mod sealed_support;

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Payload},
};
use cohort_protocol::{
    hpke::{KeyPair, SecretBytes},
    json::{push_prefixed, sha256},
    sealed::{WRAP_LABEL, open, read_header, root_key_id},
};
use hkdf::Hkdf;
use sealed_support::{kms_key, params, root, seal_bytes};
use sha2::Sha256;

/// Every public value as bytes, in several encodings.
fn public_values(file: &[u8]) -> Vec<Vec<u8>> {
    let root = root();
    let envelope = read_header(&mut &file[..]).unwrap();
    let context = envelope.context();
    let mut all = vec![
        vec![],
        root.public_key().as_bytes().to_vec(),
        root_key_id(root.public_key()).to_vec(),
        envelope.enc().to_vec(),
        envelope.enc()[1088..].to_vec(),
        envelope.bytes().to_vec(),
        context.info(),
        context.app.to_vec(),
        context.app.to_string().into_bytes(),
        context.compose_hash.as_bytes().to_vec(),
        context.compose_hash.to_string().into_bytes(),
        context.owner.as_str().as_bytes().to_vec(),
        context.owner.word().to_vec(),
        context.chain_id.to_be_bytes().to_vec(),
        WRAP_LABEL.to_vec(),
    ];
    // The product page's literal formula: HKDF(kms_root_pubkey, app, compose, owner), joined plainly or by length.
    let parts = [context.app.as_slice(), context.compose_hash.as_bytes(), context.owner.as_str().as_bytes()];
    all.push(parts.concat());
    let mut prefixed = Vec::new();
    parts.iter().for_each(|part| push_prefixed(&mut prefixed, part));
    all.push(prefixed);
    all
}

#[test]
fn hkdf_over_public_values_opens_nothing() {
    let root = root();
    let params = params(&root);
    let (file, summary) = seal_bytes(b"secret rows", &params).unwrap();
    let values = public_values(&file);
    let mut guesses = Vec::new();
    for ikm in &values {
        guesses.push(sha256(ikm).0);
        guesses.extend(<[u8; 32]>::try_from(ikm.as_slice()).ok());
        for salt in &values {
            let hkdf = Hkdf::<Sha256>::new(Some(salt), ikm);
            for info in &values {
                let mut key = [0; 32];
                hkdf.expand(info, &mut key).unwrap();
                guesses.push(key);
            }
        }
    }
    assert!(guesses.len() > 4000);
    // The attacker also tries each guess as the data key's wrapping with no or any associated data.
    let text: serde_json::Value = serde_json::from_slice(summary.envelope.bytes()).unwrap();
    let wrapped = hex::decode(text["wrapped_key"].as_str().unwrap().trim_start_matches("0x")).unwrap();
    for guess in guesses {
        assert_eq!(open(&mut &file[..], &SecretBytes::new(guess), 100).unwrap_err().layer(), "wrap");
        let cipher = Aes256Gcm::new(&guess.into());
        let payload = Payload { msg: &wrapped, aad: &[] };
        assert!(cipher.decrypt(&[0; 12].into(), payload).is_err());
    }
    // The test can fail: with the root's secret the same file opens.
    let key = kms_key(&root, &params.context().unwrap(), summary.envelope.enc());
    assert_eq!(**open(&mut &file[..], &key, 100).unwrap().0, *b"secret rows");
}

#[test]
fn a_key_pair_made_of_public_values_opens_nothing() {
    let root = root();
    let params = params(&root);
    let (file, summary) = seal_bytes(b"secret rows", &params).unwrap();
    for value in public_values(&file) {
        let pair = KeyPair::derive(&SecretBytes::new(sha256(&value).0));
        let key = kms_key(&pair, &params.context().unwrap(), summary.envelope.enc());
        assert_eq!(open(&mut &file[..], &key, 100).unwrap_err().layer(), "wrap");
    }
}
