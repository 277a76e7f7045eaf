//! What is sealed opens again, whole and by chunk, for exactly its context.

mod sealed_support;

use std::{
    io::{self, Cursor, Read, Write},
    ops::ControlFlow,
};

use alloy::primitives::{Address, B256};
use cohort_protocol::{
    ids::ComposeHash,
    sealed::{
        self, CHUNK_BYTES_DEFAULT, ContentKind, Envelope, SealContext, SealParams, SealedError, SealedReader,
        check, open, open_to, read_header,
    },
};
use proptest::prelude::*;
use sealed_support::{go_on, kms_key, params, plaintext, root, seal_bytes};

fn opens(length: usize, chunk_bytes: u32) {
    let root = root();
    let params = SealParams { chunk_bytes, ..params(&root) };
    let plain = plaintext(length);
    let (file, summary) = seal_bytes(&plain, &params).unwrap();
    assert_eq!(summary.file_bytes, file.len() as u64);

    let envelope = read_header(&mut &file[..]).unwrap();
    assert_eq!(envelope.context(), params.context().unwrap());
    let key = kms_key(&root, &params.context().unwrap(), envelope.enc());
    let (opened, checked) = open(&mut &file[..], &key, length as u64).unwrap();
    assert!(*opened == plain, "{length} bytes");
    assert_eq!(checked.dataset_id, summary.dataset_id);
    assert_eq!(check(&mut &file[..]).unwrap(), checked);

    let mut streamed = Vec::new();
    assert_eq!(open_to(&mut &file[..], &key, &mut streamed).unwrap(), checked);
    assert!(streamed == plain);

    let mut reader = SealedReader::new(Cursor::new(&file), &key).unwrap();
    let mut from_behind = Vec::new();
    for index in (0..reader.chunking().count()).rev() {
        from_behind.splice(0..0, reader.chunk(index).unwrap().iter().copied());
    }
    assert!(from_behind == plain);
    assert_eq!(reader.chunk(reader.chunking().count()).unwrap_err().layer(), "chunk");
}

#[test]
fn sizes_at_chunk_and_tar_borders_open() {
    for length in [0, 1, 495, 496, 497, 511, 512, 4079, 4080, 4095, 4096, 4097, 8191, 8192, 8193, 12288] {
        opens(length, 4096);
    }
    opens(5, CHUNK_BYTES_DEFAULT);
    opens(CHUNK_BYTES_DEFAULT as usize + 1, CHUNK_BYTES_DEFAULT);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_size_around_chunk_borders_opens(chunks in 0usize..4, around in -20isize..20, power in 12u32..15) {
        let chunk_bytes = 1u32 << power;
        let length = (chunks * chunk_bytes as usize).saturating_add_signed(around);
        opens(length, chunk_bytes);
    }

    #[test]
    fn no_bytes_make_a_reader_panic(junk in proptest::collection::vec(any::<u8>(), 0..2048)) {
        prop_assert!(check(&mut &junk[..]).is_err());
        prop_assert!(Envelope::parse(&junk).is_err());
    }
}

#[test]
fn another_context_is_another_key() {
    let root = root();
    let params = params(&root);
    let right = params.context().unwrap();
    let (file, summary) = seal_bytes(b"a,b\n1,2\n", &params).unwrap();
    let other: [(&str, SealContext); 6] = [
        ("chain", SealContext { chain_id: 1, ..right.clone() }),
        ("app", SealContext { app: Address::repeat_byte(1), ..right.clone() }),
        ("compose hash", SealContext { compose_hash: ComposeHash(B256::ZERO), ..right.clone() }),
        ("owner", SealContext { owner: "hospital-B".parse().unwrap(), ..right.clone() }),
        ("epoch", SealContext { root_epoch: 1, ..right.clone() }),
        ("schema", SealContext { schema_hash: B256::ZERO, ..right.clone() }),
    ];
    for (name, context) in other {
        let key = kms_key(&root, &context, summary.envelope.enc());
        assert_eq!(open(&mut &file[..], &key, 100).unwrap_err().layer(), "wrap", "{name}");
    }
    let key = kms_key(&root, &right, summary.envelope.enc());
    assert!(open(&mut &file[..], &key, 100).is_ok());
}

#[test]
fn two_owners_envelopes_cannot_be_exchanged() {
    let root = root();
    let a = params(&root);
    let b = SealParams { owner: "hospital-B".parse().unwrap(), ..a.clone() };
    let (file_a, sealed_a) = seal_bytes(b"of A", &a).unwrap();
    let (file_b, sealed_b) = seal_bytes(b"of B", &b).unwrap();
    // What the KMS derives for A's attested context, fed with B's encapsulated key, opens neither file.
    let key = kms_key(&root, &a.context().unwrap(), sealed_b.envelope.enc());
    assert_eq!(open(&mut &file_b[..], &key, 100).unwrap_err().layer(), "wrap");
    assert_eq!(open(&mut &file_a[..], &key, 100).unwrap_err().layer(), "wrap");
    let key = kms_key(&root, &a.context().unwrap(), sealed_a.envelope.enc());
    assert_eq!(open(&mut &file_b[..], &key, 100).unwrap_err().layer(), "wrap");
}

#[test]
fn withheld_metadata_is_absent() {
    let root = root();
    let params = SealParams { rows: None, schema: None, kind: ContentKind::Bytes, ..params(&root) };
    let (_, summary) = seal_bytes(b"x", &params).unwrap();
    let text = std::str::from_utf8(summary.envelope.bytes()).unwrap();
    assert!(!text.contains("\"rows\"") && !text.contains("\"schema\":"));
    assert_eq!(summary.envelope.context().schema_hash, B256::ZERO);
}

#[test]
fn the_same_data_twice_shares_nothing() {
    let root = root();
    let (first, one) = seal_bytes(b"same", &params(&root)).unwrap();
    let (second, two) = seal_bytes(b"same", &params(&root)).unwrap();
    assert_ne!(one.dataset_id, two.dataset_id);
    assert_ne!(one.data_root, two.data_root);
    assert_ne!(first, second);
}

#[test]
fn an_input_of_another_length_is_refused() {
    let root = root();
    for declared in [4u64, 6, 4096, 5000] {
        let mut file = Vec::new();
        let error =
            sealed::seal(&mut &b"12345"[..], declared, &mut file, &params(&root), &mut go_on).unwrap_err();
        assert_eq!(error.layer(), "content", "{declared}");
    }
}

#[test]
fn work_can_be_stopped() {
    let root = root();
    let mut file = Vec::new();
    let stop = &mut |_| ControlFlow::Break(());
    let error = sealed::seal(&mut &b"12345"[..], 5, &mut file, &params(&root), stop).unwrap_err();
    assert_eq!(error.layer(), "io");
    assert!(check(&mut &file[..]).is_err());
}

#[test]
fn memory_is_not_reserved_beyond_the_callers_limit() {
    let root = root();
    let (file, summary) = seal_bytes(&plaintext(5000), &params(&root)).unwrap();
    let key = kms_key(&root, &summary.envelope.context(), summary.envelope.enc());
    assert_eq!(open(&mut &file[..], &key, 4999).unwrap_err().layer(), "content");
}

#[test]
fn secrets_are_not_printed() {
    let root = root();
    let (file, summary) = seal_bytes(b"x", &params(&root)).unwrap();
    let key = kms_key(&root, &summary.envelope.context(), summary.envelope.enc());
    let shown = format!("{key:?} {:?}", open(&mut &file[..], &key, 10).unwrap().1);
    let secret = hex::encode(key.expose_secret());
    assert!(!shown.contains(&secret[..8]), "{shown}");
}

/// Takes so many bytes, then the disk is full.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let taken = buf.len().min(self.0);
        self.0 -= taken;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Gives so many bytes, then the device fails.
struct Broken(usize);

impl Read for Broken {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let given = buf.len().min(self.0);
        self.0 -= given;
        Ok(given)
    }
}

#[test]
fn a_full_disk_at_any_place_ends_the_work_with_its_error() {
    let root = root();
    let params = params(&root);
    let plain = plaintext(20 * 4096);
    let (file, summary) = seal_bytes(&plain, &params).unwrap();
    for room in (0..file.len()).step_by(1777) {
        let length = plain.len() as u64;
        let error = sealed::seal(&mut &plain[..], length, &mut Full(room), &params, &mut go_on).unwrap_err();
        assert!(matches!(&error, SealedError::Write(e) if e.kind() == io::ErrorKind::StorageFull), "{error}");
    }
    let key = kms_key(&root, &params.context().unwrap(), summary.envelope.enc());
    for room in (0..plain.len()).step_by(1777) {
        let error = open_to(&mut &file[..], &key, &mut Full(room)).unwrap_err();
        assert!(matches!(error, SealedError::Write(_)), "{error}");
    }
}

#[test]
fn a_failing_device_at_any_place_ends_the_work_with_its_error() {
    let root = root();
    for given in (0..20 * 4096).step_by(1777) {
        let mut file = Vec::new();
        let error = sealed::seal(&mut Broken(given), 20 * 4096, &mut file, &params(&root), &mut go_on);
        assert!(matches!(error.unwrap_err(), SealedError::Read(_)), "{given}");
    }
    assert!(matches!(check(&mut Broken(0)).unwrap_err(), SealedError::Read(_)));
}

#[test]
fn work_can_be_stopped_after_any_chunk() {
    let root = root();
    for chunk in 1..=20u64 {
        let mut file = Vec::new();
        let stop =
            &mut |done| if done < chunk * 4096 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
        let error = sealed::seal(&mut &plaintext(20 * 4096)[..], 20 * 4096, &mut file, &params(&root), stop);
        assert!(matches!(error.unwrap_err(), SealedError::Cancelled), "{chunk}");
    }
}
