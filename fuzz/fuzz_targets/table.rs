//! See `bodies.rs`.
#![no_main]

mod bodies;

libfuzzer_sys::fuzz_target!(
    init: cohort_recognise::silence_decoder(),
    |data: &[u8]| bodies::table(data)
);
