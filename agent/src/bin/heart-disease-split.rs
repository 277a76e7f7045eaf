//! Splits the four-hospital heart-disease table into one typed Parquet file per owner, for the demo and the tests.
//!
//! The table is public (see test/data/heart-disease/README.md), so errors may name its values. Nothing is written
//! unless the whole table was read.

use std::{
    fs::{File, create_dir_all},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, bail, ensure};
use arrow::{
    array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema},
};
use clap::Parser;
use parquet::{arrow::ArrowWriter, basic::Compression, file::properties::WriterProperties};

/// Which owner stands for which hospital of the column `dataset`.
const HOSPITALS: [(&str, &str); 4] = [
    ("hospital-A", "Cleveland"),
    ("hospital-B", "Hungary"),
    ("hospital-C", "Switzerland"),
    ("hospital-D", "VA Long Beach"),
];
const HOSPITAL_COLUMN: &str = "dataset";

/// The table's columns, their types, and whether a value may be missing.
const COLUMNS: [(&str, DataType, bool); 16] = [
    ("id", DataType::Int64, false),
    ("age", DataType::Int64, false),
    ("sex", DataType::Utf8, false),
    (HOSPITAL_COLUMN, DataType::Utf8, false),
    ("cp", DataType::Utf8, true),
    ("trestbps", DataType::Int64, true),
    ("chol", DataType::Int64, true),
    ("fbs", DataType::Boolean, true),
    ("restecg", DataType::Utf8, true),
    ("thalch", DataType::Int64, true),
    ("exang", DataType::Boolean, true),
    ("oldpeak", DataType::Float64, true),
    ("slope", DataType::Utf8, true),
    ("ca", DataType::Int64, true),
    ("thal", DataType::Utf8, true),
    ("num", DataType::Int64, false),
];

/// Splits the four-hospital heart-disease CSV into hospital-A.parquet to hospital-D.parquet.
#[derive(Parser)]
struct Args {
    /// The table, e.g. test/data/heart-disease/heart-disease-four-hospitals.csv.
    #[arg(long = "in", value_name = "CSV")]
    input: PathBuf,
    /// Folder for the Parquet files; made if absent.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let parts = split(&args.input)?;
    create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    for (owner, batch) in parts {
        let path = args.out.join(format!("{owner}.parquet"));
        write(&path, &batch).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}  {} rows", path.display(), batch.num_rows());
    }
    Ok(())
}

/// The rows of each owner, in file order.
fn split(path: &Path) -> Result<Vec<(&'static str, RecordBatch)>> {
    let context = || format!("cannot read {}", path.display());
    let mut reader = csv::Reader::from_path(path).with_context(context)?;
    let expected = COLUMNS.iter().map(|(name, ..)| *name);
    ensure!(
        reader.headers().with_context(context)?.iter().eq(expected),
        "{}: unexpected columns",
        path.display()
    );
    let hospital = COLUMNS.iter().position(|(name, ..)| *name == HOSPITAL_COLUMN).unwrap_or_default();
    let mut rows: [Vec<csv::StringRecord>; HOSPITALS.len()] = Default::default();
    for record in reader.records() {
        let record = record.with_context(context)?;
        let name = record.get(hospital).unwrap_or_default();
        let owner = HOSPITALS.iter().position(|(_, known)| *known == name);
        match owner.and_then(|owner| rows.get_mut(owner)) {
            Some(rows) => rows.push(record),
            None => bail!("{}: unknown hospital {name:?}{}", path.display(), line(&record)),
        }
    }
    HOSPITALS
        .iter()
        .zip(&rows)
        .map(|((owner, _), rows)| Ok((*owner, batch(rows).with_context(context)?)))
        .collect()
}

fn line(record: &csv::StringRecord) -> String {
    record.position().map_or(String::new(), |position| format!(" in line {}", position.line()))
}

fn batch(rows: &[csv::StringRecord]) -> Result<RecordBatch> {
    let arrays: Result<Vec<ArrayRef>> =
        COLUMNS.iter().enumerate().map(|(index, (name, kind, _))| column(rows, index, name, kind)).collect();
    let fields: Vec<Field> =
        COLUMNS.iter().map(|(name, kind, nullable)| Field::new(*name, kind.clone(), *nullable)).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays?)?)
}

fn column(rows: &[csv::StringRecord], index: usize, name: &str, kind: &DataType) -> Result<ArrayRef> {
    Ok(match kind {
        DataType::Int64 => {
            Arc::new(parse(rows, index, name, |text| text.parse().ok())?.collect::<Int64Array>())
        }
        DataType::Float64 => {
            Arc::new(parse(rows, index, name, |text| text.parse().ok())?.collect::<Float64Array>())
        }
        DataType::Boolean => Arc::new(parse(rows, index, name, boolean)?.collect::<BooleanArray>()),
        _ => Arc::new(parse(rows, index, name, |text| Some(text.to_owned()))?.collect::<StringArray>()),
    })
}

/// A column's values; the empty text is missing, text that is not of the type is an error.
fn parse<T>(
    rows: &[csv::StringRecord],
    index: usize,
    name: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<impl Iterator<Item = Option<T>>> {
    let values: Result<Vec<Option<T>>> = rows
        .iter()
        .map(|record| match record.get(index).unwrap_or_default() {
            "" => Ok(None),
            text => read(text)
                .map(Some)
                .with_context(|| format!("column {name}: bad value {text:?}{}", line(record))),
        })
        .collect();
    Ok(values?.into_iter())
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "TRUE" => Some(true),
        "FALSE" => Some(false),
        _ => None,
    }
}

fn write(path: &Path, batch: &RecordBatch) -> Result<()> {
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut writer = ArrowWriter::try_new(File::create(path)?, batch.schema(), Some(properties))?;
    writer.write(batch)?;
    writer.close()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use arrow::array::Array as _;
    use cohort_agent::compute::{compute, guard};
    use cohort_protocol::compose::AppCompose;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReader;
    use zeroize::Zeroizing;

    use super::*;

    fn table() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../test/data/heart-disease/heart-disease-four-hospitals.csv")
    }

    #[test]
    fn every_patient_is_in_the_file_of_their_hospital() {
        let parts = split(&table()).unwrap();
        let rows: Vec<_> = parts.iter().map(|(owner, batch)| (*owner, batch.num_rows())).collect();
        assert_eq!(
            rows,
            [("hospital-A", 304), ("hospital-B", 293), ("hospital-C", 123), ("hospital-D", 200)]
        );

        let text = std::fs::read_to_string(table()).unwrap();
        for ((_, hospital), (_, batch)) in HOSPITALS.iter().zip(&parts) {
            let lines: Vec<&str> =
                text.lines().filter(|line| line.contains(&format!(",{hospital},"))).collect();
            let ids: Vec<i64> =
                lines.iter().map(|line| line.split(',').next().unwrap().parse().unwrap()).collect();
            let column = batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
            assert_eq!(column.values().to_vec(), ids, "{hospital}");
        }
    }

    #[test]
    fn files_read_back_and_missing_values_stay_missing() {
        let folder = tempfile::tempdir().unwrap();
        let mut missing = 0;
        for (owner, batch) in split(&table()).unwrap() {
            let path = folder.path().join(owner);
            write(&path, &batch).unwrap();
            let reader = ParquetRecordBatchReader::try_new(File::open(&path).unwrap(), 1024).unwrap();
            let back: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
            assert_eq!(back, [batch]);
            missing += back.first().unwrap().column_by_name("chol").unwrap().null_count();
        }
        assert_eq!(missing, 30);
    }

    #[test]
    fn the_study_runs_on_the_files() {
        let study = std::fs::read(table().with_file_name("app-compose.json")).unwrap();
        let recipe = AppCompose::parse(&study).unwrap().recipe().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let input = |(owner, batch): (&str, RecordBatch)| {
            let path = folder.path().join(owner);
            write(&path, &batch).unwrap();
            (owner.parse().unwrap(), Zeroizing::new(std::fs::read(path).unwrap()))
        };
        let inputs = split(&table()).unwrap().into_iter().map(input).collect();
        let output = compute(&recipe, inputs, None).unwrap();
        let guarded = guard(&recipe, output.value()).unwrap().into_value();
        // 286 men of 55 to 64, noise of scale 5: more than 100 away has probability 2e-9.
        let men = guarded["measures"][0]["cells"][5]["value"].as_i64().unwrap();
        assert!((186..=386).contains(&men), "{men}");
    }

    #[test]
    fn an_unknown_hospital_or_value_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.csv");
        let text = std::fs::read_to_string(table()).unwrap();
        for (from, to, message) in
            [(",Cleveland,", ",Clevelanf,", "unknown hospital"), ("1,63,Male", "1,old,Male", "column age")]
        {
            std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
            let error = format!("{:#}", split(&path).unwrap_err());
            assert!(error.contains(message) && error.contains("line 2"), "{error}");
        }
    }
}
