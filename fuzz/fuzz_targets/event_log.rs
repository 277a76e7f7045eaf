//! See `evidence.rs`.
#![no_main]

mod evidence;

libfuzzer_sys::fuzz_target!(|data: &[u8]| evidence::log(data));
