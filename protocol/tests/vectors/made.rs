//! What the vectors hold, by file name under `test/vectors`.

use std::path::Path;

use alloy::primitives::{Address, B256};
use cohort_protocol::{
    compose::AppCompose, hpke::SecretBytes, ids::RunId, release::Binding, root::RootKeys, terms::id_list_hash,
};
use serde_json::{Value, json};

/// All of them.
pub(crate) fn all(root: &Path) -> Vec<(&'static str, Value)> {
    vec![
        ("kms-root/roots.json", roots()),
        ("release/report-data.json", report_data()),
        ("compose/heart-disease.json", compose(root)),
        ("terms/id-list.json", id_list()),
    ]
}

/// Root secret 0x0101..01, three epochs, one chain and registry.
fn roots() -> Value {
    let secret = SecretBytes::new([1; 32]);
    let statement = |epoch| {
        let keys = RootKeys::derive(&secret, epoch).expect("a key");
        let statement = keys.statement(31337, Address::repeat_byte(0x44)).expect("signed");
        let report_data = hex::encode(statement.report_data());
        json!({ "statement": statement, "key_id": statement.key_id(), "report_data": report_data })
    };
    json!({ "root_secret": hex::encode([1; 32]), "epochs": [statement(0), statement(1), statement(7)] })
}

fn report_data() -> Value {
    let binding = Binding {
        chain_id: 31337,
        app: Address::repeat_byte(0x11),
        kms_root: Address::repeat_byte(0x22),
        challenge: B256::repeat_byte(0x33),
        run_id: RunId(B256::repeat_byte(0x44)),
        encryption_key_hash: B256::repeat_byte(0x55),
        receipt_key: Address::repeat_byte(0x66),
        gpu_evidence_hash: None,
    };
    json!({ "binding": binding, "report_data": hex::encode(binding.report_data()) })
}

/// What `Terms.devices` and `Terms.systems` are for two ids.
fn id_list() -> Value {
    let ids = [B256::repeat_byte(0x11), B256::repeat_byte(0x22)];
    json!({ "ids": ids, "hash": id_list_hash(&ids) })
}

/// The study's own app-compose file.
fn compose(root: &Path) -> Value {
    let file = "test/data/heart-disease/app-compose.json";
    let bytes = std::fs::read(root.join(file)).expect("the study's file is committed");
    let compose = AppCompose::parse(&bytes).expect("valid");
    let recipe = compose.recipe().expect("valid");
    json!({
        "file": file,
        "compose_hash": compose.compose_hash(),
        "recipe_hash": recipe.recipe_hash(),
        "output_schema_hash": recipe.output_schema_hash(),
    })
}
