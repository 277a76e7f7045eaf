//! `docs/openapi/kms.json` is what the code generates. That answers are what it says: `release.rs`.

#[test]
fn the_committed_document_is_the_generated_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi/kms.json");
    let generated = serde_json::to_string_pretty(&cohort_kms::openapi::document()).unwrap() + "\n";
    if std::env::var_os("COHORT_UPDATE").is_some() {
        std::fs::write(path, &generated).unwrap();
    }
    let have = std::fs::read_to_string(path).unwrap_or_default();
    let differs = have.lines().zip(generated.lines()).position(|(a, b)| a != b);
    let hint = "COHORT_UPDATE=1 cargo test -p cohort-kms --test openapi";
    assert!(have == generated, "differs from line {differs:?} on; write it anew: {hint}");
}
