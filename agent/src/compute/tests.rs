//! The engine against theory and against hostile data.

mod accuracy;
mod engine;
mod hostile;
mod measures;
mod prepare;
mod privacy;

use cohort_protocol::{compose::AppCompose, recipe::Recipe};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{Input, aggregate, statistic::Statistic};

const STUDY: &[u8] = include_bytes!("../../../test/data/heart-disease/app-compose.json");
const PATIENTS: &str = include_str!("../../../test/data/heart-disease/heart-disease-four-hospitals.csv");
const HOSPITALS: [(&str, &str); 4] = [
    ("hospital-A", "Cleveland"),
    ("hospital-B", "Hungary"),
    ("hospital-C", "Switzerland"),
    ("hospital-D", "VA Long Beach"),
];

fn study() -> Recipe {
    AppCompose::parse(STUDY).unwrap().recipe().unwrap()
}

/// The study's `cohort` section after a change.
fn study_with(change: impl FnOnce(&mut Value)) -> Recipe {
    let mut section = AppCompose::parse(STUDY).unwrap().field("cohort").unwrap().clone();
    change(&mut section);
    Recipe::parse(&section).unwrap()
}

/// The real patients, one CSV per hospital.
fn patients() -> Vec<Input> {
    HOSPITALS.map(|(owner, hospital)| csv(owner, |line| line.contains(&format!(",{hospital},")))).into()
}

/// The real patients for whom `keep` holds, as the dataset of one owner.
fn csv(owner: &str, keep: impl Fn(&str) -> bool) -> Input {
    let (header, rows) = PATIENTS.split_once('\n').unwrap();
    let rows: String = rows.lines().filter(|line| keep(line)).map(|line| format!("{line}\n")).collect();
    input(owner, &format!("{header}\n{rows}"))
}

fn input(owner: &str, text: &str) -> Input {
    (owner.parse().unwrap(), Zeroizing::new(text.as_bytes().to_vec()))
}

/// Rows `id,age,sex,trestbps,chol,num` as hospital-A's dataset.
fn rows(lines: &[&str]) -> Input {
    input("hospital-A", &format!("id,age,sex,trestbps,chol,num\n{}\n", lines.join("\n")))
}

fn exact(recipe: &Recipe, inputs: Vec<Input>) -> Vec<Vec<Statistic>> {
    aggregate::statistics(recipe, inputs, &mut aggregate::Nobody).unwrap()
}

/// The exact vector of one statistic of the study's measures.
fn vector(recipe: &Recipe, inputs: Vec<Input>, measure: usize, statistic: usize) -> Vec<i64> {
    exact(recipe, inputs)[measure][statistic].values.clone()
}

/// A recipe with every measure and column type, over `id,group,amount,flag`.
fn every_kind() -> Recipe {
    let mut section = every_kind_section();
    let schema = Recipe::parse(&section).unwrap().derived_output_schema();
    section["output_schema"] = schema;
    Recipe::parse(&section).unwrap()
}

fn every_kind_section() -> Value {
    let key = json!([{ "name": "group", "column": "group", "categories": ["x", "y"] },
                     { "name": "flag", "column": "flag", "categories": [true, false] }]);
    json!({
        "version": 1, "title": "every kind", "engine": "declared",
        "datasets": { "owners": ["a", "b"], "columns": [
            { "name": "id", "type": "utf8", "nullable": false },
            { "name": "group", "type": "utf8", "nullable": true, "missing_values": ["none"] },
            { "name": "amount", "type": "float64", "decimals": 2, "nullable": true, "missing_values": [-1] },
            { "name": "flag", "type": "bool", "nullable": true }
        ] },
        "privacy": { "unit": "id", "epsilon_per_run": "9", "epsilon_budget": "9", "delta": "0" },
        "keys": key,
        "measures": [
            { "name": "n", "kind": "count", "by": ["group"], "round_to": "1", "epsilon": "1" },
            { "name": "p", "kind": "proportion", "by": ["group"], "over": "n", "round_to": "0.001", "epsilon": "1",
              "where": { "column": "flag", "op": "=", "value": true } },
            { "name": "m", "kind": "mean", "by": ["group", "flag"], "column": "amount", "lower": -3, "upper": 4,
              "round_to": "0.01", "epsilon_sum": "0.5", "epsilon_count": "0.5" },
            { "name": "s", "kind": "sum", "by": ["group"], "column": "amount", "lower": -3, "upper": 4, "over": "n",
              "round_to": "1", "epsilon": "1" },
            { "name": "v", "kind": "variance", "by": ["flag"], "column": "amount", "lower": -3, "upper": 4,
              "round_to": "0.01", "epsilon_sum": "0.25", "epsilon_squares": "0.5", "epsilon_count": "0.25" },
            { "name": "q", "kind": "quantile", "by": ["group"], "column": "amount", "lower": -3, "upper": 4,
              "probability": "0.75", "over": "n", "round_to": "0.5", "epsilon": "1" },
            { "name": "r", "kind": "linear_regression", "by": ["group"], "column": "amount", "lower": -3, "upper": 4,
              "features": [{ "column": "amount", "lower": -2, "upper": 2 }], "limit": 10, "round_to": "0.01", "epsilon": "1" },
            { "name": "l", "kind": "logistic_regression", "by": [], "where": { "column": "flag", "op": "=", "value": true },
              "features": [{ "column": "amount", "lower": -3, "upper": 4 }], "limit": 10, "round_to": "0.01", "epsilon": "1" },
            { "name": "h", "kind": "histogram", "by": ["flag"], "column": "amount", "edges": [-2, 0, 2],
              "round_to": "1", "epsilon": "1" }
        ],
        "minimum_group_size": 1,
        "output_schema": { "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object" }
    })
}

/// [`every_kind`] with some of its measures only.
fn every_kind_with(names: &[&str]) -> Recipe {
    let all = every_kind();
    let kept: Vec<&cohort_protocol::recipe::Measure> =
        all.measures().iter().filter(|measure| names.contains(&measure.name.as_str())).collect();
    let epsilon: u64 = kept.iter().map(|measure| measure.kind.epsilon().unwrap().0).sum();
    let mut section = every_kind_section();
    let measures = section["measures"].as_array_mut().unwrap();
    measures.retain(|measure| names.contains(&measure["name"].as_str().unwrap()));
    section["privacy"]["epsilon_per_run"] = json!(cohort_protocol::loss::Epsilon(epsilon));
    Recipe::parse(&section).unwrap()
}

/// A small Parquet file of the study's columns, 50 rows.
pub(super) fn small_parquet() -> Vec<u8> {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use std::sync::Arc;
    let numbers: ArrayRef = Arc::new(Int64Array::from((0..50).collect::<Vec<i64>>()));
    let sexes: ArrayRef = Arc::new(StringArray::from(vec!["Male"; 50]));
    let names = ["id", "age", "sex", "trestbps", "chol", "num"];
    let columns = names.map(|name| (name, if name == "sex" { sexes.clone() } else { numbers.clone() }));
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut bytes = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}
