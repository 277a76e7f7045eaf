//! Any bytes as a sealed file, without a key: refused, or every byte of the file is accounted for.
#![no_main]

use cohort_protocol::sealed::check;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(checked) = check(&mut &data[..]) {
        assert_eq!(checked.file_bytes, data.len() as u64);
        assert!(check(&mut &data[..data.len() - 1]).is_err(), "a shorter file");
        assert!(check(&mut &[data, &[0]].concat()[..]).is_err(), "a longer file");
    }
});
