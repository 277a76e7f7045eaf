//! Exact statistics from rows: one pass over each owner's table, integers only.

use std::collections::{BTreeSet, HashSet};

use cohort_protocol::{
    ids::OwnerId,
    recipe::{Bounds, Groups, Key, Literal, Measure, MeasureKind, Op, Predicate, Recipe},
};

use super::{
    ComputeError, Input,
    statistic::{Statistic, centred, clamp, terms, units},
    table::{self, Batch, Values},
};

/// The exact statistics of each measure over all datasets.
pub(super) fn statistics(recipe: &Recipe, inputs: Vec<Input>) -> Result<Vec<Vec<Statistic>>, ComputeError> {
    check_owners(recipe, &inputs)?;
    let mut sums: Vec<Sums> = recipe.measures().iter().map(|measure| Sums::new(recipe, measure)).collect();
    for (owner, bytes) in inputs {
        // Persons are told apart within one owner only: the same id at two owners is two persons.
        let mut seen = Seen::default();
        table::read(recipe, &owner, bytes, |batch| {
            let rows = seen.admit(recipe, batch);
            let groups: Vec<Vec<Option<usize>>> =
                recipe.keys().iter().map(|key| groups(recipe, key, batch)).collect();
            for sums in &mut sums {
                sums.add(recipe, batch, &rows, &groups);
            }
        })?;
    }
    Ok(sums.into_iter().map(|sums| sums.finish(recipe)).collect())
}

fn check_owners(recipe: &Recipe, inputs: &[Input]) -> Result<(), ComputeError> {
    if inputs.is_empty() {
        return Err(ComputeError::NoInput);
    }
    let mut seen: BTreeSet<&OwnerId> = BTreeSet::new();
    for (owner, _) in inputs {
        if !recipe.owners().contains(owner) {
            return Err(ComputeError::UnknownOwner { owner: owner.clone() });
        }
        if !seen.insert(owner) {
            return Err(ComputeError::RepeatedOwner { owner: owner.clone() });
        }
    }
    Ok(())
}

/// The persons of one owner that were counted already.
#[derive(Default)]
struct Seen {
    numbers: HashSet<i64>,
    texts: HashSet<Box<str>>,
}

impl Seen {
    /// Which rows count: those with a value in every column that must have one, and of these the first per person.
    fn admit(&mut self, recipe: &Recipe, batch: &Batch<'_>) -> Vec<usize> {
        let required: Vec<&Values<'_>> = recipe
            .columns()
            .iter()
            .zip(&batch.columns)
            .filter(|(column, _)| !column.nullable)
            .map(|(_, values)| values)
            .collect();
        let Some(unit) = batch.columns.get(recipe.privacy().unit) else {
            return Vec::new();
        };
        let complete = |row: &usize| required.iter().all(|values| values.is_known(*row));
        (0..batch.rows).filter(complete).filter(|row| self.first(unit, *row)).collect()
    }

    fn first(&mut self, unit: &Values<'_>, row: usize) -> bool {
        match unit {
            Values::Numbers(_) => unit.number(row).is_some_and(|id| self.numbers.insert(id)),
            Values::Texts(_) => {
                let new = |id: &&str| !self.texts.contains(*id);
                unit.text(row).filter(new).is_some_and(|id| self.texts.insert(id.into()))
            }
        }
    }
}

/// The group of each row under a key; none for rows in no group.
fn groups(recipe: &Recipe, key: &Key, batch: &Batch<'_>) -> Vec<Option<usize>> {
    let Some(values) = batch.columns.get(key.column) else {
        return vec![None; batch.rows];
    };
    let scale = units(recipe, key.column);
    let group = |row: usize| match &key.groups {
        Groups::Bands(edges) => {
            values.number(row).map(|value| edges.partition_point(|edge| edge * scale <= value))
        }
        Groups::Categories(list) => list.iter().position(|literal| equals(values, row, literal, scale)),
    };
    (0..batch.rows).map(group).collect()
}

fn equals(values: &Values<'_>, row: usize, literal: &Literal, scale: i64) -> bool {
    match literal {
        Literal::Bool(value) => values.number(row) == Some(i64::from(*value)),
        Literal::Int(value) => values.number(row) == Some(value * scale),
        Literal::Text(value) => values.text(row) == Some(value),
    }
}

/// Whether a row passes a test; a missing value passes none.
fn passes(recipe: &Recipe, test: &Predicate, batch: &Batch<'_>, row: usize) -> bool {
    let Some(values) = batch.columns.get(test.column).filter(|values| values.is_known(row)) else {
        return false;
    };
    let scale = units(recipe, test.column);
    match (test.op, &test.value) {
        (Op::Equal, literal) => equals(values, row, literal, scale),
        (Op::NotEqual, literal) => !equals(values, row, literal, scale),
        (op, Literal::Int(edge)) => values.number(row).is_some_and(|value| ordered(op, value, edge * scale)),
        (_, Literal::Bool(_) | Literal::Text(_)) => false,
    }
}

const fn ordered(op: Op, value: i64, edge: i64) -> bool {
    match op {
        Op::Less => value < edge,
        Op::LessOrEqual => value <= edge,
        Op::Greater => value > edge,
        Op::GreaterOrEqual => value >= edge,
        Op::Equal => value == edge,
        Op::NotEqual => value != edge,
    }
}

/// Running totals of one measure: one vector per statistic, wide enough never to overflow.
struct Sums<'a> {
    measure: &'a Measure,
    /// For each key of the measure its index and the number of cells that one group spans.
    strides: Vec<(usize, usize)>,
    totals: Vec<Vec<i128>>,
}

impl<'a> Sums<'a> {
    fn new(recipe: &Recipe, measure: &'a Measure) -> Self {
        let cells = recipe.cell_count(measure);
        let mut span = cells;
        let strides = measure.by.iter().zip(recipe.axes(measure)).map(|(key, axis)| {
            span /= axis.len().max(1);
            (*key, span)
        });
        let strides = strides.collect();
        Self { measure, strides, totals: vec![vec![0; cells]; terms(recipe, measure).len()] }
    }

    fn add(&mut self, recipe: &Recipe, batch: &Batch<'_>, rows: &[usize], groups: &[Vec<Option<usize>>]) {
        for row in rows {
            if let Some(cell) = self.cell(*row, groups) {
                self.add_row(recipe, batch, *row, cell);
            }
        }
    }

    fn cell(&self, row: usize, groups: &[Vec<Option<usize>>]) -> Option<usize> {
        self.strides.iter().try_fold(0, |cell, (key, span)| {
            let group = (*groups.get(*key)?.get(row)?)?;
            Some(cell + group * span)
        })
    }

    fn add_row(&mut self, recipe: &Recipe, batch: &Batch<'_>, row: usize, cell: usize) {
        let number = |column: usize| batch.columns.get(column).and_then(|values| values.number(row));
        match &self.measure.kind {
            MeasureKind::Count { .. } => self.bump(0, cell, 1),
            MeasureKind::Proportion { test, .. } => {
                if passes(recipe, test, batch, row) {
                    self.bump(0, cell, 1);
                }
            }
            MeasureKind::Mean { column, bounds, .. } => {
                if let Some(value) = number(*column) {
                    self.bump(0, cell, centred(value, *bounds, units(recipe, *column)));
                    self.bump(1, cell, 1);
                }
            }
            MeasureKind::Sum { column, bounds, .. } => {
                if let Some(value) = number(*column) {
                    let bounds: Bounds = *bounds;
                    self.bump(0, cell, clamp(value, bounds, units(recipe, *column)));
                }
            }
            MeasureKind::Histogram { column, edges, .. } => {
                let scale = units(recipe, *column);
                let above = number(*column).map(|value| edges.partition_point(|edge| edge * scale <= value));
                if let Some(bin) =
                    above.and_then(|above| above.checked_sub(1)).filter(|bin| bin + 1 < edges.len())
                {
                    self.bump(0, cell + bin, 1);
                }
            }
        }
    }

    fn bump(&mut self, statistic: usize, cell: usize, by: i64) {
        if let Some(total) = self.totals.get_mut(statistic).and_then(|totals| totals.get_mut(cell)) {
            *total += i128::from(by);
        }
    }

    /// Totals as 64-bit integers; saturating keeps the sensitivity, since it moves no two values apart.
    fn finish(self, recipe: &Recipe) -> Vec<Statistic> {
        let narrow = |total: i128| total.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        let values = self.totals.into_iter().map(|totals| totals.into_iter().map(narrow).collect());
        let terms = terms(recipe, self.measure).into_iter();
        terms
            .zip(values)
            .map(|((sensitivity, share), values)| Statistic { sensitivity, share, values })
            .collect()
    }
}
