//! Post-processing: noisy statistics to the output, in declared order. Nothing here sees a row or an exact count.

use cohort_protocol::recipe::{Bounds, Measure, MeasureKind, Recipe};
use serde_json::{Value, json};

use super::{
    rounding::{MAX_SAFE, nearest},
    statistic::units,
};

/// The output: per measure its cells with key, value and whether the value is withheld.
///
/// `noisy` holds the noisy vectors per measure; `least` is the noisy count below which a cell is withheld.
pub(super) fn output(recipe: &Recipe, noisy: &[Vec<Vec<i64>>], least: u32) -> Value {
    let release = Release { recipe, noisy, least: i64::from(least) };
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
    least: i64,
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

    /// The rounded number of a cell, or null where it is withheld.
    fn value(&self, index: usize, measure: &Measure, cell: usize) -> Value {
        let step = measure.round_to;
        let first = self.statistic(index, 0, cell);
        match &measure.kind {
            MeasureKind::Count { .. } | MeasureKind::Histogram { .. } => match self.enough(first) {
                Some(count) => nearest(count, 1, step, 0, MAX_SAFE),
                None => Value::Null,
            },
            MeasureKind::Proportion { over, .. } => match self.enough(self.statistic(*over, 0, cell)) {
                Some(count) => nearest(first.max(0).into(), count, step, 0, 1),
                None => Value::Null,
            },
            MeasureKind::Mean { column, bounds, .. } => match self.enough(self.statistic(index, 1, cell)) {
                Some(count) => {
                    let (numerator, denominator) = mean(first, count, *bounds, units(self.recipe, *column));
                    nearest(numerator, denominator, step, bounds.lower, bounds.upper)
                }
                None => Value::Null,
            },
            MeasureKind::Sum { column, over, .. } => match self.enough(self.statistic(*over, 0, cell)) {
                Some(_) => {
                    nearest(first.into(), units(self.recipe, *column).into(), step, -MAX_SAFE, MAX_SAFE)
                }
                None => Value::Null,
            },
        }
    }

    fn statistic(&self, measure: usize, which: usize, cell: usize) -> i64 {
        let vector = self.noisy.get(measure).and_then(|vectors| vectors.get(which));
        vector.and_then(|vector| vector.get(cell)).copied().unwrap_or(0)
    }

    /// A noisy count that is large enough, and at least 1 so that it can divide.
    fn enough(&self, count: i64) -> Option<i128> {
        (count >= self.least.max(1)).then_some(count.into())
    }
}

/// Middle of the bounds plus half the mean of the centred values, as a fraction in whole units.
fn mean(centred: i64, count: i128, bounds: Bounds, units: i64) -> (i128, i128) {
    let units = i128::from(units);
    (i128::from(bounds.lower + bounds.upper) * units * count + i128::from(centred), 2 * units * count)
}
