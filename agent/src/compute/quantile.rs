//! Quantiles: scores of declared candidates, of which the mechanism picks nearly the least.

use cohort_protocol::recipe::{Bounds, Fraction, Step};

/// Where values fall among candidates: below, on, or above each. `2c + 1` places for `c` candidates.
pub(super) struct Candidates {
    /// In millionths of a fixed-point unit, so that both grids are whole.
    scaled: Vec<i128>,
}

impl Candidates {
    /// The multiples of `step` within `bounds`, for a column with `units` fixed-point units in a whole one.
    pub(super) fn new(step: Step, bounds: Bounds, units: i64) -> Self {
        let (first, last) = step.ends(bounds);
        let scaled =
            (first..=last).map(|steps| i128::from(steps) * i128::from(step.micros()) * i128::from(units));
        Self { scaled: scaled.collect() }
    }

    /// How many places there are.
    pub(super) fn places(&self) -> usize {
        2 * self.scaled.len() + 1
    }

    /// The place of a value in fixed-point units: odd on a candidate, even between two.
    pub(super) fn place(&self, value: i64) -> usize {
        let value = i128::from(value) * i128::from(Step::ONE);
        let below = self.scaled.partition_point(|candidate| *candidate < value);
        2 * below + usize::from(self.scaled.get(below) == Some(&value))
    }
}

/// The score of each candidate from the number of persons in each place: |(d - a) L - a G|, where a/d is the
/// probability, L persons are below the candidate and G above. The quantile has the least.
pub(super) fn scores(places: &[i64], probability: Fraction) -> Vec<i64> {
    let (below_weight, above_weight) = weights(probability);
    let total: i128 = places.iter().map(|count| i128::from(*count)).sum();
    let mut below = 0;
    let mut scores = Vec::with_capacity(places.len() / 2);
    for pair in places.chunks_exact(2) {
        let [between, on] = pair else { continue };
        below += i128::from(*between);
        let above = total - below - i128::from(*on);
        let score = (i128::from(below_weight) * below - i128::from(above_weight) * above).abs();
        scores.push(score.min(i64::MAX.into()) as i64);
        below += i128::from(*on);
    }
    scores
}

/// How far one person moves any score: the larger weight, since a person is below, on or above a candidate.
pub(super) fn sensitivity(probability: Fraction) -> i64 {
    let (below, above) = weights(probability);
    below.max(above)
}

fn weights(probability: Fraction) -> (i64, i64) {
    let (numerator, denominator) = (i64::from(probability.numerator()), i64::from(probability.denominator()));
    (denominator - numerator, numerator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_score_is_the_quantile() {
        let bounds = Bounds { lower: 0, upper: 10 };
        let candidates = Candidates::new(Step::parse("1").unwrap(), bounds, 10);
        let mut places = vec![0; candidates.places()];
        for value in [0, 15, 20, 20, 31, 40, 99] {
            places[candidates.place(value)] += 1;
        }
        for (probability, expected) in [("0.5", 2), ("0.3", 2), ("0.9", 5), ("0.01", 0)] {
            let scores = scores(&places, Fraction::parse(probability).unwrap());
            assert_eq!(scores.len(), 11);
            let least = (0..11).min_by_key(|index| scores[*index]).unwrap();
            assert_eq!(least, expected, "{probability}: {scores:?}");
        }
    }
}
