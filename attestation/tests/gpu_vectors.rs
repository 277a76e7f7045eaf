//! The committed vectors of GPU evidence are what this code makes; Python checks them in its own words
//! (`test/python`). With `COHORT_UPDATE=1` they are written anew.

use std::path::Path;

use alloy::primitives::{Address, B256};
use alloy::signers::local::PrivateKeySigner;
use cohort_attestation::gpu::{
    GoldenValues, GpuEvidence, Manifest, ManifestKind, Measurement, evidence_hash, sign_golden_values,
};
use cohort_protocol::{eip712, ids::RunId, recipe::GpuArchitecture, release::Binding};
use serde_json::{Value, json};

fn binding() -> Value {
    let gpu = |report: &[u8], certificates: &[&[u8]]| GpuEvidence {
        architecture: GpuArchitecture::Hopper,
        report: report.to_vec(),
        certificates: certificates.iter().map(|der| der.to_vec()).collect(),
    };
    let gpus = [gpu(&[1, 2, 3], &[&[4], &[5, 6]]), gpu(&[], &[&[7; 40]])];
    let binding = Binding {
        chain_id: 31337,
        app: Address::repeat_byte(0x11),
        kms_root: Address::repeat_byte(0x22),
        challenge: B256::repeat_byte(0x33),
        run_id: RunId(B256::repeat_byte(0x44)),
        encryption_key_hash: B256::repeat_byte(0x55),
        receipt_key: Address::repeat_byte(0x66),
        gpu_evidence_hash: Some(B256::from(evidence_hash(&gpus))),
    };
    json!({
        "binding": binding,
        "gpu": gpus,
        "nonce": hex::encode(binding.gpu_nonce()),
        "report_data": hex::encode(binding.report_data()),
    })
}

fn golden() -> Value {
    let manifest = |kind, version: &str, block| Manifest {
        kind,
        architecture: GpuArchitecture::Hopper,
        version: version.to_owned(),
        tag_id: format!("tag-{block}"),
        source_sha256: "5a".repeat(32),
        measurements: vec![Measurement { block, values: vec!["ab".repeat(48), "cd".repeat(48)] }],
    };
    let manifests = vec![
        manifest(ManifestKind::Vbios, "96.00.9F.00.01", 2),
        manifest(ManifestKind::Driver, "550.90.07", 20),
    ];
    let golden = GoldenValues::new(manifests).unwrap();
    let list_hash = golden.hash().unwrap();
    let key = PrivateKeySigner::from_bytes(&B256::repeat_byte(0x42)).unwrap();
    let registry = Address::repeat_byte(0x44);
    let signed = sign_golden_values(golden, &key, &eip712::kms_domain(31337, registry)).unwrap();
    json!({ "chain_id": 31337, "registry": registry, "list_hash": list_hash, "signed": signed })
}

#[test]
fn committed_vectors_are_what_the_code_makes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../test/vectors/gpu");
    for (name, value) in [("binding.json", binding()), ("golden.json", golden())] {
        let path = folder.join(name);
        if std::env::var_os("COHORT_UPDATE").is_some() {
            std::fs::write(&path, serde_json::to_string_pretty(&value).unwrap() + "\n").unwrap();
        }
        let committed: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(committed, value, "{}", path.display());
    }
}
