//! CSV in memory, with a header line. A value that is absent or not of the column's type is missing.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray};
use cohort_protocol::{
    ids::OwnerId,
    recipe::{ColumnType, Recipe},
};

use super::BATCH_ROWS;
use crate::compute::ComputeError;

pub(super) fn read(
    recipe: &Recipe,
    owner: &OwnerId,
    bytes: &[u8],
    on_arrays: &mut impl FnMut(&[ArrayRef]) -> Result<(), ComputeError>,
) -> Result<(), ComputeError> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(bytes);
    let header = reader.byte_headers().map_err(|_| ComputeError::InputUnusable)?.clone();
    let places = places(recipe, owner, &header)?;
    let mut records = reader.into_byte_records();
    loop {
        let batch: Result<Vec<csv::ByteRecord>, csv::Error> = records.by_ref().take(BATCH_ROWS).collect();
        let batch = batch.map_err(|_| ComputeError::InputUnusable)?;
        if batch.is_empty() {
            return Ok(());
        }
        let columns = recipe.columns().iter().zip(&places);
        let arrays: Vec<ArrayRef> =
            columns.map(|(column, place)| array(column.kind, *place, &batch)).collect();
        on_arrays(&arrays)?;
    }
}

/// Position of each recipe column in the header: exactly one of that name.
fn places(recipe: &Recipe, owner: &OwnerId, header: &csv::ByteRecord) -> Result<Vec<usize>, ComputeError> {
    let find = |column: &cohort_protocol::recipe::Column| {
        let mut named =
            header.iter().enumerate().filter(|(_, name)| *name == column.name.as_str().as_bytes());
        match (named.next(), named.next()) {
            (Some((index, _)), None) => Ok(index),
            _ => {
                let (column, needed) = (column.name.clone(), column.kind.name());
                Err(ComputeError::Schema { owner: owner.clone(), column, needed })
            }
        }
    };
    recipe.columns().iter().map(find).collect()
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
