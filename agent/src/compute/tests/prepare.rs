//! SQL before the measures: what the proof admits, what it refuses, and that what it admits is true of real rows.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::compute::prepare::{self, PrepareError, Proof};

#[derive(Deserialize)]
struct Vectors {
    admitted: Vec<Admitted>,
    refused: Vec<Refused>,
}

#[derive(Deserialize)]
struct Admitted {
    name: String,
    sql: String,
    rules: Vec<String>,
}

#[derive(Deserialize)]
struct Refused {
    name: String,
    sql: String,
    node: String,
    why: String,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../../../../test/vectors/recipe/prepare.json")).unwrap()
}

/// Two owners with other columns, and a public table; the result has `id`, `age` and `visits`.
fn two_owners(sql: &str) -> Value {
    let column = |name: &str, kind: &str| json!({ "name": name, "type": kind, "nullable": name != "id" });
    let of = |mut column: Value, owner: &str| {
        column["owners"] = json!([owner]);
        column
    };
    let mut weight = of(column("weight", "float64"), "hospital-A");
    weight["decimals"] = json!(1);
    json!({
        "version": 1, "title": "two owners", "engine": "declared",
        "datasets": { "owners": ["hospital-A", "lab"], "columns": [
            column("id", "utf8"), column("region", "utf8"), of(column("age", "int64"), "hospital-A"), weight,
            of(column("chol", "int64"), "lab")
        ] },
        "prepare": {
            "tables": [{ "name": "zones", "columns": [{ "name": "region", "type": "utf8" }, { "name": "zone", "type": "int64" }],
                         "rows": [["north", 1], ["south", 2]] }],
            "steps": [{ "name": "persons", "sql": sql }],
            "columns": [column("id", "utf8"), column("age", "int64"), column("visits", "int64")],
            "seconds": 60
        },
        "privacy": { "unit": "id", "epsilon_per_run": "3", "epsilon_budget": "3", "delta": "0" },
        "keys": [{ "name": "old", "column": "age", "bands": [50] }],
        "measures": [
            { "name": "n", "kind": "count", "by": ["old"], "round_to": "1", "epsilon": "1" },
            { "name": "v", "kind": "sum", "by": ["old"], "column": "visits", "lower": 0, "upper": 5, "over": "n",
              "round_to": "1", "epsilon": "1" },
            { "name": "a", "kind": "sum", "by": ["old"], "column": "age", "lower": -10, "upper": 120, "over": "n",
              "round_to": "1", "epsilon": "1" }
        ],
        "minimum_group_size": 1,
        "output_schema": { "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object" }
    })
}

fn prove(sql: &str) -> Result<Proof, PrepareError> {
    prepare::prove(&Recipe::parse(&two_owners(sql)).unwrap()).map(Option::unwrap)
}

#[test]
fn every_admitted_plan_is_proved_by_the_rules_that_stand_there() {
    for Admitted { name, sql, rules } in vectors().admitted {
        let proof = prove(&sql).unwrap_or_else(|error| panic!("{name}: {error}"));
        let found: Vec<String> = proof
            .steps
            .iter()
            .map(|step| serde_json::to_value(step.rule).unwrap().as_str().unwrap().to_owned())
            .collect();
        assert_eq!(found, rules, "{name}: {:#?}", proof.steps);
        assert_eq!(proof.steps.last().unwrap().rows, prepare::Rows::One, "{name}");
    }
}

#[test]
fn every_hostile_plan_is_refused_and_the_node_is_named() {
    for Refused { name, sql, node, why } in vectors().refused {
        let Err(error) = prove(&sql) else { panic!("{name} is admitted") };
        if let PrepareError::Node { node: found, .. } = &error {
            assert!(found.starts_with(&node), "{name}: {error}");
        } else {
            assert!(node.is_empty(), "{name}: {error}");
        }
        let text = error.to_string();
        assert!(why.split('|').any(|why| text.contains(why)), "{name}: {text}");
    }
}

#[test]
fn a_plan_of_too_many_nodes_is_refused() {
    let mut recipe = two_owners("");
    let step = |at: usize, sql: String| json!({ "name": format!("t{at}"), "sql": sql });
    let mut steps = vec![step(0, "SELECT id, COUNT(*) AS n FROM cohort GROUP BY id".into())];
    for at in 1..8 {
        let before = at - 1;
        steps.push(step(
            at,
            format!("SELECT a.id, a.n FROM t{before} a JOIN t{before} b ON a.id = b.id JOIN t{before} c ON b.id = c.id"),
        ));
    }
    recipe["prepare"]["steps"] = json!(steps);
    let error = prepare::prove(&Recipe::parse(&recipe).unwrap()).unwrap_err();
    assert!(error.to_string().contains("more than 512 nodes"), "{error}");
}

#[test]
fn the_owners_whose_tables_are_named_must_take_part() {
    let recipe = |sql| Recipe::parse(&two_owners(sql)).unwrap();
    let [join, union] = [1, 3].map(|at| vectors().admitted[at].sql.clone());
    let names = |recipe: &Recipe| -> Vec<String> {
        let proof = prepare::prove(recipe).unwrap().unwrap();
        proof.required_owners(recipe).iter().map(ToString::to_string).collect()
    };
    assert_eq!(names(&recipe(&join)), ["hospital-A", "lab"]);
    assert!(names(&recipe(&union)).is_empty());
}

#[derive(Debug, Clone)]
struct Visit {
    person: u8,
    region: Option<&'static str>,
    number: Option<i64>,
}

fn visits() -> impl Strategy<Value = Vec<Visit>> {
    let hostile = vec![i64::MIN, -1, 0, 40, 41, 60, 250, i64::MAX];
    let number = prop::option::of(prop::sample::select(hostile));
    let region = prop::option::of(prop::sample::select(vec!["north", "south", "", "7", "x"]));
    let visit =
        (0u8..12, region, number).prop_map(|(person, region, number)| Visit { person, region, number });
    prop::collection::vec(visit, 0..40)
}

fn files(hospital: &[Visit], lab: &[Visit]) -> Vec<Input> {
    let cell = |value: Option<i64>| value.map(|value| value.to_string()).unwrap_or_default();
    let line = |visit: &Visit, more: String| {
        format!("p{},{},{}{more}\n", visit.person, visit.region.unwrap_or_default(), cell(visit.number))
    };
    // Weights that are no numbers, or that floating-point addition would lose.
    let weights = ["1e300", "-1e300", "NaN", "inf", "0.1", "70.3", ""];
    let weight = |visit: &Visit| weights[usize::from(visit.person) % weights.len()];
    let a: String = hospital.iter().map(|visit| line(visit, format!(",{}", weight(visit)))).collect();
    let b: String = lab.iter().map(|visit| line(visit, String::new())).collect();
    vec![
        input("hospital-A", &format!("id,region,age,weight\n{a}")),
        input("lab", &format!("id,region,chol\n{b}")),
    ]
}

fn run(recipe: &Recipe, inputs: Vec<Input>) -> Vec<Vec<Statistic>> {
    prepare::statistics(recipe, inputs).unwrap()
}

/// The join of two owners' disjoint columns against the same, spelled out by hand.
#[test]
fn owners_are_joined_on_persons_whose_identifiers_stay() {
    let recipe = Recipe::parse(&two_owners(&vectors().admitted[1].sql)).unwrap();
    let visit = |person, number| Visit { person, region: Some("north"), number: Some(number) };
    let hospital: Vec<Visit> = (0..60).map(|at| visit(at % 30, i64::from(at))).collect();
    let lab: Vec<Visit> = (0..90).map(|at| visit(15 + at % 30, 150 + i64::from(at))).collect();
    let mut expected = BTreeMap::from([(0, [0; 3]), (1, [0; 3])]);
    for person in 0..60 {
        let age =
            hospital.iter().filter(|visit| visit.person == person).filter_map(|visit| visit.number).max();
        let of_person = lab.iter().filter(|visit| visit.person == person);
        let high = of_person.filter(|visit| visit.number > Some(200)).count() as i64;
        if let Some(age) = age.filter(|_| high > 0) {
            let sums = expected.get_mut(&i32::from(age >= 50)).unwrap();
            *sums = [sums[0] + 1, sums[1] + high.min(5), sums[2] + age];
        }
    }
    assert!(expected.values().all(|sums| sums[0] > 3), "{expected:?}");
    let found = run(&recipe, files(&hospital, &lab));
    for (measure, statistics) in found.iter().enumerate() {
        let expected: Vec<i64> = expected.values().map(|sums| sums[measure]).collect();
        assert_eq!(statistics[0].values, expected, "measure {measure}");
    }
    let output = crate::compute::compute_at_once(&recipe, files(&hospital, &lab), None).unwrap();
    crate::compute::guard(&recipe, output.value()).unwrap();
}

/// Rows, SQL that takes too long, and files that cannot be read take the same time to the outside.
#[test]
fn a_result_and_an_error_come_when_the_recipe_says() {
    let timed = |sql: &str| {
        let mut recipe = two_owners(sql);
        recipe["prepare"]["seconds"] = json!(3);
        Recipe::parse(&recipe).unwrap()
    };
    let short = timed(&vectors().admitted[0].sql);
    let mut crosses = String::new();
    (0..15).for_each(|at| crosses += &format!(" CROSS JOIN zones z{at}"));
    let long = timed(&format!(
        "SELECT p.id, MAX(z0.zone) AS age, COUNT(*) AS visits FROM (SELECT DISTINCT id FROM cohort) p{crosses} GROUP BY p.id"
    ));
    let many: String = (0..9999).map(|at| format!("p{at},north,1,1\n")).collect();
    let many =
        vec![input("hospital-A", &format!("id,region,age,weight\n{many}")), input("lab", "id,region,chol\n")];
    let broken = vec![input("hospital-A", "id,region\n"), input("lab", "")];
    let plain = study();
    std::thread::scope(|scope| {
        for (recipe, least, inputs, code) in [
            (&short, 3.0, files(&[], &[]), None),
            (&short, 3.0, broken, Some("input_schema")),
            (&long, 3.0, many, Some("input_too_large")),
            // Without SQL: whole seconds.
            (&plain, 1.0, patients(), None),
            (&plain, 1.0, vec![input("hospital-A", "id\n")], Some("input_schema")),
        ] {
            scope.spawn(move || {
                let started = std::time::Instant::now();
                let found = crate::compute::compute(recipe, inputs, None);
                let took = started.elapsed().as_secs_f64();
                assert_eq!(found.err().map(|error| error.code()), code);
                // Whole seconds, more of them on a machine that does much else.
                assert!(took >= least && took.fract() < 0.5, "{code:?}: {took} s");
            });
        }
    });
}

/// Of a person with very many rows the first ones take part in a join, whatever the others are: not their square.
#[test]
fn no_person_s_rows_are_multiplied_without_end() {
    let visit = |person, number| Visit { person, region: Some("north"), number: Some(number) };
    let mut hospital: Vec<Visit> = (0..prepare::PERSON_ROWS as i64).map(|at| visit(1, 40 + at % 2)).collect();
    hospital.extend((0..20).map(|at| visit(2, 60 + at)));
    let first = files(&hospital, &[]);
    hospital.extend((0..20_000).map(|at| visit(1, 90 + at % 9)));
    let of = |sql: &str, inputs| run(&Recipe::parse(&two_owners(sql)).unwrap(), inputs);
    let joined =
        vectors().admitted.into_iter().find(|case| case.name == "join of many rows with many on the unit");
    let joined = joined.unwrap().sql;
    let started = std::time::Instant::now();
    let found = of(&joined, files(&hospital, &[]));
    assert_eq!(found, of(&joined, first.clone()));
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    // Where nothing is multiplied all rows count.
    let grouped = &vectors().admitted[0].sql;
    assert_ne!(of(grouped, files(&hospital, &[])), of(grouped, first));
}

#[test]
fn a_recipe_without_a_proof_does_not_run() {
    let recipe = Recipe::parse(&two_owners("SELECT id, age, 1 AS visits FROM \"hospital-A\"")).unwrap();
    let error = crate::compute::compute_at_once(&recipe, files(&[], &[]), None).unwrap_err();
    assert_eq!(error.code(), "recipe_unproved");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2))]

    /// What the proof promises, of every admitted plan: no rows make it fail, the order of rows does not matter, and
    /// all rows of one person at all owners together move each statistic by at most its sensitivity.
    #[test]
    fn one_person_at_all_owners_moves_a_statistic_by_at_most_its_sensitivity(
        hospital in visits(), lab in visits(), victim in 0u8..12
    ) {
        for admitted in vectors().admitted {
            let recipe = Recipe::parse(&two_owners(&admitted.sql)).unwrap();
            let with = run(&recipe, files(&hospital, &lab));
            let turned = |rows: &[Visit]| rows.iter().rev().cloned().collect::<Vec<_>>();
            let other_order = run(&recipe, files(&turned(&hospital), &turned(&lab)));
            prop_assert_eq!(&with, &other_order, "{}", admitted.name);
            let others = |rows: &[Visit]| {
                rows.iter().filter(|visit| visit.person != victim).cloned().collect::<Vec<_>>()
            };
            let without = run(&recipe, files(&others(&hospital), &others(&lab)));
            for (with, without) in with.iter().flatten().zip(without.iter().flatten()) {
                let moved: i64 =
                    with.values.iter().zip(&without.values).map(|(a, b)| (a - b).abs()).sum();
                prop_assert!(moved <= with.l1, "{}: {moved} of {}", admitted.name, with.l1);
            }
        }
    }
}

#[test]
fn the_record_of_a_proof_is_the_same_each_time() {
    let sql = &vectors().admitted[0].sql;
    let record = serde_json::to_value(prove(sql).unwrap()).unwrap();
    assert_eq!(record, serde_json::to_value(prove(sql).unwrap()).unwrap());
    assert_eq!(record["format"], "cohort-privacy-proof/1");
    assert_eq!(record["unit"], "id");
    assert!(record["planner"].as_str().unwrap().starts_with("datafusion 5"));
    assert_eq!(
        record["steps"][1],
        json!({
            "node": "Aggregate: groupBy=[[hospital-A.id]], aggr=[[max(hospital-A.age), count(Int64(1))]]",
            "rule": "aggregate_by_unit", "rows": "one"
        })
    );
    let names: BTreeSet<String> = vectors().refused.into_iter().map(|refused| refused.name).collect();
    assert_eq!(names.len(), vectors().refused.len(), "two cases have one name");
}
