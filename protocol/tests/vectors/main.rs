//! The committed vectors are what this code makes; Python checks them in its own words (`test/python`).

mod eip712;
mod made;

#[test]
fn committed_vectors_are_what_the_code_makes() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (path, value) in made::all(&root) {
        let path = root.join("test/vectors").join(path);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let committed: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(committed, value, "{}", path.display());
    }
}
