//! `docs/openapi/kms.json`, to hold real messages against.

use std::sync::LazyLock;

use serde_json::{Value, json};

/// The committed document, in which every object knows all its fields, so that an undocumented one is found.
static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let text = include_str!("../../../docs/openapi/kms.json");
    let mut document: Value = serde_json::from_str(text).unwrap();
    for schema in document["components"]["schemas"].as_object_mut().unwrap().values_mut() {
        if schema.get("properties").is_some() {
            schema["additionalProperties"] = json!(false);
        }
    }
    document
});

fn check(what: &str, schema: &Value, message: &Value) {
    let mut schema = schema.clone();
    assert!(schema.is_object(), "{what} is not in the document");
    schema["components"] = DOCUMENT["components"].clone();
    let validator = jsonschema::options().with_draft(jsonschema::Draft::Draft202012).build(&schema).unwrap();
    let errors: Vec<String> =
        validator.iter_errors(message).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{what}: {errors:#?}\n{message:#}");
}

/// An answer must be what the document says of it.
pub(crate) fn check_answer(method: &str, path: &str, status: u16, body: &Value) {
    let responses = &DOCUMENT["paths"][path][method.to_ascii_lowercase()]["responses"];
    let response = responses.get(status.to_string()).unwrap_or(&responses["default"]);
    let schema = &response["content"]["application/json"]["schema"];
    check(&format!("{method} {path} {status}"), schema, body);
}

/// So must a request's body.
pub(crate) fn check_request(path: &str, body: &Value) {
    let content = &DOCUMENT["paths"][path]["post"]["requestBody"]["content"];
    check(&format!("POST {path}"), &content["application/json"]["schema"], body);
}

/// Paths and their methods.
pub(crate) fn operations() -> Vec<(String, String)> {
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let methods = |(path, item): (&String, &Value)| {
        let names: Vec<_> = item.as_object().unwrap().keys().map(|name| name.to_ascii_uppercase()).collect();
        names.into_iter().map(|name| (name, path.clone())).collect::<Vec<_>>()
    };
    paths.iter().flat_map(methods).collect()
}
