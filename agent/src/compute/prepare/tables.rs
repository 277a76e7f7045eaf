//! The tables that SQL sees: each owner's, the union of all, and the recipe's public ones.

use std::{collections::BTreeSet, sync::Arc};

use arrow::{
    array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use cohort_protocol::{
    ids::OwnerId,
    recipe::{COHORT_TABLE, Column, ColumnType, Literal, OWNER_COLUMN, PublicTable, Recipe, Source},
};
use datafusion::{
    catalog::{MemTable, TableProvider},
    datasource::provider_as_source,
    logical_expr::TableSource,
};

use super::run::Streams;

/// What a pseudonym is in SQL: a type that no expression is admitted on.
pub(super) const PSEUDONYM: DataType = DataType::Decimal128(38, 0);

/// A table and what is known of its rows.
pub(super) struct Table {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) source: Arc<dyn TableSource>,
}

/// Whose rows they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// Persons' rows of one owner; `unit` is the index of the column that tells whose.
    Owner {
        /// The column.
        unit: usize,
    },
    /// Persons' rows of all owners that take part.
    Cohort {
        /// The column.
        unit: usize,
    },
    /// Everybody's. `keys` are the columns in which no value occurs twice.
    Public {
        /// The columns.
        keys: BTreeSet<usize>,
        /// How many.
        rows: usize,
    },
}

/// All tables of a recipe. Without an owner's data its table is there and empty: the plan is the same.
pub(super) fn tables(recipe: &Recipe, data: &[Streams]) -> Vec<Table> {
    let unit = recipe.columns().get(recipe.privacy().unit).map(|column| column.name.clone());
    let is_unit = |column: &Column| Some(&column.name) == unit.as_ref();
    let place = |columns: &[Column]| columns.iter().position(is_unit).unwrap_or(usize::MAX);
    let mut tables = Vec::new();
    for owner in recipe.owners() {
        let columns = columns_of(recipe, owner);
        let (schema, kind) = (schema(&columns, is_unit), Kind::Owner { unit: place(&columns) });
        let of_owner: Vec<&Streams> = data.iter().filter(|streams| streams.owner() == owner).collect();
        let source = super::run::source(schema, &of_owner, false);
        tables.push(Table { name: owner.to_string(), kind, source });
    }
    let shared = shared_columns(recipe);
    let mut fields: Vec<Field> =
        schema(&shared, is_unit).fields().iter().map(|field| field.as_ref().clone()).collect();
    fields.push(Field::new(OWNER_COLUMN, DataType::Utf8, false));
    let source = super::run::source(Arc::new(Schema::new(fields)), &data.iter().collect::<Vec<_>>(), true);
    tables.push(Table { name: COHORT_TABLE.to_owned(), kind: Kind::Cohort { unit: place(&shared) }, source });
    let public = recipe.prepare().map_or(&[][..], |prepare| &prepare.tables);
    tables.extend(public.iter().map(public_table));
    tables
}

/// The columns of one owner's table.
pub(super) fn columns_of(recipe: &Recipe, owner: &OwnerId) -> Vec<Column> {
    let of = recipe.sources().iter().filter(|source| source.is_of(owner));
    of.map(|source| source.column.clone()).collect()
}

/// The columns that all owners have.
fn shared_columns(recipe: &Recipe) -> Vec<Column> {
    let shared = |source: &&Source| source.owners.is_empty();
    recipe.sources().iter().filter(shared).map(|source| source.column.clone()).collect()
}

fn schema(columns: &[Column], is_unit: impl Fn(&Column) -> bool) -> SchemaRef {
    let field = |column: &Column| {
        let kind = if is_unit(column) { PSEUDONYM } else { sql_type(column.kind) };
        Field::new(column.name.as_str(), kind, column.nullable || !column.missing_values.is_empty())
    };
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

/// A column's type in SQL.
pub(super) const fn sql_type(kind: ColumnType) -> DataType {
    match kind {
        ColumnType::Int64 => DataType::Int64,
        ColumnType::Float64 { .. } => DataType::Float64,
        ColumnType::Utf8 => DataType::Utf8,
        ColumnType::Bool => DataType::Boolean,
    }
}

fn public_table(table: &PublicTable) -> Table {
    let schema = schema(&table.columns, |_| false);
    let array = |(index, column): (usize, &Column)| -> ArrayRef {
        let values = || table.rows.iter().map(move |row| row.get(index));
        match column.kind {
            ColumnType::Utf8 => Arc::new(values().map(text).collect::<StringArray>()),
            ColumnType::Bool => Arc::new(values().map(boolean).collect::<BooleanArray>()),
            ColumnType::Int64 | ColumnType::Float64 { .. } => {
                Arc::new(values().map(whole).collect::<Int64Array>())
            }
        }
    };
    let arrays = table.columns.iter().enumerate().map(array).collect();
    let batch = RecordBatch::try_new(Arc::clone(&schema), arrays);
    let rows = batch.map(|batch| vec![vec![batch]]).unwrap_or_default();
    let provider: Arc<dyn TableProvider> = match MemTable::try_new(Arc::clone(&schema), rows) {
        Ok(filled) => Arc::new(filled),
        // Not reached: the parser has checked every value's type.
        Err(_) => Arc::new(datafusion::datasource::empty::EmptyTable::new(schema)),
    };
    let keys = (0..table.columns.len()).filter(|index| table.is_key(*index)).collect();
    let kind = Kind::Public { keys, rows: table.rows.len() };
    Table { name: table.name.to_string(), kind, source: provider_as_source(provider) }
}

fn text(value: Option<&Literal>) -> Option<&str> {
    match value {
        Some(Literal::Text(text)) => Some(text),
        _ => None,
    }
}

const fn boolean(value: Option<&Literal>) -> Option<bool> {
    match value {
        Some(Literal::Bool(value)) => Some(*value),
        _ => None,
    }
}

const fn whole(value: Option<&Literal>) -> Option<i64> {
    match value {
        Some(Literal::Int(value)) => Some(*value),
        _ => None,
    }
}
