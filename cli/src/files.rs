//! Reading JSON, writing results: whole or not at all.

use std::{
    fs,
    io::{Read, Write},
    path::Path,
};

use cohort_protocol::json;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    failure::{Failure, Outcome},
    new_file::NewFile,
};

/// No file but data is longer.
const BYTES_MAX: u64 = 64 << 20;

/// Reads and parses a JSON file; `what` says in words what it should be.
pub fn read_json<T: DeserializeOwned>(path: &Path, what: &str) -> Outcome<T> {
    read_json_with_value(path, what).map(|(read, _)| read)
}

/// The same, with the JSON as it stands in the file.
pub fn read_json_with_value<T: DeserializeOwned>(path: &Path, what: &str) -> Outcome<(T, serde_json::Value)> {
    let bytes = read(path)?;
    let value = json::parse_value(&bytes).and_then(|value| Ok((T::deserialize(&value)?, value)));
    value.map_err(|e| {
        Failure::input(
            format!("{} is not {what}: {e}", path.display()),
            "use the file as the command that made it wrote it",
        )
    })
}

/// Reads a whole file. One of a stranger's, or a device, must not fill the memory.
pub fn read(path: &Path) -> Outcome<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(BYTES_MAX + 1).read_to_end(&mut bytes));
    read.map_err(|e| Failure::read(path, &e))?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(Failure::input(
            format!("{} is longer than {} MiB", path.display(), BYTES_MAX >> 20),
            "is it the right file? None that this command takes is so long",
        ));
    }
    Ok(bytes)
}

/// Writes JSON, as [`write_text`] does.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Outcome {
    let text = serde_json::to_string_pretty(value).map_err(|e| Failure::write(path, &e.into()))?;
    write_text(path, &(text + "\n"))
}

/// Writes a whole file or none. Refuses to overwrite.
pub fn write_text(path: &Path, text: &str) -> Outcome {
    let failed = |e: std::io::Error| Failure::write(path, &e);
    let mut file = NewFile::create(path).map_err(failed)?;
    file.file().write_all(text.as_bytes()).and_then(|()| file.finish(0o644)).map_err(failed)?;
    file.publish().map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => exists(path),
        _ => failed(e),
    })
}

fn exists(path: &Path) -> Failure {
    Failure::input(format!("{} exists already", path.display()), "give another --out, or move the file away")
}

/// Refuses early when a result's final name is taken.
pub fn refuse_existing(path: &Path) -> Outcome {
    if path.exists() {
        return Err(exists(path));
    }
    Ok(())
}

/// Reads and parses an app-compose file.
pub fn read_compose(path: &Path) -> Outcome<cohort_protocol::compose::AppCompose> {
    cohort_protocol::compose::AppCompose::parse(&read(path)?).map_err(|e| {
        Failure::input(
            format!("{} is not usable: {}", path.display(), chain_text(&e)),
            "cohort recipe lint tells more",
        )
    })
}

/// An error with its causes, on one line.
pub fn chain_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
