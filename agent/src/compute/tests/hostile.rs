use proptest::prelude::*;

use super::*;
use crate::compute::{ComputeError, GuardError, compute_at_once, guard, preflight};

fn output() -> Value {
    compute_at_once(&study_with(|recipe| recipe["minimum_group_size"] = json!(1)), patients(), None)
        .unwrap()
        .value()
        .clone()
}

/// An output of the study whose every cell has a value, so that each defect below is the only one.
fn full() -> Value {
    let mut value = output();
    for (index, number) in
        [(0, json!(40)), (1, json!(0.25)), (2, json!(131.4)), (3, json!(247)), (4, json!(90))]
    {
        for cell in value["measures"][index]["cells"].as_array_mut().unwrap() {
            cell["value"] = number.clone();
            cell["suppressed"] = json!(false);
        }
    }
    value
}

fn refusal(change: impl FnOnce(&mut Value)) -> GuardError {
    let mut value = full();
    guard(&study(), &value).unwrap();
    change(&mut value);
    let error = guard(&study(), &value).unwrap_err();
    assert_eq!(error.code(), "output_refused");
    error
}

#[test]
fn the_guard_refuses_whatever_the_schema_does_not_have() {
    let schema = |change: fn(&mut Value)| assert!(matches!(refusal(change), GuardError::Schema));
    schema(|value| value["note"] = json!("row 17"));
    schema(|value| value["measures"][0]["cells"][0]["note"] = json!(1));
    schema(|value| value["measures"][0]["cells"][0]["value"] = json!("40"));
    schema(|value| value["measures"][0]["cells"][0]["value"] = json!([40]));
    schema(|value| value["measures"][0]["cells"][0]["value"] = json!(-1));
    schema(|value| value["measures"][1]["cells"][0]["value"] = json!(1.01));
    schema(|value| value["measures"][2]["cells"][0]["value"] = json!(170.1));
    schema(|value| value["measures"][0]["cells"][0]["key"][0] = json!("Jane Doe"));
    schema(|value| value["measures"][2]["unit"] = json!("mm  Hg"));
    schema(|value| drop(value["measures"].as_array_mut().unwrap().pop()));
    schema(|value| value["measures"][0]["cells"].as_array_mut().unwrap().push(json!(null)));
    schema(|value| *value = json!(null));
}

#[test]
fn the_guard_refuses_low_bits_order_and_hidden_values() {
    let measures = |change: fn(&mut Value)| assert!(matches!(refusal(change), GuardError::Measures));
    measures(|value| value["measures"][2]["cells"][0]["value"] = json!(131.41));
    measures(|value| value["measures"][2]["cells"][0]["value"] = json!(131.400_000_000_000_03));
    measures(|value| value["measures"][1]["cells"][0]["value"] = json!(0.251));
    measures(|value| value["measures"][1]["cells"][0]["value"] = json!(1e-9));
    measures(|value| value["measures"][0]["cells"][0]["value"] = json!(40.5));
    measures(|value| value["measures"][0]["cells"].as_array_mut().unwrap().swap(0, 1));
    measures(|value| value["measures"][0]["cells"][1] = value["measures"][0]["cells"][0].clone());
    measures(|value| value["measures"][0]["cells"][0]["suppressed"] = json!(true));
    measures(|value| value["measures"][0]["cells"][0]["value"] = json!(null));
}

#[test]
fn the_guard_refuses_an_output_over_the_size_limit() {
    let error = refusal(|value| value["note"] = json!("x".repeat(cohort_protocol::recipe::MAX_OUTPUT_BYTES)));
    assert!(matches!(error, GuardError::Size { .. }));
}

#[test]
fn the_registered_schema_counts_even_where_it_is_narrower() {
    let recipe = study_with(|recipe| {
        recipe["output_schema"]["properties"]["measures"]["prefixItems"][0]["properties"]["cells"]["items"]
            ["properties"]["value"]["maximum"] = json!(39);
    });
    assert!(matches!(guard(&recipe, &full()), Err(GuardError::Schema)));
    let open = study_with(|recipe| {
        recipe["output_schema"] =
            json!({ "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object" });
    });
    assert!(guard(&open, &full()).is_ok());
    let mut extra = full();
    extra["note"] = json!(1);
    assert!(matches!(guard(&open, &extra), Err(GuardError::Schema)), "the derived schema counts as well");
}

#[test]
fn an_unusable_schema_lets_nothing_out() {
    let recipe =
        study_with(|recipe| recipe["output_schema"]["properties"] = json!({ "measures": { "type": 7 } }));
    assert!(matches!(guard(&recipe, &full()), Err(GuardError::UnusableSchema)));
    assert!(
        matches!(preflight(&recipe), Err(GuardError::UnusableSchema)),
        "known before the run is paid for"
    );
    assert!(preflight(&study()).is_ok() && preflight(&every_kind()).is_ok());
}

#[test]
fn cells_below_the_minimum_are_withheld_in_every_measure() {
    let recipe = study_with(|recipe| recipe["minimum_group_size"] = json!(1_000_000));
    let output = compute_at_once(&recipe, patients(), None).unwrap();
    for measure in output.value()["measures"].as_array().unwrap() {
        for cell in measure["cells"].as_array().unwrap() {
            assert_eq!((&cell["value"], &cell["suppressed"]), (&json!(null), &json!(true)));
        }
    }
    guard(&recipe, output.value()).unwrap();
}

#[test]
fn a_file_that_cannot_be_read_is_one_code_without_detail() {
    let mut broken = b"PAR1".to_vec();
    broken.extend(b"Jane Doe, 1234567".repeat(20));
    broken.extend(b"PAR1");
    let input = |bytes: Vec<u8>| vec![("hospital-A".parse().unwrap(), Zeroizing::new(bytes))];
    let error = compute_at_once(&study(), input(broken), None).unwrap_err();
    assert_eq!(error, ComputeError::InputUnusable);
    assert_eq!((error.code(), error.to_string().as_str()), ("input_unusable", "a dataset cannot be read"));
}

#[test]
fn errors_carry_no_values_of_rows() {
    let secret = "Jane-Doe-4711";
    for text in [
        format!("{secret}\n{secret}\n"),
        format!("id,age,sex,trestbps,chol,{secret}\n1,40,Male,{secret},200,0\n"),
        format!("PAR1{secret}PAR1"),
        format!("id,id,age,sex,trestbps,chol,num\n{secret}\n"),
    ] {
        let error = compute_at_once(&study(), vec![input("hospital-A", &text)], None).unwrap_err();
        let shown = format!("{error} {error:?} {}", error.code());
        assert!(!shown.contains(secret), "{shown}");
    }
    let mut value = full();
    value["measures"][0]["cells"][0]["key"][0] = json!(secret);
    let error = guard(&study(), &value).unwrap_err();
    assert!(!format!("{error} {error:?}").contains(secret));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// R15: no content of rows can make a run fail, since failing would tell something about it.
    #[test]
    fn no_row_makes_a_run_fail(body in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut bytes = b"id,age,sex,trestbps,chol,num\n".to_vec();
        bytes.extend(body);
        let recipe = study();
        let output = compute_at_once(&recipe, vec![("hospital-A".parse().unwrap(), Zeroizing::new(bytes))], None).unwrap();
        prop_assert!(guard(&recipe, output.value()).is_ok());
    }

    #[test]
    fn broken_parquet_is_refused_without_a_panic(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = small_parquet();
        for (index, byte) in flips {
            let at = index.index(bytes.len() - 8) + 4;
            bytes[at] = byte;
        }
        let result = compute_at_once(&study(), vec![("hospital-A".parse().unwrap(), Zeroizing::new(bytes))], None);
        let refused = |error: &ComputeError| matches!(error.code(), "input_unusable" | "input_schema");
        prop_assert!(result.as_ref().err().is_none_or(refused));
    }
}
