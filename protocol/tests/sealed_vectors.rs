//! The committed vectors: the reader gives each file's verdict, and the generator gives these very bytes.

mod sealed_support;

use std::{fs, path::PathBuf};

use cohort_protocol::{
    hpke::PublicKey,
    json::sha256,
    sealed::{
        Recovery, ResealPart, ResealTarget, SealedError, check, open, read_header, reseal, wrap_key_from_root,
    },
};
use sealed_support::{
    go_on, layout, recommitted,
    vectors::{Attested, Case, Expected, Index, all, root_keys},
};

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../test/vectors/sealed-dataset"))
}

fn file(name: &str) -> Vec<u8> {
    fs::read(folder().join(name)).unwrap()
}

fn index() -> Index {
    serde_json::from_slice(&file("index.json")).unwrap()
}

/// Opens a file as the KMS and the agent do: the wrap key follows from the attested facts.
fn read(file: &[u8], attested: &Attested) -> Result<(Vec<u8>, String, String), SealedError> {
    let enc = read_header(&mut &file[..])?.enc().to_vec();
    let root = root_keys(attested.root_epoch).sealing;
    let key = wrap_key_from_root(&root, &attested.context(), &enc)?;
    let (plain, checked) = open(&mut &file[..], &key, 2 << 20)?;
    Ok((plain.to_vec(), checked.dataset_id.to_string(), checked.data_root.to_string()))
}

fn assert_expected(file: &str, bytes: &[u8], attested: &Attested, expected: &Expected) {
    let (plain, dataset_id, data_root) =
        read(bytes, attested).unwrap_or_else(|error| panic!("{file}: {error}"));
    assert_eq!(sha256(&plain), expected.plaintext_sha256, "{file}");
    assert_eq!(plain.len() as u64, expected.plaintext_bytes, "{file}");
    assert_eq!((dataset_id, data_root), (expected.dataset_id.clone(), expected.data_root.clone()), "{file}");
    assert_eq!(hex::encode(attested.context().info()), expected.info, "{file}");
}

#[test]
fn every_file_gets_its_verdict() {
    let cases = index().cases;
    assert!(cases.len() > 100);
    for case in &cases {
        let bytes = file(&case.file);
        match (&case.layers, &case.expected) {
            (None, Some(expected)) => assert_expected(&case.file, &bytes, &case.attested, expected),
            (Some(layers), None) => assert_refused(case, layers, &bytes),
            _ => panic!("{}: either layers or expected values", case.file),
        }
    }
}

fn assert_refused(case: &Case, layers: &[String], bytes: &[u8]) {
    let error = read(bytes, &case.attested).expect_err(&case.file);
    assert!(layers.iter().any(|layer| layer == error.layer()), "{}: {error}", case.file);
    // One line that no terminal acts on, whatever the file says.
    let said = error.to_string();
    assert!(said.len() < 10_000 && !said.chars().any(|c| c.is_control() || c == '\u{202e}'), "{}", case.file);
    // Without any key the same holds for the layers that need none.
    let keyless = check(&mut &bytes[..]).err().map(|error| error.layer());
    let expected = layers.iter().map(String::as_str).find(|layer| !["wrap", "chunk"].contains(layer));
    match (keyless, expected) {
        (Some(layer), Some(_)) => {
            assert!(layers.iter().any(|other| other == layer), "{}: {layer}", case.file)
        }
        _ => assert_eq!(keyless, expected, "{}", case.file),
    }
}

#[test]
fn a_large_index_counts_whole() {
    let case = index().cases.into_iter().find(|case| case.file == "valid-258-chunks.tar").unwrap();
    let mut bytes = file(&case.file);
    let parts = layout(&bytes);
    let (start, length) = parts.data;
    let (first, second) = bytes[start..start + length].split_at_mut(257 * 4112);
    assert_eq!((first.len(), second.len()), (257 * 4112, 17));
    // 0 and 256 differ in the upper byte of the index only.
    let (zero, rest) = first.split_at_mut(4112);
    zero.swap_with_slice(&mut rest[255 * 4112..]);
    let envelope = bytes[512..512 + parts.envelope.1].to_vec();
    let swapped = recommitted(&envelope, &bytes[start..start + length]);
    assert_eq!(read(&swapped, &case.attested).unwrap_err().layer(), "chunk");
}

#[test]
fn public_keys_are_taken_or_refused() {
    let cases = index().public_keys;
    assert!(cases.len() > 10);
    for case in cases {
        let key = PublicKey::from_bytes(&hex::decode(&case.public_key).unwrap());
        assert_eq!(key.is_ok(), case.accepted, "{}", case.about);
    }
}

#[test]
fn recovery_records_are_taken_or_refused() {
    let cases = index().recovery;
    assert!(cases.len() > 20);
    for case in cases {
        let record = Recovery::parse(case.record.as_bytes());
        assert_eq!(record.is_ok(), case.accepted, "{}", case.about);
        if let Err(error) = record {
            assert_eq!(error.layer(), "recovery");
        }
    }
}

#[test]
fn a_record_and_a_head_join_to_a_new_file() {
    for case in index().reseals {
        let (old, new) = (file(&case.old), file(&case.new));
        assert_eq!(new, [&new[..case.head_bytes], &old[case.old_data_offset..]].concat());
        let record = Recovery::parse(case.record.as_bytes()).unwrap();
        let context = read_header(&mut &new[..]).unwrap().context();
        let target = ResealTarget {
            chain_id: context.chain_id,
            app: context.app,
            compose_hash: context.compose_hash,
            owner: context.owner.clone(),
            root_epoch: context.root_epoch,
            root: root_keys(context.root_epoch).sealing.public_key().clone(),
        };
        let mut head = Vec::new();
        let done = reseal(&mut &old[..], &record, &target, &mut head, ResealPart::Head, &mut go_on)
            .expect("it reseals");
        assert_eq!(
            (head.len() as u64, done.old_data_offset),
            (case.head_bytes as u64, case.old_data_offset as u64)
        );
        assert_eq!(done.summary.envelope.context(), context);
        let joined = [&head[..], &old[case.old_data_offset..]].concat();
        assert_eq!(check(&mut &joined[..]).unwrap().dataset_id, done.summary.dataset_id);
    }
}

#[test]
fn the_generator_gives_the_committed_files() {
    let (index, files) = all();
    let mut text = serde_json::to_string_pretty(&index).unwrap();
    text.push('\n');
    assert!(
        text == fs::read_to_string(folder().join("index.json")).unwrap(),
        "index.json: run the generator"
    );
    for (case, bytes) in &files {
        assert!(*bytes == fs::read(folder().join(&case.file)).unwrap(), "{}", case.file);
    }
    assert_eq!(fs::read_dir(folder()).unwrap().count(), files.len() + 1, "a file that no case names");
}
