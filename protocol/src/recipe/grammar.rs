//! The `cohort` section as JSON spells it, before any rule is checked. Unknown fields are refused everywhere.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{gpu::GpuRequirement, model::Noise, prepare::RawPrepare};
use crate::{
    ids::Label,
    loss::{Delta, Epsilon},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRecipe {
    pub(super) version: u64,
    pub(super) title: String,
    pub(super) engine: String,
    pub(super) python: Option<RawPython>,
    pub(super) datasets: RawDatasets,
    #[serde(default, deserialize_with = "present")]
    pub(super) prepare: Option<RawPrepare>,
    pub(super) privacy: RawPrivacy,
    pub(super) keys: Vec<RawKey>,
    pub(super) measures: Vec<RawMeasure>,
    pub(super) minimum_group_size: u32,
    #[serde(default, deserialize_with = "present")]
    pub(super) gpu: Option<GpuRequirement>,
    pub(super) output_schema: Value,
}

/// A field that may be absent, but not null.
pub(super) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPython {
    pub(super) script: Option<String>,
    pub(super) script_sha256: Option<String>,
    pub(super) seconds: u32,
    pub(super) memory_mib: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFeature {
    pub(super) column: Label,
    pub(super) lower: i64,
    pub(super) upper: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDatasets {
    pub(super) owners: Vec<Label>,
    pub(super) columns: Vec<RawColumn>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawColumn {
    pub(super) name: Label,
    #[serde(rename = "type")]
    pub(super) kind: RawType,
    pub(super) nullable: bool,
    pub(super) decimals: Option<u8>,
    #[serde(default)]
    pub(super) missing_values: Vec<RawLiteral>,
    #[serde(default, deserialize_with = "present")]
    pub(super) owners: Option<Vec<Label>>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawType {
    Int64,
    Float64,
    Utf8,
    Bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum RawLiteral {
    Bool(bool),
    Int(i64),
    Text(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPrivacy {
    pub(super) unit: Label,
    pub(super) epsilon_per_run: Epsilon,
    pub(super) epsilon_budget: Epsilon,
    pub(super) delta: Delta,
    #[serde(default, deserialize_with = "present")]
    pub(super) delta_budget: Option<Delta>,
    #[serde(default)]
    pub(super) noise: Noise,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawKey {
    pub(super) name: Label,
    pub(super) column: Label,
    pub(super) bands: Option<Vec<i64>>,
    pub(super) categories: Option<Vec<RawLiteral>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPredicate {
    pub(super) column: Label,
    pub(super) op: RawOp,
    pub(super) value: RawLiteral,
}

#[derive(Deserialize, Clone, Copy)]
pub(super) enum RawOp {
    #[serde(rename = "=")]
    Equal,
    #[serde(rename = "!=")]
    NotEqual,
    #[serde(rename = "<")]
    Less,
    #[serde(rename = "<=")]
    LessOrEqual,
    #[serde(rename = ">")]
    Greater,
    #[serde(rename = ">=")]
    GreaterOrEqual,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum RawMeasure {
    Count {
        name: Label,
        by: Vec<Label>,
        round_to: String,
        epsilon: Epsilon,
    },
    Proportion {
        name: Label,
        by: Vec<Label>,
        round_to: String,
        #[serde(rename = "where")]
        test: RawPredicate,
        over: Label,
        epsilon: Epsilon,
    },
    Mean {
        name: Label,
        by: Vec<Label>,
        round_to: String,
        column: Label,
        lower: i64,
        upper: i64,
        unit: Option<String>,
        epsilon_sum: Epsilon,
        epsilon_count: Epsilon,
    },
    Sum {
        name: Label,
        by: Vec<Label>,
        round_to: String,
        column: Label,
        lower: i64,
        upper: i64,
        unit: Option<String>,
        over: Label,
        epsilon: Epsilon,
    },
    Histogram {
        name: Label,
        by: Vec<Label>,
        round_to: String,
        column: Label,
        edges: Vec<i64>,
        unit: Option<String>,
        epsilon: Epsilon,
    },
    Variance {
        name: Label,
        by: Vec<Label>,
        round_to: String,
        column: Label,
        lower: i64,
        upper: i64,
        unit: Option<String>,
        epsilon_sum: Epsilon,
        epsilon_squares: Epsilon,
        epsilon_count: Epsilon,
    },
    Quantile {
        name: Label,
        by: Vec<Label>,
        round_to: String,
        column: Label,
        lower: i64,
        upper: i64,
        unit: Option<String>,
        probability: String,
        over: Label,
        epsilon: Epsilon,
    },
    LinearRegression {
        name: Label,
        by: Vec<Label>,
        round_to: String,
        column: Label,
        lower: i64,
        upper: i64,
        features: Vec<RawFeature>,
        limit: i64,
        epsilon: Epsilon,
    },
    LogisticRegression {
        name: Label,
        by: Vec<Label>,
        round_to: String,
        #[serde(rename = "where")]
        test: RawPredicate,
        features: Vec<RawFeature>,
        limit: i64,
        epsilon: Epsilon,
    },
    Emitted {
        name: Label,
        by: Vec<Label>,
        round_to: String,
        lower: i64,
        upper: i64,
        unit: Option<String>,
        #[serde(default)]
        labels: Vec<Label>,
        sensitivity: Option<String>,
        over: Label,
        epsilon: Epsilon,
    },
}
