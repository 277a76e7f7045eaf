//! A small file with any one bit changed, or cut anywhere, is refused.

mod sealed_support;

use cohort_protocol::sealed::{ContentKind, SealParams, check, open};
use sealed_support::{kms_key, params, root, seal_bytes};

#[test]
fn every_bit_counts() {
    let root = root();
    let params = SealParams { kind: ContentKind::Bytes, rows: None, schema: None, ..params(&root) };
    let (file, summary) = seal_bytes(b"row", &params).unwrap();
    let key = kms_key(&root, &params.context().unwrap(), summary.envelope.enc());
    assert!(open(&mut &file[..], &key, 100).is_ok());
    let refused = |bytes: std::ops::Range<usize>| {
        let mut changed = file.clone();
        for bit in bytes.start * 8..bytes.end * 8 {
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&mut &changed[..], &key, 100).is_err(), "byte {} bit {}", bit / 8, bit % 8);
            // Without the key a changed envelope may still be one, but it is never the registered dataset.
            if bit % 8 == 0
                && let Ok(checked) = check(&mut &changed[..])
            {
                assert_ne!(checked.dataset_id, summary.dataset_id, "byte {}", bit / 8);
            }
            changed[bit / 8] ^= 1 << (bit % 8);
        }
    };
    let middle = file.len() / 2;
    std::thread::scope(|scope| {
        scope.spawn(|| refused(0..middle));
        scope.spawn(|| refused(middle..file.len()));
    });
}

#[test]
fn every_cut_is_seen() {
    let root = root();
    let params = params(&root);
    let (file, summary) = seal_bytes(b"row", &params).unwrap();
    let key = kms_key(&root, &params.context().unwrap(), summary.envelope.enc());
    for length in 0..file.len() {
        assert_eq!(open(&mut &file[..length], &key, 100).unwrap_err().layer(), "tar", "{length}");
        assert_eq!(check(&mut &file[..length]).unwrap_err().layer(), "tar", "{length}");
    }
}
