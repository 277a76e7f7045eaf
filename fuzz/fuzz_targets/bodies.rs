//! What each target demands of any bytes. Coverage-guided fuzzing calls it, and the smoke of `cli/tests/fuzz_smoke.rs`.
#![allow(dead_code)] // each user takes a part of it

use std::{io::Cursor, sync::LazyLock};

use cohort_attestation::{KmsEvidence, Policy, kms};
use cohort_protocol::{
    compose::AppCompose,
    hpke::SecretBytes,
    json,
    root::{RootAnswer, RootKeys},
    sealed::{Envelope, Recovery, SealedReader, check, open, read_header, wrap_key_from_root},
};
use cohort_recognise::recognise_stream;

/// The root of the committed vectors, which are the seeds: 00 01 02 ... 1f.
static ROOT: LazyLock<RootKeys> = LazyLock::new(|| {
    let secret = SecretBytes::new(std::array::from_fn(|index| index as u8));
    RootKeys::derive(&secret, 0).expect("the vectors' root")
});

/// As `envelope.json`: refused, or exactly the canonical bytes of what was read.
pub(crate) fn envelope(data: &[u8]) {
    if let Ok(envelope) = Envelope::parse(data) {
        assert_eq!(envelope.bytes(), data);
        assert!(envelope.chunking().sealed_bytes() > envelope.content().bytes);
        let _ = (envelope.context().info(), format!("{envelope:?}"));
    }
}

/// As a sealed file, without a key: refused, or every byte of the file is accounted for.
pub(crate) fn archive(data: &[u8]) {
    if let Ok(checked) = check(&mut &data[..]) {
        assert_eq!(checked.file_bytes, data.len() as u64);
        assert!(check(&mut &data[..data.len() - 1]).is_err(), "a shorter file");
        assert!(check(&mut &[data, &[0]].concat()[..]).is_err(), "a longer file");
    }
}

/// As a sealed file, with the key that its own envelope asks for: all ways to open it agree.
pub(crate) fn opened(data: &[u8]) {
    let Ok(envelope) = read_header(&mut &data[..]) else { return };
    let Ok(key) = wrap_key_from_root(&ROOT.sealing, &envelope.context(), envelope.enc()) else { return };
    let Ok((plain, checked)) = open(&mut &data[..], &key, 1 << 20) else { return };
    assert_eq!(check(&mut &data[..]).expect("it opens"), checked);
    let mut reader = SealedReader::new(Cursor::new(data), &key).expect("it opens");
    let mut parts = Vec::new();
    for index in 0..reader.chunking().count() {
        parts.extend_from_slice(reader.chunk(index).expect("it opens"));
    }
    assert_eq!(*plain, parts);
}

/// As an owner's recovery record: refused, or written and read back the same.
pub(crate) fn recovery(data: &[u8]) {
    if let Ok(recovery) = Recovery::parse(data) {
        let json = recovery.to_json().expect("it was read");
        assert_eq!(*Recovery::parse(&json).expect("it was written").to_json().expect("again"), *json);
    }
}

/// As a KMS's answer about its root: refused, or read back the same; and no bytes make evidence under Intel's root.
pub(crate) fn root(data: &[u8]) {
    let Ok(answer) = json::parse::<RootAnswer<KmsEvidence>>(data) else { return };
    let text = serde_json::to_vec(&answer).expect("it was read");
    assert_eq!(json::parse::<RootAnswer<KmsEvidence>>(&text).expect("it was written"), answer);
    let _ = answer.statement.verify();
    if let Some(evidence) = &answer.evidence {
        assert!(evidence.verify(&[0; 64], &Policy::production(), 1_790_000_000).is_err());
        let _ = kms::verify(&answer.statement, evidence, None, &Policy::production(), 1_790_000_000);
    }
}

/// As an app-compose file and its recipe: refused or read, never a panic.
pub(crate) fn compose(data: &[u8]) {
    if let Ok(compose) = AppCompose::parse(data) {
        let _ = (compose.compose_hash(), compose.recipe().map(|recipe| recipe.owners().len()));
    }
}

/// As a data file without a name: recognised, or refused in one line. Whether its columns fit an envelope is checked there.
/// Arrow's schema decoder panics in a thread of its own.
pub(crate) fn table(data: &[u8]) {
    if let Err(error) = recognise_stream(&mut Cursor::new(data), &|| false) {
        assert!(!error.to_string().contains('\n'));
    }
}
