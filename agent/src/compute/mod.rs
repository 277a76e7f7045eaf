//! The declared engine: owners' tables in, the recipe's noisy numbers out (docs/spec/recipe.md).
//!
//! Every released number is a function of *statistics*: vectors of integers whose sensitivity to one person
//! follows from the recipe alone. They are released once, by OpenDP's discrete samplers on integers or its
//! selection of a least score; everything after that is post-processing. No row can make a run fail: unusable values are missing,
//! and what is wrong with a file as a whole is one constant code.

mod aggregate;
mod guard;
#[cfg(feature = "dev")]
pub mod insecure_plain;
mod moments;
mod noise;
pub mod prepare;
mod pseudonym;
mod python;
mod quantile;
mod release;
mod rounding;
mod statistic;
mod suppression;
pub mod synthetic;
mod table;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use cohort_protocol::{
    ids::{Label, OwnerId},
    loss::Epsilon,
    recipe::{Engine, Recipe},
};
use serde_json::Value;
use zeroize::Zeroizing;

pub use guard::{GuardError, GuardedOutput, guard};
use noise::Accountant;
pub use python::Sandbox;
use statistic::Statistic;

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
    /// Larger than the agent takes, or not read in time. Which limit it was is not told: rows decide it.
    #[error("the data, or what the recipe makes of it, is larger than this agent takes")]
    InputTooLarge {
        /// Which limit.
        limit: &'static str,
    },
    /// The recipe has a script, and it cannot be confined or started here.
    #[error("the recipe's script cannot be confined on this machine")]
    Sandbox,
    /// The script that the recipe names by hash is not here.
    #[error("the recipe's script is not in the container image")]
    Script,
    /// The recipe's SQL is not proved to keep persons apart.
    #[error(transparent)]
    Prepare(#[from] prepare::PrepareError),
    /// OpenDP's accountant finds that the recipe's mechanisms cost more than the recipe declares.
    #[error("the recipe's mechanisms cost more than it declares")]
    Loss,
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
            Self::InputTooLarge { .. } => "input_too_large",
            Self::Sandbox | Self::Script => "script_unavailable",
            Self::Prepare(_) => "recipe_unproved",
            Self::Loss | Self::Noise => "noise_unavailable",
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

/// What each measure costs by OpenDP's own accounting, and all of them composed: epsilon at the recipe's delta, as
/// floats, rounded up.
#[derive(Debug, Clone, PartialEq)]
pub struct Account {
    /// Loss of each measure, in the recipe's order.
    pub measures: Vec<f64>,
    /// Loss of all of them together.
    pub total: f64,
}

/// Asks OpenDP what a run costs: the privacy map of each mechanism at the sensitivity that follows from the recipe,
/// composed.
///
/// Errors: [`ComputeError::Loss`] if that is more than the recipe declares.
pub fn account(recipe: &Recipe) -> Result<Account, ComputeError> {
    let terms: Vec<Vec<statistic::Term>> =
        recipe.measures().iter().map(|measure| statistic::terms(recipe, measure)).collect();
    let accountant = Accountant::of(recipe.privacy())?;
    let measures: Result<Vec<f64>, ComputeError> = terms.iter().map(|terms| accountant.loss(terms)).collect();
    let total = accountant.loss(&terms.concat())?;
    if total > recipe.epsilon_per_run().as_f64() {
        return Err(ComputeError::Loss);
    }
    Ok(Account { measures: measures?, total })
}

/// Runs a recipe over the datasets of some or all of its owners. The datasets are wiped when it returns.
///
/// `sandbox` is where a Python recipe's script runs; others need none. A result, or an error, is there when
/// [`Recipe::seconds`] are over, or else at the next whole second: how long it took would tell of rows.
pub fn compute(
    recipe: &Recipe,
    inputs: Vec<Input>,
    sandbox: Option<&Sandbox>,
) -> Result<Output, ComputeError> {
    let started = Instant::now();
    let output = compute_at_once(recipe, inputs, sandbox);
    std::thread::sleep(hidden_until(recipe, started.elapsed()).saturating_sub(started.elapsed()));
    output
}

/// [`compute`] without the wait: for benchmarks on rows that are nobody's.
pub fn compute_at_once(
    recipe: &Recipe,
    inputs: Vec<Input>,
    sandbox: Option<&Sandbox>,
) -> Result<Output, ComputeError> {
    let statistics = match recipe.engine() {
        Engine::Declared => exact(recipe, inputs)?,
        Engine::Python(_) => {
            let sandbox = sandbox.ok_or(ComputeError::Sandbox)?;
            python::statistics(recipe, inputs, sandbox, python::Errors::Hidden)?.0
        }
    };
    noisy(recipe, statistics)
}

/// When code of the recipe's author that starts now must have ended: soon enough for all the rest to be done when its
/// seconds are over, or the wait would tell that it was stopped.
fn deadline(seconds: u32) -> Instant {
    const REST: Duration = Duration::from_millis(500);
    Instant::now() + Duration::from_secs(seconds.into()).saturating_sub(REST)
}

/// When what took `elapsed` is used, counted from the start.
fn hidden_until(recipe: &Recipe, elapsed: Duration) -> Duration {
    let whole = elapsed.as_secs().saturating_add(u64::from(elapsed.subsec_nanos() > 0));
    Duration::from_secs(whole.max(recipe.seconds().map_or(0, u64::from)))
}

/// Runs a recipe over synthetic rows that are made here, so that a script's error may be shown; with it, if any. How
/// long it takes may be seen for the same reason: it tells how many seconds to declare.
pub fn rehearse(
    recipe: &Recipe,
    rows: synthetic::Rows,
    sandbox: Option<&Sandbox>,
) -> Result<(Output, Option<String>), ComputeError> {
    let inputs = synthetic::inputs(recipe, rows);
    let (statistics, error) = match recipe.engine() {
        Engine::Declared => (exact(recipe, inputs)?, None),
        Engine::Python(_) => {
            let sandbox = sandbox.ok_or(ComputeError::Sandbox)?;
            python::statistics(recipe, inputs, sandbox, python::Errors::Shown)?
        }
    };
    Ok((noisy(recipe, statistics)?, error))
}

/// The exact statistics of a declared recipe.
fn exact(recipe: &Recipe, inputs: Vec<Input>) -> Result<Vec<Vec<Statistic>>, ComputeError> {
    match recipe.prepare() {
        Some(_) => prepare::statistics(recipe, inputs),
        None => aggregate::statistics(recipe, inputs, &mut aggregate::Nobody),
    }
}

fn noisy(recipe: &Recipe, statistics: Vec<Vec<Statistic>>) -> Result<Output, ComputeError> {
    account(recipe)?;
    let accountant = Accountant::of(recipe.privacy())?;
    let mut epsilon = Epsilon(0);
    let mut noisy = Vec::with_capacity(statistics.len());
    for measure in statistics {
        let mut vectors = Vec::with_capacity(measure.len());
        for statistic in measure {
            epsilon = epsilon.checked_add(statistic.share).ok_or(ComputeError::Noise)?;
            vectors.push(accountant.release(statistic)?);
        }
        noisy.push(vectors);
    }
    Ok(Output { value: release::output(recipe, &noisy, recipe.minimum_group_size()), epsilon })
}
