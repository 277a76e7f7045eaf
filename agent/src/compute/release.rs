//! Post-processing: noisy statistics to the output, in declared order. Nothing here sees a row or an exact count.

use cohort_protocol::recipe::{Bounds, Measure, MeasureKind, Recipe};
use serde_json::{Value, json};

use super::{
    moments::{self, Moments},
    noise::Accountant,
    rounding::{MAX_SAFE, nearest, nearest_to},
    statistic::{terms, units, variance_steps, width},
    suppression::{self, Shown},
};

/// The output: per measure its cells with key, value and whether the value is withheld.
///
/// `noisy` holds the noisy vectors per measure; `least` is the noisy count below which a cell is withheld.
pub(super) fn output(recipe: &Recipe, noisy: &[Vec<Vec<i64>>], least: u32) -> Value {
    let mut release = Release { recipe, noisy, shown: Vec::new() };
    release.shown =
        suppression::shown(recipe, |measure, cell| release.persons(measure, cell), i64::from(least));
    let measures: Vec<Value> = recipe
        .measures()
        .iter()
        .enumerate()
        .map(|(index, measure)| release.measure(index, measure))
        .collect();
    json!({ "measures": measures })
}

struct Release<'a> {
    recipe: &'a Recipe,
    noisy: &'a [Vec<Vec<i64>>],
    shown: Shown,
}

impl Release<'_> {
    fn measure(&self, index: usize, measure: &Measure) -> Value {
        let keys = self.recipe.cell_keys(measure);
        let cells = keys.iter().enumerate().map(|(cell, key)| {
            let value = self.value(index, measure, cell);
            json!({ "key": key, "suppressed": value.is_null(), "value": value })
        });
        let cells: Vec<Value> = cells.collect();
        match &measure.unit {
            Some(unit) => {
                json!({ "name": measure.name, "kind": measure.kind.name(), "unit": unit, "cells": cells })
            }
            None => json!({ "name": measure.name, "kind": measure.kind.name(), "cells": cells }),
        }
    }

    /// The noisy number of persons that a cell is about.
    fn persons(&self, index: usize, cell: usize) -> i64 {
        let Some(measure) = self.recipe.measures().get(index) else { return 0 };
        let group = cell / measure.kind.last_axis().len().max(1);
        match &measure.kind {
            MeasureKind::Count { .. } | MeasureKind::Histogram { .. } => self.statistic(index, 0, cell),
            MeasureKind::Mean { .. } => self.statistic(index, 1, cell),
            MeasureKind::Variance { .. } => self.statistic(index, 2, cell),
            MeasureKind::LinearRegression { features, .. }
            | MeasureKind::LogisticRegression { features, .. } => {
                let first = group * moments::count(features.len());
                self.statistic(index, 0, first) / (moments::STEPS * moments::STEPS)
            }
            MeasureKind::Proportion { over, .. }
            | MeasureKind::Sum { over, .. }
            | MeasureKind::Quantile { over, .. }
            | MeasureKind::Emitted { over, .. } => self.statistic(*over, 0, group),
        }
    }

    /// The rounded number of a cell, or null where it is withheld.
    fn value(&self, index: usize, measure: &Measure, cell: usize) -> Value {
        let is_shown = self.shown.get(index).and_then(|cells| cells.get(cell)).copied().unwrap_or(false);
        if !is_shown {
            return Value::Null;
        }
        let step = measure.round_to;
        // Shown cells have at least one person, so that their number can divide.
        let persons = i128::from(self.persons(index, cell).max(1));
        let first = self.statistic(index, 0, cell);
        let (least, most) = self.recipe.range(measure);
        match &measure.kind {
            MeasureKind::Count { .. } | MeasureKind::Histogram { .. } => {
                nearest(persons, 1, step, 0, MAX_SAFE)
            }
            MeasureKind::Proportion { .. } => nearest(first.max(0).into(), persons, step, 0, 1),
            MeasureKind::Mean { column, bounds, .. } => {
                let (numerator, denominator) = mean(first, persons, *bounds, units(self.recipe, *column));
                nearest(numerator, denominator, step, least, most)
            }
            MeasureKind::Variance { column, bounds, .. } => {
                let steps = variance_steps(*bounds, units(self.recipe, *column));
                let value = variance(first, self.statistic(index, 1, cell), persons, steps);
                nearest_to(value * (width(*bounds) as f64 / 2.0).powi(2), step, least, most)
            }
            MeasureKind::Sum { column, .. } => {
                nearest(first.into(), units(self.recipe, *column).into(), step, least, most)
            }
            MeasureKind::Quantile { bounds, .. } => {
                let steps = i128::from(step.ends(*bounds).0) + i128::from(first);
                nearest(steps * i128::from(step.micros()), 1_000_000, step, least, most)
            }
            MeasureKind::Emitted { .. } => {
                nearest(i128::from(first) * i128::from(step.micros()), 1_000_000, step, least, most)
            }
            MeasureKind::LinearRegression { .. } | MeasureKind::LogisticRegression { .. } => {
                nearest_to(self.coefficient(index, measure, cell).unwrap_or(0.0), step, least, most)
            }
        }
    }

    /// One coefficient in the columns' own units.
    fn coefficient(&self, index: usize, measure: &Measure, cell: usize) -> Option<f64> {
        let (features, target, outcome) = match &measure.kind {
            MeasureKind::LinearRegression { bounds, features, .. } => (features, Some(*bounds), 1.0),
            // The second-order expansion of the logistic loss around 0 has its least value at twice the least-squares
            // solution for outcomes of plus and minus 1.
            MeasureKind::LogisticRegression { features, .. } => (features, None, 2.0),
            _ => return None,
        };
        let entries = moments::count(features.len());
        let (group, term) = (cell / (features.len() + 1), cell % (features.len() + 1));
        let vector = self.noisy.get(index)?.first()?;
        let moments = Moments::read(vector.get(group * entries..(group + 1) * entries)?, features.len())?;
        let noise = Accountant::of(self.recipe.privacy()).ok()?.scale(terms(self.recipe, measure).first()?);
        let scaled = moments.solve(noise / (moments::STEPS * moments::STEPS) as f64)?;
        let scaled: Vec<f64> = scaled.iter().map(|beta| outcome * beta).collect();
        let bounds: Vec<Bounds> = features.iter().map(|feature| feature.bounds).collect();
        moments::in_units(&scaled, target, &bounds).get(term).copied()
    }

    fn statistic(&self, measure: usize, which: usize, entry: usize) -> i64 {
        let vector = self.noisy.get(measure).and_then(|vectors| vectors.get(which));
        vector.and_then(|vector| vector.get(entry)).copied().unwrap_or(0)
    }
}

/// Variance of values scaled to plus or minus 1, from the sums of `d` and of `2 d^2 - steps^2`.
fn variance(sum: i64, squares: i64, persons: i128, steps: i64) -> f64 {
    let (persons, steps) = (persons as f64, steps as f64);
    let mean = sum as f64 / persons / steps;
    let mean_of_squares = (squares as f64 / persons / (steps * steps) + 1.0) / 2.0;
    mean_of_squares - mean * mean
}

/// Middle of the bounds plus half the mean of the centred values, as a fraction in whole units.
fn mean(centred: i64, count: i128, bounds: Bounds, units: i64) -> (i128, i128) {
    let units = i128::from(units);
    (i128::from(bounds.lower + bounds.upper) * units * count + i128::from(centred), 2 * units * count)
}
