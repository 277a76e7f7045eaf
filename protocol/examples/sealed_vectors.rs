//! Writes `test/vectors/sealed-dataset/`: `cargo run -p cohort-protocol --example sealed_vectors`.

#[path = "../tests/sealed_support/mod.rs"]
mod sealed_support;

use std::{fs, io, path::Path};

fn main() -> io::Result<()> {
    let (index, files) = sealed_support::vectors::all();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../test/vectors/sealed-dataset");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    for (case, bytes) in &files {
        fs::write(folder.join(&case.file), bytes)?;
    }
    let mut text = serde_json::to_string_pretty(&index)?;
    text.push('\n');
    fs::write(folder.join("index.json"), text)?;
    println!("{} files", files.len());
    Ok(())
}
