//! What a central pipeline would see: exact numbers, no noise, nothing withheld.
//!
//! Only for the demo's comparison with "dstack off", behind the feature `dev`. It has no privacy at all, and its
//! result cannot become a [`super::GuardedOutput`] of an attested run, because the agent never calls it.

use cohort_protocol::recipe::Recipe;
use serde_json::Value;

use super::{
    ComputeError, Input, exact, release,
    statistic::{Mechanism, Statistic},
};

/// The exact table, in the shape of the noisy one. A cell is withheld only where nobody is in it.
pub fn exact_table(recipe: &Recipe, inputs: Vec<Input>) -> Result<Value, ComputeError> {
    let statistics = exact(recipe, inputs)?;
    let values: Vec<Vec<Vec<i64>>> =
        statistics.into_iter().map(|measure| measure.into_iter().map(plain).collect()).collect();
    Ok(release::output(recipe, &values, 0))
}

fn plain(statistic: Statistic) -> Vec<i64> {
    let least = |scores: &[i64]| {
        let least = scores.iter().enumerate().min_by_key(|(_, score)| **score);
        least.map_or(0, |(index, _)| index as i64)
    };
    match statistic.mechanism {
        Mechanism::Additive => statistic.values,
        Mechanism::LeastScore => statistic.values.chunks_exact(statistic.width.max(1)).map(least).collect(),
    }
}
