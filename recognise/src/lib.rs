//! What a file is, from the file itself: Parquet, Arrow IPC, CSV, or bytes; with rows and columns.

mod arrow_messages;
mod decoder;

use std::{
    cell::Cell,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::Path,
    rc::Rc,
};

use arrow::datatypes::{DataType, Schema};
use cohort_protocol::sealed::{COLUMN_TYPE_BYTES_MAX, Column, ContentKind};
use parquet::{arrow::parquet_to_arrow_schema, errors::ParquetError, file::metadata::ParquetMetaDataReader};

use decoder::contained;
pub use decoder::silence_decoder;

const PARQUET_MAGIC: &[u8] = b"PAR1";
/// Records between two looks at `Stop`.
const RECORDS_BETWEEN_CHECKS: u64 = 1 << 16;
/// Longest line of a CSV file that is held in memory.
const CSV_RECORD_BYTES_MAX: u64 = 16 << 20;
/// What is read of a Parquet file's end before its footer's size is known.
const PARQUET_TAIL_BYTES: u64 = 64 << 10;

/// Asked now and then on long files: stop?
pub type Stop<'s> = &'s dyn Fn() -> bool;

/// Why a file is not what its first bytes or its name promise.
#[derive(Debug, thiserror::Error)]
pub enum RecogniseError {
    /// It cannot be read.
    #[error(transparent)]
    Read(io::Error),
    /// It breaks the format.
    #[error("not readable as {format}: {reason}")]
    Unreadable {
        /// Parquet, CSV or Arrow.
        format: &'static str,
        /// The reader's reason, one line; never cell values.
        reason: String,
    },
    /// `Stop` said so.
    #[error("stopped")]
    Stopped,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recognised {
    /// The format.
    pub kind: ContentKind,
    /// Records, where the format has them.
    pub rows: Option<u64>,
    /// Columns, where the format has them.
    pub schema: Option<Vec<Column>>,
}

const BYTES: Recognised = Recognised { kind: ContentKind::Bytes, rows: None, schema: None };

/// What a file's name promises.
pub fn named(path: &Path) -> Option<ContentKind> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    match extension.as_str() {
        "parquet" | "pq" => Some(ContentKind::Parquet),
        "csv" => Some(ContentKind::Csv),
        "arrow" | "arrows" | "feather" => Some(ContentKind::Arrow),
        _ => None,
    }
}

/// Recognises a file by what it begins with, or as what its name promises; it must then be readable as that.
pub fn recognise_file(
    file: &mut (impl Read + Seek),
    named: Option<ContentKind>,
    stop: Stop<'_>,
) -> Result<Recognised, RecogniseError> {
    let no_magic = |format| Err(unreadable(format, &format_args!("it does not begin as {format} does")));
    match (by_magic(file)?, named) {
        (Some(found), _) => Ok(found),
        (None, Some(ContentKind::Csv)) => csv(file, stop),
        (None, Some(ContentKind::Parquet)) => no_magic("Parquet"),
        (None, Some(ContentKind::Arrow)) => no_magic("Arrow"),
        (None, Some(ContentKind::Bytes) | None) => Ok(BYTES),
    }
}

/// Recognises what came without a name: CSV is what reads as CSV with two columns or more.
pub fn recognise_stream(
    stream: &mut (impl Read + Seek),
    stop: Stop<'_>,
) -> Result<Recognised, RecogniseError> {
    if let Some(found) = by_magic(stream)? {
        return Ok(found);
    }
    let columns = |found: &Recognised| found.schema.as_ref().map_or(0, Vec::len);
    match csv(stream, stop) {
        Ok(found) if columns(&found) > 1 => Ok(found),
        Err(RecogniseError::Stopped) => Err(RecogniseError::Stopped),
        _ => Ok(BYTES),
    }
}

/// What the first bytes say; leaves the reader at its beginning when they say nothing.
fn by_magic(file: &mut (impl Read + Seek)) -> Result<Option<Recognised>, RecogniseError> {
    let failed = RecogniseError::Read;
    let mut magic = Vec::new();
    file.rewind().map_err(failed)?;
    file.by_ref().take(8).read_to_end(&mut magic).map_err(failed)?;
    file.rewind().map_err(failed)?;
    if magic.starts_with(PARQUET_MAGIC) {
        return parquet(file).map(Some).map_err(|error| unreadable("Parquet", &error));
    }
    if let Some(form) = arrow_messages::Form::of(&magic) {
        let found = arrow_messages::read(form, file).map_err(|error| unreadable("Arrow", &error))?;
        let (rows, schema) = (Some(found.rows), Some(columns(&found.schema)));
        return Ok(Some(Recognised { kind: ContentKind::Arrow, rows, schema }));
    }
    Ok(None)
}

fn unreadable(format: &'static str, reason: &dyn std::fmt::Display) -> RecogniseError {
    // Readers may quote what they met: one line, and not much of it.
    let reason = reason.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
    RecogniseError::Unreadable { format, reason }
}

/// Rows and columns from the footer; the data pages are not read.
fn parquet(file: &mut (impl Read + Seek)) -> Result<Recognised, ParquetError> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut reader = ParquetMetaDataReader::new();
    let mut take = PARQUET_TAIL_BYTES;
    loop {
        let tail = tail(file, length, take)?;
        match reader.try_parse_sized(&bytes::Bytes::from(tail), length) {
            Err(ParquetError::NeedMoreData(want)) if want as u64 > take && want as u64 <= length => {
                take = want as u64;
            }
            parsed => break parsed?,
        }
    }
    let metadata = reader.finish()?;
    let file = metadata.file_metadata();
    let schema = contained(|| parquet_to_arrow_schema(file.schema_descr(), file.key_value_metadata()))?
        .ok_or_else(|| ParquetError::General("its Arrow schema is not supported".into()))??;
    let rows = u64::try_from(file.num_rows())
        .map_err(|_| ParquetError::General("a negative number of rows".into()))?;
    Ok(Recognised { kind: ContentKind::Parquet, rows: Some(rows), schema: Some(columns(&schema)) })
}

/// The last `take` bytes, or all.
fn tail(file: &mut (impl Read + Seek), length: u64, take: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(length.saturating_sub(take)))?;
    let mut bytes = Vec::new();
    file.take(take).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn columns(schema: &Schema) -> Vec<Column> {
    let column = |field: &arrow::datatypes::FieldRef| Column {
        name: field.name().clone(),
        type_name: type_name(field.data_type()),
    };
    schema.fields().iter().map(column).collect()
}

/// The names that recipes use; for the rest Arrow's own in lower case, as far as an envelope has room for it: there it
/// is ASCII of bounded length, while Arrow writes µs, and the fields of a struct with their names.
fn type_name(kind: &DataType) -> String {
    match kind {
        DataType::Boolean => "bool".into(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "utf8".into(),
        other => other.to_string().chars().take(COLUMN_TYPE_BYTES_MAX).map(ascii).collect(),
    }
}

fn ascii(c: char) -> char {
    match c {
        'µ' => 'u',
        ' '..='~' => c.to_ascii_lowercase(),
        _ => '?',
    }
}

/// What all values of a CSV column are, so far. Empty cells are missing values and fit every type.
#[derive(Clone, Copy)]
struct Seen {
    any: bool,
    int: bool,
    float: bool,
    boolean: bool,
}

impl Seen {
    const NOTHING: Self = Self { any: false, int: true, float: true, boolean: true };

    fn add(&mut self, cell: &str) {
        if cell.is_empty() {
            return;
        }
        self.any = true;
        self.int = self.int && cell.parse::<i64>().is_ok();
        self.float = self.float && cell.parse::<f64>().is_ok_and(f64::is_finite);
        self.boolean = self.boolean && matches!(cell, "true" | "false");
    }

    fn type_name(self) -> &'static str {
        match self {
            Self { any: false, .. } => "utf8",
            Self { int: true, .. } => "int64",
            Self { float: true, .. } => "float64",
            Self { boolean: true, .. } => "bool",
            _ => "utf8",
        }
    }
}

/// Ends a CSV file whose line is too long to be held; without it a file without line ends would fill the memory.
struct LineLimit<R> {
    reader: R,
    since_record: Rc<Cell<u64>>,
}

impl<R: Read> Read for LineLimit<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buf)?;
        let since = self.since_record.get() + count as u64;
        self.since_record.set(since);
        if since > CSV_RECORD_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is longer than 16 MiB"));
        }
        Ok(count)
    }
}

/// UTF-8, a header line, and as many cells on every line.
fn csv(reader: impl Read, stop: Stop<'_>) -> Result<Recognised, RecogniseError> {
    let since_record = Rc::new(Cell::new(0));
    let limited = LineLimit { reader: BufReader::new(reader), since_record: Rc::clone(&since_record) };
    let mut lines = csv::ReaderBuilder::new().from_reader(limited);
    let names = lines.headers().map_err(|error| csv_error(&error))?.clone();
    if names.is_empty() || names.iter().any(str::is_empty) {
        return Err(unreadable("CSV", &"the first line must name every column"));
    }
    if let (1, Some(mark)) =
        (names.len(), names.iter().flat_map(str::chars).find(|c| matches!(c, ';' | '\t')))
    {
        return Err(unreadable("CSV", &format_args!("its columns are separated by {mark:?}, not by commas")));
    }
    let mut seen = vec![Seen::NOTHING; names.len()];
    let mut record = csv::StringRecord::new();
    let mut rows = 0;
    while lines.read_record(&mut record).map_err(|error| csv_error(&error))? {
        seen.iter_mut().zip(&record).for_each(|(seen, cell)| seen.add(cell));
        rows += 1;
        since_record.set(0);
        if rows % RECORDS_BETWEEN_CHECKS == 0 && stop() {
            return Err(RecogniseError::Stopped);
        }
    }
    let column =
        |(name, seen): (&str, Seen)| Column { name: name.into(), type_name: seen.type_name().into() };
    let schema = names.iter().zip(seen).map(column).collect();
    Ok(Recognised { kind: ContentKind::Csv, rows: Some(rows), schema: Some(schema) })
}

/// Says where and what, without quoting cells.
fn csv_error(error: &csv::Error) -> RecogniseError {
    let line = error.position().map_or(1, csv::Position::line);
    match error.kind() {
        csv::ErrorKind::Io(source) if source.kind() == io::ErrorKind::InvalidData => {
            unreadable("CSV", &format_args!("near line {line} {source}"))
        }
        csv::ErrorKind::Io(source) => RecogniseError::Read(io::Error::new(source.kind(), source.to_string())),
        csv::ErrorKind::Utf8 { .. } => {
            unreadable("CSV", &format_args!("line {line} is not UTF-8; convert it, e.g. with iconv -t utf-8"))
        }
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            unreadable("CSV", &format_args!("line {line} has {len} cells, the header has {expected_len}"))
        }
        _ => unreadable("CSV", &format_args!("line {line} cannot be read")),
    }
}
