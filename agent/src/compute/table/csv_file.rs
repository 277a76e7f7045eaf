//! CSV in memory, with a header line. A value that is absent or not of the column's type is missing.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray};
use bytes::{Buf as _, Bytes};
use cohort_protocol::{
    ids::OwnerId,
    recipe::{Column, ColumnType},
};

use super::{Arrays, BATCH_ROWS};
use crate::compute::ComputeError;

/// A file whose header has the columns.
pub(super) struct CsvFile {
    bytes: Bytes,
    /// Position of each column.
    places: Vec<usize>,
}

impl CsvFile {
    pub(super) fn open(columns: &[Column], owner: &OwnerId, bytes: Bytes) -> Result<Self, ComputeError> {
        let mut reader = reader(bytes.clone());
        let header = reader.byte_headers().map_err(|_| ComputeError::InputUnusable)?;
        let places: Result<Vec<usize>, ComputeError> =
            columns.iter().map(|column| place(column, owner, header)).collect();
        Ok(Self { bytes, places: places? })
    }

    pub(super) fn read(
        &self,
        columns: &[Column],
    ) -> impl Iterator<Item = Result<Arrays, ComputeError>> + Send + use<> {
        let mut records = reader(self.bytes.clone()).into_byte_records();
        let columns: Vec<(ColumnType, usize)> =
            columns.iter().map(|column| column.kind).zip(self.places.iter().copied()).collect();
        std::iter::from_fn(move || {
            let batch: Result<Vec<csv::ByteRecord>, csv::Error> = records.by_ref().take(BATCH_ROWS).collect();
            match batch {
                Ok(batch) if batch.is_empty() => None,
                Ok(batch) => Some(Ok(columns.iter().map(|(kind, at)| array(*kind, *at, &batch)).collect())),
                Err(_) => Some(Err(ComputeError::InputUnusable)),
            }
        })
    }
}

fn reader(bytes: Bytes) -> csv::Reader<impl std::io::Read + Send + use<>> {
    csv::ReaderBuilder::new().flexible(true).from_reader(bytes.reader())
}

/// Position of a column in the header: exactly one of that name.
fn place(column: &Column, owner: &OwnerId, header: &csv::ByteRecord) -> Result<usize, ComputeError> {
    let mut named = header.iter().enumerate().filter(|(_, name)| *name == column.name.as_str().as_bytes());
    match (named.next(), named.next()) {
        (Some((index, _)), None) => Ok(index),
        _ => {
            let (column, needed) = (column.name.clone(), column.kind.name());
            Err(ComputeError::Schema { owner: owner.clone(), column, needed })
        }
    }
}

fn array(kind: ColumnType, place: usize, batch: &[csv::ByteRecord]) -> ArrayRef {
    let texts = batch.iter().map(|record| {
        let text = record.get(place).and_then(|bytes| std::str::from_utf8(bytes).ok());
        text.filter(|text| !text.is_empty())
    });
    match kind {
        ColumnType::Int64 => Arc::new(texts.map(|text| text?.parse::<i64>().ok()).collect::<Int64Array>()),
        ColumnType::Float64 { .. } => {
            Arc::new(texts.map(|text| text?.parse::<f64>().ok()).collect::<Float64Array>())
        }
        ColumnType::Bool => Arc::new(texts.map(|text| boolean(text?)).collect::<BooleanArray>()),
        ColumnType::Utf8 => Arc::new(texts.collect::<StringArray>()),
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "TRUE" | "True" => Some(true),
        "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
