//! Exact statistics from rows: one pass over each owner's table, integers only.

use std::collections::{BTreeSet, HashSet};

use cohort_protocol::{
    ids::OwnerId,
    recipe::{Feature, Groups, Key, Literal, Measure, MeasureKind, Op, Predicate, Recipe},
};

use super::{
    ComputeError, Input, moments,
    quantile::{self, Candidates},
    statistic::{Statistic, centred, clamp, feature, on_steps, terms, units, variance_steps},
    table::{self, Batch, Values},
};

/// Gets the rows that count as they are read, owner by owner.
pub(super) trait Rows {
    /// An owner's rows begin.
    fn begin(&mut self, owner: &OwnerId);
    /// Some of its rows.
    fn rows(&mut self, batch: &Batch<'_>, rows: &[usize]);
    /// That was the last.
    fn end(&mut self);
}

/// Nobody.
pub(super) struct Nobody;

impl Rows for Nobody {
    fn begin(&mut self, _owner: &OwnerId) {}
    fn rows(&mut self, _batch: &Batch<'_>, _rows: &[usize]) {}
    fn end(&mut self) {}
}

/// The exact statistics of each measure over all datasets; `reader` gets the rows too.
pub(super) fn statistics(
    recipe: &Recipe,
    inputs: Vec<Input>,
    reader: &mut impl Rows,
) -> Result<Vec<Vec<Statistic>>, ComputeError> {
    check_owners(recipe, &inputs)?;
    let mut totals = Totals::new(recipe);
    for (owner, bytes) in inputs {
        // Persons are told apart within one owner only: the same id at two owners is two persons.
        let mut seen = Seen::default();
        reader.begin(&owner);
        table::read(recipe, &owner, bytes, |batch| {
            let rows = seen.admit(recipe, batch);
            totals.add(batch, &rows);
            reader.rows(batch, &rows);
        })?;
        reader.end();
    }
    Ok(totals.finish())
}

/// Running totals of all measures.
pub(super) struct Totals<'a> {
    recipe: &'a Recipe,
    sums: Vec<Sums<'a>>,
}

impl<'a> Totals<'a> {
    pub(super) fn new(recipe: &'a Recipe) -> Self {
        let sums = recipe.measures().iter().map(|measure| Sums::new(recipe, measure));
        Self { recipe, sums: sums.collect() }
    }

    /// Adds some rows of a batch, each of another person.
    pub(super) fn add(&mut self, batch: &Batch<'_>, rows: &[usize]) {
        let recipe = self.recipe;
        let groups: Vec<Vec<Option<usize>>> =
            recipe.keys().iter().map(|key| groups(recipe, key, batch)).collect();
        for sums in &mut self.sums {
            sums.add(recipe, batch, rows, &groups);
        }
    }

    /// Adds the totals of other persons.
    pub(super) fn merge(&mut self, other: Self) {
        let sums = self.sums.iter_mut().zip(other.sums);
        let vectors = sums.flat_map(|(sums, other)| sums.totals.iter_mut().zip(other.totals));
        for (total, more) in vectors.flat_map(|(totals, more)| totals.iter_mut().zip(more)) {
            *total += more;
        }
    }

    pub(super) fn finish(self) -> Vec<Vec<Statistic>> {
        self.sums.into_iter().map(|sums| sums.finish(self.recipe)).collect()
    }
}

pub(super) fn check_owners(recipe: &Recipe, inputs: &[Input]) -> Result<(), ComputeError> {
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
        let Some(unit) = batch.columns.get(recipe.privacy().unit) else {
            return Vec::new();
        };
        let mut rows = batch.complete(recipe);
        rows.retain(|row| self.first(unit, *row));
        rows
    }

    fn first(&mut self, unit: &Values<'_>, row: usize) -> bool {
        match unit {
            Values::Numbers(_) => unit.number(row).is_some_and(|id| self.numbers.insert(id)),
            Values::Texts(_) => {
                let new = |id: &&str| !self.texts.contains(*id);
                unit.text(row).filter(new).is_some_and(|id| self.texts.insert(id.into()))
            }
            Values::Pseudonyms => false,
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
    /// For each key of the measure its index and the number of groups that one of its groups spans.
    strides: Vec<(usize, usize)>,
    candidates: Option<Candidates>,
    /// Entries per group, for each statistic.
    widths: Vec<usize>,
    totals: Vec<Vec<i128>>,
}

impl<'a> Sums<'a> {
    fn new(recipe: &Recipe, measure: &'a Measure) -> Self {
        let axes: Vec<usize> =
            measure.by.iter().map(|key| recipe.keys().get(*key).map_or(1, |key| key.labels.len())).collect();
        let groups: usize = axes.iter().product();
        let mut span = groups;
        let strides = measure.by.iter().zip(&axes).map(|(key, axis)| {
            span /= (*axis).max(1);
            (*key, span)
        });
        let strides = strides.collect();
        let candidates = match &measure.kind {
            MeasureKind::Quantile { column, bounds, .. } => {
                Some(Candidates::new(measure.round_to, *bounds, units(recipe, *column)))
            }
            _ => None,
        };
        let width = |width: usize| candidates.as_ref().map_or(width, Candidates::places);
        let widths: Vec<usize> = terms(recipe, measure).iter().map(|term| width(term.width)).collect();
        let totals = widths.iter().map(|width| vec![0; groups * width]).collect();
        Self { measure, strides, candidates, widths, totals }
    }

    fn add(&mut self, recipe: &Recipe, batch: &Batch<'_>, rows: &[usize], groups: &[Vec<Option<usize>>]) {
        for row in rows {
            if let Some(group) = self.group(*row, groups) {
                self.add_row(recipe, batch, *row, group);
            }
        }
    }

    fn group(&self, row: usize, groups: &[Vec<Option<usize>>]) -> Option<usize> {
        self.strides.iter().try_fold(0, |index, (key, span)| {
            let group = (*groups.get(*key)?.get(row)?)?;
            Some(index + group * span)
        })
    }

    fn add_row(&mut self, recipe: &Recipe, batch: &Batch<'_>, row: usize, group: usize) {
        let number = |column: usize| batch.columns.get(column).and_then(|values| values.number(row));
        match &self.measure.kind {
            MeasureKind::Count { .. } => self.bump(0, group, 0, 1),
            MeasureKind::Proportion { test, .. } => {
                if passes(recipe, test, batch, row) {
                    self.bump(0, group, 0, 1);
                }
            }
            MeasureKind::Mean { column, bounds, .. } => {
                if let Some(value) = number(*column) {
                    self.bump(0, group, 0, centred(value, *bounds, units(recipe, *column)));
                    self.bump(1, group, 0, 1);
                }
            }
            MeasureKind::Variance { column, bounds, .. } => {
                if let Some(value) = number(*column) {
                    let units = units(recipe, *column);
                    let steps = variance_steps(*bounds, units);
                    let distance = on_steps(value, *bounds, units, steps);
                    self.bump(0, group, 0, distance);
                    self.bump(1, group, 0, 2 * distance * distance - steps * steps);
                    self.bump(2, group, 0, 1);
                }
            }
            MeasureKind::Sum { column, bounds, .. } => {
                if let Some(value) = number(*column) {
                    self.bump(0, group, 0, clamp(value, *bounds, units(recipe, *column)));
                }
            }
            MeasureKind::Histogram { column, edges, .. } => {
                let scale = units(recipe, *column);
                let above = number(*column).map(|value| edges.partition_point(|edge| edge * scale <= value));
                if let Some(bin) =
                    above.and_then(|above| above.checked_sub(1)).filter(|bin| bin + 1 < edges.len())
                {
                    self.bump(0, group, bin, 1);
                }
            }
            MeasureKind::Quantile { column, bounds, .. } => {
                let value = number(*column).map(|value| clamp(value, *bounds, units(recipe, *column)));
                let place = value.zip(self.candidates.as_ref()).map(|(value, among)| among.place(value));
                if let Some(place) = place {
                    self.bump(0, group, place, 1);
                }
            }
            MeasureKind::LinearRegression { target, bounds, features, .. } => {
                let target = number(*target)
                    .map(|value| on_steps(value, *bounds, units(recipe, *target), moments::STEPS));
                self.add_products(recipe, batch, row, group, features, target);
            }
            MeasureKind::LogisticRegression { test, features, .. } => {
                let known = batch.columns.get(test.column).is_some_and(|values| values.is_known(row));
                let sign = if passes(recipe, test, batch, row) { moments::STEPS } else { -moments::STEPS };
                self.add_products(recipe, batch, row, group, features, known.then_some(sign));
            }
            // The script's numbers are put in when it has ended.
            MeasureKind::Emitted { .. } => {}
        }
    }

    /// A person takes part if all features and the target are known.
    fn add_products(
        &mut self,
        recipe: &Recipe,
        batch: &Batch<'_>,
        row: usize,
        group: usize,
        features: &[Feature],
        target: Option<i64>,
    ) {
        let value = |of: &Feature| {
            let number = batch.columns.get(of.column)?.number(row)?;
            Some(feature(recipe, of, number))
        };
        let values: Option<Vec<i64>> = features.iter().map(value).collect();
        if let Some((values, target)) = values.zip(target) {
            for (entry, product) in moments::products(&values, target).enumerate() {
                self.bump(0, group, entry, product);
            }
        }
    }

    fn bump(&mut self, statistic: usize, group: usize, entry: usize, by: i64) {
        let Some(width) = self.widths.get(statistic) else { return };
        let at = group * width + entry;
        if let Some(total) = self.totals.get_mut(statistic).and_then(|totals| totals.get_mut(at)) {
            *total += i128::from(by);
        }
    }

    /// Totals as 64-bit integers; saturating keeps the sensitivity, since it moves no two values apart.
    fn finish(self, recipe: &Recipe) -> Vec<Statistic> {
        let narrow = |total: i128| total.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        let values =
            self.totals.into_iter().map(|totals| totals.into_iter().map(narrow).collect::<Vec<i64>>()).map(
                |values| match (&self.measure.kind, &self.candidates) {
                    (MeasureKind::Quantile { probability, .. }, Some(candidates)) => values
                        .chunks_exact(candidates.places())
                        .flat_map(|places| quantile::scores(places, *probability))
                        .collect(),
                    _ => values,
                },
            );
        let terms = terms(recipe, self.measure).into_iter();
        let statistic = |(term, values): (super::statistic::Term, Vec<i64>)| Statistic {
            mechanism: term.mechanism,
            l1: term.l1,
            l2: term.l2,
            share: term.share,
            width: term.width,
            values,
        };
        terms.zip(values).map(statistic).collect()
    }
}
