//! Whether a recipe can read a file: what its runs would find out later.

use cohort_protocol::{
    recipe::{self, ColumnType},
    sealed::{self, ContentKind},
};
use cohort_recognise::Recognised;

/// What keeps an agent from reading the file's columns, in words; agents read Parquet and CSV.
pub(super) fn misfit(wanted: &[recipe::Column], found: &Recognised) -> Option<String> {
    if wanted.is_empty() {
        return None;
    }
    if !matches!(found.kind, ContentKind::Parquet | ContentKind::Csv) {
        return Some("it reads tables, in Parquet or CSV".into());
    }
    let columns = found.schema.as_deref().unwrap_or_default();
    let problems: Vec<_> = wanted.iter().filter_map(|column| problem(column, found.kind, columns)).collect();
    (!problems.is_empty()).then(|| problems.join(", "))
}

fn problem(wanted: &recipe::Column, kind: ContentKind, columns: &[sealed::Column]) -> Option<String> {
    let name = wanted.name.as_str();
    let mut named = columns.iter().filter(|column| column.name == name);
    match (named.next(), named.next()) {
        (None, _) => Some(format!("no column {name}")),
        (_, Some(_)) => Some(format!("several columns {name}")),
        // A CSV cell that is not of the type is a missing value.
        (Some(column), None) if kind == ContentKind::Parquet && !holds(wanted.kind, &column.type_name) => {
            Some(format!("column {name} is {}, not {}", column.type_name, wanted.kind.name()))
        }
        _ => None,
    }
}

/// Whether a file's type holds the recipe's without loss, as agents see it.
fn holds(wanted: ColumnType, found: &str) -> bool {
    match wanted {
        ColumnType::Int64 => matches!(found, "int8" | "int16" | "int32" | "int64"),
        ColumnType::Float64 { .. } => matches!(found, "float32" | "float64"),
        ColumnType::Bool => found == "bool",
        ColumnType::Utf8 => found == "utf8" || (found.starts_with("dictionary") && found.contains("utf8")),
    }
}
