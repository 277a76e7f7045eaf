//! Regressions from noisy moments: sums of products of one person's scaled values, and the solution of the normal
//! equations, which is post-processing.

use cohort_protocol::recipe::Bounds;

/// Values are read on this many steps either side of the middle of their bounds.
pub(super) const STEPS: i64 = 1 << 10;

/// Entries for `features` features: the upper triangle of z zT with z = (1, x1, ..., xp), then z y.
pub(super) const fn count(features: usize) -> usize {
    let terms = features + 1;
    terms * (terms + 1) / 2 + terms
}

/// How far one person moves the entries in L1: each is a product of two values within plus or minus [`STEPS`].
pub(super) const fn sensitivity(features: usize) -> i64 {
    count(features) as i64 * STEPS * STEPS
}

/// The same in L2, rounded up.
pub(super) const fn sensitivity_l2(features: usize) -> i64 {
    let squared = count(features) as u64;
    let floor = squared.isqrt();
    let root = if floor * floor == squared { floor } else { floor + 1 };
    root as i64 * STEPS * STEPS
}

/// One person's contribution, in the order of [`count`]. All values are within plus or minus [`STEPS`].
pub(super) fn products(features: &[i64], target: i64) -> impl Iterator<Item = i64> {
    let z: Vec<i64> = [STEPS].into_iter().chain(features.iter().copied()).collect();
    let mut all = Vec::with_capacity(count(features.len()));
    for (row, left) in z.iter().enumerate() {
        all.extend(z.iter().skip(row).map(|right| left * right));
    }
    all.extend(z.iter().map(|value| value * target));
    all.into_iter()
}

/// Noisy moments as a symmetric matrix and a right side, in units of persons.
pub(super) struct Moments {
    matrix: Vec<Vec<f64>>,
    right: Vec<f64>,
}

impl Moments {
    /// Reads the entries of one group; `None` if they are not as many as `features` has.
    pub(super) fn read(entries: &[i64], features: usize) -> Option<Self> {
        let terms = features + 1;
        if entries.len() != count(features) {
            return None;
        }
        let unit = (STEPS * STEPS) as f64;
        let mut values = entries.iter().map(|entry| *entry as f64 / unit);
        let mut matrix = vec![vec![0.0; terms]; terms];
        for row in 0..terms {
            for column in row..terms {
                let value = values.next()?;
                *matrix.get_mut(row)?.get_mut(column)? = value;
                *matrix.get_mut(column)?.get_mut(row)? = value;
            }
        }
        Some(Self { matrix, right: values.collect() })
    }

    /// The ridge solution. The ridge starts at the size of the noise and grows until the matrix is positive definite.
    pub(super) fn solve(&self, noise_scale: f64) -> Option<Vec<f64>> {
        let terms = self.right.len();
        // The spectral norm of a symmetric matrix of such noise is about that.
        let mut ridge = noise_scale * (2.0 * terms as f64).sqrt();
        for _ in 0..64 {
            if let Some(solution) = cholesky_solve(&self.matrix, &self.right, ridge) {
                return Some(solution);
            }
            ridge *= 2.0;
        }
        None
    }
}

/// Solves (A + ridge I) x = b by Cholesky's decomposition; `None` unless positive definite.
fn cholesky_solve(matrix: &[Vec<f64>], right: &[f64], ridge: f64) -> Option<Vec<f64>> {
    let n = right.len();
    let mut lower = vec![vec![0.0f64; n]; n];
    for row in 0..n {
        for column in 0..=row {
            let before: f64 = (0..column)
                .map(|k| Some(lower.get(row)?.get(k)? * lower.get(column)?.get(k)?))
                .sum::<Option<f64>>()?;
            let entry = matrix.get(row)?.get(column)? - before;
            let value = if row == column {
                let pivot = entry + ridge;
                (pivot > 1e-9).then(|| pivot.sqrt())?
            } else {
                entry / lower.get(column)?.get(column)?
            };
            *lower.get_mut(row)?.get_mut(column)? = value;
        }
    }
    let mut forward: Vec<f64> = Vec::with_capacity(n);
    for row in 0..n {
        let before: f64 = lower.get(row)?.iter().zip(&forward).map(|(l, y)| l * y).sum();
        forward.push((right.get(row)? - before) / lower.get(row)?.get(row)?);
    }
    let mut solution = vec![0.0; n];
    for row in (0..n).rev() {
        let after: f64 =
            (row + 1..n).map(|k| Some(lower.get(k)?.get(row)? * solution.get(k)?)).sum::<Option<f64>>()?;
        *solution.get_mut(row)? = (forward.get(row)? - after) / lower.get(row)?.get(row)?;
    }
    solution.iter().all(|value: &f64| value.is_finite()).then_some(solution)
}

/// Coefficients in the columns' own units, intercept first, from those over values scaled to plus or minus 1.
/// `target` is the target's bounds; a logistic regression has none.
pub(super) fn in_units(scaled: &[f64], target: Option<Bounds>, features: &[Bounds]) -> Vec<f64> {
    let half = |bounds: &Bounds| (bounds.upper - bounds.lower) as f64 / 2.0;
    let middle = |bounds: &Bounds| (bounds.upper + bounds.lower) as f64 / 2.0;
    let (origin, reach) = target.map_or((0.0, 1.0), |bounds| (middle(&bounds), half(&bounds)));
    let slopes: Vec<f64> =
        scaled.iter().skip(1).zip(features).map(|(beta, bounds)| reach * beta / half(bounds)).collect();
    let shift: f64 = slopes.iter().zip(features).map(|(slope, bounds)| slope * middle(bounds)).sum();
    let intercept = origin + reach * scaled.first().copied().unwrap_or_default() - shift;
    [intercept].into_iter().chain(slopes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// y = 30 + 2 a - 0.5 b without noise comes back as it is.
    #[test]
    fn exact_moments_give_the_exact_line() {
        let (a, b, y) = (
            Bounds { lower: 0, upper: 100 },
            Bounds { lower: -20, upper: 20 },
            Bounds { lower: 0, upper: 400 },
        );
        let on = |value: f64, bounds: Bounds| {
            let half = (bounds.upper - bounds.lower) as f64 / 2.0;
            ((value - (bounds.upper + bounds.lower) as f64 / 2.0) / half * STEPS as f64).round() as i64
        };
        let mut sums = vec![0i64; count(2)];
        for i in 0..1000 {
            let (x1, x2) = (f64::from(i * 37 % 101), f64::from(i * 53 % 41) - 20.0);
            let target = 30.0 + 2.0 * x1 - 0.5 * x2;
            for (sum, product) in sums.iter_mut().zip(products(&[on(x1, a), on(x2, b)], on(target, y))) {
                *sum += product;
            }
        }
        let moments = Moments::read(&sums, 2).unwrap();
        let coefficients = in_units(&moments.solve(1e-6).unwrap(), Some(y), &[a, b]);
        for (found, expected) in coefficients.iter().zip([30.0, 2.0, -0.5]) {
            assert!((found - expected).abs() < 0.2, "{coefficients:?}");
        }
    }

    #[test]
    fn noise_alone_still_has_a_solution() {
        let entries: Vec<i64> = (0..count(3)).map(|i| ((i * 7919) % 2001) as i64 - 1000).collect();
        assert!(Moments::read(&entries, 3).unwrap().solve(0.5).is_some());
        assert!(Moments::read(&entries, 2).is_none());
    }
}
