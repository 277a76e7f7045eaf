//! Noise: OpenDP's discrete Laplace and Gaussian mechanisms on integers and its selection of a least score, with its
//! OpenSSL randomness; and OpenDP's composition of what they cost. Nothing of our own.

use cohort_protocol::{
    loss::Epsilon,
    recipe::{Noise, Privacy},
};
use opendp::{
    combinators::{CompositionMeasure, ConcentratedMeasure as _},
    core::{Measure, Measurement, Metric, MetricSpace},
    domains::{AtomDomain, VectorDomain},
    error::Fallible,
    measurements::{make_gaussian, make_laplace, make_noisy_max},
    measures::{MaxDivergence, PrivacyProfile, ZeroConcentratedDivergence},
    metrics::{L1Distance, L2Distance, LInfDistance},
};

use super::{
    ComputeError,
    statistic::{Mechanism, Statistic, Term},
};

type Domain = VectorDomain<AtomDomain<i64>>;
type Laplace = Measurement<Domain, L1Distance<i64>, MaxDivergence, Vec<i64>>;
type Gaussian = Measurement<Domain, L2Distance<i64>, ZeroConcentratedDivergence, Vec<i64>>;
type LeastScore<M> = Measurement<Domain, LInfDistance<i64>, M, usize>;

/// Steps to a wider scale before giving up; rounding in the map costs a few.
const MAX_STEPS: usize = 1024;

/// A mechanism may lose a little less than its share, so that OpenDP's own sum over a recipe's mechanisms (at most 192,
/// each addition rounded up) stays within the declared cost, and so that the limit is below the exact decimal share.
const WITHIN: f64 = 1.0 - 1e-12;

/// What a recipe's mechanisms may lose, each and all together.
pub(super) struct Accountant {
    noise: Noise,
    epsilon: f64,
    delta: f64,
    /// With Gaussian noise: the loss of a run as zero-concentrated differential privacy.
    rho: f64,
}

impl Accountant {
    /// For Gaussian noise: with the largest rho that OpenDP converts to at most the declared epsilon and delta.
    pub(super) fn of(privacy: &Privacy) -> Result<Self, ComputeError> {
        let (epsilon, delta) = (privacy.epsilon_per_run.as_f64(), privacy.delta_per_run.as_f64());
        let rho = match privacy.noise {
            Noise::Laplace => 0.0,
            Noise::Gaussian => largest_rho(epsilon, delta)?,
        };
        Ok(Self { noise: privacy.noise, epsilon, delta, rho })
    }

    /// What a share of the run's epsilon may lose in the measure of the recipe's noise.
    fn limit(&self, share: Epsilon) -> f64 {
        match self.noise {
            Noise::Laplace => share.as_f64() * WITHIN,
            Noise::Gaussian => self.rho * (share.as_f64() / self.epsilon) * WITHIN,
        }
    }

    /// Releases a statistic within its share: noisy values, or for scores the index of nearly the least of each group.
    pub(super) fn release(&self, statistic: Statistic) -> Result<Vec<i64>, ComputeError> {
        let limit = self.limit(statistic.share);
        let (values, width) = (&statistic.values, statistic.width);
        match (statistic.mechanism, self.noise) {
            (Mechanism::Additive, Noise::Laplace) => {
                laplace(statistic.l1, limit)?.invoke(values).map_err(failed)
            }
            (Mechanism::Additive, Noise::Gaussian) => {
                gaussian(statistic.l2, limit)?.invoke(values).map_err(failed)
            }
            (Mechanism::LeastScore, Noise::Laplace) => {
                pick(&least_score_exponential(statistic.l1, limit)?, values, width)
            }
            (Mechanism::LeastScore, Noise::Gaussian) => {
                pick(&least_score_gumbel(statistic.l1, limit)?, values, width)
            }
        }
    }

    /// What OpenDP's own accountant says that these statistics cost together: each one's privacy map at its
    /// sensitivity, composed, as epsilon at the recipe's delta, rounded up.
    pub(super) fn loss(&self, terms: &[Term]) -> Result<f64, ComputeError> {
        let losses: Result<Vec<f64>, ComputeError> = terms.iter().map(|term| self.loss_of(term)).collect();
        match self.noise {
            Noise::Laplace => MaxDivergence.compose(losses?).map_err(failed),
            Noise::Gaussian => {
                let rho = ZeroConcentratedDivergence.compose(losses?).map_err(failed)?;
                profile(rho)?.epsilon(self.delta).map_err(failed)
            }
        }
    }

    fn loss_of(&self, term: &Term) -> Result<f64, ComputeError> {
        let limit = self.limit(term.share);
        let loss = match (term.mechanism, self.noise) {
            (Mechanism::Additive, Noise::Laplace) => laplace(term.l1, limit)?.map(&term.l1),
            (Mechanism::Additive, Noise::Gaussian) => gaussian(term.l2, limit)?.map(&term.l2),
            (Mechanism::LeastScore, Noise::Laplace) => least_score_exponential(term.l1, limit)?.map(&term.l1),
            (Mechanism::LeastScore, Noise::Gaussian) => least_score_gumbel(term.l1, limit)?.map(&term.l1),
        };
        loss.map_err(failed)
    }

    /// About how far additive noise of a statistic reaches.
    pub(super) fn scale(&self, term: &Term) -> f64 {
        let limit = self.limit(term.share);
        match self.noise {
            Noise::Laplace => term.l1 as f64 / limit,
            Noise::Gaussian => term.l2 as f64 / (2.0 * limit).sqrt(),
        }
    }
}

fn failed(_: opendp::error::Error) -> ComputeError {
    ComputeError::Noise
}

fn profile(rho: f64) -> Result<PrivacyProfile, ComputeError> {
    ZeroConcentratedDivergence::convert(rho).map_err(failed)
}

/// Bisects to the last bit; every candidate is judged by OpenDP's conversion.
fn largest_rho(epsilon: f64, delta: f64) -> Result<f64, ComputeError> {
    // Epsilon alone is above rho for every delta below one half.
    let (mut fits, mut too_much) = (0.0f64, epsilon);
    for _ in 0..128 {
        let middle = fits + (too_much - fits) / 2.0;
        if middle == fits || middle == too_much {
            break;
        }
        if profile(middle)?.delta(epsilon).map_err(failed)? <= delta {
            fits = middle;
        } else {
            too_much = middle;
        }
    }
    if fits > 0.0 { Ok(fits) } else { Err(ComputeError::Loss) }
}

/// The pick of each group of scores.
fn pick<D: Measure>(
    mechanism: &LeastScore<D>,
    scores: &[i64],
    width: usize,
) -> Result<Vec<i64>, ComputeError> {
    let one = |scores: &[i64]| {
        let index = mechanism.invoke(&scores.to_vec()).map_err(failed)?;
        i64::try_from(index).map_err(|_| ComputeError::Noise)
    };
    scores.chunks_exact(width.max(1)).map(one).collect()
}

/// The mechanism with the least noise for which OpenDP's own privacy map stays within the limit (in epsilon).
pub(super) fn laplace(l1: i64, limit: f64) -> Result<Laplace, ComputeError> {
    let make = |scale| make_laplace(Domain::new(AtomDomain::default()), L1Distance::default(), scale, None);
    within(limit, l1 as f64 / limit, l1, make)
}

/// Likewise, with the limit in rho, which is (l2 / scale)^2 / 2.
pub(super) fn gaussian(l2: i64, limit: f64) -> Result<Gaussian, ComputeError> {
    let make = |scale| make_gaussian(Domain::new(AtomDomain::default()), L2Distance::default(), scale, None);
    within(limit, l2 as f64 / (2.0 * limit).sqrt(), l2, make)
}

/// The selection with the least noise for which OpenDP's own privacy map stays within the limit (in epsilon). One
/// person can raise some scores and lower others, which is what the metric's `false` says.
pub(super) fn least_score_exponential(
    score: i64,
    limit: f64,
) -> Result<LeastScore<MaxDivergence>, ComputeError> {
    let make = |scale| {
        let space = (Domain::new(AtomDomain::default()), LInfDistance::new(false));
        make_noisy_max(space.0, space.1, MaxDivergence, scale, true)
    };
    within(limit, 2.0 * score as f64 / limit, score, make)
}

/// Likewise, with the limit in rho, which is (2 score / scale)^2 / 8.
fn least_score_gumbel(
    score: i64,
    limit: f64,
) -> Result<LeastScore<ZeroConcentratedDivergence>, ComputeError> {
    let make = |scale| {
        let space = (Domain::new(AtomDomain::default()), LInfDistance::new(false));
        make_noisy_max(space.0, space.1, ZeroConcentratedDivergence, scale, true)
    };
    within(limit, 2.0 * score as f64 / (8.0 * limit).sqrt(), score, make)
}

/// The least scale from `start` on for which the map, which rounds up, stays within the limit.
fn within<M, D, O>(
    limit: f64,
    start: f64,
    sensitivity: i64,
    make: impl Fn(f64) -> Fallible<Measurement<Domain, M, D, O>>,
) -> Result<Measurement<Domain, M, D, O>, ComputeError>
where
    M: Metric<Distance = i64>,
    D: Measure<Distance = f64>,
    (Domain, M): MetricSpace,
{
    let mut scale = start;
    for _ in 0..MAX_STEPS {
        let mechanism = make(scale).map_err(failed)?;
        if mechanism.map(&sensitivity).map_err(failed)? <= limit {
            return Ok(mechanism);
        }
        scale = scale.next_up();
    }
    Err(ComputeError::Noise)
}
