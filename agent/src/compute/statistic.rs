//! What one person can change: the statistics behind a measure, with sensitivity and share.

use cohort_protocol::{
    loss::Epsilon,
    recipe::{Bounds, Measure, MeasureKind, Recipe},
};

/// A vector of exact integers, one per declared cell.
///
/// Adding or removing all rows of one person changes one entry, by at most `sensitivity`: a person has one row,
/// a row is in at most one cell. So `sensitivity` is also the L1 sensitivity of the whole vector, and cells
/// compose in parallel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statistic {
    pub(super) sensitivity: i64,
    pub(super) share: Epsilon,
    pub(super) values: Vec<i64>,
}

/// Sensitivity and share of each statistic of a measure, in the order in which [`super::release`] reads them.
pub(super) fn terms(recipe: &Recipe, measure: &Measure) -> Vec<(i64, Epsilon)> {
    match &measure.kind {
        MeasureKind::Count { epsilon }
        | MeasureKind::Proportion { epsilon, .. }
        | MeasureKind::Histogram { epsilon, .. } => vec![(1, *epsilon)],
        MeasureKind::Mean { column, bounds, epsilon_sum, epsilon_count } => {
            vec![(width(*bounds) * units(recipe, *column), *epsilon_sum), (1, *epsilon_count)]
        }
        MeasureKind::Sum { column, bounds, epsilon, .. } => {
            let largest = bounds.lower.abs().max(bounds.upper.abs());
            vec![(largest * units(recipe, *column), *epsilon)]
        }
    }
}

/// Fixed-point units in one whole unit of a column.
pub(super) fn units(recipe: &Recipe, column: usize) -> i64 {
    recipe.columns().get(column).map_or(1, |column| column.kind.units())
}

/// A value within its bounds, in fixed-point units.
pub(super) fn clamp(value: i64, bounds: Bounds, units: i64) -> i64 {
    value.clamp(bounds.lower * units, bounds.upper * units)
}

/// Twice the distance of a clamped value from the middle of its bounds: whole, and within plus or minus [`width`]
/// times `units`, which halves the sensitivity against summing values as they are.
pub(super) fn centred(value: i64, bounds: Bounds, units: i64) -> i64 {
    2 * clamp(value, bounds, units) - (bounds.lower + bounds.upper) * units
}

/// Width of the bounds in whole units.
pub(super) const fn width(bounds: Bounds) -> i64 {
    bounds.upper - bounds.lower
}
