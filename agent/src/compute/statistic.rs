//! What one person can change: the statistics behind a measure, with sensitivity and share.

use cohort_protocol::{
    loss::Epsilon,
    recipe::{Bounds, Feature, Measure, MeasureKind, Recipe},
};

use super::{moments, quantile};

/// Values of a variance are read on this many steps on either side of the middle of their bounds: their squares
/// then add up over 10^8 persons within 64 bits.
pub(super) const VARIANCE_STEPS: i64 = 1 << 18;

/// How a statistic is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mechanism {
    /// Discrete Laplace or Gaussian noise on every entry.
    Additive,
    /// For each cell the index of (nearly) the least score; both sensitivities are that of each score, and one
    /// person's row is in one cell.
    LeastScore,
}

/// A vector of exact integers, `width` of them for each group of the measure's keys.
///
/// A person has one row, and a row is in at most one group: adding or removing a person changes entries of one group
/// only. So what holds for one group holds for the whole vector, and groups compose in parallel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statistic {
    pub(super) mechanism: Mechanism,
    /// How far one person moves the whole vector in L1: what Laplace noise hides.
    pub(super) l1: i64,
    /// The same in L2, rounded up: what Gaussian noise hides.
    pub(super) l2: i64,
    pub(super) share: Epsilon,
    pub(super) width: usize,
    pub(super) values: Vec<i64>,
}

/// Everything about a statistic that follows from the recipe alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Term {
    pub(super) mechanism: Mechanism,
    /// How far one person moves the whole vector in L1: what Laplace noise hides.
    pub(super) l1: i64,
    /// The same in L2, rounded up: what Gaussian noise hides.
    pub(super) l2: i64,
    pub(super) share: Epsilon,
    /// Entries per group.
    pub(super) width: usize,
}

impl Term {
    const fn noise(sensitivity: i64, share: Epsilon) -> Self {
        Self { mechanism: Mechanism::Additive, l1: sensitivity, l2: sensitivity, share, width: 1 }
    }

    /// With a smaller sensitivity in L2 than in L1.
    const fn spread(self, l2: i64) -> Self {
        Self { l2, ..self }
    }

    const fn wide(self, width: usize) -> Self {
        Self { width, ..self }
    }
}

/// The statistics of a measure, in the order in which [`super::release`] reads them.
pub(super) fn terms(recipe: &Recipe, measure: &Measure) -> Vec<Term> {
    match &measure.kind {
        MeasureKind::Count { epsilon } | MeasureKind::Proportion { epsilon, .. } => {
            vec![Term::noise(1, *epsilon)]
        }
        MeasureKind::Histogram { epsilon, bins, .. } => vec![Term::noise(1, *epsilon).wide(bins.len())],
        MeasureKind::Mean { column, bounds, epsilon_sum, epsilon_count } => {
            let reach = width(*bounds) * units(recipe, *column);
            vec![Term::noise(reach, *epsilon_sum), Term::noise(1, *epsilon_count)]
        }
        MeasureKind::Variance { column, bounds, epsilon_sum, epsilon_squares, epsilon_count } => {
            let steps = variance_steps(*bounds, units(recipe, *column));
            vec![
                Term::noise(steps, *epsilon_sum),
                Term::noise(steps * steps, *epsilon_squares),
                Term::noise(1, *epsilon_count),
            ]
        }
        MeasureKind::Sum { column, bounds, epsilon, .. } => {
            let largest = bounds.lower.abs().max(bounds.upper.abs());
            vec![Term::noise(largest * units(recipe, *column), *epsilon)]
        }
        MeasureKind::Quantile { bounds, probability, epsilon, .. } => vec![Term {
            mechanism: Mechanism::LeastScore,
            ..Term::noise(quantile::sensitivity(*probability), *epsilon)
                .wide(measure.round_to.multiples(*bounds))
        }],
        MeasureKind::LinearRegression { features, epsilon, .. }
        | MeasureKind::LogisticRegression { features, epsilon, .. } => {
            vec![
                Term::noise(moments::sensitivity(features.len()), *epsilon)
                    .spread(moments::sensitivity_l2(features.len()))
                    .wide(moments::count(features.len())),
            ]
        }
        MeasureKind::Emitted { labels, sensitivity, epsilon, .. } => {
            let sensitivity = i64::try_from(*sensitivity).unwrap_or(i64::MAX);
            vec![Term::noise(sensitivity, *epsilon).wide(labels.len().max(1))]
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

/// [`centred`] on a coarser grid of `steps` either side of the middle: within plus or minus `steps`.
pub(super) fn on_steps(value: i64, bounds: Bounds, units: i64, steps: i64) -> i64 {
    let reach = i128::from(width(bounds) * units);
    let scaled = i128::from(centred(value, bounds, units)) * i128::from(steps);
    // Halves go up; the result is within plus or minus `steps`, so the cast is exact.
    (2 * scaled + reach).div_euclid(2 * reach) as i64
}

/// The grid of a variance: the column's own where that is not finer.
pub(super) fn variance_steps(bounds: Bounds, units: i64) -> i64 {
    (width(bounds) * units).min(VARIANCE_STEPS)
}

/// A feature's value on the grid of regressions.
pub(super) fn feature(recipe: &Recipe, feature: &Feature, value: i64) -> i64 {
    on_steps(value, feature.bounds, units(recipe, feature.column), moments::STEPS)
}

/// Width of the bounds in whole units.
pub(super) const fn width(bounds: Bounds) -> i64 {
    bounds.upper - bounds.lower
}
