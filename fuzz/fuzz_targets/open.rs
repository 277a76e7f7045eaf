//! Any bytes as a sealed file, with the key that its own envelope asks for: all ways to open it agree.
#![no_main]

use std::{io::Cursor, sync::LazyLock};

use cohort_protocol::{
    hpke::SecretBytes,
    root::RootKeys,
    sealed::{SealedReader, check, open, read_header, wrap_key_from_root},
};
use libfuzzer_sys::fuzz_target;

/// The root of the committed vectors, which are the seeds.
static ROOT: LazyLock<RootKeys> = LazyLock::new(|| {
    let secret: Vec<u8> = (0..32).map(|i| u8::from_str_radix(&SECRET[2 * i..2 * i + 2], 16).unwrap()).collect();
    RootKeys::derive(&SecretBytes::from_slice(&secret).unwrap(), 0).unwrap()
});
const SECRET: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

fuzz_target!(|data: &[u8]| {
    let Ok(envelope) = read_header(&mut &data[..]) else { return };
    let Ok(key) = wrap_key_from_root(&ROOT.sealing, &envelope.context(), envelope.enc()) else { return };
    let Ok((plain, checked)) = open(&mut &data[..], &key, 1 << 20) else { return };
    assert_eq!(check(&mut &data[..]).unwrap(), checked);
    let mut reader = SealedReader::new(Cursor::new(data), &key).unwrap();
    let mut parts = Vec::new();
    for index in 0..reader.chunking().count() {
        parts.extend_from_slice(reader.chunk(index).unwrap());
    }
    assert_eq!(*plain, parts);
});
