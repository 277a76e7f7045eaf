//! Any bytes as `envelope.json`: refused, or exactly the canonical bytes of what was read.
#![no_main]

use cohort_protocol::sealed::Envelope;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(envelope) = Envelope::parse(data) {
        assert_eq!(envelope.bytes(), data);
        assert!(envelope.chunking().sealed_bytes() > envelope.content().bytes);
        let _ = (envelope.context().info(), format!("{envelope:?}"));
    }
});
