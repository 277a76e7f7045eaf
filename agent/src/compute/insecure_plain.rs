//! What a central pipeline would see: exact numbers, no noise, nothing withheld.
//!
//! Only for the demo's comparison with "dstack off", behind the feature `dev`. It has no privacy at all, and its
//! result cannot become a [`super::GuardedOutput`] of an attested run, because the agent never calls it.

use cohort_protocol::recipe::Recipe;
use serde_json::Value;

use super::{ComputeError, Input, aggregate, release};

/// The exact table, in the shape of the noisy one. A cell is withheld only where nobody is in it.
pub fn exact_table(recipe: &Recipe, inputs: Vec<Input>) -> Result<Value, ComputeError> {
    let statistics = aggregate::statistics(recipe, inputs)?;
    let values: Vec<Vec<Vec<i64>>> = statistics
        .into_iter()
        .map(|measure| measure.into_iter().map(|statistic| statistic.values).collect())
        .collect();
    Ok(release::output(recipe, &values, 0))
}
