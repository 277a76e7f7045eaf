//! A checked recipe's parts. References between them are indices that the parser has resolved.

use std::fmt;

use alloy::primitives::B256;
use serde::Deserialize;

use crate::{
    ids::Label,
    loss::{Delta, Epsilon},
};

/// Type of a column, the same in every owner's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// 64-bit signed integer.
    Int64,
    /// 64-bit float, read as a fixed-point number with this many decimal places (0 to 6).
    Float64 {
        /// Decimal places kept.
        decimals: u8,
    },
    /// Text.
    Utf8,
    /// True or false.
    Bool,
}

impl ColumnType {
    /// The name in the recipe: `int64`, `float64`, `utf8` or `bool`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Int64 => "int64",
            Self::Float64 { .. } => "float64",
            Self::Utf8 => "utf8",
            Self::Bool => "bool",
        }
    }

    /// How many fixed-point units one whole unit has: a power of ten, 1 for everything but float64.
    pub const fn units(self) -> i64 {
        match self {
            Self::Float64 { decimals } => 10i64.pow(decimals as u32),
            _ => 1,
        }
    }

    /// Whether the column holds numbers.
    pub const fn is_number(self) -> bool {
        matches!(self, Self::Int64 | Self::Float64 { .. })
    }
}

/// A value written in a recipe. Numbers are whole units of their column.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Literal {
    /// True or false.
    Bool(bool),
    /// Whole number.
    Int(i64),
    /// Text.
    Text(String),
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Int(value) => value.fmt(f),
            Self::Text(value) => value.fmt(f),
        }
    }
}

/// A column that the recipe reads; all others in a file are ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Name in the file.
    pub name: Label,
    /// Type in the file.
    pub kind: ColumnType,
    /// Whether a value may be absent. A row without a value in a column that may not is left out.
    pub nullable: bool,
    /// Values that stand for "not known" and are read as absent.
    pub missing_values: Vec<Literal>,
}

/// Which noise a recipe's numbers get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Noise {
    /// Discrete Laplace; selections with exponential noise. Purely epsilon-private.
    #[default]
    Laplace,
    /// Discrete Gaussian; selections with Gumbel noise. Accounted as zero-concentrated differential privacy, with a delta.
    Gaussian,
}

/// What the recipe promises about privacy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Privacy {
    /// Index of the column that identifies a person: within one owner's data, or with `prepare` at all owners alike.
    pub unit: usize,
    /// Cost of one run.
    pub epsilon_per_run: Epsilon,
    /// Cost of all runs together.
    pub epsilon_budget: Epsilon,
    /// Which noise.
    pub noise: Noise,
    /// Failure probability of one run; zero exactly for [`Noise::Laplace`].
    pub delta_per_run: Delta,
    /// Failure probability of all runs together.
    pub delta_budget: Delta,
}

/// A derived key: sorts rows into groups that the recipe lists, so that no group depends on data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Name in the output.
    pub name: Label,
    /// Index of the column.
    pub column: usize,
    /// The groups.
    pub groups: Groups,
    /// Their names in the output, in order.
    pub labels: Vec<String>,
}

/// The groups of a key. A row in none of them is in no cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Groups {
    /// Below the first edge, between each two (lower included), from the last on: one more group than edges.
    Bands(Vec<i64>),
    /// One group per value.
    Categories(Vec<Literal>),
}

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        })
    }
}

/// A test on one column of a row. An absent value passes no test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Predicate {
    /// Index of the column.
    pub column: usize,
    /// The comparison.
    pub op: Op,
    /// What it compares with, of the column's type.
    pub value: Literal,
}

/// Rounding step of a released number: a positive multiple of 1e-6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    micros: u64,
}

impl Step {
    /// Millionths in one.
    pub const ONE: u64 = 1_000_000;
    const MOST: u64 = 1_000_000_000 * Self::ONE;

    /// Reads a decimal such as `1`, `5`, `0.1` with at most six places, above 0 and at most 1000000000.
    pub fn parse(text: &str) -> Option<Self> {
        let nanos = text.parse::<Epsilon>().ok()?.0;
        let micros = nanos / 1000;
        (nanos % 1000 == 0 && (1..=Self::MOST).contains(&micros)).then_some(Self { micros })
    }

    /// The step in millionths.
    pub const fn micros(self) -> u64 {
        self.micros
    }

    /// How many multiples lie within bounds; saturates.
    pub fn multiples(self, bounds: Bounds) -> usize {
        let (first, last) = self.ends(bounds);
        usize::try_from(last.saturating_sub(first).saturating_add(1)).unwrap_or(0)
    }

    /// The least and the greatest multiple within bounds, as numbers of steps.
    pub fn ends(self, bounds: Bounds) -> (i64, i64) {
        let step = i128::from(self.micros.max(1));
        let micros = |whole: i64| i128::from(whole) * i128::from(Self::ONE);
        let narrow = |steps: i128| steps.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        (narrow(-(-micros(bounds.lower)).div_euclid(step)), narrow(micros(bounds.upper).div_euclid(step)))
    }

    /// Whether every multiple is a whole number.
    pub const fn is_whole(self) -> bool {
        self.micros.is_multiple_of(Self::ONE)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Epsilon(self.micros * 1000).fmt(f)
    }
}

/// Declared bounds, in whole units of the column; values outside are moved to the nearer bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Least value.
    pub lower: i64,
    /// Greatest value.
    pub upper: i64,
}

/// A column that a regression uses, with its declared bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature {
    /// Index of the column.
    pub column: usize,
    /// Declared bounds.
    pub bounds: Bounds,
}

/// A number strictly between 0 and 1 with at most three decimal places, in lowest terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fraction {
    numerator: u16,
    denominator: u16,
}

impl Fraction {
    /// Reads a decimal such as `0.5` or `0.975`.
    pub fn parse(text: &str) -> Option<Self> {
        let nanos = text.parse::<Epsilon>().ok()?.0;
        let thousandths = u16::try_from(nanos / 1_000_000).ok()?;
        if !nanos.is_multiple_of(1_000_000) || !(1..1000).contains(&thousandths) {
            return None;
        }
        let shared = gcd(thousandths, 1000);
        Some(Self { numerator: thousandths / shared, denominator: 1000 / shared })
    }

    /// Above the line.
    pub const fn numerator(self) -> u16 {
        self.numerator
    }

    /// Below the line.
    pub const fn denominator(self) -> u16 {
        self.denominator
    }
}

impl fmt::Display for Fraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Epsilon(u64::from(self.numerator) * 1_000_000_000 / u64::from(self.denominator)).fmt(f)
    }
}

const fn gcd(a: u16, b: u16) -> u16 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// What computes the measures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Engine {
    /// The platform, from declared measures alone.
    Declared,
    /// A script, whose numbers the platform clamps, rounds and adds noise to.
    Python(Python),
}

/// A script and its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Python {
    /// What runs.
    pub script: Script,
    /// Seconds from the start of the script to the release, whatever the script does.
    pub seconds: u32,
    /// Address space of the script's process, in MiB.
    pub memory_mib: u32,
}

/// Where a script comes from; either way its bytes are pinned by the compose hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Script {
    /// It stands in the recipe.
    Text(String),
    /// It is in the container image, and its bytes have this SHA-256.
    Sha256(B256),
}

/// One number per cell of the keys in `by`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measure {
    /// Name in the output.
    pub name: Label,
    /// Indices of the keys, in the order of the cell's key.
    pub by: Vec<usize>,
    /// Rounding of the released number.
    pub round_to: Step,
    /// Unit of the number for people to read, e.g. `mm Hg`.
    pub unit: Option<String>,
    /// What is measured.
    pub kind: MeasureKind,
}

/// What a measure computes and what it may spend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MeasureKind {
    /// Number of persons.
    Count {
        /// Share of the run's epsilon.
        epsilon: Epsilon,
    },
    /// Part of a count measure's persons that pass a test; between 0 and 1.
    Proportion {
        /// The test.
        test: Predicate,
        /// Index of the count measure, whose noisy value is the denominator.
        over: usize,
        /// Share of the run's epsilon, for the numerator.
        epsilon: Epsilon,
    },
    /// Mean of a column over the persons for whom it is known.
    Mean {
        /// Index of the column.
        column: usize,
        /// Declared bounds.
        bounds: Bounds,
        /// Share for the sum of distances from the middle of the bounds.
        epsilon_sum: Epsilon,
        /// Share for the number of persons for whom the column is known.
        epsilon_count: Epsilon,
    },
    /// Sum of a column.
    Sum {
        /// Index of the column.
        column: usize,
        /// Declared bounds.
        bounds: Bounds,
        /// Index of the count measure that decides about small groups.
        over: usize,
        /// Share of the run's epsilon.
        epsilon: Epsilon,
    },
    /// Population variance of a column over the persons for whom it is known, in squared units.
    Variance {
        /// Index of the column.
        column: usize,
        /// Declared bounds.
        bounds: Bounds,
        /// Share for the sum of distances from the middle of the bounds.
        epsilon_sum: Epsilon,
        /// Share for the sum of the squares of those distances.
        epsilon_squares: Epsilon,
        /// Share for the number of persons for whom the column is known.
        epsilon_count: Epsilon,
    },
    /// Quantile of a column: one of the multiples of the rounding step within the bounds.
    Quantile {
        /// Index of the column.
        column: usize,
        /// Declared bounds.
        bounds: Bounds,
        /// Which quantile, e.g. 1/2 for the median.
        probability: Fraction,
        /// Index of the count measure that decides about small groups.
        over: usize,
        /// Share of the run's epsilon.
        epsilon: Epsilon,
    },
    /// Ridge regression of a column on others: an intercept and one coefficient for each feature.
    LinearRegression {
        /// Index of the target column.
        target: usize,
        /// Declared bounds of the target.
        bounds: Bounds,
        /// What it is regressed on.
        features: Vec<Feature>,
        /// Names of the coefficients in the output.
        terms: Vec<String>,
        /// Largest magnitude of a released coefficient.
        limit: i64,
        /// Share of the run's epsilon.
        epsilon: Epsilon,
    },
    /// Logistic regression of a test on columns: log-odds, an intercept and one coefficient for each feature.
    LogisticRegression {
        /// The outcome; persons for whom its column is not known do not take part.
        test: Predicate,
        /// What it is regressed on.
        features: Vec<Feature>,
        /// Names of the coefficients in the output.
        terms: Vec<String>,
        /// Largest magnitude of a released coefficient.
        limit: i64,
        /// Share of the run's epsilon.
        epsilon: Epsilon,
    },
    /// Numbers that a Python script emits: clamped to the bounds, noise by the declared sensitivity.
    Emitted {
        /// Declared bounds of each number.
        bounds: Bounds,
        /// Names of the numbers; none for a single one.
        labels: Vec<String>,
        /// How far all numbers together move (L1) with one person, in units of the rounding step.
        sensitivity: u64,
        /// Index of the count measure that decides about small groups.
        over: usize,
        /// Share of the run's epsilon.
        epsilon: Epsilon,
    },
    /// Number of persons per bin of a column, within each cell of `by`.
    Histogram {
        /// Index of the column.
        column: usize,
        /// Edges; bin i has edge i included and edge i + 1 excluded; values outside are in no bin.
        edges: Vec<i64>,
        /// Names of the bins in the output.
        bins: Vec<String>,
        /// Share of the run's epsilon.
        epsilon: Epsilon,
    },
}

impl MeasureKind {
    /// The name in the recipe and the output.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Count { .. } => "count",
            Self::Proportion { .. } => "proportion",
            Self::Mean { .. } => "mean",
            Self::Sum { .. } => "sum",
            Self::Histogram { .. } => "histogram",
            Self::Variance { .. } => "variance",
            Self::Quantile { .. } => "quantile",
            Self::LinearRegression { .. } => "linear_regression",
            Self::LogisticRegression { .. } => "logistic_regression",
            Self::Emitted { .. } => "emitted",
        }
    }

    /// What the measure spends of the run's epsilon, exactly; `None` where the sum does not fit.
    pub fn epsilon(&self) -> Option<Epsilon> {
        let mut shares = self.shares().into_iter();
        let first = shares.next()?;
        shares.try_fold(first, Epsilon::checked_add)
    }

    /// The shares of its mechanisms, in the order in which they stand in the recipe.
    pub fn shares(&self) -> Vec<Epsilon> {
        match self {
            Self::Count { epsilon }
            | Self::Proportion { epsilon, .. }
            | Self::Sum { epsilon, .. }
            | Self::Histogram { epsilon, .. }
            | Self::Quantile { epsilon, .. }
            | Self::LinearRegression { epsilon, .. }
            | Self::LogisticRegression { epsilon, .. }
            | Self::Emitted { epsilon, .. } => vec![*epsilon],
            Self::Mean { epsilon_sum, epsilon_count, .. } => vec![*epsilon_sum, *epsilon_count],
            Self::Variance { epsilon_sum, epsilon_squares, epsilon_count, .. } => {
                vec![*epsilon_sum, *epsilon_squares, *epsilon_count]
            }
        }
    }

    /// Indices of the columns that it reads, keys aside.
    pub fn columns(&self) -> Vec<usize> {
        let of = |features: &[Feature], first: usize| {
            let features = features.iter().map(|feature| feature.column);
            [first].into_iter().chain(features).collect()
        };
        match self {
            Self::Count { .. } | Self::Emitted { .. } => Vec::new(),
            Self::Proportion { test, .. } => vec![test.column],
            Self::Mean { column, .. }
            | Self::Sum { column, .. }
            | Self::Variance { column, .. }
            | Self::Quantile { column, .. }
            | Self::Histogram { column, .. } => vec![*column],
            Self::LinearRegression { target, features, .. } => of(features, *target),
            Self::LogisticRegression { test, features, .. } => of(features, test.column),
        }
    }

    /// Index of the count measure that decides about small groups, where that is another measure.
    pub const fn over(&self) -> Option<usize> {
        match self {
            Self::Proportion { over, .. }
            | Self::Sum { over, .. }
            | Self::Quantile { over, .. }
            | Self::Emitted { over, .. } => Some(*over),
            _ => None,
        }
    }

    /// Names of the last axis of its cells, beside the keys; empty where there is none.
    pub fn last_axis(&self) -> &[String] {
        match self {
            Self::Histogram { bins, .. } => bins,
            Self::LinearRegression { terms, .. } | Self::LogisticRegression { terms, .. } => terms,
            Self::Emitted { labels, .. } => labels,
            _ => &[],
        }
    }
}

/// Names of bands over edges: `<45`, `45-54`, `>=65` for whole numbers, half-open intervals otherwise.
pub(super) fn band_labels(edges: &[i64], kind: ColumnType) -> Vec<String> {
    let first = edges.first().map(|edge| format!("<{edge}"));
    let last = edges.last().map(|edge| format!(">={edge}"));
    first.into_iter().chain(bin_labels(edges, kind)).chain(last).collect()
}

/// Names of the bins between edges.
pub(super) fn bin_labels(edges: &[i64], kind: ColumnType) -> Vec<String> {
    let label = |low: i64, high: i64| match kind {
        ColumnType::Int64 if low >= 0 && high - low == 1 => low.to_string(),
        ColumnType::Int64 if low >= 0 => format!("{low}-{}", high - 1),
        _ => format!("[{low},{high})"),
    };
    edges.iter().zip(edges.iter().skip(1)).map(|(low, high)| label(*low, *high)).collect()
}
