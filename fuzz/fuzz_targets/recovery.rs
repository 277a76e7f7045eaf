//! Any bytes as an owner's recovery record: refused, or written and read back the same.
#![no_main]

use cohort_protocol::sealed::Recovery;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(recovery) = Recovery::parse(data) {
        let json = recovery.to_json().unwrap();
        assert_eq!(*Recovery::parse(&json).unwrap().to_json().unwrap(), *json);
    }
});
