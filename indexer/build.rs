//! Lists the files of the built console, if there are any, for `src/api/assets.rs` to embed.

use std::{env, fs, io, path::Path, path::PathBuf};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    let Some(manifest) = env::var_os("CARGO_MANIFEST_DIR") else { return Ok(()) };
    let Some(out) = env::var_os("OUT_DIR") else { return Ok(()) };
    let console = PathBuf::from(manifest).join("../console");
    let dist = console.join("dist");
    // Cargo takes a watched path that does not exist for changed, always.
    for watched in [&dist, &console.join("package.json")] {
        if watched.exists() {
            println!("cargo::rerun-if-changed={}", watched.display());
        }
    }
    let mut files = Vec::new();
    if dist.is_dir() {
        list(&dist.canonicalize()?, "", &mut files)?;
    }
    files.sort();
    let entries: String =
        files.iter().map(|(name, path)| format!("    ({name:?}, include_bytes!({path:?})),\n")).collect();
    let code = format!("pub(super) static FILES: &[(&str, &[u8])] = &[\n{entries}];\n");
    fs::write(Path::new(&out).join("console.rs"), code)
}

fn list(folder: &Path, prefix: &str, files: &mut Vec<(String, String)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (Some(name), Some(path)) =
            (entry.file_name().to_str().map(str::to_owned), entry.path().to_str().map(str::to_owned))
        else {
            return Err(io::Error::other(format!("{} has a name that is not UTF-8", entry.path().display())));
        };
        if name.starts_with('.') {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => list(&entry.path(), &format!("{prefix}{name}/"), files)?,
            false => files.push((format!("{prefix}{name}"), path)),
        }
    }
    Ok(())
}
