//! A Python recipe from the sealed rows to a verified result: what the receipt says of it, and that it is not the middle of
//! its bounds, which a script that fails would give.

use cohort_cli::dev::Stack;
use serde_json::{Value, json};

use super::support::{approve, deployed, ok, project, read, run, seal_all};

const SCRIPT: &str = "\
from phala.dstack import emit_signed, unwrap
ages = [age for owner in 'AB' for age in unwrap(owner, into='arrow')['age'].to_pylist()]
emit_signed({'mean_age': sum(ages) / len(ages)})
";

/// The study's table, and one number of a script's over it.
fn with_script(stack: &mut Stack) {
    let mut compose: Value = read(&stack.study.compose_file());
    let recipe = &mut compose["cohort"];
    recipe["engine"] = json!("python");
    recipe["python"] = json!({ "script": SCRIPT, "seconds": 20, "memory_mib": 1024 });
    recipe["privacy"]["epsilon_per_run"] = json!("2");
    recipe["keys"] = json!([]);
    // One person more or less moves the mean of 597 by at most 200 / 597. The middle of the bounds is no mean age.
    recipe["measures"] = json!([
        { "name": "patients", "kind": "count", "by": [], "round_to": "1", "epsilon": "1" },
        { "name": "mean_age", "kind": "emitted", "by": [], "over": "patients", "lower": 0, "upper": 200,
          "sensitivity": "0.4", "unit": "years", "round_to": "0.1", "epsilon": "1" },
    ]);
    recipe["output_schema"] =
        json!({ "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object" });
    let file = stack.path("python-app-compose.json");
    std::fs::write(&file, serde_json::to_vec(&compose).unwrap()).unwrap();
    stack.study = stack.study.clone().with_compose_file(file);
    let python = project().join("target/venv/bin/python").display().to_string();
    stack.agent_args = vec!["--python".into(), python];
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_s_result_is_verified_as_declared() {
    if !project().join("target/venv/bin/python").exists() {
        eprintln!("skipped: a Python recipe: no target/venv; script/python-env makes it");
        return;
    }
    let mut stack = deployed("python").await;
    with_script(&mut stack);
    stack.start_services().await.unwrap_or_else(|f| panic!("{}", f.message));
    seal_all(&stack).await;
    approve(&stack, &[0, 1, 2]).await;
    let analyst = stack.analyst.key();
    ok(&stack, &run(&analyst, "hospital-A,hospital-B", "result.json")).await;
    let ran = ok(&stack, &["verify", "result.json"]).await;
    assert!(ran.stdout.contains("verified: "), "{}", ran.stdout);
    let result: Value = read(&stack.path("result.json"));
    assert_eq!(result["receipt"]["privacy_proof"], "declared");
    let measures = &result["payload"]["measures"];
    let value = |at: usize| measures[at]["cells"][0]["value"].as_f64().expect("a number");
    // The exact numbers, give or take twenty scales of the noise.
    assert!((value(0) - 597.0).abs() < 21.0, "{measures}");
    assert!((value(1) - 51.2).abs() < 11.0, "{measures}");
    let audit: Value = serde_json::from_str(&ok(&stack, &["audit", "--json"]).await.stdout).expect("JSON");
    assert_eq!(audit["runs"][0]["receipt"]["proved"], false);
}
