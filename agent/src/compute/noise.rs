//! Noise: OpenDP's discrete Laplace mechanism on integers and its selection of a least score, with its OpenSSL
//! randomness; and OpenDP's composition of what they cost. Nothing of our own.

use opendp::{
    combinators::CompositionMeasure,
    core::Measurement,
    domains::{AtomDomain, VectorDomain},
    measurements::{make_laplace, make_noisy_max},
    measures::MaxDivergence,
    metrics::{L1Distance, LInfDistance},
};

use super::{
    ComputeError,
    statistic::{Mechanism, Statistic, Term},
};
use cohort_protocol::loss::Epsilon;

type Domain = VectorDomain<AtomDomain<i64>>;
type Laplace = Measurement<Domain, L1Distance<i64>, MaxDivergence, Vec<i64>>;
type LeastScore = Measurement<Domain, LInfDistance<i64>, MaxDivergence, usize>;

/// Steps to a wider scale before giving up; rounding in the map costs one or two.
const MAX_STEPS: usize = 64;

/// Releases a statistic within its share: noisy values, or for scores the index of nearly the least of each group.
pub(super) fn release(statistic: Statistic) -> Result<Vec<i64>, ComputeError> {
    let failed = |_| ComputeError::Noise;
    match statistic.mechanism {
        Mechanism::Laplace => {
            laplace(statistic.sensitivity, statistic.share)?.invoke(&statistic.values).map_err(failed)
        }
        Mechanism::LeastScore => {
            let mechanism = least_score(statistic.sensitivity, statistic.share)?;
            let pick = |scores: &[i64]| {
                let index = mechanism.invoke(&scores.to_vec()).map_err(failed)?;
                i64::try_from(index).map_err(|_| ComputeError::Noise)
            };
            statistic.values.chunks_exact(statistic.width.max(1)).map(pick).collect()
        }
    }
}

/// What OpenDP's own accountant says that these statistics cost together, as a float that is rounded up: each one's
/// privacy map at its sensitivity, composed.
pub(super) fn loss(terms: &[Term]) -> Result<f64, ComputeError> {
    let one = |term: &Term| {
        let loss = match term.mechanism {
            Mechanism::Laplace => laplace(term.sensitivity, term.share)?.map(&term.sensitivity),
            Mechanism::LeastScore => least_score(term.sensitivity, term.share)?.map(&term.sensitivity),
        };
        loss.map_err(|_| ComputeError::Noise)
    };
    let losses: Result<Vec<f64>, ComputeError> = terms.iter().map(one).collect();
    MaxDivergence.compose(losses?).map_err(|_| ComputeError::Noise)
}

/// The mechanism with the least noise for which OpenDP's own privacy map stays within the share.
pub(super) fn laplace(sensitivity: i64, share: Epsilon) -> Result<Laplace, ComputeError> {
    let make = |scale| make_laplace(Domain::new(AtomDomain::default()), L1Distance::default(), scale, None);
    within_share(share, sensitivity as f64, sensitivity, make)
}

/// The selection with the least noise for which OpenDP's own privacy map stays within the share. One person can
/// raise some scores and lower others, which is what the metric's `false` says.
pub(super) fn least_score(sensitivity: i64, share: Epsilon) -> Result<LeastScore, ComputeError> {
    let make = |scale| {
        let space = (Domain::new(AtomDomain::default()), LInfDistance::new(false));
        make_noisy_max(space.0, space.1, MaxDivergence, scale, true)
    };
    within_share(share, 2.0 * sensitivity as f64, sensitivity, make)
}

/// A mechanism may lose a little less than its share, so that OpenDP's own sum over a recipe's mechanisms (at most 192,
/// each addition rounded up) stays within the declared cost, and so that the limit is below the exact decimal share.
const WITHIN: f64 = 1.0 - 1e-12;

/// The least scale from `reach / limit` on for which the map, which rounds up, stays within the limit.
fn within_share<M, O>(
    share: Epsilon,
    reach: f64,
    sensitivity: i64,
    make: impl Fn(f64) -> opendp::error::Fallible<Measurement<Domain, M, MaxDivergence, O>>,
) -> Result<Measurement<Domain, M, MaxDivergence, O>, ComputeError>
where
    M: opendp::core::Metric<Distance = i64>,
    (Domain, M): opendp::core::MetricSpace,
{
    let limit = share.as_f64() * WITHIN;
    let mut scale = reach / limit;
    for _ in 0..MAX_STEPS {
        let mechanism = make(scale).map_err(|_| ComputeError::Noise)?;
        let loss = mechanism.map(&sensitivity).map_err(|_| ComputeError::Noise)?;
        if loss <= limit {
            return Ok(mechanism);
        }
        scale = scale.next_up();
    }
    Err(ComputeError::Noise)
}
