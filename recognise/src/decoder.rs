//! A thread to panic in: arrow's schema decoder panics on types that do not exist, in Arrow IPC and in Parquet's metadata.

use std::{io, panic, thread};

/// Name of the thread whose panics are answers.
const DECODER: &str = "schema-decoder";

/// What `decode` gives; `None` where it panics.
pub(crate) fn contained<T: Send>(decode: impl FnOnce() -> T + Send) -> io::Result<Option<T>> {
    thread::scope(|scope| {
        let decoder = thread::Builder::new().name(DECODER.into()).spawn_scoped(scope, decode)?;
        Ok(decoder.join().ok())
    })
}

/// Keeps the decoder's panics from the process's panic hook: they are errors with words of their own. Once a process.
pub fn silence_decoder() {
    let told = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if thread::current().name() != Some(DECODER) {
            told(info);
        }
    }));
}
