//! Parquet in memory: only the recipe's columns are decoded.

use arrow::array::ArrayRef;
use bytes::Bytes;
use cohort_protocol::{ids::OwnerId, recipe::Column};
use parquet::arrow::{
    ProjectionMask,
    arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
};

use super::{Arrays, BATCH_ROWS, Meter, accepts};
use crate::compute::ComputeError;

/// A file whose footer has the columns.
pub(super) struct ParquetFile {
    bytes: Bytes,
    metadata: ArrowReaderMetadata,
    mask: ProjectionMask,
}

impl ParquetFile {
    pub(super) fn open(
        columns: &[Column],
        owner: &OwnerId,
        bytes: Bytes,
        stated: &Meter,
    ) -> Result<Self, ComputeError> {
        // Types come from Parquet's own schema; the embedded Arrow schema would be one more hostile input to decode.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = ArrowReaderMetadata::load(&bytes, options).map_err(|_| ComputeError::InputUnusable)?;
        let roots: Result<Vec<usize>, ComputeError> =
            columns.iter().map(|column| root(column, owner, &metadata)).collect();
        let roots = roots?;
        check_size(&metadata, &roots, stated)?;
        let mask = ProjectionMask::roots(metadata.parquet_schema(), roots);
        Ok(Self { bytes, metadata, mask })
    }

    pub(super) fn row_groups(&self) -> usize {
        self.metadata.metadata().num_row_groups()
    }

    /// Rows of some row groups.
    pub(super) fn read(
        &self,
        columns: &[Column],
        groups: Vec<usize>,
    ) -> Result<impl Iterator<Item = Result<Arrays, ComputeError>> + Send + use<>, ComputeError> {
        let reader =
            ParquetRecordBatchReaderBuilder::new_with_metadata(self.bytes.clone(), self.metadata.clone())
                .with_row_groups(groups)
                .with_projection(self.mask.clone())
                .with_batch_size(BATCH_ROWS)
                .build()
                .map_err(|_| ComputeError::InputUnusable)?;
        let names: Vec<String> = columns.iter().map(|column| column.name.to_string()).collect();
        Ok(reader.map(move |batch| {
            let batch = batch.map_err(|_| ComputeError::InputUnusable)?;
            let arrays: Option<Vec<ArrayRef>> =
                names.iter().map(|name| batch.column_by_name(name).cloned()).collect();
            arrays.ok_or(ComputeError::InputUnusable)
        }))
    }
}

/// Rows and uncompressed bytes of the columns that are read, as the file's own footer states them.
fn check_size(metadata: &ArrowReaderMetadata, roots: &[usize], stated: &Meter) -> Result<(), ComputeError> {
    let size = |size: i64| u64::try_from(size).map_err(|_| ComputeError::InputUnusable);
    let (mut rows, mut bytes) = (0u64, 0u64);
    for group in metadata.metadata().row_groups() {
        rows = rows.saturating_add(size(group.num_rows())?);
        for (index, column) in group.columns().iter().enumerate() {
            if roots.contains(&metadata.parquet_schema().get_column_root_idx(index)) {
                bytes = bytes.saturating_add(size(column.uncompressed_size())?);
            }
        }
    }
    stated.check(rows, bytes)
}

/// Index of a column among the file's: exactly one of that name, of an accepted type.
fn root(column: &Column, owner: &OwnerId, metadata: &ArrowReaderMetadata) -> Result<usize, ComputeError> {
    let fields = metadata.schema().fields();
    let mut named = fields.iter().enumerate().filter(|(_, field)| field.name() == column.name.as_str());
    match (named.next(), named.next()) {
        (Some((index, field)), None) if accepts(column.kind, field.data_type()) => Ok(index),
        _ => {
            let (column, needed) = (column.name.clone(), column.kind.name());
            Err(ComputeError::Schema { owner: owner.clone(), column, needed })
        }
    }
}
