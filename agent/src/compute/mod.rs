//! The declared engine: owners' tables in, the recipe's noisy numbers out (docs/spec/recipe.md).
//!
//! Every released number is a function of *statistics*: vectors of integers whose sensitivity to one person
//! follows from the recipe alone. Noise is added to statistics once, by OpenDP's discrete Laplace sampler on
//! integers; everything after that is post-processing. No row can make a run fail: unusable values are missing,
//! and what is wrong with a file as a whole is one constant code.

mod aggregate;
mod guard;
#[cfg(feature = "dev")]
pub mod insecure_plain;
mod noise;
mod release;
mod rounding;
mod statistic;
mod table;
#[cfg(test)]
mod tests;

use cohort_protocol::{
    ids::{Label, OwnerId},
    loss::Epsilon,
    recipe::Recipe,
};
use serde_json::Value;
use zeroize::Zeroizing;

pub use guard::{GuardError, GuardedOutput, guard};

/// One owner's opened dataset: Parquet, or CSV with a header line.
pub type Input = (OwnerId, Zeroizing<Vec<u8>>);

/// Why there is no output. Nothing in it depends on a row's values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ComputeError {
    /// No dataset was given.
    #[error("no dataset was given")]
    NoInput,
    /// A dataset of an owner whom the recipe does not name.
    #[error("recipe does not name owner {owner}")]
    UnknownOwner {
        /// The owner.
        owner: OwnerId,
    },
    /// Two datasets of one owner.
    #[error("owner {owner} has two datasets")]
    RepeatedOwner {
        /// The owner.
        owner: OwnerId,
    },
    /// A dataset lacks a column that the recipe reads, or has it with another type.
    #[error("dataset of {owner} has no column {column} of type {needed}")]
    Schema {
        /// The owner.
        owner: OwnerId,
        /// The recipe's name of the column.
        column: Label,
        /// The recipe's type.
        needed: &'static str,
    },
    /// A dataset is not a readable file. Deliberately without detail.
    #[error("a dataset cannot be read")]
    InputUnusable,
    /// The sampler refused or had no randomness.
    #[error("noise could not be drawn")]
    Noise,
}

impl ComputeError {
    /// Stable code for answers and logs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoInput | Self::UnknownOwner { .. } | Self::RepeatedOwner { .. } => "input_owner",
            Self::Schema { .. } => "input_schema",
            Self::InputUnusable => "input_unusable",
            Self::Noise => "noise_unavailable",
        }
    }
}

/// A noisy output before the guard has looked at it.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    value: Value,
    epsilon: Epsilon,
}

impl Output {
    /// The output, in the shape of the recipe's derived output schema.
    pub const fn value(&self) -> &Value {
        &self.value
    }

    /// What was spent: the exact sum of the shares of the mechanisms that ran.
    pub const fn epsilon(&self) -> Epsilon {
        self.epsilon
    }
}

/// Checks before a run is opened, and so paid for, that its output could pass the guard: the output with every
/// cell withheld must pass.
///
/// Errors: what [`guard`] says about that output, e.g. an output schema that is no JSON Schema.
pub fn preflight(recipe: &Recipe) -> Result<(), GuardError> {
    guard(recipe, &release::output(recipe, &[], recipe.minimum_group_size())).map(drop)
}

/// Runs a recipe over the datasets of some or all of its owners. The datasets are wiped when it returns.
pub fn compute(recipe: &Recipe, inputs: Vec<Input>) -> Result<Output, ComputeError> {
    let statistics = aggregate::statistics(recipe, inputs)?;
    let mut epsilon = Epsilon(0);
    let mut noisy = Vec::with_capacity(statistics.len());
    for measure in statistics {
        let mut vectors = Vec::with_capacity(measure.len());
        for statistic in measure {
            epsilon = epsilon.checked_add(statistic.share).ok_or(ComputeError::Noise)?;
            vectors.push(noise::release(statistic)?);
        }
        noisy.push(vectors);
    }
    Ok(Output { value: release::output(recipe, &noisy, recipe.minimum_group_size()), epsilon })
}
