//! Why a recipe is refused: one variant per rule, naming the place and what is allowed there.

use crate::json::CanonicalError;
use crate::loss::Epsilon;

/// A `cohort` section that is not a recipe of version 1.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The section is larger than the limit.
    #[error("recipe is {got} bytes in canonical form, the limit is {limit}")]
    Size {
        /// Bytes of the canonical form.
        got: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A field is unknown, missing or of the wrong JSON type.
    #[error("recipe does not follow the grammar of docs/spec/recipe.md")]
    Grammar(#[source] serde_json::Error),
    /// The section has no canonical form.
    #[error("recipe has no canonical form")]
    Canonical(#[source] CanonicalError),
    /// An integer that other JSON readers would round.
    #[error("number at {at} is outside -(2^53-1) to 2^53-1 or not finite")]
    UnsafeNumber {
        /// JSON pointer of the number.
        at: String,
    },
    /// Another version of the format.
    #[error("recipe version {0} is not known, this program reads version 1")]
    Version(u64),
    /// Another engine.
    #[error("engine {0:?} is not known, this program runs \"declared\" and \"python\"")]
    Engine(String),
    /// Text that people will read is empty, too long or has control characters.
    #[error("{at} must be 1 to {limit} printable characters")]
    Text {
        /// Which text.
        at: String,
        /// Most characters allowed.
        limit: usize,
    },
    /// A list has too few or too many entries.
    #[error("{at} has {got} entries, allowed are {least} to {most}")]
    Length {
        /// Which list.
        at: String,
        /// How many it has.
        got: usize,
        /// Fewest allowed.
        least: usize,
        /// Most allowed.
        most: usize,
    },
    /// The same name or value twice in one list.
    #[error("{at} has {what} twice")]
    Duplicate {
        /// Which list.
        at: String,
        /// The repeated entry.
        what: String,
    },
    /// A reference to something the recipe does not declare.
    #[error("{at} names {kind} {name:?}, which the recipe does not declare")]
    Unknown {
        /// Where the reference stands.
        at: String,
        /// What should have been declared: column, key or count measure.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// A column whose type the place cannot use, or a value not of the column's type.
    #[error("{at}: column {column:?} is {got}, needed is {needed}")]
    Type {
        /// Where.
        at: String,
        /// The column.
        column: String,
        /// Its type.
        got: &'static str,
        /// What the place takes.
        needed: &'static str,
    },
    /// `decimals` on a column that is not float64, absent on one that is, or above the limit.
    #[error("column {column:?}: decimals (0 to 6) belong to float64 columns and to no other")]
    Decimals {
        /// The column.
        column: String,
    },
    /// The privacy unit may not be missing by declaration.
    #[error("privacy unit {column:?} must be declared with nullable false and without missing values")]
    NullableUnit {
        /// The column.
        column: String,
    },
    /// Bounds that are not increasing or too large.
    #[error("{at}: bounds must be integers with lower < upper, each within -1000000000 to 1000000000")]
    Bounds {
        /// Which measure.
        at: String,
    },
    /// Edges that are not strictly increasing or too large.
    #[error("{at}: edges must increase strictly, each within -1000000000 to 1000000000")]
    Edges {
        /// Which key or measure.
        at: String,
    },
    /// A key must have exactly one of `bands` and `categories`.
    #[error("key {key:?} must have either bands or categories")]
    Groups {
        /// The key.
        key: String,
    },
    /// A measure has more cells than the limit.
    #[error("measure {measure:?} has {got} cells, the limit is {limit}")]
    Cells {
        /// The measure.
        measure: String,
        /// Cells it would have.
        got: usize,
        /// The limit.
        limit: usize,
    },
    /// Outputs could be larger than may leave, so that runs would be paid for and then refused.
    #[error("an output may need {got} bytes, the limit is {limit}; use fewer cells or shorter names")]
    OutputSize {
        /// Bytes of the largest output.
        got: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// `over` must name a count measure with the same keys in the same order.
    #[error("measure {measure:?}: over must name a count measure with the same keys, {over:?} is not one")]
    Over {
        /// The measure.
        measure: String,
        /// What it named.
        over: String,
    },
    /// A comparison that the value's type does not have.
    #[error("measure {measure:?}: text and true/false compare only with = and !=")]
    Comparison {
        /// The measure.
        measure: String,
    },
    /// A share too small to run.
    #[error("measure {measure:?}: each epsilon share must be at least {least}")]
    Share {
        /// The measure.
        measure: String,
        /// Smallest share.
        least: Epsilon,
    },
    /// The shares are not the declared cost.
    #[error("the measures' epsilon shares sum to {sum}, privacy.epsilon_per_run is {declared}")]
    Shares {
        /// Exact sum of the shares.
        sum: Epsilon,
        /// What the recipe declares.
        declared: Epsilon,
    },
    /// The sum of the shares does not fit.
    #[error("the measures' epsilon shares do not fit 64 bits")]
    SharesOverflow,
    /// The budget cannot pay for one run.
    #[error("privacy.epsilon_budget {budget} is below epsilon_per_run {per_run}")]
    Budget {
        /// The budget.
        budget: Epsilon,
        /// Cost of one run.
        per_run: Epsilon,
    },
    /// A delta that does not fit the noise.
    #[error("privacy.delta {0}")]
    Delta(&'static str),
    /// The section `prepare`, or its absence.
    #[error("prepare {0}")]
    Prepare(&'static str),
    /// A rounding step that is no positive decimal, fractional where the measure is whole, or wider than its range.
    #[error(
        "{at}: round_to must be a positive decimal with at most 6 places, whole for count, histogram and sum, \
         no wider than the range of the others, and for a quantile with 2 to 4096 multiples in it (got {text:?})"
    )]
    Round {
        /// Which measure.
        at: String,
        /// What was given.
        text: String,
    },
    /// Minimum group size out of range.
    #[error("minimum_group_size must be 1 to {limit}")]
    MinimumGroup {
        /// Largest allowed.
        limit: u32,
    },
    /// The section `python`, or its absence.
    #[error("python {0}")]
    Python(&'static str),
    /// A quantile that is none.
    #[error("measure {measure:?}: probability must be a decimal between 0 and 1 with at most 3 places")]
    Probability {
        /// Which measure.
        measure: String,
    },
    /// A declared sensitivity that is no positive decimal.
    #[error("{at}: sensitivity must be a positive decimal with at most 6 places (got {text:?})")]
    Sensitivity {
        /// Which measure.
        at: String,
        /// What was given.
        text: String,
    },
    /// A number of GPUs out of range.
    #[error("gpu.count is {got}, allowed are 1 to 16")]
    Gpus {
        /// As stated.
        got: u32,
    },
    /// The output schema is not usable.
    #[error("output_schema {0}")]
    OutputSchema(&'static str),
}
