//! `prepare`: SQL over the owners' tables, whose result is the table that keys and measures read.
//!
//! This checks names and sizes. That the SQL keeps persons apart is proved where the SQL engine is, by
//! `cohort_agent::compute::prepare`.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::{
    Column, ColumnType, Literal, RecipeError,
    check::{SECONDS, columns, distinct, find, length, literal},
    grammar::{RawColumn, RawLiteral, present},
};
use crate::ids::{Label, OwnerId};

/// Name of the table with the rows of all owners that take part.
pub const COHORT_TABLE: &str = "cohort";
/// Its column with the owner's name.
pub const OWNER_COLUMN: &str = "owner";
/// Most bytes of one step's SQL.
const MAX_SQL_BYTES: usize = 16 * 1024;

const STEPS: (usize, usize) = (1, 8);
const TABLES: (usize, usize) = (0, 8);
const TABLE_COLUMNS: (usize, usize) = (1, 16);
const TABLE_ROWS: (usize, usize) = (1, 4096);

/// SQL that makes the table of persons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepare {
    /// Public tables, which stand in the recipe.
    pub tables: Vec<PublicTable>,
    /// Queries; each may read the ones before it by name, the last is the result.
    pub steps: Vec<SqlStep>,
    /// The result is used exactly this long after the start, since how long the SQL takes tells of rows.
    pub seconds: u32,
}

/// One query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlStep {
    /// Name of its result.
    pub name: Label,
    /// One `SELECT`, at most 16384 bytes.
    pub sql: String,
}

/// A table that everybody may see, e.g. of codes and their groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicTable {
    /// Its name in SQL.
    pub name: Label,
    /// Names and types of its columns: all but float64.
    pub columns: Vec<Column>,
    /// Its rows: a value for each column, of its type.
    pub rows: Vec<Vec<Literal>>,
}

/// A column of owners' files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The column.
    pub column: Column,
    /// Whose files have it; empty: all owners'.
    pub owners: Vec<OwnerId>,
}

impl Source {
    /// Whether the owner's file has the column.
    pub fn is_of(&self, owner: &OwnerId) -> bool {
        self.owners.is_empty() || self.owners.contains(owner)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPrepare {
    #[serde(default)]
    tables: Vec<RawTable>,
    steps: Vec<RawStep>,
    columns: Vec<RawColumn>,
    /// Its absence has an error of its own, with the reason.
    #[serde(default, deserialize_with = "present")]
    seconds: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStep {
    name: Label,
    sql: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTable {
    name: Label,
    columns: Vec<RawTableColumn>,
    rows: Vec<Vec<RawLiteral>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTableColumn {
    name: Label,
    #[serde(rename = "type")]
    kind: RawTableType,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawTableType {
    Int64,
    Utf8,
    Bool,
}

/// The section and the columns of its result.
pub(super) fn check(
    raw: RawPrepare,
    owners: &[OwnerId],
    sources: &[Source],
    unit: &Label,
) -> Result<(Prepare, Vec<Column>), RecipeError> {
    length("prepare.tables", raw.tables.len(), TABLES)?;
    length("prepare.steps", raw.steps.len(), STEPS)?;
    let seconds = raw.seconds.ok_or(RecipeError::Prepare(
        "has no seconds; how long SQL takes tells of rows, so give the whole seconds after which its result is used: \
         \"seconds\": 60",
    ))?;
    if !SECONDS.contains(&seconds) {
        return Err(RecipeError::Prepare("seconds must be 1 to 3600"));
    }
    let tables = raw.tables.iter().map(|table| &table.name);
    let names = owners.iter().chain(tables).chain(raw.steps.iter().map(|step| &step.name));
    distinct("the names of prepare's tables", [COHORT_TABLE].into_iter().chain(names.map(Label::as_str)))?;
    if sources.iter().any(|source| source.column.name.as_str() == OWNER_COLUMN) {
        return Err(RecipeError::Prepare("needs the column name \"owner\" of table \"cohort\" for itself"));
    }
    if raw.columns.iter().any(|column| column.owners.is_some()) {
        return Err(RecipeError::Prepare("yields columns of no owner: prepare.columns have no owners"));
    }
    let yields = columns("prepare.columns", raw.columns)?;
    let (_, found) = find("prepare.columns", &yields, unit)?;
    let declared = sources.iter().find(|source| source.column.name == *unit);
    if declared.is_none_or(|source| source.column.kind != found.kind || !source.owners.is_empty()) {
        return Err(RecipeError::Prepare(
            "must yield privacy.unit, with its type, which all owners must have",
        ));
    }
    let steps: Result<Vec<SqlStep>, RecipeError> = raw.steps.into_iter().map(step).collect();
    let tables: Result<Vec<PublicTable>, RecipeError> = raw.tables.into_iter().map(table).collect();
    Ok((Prepare { tables: tables?, steps: steps?, seconds }, yields))
}

/// Which owners' files have a column; only with `prepare`, whose SQL can name one owner's table.
pub(super) fn owners_of(
    at: &str,
    raw: Option<Vec<Label>>,
    owners: &[OwnerId],
    has_prepare: bool,
) -> Result<Vec<OwnerId>, RecipeError> {
    let Some(named) = raw else { return Ok(Vec::new()) };
    if !has_prepare {
        return Err(RecipeError::Prepare("is missing; a column of some owners only needs it"));
    }
    length(&format!("{at} owners"), named.len(), (1, owners.len()))?;
    distinct(&format!("{at} owners"), &named)?;
    match named.iter().find(|owner| !owners.contains(owner)) {
        Some(owner) => {
            Err(RecipeError::Unknown { at: at.to_owned(), kind: "owner", name: owner.to_string() })
        }
        None => Ok(named),
    }
}

fn step(raw: RawStep) -> Result<SqlStep, RecipeError> {
    let printable = |c: char| !c.is_control() || c == '\n' || c == '\t';
    if !(1..=MAX_SQL_BYTES).contains(&raw.sql.len()) || !raw.sql.chars().all(printable) {
        return Err(RecipeError::Prepare("sql must be 1 to 16384 bytes of printable text"));
    }
    Ok(SqlStep { name: raw.name, sql: raw.sql })
}

fn table(raw: RawTable) -> Result<PublicTable, RecipeError> {
    let at = format!("prepare.tables {}", raw.name);
    length(&format!("{at} columns"), raw.columns.len(), TABLE_COLUMNS)?;
    length(&format!("{at} rows"), raw.rows.len(), TABLE_ROWS)?;
    distinct(&at, raw.columns.iter().map(|column| &column.name))?;
    let column = |raw: RawTableColumn| Column {
        name: raw.name,
        kind: match raw.kind {
            RawTableType::Int64 => ColumnType::Int64,
            RawTableType::Utf8 => ColumnType::Utf8,
            RawTableType::Bool => ColumnType::Bool,
        },
        nullable: false,
        missing_values: Vec::new(),
    };
    let columns: Vec<Column> = raw.columns.into_iter().map(column).collect();
    let row = |values: Vec<RawLiteral>| {
        length(&format!("{at} row"), values.len(), (columns.len(), columns.len()))?;
        values.into_iter().zip(&columns).map(|(value, column)| literal(&at, column, value)).collect()
    };
    let rows: Result<Vec<Vec<Literal>>, RecipeError> = raw.rows.into_iter().map(row).collect();
    Ok(PublicTable { name: raw.name, columns, rows: rows? })
}

impl PublicTable {
    /// Whether no value of the column at `index` occurs twice, so that a join on it finds at most one row.
    pub fn is_key(&self, index: usize) -> bool {
        let mut seen = BTreeSet::new();
        self.rows.iter().all(|row| row.get(index).is_some_and(|value| seen.insert(value)))
    }
}
