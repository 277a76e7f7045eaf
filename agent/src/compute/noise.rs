//! Noise: OpenDP's discrete Laplace mechanism on integers, with its OpenSSL randomness. Nothing of our own.

use opendp::{
    core::Measurement,
    domains::{AtomDomain, VectorDomain},
    measurements::make_laplace,
    measures::MaxDivergence,
    metrics::L1Distance,
};

use super::{ComputeError, statistic::Statistic};
use cohort_protocol::loss::Epsilon;

type Domain = VectorDomain<AtomDomain<i64>>;
type Mechanism = Measurement<Domain, L1Distance<i64>, MaxDivergence, Vec<i64>>;

/// Steps to a wider scale before giving up; rounding in the map costs one or two.
const MAX_STEPS: usize = 64;

/// Adds noise to a statistic, within its share.
pub(super) fn release(statistic: Statistic) -> Result<Vec<i64>, ComputeError> {
    let mechanism = mechanism(statistic.sensitivity, statistic.share)?;
    mechanism.invoke(&statistic.values).map_err(|_| ComputeError::Noise)
}

/// The mechanism with the least noise for which OpenDP's own privacy map stays within the share.
///
/// `as_f64` is the share correctly rounded, so the float below it is below the exact decimal share, and what the
/// map (which rounds up) reports is compared with that.
pub(super) fn mechanism(sensitivity: i64, share: Epsilon) -> Result<Mechanism, ComputeError> {
    let limit = share.as_f64().next_down();
    let mut scale = sensitivity as f64 / limit;
    for _ in 0..MAX_STEPS {
        let space = (Domain::new(AtomDomain::default()), L1Distance::default());
        let mechanism: Mechanism =
            make_laplace(space.0, space.1, scale, None).map_err(|_| ComputeError::Noise)?;
        let loss = mechanism.map(&sensitivity).map_err(|_| ComputeError::Noise)?;
        if loss <= limit {
            return Ok(mechanism);
        }
        scale = scale.next_up();
    }
    Err(ComputeError::Noise)
}
