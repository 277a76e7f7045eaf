//! Parquet in memory: only the recipe's columns are decoded.

use arrow::array::ArrayRef;
use bytes::Bytes;
use cohort_protocol::{ids::OwnerId, recipe::Recipe};
use parquet::arrow::{
    ProjectionMask,
    arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
};
use zeroize::Zeroizing;

use super::{BATCH_ROWS, Meter, accepts};
use crate::compute::ComputeError;

pub(super) fn read(
    recipe: &Recipe,
    owner: &OwnerId,
    bytes: Zeroizing<Vec<u8>>,
    stated: &Meter,
    on_arrays: &mut impl FnMut(&[ArrayRef]) -> Result<(), ComputeError>,
) -> Result<(), ComputeError> {
    let unusable = |_| ComputeError::InputUnusable;
    // The reader shares the buffer; the last reference to go wipes it.
    let bytes = Bytes::from_owner(bytes);
    // Types come from Parquet's own schema; the embedded Arrow schema would be one more hostile input to decode.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, options).map_err(unusable)?;
    let roots = roots(recipe, owner, &builder)?;
    check_size(&builder, &roots, stated)?;
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots.iter().copied());
    let reader = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build().map_err(unusable)?;
    for batch in reader {
        let batch = batch.map_err(|_| ComputeError::InputUnusable)?;
        let column =
            |column: &cohort_protocol::recipe::Column| batch.column_by_name(column.name.as_str()).cloned();
        let arrays: Option<Vec<ArrayRef>> = recipe.columns().iter().map(column).collect();
        on_arrays(&arrays.ok_or(ComputeError::InputUnusable)?)?;
    }
    Ok(())
}

/// Rows and uncompressed bytes of the columns that are read, as the file's own footer states them.
fn check_size(
    builder: &ParquetRecordBatchReaderBuilder<Bytes>,
    roots: &[usize],
    stated: &Meter,
) -> Result<(), ComputeError> {
    let metadata = builder.metadata();
    let size = |size: i64| u64::try_from(size).map_err(|_| ComputeError::InputUnusable);
    let (mut rows, mut bytes) = (0u64, 0u64);
    for group in metadata.row_groups() {
        rows = rows.saturating_add(size(group.num_rows())?);
        for (index, column) in group.columns().iter().enumerate() {
            if roots.contains(&builder.parquet_schema().get_column_root_idx(index)) {
                bytes = bytes.saturating_add(size(column.uncompressed_size())?);
            }
        }
    }
    stated.check(rows, bytes)
}

/// Index of each recipe column among the file's columns: exactly one of that name, of an accepted type.
fn roots(
    recipe: &Recipe,
    owner: &OwnerId,
    builder: &ParquetRecordBatchReaderBuilder<Bytes>,
) -> Result<Vec<usize>, ComputeError> {
    let fields = builder.schema().fields();
    let find = |column: &cohort_protocol::recipe::Column| {
        let mut named = fields.iter().enumerate().filter(|(_, field)| field.name() == column.name.as_str());
        match (named.next(), named.next()) {
            (Some((index, field)), None) if accepts(column.kind, field.data_type()) => Ok(index),
            _ => {
                let (column, needed) = (column.name.clone(), column.kind.name());
                Err(ComputeError::Schema { owner: owner.clone(), column, needed })
            }
        }
    };
    recipe.columns().iter().map(find).collect()
}
