//! Sealing a stream of unknown length: the same format, and only ciphertext in the working file.

mod sealed_support;

use std::{
    io::{Cursor, Read, Seek, SeekFrom},
    ops::ControlFlow,
};

use cohort_protocol::sealed::{DataKey, SealParams, SealedError, Spooled, open, read_header, spool};
use proptest::prelude::*;
use sealed_support::{go_on, kms_key, params, plaintext, root};

fn spooled(input: &mut (impl Read + Send), chunk_bytes: u32) -> Spooled<Cursor<Vec<u8>>> {
    spool(input, Cursor::default(), chunk_bytes, DataKey::fresh().unwrap(), &mut go_on).unwrap()
}

/// Gives one to three bytes at a time, as pipes do.
struct Drops<'d>(&'d [u8]);

impl Read for Drops<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let count = buf.len().min(1 + self.0.len() % 3);
        (&mut self.0).read(&mut buf[..count])
    }
}

fn opens(length: usize, chunk_bytes: u32) {
    let root = root();
    let params = SealParams { chunk_bytes, ..params(&root) };
    let plain = plaintext(length);
    let mut stream = spooled(&mut Drops(&plain), chunk_bytes);
    assert_eq!(stream.plain_bytes(), length as u64);
    let mut again = Vec::new();
    stream.plaintext().unwrap().read_to_end(&mut again).unwrap();
    assert!(again == plain);
    let mut file = Vec::new();
    let summary = stream.seal(&mut file, &params, &mut go_on).unwrap();
    let envelope = read_header(&mut &file[..]).unwrap();
    let key = kms_key(&root, &envelope.context(), envelope.enc());
    let (opened, checked) = open(&mut &file[..], &key, length as u64).unwrap();
    assert!(*opened == plain, "{length} bytes");
    assert_eq!(checked.dataset_id, summary.dataset_id);
}

#[test]
fn streams_of_sizes_at_chunk_borders_open() {
    for length in [0, 1, 4095, 4096, 4097, 8191, 8192, 8193, 40960] {
        opens(length, 4096);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_stream_opens(length in 0usize..30000, power in 12u32..14) {
        opens(length, 1 << power);
    }

    #[test]
    fn the_plaintext_can_be_read_anywhere(at in 0u64..20000, take in 0usize..9000) {
        let plain = plaintext(20000);
        let mut stream = spooled(&mut &plain[..], 4096);
        let mut text = stream.plaintext().unwrap();
        text.seek(SeekFrom::Start(at)).unwrap();
        let mut part = Vec::new();
        text.by_ref().take(take as u64).read_to_end(&mut part).unwrap();
        let end = plain.len().min(at as usize + take);
        prop_assert!(part == plain[at as usize..end]);
        prop_assert_eq!(text.seek(SeekFrom::End(-1)).unwrap(), 19999);
        prop_assert!(text.seek(SeekFrom::Current(-20000)).is_err());
        prop_assert_eq!(text.seek(SeekFrom::Current(5)).unwrap(), 20004);
        prop_assert_eq!(text.read(&mut [0]).unwrap(), 0);
    }
}

#[test]
fn the_working_file_holds_ciphertext_only() {
    let mut kept = Cursor::new(Vec::new());
    let plain = plaintext(3 * 4096 + 7);
    spool(&mut &plain[..], &mut kept, 4096, DataKey::fresh().unwrap(), &mut go_on).unwrap();
    let kept = kept.into_inner();
    assert_eq!(kept.len(), plain.len() + 4 * 16);
    assert!(!plain.windows(16).step_by(16).any(|part| kept.windows(16).any(|other| other == part)));
}

#[test]
fn a_working_file_that_changed_is_refused() {
    let plain = plaintext(9000);
    let mut shared = tempfile::tempfile().unwrap();
    let handle = shared.try_clone().unwrap();
    let stream = spool(&mut &plain[..], handle, 4096, DataKey::fresh().unwrap(), &mut go_on).unwrap();
    shared.seek(SeekFrom::Start(5000)).unwrap();
    std::io::Write::write_all(&mut shared, b"altered").unwrap();
    let error = stream.seal(&mut Vec::new(), &params(&root()), &mut go_on).unwrap_err();
    assert_eq!(error.layer(), "commitment");
}

#[test]
fn a_stream_can_be_stopped_and_bad_chunk_sizes_are_refused() {
    let stop = &mut |done| if done < 8192 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
    let key = || DataKey::fresh().unwrap();
    let stopped = spool(&mut std::io::repeat(1), Cursor::new(vec![]), 4096, key(), stop).err();
    assert!(matches!(stopped, Some(SealedError::Cancelled)));
    let refused = spool(&mut &b""[..], Cursor::new(vec![]), 1000, key(), &mut go_on).err();
    assert_eq!(refused.unwrap().layer(), "envelope");
}
