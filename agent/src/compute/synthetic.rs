//! Synthetic rows of a recipe's declared schema: made up from the recipe alone, for rehearsals.

use cohort_protocol::{
    ids::OwnerId,
    recipe::{Column, ColumnType, Groups, Literal, MeasureKind, Recipe},
};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::Input;

/// How many, and from which seed: the same twice gives the same rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    /// Rows for each owner; each is one person.
    pub per_owner: u32,
    /// Any number.
    pub seed: u64,
}

/// Least and greatest value where the recipe says nothing about a number column.
const ANY: (i64, i64) = (0, 100);
/// One of so many values is missing in a column that may be.
const MISSING_EVERY: u64 = 20;

/// A CSV dataset for every owner of the recipe. Numbers are spread evenly over what the recipe mentions of their
/// column (bounds, edges, bands), with some beyond; texts are its categories.
pub fn inputs(recipe: &Recipe, rows: Rows) -> Vec<Input> {
    let owners = recipe.owners().iter().enumerate();
    let table = |owner: (u64, &OwnerId)| (owner.1.clone(), Zeroizing::new(table(recipe, rows, owner)));
    owners.map(|(index, owner)| table((index as u64, owner))).collect()
}

fn table(recipe: &Recipe, rows: Rows, owner: (u64, &OwnerId)) -> Vec<u8> {
    let columns = recipe.sources().iter().filter(|source| source.is_of(owner.1));
    let columns: Vec<&Column> = columns.map(|source| &source.column).collect();
    let unit = recipe.columns().get(recipe.privacy().unit).map(|column| &column.name);
    let header: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    let mut text = format!("{}\n", header.join(","));
    let kinds: Vec<Values> = columns.iter().map(|column| Values::of(recipe, column)).collect();
    for row in 0..rows.per_owner {
        let cells = columns.iter().zip(&kinds).enumerate().map(|(index, (column, values))| {
            if Some(&column.name) == unit {
                return (u64::from(row) + 1).to_string();
            }
            values.cell(column, draw(rows.seed, owner.0, row, index))
        });
        text.push_str(&cells.collect::<Vec<_>>().join(","));
        text.push('\n');
    }
    text.into_bytes()
}

/// Deterministic, so that a rehearsal can be repeated; these rows are nobody's.
fn draw(seed: u64, owner: u64, row: u32, column: usize) -> u64 {
    let mut hash = Sha256::new();
    for part in [seed, owner, row.into(), column as u64] {
        hash.update(part.to_be_bytes());
    }
    let bytes: [u8; 32] = hash.finalize().into();
    bytes.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

enum Values {
    Range(i64, i64),
    Among(Vec<String>),
}

impl Values {
    /// What is mentioned of the column of that name that measures read, and of public tables' columns of that name.
    fn of(recipe: &Recipe, column: &Column) -> Self {
        let named = |other: &Column| other.name == column.name;
        let index = recipe.columns().iter().position(named).unwrap_or(usize::MAX);
        let mut numbers = Vec::new();
        let mut texts = Vec::new();
        for table in recipe.prepare().map_or(&[][..], |prepare| &prepare.tables) {
            let Some(at) = table.columns.iter().position(named) else { continue };
            table.rows.iter().filter_map(|row| row.get(at)).for_each(|value| match value {
                Literal::Int(value) => numbers.push(*value),
                other => texts.push(other.to_string()),
            });
        }
        for key in recipe.keys().iter().filter(|key| key.column == index) {
            match &key.groups {
                Groups::Bands(edges) => {
                    // A band below the first edge and one from the last on, as wide as those between.
                    let (first, last) = (edges.first().copied(), edges.last().copied());
                    let width = first.zip(last).map_or(10, |(first, last)| ((last - first) / 4).max(10));
                    numbers.extend(first.map(|edge| edge - width));
                    numbers.extend(last.map(|edge| edge + width));
                }
                Groups::Categories(values) => values.iter().for_each(|value| match value {
                    Literal::Int(value) => numbers.push(*value),
                    other => texts.push(other.to_string()),
                }),
            }
        }
        for measure in recipe.measures() {
            match &measure.kind {
                MeasureKind::Mean { column, bounds, .. }
                | MeasureKind::Variance { column, bounds, .. }
                | MeasureKind::Quantile { column, bounds, .. }
                | MeasureKind::Sum { column, bounds, .. }
                    if *column == index =>
                {
                    numbers.extend([bounds.lower, bounds.upper]);
                }
                MeasureKind::Histogram { column, edges, .. } if *column == index => {
                    numbers.extend(edges.first().into_iter().chain(edges.last()));
                }
                MeasureKind::Proportion { test, .. } | MeasureKind::LogisticRegression { test, .. }
                    if test.column == index =>
                {
                    match &test.value {
                        Literal::Int(value) => numbers.extend([value - 1, value + 1]),
                        other => texts.extend([other.to_string(), format!("not {other}")]),
                    }
                }
                MeasureKind::LinearRegression { target, bounds, .. } if *target == index => {
                    numbers.extend([bounds.lower, bounds.upper]);
                }
                _ => {}
            }
            if let MeasureKind::LinearRegression { features, .. }
            | MeasureKind::LogisticRegression { features, .. } = &measure.kind
            {
                let own = features.iter().filter(|feature| feature.column == index);
                numbers.extend(own.flat_map(|feature| [feature.bounds.lower, feature.bounds.upper]));
            }
        }
        match column.kind {
            ColumnType::Bool => Self::Among(vec!["true".into(), "false".into()]),
            ColumnType::Utf8 if texts.is_empty() => Self::Among(vec!["a".into(), "b".into()]),
            ColumnType::Utf8 => Self::Among(texts),
            ColumnType::Int64 | ColumnType::Float64 { .. } => {
                let (least, most) = (numbers.iter().min(), numbers.iter().max());
                let (least, most) = least.zip(most).map_or(ANY, |(least, most)| (*least, *most));
                Self::Range(least, most)
            }
        }
    }

    fn cell(&self, column: &Column, draw: u64) -> String {
        if column.nullable && draw.is_multiple_of(MISSING_EVERY) {
            return String::new();
        }
        let draw = draw / MISSING_EVERY;
        match self {
            Self::Among(texts) => {
                let index = usize::try_from(draw % texts.len().max(1) as u64).unwrap_or(0);
                quoted(texts.get(index).map_or("", String::as_str))
            }
            Self::Range(least, most) => {
                let width = most.saturating_sub(*least).unsigned_abs().saturating_add(1);
                let whole = least.saturating_add_unsigned(draw % width);
                match column.kind {
                    ColumnType::Float64 { decimals: 1.. } => format!("{whole}.{}", draw / width % 10),
                    _ => whole.to_string(),
                }
            }
        }
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}
