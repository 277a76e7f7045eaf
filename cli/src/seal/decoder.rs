//! A thread to panic in: arrow's schema decoder panics on types that do not exist, in Arrow IPC and in Parquet's metadata.

use std::{io, thread};

/// Name of the thread whose panics are answers.
pub const DECODER: &str = "schema-decoder";

/// What `decode` gives; `None` where it panics.
pub(super) fn contained<T: Send>(decode: impl FnOnce() -> T + Send) -> io::Result<Option<T>> {
    thread::scope(|scope| {
        let decoder = thread::Builder::new().name(DECODER.into()).spawn_scoped(scope, decode)?;
        Ok(decoder.join().ok())
    })
}
