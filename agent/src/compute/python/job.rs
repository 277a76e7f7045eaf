//! What goes into the confined process: a header line, the script, and for each owner an Arrow IPC stream of the
//! declared columns in framed parts.

use std::{
    io::{self, BufWriter, Write},
    process::ChildStdin,
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
    ipc::writer::StreamWriter,
};
use cohort_protocol::{
    ids::OwnerId,
    recipe::{ColumnType, MeasureKind, Recipe},
};
use serde_json::json;
use zeroize::Zeroizing;

use crate::compute::{
    ComputeError,
    aggregate::Rows,
    pseudonym::PseudonymKey,
    table::{Batch, Values},
};

/// Bytes that are collected before they are written.
const BUFFER: usize = 1 << 20;

/// The job while it is written. When the process has closed its end, the rest goes nowhere: that decides nothing.
pub(super) struct Job<'a> {
    recipe: &'a Recipe,
    schema: SchemaRef,
    /// Of this run alone: the same person has the same pseudonym at every owner, and another one in another run.
    pseudonyms: PseudonymKey,
    state: State,
}

enum State {
    Between(ChildStdin),
    Table(Box<StreamWriter<BufWriter<Framed>>>),
    Closed,
}

impl<'a> Job<'a> {
    pub(super) fn begin<'o>(
        recipe: &'a Recipe,
        script: &[u8],
        owners: impl Iterator<Item = &'o OwnerId>,
        rehearsal: bool,
        mut input: ChildStdin,
    ) -> Result<Self, ComputeError> {
        let emitted = recipe.measures().iter().filter_map(|measure| match &measure.kind {
            MeasureKind::Emitted { labels, .. } => Some((measure.name.to_string(), json!(labels))),
            _ => None,
        });
        let header = json!({
            "epsilon": recipe.epsilon_per_run(),
            "measures": emitted.collect::<serde_json::Map<_, _>>(),
            "owners": owners.collect::<Vec<_>>(),
            "rehearsal": rehearsal,
            "script_bytes": script.len(),
        });
        let state = match write_header(&mut input, &header, script) {
            Ok(()) => State::Between(input),
            Err(_) => State::Closed,
        };
        Ok(Self { recipe, schema: schema(recipe), pseudonyms: PseudonymKey::fresh()?, state })
    }

    fn batch(&self, batch: &Batch<'_>, rows: &[usize]) -> Option<RecordBatch> {
        let unit = self.recipe.privacy().unit;
        let columns = self.recipe.columns().iter().zip(&batch.columns).enumerate();
        let arrays = columns.map(|(index, (column, values))| {
            if index == unit { self.pseudonyms(values, rows) } else { array(column.kind, values, rows) }
        });
        RecordBatch::try_new(self.schema.clone(), arrays.collect()).ok()
    }

    /// Keyed BLAKE3 of the identifier's text, 16 bytes in hex.
    fn pseudonyms(&self, values: &Values<'_>, rows: &[usize]) -> ArrayRef {
        let pseudonym = |row: &usize| {
            let text = match values {
                Values::Numbers(_) => values.number(*row)?.to_string(),
                Values::Texts(_) => values.text(*row)?.to_owned(),
                Values::Pseudonyms => return None,
            };
            let text = Zeroizing::new(text);
            Some(hex::encode(self.pseudonyms.of(text.as_bytes())))
        };
        Arc::new(rows.iter().map(pseudonym).collect::<StringArray>())
    }
}

impl Rows for Job<'_> {
    fn begin(&mut self, _owner: &OwnerId) {
        self.state = match std::mem::replace(&mut self.state, State::Closed) {
            State::Between(input) => {
                let framed = BufWriter::with_capacity(BUFFER, Framed(input));
                StreamWriter::try_new(framed, &self.schema)
                    .map_or(State::Closed, |writer| State::Table(Box::new(writer)))
            }
            other => other,
        };
    }

    fn rows(&mut self, batch: &Batch<'_>, rows: &[usize]) {
        let Some(batch) = self.batch(batch, rows) else { return };
        if let State::Table(writer) = &mut self.state
            && writer.write(&batch).is_err()
        {
            self.state = State::Closed;
        }
    }

    fn end(&mut self) {
        if let State::Table(writer) = std::mem::replace(&mut self.state, State::Closed) {
            let ended = writer.into_inner().ok().and_then(|framed| framed.into_inner().ok());
            if let Some(input) = ended.and_then(|framed| framed.end().ok()) {
                self.state = State::Between(input);
            }
        }
    }
}

/// A job without data that emits one number, for checking that scripts can run here.
pub(super) fn empty(mut input: ChildStdin, script: &[u8]) -> Result<(), ComputeError> {
    let header = json!({
        "epsilon": "1", "measures": { "check": [] }, "owners": [], "rehearsal": false, "script_bytes": script.len(),
    });
    write_header(&mut input, &header, script).map_err(|_| ComputeError::Sandbox)
}

fn write_header(input: &mut ChildStdin, header: &serde_json::Value, script: &[u8]) -> io::Result<()> {
    writeln!(input, "{header}")?;
    input.write_all(script)?;
    input.flush()
}

/// Writes each part with its length before it, 8 bytes little-endian; 0 ends the stream.
struct Framed(ChildStdin);

impl Framed {
    fn end(mut self) -> io::Result<ChildStdin> {
        self.0.write_all(&0u64.to_le_bytes())?;
        Ok(self.0)
    }
}

impl Write for Framed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !bytes.is_empty() {
            self.0.write_all(&(bytes.len() as u64).to_le_bytes())?;
            self.0.write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn schema(recipe: &Recipe) -> SchemaRef {
    let unit = recipe.privacy().unit;
    let fields = recipe.columns().iter().enumerate().map(|(index, column)| {
        let kind = match column.kind {
            _ if index == unit => DataType::Utf8,
            ColumnType::Int64 => DataType::Int64,
            ColumnType::Float64 { .. } => DataType::Float64,
            ColumnType::Utf8 => DataType::Utf8,
            ColumnType::Bool => DataType::Boolean,
        };
        Field::new(column.name.as_str(), kind, true)
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn array(kind: ColumnType, values: &Values<'_>, rows: &[usize]) -> ArrayRef {
    let numbers = rows.iter().map(|row| values.number(*row));
    match kind {
        ColumnType::Int64 => Arc::new(numbers.collect::<Int64Array>()),
        ColumnType::Float64 { .. } => {
            let units = kind.units() as f64;
            Arc::new(numbers.map(|value| value.map(|value| value as f64 / units)).collect::<Float64Array>())
        }
        ColumnType::Bool => {
            Arc::new(numbers.map(|value| value.map(|value| value != 0)).collect::<BooleanArray>())
        }
        ColumnType::Utf8 => Arc::new(rows.iter().map(|row| values.text(*row)).collect::<StringArray>()),
    }
}
