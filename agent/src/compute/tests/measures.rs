//! Measures beyond counts, against values computed another way; and which cells are withheld.

use super::*;
use crate::compute::{compute_at_once, guard};

/// The study's columns with one measure and the count that it needs, at a share that leaves next to no noise.
fn one(measure: Value) -> Recipe {
    study_with(|recipe| {
        let shares = ["epsilon", "epsilon_sum", "epsilon_squares", "epsilon_count"];
        let total: f64 =
            shares.iter().filter_map(|share| measure.get(share)?.as_str()?.parse::<f64>().ok()).sum();
        recipe["measures"] = json!([
            { "name": "patients", "kind": "count", "by": [], "round_to": "1", "epsilon": "100000" },
            measure
        ]);
        recipe["privacy"]["epsilon_per_run"] = json!((total + 100_000.0).to_string());
        recipe["privacy"]["epsilon_budget"] = json!("100000000");
        recipe["output_schema"] =
            json!({ "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object" });
    })
}

fn values(recipe: &Recipe) -> Vec<f64> {
    let output = compute_at_once(recipe, patients(), None).unwrap();
    guard(recipe, output.value()).unwrap();
    let cells = output.value()["measures"][1]["cells"].as_array().unwrap().clone();
    cells.iter().map(|cell| cell["value"].as_f64().unwrap()).collect()
}

/// Numbers of two columns, for the patients who have both, zeros being missing where `zero_is_missing`.
fn pairs(x: usize, y: usize) -> Vec<(f64, f64)> {
    let number = |line: &str, column: usize| -> Option<f64> {
        line.split(',').nth(column)?.parse().ok().filter(|value| *value != 0.0)
    };
    PATIENTS.lines().skip(1).filter_map(|line| Some((number(line, x)?, number(line, y)?))).collect()
}

fn column(name: &str) -> usize {
    PATIENTS.lines().next().unwrap().split(',').position(|column| column == name).unwrap()
}

#[test]
fn a_variance_is_that_of_the_values() {
    let recipe = one(
        json!({ "name": "v", "kind": "variance", "by": [], "column": "age", "lower": 20, "upper": 90,
        "round_to": "0.1", "epsilon_sum": "100000", "epsilon_squares": "100000", "epsilon_count": "100000" }),
    );
    let ages: Vec<f64> = pairs(column("age"), column("age")).iter().map(|pair| pair.0).collect();
    let mean = ages.iter().sum::<f64>() / ages.len() as f64;
    let expected = ages.iter().map(|age| (age - mean).powi(2)).sum::<f64>() / ages.len() as f64;
    assert!((values(&recipe)[0] - expected).abs() < 0.2, "{:?}, expected {expected}", values(&recipe));
}

#[test]
fn a_quantile_is_that_of_the_values() {
    let mut ages: Vec<f64> = pairs(column("age"), column("age")).iter().map(|pair| pair.0).collect();
    ages.sort_by(f64::total_cmp);
    for (probability, at) in [("0.1", 0.1), ("0.5", 0.5), ("0.975", 0.975)] {
        let recipe = one(
            json!({ "name": "q", "kind": "quantile", "by": [], "column": "age", "lower": 20, "upper": 90,
            "probability": probability, "over": "patients", "round_to": "1", "epsilon": "100000" }),
        );
        let expected = ages[(at * ages.len() as f64) as usize];
        assert!(
            (values(&recipe)[0] - expected).abs() <= 1.0,
            "{probability}: {:?}, {expected}",
            values(&recipe)
        );
    }
}

#[test]
fn a_linear_regression_is_the_least_squares_line() {
    let recipe = one(
        json!({ "name": "r", "kind": "linear_regression", "by": [], "column": "trestbps", "lower": 60,
        "upper": 220, "features": [{ "column": "age", "lower": 20, "upper": 90 }], "limit": 1000, "round_to": "0.01",
        "epsilon": "100000" }),
    );
    let points = pairs(column("age"), column("trestbps"));
    let n = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0 / n, y + point.1 / n));
    let slope = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum::<f64>()
        / points.iter().map(|point| (point.0 - x).powi(2)).sum::<f64>();
    let found = values(&recipe);
    assert!((found[1] - slope).abs() < 0.02, "{found:?}, expected {slope}");
    assert!((found[0] - (y - slope * x)).abs() < 1.0, "{found:?}");
}

/// Against Newton's method on the exact logistic likelihood: the second-order expansion is biased towards 0, by less
/// than a third here.
#[test]
fn a_logistic_regression_is_near_the_likelihood_s_maximum() {
    let recipe = one(json!({ "name": "l", "kind": "logistic_regression", "by": [],
        "where": { "column": "num", "op": ">=", "value": 1 }, "limit": 1000, "round_to": "0.0001",
        "features": [{ "column": "age", "lower": 20, "upper": 90 }], "epsilon": "100000" }));
    let (age, num) = (column("age"), column("num"));
    let points: Vec<(f64, f64)> = PATIENTS
        .lines()
        .skip(1)
        .filter_map(|line| {
            let cells: Vec<&str> = line.split(',').collect();
            Some((cells[age].parse().ok()?, f64::from(cells[num].parse::<f64>().ok()? >= 1.0)))
        })
        .collect();
    let (mut a, mut b) = (0.0, 0.0);
    for _ in 0..25 {
        let (mut g0, mut g1, mut h00, mut h01, mut h11) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for (x, y) in &points {
            let p = 1.0 / (1.0 + (-(a + b * x)).exp());
            let w = p * (1.0 - p);
            (g0, g1) = (g0 + y - p, g1 + (y - p) * x);
            (h00, h01, h11) = (h00 + w, h01 + w * x, h11 + w * x * x);
        }
        let det = h00 * h11 - h01 * h01;
        (a, b) = (a + (h11 * g0 - h01 * g1) / det, b + (h00 * g1 - h01 * g0) / det);
    }
    let found = values(&recipe);
    assert!(found[1] > b * 0.67 && found[1] < b * 1.1, "{found:?}, expected {a}, {b}");
    let at = |intercept: f64, slope: f64| 1.0 / (1.0 + (-(intercept + slope * 54.0)).exp());
    assert!((at(found[0], found[1]) - at(a, b)).abs() < 0.03, "{found:?}, expected {a}, {b}");
}

/// A table with one small cell and its total: without a second withheld cell, subtraction would give it away.
#[test]
fn a_total_does_not_give_a_small_cell_away() {
    let recipe = study_with(|recipe| {
        recipe["measures"] = json!([
            { "name": "all", "kind": "count", "by": [], "round_to": "1", "epsilon": "1000" },
            { "name": "by_band", "kind": "count", "by": ["age_band"], "round_to": "1", "epsilon": "1000" },
            { "name": "sick", "kind": "proportion", "by": ["age_band"], "over": "by_band", "round_to": "0.01",
              "where": { "column": "num", "op": ">=", "value": 1 }, "epsilon": "1000" }
        ]);
        recipe["privacy"] =
            json!({ "unit": "id", "epsilon_per_run": "3000", "epsilon_budget": "3000", "delta": "0" });
        recipe["output_schema"] =
            json!({ "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object" });
    });
    // 5, 30, 20 and 40 persons; the minimum is 10.
    let counts = [(40, 5), (50, 30), (60, 20), (70, 40)];
    let lines: Vec<String> = counts
        .iter()
        .flat_map(|(age, count)| (0..*count).map(move |i| format!("{},{age},Male,120,200,1", age * 1000 + i)))
        .collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let output = compute_at_once(&recipe, vec![rows(&lines)], None).unwrap();
    let shown = |measure: usize| -> Vec<bool> {
        let cells = output.value()["measures"][measure]["cells"].as_array().unwrap();
        cells.iter().map(|cell| cell["suppressed"] == json!(false)).collect()
    };
    assert_eq!(shown(0), [true]);
    assert_eq!(shown(1), [false, true, false, true], "the next small one is withheld too");
    assert_eq!(shown(2), shown(1), "and so is what is computed over it");
    guard(&recipe, output.value()).unwrap();
    let mut alone = output.value().clone();
    alone["measures"][1]["cells"][2] = json!({ "key": ["55-64"], "suppressed": false, "value": 20 });
    assert!(guard(&recipe, &alone).is_err(), "the guard checks it again");
}
