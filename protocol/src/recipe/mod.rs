//! The recipe: the `cohort` section of an app-compose file (docs/spec/recipe.md).
//!
//! A [`Recipe`] exists only after every rule of the format was checked, so that what runs it needs no
//! checks of its own. It is pinned by the compose hash; its own hash is over its RFC 8785 form.

mod cells;
mod check;
mod error;
mod explain;
mod gpu;
mod grammar;
mod model;
mod prepare;
mod schema;
#[cfg(test)]
mod tests;

use serde_json::Value;

use crate::{
    ids::{OutputSchemaHash, OwnerId, RecipeHash},
    json::{canonical, canonical_hash, sha256},
    loss::{Delta, Epsilon},
};

pub use error::RecipeError;
pub use explain::Language;
pub use gpu::{GpuArchitecture, GpuRequirement, MAX_GPUS, required_gpus};
pub use model::{
    Bounds, Column, ColumnType, Engine, Feature, Fraction, Groups, Key, Literal, Measure, MeasureKind, Noise,
    Op, Predicate, Privacy, Python, Script, Step,
};
pub use prepare::{COHORT_TABLE, OWNER_COLUMN, Prepare, PublicTable, Source, SqlStep};

/// Largest recipe, in bytes of its canonical form.
pub const MAX_RECIPE_BYTES: usize = 128 * 1024;

/// Largest output that may leave, in bytes of its canonical form.
pub const MAX_OUTPUT_BYTES: usize = 64 * 1024;

/// Most cells of one measure.
pub const MAX_CELLS: usize = 1024;

/// Most numbers that a quantile is chosen from.
pub const MAX_CANDIDATES: usize = 4096;

/// A checked recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    pub(super) title: String,
    pub(super) engine: Engine,
    pub(super) owners: Vec<OwnerId>,
    pub(super) sources: Vec<Source>,
    pub(super) prepare: Option<Prepare>,
    pub(super) columns: Vec<Column>,
    pub(super) privacy: Privacy,
    pub(super) keys: Vec<Key>,
    pub(super) measures: Vec<Measure>,
    pub(super) minimum_group_size: u32,
    pub(super) gpu: Option<GpuRequirement>,
    pub(super) output_schema: Value,
    pub(super) recipe_hash: RecipeHash,
    pub(super) output_schema_hash: OutputSchemaHash,
}

impl Recipe {
    /// Checks a `cohort` section against every rule of the format.
    ///
    /// Errors: [`RecipeError`], one variant per rule. Duplicate JSON keys are the caller's to refuse before
    /// ([`crate::compose::AppCompose::parse`] does), since `value` can no longer show them.
    pub fn parse(value: &Value) -> Result<Self, RecipeError> {
        let bytes = canonical(value).map_err(RecipeError::Canonical)?;
        if bytes.len() > MAX_RECIPE_BYTES {
            return Err(RecipeError::Size { got: bytes.len(), limit: MAX_RECIPE_BYTES });
        }
        check::numbers(value, "")?;
        let raw: grammar::RawRecipe = serde_json::from_value(value.clone()).map_err(RecipeError::Grammar)?;
        let schema_hash = canonical_hash(&raw.output_schema).map_err(RecipeError::Canonical)?;
        check::recipe(raw, RecipeHash(sha256(&bytes)), OutputSchemaHash(schema_hash))
    }

    /// SHA-256 of the RFC 8785 form of the section.
    pub const fn recipe_hash(&self) -> RecipeHash {
        self.recipe_hash
    }

    /// SHA-256 of the RFC 8785 form of the output schema.
    pub const fn output_schema_hash(&self) -> OutputSchemaHash {
        self.output_schema_hash
    }

    /// What the study is called.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// What computes the measures.
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Owners whose data the recipe may read; a run names some or all of them.
    pub fn owners(&self) -> &[OwnerId] {
        &self.owners
    }

    /// Columns of owners' files that are read.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// SQL between the files and the measures.
    pub const fn prepare(&self) -> Option<&Prepare> {
        self.prepare.as_ref()
    }

    /// How long after its start the result of a run's computation is used, where the recipe's author writes code; how
    /// long that takes would tell of rows.
    pub fn seconds(&self) -> Option<u32> {
        match &self.engine {
            Engine::Python(python) => Some(python.seconds),
            Engine::Declared => self.prepare.as_ref().map(|prepare| prepare.seconds),
        }
    }

    /// Columns of the table that keys and measures read: what `prepare` yields, or else the files' own.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Privacy unit and cost.
    pub const fn privacy(&self) -> &Privacy {
        &self.privacy
    }

    /// Cost of one run, in nano-epsilon.
    pub const fn epsilon_per_run(&self) -> Epsilon {
        self.privacy.epsilon_per_run
    }

    /// Cost of all runs together, in nano-epsilon.
    pub const fn epsilon_budget(&self) -> Epsilon {
        self.privacy.epsilon_budget
    }

    /// Failure probability of one run; zero for Laplace noise, whose mechanisms are purely epsilon-private.
    pub const fn delta_per_run(&self) -> Delta {
        self.privacy.delta_per_run
    }

    /// Failure probability of all runs together.
    pub const fn delta_budget(&self) -> Delta {
        self.privacy.delta_budget
    }

    /// Derived keys.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Measures, in output order.
    pub fn measures(&self) -> &[Measure] {
        &self.measures
    }

    /// Cells whose noisy count of persons is below this are withheld.
    pub const fn minimum_group_size(&self) -> u32 {
        self.minimum_group_size
    }

    /// The GPUs without which it does not run; `None`: it runs on CPU.
    pub const fn gpu(&self) -> Option<GpuRequirement> {
        self.gpu
    }

    /// JSON Schema (draft 2020-12) that the output must satisfy.
    pub const fn output_schema(&self) -> &Value {
        &self.output_schema
    }
}
