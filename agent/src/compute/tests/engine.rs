use std::sync::Arc;

use arrow::{
    array::{ArrayRef, DictionaryArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray},
    datatypes::Int32Type,
};
use cohort_protocol::loss::Epsilon;
use parquet::arrow::ArrowWriter;
use zeroize::Zeroizing;

use super::*;
use crate::compute::{ComputeError, Output, compute_at_once, guard};

fn parquet(owner: &str, columns: Vec<(&str, ArrayRef)>) -> Input {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    (owner.parse().unwrap(), Zeroizing::new(bytes))
}

fn numbers(values: &[Option<i64>]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

/// Two patients as typed Parquet, with a column that the recipe does not read.
fn two_patients(sex: ArrayRef, id: ArrayRef) -> Input {
    let columns = vec![
        ("unused", Arc::new(Float64Array::from(vec![1.0, 2.0])) as ArrayRef),
        ("num", numbers(&[Some(0), Some(3)])),
        ("chol", numbers(&[Some(0), Some(250)])),
        ("trestbps", numbers(&[Some(120), None])),
        ("sex", sex),
        ("age", numbers(&[Some(44), Some(45)])),
        ("id", id),
    ];
    parquet("hospital-A", columns)
}

#[test]
fn the_study_runs_and_spends_exactly_what_it_declares() {
    let recipe = study();
    let output: Output = compute_at_once(&recipe, patients(), None).unwrap();
    assert_eq!(output.epsilon(), Epsilon(1_500_000_000));
    assert_eq!(output.epsilon(), recipe.epsilon_per_run());
    let guarded = guard(&recipe, output.value()).unwrap();
    assert_eq!(guarded.hash(), cohort_protocol::json::sha256(guarded.bytes()));
    assert_eq!(cohort_protocol::json::canonical(&guarded.clone().into_value()).unwrap(), guarded.bytes());
}

#[test]
fn exact_statistics_are_those_of_the_table() {
    let recipe = study();
    assert_eq!(vector(&recipe, patients(), 0, 0), [42, 136, 74, 220, 59, 286, 19, 84]);
    assert_eq!(vector(&recipe, patients(), 1, 0), [5, 53, 12, 127, 29, 211, 4, 68]);
    assert_eq!(vector(&recipe, patients(), 2, 1), [42, 134, 73, 208, 58, 256, 19, 70]);
    assert_eq!(vector(&recipe, patients(), 3, 1), [39, 113, 66, 170, 54, 200, 17, 59]);
    assert_eq!(vector(&recipe, patients(), 4, 0).iter().sum::<i64>(), 920);
}

#[test]
fn zero_and_absent_cholesterol_are_left_out_of_the_mean() {
    let recipe = study();
    let data = rows(&["1,40,Male,120,0,0", "2,40,Male,120,,0", "3,40,Male,0,200,0"]);
    assert_eq!(vector(&recipe, vec![data.clone()], 3, 1)[1], 1);
    assert_eq!(vector(&recipe, vec![data.clone()], 3, 0)[1], 2 * 200 - (150 + 350));
    assert_eq!(vector(&recipe, vec![data], 2, 1)[1], 2);
}

#[test]
fn a_patient_counts_once_per_owner_whatever_the_rows() {
    let recipe = study();
    let mut lines = vec!["7,40,Male,120,200,0"];
    lines.extend(["7,50,Female,180,300,3"; 50]);
    let data = rows(&lines);
    assert_eq!(vector(&recipe, vec![data.clone()], 0, 0), [0, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(vector(&recipe, vec![data.clone()], 1, 0), [0; 8]);
    let other = ("hospital-B".parse().unwrap(), data.1.clone());
    assert_eq!(vector(&recipe, vec![data, other], 0, 0)[1], 2, "the same id at two owners is two persons");
}

#[test]
fn duplicates_are_found_across_batches() {
    let mut text = "id,age,sex,trestbps,chol,num\n".to_owned();
    for row in 0..20_000 {
        text.push_str(&format!("{},40,Male,120,200,0\n", row % 9_000));
    }
    assert_eq!(vector(&study(), vec![input("hospital-A", &text)], 0, 0)[1], 9_000);
}

#[test]
fn rows_without_a_required_value_or_outside_every_group_are_left_out() {
    let recipe = study();
    let data = rows(&[
        "1,,Male,120,200,0",      // age is required
        "x,40,Male,120,200,0",    // the id is no number
        "3,40,Unknown,120,200,0", // in no category
        "4,40",                   // a short row
        "5,forty,Male,120,200,0", // age is no number
        "6,40,Male,high,low,0",   // unusable measurements are missing
    ]);
    assert_eq!(vector(&recipe, vec![data.clone()], 0, 0), [0, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(vector(&recipe, vec![data.clone()], 2, 1), [0; 8]);
    assert_eq!(vector(&recipe, vec![data], 4, 0).iter().sum::<i64>(), 2, "the histogram has no key on sex");
}

#[test]
fn parquet_and_csv_give_the_same() {
    let sex: ArrayRef = Arc::new(StringArray::from(vec!["Male", "Female"]));
    let from_parquet = two_patients(sex, numbers(&[Some(1), Some(2)]));
    let from_csv = rows(&["1,44,Male,120,0,0", "2,45,Female,,250,3"]);
    assert_eq!(exact(&study(), vec![from_parquet]), exact(&study(), vec![from_csv]));
}

#[test]
fn narrower_parquet_types_are_read_and_other_types_refused() {
    let plain: ArrayRef = Arc::new(StringArray::from(vec!["Male", "Female"]));
    let dictionary: ArrayRef =
        Arc::new(vec!["Male", "Female"].into_iter().collect::<DictionaryArray<Int32Type>>());
    let narrow: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
    let ids = numbers(&[Some(1), Some(2)]);
    let expected = exact(&study(), vec![two_patients(plain.clone(), ids.clone())]);
    assert_eq!(exact(&study(), vec![two_patients(dictionary, narrow)]), expected);

    let floats: ArrayRef = Arc::new(Float64Array::from(vec![1.0, 2.0]));
    let error = compute_at_once(&study(), vec![two_patients(plain, floats)], None).unwrap_err();
    assert!(
        matches!(error, ComputeError::Schema { ref column, needed: "int64", .. } if column.as_str() == "id")
    );
}

#[test]
fn every_measure_and_column_type_is_computed() {
    let recipe = every_kind();
    let text = "id,group,amount,flag\n\
        p1,x,1.256,true\np2,x,-9,false\np3,y,3.5,TRUE\np4,y,-1,true\np5,none,1,true\np6,y,NaN,\np7,y,inf,false\n";
    let data = || vec![input("a", text)];
    assert_eq!(vector(&recipe, data(), 0, 0), [2, 4]);
    assert_eq!(vector(&recipe, data(), 1, 0), [1, 2]);
    // Cells x/true, x/false, y/true, y/false; bounds -3 to 4 in hundredths; -1 and NaN are missing.
    assert_eq!(vector(&recipe, data(), 2, 1), [1, 1, 1, 1]);
    assert_eq!(vector(&recipe, data(), 2, 0), [2 * 126 - 100, -2 * 300 - 100, 2 * 350 - 100, 2 * 400 - 100]);
    assert_eq!(vector(&recipe, data(), 3, 0), [126 - 300, 350 + 400]);
    // true: [-2,0) none, [0,2) p1 and p5; false: none inside.
    assert_eq!(vector(&recipe, data(), 8, 0), [0, 2, 0, 0]);
    let output = compute_at_once(&recipe, data(), None).unwrap();
    guard(&recipe, output.value()).unwrap();
}

#[test]
fn owners_must_be_named_by_the_recipe_and_come_once() {
    let recipe = study();
    assert_eq!(compute_at_once(&recipe, vec![], None), Err(ComputeError::NoInput));
    let stranger = compute_at_once(&recipe, vec![csv("hospital-X", |_| true)], None).unwrap_err();
    assert_eq!(stranger.code(), "input_owner");
    let twice =
        compute_at_once(&recipe, vec![csv("hospital-A", |_| true), csv("hospital-A", |_| true)], None)
            .unwrap_err();
    assert!(matches!(twice, ComputeError::RepeatedOwner { .. }));
    assert!(
        compute_at_once(&recipe, vec![csv("hospital-A", |_| true)], None).is_ok(),
        "a run may have some of the owners"
    );
}

#[cfg(feature = "dev")]
#[test]
fn the_exact_table_has_the_shape_of_the_noisy_one() {
    let recipe = study();
    let table = crate::compute::insecure_plain::exact_table(&recipe, patients()).unwrap();
    assert_eq!(
        table["measures"][0]["cells"][0],
        serde_json::json!({
            "key": ["<45", "Female"], "suppressed": false, "value": 42
        })
    );
    assert_eq!(table["measures"][1]["cells"][0]["value"], serde_json::json!(0.12));
    guard(&recipe, &table).unwrap();
}
