//! `docs/openapi/indexer.json` is what the code generates, and the answers are what it says.

use std::{collections::BTreeSet, path::Path};

use cohort_indexer::api::openapi;
use serde_json::{Value, json};

use crate::{
    api::study,
    chain::Node,
    running::Running,
    study::{APP, RUN, proposal_id, question, questions},
};

fn committed() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi/indexer.json")
}

/// `COHORT_UPDATE=1` writes the file instead.
#[test]
fn the_committed_document_is_the_generated_one() {
    let generated = serde_json::to_string_pretty(&openapi()).unwrap() + "\n";
    if std::env::var_os("COHORT_UPDATE").is_some() {
        std::fs::write(committed(), &generated).unwrap();
    }
    let have = std::fs::read_to_string(committed()).unwrap();
    let differs = have.lines().zip(generated.lines()).position(|(a, b)| a != b);
    let hint = "COHORT_UPDATE=1 cargo test -p cohort-indexer --test indexer openapi";
    assert!(have == generated, "differs from line {differs:?} on; write it anew: {hint}");
}

/// Every object schema gets to know all its fields, so that an undocumented one is found. An object that is a part of
/// another (`allOf`) leaves that to the whole.
fn closed(document: &mut Value) {
    let mut parts = BTreeSet::new();
    visit(document, &mut |value| {
        for part in value.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            parts.extend(part["$ref"].as_str().and_then(|path| path.rsplit('/').next()).map(str::to_owned));
        }
    });
    let schemas = document["components"]["schemas"].as_object_mut().unwrap();
    for (name, schema) in schemas {
        if !parts.contains(name) && (schema.get("properties").is_some() || schema.get("allOf").is_some()) {
            schema["unevaluatedProperties"] = json!(false);
        }
    }
}

fn visit(value: &mut Value, f: &mut impl FnMut(&mut Value)) {
    f(value);
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| visit(item, f)),
        Value::Object(fields) => fields.values_mut().for_each(|field| visit(field, f)),
        _ => {}
    }
}

fn validator(path: &str) -> jsonschema::Validator {
    validator_of(|document| {
        let operation = &document["paths"][path]["get"];
        operation["responses"]["200"]["content"]["application/json"]["schema"].clone()
    })
}

fn validator_of(schema: impl Fn(&Value) -> Value) -> jsonschema::Validator {
    let mut document = serde_json::to_value(openapi()).unwrap();
    closed(&mut document);
    let content = schema(&document);
    document.as_object_mut().unwrap().extend(content.as_object().expect("a schema").clone());
    jsonschema::options().with_draft(jsonschema::Draft::Draft202012).build(&document).unwrap()
}

fn assert_fits(what: &str, validator: &jsonschema::Validator, body: &Value) {
    let errors: Vec<String> =
        validator.iter_errors(body).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{what}: {errors:#?}\n{body:#}");
}

/// A mirror with events of every kind of the registry and of apps.
async fn study_of_every_kind() -> (Node, Running, tempfile::TempDir) {
    let (node, running, dir) = study().await;
    node.chain().mine(crate::study::registry_logs());
    node.chain().mine(crate::study::every_kind());
    running.reaches_tip(&node).await;
    (node, running, dir)
}

#[tokio::test]
async fn answers_are_what_the_document_says() {
    let (_node, running, _dir) = study_of_every_kind().await;
    let proposal = proposal_id(0);
    for (template, path) in [
        ("/v1/status", "/v1/status".to_owned()),
        ("/readyz", "/readyz".to_owned()),
        ("/v1/kms", "/v1/kms".to_owned()),
        ("/v1/cohorts", "/v1/cohorts".to_owned()),
        ("/v1/apps", "/v1/apps".to_owned()),
        ("/v1/apps/{app}", format!("/v1/apps/{APP}")),
        ("/v1/apps/{app}/proposals", format!("/v1/apps/{APP}/proposals")),
        ("/v1/apps/{app}/proposals/{proposal}", format!("/v1/apps/{APP}/proposals/{proposal}")),
        ("/v1/apps/{app}/datasets", format!("/v1/apps/{APP}/datasets")),
        ("/v1/apps/{app}/runs", format!("/v1/apps/{APP}/runs")),
        ("/v1/apps/{app}/runs/{run}", format!("/v1/apps/{APP}/runs/{RUN}")),
        ("/v1/apps/{app}/receipts", format!("/v1/apps/{APP}/receipts")),
        ("/v1/apps/{app}/timeline", format!("/v1/apps/{APP}/timeline")),
        ("/v1/apps/{app}/release-decision", question()),
        ("/v1/apps/{app}/release-decisions", questions(&[0, 2])),
    ] {
        let (status, body) = running.get(&path).await;
        assert_eq!(status, 200, "{path}: {body}");
        let validator = validator(template);
        assert_fits(&path, &validator, &body);
        // The check can fail.
        let mut other = body;
        if let Some(answers) = other.as_array_mut() {
            answers.push(json!(1));
        } else {
            other["undocumented"] = json!(1);
        }
        if template != "/readyz" {
            assert!(!validator.is_valid(&other) || template.ends_with("release-decision"), "{path}");
        }
    }
    running.stop().await.unwrap();
}

/// What a stream tells.
#[tokio::test]
async fn streams_are_what_the_document_says() {
    let (_node, running, _dir) = study_of_every_kind().await;
    let of = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
    let [log, head] = ["Streamed", "Head"].map(|name| validator_of(|_| of(name)));
    let mut stream = running.stream("/v1/events", None).await;
    let mut told = 0;
    loop {
        let (kind, _, data) = stream.next().await.unwrap();
        let validator = if kind == "log" { &log } else { &head };
        assert_fits(&kind, validator, &data);
        told += 1;
        if kind == "head" {
            break;
        }
    }
    assert!(told > 30, "{told}");
    drop(stream);
    running.stop().await.unwrap();
}

const CHECKS: &str =
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";

/// Requests of every shape, by schemathesis: no answer is a server error, or other than the document says. The event
/// stream, which does not end, has tests of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_gets_an_undocumented_answer() {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/venv/bin/schemathesis");
    if !program.exists() {
        crate::running::skipped("schemathesis is not installed; run: script/python-env");
        return;
    }
    let (_node, running, dir) = study().await;
    // Ids at random find nothing; these do.
    let known = format!(
        "[parameters]\n\"path.app\" = \"{APP}\"\n\"path.proposal\" = \"{}\"\n\"path.run\" = \"{RUN}\"\n",
        proposal_id(0)
    );
    for (name, settings) in [("any.toml", String::new()), ("known.toml", known)] {
        let file = dir.path().join(name);
        std::fs::write(&file, settings).unwrap();
        let ran = tokio::process::Command::new(&program)
            .arg("--config-file")
            .arg(&file)
            .args(["run", &running.address("/v1/openapi.json"), "--exclude-path", "/v1/events"])
            .args(["--checks", CHECKS, "--phases", "examples,coverage,fuzzing"])
            .args(["--seed", "1", "--max-examples", "15", "--request-timeout", "60"])
            .args(["--generation-database", "none", "--suppress-health-check", "all", "--no-color"])
            .current_dir(dir.path())
            .output()
            .await
            .unwrap();
        let told = String::from_utf8_lossy(&ran.stdout);
        println!("{told}");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    }
    running.stop().await.unwrap();
}
