//! The committed vectors: the reader gives each file's verdict, and the generator gives these very bytes.

mod sealed_support;

use std::{fs, path::PathBuf};

use cohort_protocol::{
    json::sha256,
    sealed::{SealedError, check, open, read_header, wrap_key_from_root},
};
use sealed_support::vectors::{Attested, Expected, Index, all, root_keys};

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../test/vectors/sealed-dataset"))
}

/// Opens a file as the KMS and the agent do: the wrap key follows from the attested facts.
fn read(file: &[u8], attested: &Attested) -> Result<(Vec<u8>, String, String), SealedError> {
    let enc = read_header(&mut &file[..])?.enc().to_vec();
    let root = root_keys(attested.root_epoch).sealing;
    let key = wrap_key_from_root(&root, &attested.context(), &enc)?;
    let (plain, checked) = open(&mut &file[..], &key, 1 << 20)?;
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
    let index: Index = serde_json::from_slice(&fs::read(folder().join("index.json")).unwrap()).unwrap();
    assert!(index.cases.len() > 100);
    for case in &index.cases {
        let bytes = fs::read(folder().join(&case.file)).unwrap();
        match (&case.layer, &case.expected) {
            (None, Some(expected)) => assert_expected(&case.file, &bytes, &case.attested, expected),
            (Some(layer), None) => {
                let error = read(&bytes, &case.attested).expect_err(&case.file);
                assert_eq!(error.layer(), layer, "{}: {error}", case.file);
                // Without any key the same holds for the layers that need none.
                let keyless = check(&mut &bytes[..]).err().map(|error| error.layer().to_owned());
                let needs_key = ["wrap", "chunk"].contains(&layer.as_str());
                assert_eq!(keyless.as_ref(), (!needs_key).then_some(layer), "{}", case.file);
            }
            _ => panic!("{}: either a layer or expected values", case.file),
        }
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
