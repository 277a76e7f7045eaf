//! Rows of a dataset in memory, as the recipe's columns: fixed-point numbers and text, missing values resolved.

mod csv_file;
mod parquet_file;

use std::{
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, StringArray},
    compute::cast,
    datatypes::{DataType, Float64Type, Int64Type},
};
use bytes::Bytes;
use cohort_protocol::{
    ids::OwnerId,
    recipe::{Column, ColumnType, Literal, Recipe},
};
use zeroize::Zeroizing;

use super::ComputeError;
use csv_file::CsvFile;
use parquet_file::ParquetFile;

/// Rows that are decoded at a time.
const BATCH_ROWS: usize = 8192;

/// What an owner's file may cost: it may be hostile to the others, and the debit is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Rows of one file.
    pub(super) rows: u64,
    /// Uncompressed bytes of the columns that are read, as a Parquet file states them.
    pub(super) bytes: u64,
    /// Time for one file.
    pub(super) time: Duration,
}

/// 256 million rows, 32 GiB, half an hour.
pub(super) const LIMITS: Limits = Limits { rows: 1 << 28, bytes: 32 << 30, time: Duration::from_secs(1800) };

/// Counts what a file has cost so far.
pub(super) struct Meter {
    limits: Limits,
    rows: u64,
    deadline: Instant,
}

impl Meter {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, rows: 0, deadline: Instant::now() + limits.time }
    }

    /// Before rows are used: refuses the file that has too many, or takes too long.
    pub(super) fn rows(&mut self, more: usize) -> Result<(), ComputeError> {
        self.rows = self.rows.saturating_add(more as u64);
        self.check(self.rows, 0)?;
        if Instant::now() >= self.deadline {
            return Err(ComputeError::InputTooLarge { limit: "time" });
        }
        Ok(())
    }

    /// Refuses what a file states about itself before it is decoded.
    pub(super) fn check(&self, rows: u64, bytes: u64) -> Result<(), ComputeError> {
        if rows > self.limits.rows {
            return Err(ComputeError::InputTooLarge { limit: "rows" });
        }
        if bytes > self.limits.bytes {
            return Err(ComputeError::InputTooLarge { limit: "bytes" });
        }
        Ok(())
    }
}

/// Largest magnitude of a fixed-point number: beyond any bound or edge of a recipe, and exact as a double.
const MAX_FIXED: f64 = 9e15;

/// Some rows, as the recipe's columns in the recipe's order.
pub(super) struct Batch<'a> {
    pub(super) rows: usize,
    pub(super) columns: Vec<Values<'a>>,
}

impl Batch<'_> {
    /// Rows that have a value in every column that must have one.
    pub(super) fn complete(&self, recipe: &Recipe) -> Vec<usize> {
        let columns = recipe.columns().iter().zip(&self.columns);
        let required: Vec<&Values<'_>> =
            columns.filter(|(column, _)| !column.nullable).map(|(_, values)| values).collect();
        (0..self.rows).filter(|row| required.iter().all(|values| values.is_known(*row))).collect()
    }
}

/// A column's values; none where missing.
pub(super) enum Values<'a> {
    /// Integers, fixed-point numbers, and booleans as 0 and 1.
    Numbers(Vec<Option<i64>>),
    /// Text.
    Texts(Vec<Option<&'a str>>),
    /// Stand-ins for identifiers: always known, and nothing that a measure could read.
    Pseudonyms,
}

impl Values<'_> {
    pub(super) fn number(&self, row: usize) -> Option<i64> {
        match self {
            Self::Numbers(values) => values.get(row).copied().flatten(),
            Self::Texts(_) | Self::Pseudonyms => None,
        }
    }

    pub(super) fn text(&self, row: usize) -> Option<&str> {
        match self {
            Self::Texts(values) => values.get(row).copied().flatten(),
            Self::Numbers(_) | Self::Pseudonyms => None,
        }
    }

    pub(super) fn is_known(&self, row: usize) -> bool {
        matches!(self, Self::Pseudonyms) || self.number(row).is_some() || self.text(row).is_some()
    }
}

/// An owner's dataset whose form was checked: Parquet, or CSV with a header line, told apart by Parquet's magic bytes.
pub(super) struct File {
    columns: Vec<Column>,
    content: Content,
}

enum Content {
    Parquet(ParquetFile),
    Csv(CsvFile),
}

/// Columns of some rows, in the order of [`File::columns`].
pub(super) type Arrays = Vec<ArrayRef>;

impl File {
    /// Finds the columns in the file and checks what it states about its size.
    pub(super) fn open(
        limits: Limits,
        columns: Vec<Column>,
        owner: &OwnerId,
        bytes: Zeroizing<Vec<u8>>,
    ) -> Result<Self, ComputeError> {
        const MAGIC: &[u8] = b"PAR1";
        let is_parquet = bytes.starts_with(MAGIC) && bytes.ends_with(MAGIC);
        // Readers share the buffer; the last reference to go wipes it.
        let bytes = Bytes::from_owner(bytes);
        let content = shielded(|| {
            Ok(if is_parquet {
                Content::Parquet(ParquetFile::open(&columns, owner, bytes, &Meter::new(limits))?)
            } else {
                Content::Csv(CsvFile::open(&columns, owner, bytes)?)
            })
        })?;
        Ok(Self { columns, content })
    }

    /// The columns that are read.
    pub(super) fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// How many parts it has that can be read apart from each other.
    pub(super) fn parts(&self) -> usize {
        match &self.content {
            Content::Parquet(file) => file.row_groups(),
            Content::Csv(_) => 1,
        }
    }

    /// Reads some parts: each column as the one Arrow type of its kind, floats as fixed-point numbers, what means "not
    /// known" as null.
    pub(super) fn read(
        &self,
        parts: Vec<usize>,
    ) -> Result<impl Iterator<Item = Result<Arrays, ComputeError>> + Send + use<>, ComputeError> {
        let mut batches: Box<dyn Iterator<Item = Result<Arrays, ComputeError>> + Send> = match &self.content {
            Content::Parquet(file) => Box::new(shielded(|| file.read(&self.columns, parts))?),
            Content::Csv(file) => Box::new(file.read(&self.columns)),
        };
        let columns = self.columns.clone();
        let clean = move |arrays: Arrays| columns.iter().zip(&arrays).map(|(c, a)| clean(c, a)).collect();
        Ok(std::iter::from_fn(move || {
            shielded(|| batches.next().transpose()).transpose().map(|arrays| arrays.and_then(&clean))
        }))
    }
}

/// Decodes a dataset and hands its rows on in batches.
pub(super) fn read(
    recipe: &Recipe,
    owner: &OwnerId,
    bytes: Zeroizing<Vec<u8>>,
    on_batch: impl FnMut(&Batch<'_>),
) -> Result<(), ComputeError> {
    read_within(LIMITS, recipe, owner, bytes, on_batch)
}

/// [`read`] with other limits.
pub(super) fn read_within(
    limits: Limits,
    recipe: &Recipe,
    owner: &OwnerId,
    bytes: Zeroizing<Vec<u8>>,
    mut on_batch: impl FnMut(&Batch<'_>),
) -> Result<(), ComputeError> {
    let mut meter = Meter::new(limits);
    let file = File::open(limits, recipe.columns().to_vec(), owner, bytes)?;
    for arrays in file.read((0..file.parts()).collect())? {
        let arrays = arrays?;
        let rows = arrays.first().map_or(0, |array| array.len());
        meter.rows(rows)?;
        on_batch(&Batch { rows, columns: arrays.iter().map(values).collect() });
    }
    Ok(())
}

/// Turns a decoder's panic into an unreadable file: a file comes from an owner who may be hostile to the others.
/// What the panic hook prints may hold bytes of the file, so the agent's hook must print nothing of the message.
fn shielded<T>(read: impl FnOnce() -> Result<T, ComputeError>) -> Result<T, ComputeError> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or(Err(ComputeError::InputUnusable))
}

/// The one Arrow type that a column type is decoded as.
const fn arrow_type(kind: ColumnType) -> DataType {
    match kind {
        ColumnType::Int64 => DataType::Int64,
        ColumnType::Float64 { .. } => DataType::Float64,
        ColumnType::Utf8 => DataType::Utf8,
        ColumnType::Bool => DataType::Boolean,
    }
}

/// Whether a file's type holds the column's type without loss.
fn accepts(kind: ColumnType, found: &DataType) -> bool {
    use DataType::{
        Boolean, Dictionary, Float32, Float64, Int8, Int16, Int32, Int64, LargeUtf8, Utf8, Utf8View,
    };
    match kind {
        ColumnType::Int64 => matches!(found, Int8 | Int16 | Int32 | Int64),
        ColumnType::Float64 { .. } => matches!(found, Float32 | Float64),
        ColumnType::Bool => matches!(found, Boolean),
        ColumnType::Utf8 => match found {
            Utf8 | LargeUtf8 | Utf8View => true,
            Dictionary(_, values) => matches!(**values, Utf8 | LargeUtf8),
            _ => false,
        },
    }
}

/// A column as its kind's Arrow type, with floats as fixed-point numbers, and null where it is not known.
pub(super) fn clean(column: &Column, array: &ArrayRef) -> Result<ArrayRef, ComputeError> {
    let array = cast(array, &arrow_type(column.kind)).map_err(|_| ComputeError::InputUnusable)?;
    let units = column.kind.units();
    let missing = Missing::new(column);
    let number = |value: i64| (!missing.numbers.contains(&value)).then_some(value);
    Ok(match column.kind {
        ColumnType::Float64 { .. } => {
            let values = array.as_primitive::<Float64Type>();
            Arc::new(values.unary_opt::<_, Int64Type>(|value| fixed(value, units).and_then(number)))
        }
        _ if column.missing_values.is_empty() => array,
        ColumnType::Int64 => Arc::new(array.as_primitive::<Int64Type>().unary_opt::<_, Int64Type>(number)),
        ColumnType::Bool => {
            let values = array.as_boolean().iter();
            let known = |value: &bool| number(i64::from(*value)).is_some();
            Arc::new(values.map(|value| value.filter(known)).collect::<BooleanArray>())
        }
        ColumnType::Utf8 => {
            let values = array.as_string::<i32>().iter();
            let known = |text: &&str| !missing.texts.contains(text);
            Arc::new(values.map(|value| value.filter(known)).collect::<StringArray>())
        }
    })
}

/// The values of a [`clean`] column; another type is a pseudonym, which no measure reads.
pub(super) fn values(array: &ArrayRef) -> Values<'_> {
    match array.data_type() {
        DataType::Int64 => Values::Numbers(array.as_primitive::<Int64Type>().iter().collect()),
        DataType::Boolean => {
            Values::Numbers(array.as_boolean().iter().map(|value| value.map(i64::from)).collect())
        }
        DataType::Utf8 => Values::Texts(array.as_string::<i32>().iter().collect()),
        _ => Values::Pseudonyms,
    }
}

/// A float as a fixed-point number, halves away from zero; NaN is missing, infinities are the largest numbers.
pub(super) fn fixed(value: f64, units: i64) -> Option<i64> {
    let scaled = (value * units as f64).round();
    // The cast is exact: the value is whole and below 2^53.
    (!scaled.is_nan()).then(|| scaled.clamp(-MAX_FIXED, MAX_FIXED) as i64)
}

/// A column's values that mean "not known".
struct Missing<'a> {
    numbers: HashSet<i64>,
    texts: HashSet<&'a str>,
}

impl<'a> Missing<'a> {
    fn new(column: &'a Column) -> Self {
        let mut missing = Self { numbers: HashSet::new(), texts: HashSet::new() };
        for literal in &column.missing_values {
            match literal {
                Literal::Bool(value) => drop(missing.numbers.insert(i64::from(*value))),
                Literal::Int(value) => drop(missing.numbers.insert(value * column.kind.units())),
                Literal::Text(value) => drop(missing.texts.insert(value)),
            }
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_a_decoder_is_an_unreadable_file() {
        let panics = || -> Result<(), ComputeError> { panic!("bytes of the file") };
        assert_eq!(shielded(panics), Err(ComputeError::InputUnusable));
    }

    #[test]
    fn a_file_over_a_limit_is_refused() {
        let bytes = include_bytes!("../../../test/data/heart-disease/app-compose.json");
        let recipe = cohort_protocol::compose::AppCompose::parse(bytes).unwrap().recipe().unwrap();
        let owner: OwnerId = "hospital-A".parse().unwrap();
        let csv = format!("id,age,sex,trestbps,chol,num\n{}", "1,50,Male,120,200,0\n".repeat(50));
        let parquet = super::super::tests::small_parquet();
        let refusal = |limits: Limits, file: &[u8]| {
            read_within(limits, &recipe, &owner, Zeroizing::new(file.to_vec()), |_| ()).unwrap_err()
        };
        let fits = |limits: Limits, file: &[u8]| {
            read_within(limits, &recipe, &owner, Zeroizing::new(file.to_vec()), |_| ()).is_ok()
        };
        for file in [csv.as_bytes(), &parquet] {
            assert!(fits(Limits { rows: 50, ..LIMITS }, file));
            let rows = refusal(Limits { rows: 49, ..LIMITS }, file);
            assert_eq!(rows, ComputeError::InputTooLarge { limit: "rows" });
            let time = refusal(Limits { time: Duration::ZERO, ..LIMITS }, file);
            assert_eq!(time, ComputeError::InputTooLarge { limit: "time" });
            assert_eq!(time.code(), "input_too_large");
        }
        let large = refusal(Limits { bytes: 100, ..LIMITS }, &parquet);
        assert_eq!(large, ComputeError::InputTooLarge { limit: "bytes" });
    }

    #[test]
    fn floats_become_fixed_point_numbers_without_overflow() {
        for (value, units, expected) in
            [(1.25, 10, Some(13)), (-1.25, 10, Some(-13)), (0.1 + 0.2, 10, Some(3)), (f64::NAN, 1, None)]
        {
            assert_eq!(fixed(value, units), expected);
        }
        assert_eq!(fixed(f64::INFINITY, 1_000_000), Some(9_000_000_000_000_000));
        assert_eq!(fixed(f64::MIN, 1_000_000), Some(-9_000_000_000_000_000));
    }
}
