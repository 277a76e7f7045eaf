use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::compose::AppCompose;

/// The committed study's recipe: what the refusals below start from.
fn study() -> Value {
    let bytes = include_bytes!("../../../test/data/heart-disease/app-compose.json");
    AppCompose::parse(bytes).unwrap().field("cohort").unwrap().clone()
}

/// The study with one place changed; `null` removes the field.
fn changed(pointer: &str, value: Value) -> Value {
    let mut recipe = study();
    if value.is_null() {
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        recipe.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(field).unwrap();
    } else {
        *recipe.pointer_mut(pointer).unwrap() = value;
    }
    recipe
}

fn refusal(pointer: &str, value: Value) -> RecipeError {
    Recipe::parse(&changed(pointer, value)).unwrap_err()
}

macro_rules! refuses {
    ($pointer:literal, $value:tt, $error:pat) => {{
        let error = refusal($pointer, json!($value));
        assert!(matches!(error, $error), "{} -> {}: {error:?}", $pointer, json!($value));
    }};
}

#[test]
fn the_study_is_a_recipe_and_says_what_it_costs() {
    let recipe = Recipe::parse(&study()).unwrap();
    assert_eq!(recipe.epsilon_per_run(), Epsilon(1_500_000_000));
    assert_eq!(recipe.epsilon_budget(), Epsilon(4_500_000_000));
    let shares: u64 = recipe.measures().iter().map(|measure| measure.kind.epsilon().unwrap().0).sum();
    assert_eq!(shares, 1_500_000_000);
    assert_eq!(recipe.output_schema(), &recipe.derived_output_schema());
}

#[test]
fn a_recipe_of_another_version_engine_or_shape_is_refused() {
    refuses!("/version", 2, RecipeError::Version(2));
    refuses!("/engine", "r", RecipeError::Engine(_));
    refuses!("/engine", "python", RecipeError::Python(_));
    refuses!("/title", "", RecipeError::Text { .. });
    refuses!("/title", "two\nlines", RecipeError::Text { .. });
    refuses!("/title", null, RecipeError::Grammar(_));
    refuses!("/measures/0/kind", "median", RecipeError::Grammar(_));
    refuses!("/datasets/columns/1/type", "int32", RecipeError::Grammar(_));
    refuses!("/measures/0/epsilon", 0.2, RecipeError::Grammar(_));
    refuses!("/measures/0/name", "no spaces", RecipeError::Grammar(_));
    refuses!("/minimum_group_size", 0, RecipeError::MinimumGroup { .. });
    refuses!("/measures/2/upper", 9007199254740992i64, RecipeError::UnsafeNumber { .. });
}

#[test]
fn an_unknown_field_is_refused_wherever_it_stands() {
    let places =
        ["", "/datasets", "/datasets/columns/0", "/privacy", "/keys/0", "/measures/0", "/measures/1/where"];
    for place in places {
        let mut recipe = study();
        recipe.pointer_mut(place).unwrap().as_object_mut().unwrap().insert("extra".to_owned(), json!(1));
        assert!(matches!(Recipe::parse(&recipe), Err(RecipeError::Grammar(_))), "{place:?}");
    }
}

#[test]
fn a_recipe_larger_than_the_limit_is_refused() {
    let mut recipe = study();
    recipe["output_schema"]["description"] = json!("x".repeat(MAX_RECIPE_BYTES));
    assert!(matches!(Recipe::parse(&recipe), Err(RecipeError::Size { .. })));
}

#[test]
fn lists_have_limits_and_no_repetitions() {
    refuses!("/datasets/owners", [], RecipeError::Length { .. });
    refuses!("/datasets/owners", ["a", "a"], RecipeError::Duplicate { .. });
    refuses!("/datasets/columns/1/name", "id", RecipeError::Duplicate { .. });
    refuses!("/datasets/columns/3/missing_values", [0, 0], RecipeError::Duplicate { .. });
    refuses!("/measures", [], RecipeError::Length { .. });
    refuses!("/measures/1/name", "patients", RecipeError::Duplicate { .. });
    refuses!("/measures/4/by", ["sex", "sex"], RecipeError::Duplicate { .. });
    refuses!("/keys/0/name", "sex", RecipeError::Duplicate { .. });
    refuses!("/keys/0/bands", [], RecipeError::Length { .. });
    refuses!("/keys/1/categories", ["Female", "Female"], RecipeError::Duplicate { .. });
}

#[test]
fn references_must_be_declared_and_of_a_usable_type() {
    refuses!("/privacy/unit", "patient", RecipeError::Unknown { kind: "column", .. });
    refuses!("/keys/0/column", "years", RecipeError::Unknown { kind: "column", .. });
    refuses!("/measures/4/by", ["region"], RecipeError::Unknown { kind: "key", .. });
    refuses!("/measures/2/column", "bp", RecipeError::Unknown { kind: "column", .. });
    refuses!("/measures/2/column", "sex", RecipeError::Type { .. });
    refuses!("/keys/0/column", "sex", RecipeError::Type { .. });
    refuses!("/keys/1/categories", [1, 2], RecipeError::Type { .. });
    refuses!("/datasets/columns/3/missing_values", ["none"], RecipeError::Type { .. });
    refuses!("/measures/1/where/value", "ill", RecipeError::Type { .. });
    refuses!("/measures/1/where", { "column": "sex", "op": "<", "value": "Male" }, RecipeError::Comparison { .. });
    refuses!("/measures/1/over", "prevalence", RecipeError::Over { .. });
    refuses!("/measures/1/by", ["sex", "age_band"], RecipeError::Over { .. });
    refuses!("/datasets/columns/0/nullable", true, RecipeError::NullableUnit { .. });
    refuses!("/datasets/columns/3/type", "float64", RecipeError::Decimals { .. });
    refuses!("/keys/0", { "name": "age_band", "column": "age" }, RecipeError::Groups { .. });
}

#[test]
fn bounds_edges_and_rounding_are_checked() {
    refuses!("/measures/2/lower", 170, RecipeError::Bounds { .. });
    refuses!("/measures/2/upper", 1000000001, RecipeError::Bounds { .. });
    refuses!("/keys/0/bands", [45, 45], RecipeError::Edges { .. });
    refuses!("/measures/4/edges", [30, 20], RecipeError::Edges { .. });
    refuses!("/measures/4/edges", [30], RecipeError::Length { .. });
    for bad in ["0", "0.0000001", "-1", "x", "0.5"] {
        assert!(matches!(refusal("/measures/0/round_to", json!(bad)), RecipeError::Round { .. }), "{bad}");
    }
    refuses!("/measures/1/round_to", "2", RecipeError::Round { .. });
    refuses!("/measures/2/round_to", "71", RecipeError::Round { .. });
    let edges: Vec<u32> = (0..200).collect();
    let mut recipe = changed("/measures/4/edges", json!(edges));
    recipe["measures"][4]["by"] = json!(["age_band", "sex"]);
    assert!(matches!(Recipe::parse(&recipe), Err(RecipeError::Cells { got: 1592, .. })));
}

#[test]
fn a_recipe_whose_output_could_not_leave_is_refused() {
    let categories: Vec<String> = (0..250).map(|index| format!("{index:064}")).collect();
    let mut recipe = changed("/keys/1/categories", json!(categories));
    for measure in 0..4 {
        recipe["measures"][measure]["by"] = json!(["sex"]);
    }
    let error = Recipe::parse(&recipe).unwrap_err();
    assert!(matches!(error, RecipeError::OutputSize { .. }), "{error:?}");
}

#[test]
fn shares_must_be_the_declared_cost_to_the_last_unit() {
    refuses!("/measures/0/epsilon", "0.200000001", RecipeError::Shares { .. });
    refuses!("/measures/0/epsilon", "0.199999999", RecipeError::Shares { .. });
    refuses!("/privacy/epsilon_per_run", "1.500000001", RecipeError::Shares { .. });
    refuses!("/measures/0/epsilon", "0", RecipeError::Share { .. });
    refuses!("/measures/2/epsilon_count", "0", RecipeError::Share { .. });
    refuses!("/measures/0/epsilon", "18446744073.709551615", RecipeError::SharesOverflow);
    refuses!("/privacy/epsilon_budget", "1.499999999", RecipeError::Budget { .. });
    refuses!("/privacy/delta", "0.000001", RecipeError::Delta(_));
}

#[test]
fn an_output_schema_is_closed_and_of_the_known_draft() {
    refuses!(
        "/output_schema/$schema",
        "http://json-schema.org/draft-07/schema#",
        RecipeError::OutputSchema(_)
    );
    refuses!("/output_schema/type", "array", RecipeError::OutputSchema(_));
    refuses!("/output_schema/properties", { "x": { "$ref": "https://example.org/x" } }, RecipeError::OutputSchema(_));
    refuses!("/output_schema/properties", { "x": { "$id": "x" } }, RecipeError::OutputSchema(_));
}

#[test]
fn the_hash_covers_the_meaning_and_not_the_spelling() {
    let text = serde_json::to_string(&study()).unwrap();
    let spaced = serde_json::to_string_pretty(&study()).unwrap();
    let hash = |text: &str| Recipe::parse(&serde_json::from_str(text).unwrap()).unwrap().recipe_hash();
    assert_eq!(hash(&text), hash(&spaced));
    let other = Recipe::parse(&changed("/minimum_group_size", json!(11))).unwrap();
    assert_ne!(hash(&text), other.recipe_hash());
    assert_eq!(other.output_schema_hash(), Recipe::parse(&study()).unwrap().output_schema_hash());
}

#[test]
fn cells_are_declared_and_in_order() {
    let recipe = Recipe::parse(&study()).unwrap();
    let keys = recipe.cell_keys(&recipe.measures()[0]);
    assert_eq!(keys.len(), 8);
    assert_eq!(keys[..3], [["<45", "Female"], ["<45", "Male"], ["45-54", "Female"]]);
    assert_eq!(keys[7], [">=65", "Male"]);
    let bins: Vec<_> = recipe.cell_keys(&recipe.measures()[4]).concat();
    assert_eq!(bins, ["20-29", "30-39", "40-49", "50-59", "60-69", "70-79"]);
}

#[test]
fn the_explanation_names_data_numbers_and_cost() {
    let text = Recipe::parse(&study()).unwrap().explain(Language::English);
    for part in [
        "hospital-A, hospital-B, hospital-C, hospital-D",
        "chol (int64), may be missing, 0 means missing",
        "age_band from age: <45, 45-54, 55-64, >=65",
        "prevalence: part of patients with num >= 1 by age_band and sex; 8 numbers, rounded to 0.01, epsilon 0.3",
        "cholesterol: mean chol (150 to 350 mg/dl) by age_band and sex; 8 numbers, rounded to 0.1, epsilon 0.5",
        "One run costs epsilon 1.5, all runs together at most 4.5",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[test]
fn the_explanation_is_there_in_turkish() {
    let text = Recipe::parse(&study()).unwrap().explain(Language::Turkish);
    for part in [
        "Yalnızca gizli sanal makinenin içinde okunanlar (hospital-A, hospital-B, hospital-C, hospital-D):",
        "chol (tam sayı), boş olabilir, 0 boş demektir",
        "prevalence: patients içinde num >= 1 olanların oranı, age_band ve sex gruplarına göre; 8 sayı",
        "10 kişiden azını (gürültülü sayımla) kapsayan sayılar gizlenir.",
        "Bir çalıştırmanın bedeli epsilon 1.5, tüm çalıştırmaların toplamı en çok 4.5",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

/// The study with its last measure replaced.
fn with_measure(measure: Value) -> Result<Recipe, RecipeError> {
    let mut recipe = study();
    recipe["measures"][4] = measure;
    Recipe::parse(&recipe)
}

#[test]
fn the_measures_beyond_counts_are_checked() {
    let quantile = json!({ "name": "q", "kind": "quantile", "by": ["age_band", "sex"], "column": "age", "lower": 20,
        "upper": 90, "probability": "0.5", "over": "patients", "round_to": "1", "epsilon": "0.15" });
    let regression = json!({ "name": "r", "kind": "linear_regression", "by": [], "column": "trestbps", "lower": 80,
        "upper": 200, "features": [{ "column": "age", "lower": 20, "upper": 90 }], "limit": 200, "round_to": "0.01",
        "epsilon": "0.15" });
    let variance = json!({ "name": "v", "kind": "variance", "by": [], "column": "age", "lower": 20, "upper": 90,
        "round_to": "0.1", "epsilon_sum": "0.05", "epsilon_squares": "0.05", "epsilon_count": "0.05" });
    let logistic = json!({ "name": "l", "kind": "logistic_regression", "by": ["sex"],
        "where": { "column": "num", "op": ">=", "value": 1 }, "limit": 20, "round_to": "0.001", "epsilon": "0.15",
        "features": [{ "column": "age", "lower": 20, "upper": 90 }, { "column": "chol", "lower": 100, "upper": 400 }] });
    let recipe = with_measure(quantile.clone()).unwrap();
    assert_eq!(recipe.cell_count(&recipe.measures()[4]), 8);
    with_measure(variance.clone()).unwrap();
    with_measure(regression.clone()).unwrap();
    let recipe = with_measure(logistic).unwrap();
    let keys = recipe.cell_keys(&recipe.measures()[4]);
    assert_eq!(keys[3..], [["Male", "intercept"], ["Male", "age"], ["Male", "chol"]]);

    let refused = |mut measure: Value, pointer: &str, value: Value| {
        *measure.pointer_mut(pointer).unwrap() = value;
        with_measure(measure).unwrap_err()
    };
    for text in ["0", "1", "1.5", "0.0001", "half"] {
        assert!(matches!(
            refused(quantile.clone(), "/probability", json!(text)),
            RecipeError::Probability { .. }
        ));
    }
    assert!(matches!(refused(quantile.clone(), "/round_to", json!("0.001")), RecipeError::Round { .. }));
    assert!(matches!(refused(quantile.clone(), "/round_to", json!("80")), RecipeError::Round { .. }));
    assert!(matches!(refused(quantile, "/over", json!("prevalence")), RecipeError::Over { .. }));
    assert!(matches!(refused(regression.clone(), "/limit", json!(0)), RecipeError::Bounds { .. }));
    assert!(matches!(refused(regression.clone(), "/features", json!([])), RecipeError::Length { .. }));
    assert!(matches!(refused(regression, "/features/0/column", json!("sex")), RecipeError::Type { .. }));
    assert!(matches!(refused(variance.clone(), "/round_to", json!("10000")), RecipeError::Round { .. }));
    let wide = |step: &str| {
        let mut measure = variance.clone();
        measure["lower"] = json!(0);
        measure["upper"] = json!(1_000_000);
        measure["round_to"] = json!(step);
        with_measure(measure)
    };
    assert!(wide("1").is_ok() && matches!(wide("0.1"), Err(RecipeError::Round { .. })));
}

#[test]
fn a_python_recipe_has_a_pinned_script_and_declared_numbers() {
    let python = |change: fn(&mut Value)| {
        let mut recipe = study();
        recipe["engine"] = json!("python");
        recipe["python"] = json!({ "script": "pass", "seconds": 60, "memory_mib": 1024 });
        recipe["measures"][4] = json!({ "name": "risk", "kind": "emitted", "by": [], "over": "all", "lower": 0,
            "upper": 1, "round_to": "0.01", "sensitivity": "0.001", "labels": ["low", "high"], "epsilon": "0.1" });
        recipe["measures"]
            .as_array_mut()
            .unwrap()
            .push(json!({ "name": "all", "kind": "count", "by": [], "round_to": "1", "epsilon": "0.05" }));
        change(&mut recipe);
        Recipe::parse(&recipe)
    };
    let sensitivity = |recipe: Recipe| match &recipe.measures()[4].kind {
        MeasureKind::Emitted { sensitivity, .. } => *sensitivity,
        _ => 0,
    };
    let recipe = python(|_| ()).unwrap();
    assert!(
        matches!(recipe.engine(), Engine::Python(python) if python.script == Script::Text("pass".into()))
    );
    // A tenth of a step, rounded up, and one step for the rounding of each number.
    assert_eq!(sensitivity(recipe), 3);
    // Without a declared sensitivity each number may move from bound to bound.
    assert_eq!(
        sensitivity(
            python(|recipe| drop(recipe["measures"][4].as_object_mut().unwrap().remove("sensitivity")))
                .unwrap()
        ),
        200
    );
    assert_eq!(python(|_| ()).unwrap().hidden_bits(), 14);
    let explained = python(|_| ()).unwrap().explain(Language::English);
    assert!(explained.contains("a hostile one could hide at most 14 bits"), "{explained}");

    let refused = |change: fn(&mut Value)| python(change).unwrap_err();
    assert!(matches!(refused(|recipe| recipe["engine"] = json!("declared")), RecipeError::Python(_)));
    assert!(matches!(refused(|recipe| recipe["python"]["script"] = json!("")), RecipeError::Python(_)));
    assert!(matches!(
        refused(|recipe| recipe["python"]["script_sha256"] = json!("0x00")),
        RecipeError::Python(_)
    ));
    assert!(matches!(refused(|recipe| recipe["python"]["seconds"] = json!(0)), RecipeError::Python(_)));
    assert!(matches!(refused(|recipe| recipe["python"]["memory_mib"] = json!(1)), RecipeError::Python(_)));
    assert!(matches!(refused(|recipe| recipe["python"]["network"] = json!(true)), RecipeError::Grammar(_)));
    assert!(matches!(
        refused(|recipe| recipe["measures"][4]["by"] = json!(["sex"])),
        RecipeError::Length { .. }
    ));
    assert!(matches!(
        refused(|recipe| recipe["measures"][4]["sensitivity"] = json!("0")),
        RecipeError::Sensitivity { .. }
    ));
    let hashed = python(|recipe| {
        recipe["python"] =
            json!({ "script_sha256": format!("0x{}", "ab".repeat(32)), "seconds": 1, "memory_mib": 256 });
    });
    assert!(matches!(hashed.unwrap().engine(), Engine::Python(Python { script: Script::Sha256(_), .. })));
}

/// The study with SQL before its measures.
fn prepared(change: impl FnOnce(&mut Value)) -> Result<Recipe, RecipeError> {
    let mut recipe = study();
    let columns = recipe["datasets"]["columns"].clone();
    recipe["prepare"] = json!({
        "tables": [{ "name": "codes", "columns": [{ "name": "sex", "type": "utf8" }, { "name": "code", "type": "int64" }],
                     "rows": [["Female", 1], ["Male", 2]] }],
        "steps": [{ "name": "persons", "sql": "SELECT 1" }],
        "columns": columns,
        "seconds": 3600
    });
    change(&mut recipe);
    let schema: Value = serde_json::from_str(include_str!("../../../docs/spec/recipe.schema.json")).unwrap();
    let parsed = Recipe::parse(&recipe);
    if parsed.is_ok() || matches!(parsed, Err(RecipeError::Grammar(_))) {
        let fits = jsonschema::draft202012::options().build(&schema).unwrap().is_valid(&recipe);
        assert_eq!(fits, parsed.is_ok(), "{parsed:?}");
    }
    parsed
}

#[test]
fn sql_has_tables_steps_and_columns_of_its_own() {
    let recipe = prepared(|recipe| {
        recipe["datasets"]["columns"][2]["owners"] = json!(["hospital-A", "hospital-B"]);
        recipe["datasets"]["columns"][3]["name"] = json!("other");
    });
    let recipe = recipe.unwrap();
    let owners: Vec<&str> = recipe.sources()[2].owners.iter().map(|owner| owner.as_str()).collect();
    assert_eq!(owners, ["hospital-A", "hospital-B"]);
    assert_ne!(recipe.sources()[3].column.name, recipe.columns()[3].name);
    assert!(recipe.prepare().unwrap().tables[0].is_key(0));
    assert_eq!(recipe.prepare().unwrap().seconds, 3600);
    for language in [Language::English, Language::Turkish] {
        let text = recipe.explain(language);
        for part in ["SELECT 1", "hospital-A, hospital-B", "3600 s"] {
            assert!(text.contains(part), "{text}");
        }
    }
}

/// How long SQL takes tells of rows: it has a fixed time, or does not run.
#[test]
fn sql_without_a_fixed_time_is_refused() {
    let untimed = |recipe: &mut Value| drop(recipe["prepare"].as_object_mut().unwrap().remove("seconds"));
    let mut recipe = study();
    let error = prepared(|changed| {
        untimed(changed);
        recipe = changed.clone();
    });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("prepare has no seconds") && error.contains("\"seconds\": 60"), "{error}");
    let schema: Value = serde_json::from_str(include_str!("../../../docs/spec/recipe.schema.json")).unwrap();
    let schema = jsonschema::draft202012::options().build(&schema).unwrap();
    assert!(!schema.is_valid(&recipe));
    recipe["prepare"]["seconds"] = json!(1);
    assert!(schema.is_valid(&recipe));
}

#[test]
fn what_breaks_a_rule_of_prepare_is_refused() {
    macro_rules! refuses {
        ($change:expr, $error:pat) => {{
            let error = prepared($change).unwrap_err();
            assert!(matches!(error, $error), "{error:?}");
        }};
    }
    refuses!(|recipe| recipe["prepare"] = Value::Null, RecipeError::Grammar(_));
    refuses!(|recipe| recipe["prepare"]["more"] = json!(1), RecipeError::Grammar(_));
    refuses!(|recipe| recipe["prepare"]["steps"] = json!([]), RecipeError::Length { .. });
    refuses!(|recipe| recipe["prepare"]["seconds"] = Value::Null, RecipeError::Grammar(_));
    refuses!(|recipe| recipe["prepare"]["seconds"] = json!(0), RecipeError::Prepare(_));
    refuses!(|recipe| recipe["prepare"]["seconds"] = json!(3601), RecipeError::Prepare(_));
    refuses!(|recipe| recipe["prepare"]["steps"][0]["sql"] = json!(""), RecipeError::Prepare(_));
    refuses!(
        |recipe| recipe["prepare"]["steps"][0]["sql"] = json!("x".repeat(16_385)),
        RecipeError::Prepare(_)
    );
    refuses!(|recipe| recipe["prepare"]["steps"][0]["name"] = json!("cohort"), RecipeError::Duplicate { .. });
    refuses!(
        |recipe| recipe["prepare"]["steps"][0]["name"] = json!("hospital-A"),
        RecipeError::Duplicate { .. }
    );
    refuses!(
        |recipe| recipe["prepare"]["tables"][0]["name"] = json!("persons"),
        RecipeError::Duplicate { .. }
    );
    refuses!(
        |recipe| recipe["prepare"]["tables"][0]["rows"][0] = json!(["Female"]),
        RecipeError::Length { .. }
    );
    refuses!(|recipe| recipe["prepare"]["tables"][0]["rows"][0][1] = json!("one"), RecipeError::Type { .. });
    refuses!(|recipe| recipe["prepare"]["columns"][0]["name"] = json!("person"), RecipeError::Unknown { .. });
    refuses!(|recipe| recipe["prepare"]["columns"][0]["type"] = json!("utf8"), RecipeError::Prepare(_));
    refuses!(
        |recipe| recipe["prepare"]["columns"][1]["owners"] = json!(["hospital-A"]),
        RecipeError::Prepare(_)
    );
    refuses!(
        |recipe| recipe["datasets"]["columns"][0]["owners"] = json!(["hospital-A"]),
        RecipeError::Prepare(_)
    );
    refuses!(
        |recipe| recipe["datasets"]["columns"][1]["owners"] = json!(["clinic"]),
        RecipeError::Unknown { .. }
    );
    refuses!(|recipe| recipe["datasets"]["columns"][4]["name"] = json!("owner"), RecipeError::Prepare(_));
    refuses!(|recipe| recipe["measures"][2]["column"] = json!("id"), RecipeError::Prepare(_));
    refuses!(
        |recipe| {
            recipe.as_object_mut().unwrap().remove("prepare");
            recipe["datasets"]["columns"][1]["owners"] = json!(["hospital-A"]);
        },
        RecipeError::Prepare(_)
    );
}

#[test]
fn gaussian_noise_needs_a_delta_and_its_budget() {
    let with = |privacy: Value| {
        let mut recipe = study();
        recipe["privacy"].as_object_mut().unwrap().extend(privacy.as_object().unwrap().clone());
        Recipe::parse(&recipe)
    };
    let good = json!({ "noise": "gaussian", "delta": "0.000001", "delta_budget": "0.000003" });
    let recipe = with(good).unwrap();
    assert_eq!(
        (recipe.delta_per_run(), recipe.delta_budget()),
        (Delta(1_000_000_000_000), Delta(3_000_000_000_000))
    );
    for language in [Language::English, Language::Turkish] {
        assert!(recipe.explain(language).contains("0.000003"), "{}", recipe.explain(language));
    }
    for bad in [
        json!({ "noise": "gaussian" }),
        json!({ "noise": "gaussian", "delta": "0.000001" }),
        json!({ "noise": "gaussian", "delta": "0.000001", "delta_budget": "0.0000009" }),
        json!({ "noise": "gaussian", "delta": "0.0011", "delta_budget": "0.1" }),
        json!({ "noise": "gaussian", "delta": "0", "delta_budget": "0.1" }),
        json!({ "noise": "laplace", "delta": "0.000001" }),
        json!({ "delta_budget": "0" }),
    ] {
        assert!(matches!(with(bad.clone()), Err(RecipeError::Delta(_))), "{bad}");
    }
    assert!(matches!(with(json!({ "noise": "staircase" })), Err(RecipeError::Grammar(_))));
}

/// The committed JSON Schema and this parser, on the same cases. A schema cannot follow references: what breaks only
/// a rule about those, it lets pass.
#[test]
fn the_json_schema_says_what_the_grammar_says() {
    let schema: Value = serde_json::from_str(include_str!("../../../docs/spec/recipe.schema.json")).unwrap();
    let schema = jsonschema::draft202012::options().build(&schema).unwrap();
    assert!(schema.is_valid(&study()) && Recipe::parse(&study()).is_ok());
    let python = json!({ "script": "pass", "seconds": 1, "memory_mib": 256 });
    let both = [
        ("/version", json!(2)),
        ("/version", json!("1")),
        ("/title", json!("")),
        ("/title", json!("a\nb")),
        ("/title", json!("x".repeat(121))),
        ("/title", Value::Null),
        ("/engine", json!("r")),
        ("/engine", json!("python")),
        ("/datasets/owners", json!([])),
        ("/datasets/owners", json!(["a", "a"])),
        ("/datasets/owners/0", json!("a b")),
        ("/datasets/owners/0", json!("x".repeat(32))),
        ("/datasets/columns", json!([])),
        ("/datasets/columns/0/type", json!("int32")),
        ("/datasets/columns/0/decimals", json!(2)),
        ("/datasets/columns/1/nullable", json!("no")),
        ("/datasets/columns/1/nullable", Value::Null),
        ("/datasets/columns/3/missing_values", json!([1.5])),
        ("/datasets/columns/3/missing_values", json!([0, 0])),
        ("/datasets/columns/3/missing_values", json!([1_000_000_001])),
        ("/datasets/columns/1/type", json!("float64")),
        ("/privacy/delta", json!("0.1")),
        ("/privacy/epsilon_per_run", json!(1.5)),
        ("/privacy/epsilon_per_run", json!("1e3")),
        ("/privacy/epsilon_per_run", json!("-1")),
        ("/privacy/unit", json!("")),
        ("/privacy", json!({})),
        ("/keys/0/bands", json!([])),
        ("/keys/0/bands", json!([1.5])),
        ("/keys/0/bands", Value::Null),
        ("/keys/0/categories", json!([1])),
        ("/keys/0/more", json!(1)),
        ("/keys", json!({})),
        ("/measures", json!([])),
        ("/measures/0/kind", json!("median")),
        ("/measures/0/kind", Value::Null),
        ("/measures/0/by", json!(["sex", "sex"])),
        ("/measures/0/by", json!("sex")),
        ("/measures/0/round_to", json!(1)),
        ("/measures/0/round_to", json!("-1")),
        ("/measures/0/epsilon", json!(0.2)),
        ("/measures/0/over", json!("patients")),
        ("/measures/1/where/op", json!("~")),
        ("/measures/1/where/value", json!(null)),
        ("/measures/1/over", Value::Null),
        ("/measures/2/lower", json!(1.5)),
        ("/measures/2/upper", json!(1_000_000_001)),
        ("/measures/2/unit", json!("")),
        ("/measures/4/edges", json!([1])),
        ("/minimum_group_size", json!(0)),
        ("/minimum_group_size", json!(1_000_001)),
        ("/output_schema", json!(true)),
        ("/output_schema/type", json!("array")),
        ("/output_schema/$id", json!("x")),
        ("/output_schema/$schema", Value::Null),
        ("/more", json!(1)),
        ("/python", python),
    ];
    for (pointer, value) in both {
        let recipe = changed_or_added(pointer, value.clone());
        assert!(Recipe::parse(&recipe).is_err(), "the parser takes {pointer} = {value}");
        assert!(!schema.is_valid(&recipe), "the schema takes {pointer} = {value}");
    }
    let references = [
        ("/privacy/unit", json!("nobody")),
        ("/keys/0/column", json!("nobody")),
        ("/measures/0/by", json!(["nobody"])),
        ("/measures/1/over", json!("age")),
        ("/measures/2/lower", json!(170)),
        ("/measures/0/epsilon", json!("0.3")),
        ("/keys/0/bands", json!([55, 45])),
        ("/measures/0/round_to", json!("0.1")),
        ("/privacy/epsilon_budget", json!("1")),
    ];
    for (pointer, value) in references {
        let recipe = changed_or_added(pointer, value.clone());
        assert!(Recipe::parse(&recipe).is_err() && schema.is_valid(&recipe), "{pointer} = {value}");
    }
    let valid = [
        ("/title", json!("Başka bir çalışma")),
        ("/minimum_group_size", json!(1)),
        ("/privacy/epsilon_budget", json!("1.5")),
        ("/measures/2/unit", Value::Null),
        ("/datasets/columns/3/missing_values", Value::Null),
        (
            "/measures/4",
            json!({ "name": "q", "kind": "quantile", "by": ["age_band", "sex"], "column": "age", "lower": 20,
            "upper": 90, "probability": "0.5", "over": "patients", "round_to": "1", "epsilon": "0.15" }),
        ),
        (
            "/measures/4",
            json!({ "name": "l", "kind": "logistic_regression", "by": [],
            "where": { "column": "num", "op": ">=", "value": 1 }, "limit": 20, "round_to": "0.001", "epsilon": "0.15",
            "features": [{ "column": "age", "lower": 20, "upper": 90 }] }),
        ),
        (
            "/measures/4",
            json!({ "name": "v", "kind": "variance", "by": [], "column": "age", "lower": 20, "upper": 90,
            "round_to": "0.1", "epsilon_sum": "0.05", "epsilon_squares": "0.05", "epsilon_count": "0.05" }),
        ),
    ];
    for (pointer, value) in valid {
        let recipe = changed_or_added(pointer, value.clone());
        let parsed = Recipe::parse(&recipe);
        assert!(parsed.is_ok() && schema.is_valid(&recipe), "{pointer} = {value}: {parsed:?}");
    }
    let mut script = study();
    script["engine"] = json!("python");
    script["python"] = json!({ "script": "pass", "seconds": 60, "memory_mib": 1024 });
    script["measures"] = json!([
        { "name": "n", "kind": "count", "by": [], "round_to": "1", "epsilon": "1" },
        { "name": "x", "kind": "emitted", "by": [], "over": "n", "lower": 0, "upper": 1, "round_to": "0.01",
          "labels": ["a", "b"], "sensitivity": "0.5", "epsilon": "0.5" }
    ]);
    assert!(Recipe::parse(&script).is_ok() && schema.is_valid(&script));
    for (pointer, value) in [
        ("/python/seconds", json!(0)),
        ("/python/script", json!("")),
        ("/measures/1/by", json!(["sex"])),
        ("/python/script_sha256", json!("0x00")),
        ("/measures/1/kind", json!("count")),
    ] {
        let mut recipe = script.clone();
        set(&mut recipe, pointer, value.clone());
        assert!(Recipe::parse(&recipe).is_err() && !schema.is_valid(&recipe), "{pointer} = {value}");
    }
}

/// The study with a place changed, added, or with `null` removed.
fn changed_or_added(pointer: &str, value: Value) -> Value {
    let mut recipe = study();
    set(&mut recipe, pointer, value);
    recipe
}

fn set(recipe: &mut Value, pointer: &str, value: Value) {
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    match recipe.pointer_mut(parent).unwrap() {
        Value::Array(items) => items[field.parse::<usize>().unwrap()] = value,
        Value::Object(fields) if value.is_null() => drop(fields.remove(field)),
        Value::Object(fields) => drop(fields.insert(field.to_owned(), value)),
        _ => panic!("{pointer}"),
    }
}

/// Any JSON, often with words that the grammar knows.
fn any_json() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        Just("name".to_owned()),
        Just("kind".to_owned()),
        Just("mean".to_owned()),
        Just("epsilon".to_owned()),
        "\\PC{0,12}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(word.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// JSON pointers of every place in a value.
fn places(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, item)| places(item, &format!("{at}/{i}"), out))
        }
        Value::Object(map) => map.iter().for_each(|(name, item)| places(item, &format!("{at}/{name}"), out)),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn parsing_never_panics_and_what_passes_is_consistent(pick in any::<prop::sample::Index>(), value in any_json()) {
        let mut recipe = study();
        let mut all = Vec::new();
        places(&recipe, "", &mut all);
        *recipe.pointer_mut(pick.get::<String>(&all).as_str()).unwrap() = value;
        if let Ok(recipe) = Recipe::parse(&recipe) {
            let sum: u64 = recipe.measures().iter().map(|measure| measure.kind.epsilon().unwrap().0).sum();
            prop_assert_eq!(sum, recipe.epsilon_per_run().0);
            prop_assert!(recipe.explain(Language::English).contains(recipe.title()));
            for measure in recipe.measures() {
                prop_assert_eq!(recipe.cell_keys(measure).len(), recipe.cell_count(measure));
            }
        }
    }

    #[test]
    fn compose_parsing_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..256), value in any_json()) {
        let _ = AppCompose::parse(&bytes);
        if let Ok(compose) = AppCompose::parse(&serde_json::to_vec(&value).unwrap()) {
            compose.lint();
        }
    }
}
