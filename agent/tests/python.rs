//! Python recipes: what a script may do, and what hostile ones cannot.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use cohort_agent::compute::{self, Input, Sandbox};
use cohort_protocol::recipe::Recipe;
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// Scripts at once, each on two tables.
const SCRIPTS_AT_ONCE: usize = 5;

/// Long enough for this many interpreters at once to start and import what scripts import, on this machine and under
/// its present load.
fn slot(sandbox: &Sandbox) -> Duration {
    let started = Instant::now();
    let imported = Command::new(&sandbox.python).args(["-c", "import pandas, pyarrow"]).status().unwrap();
    assert!(imported.success());
    let seconds = started.elapsed().as_secs_f64() * 2.0 * SCRIPTS_AT_ONCE as f64;
    Duration::from_secs((seconds.ceil() as u64).clamp(12, 120))
}

/// What scripts run in, or `None` with a visible note on a machine that has no Python environment.
fn sandbox() -> Option<Sandbox> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let python = std::env::var_os("COHORT_TEST_PYTHON").map(PathBuf::from);
    let python = python.unwrap_or_else(|| project.join("target/venv/bin/python"));
    let Ok(python) = std::path::absolute(&python) else { return None };
    if !python.exists() {
        note("skipped: Python recipes: no target/venv; script/python-env makes it");
        return None;
    }
    let mut sandbox = Sandbox::new(python);
    sandbox.launcher = env!("CARGO_BIN_EXE_cohort-sandbox").into();
    Some(sandbox)
}

/// Past the test runner, which keeps the output of tests that pass.
fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn recipe(script: &str, seconds: u64, emitted: Value) -> Recipe {
    let shares: u64 = emitted.as_array().unwrap().iter().map(|_| 1000u64).sum();
    let mut measures =
        vec![json!({ "name": "n", "kind": "count", "by": [], "round_to": "1", "epsilon": "1000" })];
    for mut measure in emitted.as_array().unwrap().clone() {
        let fields = measure.as_object_mut().unwrap();
        for (name, value) in
            [("kind", json!("emitted")), ("by", json!([])), ("over", json!("n")), ("epsilon", json!("1000"))]
        {
            fields.insert(name.to_owned(), value);
        }
        measures.push(measure);
    }
    let total = (1000 + shares).to_string();
    Recipe::parse(&json!({
        "version": 1, "title": "a script", "engine": "python",
        "python": { "script": script, "seconds": seconds, "memory_mib": 1024 },
        "datasets": { "owners": ["a", "hospital-B"], "columns": [
            { "name": "id", "type": "int64", "nullable": false },
            { "name": "v", "type": "int64", "nullable": true }
        ] },
        "privacy": { "unit": "id", "epsilon_per_run": total, "epsilon_budget": total, "delta": "0" },
        "keys": [], "measures": measures, "minimum_group_size": 1,
        "output_schema": { "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object" }
    }))
    .unwrap()
}

fn one_number() -> Value {
    json!([{ "name": "x", "lower": 0, "upper": 90, "round_to": "1", "sensitivity": "1" }])
}

fn tables(secret: i64) -> Vec<Input> {
    let rows: String = (1..20).map(|id| format!("{id},{id}\n")).collect();
    let table = format!("id,v\n4711,{secret}\n{rows}");
    ["a", "hospital-B"]
        .map(|owner| (owner.parse().unwrap(), Zeroizing::new(table.clone().into_bytes())))
        .into()
}

/// The guarded bytes of a run, and how long it took.
fn run(recipe: &Recipe, sandbox: &Sandbox, secret: i64) -> (String, Duration) {
    let started = Instant::now();
    let output = compute::compute(recipe, tables(secret), Some(sandbox)).unwrap();
    let guarded = compute::guard(recipe, output.value()).unwrap();
    (String::from_utf8(guarded.bytes().to_vec()).unwrap(), started.elapsed())
}

fn number(output: &str, measure: usize, cell: usize) -> f64 {
    let output: Value = serde_json::from_str(output).unwrap();
    output["measures"][measure]["cells"][cell]["value"].as_f64().unwrap()
}

#[test]
fn no_script_carries_a_row_out_by_anything_but_its_declared_numbers() {
    let Some(sandbox) = sandbox() else { return };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile");
    let mut scripts: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.retain(|path| path.extension().is_some_and(|extension| extension == "py"));
    scripts.sort();
    assert_eq!(scripts.len(), 20);
    let slot = slot(&sandbox);
    for group in scripts.chunks(SCRIPTS_AT_ONCE) {
        std::thread::scope(|scope| {
            for path in group {
                let sandbox = &sandbox;
                scope.spawn(move || {
                    let name = path.file_stem().unwrap().to_string_lossy().into_owned();
                    let script = std::fs::read_to_string(path).unwrap();
                    let recipe = recipe(&script, slot.as_secs(), one_number());
                    let ((low, first), (high, second)) = std::thread::scope(|scope| {
                        let low = scope.spawn(|| run(&recipe, sandbox, 1));
                        let high = scope.spawn(|| run(&recipe, sandbox, 99));
                        (low.join().unwrap(), high.join().unwrap())
                    });
                    assert_eq!(low, high, "{name} speaks");
                    for elapsed in [first, second] {
                        // Never sooner, whatever the script does; how much later is the machine's load.
                        assert!(elapsed >= slot && elapsed < slot * 4, "{name}: {elapsed:?} of {slot:?}");
                    }
                    // Whoever tries what is forbidden counts what worked; the others emit 50, or nothing usable, which
                    // is the middle.
                    let expected = match name.as_str() {
                        "network" | "disk" | "other_files" | "processes" | "memory" | "kernel" => 0.0,
                        "error_text" | "exit_code" | "nan_payload" | "endless" | "other_epsilon"
                        | "too_long" => 45.0,
                        _ => 50.0,
                    };
                    assert_eq!(number(&low, 1, 0), expected, "{name}: {low}");
                });
            }
        });
    }
}

#[test]
fn the_page_s_script_works_as_it_stands() {
    let Some(sandbox) = sandbox() else { return };
    let script = r#"
import pandas as pd
import phala
from phala.dstack import unwrap, emit_signed

a = unwrap("a/cohort.tar")
b = unwrap("B/cohort.tar")
both = pd.concat([a, b])
assert both["id"].nunique() == 20, "the same person has the same pseudonym at both owners"
assert not set(both["id"]) & {"4711", 4711}, "and not the identifier"

class Model:
    def summary(self):
        return {"mean": both["v"].mean(), "quartiles": both["v"].quantile([0.25, 0.5, 0.75]).to_numpy()}

phala.emit_signed(Model().summary(), epsilon=3000)
"#;
    let recipe = recipe(
        script,
        slot(&sandbox).as_secs(),
        json!([
            { "name": "mean", "lower": 0, "upper": 50, "round_to": "0.1", "sensitivity": "2" },
            { "name": "quartiles", "lower": 0, "upper": 50, "round_to": "0.5", "labels": ["q1", "q2", "q3"] }
        ]),
    );
    let (output, _) = run(&recipe, &sandbox, 10);
    assert_eq!((number(&output, 0, 0), number(&output, 1, 0)), (40.0, 10.0));
    for (cell, quartile) in [(0, 5.5), (1, 10.0), (2, 14.5)] {
        assert!((number(&output, 2, cell) - quartile).abs() <= 1.5, "{output}");
    }
}

#[test]
fn a_model_file_is_a_result() {
    let Some(sandbox) = sandbox() else { return };
    let script = r#"
import io
import numpy as np
from cohort import emit_signed, unwrap

table = unwrap("a", into="arrow")
file = io.BytesIO()
np.savez(file, weights=np.array([[0.25, -0.5], [0.75, 1.0]]), bias=np.float64(len(table) / 40))
emit_signed(file)
"#;
    let labels = ["w00", "w01", "w10", "w11"];
    let emitted = json!([
        { "name": "weights", "lower": -1, "upper": 1, "round_to": "0.01", "sensitivity": "0.01", "labels": labels },
        { "name": "bias", "lower": -1, "upper": 1, "round_to": "0.01", "sensitivity": "0.01" }
    ]);
    let (output, _) = run(&recipe(script, slot(&sandbox).as_secs(), emitted), &sandbox, 10);
    let weights: Vec<f64> = (0..4).map(|cell| number(&output, 1, cell)).collect();
    for (found, emitted) in weights.iter().zip([0.25, -0.5, 0.75, 1.0]) {
        assert!((found - emitted).abs() < 0.03, "{output}");
    }
    assert!((number(&output, 2, 0) - 0.5).abs() < 0.03, "{output}");
}

#[test]
fn without_confinement_nothing_runs() {
    let Some(mut sandbox) = sandbox() else { return };
    sandbox.check().expect("a script can be confined on this machine");
    sandbox.launcher = "/nonexistent/cohort-sandbox".into();
    assert_eq!(sandbox.check().unwrap_err().code(), "script_unavailable");
    let recipe = recipe("pass", 1, one_number());
    let error = compute::compute(&recipe, tables(1), Some(&sandbox)).unwrap_err();
    assert_eq!(error.code(), "script_unavailable");
    assert_eq!(compute::compute(&recipe, tables(1), None).unwrap_err().code(), "script_unavailable");
}

#[test]
fn a_launcher_that_cannot_confine_starts_nothing() {
    // A program that does not exist stands for the last step that can fail; the code is the same for all of them.
    // As the agent starts it, with a pipe for what it says: it may not make any file longer.
    let output = Command::new(env!("CARGO_BIN_EXE_cohort-sandbox"))
        .args(["--memory-mib", "256", "--cpu-seconds", "5", "--", "/nonexistent"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot start /nonexistent"));
}

#[test]
fn a_script_gives_way_to_the_agent() {
    let asked = ["/proc/self/oom_score_adj", "/proc/self/stat"];
    let readable = ["/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", "/proc"];
    let output = Command::new(env!("CARGO_BIN_EXE_cohort-sandbox"))
        .args(["--memory-mib", "256", "--cpu-seconds", "5"])
        .args(readable.into_iter().flat_map(|path| ["--read", path]))
        .args(["--", "/bin/cat"])
        .args(asked)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let (adjustment, stat) = text.split_once('\n').unwrap_or_else(|| panic!("{output:?}"));
    // After the name: state, parent, ..., the 17th of them is the niceness.
    let nice = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(16);
    assert_eq!((adjustment, nice), ("1000", Some("19")), "{text}");
}

#[test]
fn a_rehearsal_shows_the_script_s_error_and_a_run_does_not() {
    let Some(sandbox) = sandbox() else { return };
    let recipe = recipe("import nothing_like_that\n", slot(&sandbox).as_secs(), one_number());
    let rows = compute::synthetic::Rows { per_owner: 50, seed: 1 };
    let (output, error) = compute::rehearse(&recipe, rows, Some(&sandbox)).unwrap();
    assert!(error.unwrap().contains("No module named 'nothing_like_that'"));
    compute::guard(&recipe, output.value()).unwrap();
}
