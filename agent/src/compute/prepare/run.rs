//! Running a proved plan: sealed files' parts as streams in, statistics out, in as many partitions as there are cores.

use std::{collections::HashMap, fmt, sync::Arc, time::Instant};

use arrow::{
    array::{ArrayRef, AsArray, BooleanArray, Decimal128Array, Float64Array, RecordBatch, StringArray},
    compute::{and, filter, filter_record_batch, is_not_null},
    datatypes::{Int64Type, SchemaRef},
};
use cohort_protocol::{
    ids::OwnerId,
    recipe::{ColumnType, OWNER_COLUMN, Recipe},
};
use datafusion::{
    catalog::streaming::StreamingTable,
    common::DataFusionError,
    datasource::provider_as_source,
    execution::{
        SendableRecordBatchStream, SessionStateBuilder, TaskContext,
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        memory_pool::{GreedyMemoryPool, MemoryConsumer, MemoryPool, MemoryReservation},
        runtime_env::RuntimeEnvBuilder,
    },
    logical_expr::TableSource,
    physical_plan::{
        ExecutionPlan, execute_stream_partitioned, stream::RecordBatchStreamAdapter,
        streaming::PartitionStream,
    },
    physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner as _},
    prelude::SessionConfig,
};
use futures_util::StreamExt as _;
use tokio::runtime::Handle;

use super::{
    plan::{Planned, plan},
    proof::PERSON_ROWS,
    tables::{PSEUDONYM, columns_of},
};
use crate::compute::{
    ComputeError, Input,
    aggregate::{Totals, check_owners},
    deadline,
    pseudonym::PseudonymKey,
    statistic::Statistic,
    table::{Arrays, Batch, File, LIMITS, Meter, clean, values},
};

/// Memory that joins and groups may take in all; more is refused. Nothing is ever written to disk.
const MEMORY_BYTES: usize = 4 << 30;

/// An owner's file as SQL reads it: as often as it names it.
pub(super) struct Streams {
    owner: OwnerId,
    file: Arc<File>,
    unit: usize,
    key: Arc<PseudonymKey>,
    /// Only the first rows of each person are read.
    limited: bool,
}

impl Streams {
    pub(super) const fn owner(&self) -> &OwnerId {
        &self.owner
    }
}

/// Exact statistics of a recipe with `prepare`, if they are there within its seconds.
pub(in crate::compute) fn statistics(
    recipe: &Recipe,
    inputs: Vec<Input>,
) -> Result<Vec<Vec<Statistic>>, ComputeError> {
    let seconds = recipe.seconds().ok_or(ComputeError::InputUnusable)?;
    let deadline = deadline(seconds);
    check_owners(recipe, &inputs)?;
    let key = Arc::new(PseudonymKey::fresh()?);
    // The plan is the same with and without data.
    let limited = plan(recipe, &[])?.is_some_and(|planned| planned.proof.multiplies);
    let streams: Result<Vec<Streams>, ComputeError> =
        inputs.into_iter().map(|input| open(recipe, input, &key, limited)).collect();
    let planned = plan(recipe, &streams?)?.ok_or(ComputeError::InputUnusable)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores())
        .enable_time()
        .build()
        .map_err(|_| ComputeError::InputUnusable)?;
    // On a thread of its own, since the caller's may be one of another runtime.
    let totals = std::thread::scope(|scope| {
        let run = scope.spawn(|| execute(recipe, &planned, deadline, runtime.handle()));
        run.join().unwrap_or(Err(ComputeError::InputUnusable))
    });
    runtime.shutdown_background();
    Ok(totals?.finish())
}

fn open(
    recipe: &Recipe,
    (owner, bytes): Input,
    key: &Arc<PseudonymKey>,
    limited: bool,
) -> Result<Streams, ComputeError> {
    let columns = columns_of(recipe, &owner);
    let name = recipe.columns().get(recipe.privacy().unit).map(|column| &column.name);
    let unit = columns.iter().position(|column| Some(&column.name) == name);
    let unit = unit.ok_or(ComputeError::InputUnusable)?;
    let file = Arc::new(File::open(LIMITS, columns, &owner, bytes)?);
    Ok(Streams { owner, file, unit, key: Arc::clone(key), limited })
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn execute<'a>(
    recipe: &'a Recipe,
    planned: &Planned,
    deadline: Instant,
    handle: &Handle,
) -> Result<Totals<'a>, ComputeError> {
    // Some operators, such as cross joins, start tasks before the first row is asked for.
    let _runtime = handle.enter();
    let (operators, context) = handle.block_on(operators(planned)).map_err(|error| stopped(&error))?;
    let partitions = execute_stream_partitioned(operators, context).map_err(|error| stopped(&error))?;
    std::thread::scope(|scope| {
        let read = |stream| scope.spawn(move || read(recipe, stream, handle, deadline));
        let threads: Vec<_> = partitions.into_iter().map(read).collect();
        let mut totals = Totals::new(recipe);
        for thread in threads {
            totals.merge(thread.join().unwrap_or(Err(ComputeError::InputUnusable))?);
        }
        Ok(totals)
    })
}

/// The plan as operators, without another look by the logical optimiser.
async fn operators(planned: &Planned) -> Result<(Arc<dyn ExecutionPlan>, Arc<TaskContext>), DataFusionError> {
    let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
    let environment = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(MEMORY_BYTES)))
        .with_disk_manager_builder(disk)
        .build_arc()?;
    let state = SessionStateBuilder::new()
        .with_config(SessionConfig::new().with_target_partitions(cores()))
        .with_runtime_env(environment)
        .build();
    let operators = DefaultPhysicalPlanner::default().create_physical_plan(&planned.plan, &state).await?;
    Ok((operators, state.task_ctx()))
}

/// Adds up one partition's persons.
fn read<'a>(
    recipe: &'a Recipe,
    mut stream: SendableRecordBatchStream,
    handle: &Handle,
    deadline: Instant,
) -> Result<Totals<'a>, ComputeError> {
    let mut totals = Totals::new(recipe);
    let next = |stream: &mut SendableRecordBatchStream| {
        handle.block_on(async { tokio::time::timeout_at(deadline.into(), stream.next()).await })
    };
    while let Some(batch) = next(&mut stream).map_err(|_| ComputeError::InputTooLarge { limit: "time" })? {
        let arrays = declared(recipe, &batch.map_err(|error| stopped(&error))?)?;
        let rows = arrays.first().map_or(0, |array| array.len());
        let batch = Batch { rows, columns: arrays.iter().map(values).collect() };
        let complete = batch.complete(recipe);
        totals.add(&batch, &complete);
    }
    Ok(totals)
}

/// The result's columns in the recipe's order, floats as fixed-point numbers.
fn declared(recipe: &Recipe, batch: &RecordBatch) -> Result<Arrays, ComputeError> {
    let array = |(index, column): (usize, &cohort_protocol::recipe::Column)| {
        let found = batch.column_by_name(column.name.as_str()).ok_or(ComputeError::InputUnusable)?;
        if index == recipe.privacy().unit { Ok(Arc::clone(found)) } else { clean(column, found) }
    };
    recipe.columns().iter().enumerate().map(array).collect()
}

/// What the outside may know of an error: nothing of what it says.
fn stopped(error: &DataFusionError) -> ComputeError {
    match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => ComputeError::InputTooLarge { limit: "memory" },
        DataFusionError::External(source) => {
            source.downcast_ref::<ComputeError>().cloned().unwrap_or(ComputeError::InputUnusable)
        }
        _ => ComputeError::InputUnusable,
    }
}

/// A table over parts of files, dealt out to as many partitions as there are cores; which rows are a person's first is
/// only known where all are read one after the other.
pub(super) fn source(schema: SchemaRef, files: &[&Streams], names_owner: bool) -> Arc<dyn TableSource> {
    let limited = files.iter().any(|streams| streams.limited);
    let mut partitions: Vec<Partition> = (0..if limited { 1 } else { cores() })
        .map(|_| Partition { schema: Arc::clone(&schema), names_owner, limited, files: Vec::new() })
        .collect();
    let width = partitions.len().max(1);
    for (offset, streams) in files.iter().enumerate() {
        for (at, partition) in partitions.iter_mut().enumerate() {
            let first = (at + width - offset % width) % width;
            let parts: Vec<usize> = (first..streams.file.parts()).step_by(width).collect();
            if !parts.is_empty() {
                partition.files.push((Part::new(streams), parts));
            }
        }
    }
    let partitions = partitions.into_iter().map(|part| Arc::new(part) as Arc<dyn PartitionStream>).collect();
    match StreamingTable::try_new(Arc::clone(&schema), partitions) {
        Ok(table) => provider_as_source(Arc::new(table)),
        // Not reached: every partition has the table's own schema.
        Err(_) => provider_as_source(Arc::new(datafusion::datasource::empty::EmptyTable::new(schema))),
    }
}

struct Partition {
    schema: SchemaRef,
    names_owner: bool,
    limited: bool,
    files: Vec<(Part, Vec<usize>)>,
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partition").field("files", &self.files.len()).finish_non_exhaustive()
    }
}

impl PartitionStream for Partition {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (schema, names_owner) = (Arc::clone(&self.schema), self.names_owner);
        let mut first_rows = self.limited.then(|| FirstRows::new(&schema, context.memory_pool()));
        let files = self.files.clone().into_iter();
        let batches = files.flat_map(move |(part, parts)| part.batches(&schema, names_owner, parts));
        let batches = batches.map(move |batch| {
            let batch = batch.map_err(|error| DataFusionError::External(Box::new(error)))?;
            match &mut first_rows {
                Some(first_rows) => first_rows.of(&batch),
                None => Ok(batch),
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), futures_util::stream::iter(batches)))
    }
}

/// Of each person the first rows of a table, which are all that a join may multiply.
struct FirstRows {
    unit: Option<usize>,
    seen: HashMap<i128, usize>,
    reservation: MemoryReservation,
}

impl FirstRows {
    /// Memory that one person takes, with what the map keeps free.
    const BYTES: usize = 64;

    fn new(schema: &SchemaRef, pool: &Arc<dyn MemoryPool>) -> Self {
        let unit = schema.fields().iter().position(|field| *field.data_type() == PSEUDONYM);
        let reservation = MemoryConsumer::new("first rows of each person").register(pool);
        Self { unit, seen: HashMap::new(), reservation }
    }

    fn of(&mut self, batch: &RecordBatch) -> Result<RecordBatch, DataFusionError> {
        let unit =
            self.unit.and_then(|unit| batch.columns().get(unit)).and_then(|unit| unit.as_primitive_opt());
        let unit: &Decimal128Array =
            unit.ok_or(DataFusionError::External(Box::new(ComputeError::InputUnusable)))?;
        let mut is_among = |pseudonym: i128| {
            let rows = self.seen.entry(pseudonym).or_default();
            *rows += 1;
            *rows <= PERSON_ROWS
        };
        let mask: BooleanArray = unit.iter().map(|pseudonym| pseudonym.map(&mut is_among)).collect();
        self.reservation.try_resize(self.seen.capacity().saturating_mul(Self::BYTES))?;
        Ok(filter_record_batch(batch, &mask)?)
    }
}

/// An owner's file, to be read in parts.
#[derive(Clone)]
struct Part {
    owner: OwnerId,
    file: Arc<File>,
    unit: usize,
    key: Arc<PseudonymKey>,
}

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ComputeError>> + Send>;

impl Part {
    fn new(streams: &Streams) -> Self {
        let Streams { owner, file, unit, key, .. } = streams;
        Self { owner: owner.clone(), file: Arc::clone(file), unit: *unit, key: Arc::clone(key) }
    }

    fn batches(self, schema: &SchemaRef, names_owner: bool, parts: Vec<usize>) -> Batches {
        let arrays = match self.file.read(parts) {
            Ok(arrays) => arrays,
            Err(error) => return Box::new(std::iter::once(Err(error))),
        };
        let (schema, mut meter) = (Arc::clone(schema), Meter::new(LIMITS));
        Box::new(arrays.map(move |arrays| {
            let arrays = arrays?;
            meter.rows(arrays.first().map_or(0, |array| array.len()))?;
            self.batch(&schema, names_owner, &self.complete(arrays)?)
        }))
    }

    /// Rows that have a value in every column that must have one.
    fn complete(&self, arrays: Arrays) -> Result<Arrays, ComputeError> {
        let columns = self.file.columns().iter().zip(&arrays);
        let lacking = columns.filter(|(column, array)| !column.nullable && array.null_count() > 0);
        let mut mask = None;
        for (_, array) in lacking {
            let known = is_not_null(array).map_err(|_| ComputeError::InputUnusable)?;
            mask = match mask {
                None => Some(known),
                Some(mask) => Some(and(&mask, &known).map_err(|_| ComputeError::InputUnusable)?),
            };
        }
        let Some(mask) = mask else { return Ok(arrays) };
        let kept = |array: &ArrayRef| filter(array, &mask).map_err(|_| ComputeError::InputUnusable);
        arrays.iter().map(kept).collect()
    }

    /// The table's columns of the file's: pseudonyms for the unit, floats as floats again.
    fn batch(
        &self,
        schema: &SchemaRef,
        names_owner: bool,
        arrays: &Arrays,
    ) -> Result<RecordBatch, ComputeError> {
        let rows = arrays.first().map_or(0, |array| array.len());
        let column = |name: &str| -> Result<ArrayRef, ComputeError> {
            if names_owner && name == OWNER_COLUMN {
                return Ok(Arc::new(StringArray::new_repeated(self.owner.as_str(), rows)));
            }
            let mut columns = self.file.columns().iter().zip(arrays).enumerate();
            let found = columns.find(|(_, (column, _))| column.name.as_str() == name);
            let (index, (column, array)) = found.ok_or(ComputeError::InputUnusable)?;
            Ok(match column.kind {
                _ if index == self.unit => Arc::new(
                    self.key
                        .of_column(array)
                        .with_precision_and_scale(38, 0)
                        .map_err(|_| ComputeError::InputUnusable)?,
                ),
                ColumnType::Float64 { .. } => Arc::new(floats(array, column.kind.units())),
                _ => Arc::clone(array),
            })
        };
        let arrays: Result<Arrays, ComputeError> =
            schema.fields().iter().map(|field| column(field.name())).collect();
        RecordBatch::try_new(Arc::clone(schema), arrays?).map_err(|_| ComputeError::InputUnusable)
    }
}

/// Fixed-point numbers as the nearest floats.
fn floats(array: &ArrayRef, units: i64) -> Float64Array {
    array.as_primitive::<Int64Type>().unary(|value| value as f64 / units as f64)
}
