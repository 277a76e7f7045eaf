//! Writes the vectors of KMS root, release binding and app-compose hashes: `cargo run -p cohort-protocol --example
//! protocol_vectors`, from the project's folder. `protocol/tests/vectors.rs` and `test/python` check them.

#[path = "../tests/vectors/made.rs"]
mod made;

fn main() -> std::io::Result<()> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (path, value) in made::all(&root) {
        let path = root.join("test/vectors").join(path);
        std::fs::create_dir_all(path.parent().unwrap_or(&root))?;
        std::fs::write(&path, format!("{value:#}\n"))?;
        println!("{}", path.display());
    }
    Ok(())
}
